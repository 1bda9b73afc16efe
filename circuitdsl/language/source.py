"""Reading a circuit file from disk. Every failure becomes a diagnostic."""

from __future__ import annotations

from pathlib import Path

from circuitdsl.language.diagnostics import START, Diagnostic, Span

MAX_BYTES = 1_000_000


def read_source(path: str | Path) -> tuple[str, tuple[Diagnostic, ...]]:
    """The text of a file; an empty text and the reason where it cannot be read."""
    path = Path(path)
    try:
        if path.is_dir():
            return _refused("E001", f"{path} is a directory, not a circuit file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return _refused("E001", f"there is no file {path}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return _refused("E001", f"{path} cannot be read: {reason}")
    return decode(data)


def decode(data: bytes) -> tuple[str, tuple[Diagnostic, ...]]:
    """Bytes to text: UTF-8 without NUL bytes, with or without a byte-order mark, not too many."""
    if len(data) > MAX_BYTES:
        return _refused("E003", "the file is larger than 1 MB; a circuit file is text of a few kilobytes")
    nul = data.find(b"\0")
    if nul >= 0:
        return _refused("E002", f"not a text file: byte {nul + 1} is NUL", _place(data, nul))
    try:
        return data.decode("utf-8-sig"), ()
    except UnicodeDecodeError as error:
        at = min(error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0), len(data) - 1)
        message = f"not UTF-8 text: byte {at + 1} is 0x{data[at]:02x}"
        return _refused("E002", message, _place(data, at))


def _place(data: bytes, offset: int) -> Span:
    """Line and column of a byte."""
    before = data[:offset].replace(b"\r\n", b"\n")
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
    return Span(line, column, line, column + 1)


def _refused(code: str, message: str, span: Span = START) -> tuple[str, tuple[Diagnostic, ...]]:
    return "", (Diagnostic(code, "error", message, span),)
