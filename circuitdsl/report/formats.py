"""Every format that reports and comparisons of reports are written in: a row here, and a file with its functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from circuitdsl.visible import harmless

if TYPE_CHECKING:
    from rich.console import Console

    from circuitdsl.report.diff import Diff
    from circuitdsl.report.prompts import Prompts
    from circuitdsl.report.report import Report, Reports


@dataclass(frozen=True, slots=True)
class View:
    """How something is shown.

    Attributes:
        console: makes the console whose width and colours a text has.
        verbose: whether all reasons are given.
        allow_undecided: whether an undecided claim counts as no error.
        picture: draws the circuit of a report as SVG; gives an empty text where it is not at hand.
        against: reports that a summary is compared with.
    """

    console: Callable[[], Console]
    verbose: bool = False
    allow_undecided: bool = False
    picture: Callable[[Report], str] | None = None
    against: Reports | None = None

    def text(self, shows: Iterable[Callable[[Console], None]]) -> str:
        """What these functions print, an empty line between; no service that runs tests finds a command in it."""
        console = self.console()
        with console.capture() as capture:
            for number, show in enumerate(shows):
                if number:
                    console.print()
                show(console)
        return harmless(capture.get())


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        of_reports: where its function of reports and a view is, as `module:function`; the function returns a text.
        of_diff: where its function of a `Diff` and a view is; empty where comparisons are not written in it.
        suffix: of the files that are written in it unless another format is named.
        of_prompts: where its function of a task's `Prompts` and a view is, as `of_diff`.
    """

    name: str
    of_reports: str
    of_diff: str = ""
    suffix: str = ""
    of_prompts: str = ""

    def reports(self, reports: Reports, view: View) -> str:
        return resolve_name(self.of_reports)(reports, view)

    def diff(self, diff: Diff, view: View) -> str:
        return resolve_name(self.of_diff)(diff, view)

    def prompts(self, prompts: Prompts, view: View) -> str:
        return resolve_name(self.of_prompts)(prompts, view)


_JSON = "circuitdsl.report.report:as_text"
FORMATS = {
    row.name: row
    for row in (
        Format(
            "text",
            "circuitdsl.report.terminal:reports_text",
            "circuitdsl.report.diff:diff_text",
            of_prompts="circuitdsl.report.prompts:text",
        ),
        Format("json", _JSON, _JSON, ".json", of_prompts=_JSON),
        Format("github", "circuitdsl.report.github:reports_text", "circuitdsl.report.github:diff_text"),
        Format("gitlab", "circuitdsl.report.gitlab:reports_text"),
        Format("junit", "circuitdsl.report.junit:reports_text", suffix=".xml"),
        Format(
            "markdown", "circuitdsl.report.markdown:reports_text", "circuitdsl.report.markdown:diff_text", suffix=".md"
        ),
        Format("sarif", "circuitdsl.report.sarif:reports_text", suffix=".sarif"),
        Format(
            "html",
            "circuitdsl.report.page.build:page",
            suffix=".html",
            of_prompts="circuitdsl.report.prompts_html:page",
        ),
    )
}


def format_of(name: str | None, target: Path | None, otherwise: str = "text", of: str = "of_reports") -> Format:
    """The format of that name; without one, the format that the suffix of the file says, or else another.

    `of` is the attribute that says what is written.
    """
    by_suffix = {row.suffix: row for row in FORMATS.values() if row.suffix and getattr(row, of)}
    return FORMATS[name] if name else by_suffix.get(target.suffix if target else "", FORMATS[otherwise])
