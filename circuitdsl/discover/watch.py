"""What a search may cost, and telling how far it is."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from circuitdsl.brief import quoted
from circuitdsl.engine.tally import Tally
from circuitdsl.errors import UsageError
from circuitdsl.verify.session import Session

_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds, or blocks computed at one position of one prompt, after which a search stops; None for no limit."""

    seconds: float | None = None
    blocks: float | None = None


def budget_of(given: Budget | float | str | None) -> Budget:
    """A budget: seconds, `90s`, `5m`, or `2e6 blocks`.

    Raises:
        UsageError: it is none of these.
    """
    if given is None or isinstance(given, Budget):
        return given or Budget()
    text = str(given).strip()
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?) *(s|m|h|blocks?|block-positions?)?", text, re.ASCII)
    try:
        value = float(found[1]) if found else 0.0
    except ValueError:
        value = 0.0
    if not found or not 0 < value < 1e18:
        raise UsageError(f"{quoted(text)} is no budget", hint="write a time such as 90s or 5m, or work: 2e6 blocks")
    unit = found[2] or "s"
    return Budget(value * _UNITS[unit]) if unit in _UNITS else Budget(blocks=value)


@dataclass
class Watch:
    """A search under way.

    Attributes:
        doing: what is going on, for whom the spinner turns.
        ended: whether the budget was up when it was last asked about.
    """

    doing: str
    budget: Budget
    spinner: Any = None
    ended: bool = False
    start: float = field(default_factory=time.monotonic)
    _tally: Tally | None = None
    _before: int = 0

    def counts(self, tally: Tally) -> None:
        """Count the work that is done on some prompts from now on."""
        self._tally, self._before = tally, tally.block_positions

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def tell(self, what: str) -> bool:
        """Say what is going on; gives whether to go on."""
        if self.spinner:
            self.spinner.update(f"{self.doing}: {what}")
        blocks = self._tally.block_positions - self._before if self._tally else 0
        limits = (self.seconds, self.budget.seconds), (blocks, self.budget.blocks)
        self.ended = any(limit is not None and spent >= limit for spent, limit in limits)
        return not self.ended


@contextmanager
def watched(session: Session, doing: str, budget: Budget) -> Iterator[Watch]:
    """Watch a search, with a spinner where there is a place for one."""
    with session.busy(doing) as spinner:
        yield Watch(doing, budget, spinner)
