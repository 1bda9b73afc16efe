"""Files from strangers: only ordinary ones are opened, and none beyond a size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path


class Unreadable(Exception):
    """Why a file is not read, in a few words."""


@contextmanager
def opened(path: Path, limit: int | None = None) -> Iterator[BufferedReader]:
    """A file, open for reading.

    A pipe or a device is not opened: reading it may never end, and opening it may do something.

    Raises:
        Unreadable: it is not an ordinary file, it has more bytes than the limit, or it cannot be opened.
    """
    try:
        _check(path.stat(), limit)
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from None
    with open(number, "rb") as stream:
        _check(os.fstat(number), limit)  # it may have been exchanged
        yield stream


def read_ordinary(path: Path, limit: int) -> bytes:
    """What a file holds; raises what `opened` raises."""
    with opened(path, limit) as stream:
        try:
            found = stream.read(limit + 1)
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from None
    if len(found) > limit:
        raise Unreadable(_too_large(len(found), limit))
    return found


def read_named(path: Path, limit: int) -> bytes:
    """What a file holds that the user names, one byte more than the limit at the most; raises what `opened` raises.

    It may be a pipe that a shell makes for `<(…)`, or a device: these lie in /dev, where a stranger puts nothing.
    """
    known = path.absolute().parts[:2] == ("/", "dev")
    try:
        with path.open("rb") if known else opened(path) as stream:
            return stream.read(limit + 1)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None


def _check(seen: os.stat_result, limit: int | None) -> None:
    if stat.S_ISDIR(seen.st_mode):
        raise Unreadable("it is a directory")
    if not stat.S_ISREG(seen.st_mode):
        raise Unreadable("it is not an ordinary file")
    if limit is not None and seen.st_size > limit:
        raise Unreadable(_too_large(seen.st_size, limit))


def _too_large(size: int, limit: int) -> str:
    return f"it has {size / 1e6:,.1f} MB, and {limit / 1e6:,.0f} MB are read at the most"
