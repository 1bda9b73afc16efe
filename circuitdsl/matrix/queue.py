"""Which cell a worker verifies next: one of the model that it holds, else one of a model that few others hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.planning import session_of


class Queue:
    """The cells that wait, by what their session is for. A cell that comes back is taken first."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.waiting: dict[tuple[object, ...], deque[Cell]] = {}
        for cell in cells:
            self.waiting.setdefault(session_of(cell), deque()).append(cell)

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    def put_back(self, cell: Cell) -> None:
        """Let a cell wait again."""
        self.waiting.setdefault(session_of(cell), deque()).appendleft(cell)

    def rest(self) -> list[Cell]:
        """All cells that still wait."""
        return [cell for cells in self.waiting.values() for cell in cells]

    def take(self, held: Hashable, holders: Mapping[Any, int], refused: frozenset[Hashable]) -> Cell | None:
        """The next cell of a worker; None where there is none for it.

        Args:
            held: what the worker's session is for.
            holders: how many workers hold a session of each kind.
            refused: kinds whose model the worker's machine does not have.
        """
        kinds = [kind for kind, cells in self.waiting.items() if cells and kind not in refused]
        if not kinds:
            return None
        # many cells that few work on: the work of all workers ends at about the same time
        best = max(kinds, key=lambda kind: (kind == held, len(self.waiting[kind]) / (1 + holders.get(kind, 0))))
        return self.waiting[best].popleft()
