"""How often Python looks for garbage: a run makes very many records that stay, and looking through them takes time.

Free memory goes back to the system where much of it was held.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: new objects after which cycles among them are looked for, and how much rarer older ones are looked through
RARELY = 100_000, 50, 50


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Garbage is looked for rarely, as the command line does it; afterwards as before."""
    before = gc.get_threshold()
    gc.set_threshold(*max(RARELY, before))
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def quickly() -> Iterator[None]:
    """Without collecting garbage: the many small records of a spec are then made in half the time.

    What was made counts as old afterwards, so that it is not looked through at once.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def give_back() -> None:
    """Return memory that was freed to the system, where the C library can do so (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
