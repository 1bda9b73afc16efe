"""`view`: a report as a page in a browser, or in another format."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import Verbs, add_outside
from circuitdsl.cli.files import output, write
from circuitdsl.cli.terminal import console, tell
from circuitdsl.errors import UsageError, UserError
from circuitdsl.report.formats import FORMATS, Format, View, format_of

if TYPE_CHECKING:
    from circuitdsl.report.again import Again
    from circuitdsl.report.report import Reports


def register(verbs: Verbs) -> None:
    view = verbs.verb(_view, "view", "show a JSON report as a page, or in another format")
    view.add_argument("report", help="a report that verify --format json wrote; --with-prompts keeps all numbers in it")
    what = "write it in this format (default: a page, or what the suffix of -o says)"
    view.add_argument("--format", choices=FORMATS, help=what)
    files = "write to this file (default: a page, to a temporary one); may be given several times"
    view.add_argument("-o", "--output", action="append", help=files)
    add_against(view)
    add_found(view)
    view.add_argument("--allow-undecided", action="store_true", help="show an undecided claim as no error")
    view.add_argument("--spec", help="its spec, for the diagram, where that has moved")
    view.add_argument("--no-browser", action="store_true", help="write the page, and open no browser")
    add_outside(view)


def _view(given: argparse.Namespace) -> int:
    from circuitdsl.api import load
    from circuitdsl.report.report import read_reports
    from circuitdsl.viewing import page_of

    path, targets = Path(given.report), [output(name) for name in given.output or (None,)]
    forms = [format_of(given.format, target, "html") for target in targets]
    base, again, reports = against(given, *forms), found_again(given, *forms), read_reports(path)
    for form, target in zip(forms, targets, strict=True):
        if form.name == "html":
            specs = [load(given.spec, allow_outside=given.allow_outside)] if given.spec else None
            show(page_of(reports, specs, path.parent, again=again), target, not given.no_browser)
        else:
            plain = partial(console, plain=target is not None)
            write(target, form.reports(reports, View(plain, allow_undecided=given.allow_undecided, against=base)))
    return 0


def add_against(verb: argparse.ArgumentParser) -> None:
    """Add the report that a summary is compared with."""
    what = "begin the Markdown with what changed since this JSON report"
    verb.add_argument("--against", metavar="BASE.json", help=what)


def against(given: argparse.Namespace, *forms: Format) -> Reports | None:
    """The reports that `--against` names.

    Raises:
        UsageError: the file is no report, or none of the formats has a comparison.
    """
    from circuitdsl.report.report import read_reports

    if not given.against:
        return None
    if all(form.name != "markdown" for form in forms):
        how = f"give --format markdown, or run: circuitdsl diff {given.against} NEW.json"
        raise UsageError(f"--against compares in Markdown, and the format is {forms[0].name}", hint=how)
    return read_reports(Path(given.against))


def add_found(verb: argparse.ArgumentParser) -> None:
    """Add the file that says how often the parts of a circuit are found again."""
    what = "of discover --found: nodes and edges that few resamples find are drawn faint"
    verb.add_argument("--found", metavar="FILE", help=what)


def found_again(given: argparse.Namespace, *forms: Format) -> Again | None:
    """What the file of `--found` says.

    Raises:
        UsageError: it says nothing of the kind, or none of the formats has a diagram.
    """
    from circuitdsl.report.again import read_again

    if not given.found:
        return None
    if forms and all(form.name != "html" for form in forms):
        raise UsageError(f"--found is drawn, and the format is {forms[0].name}", hint="give --format html, or render")
    return read_again(Path(given.found))


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
