"""How many cases Hypothesis draws."""

from __future__ import annotations

import os


def examples(few: int, many: int) -> int:
    """`few`, and `many` where `CIRCUITDSL_LONG` is set."""
    return many if os.environ.get("CIRCUITDSL_LONG") else few
