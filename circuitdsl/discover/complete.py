"""How complete a draft is: what its circuit does alone, and what it does when the same parts are taken out of both.

Everything outside is ablated to its mean. Bounds lie well inside what was measured where the circuit was found; they
are claimed where they hold on other prompts, and the figures that a draft is handed out with are of those prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from circuitdsl.discover.draft import INSIDE, Draft
from circuitdsl.report.numbers import percent
from circuitdsl.report.report import ClaimResult, Measured, Report

#: what is measured, with bounds that leave it open
_ALONE = "expect faithfulness(ablate = mean)"
_WITHOUT = "expect incompleteness(ablate = mean)"
_OPEN = (f"{_ALONE} >= -1000%", f"{_WITHOUT} <= 1000%")
#: a circuit that does less of the behaviour alone is a fragment of what does it
FRAGMENT = 0.5
#: a bound on the incompleteness that is looser says nothing worth a line
SAYS = 0.5


@dataclass(frozen=True, slots=True)
class Complete:
    """What a draft's circuit does on prompts that its search has not seen; shares of the gap.

    Attributes:
        metric: of which it is a share.
        alone: how much is there with everything outside the circuit at its mean.
        without: how far circuit and model come apart when the same parts are taken out of both.
    """

    metric: str
    alone: Measured
    without: Measured | None

    def __str__(self) -> str:
        fragment = ": it is a fragment" if self.alone.value < FRAGMENT else ""
        more = f"; its incompleteness is {_figure(self.without)}" if self.without else ""
        return f"alone this circuit recovers {_figure(self.alone)} of the gap in {self.metric}{fragment}{more}"


def _figure(found: Measured) -> str:
    """`31 % [27, 35]`"""
    limits = f" [{', '.join(percent(end, sign=False) for end in found.ci)}]" if found.ci else ""
    return percent(found.value) + limits


def completed(
    made: Draft, metric: str, where_found: Callable[[str], Report], elsewhere: Callable[[str], Report]
) -> tuple[Draft, Complete | None]:
    """The draft with claims about its whole circuit, and how complete it is.

    Args:
        made: a draft whose claims hold.
        where_found: measures lines of the draft's circuit on the prompts on which it was found.
        elsewhere: likewise on other prompts.

    Returns:
        The draft as it is, and None, where there is no circuit that could be run alone.
    """
    if not any(group.group.kind == "head" for group in made.groups):
        return made, None
    there = _figures(made, _OPEN, where_found)
    lines, alone, without = list[str](), there.get(_OPEN[0]), there.get(_OPEN[1])
    if (low := _limits(alone)[0]) > 0 and (bound := math.floor(100 * INSIDE * low)):
        lines.append(f"{_ALONE} >= {bound}%")
    if (high := _limits(without)[1] / INSIDE) <= SAYS:
        lines.append(f"{_WITHOUT} <= {math.ceil(100 * high)}%")
    here = _figures(made, (*_OPEN, *lines), elsewhere)
    kept = tuple(line for line in lines if line in here and here[line].verdict == "holds")
    found, apart = (here[line].measured if line in here else None for line in _OPEN)
    if found is None:
        return made, None
    return replace(made, expectations=(*made.expectations, *kept)), Complete(metric, found, apart)


def _figures(made: Draft, lines: tuple[str, ...], check: Callable[[str], Report]) -> dict[str, ClaimResult]:
    """What a check finds of lines about a draft's circuit."""
    found = check(replace(made, expectations=(*made.expectations, *lines)).text())
    return {claim.text: claim for claim in found.claims if claim.text in lines}


def _limits(claim: ClaimResult | None) -> tuple[float, float]:
    return (
        (-math.inf, math.inf) if claim is None or claim.measured is None else claim.measured.ci or (-math.inf, math.inf)
    )
