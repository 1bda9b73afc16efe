"""`circuitdsl explain`: what a diagnostic's code means, with an example."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from circuitdsl.errors import UsageError

if TYPE_CHECKING:
    from circuitdsl.cli import Verbs


def register(verbs: Verbs) -> None:
    explain = verbs.add_parser("explain", help="say what the code of a diagnostic means")
    explain.add_argument("code", nargs="?", help="such as E012; without one, all codes are listed")
    explain.set_defaults(run=_explain)


def _explain(given: argparse.Namespace) -> int:
    from rich.table import Table
    from rich.text import Text

    from circuitdsl.cli.terminal import console
    from circuitdsl.language.codes import codes
    from circuitdsl.language.diagnostics import did_you_mean, shorten, suggest

    terminal = console()
    if given.code is None:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for each in codes().values():
            table.add_row(Text(each.code, _STYLES[each.code[0]]), Text(each.title))
        terminal.print(table)
        return 0
    wanted = given.code.strip("[]").upper()
    code = codes().get(wanted)
    if code is None:
        guess = did_you_mean(suggest(wanted, codes()))
        raise UsageError(f"there is no code {shorten(given.code)}{guess}", hint="circuitdsl explain lists all codes")
    terminal.print(Text.assemble((code.code, _STYLES[code.code[0]]), (f": {code.title}", "bold")))
    terminal.print()
    terminal.print(Text(code.explanation.replace("`", "")), width=min(terminal.width, 100))
    if code.example:
        terminal.print()
        for line in code.example.split("\n"):
            terminal.print(Text(f"    {line}", "cyan"), soft_wrap=True)
    return 0


#: how a code is shown, by its first letter
_STYLES = {"E": "bold red", "W": "bold yellow", "N": "bold blue"}
