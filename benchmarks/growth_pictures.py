"""Growth of pictures and pages with edges and claims."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from benchmarks.growth import Case, Figure
from benchmarks.growth_claims import spec, verified
from circuitdsl import api
from circuitdsl.report.formats import FORMATS, View
from circuitdsl.report.report import Reports

KINDS = ("svg", "png")


def drawn(edges: int, heads: int, layers: int = 8) -> str:
    """A spec with so many edges between single heads, spread over some heads of GPT-2 small's first layers."""
    places = [(at % layers, at // layers) for at in range(heads)]
    pairs = [(a, b) for a, b in itertools.product(places, places) if a[0] < b[0]]
    lines = [
        f"{a[0]}.{a[1]} -> {b[0]}.{b[1]}.{port} at END : lowers" for port, (a, b) in itertools.product("qkv", pairs)
    ]
    if len(lines) < edges:
        raise ValueError(f"{heads} heads have {len(lines)} edges, not {edges}")
    head = ["circuit many", 'model "gpt2-small"', "task ioi(prompts = 32)"]
    return "\n".join(head + lines[:: len(lines) // edges][:edges]) + "\n"


def _render(edges: int, heads: int, aim: float | None) -> Case:
    def work(folder: Path) -> list[Figure]:
        found = api.loads(drawn(edges, heads))
        if not found.ok:
            raise ValueError(found.problems)
        return [Figure(f"to {kind.upper()}", _written(found, folder / f"many.{kind}"), "CPU s", aim) for kind in KINDS]

    return Case(f"render_{edges}", f"`render`, {edges} edges between {heads} heads", work)


def _written(found: api.Spec, path: Path) -> float:
    start = time.process_time()
    api.render(found, path)
    return time.process_time() - start


def _html(claims: int, aim: float) -> Case:
    def work(_: Path) -> list[Figure]:
        report = verified(spec(claims, 32))
        start = time.process_time()
        page = FORMATS["html"].reports(Reports([report]), View(lambda: None))  # type: ignore[arg-type, return-value]
        taken = time.process_time() - start
        return [Figure("to HTML", taken, "CPU s", aim), Figure("size", len(page.encode()) / 1000, "kB")]

    return Case(f"html_{claims}", f"HTML report, {claims} claims", work)


CASES = (
    _render(10, 16, None),
    _render(100, 32, None),
    _render(400, 32, 3.0),
    _render(1000, 64, 10.0),
    _html(100, 1.0),
    _html(1000, 5.0),
)
