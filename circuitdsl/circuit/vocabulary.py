"""The words the language knows without reserving them: metrics, roles, and their options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Literal

from circuitdsl.errors import UserError

Unit = Literal["share", "share difference", "plain", "effect", "points"]


@dataclass(frozen=True, slots=True)
class MetricShape:
    """What is known of a metric without a model.

    Attributes:
        unit: the unit in which the language writes it.
        written: the unit in which reports have it: `share`, `logits`, `nats`.
        scorer: the function that scores runs by it, "module:name" (see `engine.metrics`).
        options: its options with their values (a bare option has no values).
        low, high: what it cannot leave.
        hits: whether it is right or wrong, 1 or 0, on each prompt.
        falls: whether its clean value lies below the corrupt one.
        behaviour: whether it says something of one run alone.
        chance: the function that scores guesses; empty where there is no chance level.
    """

    unit: Unit
    written: str
    scorer: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    hits: bool = False
    falls: bool = False
    behaviour: bool = True
    chance: str = ""


_SCORERS = "circuitdsl.engine.metrics"
#: in place of a run's accuracy, that of guesses
CHANCE = "chance"


class _Metrics(Mapping[str, MetricShape]):
    """The metrics by their names: our own, and those that other packages register as entry points."""

    group = "circuitdsl.metrics"

    def __init__(self, own: Mapping[str, MetricShape]) -> None:
        self.own = dict(own)

    def __getitem__(self, name: str) -> MetricShape:
        if name not in self.own:
            self.own[name] = self._loaded(name)
        return self.own[name]

    def _loaded(self, name: str) -> MetricShape:
        for entry in entry_points(group=self.group, name=name):
            try:
                found = entry.load()
            except Exception as error:
                raise UserError(f"the metric {name} of {entry.value} cannot be loaded: {error}") from error
            if not isinstance(found, MetricShape):
                raise UserError(f"{entry.value}, registered as the metric {name}, is no MetricShape")
            return found
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.own, *(entry.name for entry in entry_points(group=self.group)))))

    def __len__(self) -> int:
        return len(list(iter(self)))


METRICS = _Metrics(
    {
        "logit_diff": MetricShape("plain", "logits", f"{_SCORERS}:logit_diff", {"against": ("mean", "max", "corrupt")}),
        "prob_diff": MetricShape("share difference", "share", f"{_SCORERS}:prob_diff", low=-1, high=1),
        "logprob": MetricShape("plain", "nats", f"{_SCORERS}:logprob", high=0),
        "accuracy": MetricShape(
            "share", "share", f"{_SCORERS}:accuracy", {"argmax": ()}, 0, 1, hits=True, chance=f"{_SCORERS}:chance"
        ),
        "kl": MetricShape("plain", "nats", f"{_SCORERS}:kl", low=0, falls=True, behaviour=False),
    }
)


def behaviours(own: bool = False) -> tuple[str, ...]:
    """The metrics that say something about the model as it is; `own`: those of this package."""
    return tuple(name for name in (METRICS.own if own else METRICS) if METRICS[name].behaviour)


ABLATIONS = ("corrupt", "mean", "zero")
PORTS = ("q", "k", "v")

ROLES = (
    "previous_token", "duplicate_token", "induction", "inhibition", "mover", "negative_mover", "backup_mover",
    "content_gatherer",
)  # fmt: skip

#: positions that every task defines where they make sense; they may coincide with a position of another name
GENERAL_POSITIONS = frozenset({"ANSWER", "DISTRACTOR"})
TASK_OPTIONS = ("corrupt", "prompts", "seed", "bos")
MAX_PROMPTS = 1_000_000
