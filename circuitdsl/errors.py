"""Errors that are the user's to mend: shown as one sentence, never as a traceback."""

from __future__ import annotations

#: exit statuses of the command line, besides 0 and 1
SPEC_WRONG, NOT_RUN, INTERRUPTED = 2, 3, 130


class UserError(Exception):
    """Something the user can put right. `hint` says how, where that can be said.

    `status` is the exit status of the command line: 3, it could not be run; 2, a spec or a task file is wrong.
    """

    status = NOT_RUN

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(UserError):
    """A wrong word on the command line, or a name that does not exist."""

    status = SPEC_WRONG
