"""Work on several threads, in units that are cut by what there is to do and never by how many threads there are.

PyTorch can share every product among its threads. They wait for each other at each product then, and how many there are
decides the last bits of a sum. Here one thread computes a whole unit by itself, so that numbers are the same, to the
last bit, on any number of threads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch

from circuitdsl.models.devices import meeting
from circuitdsl.models.outline import products
from circuitdsl.models.parts import Transformer

U = TypeVar("U")
R = TypeVar("R")
#: multiplications of one layer that hide what Python does beside them, and rows that are worth reading its weights for
WORK, ROWS = 2**31, 256
#: units of work that run as one batch at the most: smaller batches of patched runs take up to a quarter longer a row
UNITS = 2
#: units that are smaller than this share of a full one, on the average, are not worth a second thread
SMALLEST = 0.25
#: the same of groups of prompts, for which Python does less beside products
FEWEST = 0.05
#: threads that units may take; 0 outside of `measuring`
_FREE = ContextVar("_FREE", default=0)


@contextmanager
def measuring() -> Iterator[None]:
    """Inference, in which every product runs on one thread. `each` may use as many threads as torch had before."""
    own = torch.get_num_threads()
    token = None if _FREE.get() else _FREE.set(own)
    if token:
        torch.set_num_threads(1)
    try:
        with torch.inference_mode(), meeting():
            yield
    finally:
        if token:
            torch.set_num_threads(own)
            _FREE.reset(token)


def unit_rows(model: Transformer, device: str = "") -> int:
    """How many residual-stream vectors a full unit has; on a GPU, which one thread keeps busy, as many as there are.

    Args:
        device: `cpu` or `cuda`; by default where the model is.
    """
    return max(ROWS, WORK // products(model.blocks[0])) if (device or model.device.type) == "cpu" else sys.maxsize


def rows_together(model: Transformer, device: str = "") -> int:
    """Residual-stream vectors of batches that run side by side, at the most; arguments as of `unit_rows`."""
    return UNITS * unit_rows(model, device)


def each(model: Transformer, work: Callable[[U], R], units: Sequence[U], rows: Sequence[int], most: int) -> list[R]:
    """The results of some work on each unit, in order.

    An error of the work is raised here, once the units that are under way have ended; further ones are not begun.
    So it is when the user interrupts.

    Args:
        rows: residual-stream vectors of each unit.
        most: how many of them memory takes at once.
    """
    threads = min(_FREE.get(), len(units), most // max([1, *rows]))
    if threads < 2 or sum(rows) < SMALLEST * unit_rows(model) * len(units):
        return [work(unit) for unit in units]
    return _shared(threads, work, units, rows)


def each_group(
    model: Transformer, work: Callable[[U], R], groups: Sequence[U], rows: Sequence[int], most: int
) -> list[R]:
    """`each` for groups of prompts, whose work may be cut into units as well: a thread takes a whole group.

    Where one group is more than half of the work, or memory does not hold a unit of every thread, groups go one after
    the other, and the units of each share the threads.
    """
    threads = min(_FREE.get(), len(groups), most // max([rows_together(model), *rows]))
    if threads < 2 or max(rows) > sum(rows) / 2 or sum(rows) < FEWEST * unit_rows(model) * len(groups):
        return [work(group) for group in groups]
    return _shared(threads, work, groups, rows)


def _shared(threads: int, work: Callable[[U], R], units: Sequence[U], rows: Sequence[int]) -> list[R]:
    """The results in order. The dearest units come first, so that threads end at about the same time."""
    order = sorted(range(len(units)), key=lambda i: -rows[i])
    with ThreadPoolExecutor(threads, initializer=_alone) as pool:
        try:
            found = dict(zip(order, pool.map(partial(_inferring, work), [units[i] for i in order]), strict=True))
        except BaseException:  # `map` forgets units that it was still handing out when the user interrupted
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [found[i] for i in range(len(units))]


def _alone() -> None:
    _FREE.set(1)
    torch.set_num_threads(1)


def _inferring(work: Callable[[U], R], unit: U) -> R:
    with torch.inference_mode(), meeting():
        return work(unit)


def in_equal_parts(count: int, size: int) -> Iterator[tuple[int, int]]:
    """The first and the last + 1 of parts of `count` things, equal but for one, of at most `size`.

    >>> list(in_equal_parts(10, 4))
    [(0, 4), (4, 7), (7, 10)]
    """
    parts = max(1, -(-count // size))
    return pairwise(-(-count * i // parts) for i in range(parts + 1))
