"""Transformer circuits as text files, verified claim by claim against the real model.

>>> import circuitdsl
>>> report = circuitdsl.load("pocket/ioi").verify()
>>> print(report)  # doctest: +ELLIPSIS
ioi on pocket: 25 hold
  17  each embed -> suppressor.v at S2 : effect <= -15%  −23 % [−25, −22]  holds
...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from circuitdsl.version import __version__

if TYPE_CHECKING:
    from circuitdsl.api import Spec, SpecError, diff, dumps, load, loads, prompts, render
    from circuitdsl.errors import UserError
    from circuitdsl.models.load import load_model
    from circuitdsl.report.report import Report, Reports
    from circuitdsl.verify.per_prompt import PerPrompt
    from circuitdsl.verify.session import Session
    from circuitdsl.viewing import view

__all__ = [
    "PerPrompt", "Report", "Reports", "Session", "Spec", "SpecError", "UserError", "__version__",
    "diff", "dumps", "load", "load_model", "loads", "prompts", "render", "view",
]  # fmt: skip

#: where each name comes from; nothing is imported before it is asked for
_HOMES = dict.fromkeys(
    ("Spec", "SpecError", "diff", "dumps", "load", "loads", "prompts", "render"), "circuitdsl.api"
) | {
    "PerPrompt": "circuitdsl.verify.per_prompt",
    "Report": "circuitdsl.report.report",
    "Reports": "circuitdsl.report.report",
    "Session": "circuitdsl.verify.session",
    "UserError": "circuitdsl.errors",
    "load_model": "circuitdsl.models.load",
    "view": "circuitdsl.viewing",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'circuitdsl' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
