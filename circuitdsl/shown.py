"""Who waits is shown how far a long file is read. The command line says how; by default nothing is shown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

#: entered with a sentence while something long is done; gives what has an `update`, for another sentence, or None
SHOW: ContextVar[Callable[[str], AbstractContextManager[Any]]] = ContextVar("SHOW", default=lambda _: nullcontext())
