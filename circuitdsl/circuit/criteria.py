"""What a claim says of the figure that is measured for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from circuitdsl.circuit.changes import Patch

if TYPE_CHECKING:
    from circuitdsl.circuit.measurement import Measurement

#: a share of the gap, a difference in the metric's unit, or a figure that is measured as it is
Quantity = Literal["effect", "delta", "value"]

#: effects are compared with those of matched random edges on so many of the first prompts
NULL_PROMPTS = 32


class _Worded:
    """A test that is called by its text."""

    __slots__ = ()
    text: str

    def __str__(self) -> str:
        return self.text


class _Bounded(_Worded):
    """Bounds in plain fractions (0.95 for 95 %), None where a side is open; the ends of `strict` ones are outside."""

    __slots__ = ()
    low: float | None
    high: float | None
    strict: bool

    def admits(self, value: float) -> bool:
        """Whether a figure without sampling error is within the bounds; what is not a number is not."""
        low, high = self.low, self.high
        if self.strict:
            return value == value and (low is None or value > low) and (high is None or value < high)
        return value == value and (low is None or value >= low) and (high is None or value <= high)


@dataclass(frozen=True, slots=True)
class Matters(_Worded):
    """Beyond the margin, and rarer than matched random edges."""

    text = "matters"


@dataclass(frozen=True, slots=True)
class Negligible(_Worded):
    """The effect lies inside plus or minus the margin (an equivalence test)."""

    text = "negligible"


@dataclass(frozen=True, slots=True)
class Signed:
    """Patching lowers or raises the metric by more than the margin."""

    direction: Literal["lowers", "raises"]

    def __str__(self) -> str:
        return self.direction


@dataclass(frozen=True, slots=True)
class Within(_Bounded):
    """Bounds on a quantity; a figure that is 0 on every prompt is not `> 0`."""

    quantity: Quantity
    low: float | None
    high: float | None
    text: str = field(compare=False)
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Exceeds(Within):
    """Bounds on the difference of two figures, prompt by prompt: the claim's own less `times` the other.

    `other`, and `names` of both as written, are filled in once it is resolved.
    """

    times: float = 1.0
    other: Measurement | None = None
    names: tuple[str, str] = field(default=("", ""), compare=False)


@dataclass(frozen=True, slots=True)
class Composed(_Bounded):
    """Bounds on a channel: on its rank among all upstream senders, on its z score, or on the composition itself."""

    figure: Literal["rank", "z", "composition"]
    low: float | None
    high: float | None
    strict: bool
    text: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Stronger:
    """The change of the metric is larger in size than `times` that of another patch, in the same direction."""

    patch: Patch
    name: str
    times: float = 1.0

    def __str__(self) -> str:
        return f"stronger than {self.name}" + ("" if self.times == 1 else f" by {self.times:g} times")


@dataclass(frozen=True, slots=True)
class Moves(_Worded):
    """Under a condition the figure rises or falls against the unpatched run, by at least `by` (0: at all)."""

    direction: Literal["rises", "falls"]
    by: float
    text: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class ComposedAboveChance(_Worded):
    """Composition above the 95th percentile of all upstream senders."""

    text = "composition above chance"


ChannelTest = Composed | ComposedAboveChance


@dataclass(frozen=True, slots=True)
class Beyond(_Worded):
    """A quantity at least as large as a bound, signs aside; asked of single figures by bounds on a largest one."""

    quantity: Quantity
    bound: float
    text: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class AboveChance(_Worded):
    """More than by chance.

    Two circuits share more heads than random ones in the same layers do; or the model is right more often than guesses
    among a prompt's answers and distractors (`argmax`: in the whole vocabulary) are.
    """

    text = "above chance"


@dataclass(frozen=True, slots=True)
class RolesAgree(_Worded):
    """Shared heads play the same role in both circuits."""

    text = "agree"


Test = Matters | Negligible | Signed | Within | Beyond | Stronger | Moves | ChannelTest | AboveChance | RolesAgree
