"""The page as one text: markup, style, script and data. A policy in it lets only this script and this style run."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from circuitdsl.report.formats import View
from circuitdsl.report.page.data import of_reports
from circuitdsl.report.report import Report
from circuitdsl.visible import escape, json_to_show

#: in this order they are one script
SCRIPTS = ("marks.js", "strip.js", "detail.js", "claims.js", "diagram.js", "view.js")
_TO_ESCAPE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def page(reports: Iterable[Report], view: View | None = None, live: int = 0) -> str:
    """Reports as a page of their own; with a number, `live`, it asks its server whether there is one of another."""
    found = list(reports)
    title = ", ".join(dict.fromkeys(report.spec.circuit for report in found)) or "no report"
    data = as_json(of_reports(found, view.picture if view else None))
    script = f"(() => {{\n{source()}\nstart();\n}})();\n"
    named = {
        "policy": "; ".join(_policy(script, style(), bool(live))),
        "title": escape(title),
        "style": style(),
        "live": f' data-live="{live}"' if live else "",
        "data": data,
        "script": script,
    }
    parts = _read("page.html").split("%%")  # text, name, text, …: what is put in is not looked at again
    return "".join(named[part] if i % 2 else part for i, part in enumerate(parts))


def as_json(values: Any) -> str:
    """JSON that can stand in a script element, whatever is in it."""
    text = json_to_show(values, allow_nan=False, separators=(",", ":"))
    for sign, safe in _TO_ESCAPE.items():
        text = text.replace(sign, safe)
    return text


@cache
def source() -> str:
    """The scripts as one, without a start."""
    return "\n".join(_read(name) for name in SCRIPTS)


@cache
def style() -> str:
    return _read("page.css")


def _read(name: str) -> str:
    return (files("circuitdsl.report.page") / name).read_text("utf-8")


def _policy(script: str, style: str, live: bool) -> Iterator[str]:
    """What a browser lets the page do: run its script, use its style, show pictures that stand in it."""
    yield "default-src 'none'"
    for kind, text in (("script", script), ("style", style)):
        digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
        yield f"{kind}-src 'sha256-{digest}'"
    yield "img-src data:"
    yield from ("connect-src 'self'",) * live
    yield from ("base-uri 'none'", "form-action 'none'")
