"""What an option may be: numbers in range, levels."""

from __future__ import annotations

import argparse
import re

#: prompts at the most, as in a spec
MOST = 1_000_000
#: bytes of memory to measure in, at the least
LEAST = 16 * 10**6


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 to {MOST}")
    return int(text)


def seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def level(text: str) -> float:
    """A significance level: `5%` or `0.05`."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 1e-9 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a level such as 5%")
    return value


def share(text: str) -> float:
    """A share of the gap: `2%` or `0.02`."""
    try:
        return level(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text} is not a share such as 2%") from None


def seconds(text: str) -> float:
    """A time: `90`, `90s`, `5m`."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    try:
        value = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e7:
        raise argparse.ArgumentTypeError(f"{text} is not a time such as 90s or 5m")
    return value


_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def size(text: str) -> int:
    """Bytes: `2GB`, `500 MB`, `1.5GiB`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)b?", text.strip().lower(), re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 2GB or 500MB")
    value = int(float(found[1]) * _SIZES[found[2]])
    if value < LEAST:
        raise argparse.ArgumentTypeError(f"{text} is too little to measure in; at least {LEAST // 10**6}MB")
    return value
