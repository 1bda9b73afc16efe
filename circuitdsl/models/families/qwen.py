"""Qwen 2 and 3: Llamas with windows in some layers; Qwen 3 norms each head's queries and keys."""

from __future__ import annotations

from functools import partial

from circuitdsl.models.families.llama import LLAMA, heads, typed

QWEN = LLAMA._replace(heads=partial(heads, window=typed))
FAMILIES = {"qwen2": QWEN._replace(title="Qwen 2, Qwen 2.5"), "qwen3": QWEN._replace(title="Qwen 3")}
