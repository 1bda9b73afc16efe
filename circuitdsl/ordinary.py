"""Files: of those from strangers only ordinary ones are read, and none beyond a size; others are written whole."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from circuitdsl.errors import UserError

#: bytes that are read of a file at first: room for all that may be read takes time, where most files are small
AT_FIRST = 2**16


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
            found = stream.read(min(limit + 1, AT_FIRST))
            if len(found) == AT_FIRST:
                found += stream.read(limit + 1 - AT_FIRST)
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


# --- writing -------------------------------------------------------------------------------------


def write_whole(path: Path, text: str | bytes) -> None:
    """Write a file as `whole` does."""
    with whole(path) as write:
        write(text.encode(errors="backslashreplace") if isinstance(text, str) else text)


@contextmanager
def whole(path: Path) -> Iterator[Callable[[bytes], object]]:
    """A function that writes to a file, completely or not at all: one beside it is written, and renamed in the end.

    A file that is there keeps its mode. Links are followed. Pipes and devices are written to directly.

    Raises:
        UserError: the folder is missing or cannot be written.
    """
    with writing(path):
        direct = path.exists() and not path.is_file()
        path = path if direct else path.resolve()
    beside = path if direct else path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        file = beside.open("wb")

    def write(data: bytes) -> None:
        with writing(path):
            file.write(data)

    try:
        yield write
        with writing(path):
            file.close()
            if not direct and path.exists():
                shutil.copymode(path, beside)
            if not direct:
                beside.replace(path)
    finally:  # after an error, or where the run was interrupted
        with suppress(OSError):
            file.close()
        with suppress(OSError):
            if not direct:
                beside.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what keeps a file from being written as `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", hint="is the folder there, and writable?") from None
