"""What reading a spec costs, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from circuitdsl.circuit.resolve import resolve
from circuitdsl.language import tables
from circuitdsl.language.automaton import Automaton
from circuitdsl.language.builder import Builder
from circuitdsl.language.parse import parse
from circuitdsl.measurements import KINDS
from tests.conftest import ROOT

WHOLE = (Path(__file__).parent.parent / "fixtures" / "whole.circ").read_text(encoding="utf-8")


def test_neither_language_nor_circuit_nor_measurements_import_anything_heavy() -> None:
    code = (
        "import sys, circuitdsl.language.parse, circuitdsl.circuit.resolve, "
        "circuitdsl.measurements, "
        "circuitdsl.circuit.claims; heavy = {'torch', 'transformer_lens', 'numpy', 'networkx', 'rich'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def best_of(times: int, text: str) -> float:
    """Seconds of the processor that parsing and resolving take, at best."""
    found = []
    for _ in range(times):
        start = time.process_time()
        file, _ = parse(text)
        resolve(file, tasks={}, kinds=KINDS)
        found.append(time.process_time() - start)
    return min(found)


def test_an_ordinary_spec_is_read_at_once() -> None:
    assert best_of(5, WHOLE) < 0.05


def test_a_thousand_lines_are_read_in_half_a_second() -> None:
    groups = "".join(WHOLE.splitlines(keepends=True)[:16])
    claims = "".join(f"inhibition -> mover.q at END : effect <= -{i / 10}%\n" for i in range(492))
    expects = "".join(f"expect attention(mover, END -> IO) >= {i / 10}%\n" for i in range(492))
    assert (groups + claims + expects).count("\n") == 1000
    assert best_of(3, groups + claims + expects) < 0.5


def test_the_tables_are_those_of_the_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are not, every command builds them: python -m circuitdsl.language.tables writes them anew."""
    assert json.loads(tables.TABLES.read_text())["of"] == tables.tables(tables.build(None))["of"]
    texts = [path.read_text() for path in sorted((ROOT / "specs").rglob("*.circ"))]
    read = [parse(text) for text in texts]
    built = tables.build(Builder())
    monkeypatch.setattr("circuitdsl.language.parse.automaton", lambda: Automaton(built))
    assert len(texts) > 12 and read == [parse(text) for text in texts]


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"of": "another grammar"}'])
def test_other_tables_are_built(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tables.json").write_text(damage)
    monkeypatch.setattr(tables, "TABLES", tmp_path / "tables.json")
    made = tables.parser(Builder())
    monkeypatch.setattr("circuitdsl.language.parse.automaton", lambda: Automaton(made))
    assert parse('circuit a "b"\nmodel "pocket"\n')[1] == ()
