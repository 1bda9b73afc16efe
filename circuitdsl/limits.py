"""The values that options of a run may have, whether given from Python, on the command line or in pytest."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from operator import index
from typing import Any

from circuitdsl.brief import quoted
from circuitdsl.circuit.vocabulary import MAX_PROMPTS, MOST_APART
from circuitdsl.errors import UsageError

#: the largest seed; larger ones are kept for claims that draw their own samples
MAX_SEED = 2**32 - 1
#: the fewest bytes of memory to measure in
LEAST_MEMORY = 16 * 10**6
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def size_of(text: str) -> int:
    """Bytes: `2GB`, `500 MB`, `1.5GiB`; raises `UsageError` where the text is no size, or the size is too small."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)b?", text.strip().lower(), re.ASCII)
    if not found:
        raise UsageError(f"{quoted(text)} is not a size such as 2GB or 500MB")
    value = int(float(found[1]) * _SIZES[found[2]])
    if value < LEAST_MEMORY:
        raise UsageError(f"{quoted(text)} is too little to measure in; at least {LEAST_MEMORY // 10**6}MB")
    return value


def memory_of(given: Any) -> int | None:
    """A number of bytes, or a size such as `2GB`; None stays None. Raises `UsageError` for anything else."""
    if given is None:
        return None
    if isinstance(given, str):
        return size_of(given)
    if not _is_whole(given) or given <= 0:
        raise UsageError(
            f"memory = {quoted(repr(given))} is neither a number of bytes nor a size", hint='write it as "2GB"'
        )
    return index(given)


def _is_whole(given: Any) -> bool:
    return hasattr(given, "__index__") and not isinstance(given, bool)


def _checked(name: str, low: int, high: int) -> Callable[[Any], int | None]:
    """A function that takes a whole number in a range, or None; it raises `UsageError` for anything else."""

    def check(given: Any) -> int | None:
        if given is None:
            return None
        if not _is_whole(given) or not low <= given <= high:
            raise UsageError(f"{name} = {quoted(repr(given))} is not a whole number from {low} to {high}")
        return index(given)

    return check


def _read(low: int, high: int) -> Callable[[str], int]:
    """A function that reads a whole number in a range, for `argparse`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{quoted(text)} is not a whole number from {low} to {high}")
        return int(text)

    return read


#: a number of prompts, a seed and a distance in tokens, given from Python
prompts_of, seed_of = _checked("prompts", 1, MAX_PROMPTS), _checked("seed", 0, MAX_SEED)
distance_of = _checked("distance", 0, MOST_APART)
#: the same, written on a command line
positive, seed, distance = _read(1, MAX_PROMPTS), _read(0, MAX_SEED), _read(0, MOST_APART)
