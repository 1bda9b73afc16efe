"""How much a test does: little by default, more where `CIRCUITDSL_LONG` is set."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


def examples(few: T, many: T) -> T:
    """`few`, and `many` where `CIRCUITDSL_LONG` is set."""
    return many if os.environ.get("CIRCUITDSL_LONG") else few
