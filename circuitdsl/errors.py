"""Errors that are the user's to mend: shown as one sentence, never as a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right. `hint` says how, where that can be said."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
