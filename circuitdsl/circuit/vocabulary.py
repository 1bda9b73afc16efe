"""The words the language knows without reserving them: metrics, measurements, roles, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

Unit = Literal["share", "share difference", "plain", "effect", "points"]


@dataclass(frozen=True, slots=True)
class MetricShape:
    """What is known of a metric, whatever the model.

    Attributes:
        unit: the unit of bounds on it.
        options: the values of each option; a bare option has none.
        low, high: the ends of the range that it cannot leave; None where there is no end.
        shown: the unit of its numbers in reports: `share` (a percentage), `nats` or `logits`.
        hits: whether it is right or wrong, 1 or 0, on each prompt.
        falls: whether it is better when lower, so that its gap (clean - corrupt) is negative.
    """

    unit: Unit
    options: Mapping[str, tuple[str, ...]]
    low: float | None = None
    high: float | None = None
    shown: Literal["share", "nats", "logits"] = "logits"
    hits: bool = False
    falls: bool = False

    @property
    def range(self) -> tuple[float, float]:
        """The range that it cannot leave; an end is infinite where there is none."""
        return -inf if self.low is None else float(self.low), inf if self.high is None else float(self.high)


METRICS: Mapping[str, MetricShape] = {
    "logit_diff": MetricShape("plain", {"against": ("mean", "max", "corrupt")}),
    "prob_diff": MetricShape("share difference", {}, -1, 1, "share"),
    "logprob": MetricShape("plain", {}, None, 0, "nats"),
    "accuracy": MetricShape("share", {"argmax": ()}, 0, 1, "share", hits=True),
    "kl": MetricShape("plain", {}, 0, None, "nats", falls=True),
}

#: metrics that say something about the model as it is; `kl` compares two runs
BEHAVIOUR = tuple(name for name in METRICS if name != "kl")

#: what the circuit does alone
WHOLE = ("faithfulness", "incompleteness", "minimality", "sufficiency")

#: measured by this version
MEASUREMENTS = (
    *BEHAVIOUR, "attention", "knockout", "denoise", "attribution", "copying", "previous_token_score",
    "duplicate_token_score", "induction_score", "role", *WHOLE,
)  # fmt: skip
#: measured under a condition too
UNDER = (*BEHAVIOUR, "attention", "attribution", "knockout")

#: what is expected in other places, and where
ELSEWHERE: Mapping[str, str] = {
    "overlap": "two circuits overlap: write it below a line 'compare ONE with OTHER'",
    "roles": "two circuits agree in roles: write it below a line 'compare ONE with OTHER'",
    "composition": "it is claimed of a channel: channel 8.10 -> 9.9.q : composition z >= 2.5",
    "effect": "an effect is that of a patch: expect knockout(mover) : effect <= -20%, or an edge with a claim",
}

ABLATIONS = ("corrupt", "mean", "zero")
#: the options of measurements of the whole circuit, each with its values, the default first
WHOLE_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "keep": ("nodes", "edges"),
    "ablate": ABLATIONS,
    "positions": ("spec", "all"),
    "form": ("normalised", "wang"),
}
PORTS = ("q", "k", "v")

ROLES = (
    "previous_token", "duplicate_token", "induction", "inhibition", "mover", "negative_mover", "backup_mover",
    "content_gatherer",
)  # fmt: skip

#: positions that every task defines where they make sense; they may coincide with a position of another name
GENERAL_POSITIONS = frozenset({"ANSWER", "DISTRACTOR"})
TASK_OPTIONS = ("corrupt", "prompts", "seed", "bos")
MAX_PROMPTS = 1_000_000
