"""`check` knows the positions that a prompt file gives, without a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdsl.api import load, loads
from tests.conftest import shared

SPEC = """circuit t
model "pocket"
task mine = file("{file}")
heads a = 0.6 at {place}
expect attention(a, END -> {place}) >= 1%
"""
PAIR = {"clean": "Mary and John", "corrupt": "Anna and John", "answer": " Mary", "distractor": " John"}
TOKENS = {"clean_tokens": [5, 6, 7], "corrupt_tokens": [5, 8, 7], "answer": 9, "distractor": 10}


def written(tmp_path: Path, name: str, content: str, place: str) -> Path:
    (tmp_path / name).write_text(content)
    (tmp_path / "t.circ").write_text(SPEC.format(file=name, place=place))
    return tmp_path / "t.circ"


FILES = {
    "texts.jsonl": "\n".join(json.dumps(PAIR | {"positions": p}) for p in ({"IO": "Mary"}, {"S1": "John"})),
    "tokens.jsonl": json.dumps(TOKENS | {"positions": {"IO": 0, "S1": 1}}),
    "table.csv": "clean,corrupt,answer,distractor,IO,S1\nMary and John,Anna and John, Mary, John,Mary,John\n",
}


@pytest.mark.parametrize("name", FILES)
def test_positions_of_a_file_are_known(tmp_path: Path, name: str) -> None:
    for place in ("IO", "S1", "END", "S1+1"):
        spec = load(written(tmp_path, name, FILES[name], place))
        assert spec.ok, spec.problems
    spec = load(written(tmp_path, name, FILES[name], "S2"))
    assert not spec.ok
    assert {d.code for d in spec.diagnostics if d.severity == "error"} == {"E044"}
    message = next(d.message for d in spec.diagnostics if d.code == "E044")
    assert "the task mine has no position S2" in message
    assert "IO" in message and "S1" in message and "END" in message


def test_names_that_are_none_are_not_offered(tmp_path: Path) -> None:
    content = json.dumps(PAIR | {"positions": {"io": 1, "IO": "Mary"}})
    (found,) = load(written(tmp_path, "p.jsonl", content, "S9")).diagnostics[:1]
    assert found.code == "E044"
    assert "IO" in found.message and "io" not in found.message.split("position S9")[1]


@pytest.mark.parametrize("content", ["not json\n", "", '{"positions": 3}\n', '{"positions": ["IO"]}\n', "[1]\n"])
def test_a_bad_file_is_for_others_to_report(tmp_path: Path, content: str) -> None:
    spec = load(written(tmp_path, "bad.jsonl", content, "END"))
    assert spec.ok, spec.problems


def test_a_missing_file_leaves_positions_open(tmp_path: Path) -> None:
    for name in ("nowhere.jsonl", str(tmp_path), "/dev/zero", "a\\u0000b"):
        assert loads(SPEC.format(file=name, place="S9"), str(tmp_path / "t.circ"), allow_outside=True).ok


def test_the_prompts_of_colored_objects(tmp_path: Path) -> None:
    """All prompts of Merullo et al., with the object that is asked about as a position."""
    folder = shared("colored_objects")
    clean, corrupt = (json.loads((folder / f"{side}.json").read_text()) for side in ("clean", "corrupt"))
    lines = []
    for (text, answer), (other, distractor) in zip(clean, corrupt, strict=True):
        asked = text.rpartition("?")[0].rpartition(" ")[2]
        pair = {"clean": text, "corrupt": other, "answer": answer, "distractor": distractor}
        lines.append(json.dumps(pair | {"positions": {"QUERY": f" {asked}#2"}}))
    assert len(lines) == 1000
    assert load(written(tmp_path, "co.jsonl", "\n".join(lines), "QUERY")).ok
    wrong = load(written(tmp_path, "co.jsonl", "\n".join(lines), "QUERRY"))
    assert "did you mean 'QUERY'" in wrong.problems
