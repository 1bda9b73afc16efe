"""The view of a page as a widget of notebooks (extra `notebook`): the same scripts and style, and no server."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import anywidget
import traitlets

from circuitdsl.report.page.build import as_json, source, style
from circuitdsl.report.page.data import of_reports
from circuitdsl.report.report import Report


class ReportWidget(anywidget.AnyWidget):
    """Reports; `data` is what their page has in it."""

    _esm = f"{source()}\nexport default {{ render: inNotebook }};\n"
    _css = style()
    data = traitlets.Unicode("").tag(sync=True)


def widget(reports: Iterable[Report], picture: Callable[[Report], str] | None = None) -> ReportWidget:
    return ReportWidget(data=as_json(of_reports(reports, picture)))
