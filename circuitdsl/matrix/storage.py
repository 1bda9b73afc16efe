"""Where results are kept: named texts in a directory, in a store that fsspec knows, or in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from circuitdsl.errors import UserError
from circuitdsl.ordinary import Unreadable, read_ordinary, write_whole
from circuitdsl.report.report import BYTES


class Storage(Protocol):
    """Texts under names such as `cells/1f.json`. Each is written whole, so that it is read whole or not at all."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def names(self, folder: str) -> list[str]:
        """The names in a folder of it, sorted."""

    def read(self, name: str) -> str | None:
        """A text; None where there is none. Raises `UserError` where it cannot be read."""

    def write(self, name: str, text: str) -> None:
        """Keep a text. Raises `UserError` where it cannot be written."""


class Directory:
    """A directory, made when something is kept in it."""

    def __init__(self, path: Path) -> None:
        try:
            there = path.exists()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot keep results in {path}: {reason}", hint="name a directory") from None
        if there and not path.is_dir():
            raise UserError(f"cannot keep results in {path}: it is a file", hint="name a directory")
        self.path = path

    @property
    def name(self) -> str:
        return str(self.path)

    def names(self, folder: str) -> list[str]:
        if not (self.path / folder).is_dir():
            return []
        return sorted(f"{folder}/{each.name}" for each in (self.path / folder).iterdir() if each.name[0] != ".")

    def read(self, name: str) -> str | None:
        path = self.path / name
        try:
            return read_ordinary(path, BYTES).decode("utf-8")
        except (Unreadable, UnicodeDecodeError) as reason:
            if not path.exists():
                return None
            raise UserError(f"cannot read {path}: {reason}", hint="remove it, and run again with --resume") from None

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {path.parent}: {error.strerror}", "name another") from None
        write_whole(path, text)


class InMemory(dict[str, str]):
    """Texts that end with the process."""

    name = "memory"

    def names(self, folder: str) -> list[str]:
        return sorted(name for name in self if name.startswith(f"{folder}/"))

    def read(self, name: str) -> str | None:
        return self.get(name)

    def write(self, name: str, text: str) -> None:
        self[name] = text


class Remote:
    """A folder in a store that fsspec knows, such as `s3://bucket/folder`. A store shows an object whole or not at all.

    Raises:
        UserError: fsspec, or its part for this kind of store, is not installed; or the store does not answer.
    """

    def __init__(self, address: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise UserError(
                f"{address} needs fsspec, which is not installed", "pip install 'circuitdsl[remote]'"
            ) from None
        self.name = address.rstrip("/")
        with self._asking("open"):
            self.files, self.root = url_to_fs(self.name)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Raise `UserError` for what the many kinds of stores raise."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise UserError(f"cannot {what} {self.name}: {said}", "is the address right, and are you let in?") from None

    def _of(self, name: str) -> Any:
        return f"{self.root}/{name}"

    def names(self, folder: str) -> list[str]:
        self.files.invalidate_cache()
        try:
            with self._asking("list"):
                found = self.files.ls(self._of(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{path.rstrip('/').rpartition('/')[2]}" for path in found)

    def read(self, name: str) -> str | None:
        try:
            with self._asking("read"):
                return bytes(self.files.cat_file(self._of(name))).decode("utf-8")
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        with self._asking("write to"):
            self.files.pipe_file(self._of(name), text.encode(errors="backslashreplace"))


def is_address(name: str) -> bool:
    """Whether a name is the address of a store, and no directory."""
    return "://" in name


def storage(name: str | None) -> Storage:
    """The storage that a user names; one in memory without a name. Raises what `Remote` and `Directory` raise."""
    if not name:
        return InMemory()
    return Remote(name) if is_address(name) else Directory(Path(name))
