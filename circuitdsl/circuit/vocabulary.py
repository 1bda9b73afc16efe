"""The words the language knows without reserving them: metrics, roles, and their options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from circuitdsl.errors import UserError
from circuitdsl.installed import loaded, registered, the_entry

#: the values of an option that is a whole number from 1 on: what messages and editors offer
COUNT = ("1", "5", "10")
#: ranks from this one on count as this one: else a prompt of a thousand would carry the mean
LAST_RANK = 100
Unit = Literal["share", "share difference", "plain", "effect", "points"]


@dataclass(frozen=True, slots=True)
class MetricShape:
    """What is known of a metric, whatever the model.

    Attributes:
        unit: the unit of bounds on it.
        shown: the unit of its numbers in reports: `share` (a percentage), `nats` or `logits`.
        scorer: the function that scores runs by it, "module:name" (see `engine.metrics.scorer`).
        options: the values of each option; a bare option has none, one of `COUNT` a whole number.
        apart: options that exclude each other.
        low, high: the ends of the range that it cannot leave; None where there is no end.
        hits: whether it is right or wrong, 1 or 0, on each prompt.
        falls: whether it is better when lower, so that its gap (clean - corrupt) is negative.
        chance: the function that scores guesses in the place of a run; empty where there is no chance level.
        behaviour: whether it says something of one run alone; otherwise it compares with the clean run's logits.
    """

    unit: Unit
    shown: str
    scorer: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    hits: bool = False
    falls: bool = False
    chance: str = ""
    behaviour: bool = True
    apart: tuple[str, ...] = ()

    @property
    def range(self) -> tuple[float, float]:
        """The range that it cannot leave; an end is infinite where there is none."""
        return -inf if self.low is None else float(self.low), inf if self.high is None else float(self.high)


@dataclass(frozen=True, slots=True)
class Metric:
    """The metric of a spec, `logit_diff` or another of `METRICS`, with its options as written."""

    name: str = "logit_diff"
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(k if v == "" else f"{k} = {v}" for k, v in self.options)
        return f"{self.name}({inside})" if inside else self.name


_SCORERS = "circuitdsl.engine.metrics"
#: before the name of a metric: that of guesses, in the place of a run's
CHANCE = "chance of "


class _Metrics(Mapping[str, MetricShape]):
    """The metrics by their names: our own, and those that other packages register as entry points."""

    group = "circuitdsl.metrics"

    def __init__(self, own: Mapping[str, MetricShape]) -> None:
        self.own = dict(own)

    def __getitem__(self, name: str) -> MetricShape:
        if name not in self.own and (entry := the_entry(self.group, name, "metric")):
            shape = loaded(entry, "metric")
            if not isinstance(shape, MetricShape):
                raise UserError(f"{entry.value}, registered as the metric {name}, is no MetricShape")
            self.own[name] = shape
        return self.own[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.own, *(entry.name for entry in registered(self.group)))))

    def __len__(self) -> int:
        return len(list(iter(self)))


METRICS = _Metrics(
    {
        "logit_diff": MetricShape("plain", "logits", f"{_SCORERS}:logit_diff", {"against": ("mean", "max", "corrupt")}),
        "prob_diff": MetricShape("share difference", "share", f"{_SCORERS}:prob_diff", low=-1, high=1),
        "prob": MetricShape("share", "share", f"{_SCORERS}:prob", low=0, high=1),
        "logit": MetricShape("plain", "logits", f"{_SCORERS}:logit"),
        "logprob": MetricShape("plain", "nats", f"{_SCORERS}:logprob", high=0),
        "accuracy": MetricShape(
            "share",
            "share",
            f"{_SCORERS}:accuracy",
            {"argmax": (), "top": COUNT},
            0,
            1,
            hits=True,
            chance=f"{_SCORERS}:chance",
            apart=("argmax", "top"),
        ),
        "rank": MetricShape("plain", "ranks", f"{_SCORERS}:rank", low=1, high=LAST_RANK, falls=True),
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
FILE_OPTIONS = ("prompts", "seed", "bos", "chat")
MAX_PROMPTS = 1_000_000
#: tokens between a query and its key; no prompt is longer
MOST_APART = 10_000_000
