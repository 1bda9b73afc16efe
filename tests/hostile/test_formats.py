"""Hostile texts through every format: what is written has the form that harmless texts give it, and nothing raw in it.

Reports come from strangers as JSON: every text in one is spoilt. Parsers that share no code with the product read what
is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from circuitdsl.api import loads
from circuitdsl.cli.terminal import console
from circuitdsl.diagram import draw
from circuitdsl.diagram.formats import FORMATS as PICTURES
from circuitdsl.errors import UserError
from circuitdsl.report.diff import compare
from circuitdsl.report.formats import FORMATS, View
from circuitdsl.report.report import Reports
from circuitdsl.verify.session import Session
from tests.hostile.texts import TEXTS, commands, unseen

SPEC = """circuit t "TITLE"
  note "TITLE"
model "pocket"
task ioi(prompts = 16)
task other = ioi(corrupt = flip, prompts = 16)
heads suppressor = 0.3 0.5 at END role mover
heads mover = 2.4 2.5 at END
each embed -> suppressor.v at S2 : effect <= -15% "TITLE"
suppressor -> mover.q at END : negligible expected to fail "TITLE"
expect accuracy >= 99% on ioi
expect attention(mover, END -> IO) >= 95%
channel 0.3 -> 2.5.v : composition z >= 1
when suppressor is knocked out
  expect logit_diff falls
property "TITLE" for 99% of prompts
  expect logit_diff > 40
"""
HARMLESS = "zzz"
VIEW = View(console, verbose=True)
#: with tables, and tags as they are written, as services that show Markdown read it before they take tags out
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


@cache
def written() -> Any:
    """What a verification has written, as JSON: in all its texts."""
    with Session("pocket", "cpu", cache=False) as session:
        return json.loads(json.dumps(session.verify(loads(SPEC)).to_json()))


@cache
def shown() -> Any:
    with Session("pocket", "cpu", cache=False) as session:
        return session.prompts("ioi", n=2)


def spoilt(value: Any, key: str, text: str) -> Any:
    """The value with a text put into all texts under a key."""
    if isinstance(value, dict):
        return {
            k: f"{v}{text}{v}" if k == key and isinstance(v, str) else spoilt(v, key, text) for k, v in value.items()
        }
    if isinstance(value, list):
        return [f"{v}{text}{v}" if isinstance(v, str) and key == "" else spoilt(v, key, text) for v in value]
    return value


def keys(value: Any) -> set[str]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = {k for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {""}
    return own.union(*map(keys, inside))


@cache
def free() -> tuple[str, ...]:
    """The keys under which a report is read with any text."""
    found = []
    for key in sorted(keys(written())):
        try:
            Reports.from_json(spoilt(written(), key, HARMLESS))
            found.append(key)
        except UserError:
            pass
    assert {"", "circuit", "path", "name", "text", "reason", "block", "task", "corrupt", "citation"} <= set(found)
    return tuple(found)


@cache
def reports(text: str, moved: bool = False) -> Reports:
    """The report with a text in all its texts; where it is moved, other numbers and verdicts as well."""
    body = json.loads(json.dumps(written()))
    for claim in body["claims"] if moved else ():
        claim["verdict"] = "fails" if claim["verdict"] == "holds" else "holds"
        if claim["measured"]:
            claim["measured"]["value"] += 9
            claim["measured"]["ci"] = [each + 9 for each in claim["measured"]["ci"] or ()] or None
    for key in free():
        body = spoilt(body, key, text)
    return Reports.from_json(body)


def spoilt_record(record: Any, text: str) -> Any:
    """A record with a text in all its texts."""
    if is_dataclass(record):
        inside = {each.name: spoilt_record(getattr(record, each.name), text) for each in fields(record)}
        return replace(record, **inside)  # type: ignore[type-var]
    if isinstance(record, tuple):
        return tuple(spoilt_record(each, text) for each in record)
    if isinstance(record, dict):
        return {spoilt_record(key, text): spoilt_record(each, text) for key, each in record.items()}
    return record + text if isinstance(record, str) else record


def everything(text: str) -> Iterator[tuple[str, str]]:
    """(format and what it shows, what it writes) for every format that there is."""
    found, before = reports(text), reports(text, moved=True)
    view = replace(VIEW, against=before)
    circuit = loads(SPEC).circuits[0]
    circuit = replace(
        circuit, title=text, sources=(text,), claims=tuple(replace(c, text=c.text + text) for c in circuit.claims)
    )
    for row in FORMATS.values():
        yield f"{row.name} of reports", row.reports(found, view)
        if row.of_diff:
            yield f"{row.name} of a comparison", row.diff(compare(before, found), view)
        if row.of_prompts:
            yield f"{row.name} of prompts", row.prompts(spoilt_record(shown(), text), view)
    yield "html of a notebook", found._repr_html_()
    for row in PICTURES:
        if row.name != "png":
            for of, report in (("a circuit", None), ("a report", found[0])):
                picture = row.write(draw(circuit, report))
                assert isinstance(picture, str)
                yield f"{row.name} of {of}", picture


class Page(HTMLParser):
    """The tags of a page with the names of their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[tuple[str, ...]] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add((tag, *(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.add(("a comment",))

    def handle_pi(self, data: str) -> None:
        self.tags.add(("an instruction",))


def form(kind: str, content: str) -> Any:
    """What a format's own reader makes of a text, without the words in it."""
    if kind.startswith(("json", "sarif", "gitlab")):
        return shape(json.loads(content))
    if kind.startswith("html"):
        return Page(content).tags
    if kind.startswith("markdown"):
        return Page(MARKDOWN.render(content)).tags
    if kind.startswith(("svg", "junit")):
        return {(each.tag, *each.attrib) for each in ElementTree.fromstring(content).iter()}
    if kind.startswith("dot"):
        assert not re.search(r"&(?!amp;)#?\w+;", content)
        return re.sub(r'"(?:[^"\\]|\\.)*"', '""', content, flags=re.DOTALL)
    if kind.startswith("mermaid"):
        return re.sub(r'"[^"\n]*"', '""', content)
    return None


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [shape(each) for key, each in value.items() if key != "reason_shown"]  # where it is not plain ASCII
    return [shape(each) for each in value] if isinstance(value, list) else type(value)


@cache
def harmless() -> dict[str, tuple[Any, int]]:
    return {kind: (form(kind, content), len(commands(content))) for kind, content in everything(HARMLESS)}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_format_keeps_its_form(text: str) -> None:
    expected = harmless()
    for kind, content in everything(text):
        assert not unseen(content, "\n"), (kind, unseen(content, "\n"))
        content.encode()
        found, said = form(kind, content), commands(content)
        if kind in ("html of a report", "html of a circuit", "svg of a report", "svg of a circuit"):
            assert found <= expected[kind][0], kind  # words of other widths may be broken into other lines
        else:
            assert found == expected[kind][0], kind
        assert len(said) == expected[kind][1], (kind, said[:3])
        if kind.startswith("github"):
            assert all(re.match(r"::(error|warning|notice) (\w+=[^,:\r\n]*,?)+::", line) for line in said)
        if kind.startswith("html") and kind != "html of reports":  # the page has a script, and a policy against others
            assert not re.search(
                r"[\s\"']on\w+=|javascript:|<script|http-equiv|@import", re.sub(">[^<]*<", "><", content)
            )
