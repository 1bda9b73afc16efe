"""What the list of kinds promises: each passes the battery, ours or a stranger's; no other file knows one by name."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import circuitdsl
from circuitdsl import cli
from circuitdsl.api import loads
from circuitdsl.circuit.measurement import Measurement
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.measurements import KINDS
from circuitdsl.measurements.attention import Attention
from circuitdsl.testing import check_measurement
from circuitdsl.verify.cache import Memory
from circuitdsl.verify.store import Store

PACKAGE = Path(circuitdsl.__file__).parent
PAGE = PACKAGE.parent / "docs" / "language.md"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_passes_the_battery(kind: type[Measurement]) -> None:
    check_measurement(kind)


def test_a_kind_that_breaks_a_promise_is_named() -> None:
    class Nameless(KINDS[0]):  # type: ignore[misc,valid-type]
        words = ()

        @classmethod
        def names(cls) -> tuple[str, ...]:
            return ()

    with pytest.raises(AssertionError, match="Nameless has neither a word nor a statement"):
        check_measurement(Nameless)


def test_no_other_file_branches_on_a_kind() -> None:
    """A file outside `measurements/` and `engine/readers/` asks a kind; it does not look which one it has."""
    names = {kind.__name__ for kind in KINDS}
    found = []
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE)
        if place.parts[0] == "measurements" or place.parts[:2] == ("engine", "readers"):
            continue
        for part in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(part, ast.Call) and getattr(part.func, "id", "") in ("isinstance", "issubclass"):
                asked = {each.id for each in ast.walk(part.args[1]) if isinstance(each, ast.Name)}
            elif isinstance(part, ast.MatchClass):
                asked = {getattr(part.cls, "id", "")}
            else:
                continue
            found += [f"{place}:{part.lineno}" for _ in asked & names]
    assert found == []


def test_no_other_file_compares_with_the_word_of_a_kind() -> None:
    """But for the verb `set attention(…)`, and for `discover`, which writes lines of specs."""
    words = {word for kind in KINDS for word in kind.words} - {"role", "denoise"} - set(METRICS)
    found = []
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE)
        if place.parts[0] in ("measurements", "testing", "discover") or place.name == "interventions.py":
            continue
        for part in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(part, ast.Compare):
                texts = {each.value for each in ast.walk(part) if isinstance(each, ast.Constant)}
                found += [f"{place}:{part.lineno} {word}" for word in texts & words]
    assert found == []


def test_the_list_needs_no_torch() -> None:
    code = "import sys, circuitdsl.measurements; assert not {'torch', 'scipy', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_language_page_has_the_rows_of_every_kind() -> None:
    """The table of docs/language.md is what the kinds say of themselves, in the order of the list."""
    rows = [f"| {row} |" for kind in KINDS for row in kind.usage]
    table = PAGE.read_text(encoding="utf-8").split("| measurement | of | takes |\n|---|---|---|\n")[1].split("\n\n")[0]
    assert table.splitlines() == rows


def test_every_word_is_explained_once() -> None:
    words = [word for kind in KINDS for word in kind.words]
    assert len(set(words)) == len(words)
    said = " ".join(row for kind in KINDS for row in kind.usage)
    assert {word for word in words if not re.search(rf"`{word}\b", said)} == set()


# --- a stranger's ------------------------------------------------------------------------------------

STRANGER = Path(__file__).parent.parent / "fixtures" / "stranger"


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> type[Measurement]:
    """A package with a measurement and a metric of its own, as pip would have installed it."""
    monkeypatch.syspath_prepend(str(STRANGER))
    monkeypatch.setattr(KINDS, "_words", dict(KINDS._words))
    monkeypatch.setattr(METRICS, "own", dict(METRICS.own))
    kind = KINDS.word("peak")
    assert kind is not None
    return kind


def test_a_kind_of_another_package_passes_the_battery(stranger: type[Measurement]) -> None:
    assert stranger.__module__ == "stranger.peak"
    check_measurement(stranger)


def test_a_metric_of_another_package_is_measured(stranger: type[Measurement]) -> None:
    text = 'circuit c\nmodel "pocket"\ntask ioi(prompts = 64)\nmetric odds\nexpect odds > 0\nexpect accuracy >= 90%\n'
    report = loads(text).verify(cache=False)
    odds, accuracy = report.claims
    assert (odds.verdict, odds.measured.unit, accuracy.verdict) == ("holds", "nats", "holds")
    assert report.tasks[0].metric == "odds"


@pytest.mark.long
def test_edited_code_of_another_package_is_measured_anew(tmp_path: Path) -> None:
    shutil.copytree(STRANGER, tmp_path / "site")
    text = (
        'circuit c\nmodel "pocket"\ntask ioi(prompts = 64)\nmetric odds\nexpect odds > 0\nexpect peak(2.5, END) > 1%\n'
    )
    (tmp_path / "t.circ").write_text(text)
    path = os.pathsep.join([str(tmp_path / "site"), *sys.path])
    given = os.environ | {"PYTHONPATH": path, "CIRCUITDSL_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "circuitdsl", "verify", str(tmp_path / "t.circ"), "--format", "json"]

    def values() -> tuple[list[float], float]:
        run = subprocess.run(command, capture_output=True, text=True, env=given)
        report = json.loads(run.stdout)
        return [claim["measured"]["value"] for claim in report["claims"]], report["cached"]

    before, _ = values()
    assert values() == (before, 1)
    for name, line, more in (("odds", "return p.log() - (1 - p).log()", " + 5"), ("reader", ".mean(0)", ".div(2)")):
        file = tmp_path / "site" / "stranger" / f"{name}.py"
        file.write_text(file.read_text().replace(line, line + more))
    after, cached = values()
    assert after == pytest.approx([before[0] + 5, before[1] / 2]) and cached == 0


def test_a_request_of_another_package_is_not_taken_for_ours() -> None:
    ours = Attention((Node("head", 1, 2),), (Position("END"),), (Position("IO"),))
    theirs = type("Attention", (Attention,), {"__module__": "stranger.attention"})(ours.heads, ours.source, ours.target)
    memory = Memory(Store(Path(":memory:")), b"", b"", (), tuple)
    assert repr(theirs) == repr(ours) and memory.name(theirs) != memory.name(ours)


def test_a_word_that_nobody_registers_is_unknown() -> None:
    spec = loads('circuit c\nmodel "pocket"\ntask ioi\nexpect peak(1.0, END) >= 10%\n')
    assert [found.code for found in spec.diagnostics] == ["E048"]


BROKEN = {
    "metrics": ("metric", 'circuit c\nmodel "pocket"\ntask ioi(prompts = 64)\nmetric WORD\nexpect accuracy >= 50%\n'),
    "measurements": ("measurement", 'circuit c\nmodel "pocket"\ntask ioi\nexpect WORD(1.0) >= 10%\n'),
    "tasks": ("task", 'circuit c\nmodel "pocket"\ntask WORD\nexpect accuracy >= 50%\n'),
}


@pytest.mark.parametrize("group", BROKEN)
@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("nothing_of_the_kind:X", "cannot be loaded: ModuleNotFoundError"),
        ("stranger.peak:Nothing", "cannot be loaded: AttributeError"),
        ("math:pi", "is no "),
    ],
)
def test_a_broken_package_is_said_in_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    group: str,
    place: str,
    says: str,
) -> None:
    word = "broken"
    folder = tmp_path / "odd-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[circuitdsl.{group}]\n{word} = {place}\n")
    monkeypatch.syspath_prepend(str(STRANGER))
    monkeypatch.syspath_prepend(str(tmp_path))
    what, text = BROKEN[group]
    (tmp_path / "t.circ").write_text(text.replace("WORD", word))
    assert cli.run(["check", str(tmp_path / "t.circ")]) == 3
    err = capsys.readouterr().err
    assert says in err and f"the {what} {word}" in err and "Traceback" not in err
    assert place in err
    assert word not in METRICS.own and word not in KINDS._words


@pytest.mark.parametrize("group", BROKEN)
def test_a_word_of_two_packages_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], group: str
) -> None:
    for package in ("odd", "even"):
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[circuitdsl.{group}]\nshared = stranger.peak:Peak\n")
    monkeypatch.syspath_prepend(str(STRANGER))
    monkeypatch.syspath_prepend(str(tmp_path))
    what, text = BROKEN[group]
    (tmp_path / "t.circ").write_text(text.replace("WORD", "shared"))
    assert cli.run(["check", str(tmp_path / "t.circ")]) == 3
    err = capsys.readouterr().err
    assert f"several packages register the {what} shared: even 1.0, odd 1.0" in err
    assert "uninstall all but one" in err and "Traceback" not in err
