"""`circuitdsl fmt`: specs in the canonical layout."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.terminal import say, say_diagnostics
from circuitdsl.errors import SPEC_WRONG, UsageError

if TYPE_CHECKING:
    from circuitdsl.cli import Verbs

WOULD_CHANGE = 1


def register(verbs: Verbs) -> None:
    fmt = verbs.add_parser("fmt", help="put specs into their one layout")
    fmt.add_argument(
        "file", nargs="+", help="a .circ file, or - for standard input (the result goes to standard output)"
    )
    fmt.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file would change")
    fmt.add_argument("--diff", action="store_true", help="write nothing; print what would change")
    fmt.set_defaults(run=_fmt)


def _fmt(given: argparse.Namespace) -> int:
    from circuitdsl.report.report import write_whole

    if given.file.count("-") > 1:
        raise UsageError("standard input is given twice")
    texts = [(name, *_formatted(name)) for name in given.file]
    changed = [name for name, before, after in texts if after is not None and after != before]
    for name, before, after in texts:
        if after is None:
            continue
        if given.diff:
            sys.stdout.write(_diff(name, before, after))
        elif name == "-" and not given.check:
            sys.stdout.write(after)
        elif name in changed and given.check:
            say(f"{name} would change")
        elif name in changed:
            write_whole(Path(name), after)
            print(f"{name} formatted")
    if any(after is None for _, _, after in texts):
        return SPEC_WRONG
    return WOULD_CHANGE if given.check and changed else 0


def _formatted(name: str) -> tuple[str, str | None]:
    """A file's text, and the text in the canonical layout; None for that where there are syntax errors (printed)."""
    from circuitdsl.language.format import NotFormatted, format_text
    from circuitdsl.language.source import MAX_BYTES, decode, read_source

    if name == "-":
        text, found = decode(sys.stdin.buffer.read(MAX_BYTES + 1))
    else:
        text, found = read_source(name)
    shown = "<stdin>" if name == "-" else name
    try:
        if not found:
            return text, format_text(text, shown)
    except NotFormatted as refused:
        found = refused.diagnostics
    say_diagnostics(found, text, shown)
    return text, None


def _diff(name: str, before: str, after: str) -> str:
    """A unified diff. Different line ends alone are not shown."""
    old, new = (text.replace("\r\n", "\n").split("\n") for text in (before, after))
    return "".join(f"{line}\n" for line in difflib.unified_diff(old, new, name, f"{name} (formatted)", lineterm=""))
