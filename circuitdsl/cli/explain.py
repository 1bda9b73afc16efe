"""`circuitdsl explain`: what a diagnostic's code means, with an example."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from circuitdsl.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from circuitdsl.cli import Verbs
    from circuitdsl.language.codes import Code


def register(verbs: Verbs) -> None:
    explain = verbs.add_parser("explain", help="say what the code of a diagnostic means")
    explain.add_argument("code", nargs="?", help="such as E012; without one, all codes are listed")
    explain.set_defaults(run=_explain)


def _explain(given: argparse.Namespace) -> int:
    from circuitdsl.cli.terminal import console
    from circuitdsl.language.codes import codes
    from circuitdsl.language.diagnostics import did_you_mean, shorten, suggest

    if given.code is None:
        _list(console(), list(codes().values()))
        return 0
    wanted = given.code.strip("[]").upper()
    if wanted not in codes():
        guess = did_you_mean(suggest(wanted, codes()))
        raise UsageError(f"there is no code {shorten(given.code)}{guess}", hint="circuitdsl explain lists all codes")
    _show(console(), codes()[wanted])
    return 0


def _list(terminal: Console, found: list[Code]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for code in found:
        table.add_row(Text(code.code, _style(code)), Text(code.title))
    terminal.print(table)


def _show(terminal: Console, code: Code) -> None:
    from rich.text import Text

    terminal.print(Text.assemble((code.code, _style(code)), (f": {code.title}", "bold")))
    terminal.print()
    terminal.print(Text(code.explanation.replace("`", "")), width=min(terminal.width, 100))
    if code.example:
        terminal.print()
        for line in code.example.split("\n"):
            terminal.print(Text(f"    {line}", "cyan"), soft_wrap=True)


def _style(code: Code) -> str:
    return {"E": "bold red", "W": "bold yellow"}.get(code.code[0], "bold blue")
