"""`view`: a report as a page in a browser."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from circuitdsl.cli.arguments import Verbs, add_outside
from circuitdsl.cli.files import output, write
from circuitdsl.cli.terminal import tell
from circuitdsl.errors import UserError


def register(verbs: Verbs) -> None:
    view = verbs.verb(_view, "view", "show a JSON report as a page in a browser")
    view.add_argument("report", help="a report that verify --format json wrote; --with-prompts keeps all numbers in it")
    view.add_argument("-o", "--output", help="write the page to this file (default: a temporary one)")
    view.add_argument("--spec", help="its spec, for the diagram, where that has moved")
    view.add_argument("--no-browser", action="store_true", help="write the page, and open no browser")
    add_outside(view)


def _view(given: argparse.Namespace) -> int:
    from circuitdsl.api import load
    from circuitdsl.report.report import read_reports
    from circuitdsl.viewing import page_of

    path, target = Path(given.report), output(given.output)
    reports = read_reports(path)
    specs = [load(given.spec, allow_outside=given.allow_outside)] if given.spec else None
    show(page_of(reports, specs, path.parent), target, not given.no_browser)
    return 0


def show(page: str, target: Path | None, browser: bool = True) -> None:
    """Write a page to a file, by default a temporary one, say where, and open it where there is a display.

    Raises:
        UserError: it cannot be written.
    """
    if target is None:
        import tempfile

        try:
            number, name = tempfile.mkstemp(prefix="circuitdsl-", suffix=".html")
            with open(number, "w", encoding="utf-8") as file:
                file.write(page)
        except OSError as error:
            raise UserError(f"no temporary file can be made: {error.strerror}", hint="name one with -o") from None
        target = Path(name)
    else:
        write(target, page)
    tell(str(target))
    if browser:
        open_in_browser(target.resolve().as_uri())


def open_in_browser(address: str) -> None:
    """Open an address, where a browser has a screen to open on: a text browser would take this terminal."""
    if sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")):
        import webbrowser

        webbrowser.open(address)
