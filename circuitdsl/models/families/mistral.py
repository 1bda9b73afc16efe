"""Mistral: a Llama whose heads all see through a window, where it has one."""

from __future__ import annotations

from functools import partial

from circuitdsl.models.families.llama import LLAMA, everywhere, heads

FAMILIES = {"mistral": LLAMA._replace(title="Mistral", heads=partial(heads, window=everywhere))}
