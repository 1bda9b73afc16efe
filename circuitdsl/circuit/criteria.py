"""What a claim says of the figure that is measured for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from circuitdsl.circuit.changes import EdgePatch

#: a share of the gap, a difference in the metric's unit, or a figure that is measured as it is
Quantity = Literal["effect", "delta", "value"]

#: effects are compared with those of matched random edges on so many of the first prompts
NULL_PROMPTS = 32


def is_between(value: float, low: float | None, high: float | None, strict: bool) -> bool:
    """Whether a number is within bounds, which are open where they are None; what is not a number is not."""
    if strict:
        return value == value and (low is None or value > low) and (high is None or value < high)
    return value == value and (low is None or value >= low) and (high is None or value <= high)


@dataclass(frozen=True, slots=True)
class Matters:
    """Beyond the margin, and rarer than matched random edges."""

    def __str__(self) -> str:
        return "matters"


@dataclass(frozen=True, slots=True)
class Negligible:
    """The effect lies inside plus or minus the margin (an equivalence test)."""

    def __str__(self) -> str:
        return "negligible"


@dataclass(frozen=True, slots=True)
class Signed:
    """Patching lowers or raises the metric by more than the margin."""

    direction: Literal["lowers", "raises"]

    def __str__(self) -> str:
        return self.direction


@dataclass(frozen=True, slots=True)
class Within:
    """Bounds on a quantity: `effect` (share of the gap), `delta` (metric's unit), `value` (measured as it is).

    Bounds are in plain fractions (0.95 for 95 %); `None` where a side is open. `strict` bounds (`>`, `<`) are outside
    the region: a figure that is 0 on every prompt is not `> 0`.
    """

    quantity: Quantity
    low: float | None
    high: float | None
    text: str
    strict: bool = False

    def admits(self, value: float) -> bool:
        """Whether a figure without sampling error is within the bounds."""
        return is_between(value, self.low, self.high, self.strict)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Composed:
    """A bound on a channel: on its rank among all upstream senders, on its z score, or on the composition itself.

    `strict` bounds are outside the region; nothing else would keep rank 3 from being `< 3`.
    """

    figure: Literal["rank", "z", "composition"]
    low: float | None
    high: float | None
    strict: bool
    text: str

    def admits(self, value: float) -> bool:
        """Whether a figure is within the bounds."""
        return is_between(value, self.low, self.high, self.strict)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Stronger:
    """The change of the metric is larger in size than that of other edges, patched in the same direction."""

    patch: EdgePatch
    name: str

    def __str__(self) -> str:
        return f"stronger than {self.name}"


@dataclass(frozen=True, slots=True)
class Moves:
    """Under a condition the figure rises or falls against the unpatched run, by at least `by` (0: at all)."""

    direction: Literal["rises", "falls"]
    by: float
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ComposedAboveChance:
    """Composition above the 95th percentile of all upstream senders."""

    def __str__(self) -> str:
        return "composition above chance"


ChannelTest = Composed | ComposedAboveChance


@dataclass(frozen=True, slots=True)
class Beyond:
    """A quantity at least as large as a bound, signs aside; asked of single figures by bounds on a largest one."""

    quantity: Quantity
    bound: float
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class AboveChance:
    """More than by chance: two circuits share more heads than random ones in the same layers do, or the model is right
    more often than guesses among a prompt's answers and distractors (`argmax`: in the whole vocabulary) are."""

    def __str__(self) -> str:
        return "above chance"


@dataclass(frozen=True, slots=True)
class RolesAgree:
    """Shared heads play the same role in both circuits."""

    def __str__(self) -> str:
        return "agree"


Test = Matters | Negligible | Signed | Within | Beyond | Stronger | Moves | ChannelTest | AboveChance | RolesAgree
