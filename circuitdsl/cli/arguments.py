"""What an option may be: numbers in range, levels."""

from __future__ import annotations

import argparse

from circuitdsl.circuit.vocabulary import MAX_PROMPTS
from circuitdsl.errors import UsageError
from circuitdsl.limits import MAX_SEED, size_of


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_PROMPTS):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 to {MAX_PROMPTS}")
    return int(text)


def seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_SEED):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to {MAX_SEED}")
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


def size(text: str) -> int:
    """Bytes: `2GB`, `500 MB`, `1.5GiB`."""
    try:
        return size_of(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from None
