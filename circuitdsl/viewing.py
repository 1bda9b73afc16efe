"""Reports to look at, beside a picture of their circuit: as a page, or as a widget of a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from circuitdsl.api import Spec, load
from circuitdsl.diagram import draw, to_svg
from circuitdsl.errors import UserError
from circuitdsl.report.again import Again, read_again
from circuitdsl.report.formats import View
from circuitdsl.report.page.build import page
from circuitdsl.report.report import Report, Reports


def pictures(specs: Iterable[Spec], again: Again | None = None) -> Callable[[Report], str]:
    """What draws the circuit of a report on one of these specs; of another it gives an empty text.

    Args:
        again: in what share of resamples parts are found, which is drawn as how opaque they are.
    """
    circuits = [circuit for spec in specs for circuit in spec.circuits]

    def picture(report: Report) -> str:
        own = (c for c in circuits if c.name == report.spec.circuit and report.spec.says_what(c))
        circuit = next(own, None)
        return to_svg(draw(circuit, report, again)) if circuit else ""

    return picture


def page_of(
    reports: Reports,
    specs: Iterable[Spec] | None = None,
    folder: Path | None = None,
    live: int = 0,
    again: Again | None = None,
) -> str:
    """The page of some reports; arguments as for `pictures`, `at_hand` and `report.page.build.page`."""
    return page(reports, _view(reports, specs, folder, again), live)


def view(report: Report | Reports, specs: Iterable[Spec] | None = None, found: Path | str | None = None) -> Any:
    """A widget that shows a report in a notebook as `verify --format html` does in a browser.

    Numbers on prompts are in it where the report was made with `behind=True`. Without the package `anywidget`
    (`pip install 'circuitdsl[notebook]'`) the report itself is given back, which notebooks show as a table.

    Args:
        specs: those that were verified; by default those that lie where the reports say.
        found: a file of `discover --found`: what few resamples find is drawn faint.
    """
    reports = report if isinstance(report, Reports) else Reports([report])
    try:
        from circuitdsl.report.page.widget import widget
    except ImportError:
        return report
    return widget(reports, _view(reports, specs, again=read_again(Path(found)) if found else None).picture)


def at_hand(reports: Iterable[Report], folder: Path | None = None) -> Iterator[Spec]:
    """The specs of some reports that lie where these say, seen from here or from a folder, and say what they said.

    A report may be a stranger's: only what is called a spec is opened, and what it says is believed by its hash alone.
    """
    for report in {report.spec.path: report for report in reports}.values():
        said = Path(report.spec.path)
        for path in dict.fromkeys((said, folder / said if folder else said)):
            if spec := _same(path, report):
                yield spec
                break


def _same(path: Path, report: Report) -> Spec | None:
    """The spec in a file, where it says what it said when the report was made."""
    try:
        if path.suffix != ".circ" or not path.is_file():
            return None
        spec = load(path)
    except (OSError, ValueError, UserError):  # it cannot be read, or is no name of a file
        return None
    own = (c for c in spec.circuits if c.name == report.spec.circuit and report.spec.says_what(c))
    return spec if (report.spec.meaning or report.spec.sha256) and any(own) else None


def _view(
    reports: Reports, specs: Iterable[Spec] | None, folder: Path | None = None, again: Again | None = None
) -> View:
    from rich.console import Console

    return View(Console, picture=pictures(at_hand(reports, folder) if specs is None else specs, again))
