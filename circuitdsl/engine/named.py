"""Functions that records name as text, so that the records need no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any


@cache
def function_of(name: str, other: str = "") -> Callable[..., Any]:
    """The function "module:name", or another of that module.

    Raises:
        AttributeError: the module has no such function.
    """
    module, _, own = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), other or own)
    return found


@cache
def optional(name: str, other: str) -> Callable[..., Any] | None:
    """A function of a module, where both are there; the module may be given as "module:name"."""
    return getattr(import_module(name.partition(":")[0]), other, None) if name else None
