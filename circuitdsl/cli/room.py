"""A process that may take little memory (`ulimit -v`) is told so before libraries end it.

Where memory runs out inside them, the libraries that compute end the process: with the status of a failed claim, or by
a signal. That cannot be caught. So what is left is looked at before they are imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

MB = 2**20
#: bytes of address space that a library takes when it is imported and does the least of its work, without others
NEEDED = {"numpy": 150 * MB, "scipy": 250 * MB, "tokenizers": 100 * MB, "torch": 800 * MB, "transformers": 150 * MB}
#: bytes without which nothing is begun
LEAST = 256 * MB


class NoRoom(MetaPathFinder):
    """Finds no modules; raises `MemoryError` where there is no room for one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if (needed := NEEDED.get(name)) and name not in sys.modules and (room := self.limit - taken()) < needed:
            raise MemoryError(
                f"{name} needs about {needed / MB:,.0f} MB of address space, and {max(room, 0) / MB:,.0f} MB are left "
                "(ulimit -v)"
            )


def taken() -> int:
    """Bytes of address space that this process has taken; 0 where that is not known."""
    import resource

    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0


def look_ahead() -> None:
    """Refuse imports for which there is too little room, where this process has a limit.

    Raises:
        MemoryError: nothing can be done in it.
    """
    if sys.platform == "win32":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    if limit < LEAST:
        raise MemoryError
    if not any(isinstance(finder, NoRoom) for finder in sys.meta_path):
        sys.meta_path.insert(0, NoRoom(limit))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # every thread takes a share of the room
