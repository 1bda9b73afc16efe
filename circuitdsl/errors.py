"""Errors that the user can put right: they are shown as one sentence, never as a traceback."""

from __future__ import annotations

import errno

from circuitdsl.brief import LINE, brief
from circuitdsl.visible import visible

#: how libraries say that there is no memory, where they raise something else than `MemoryError`
_NO_MEMORY = (
    "allocate memory",
    "failed to map segment",
    "not enough memory",
    "out of memory",
    "start new thread",
    "bad_alloc",
)
#: exit statuses of the command line, besides 0 and 1
SPEC_WRONG, NOT_RUN, INTERRUPTED = 2, 3, 130


class UserError(Exception):
    """Something that the user can put right; `hint` says how, if that is known.

    What is very long in them is cut.

    `status` is the exit status of the command line: 3 if it could not be run, 2 if a spec or a task file is wrong.
    `keep` is what stays of a message that cannot be seen: it is one line, unless line ends are kept. `longest` are the
    characters that a line of it has at the most.
    """

    status = NOT_RUN
    keep = ""
    longest = LINE

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = brief(visible(message, self.keep), self.longest)
        self.hint = hint and brief(visible(hint))
        super().__init__(self.message)


class UsageError(UserError):
    """A wrong word on the command line, or a name that does not exist."""

    status = SPEC_WRONG


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    says_so = type(error).__name__ == "OutOfMemoryError" or any(said in str(error).lower() for said in _NO_MEMORY)
    return isinstance(error, ImportError | RuntimeError) and says_so
