"""`circuitdsl.toml`, and from it to cells."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from circuitdsl.api import SpecError
from circuitdsl.errors import SPEC_WRONG, UserError
from circuitdsl.matrix import planning
from circuitdsl.matrix.config import ConfigError, read
from circuitdsl.matrix.planning import plan
from circuitdsl.matrix.results import Results
from circuitdsl.matrix.runs import Run
from circuitdsl.matrix.storage import Directory
from tests.matrix.conftest import IOI, run

GOOD = """results = "kept"

[[run]]
specs = ["*.circ"]
models = ["pocket", "small"]
seeds = [0, 1]

[[run]]
specs = ["pocket/ioi"]
tasks = ["ioi(corrupt = flip)"]
options = {prompts = 32, early_stop = false}
"""


def written(lab: Path, text: str) -> Path:
    (lab / "circuitdsl.toml").write_text(text)
    return Path("circuitdsl.toml")


def test_a_file_says_which_cells_there_are(lab: Path) -> None:
    found = read(written(lab, GOOD))
    assert found.results == "kept"
    first, second = found.runs
    assert first == Run(("ioi.circ", "weights.circ"), ("pocket", "small"), (), (0, 1), {})
    assert second.options == {"prompts": 32, "early_stop": False}
    cells = plan(found.runs)
    assert len(cells) == 2 * 2 * 2 + 1
    assert [cell.instead for cell in cells] == ["pocket"] * 4 + ["small"] * 4 + [None]
    assert (cells[-1].model, cells[-1].own, cells[-1].task) == ("pocket", True, "ioi(corrupt = flip)")


def test_paths_are_from_the_folder_of_the_file(lab: Path, tmp_path_factory, monkeypatch: pytest.MonkeyPatch) -> None:
    written(lab, GOOD + 'models = ["./small"]\n')
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    found = read(lab / "circuitdsl.toml")
    assert found.runs[0].specs == (str(lab / "ioi.circ"), str(lab / "weights.circ"))
    assert found.runs[0].models == ("pocket", str(lab / "small"))
    assert found.results == str(lab / "kept")


def test_run_verifies_what_the_file_says_and_goes_on_with_it(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(lab, GOOD.partition('[[run]]\nspecs = ["pocket')[0])
    assert run("run") in (0, 1)
    assert len(Results(Directory(lab / "kept")).records()) == 8
    assert run("run") == UserError.status
    capsys.readouterr()
    assert run("run --resume") in (0, 1)
    assert "8 cells" in capsys.readouterr().out


def test_all_mistakes_are_named_at_once_with_their_lines(lab: Path) -> None:
    text = """[[run]]
specs = ["none/*.circ", "ioi.circ", "pocket/iob"]
models = [
  "pocket",
  "./nowhere",
]
tasks = ["oii(corrupt = flip)", "p.jsonl"]
seeds = [0, -1]
[run.options]
prompts = 0
early_stopp = true
dtype = "float8"
each_at = 5

[[run]]
specs = "ioi.circ"
sedes = [1]

[[run]]
seeds = ["0"]

[other]
"""
    with pytest.raises(ConfigError) as caught:
        read(written(lab, text))
    lines = [line for line in caught.value.message.splitlines() if not line.startswith("  help: ")]
    assert [int(line.split(":")[1]) for line in lines] == [2, 2, 5, 7, 7, 8, 10, 11, 12, 13, 16, 17, 19, 20, 22]
    for words in (
        "no file matches none/*.circ", "no shipped spec of that name; did you mean 'pocket/ioi'?",
        "there is no model directory ./nowhere", "there is no task 'oii(corrupt = flip)'", "no prompt file p.jsonl",
        "a seed is a whole number from 0", "prompts is a whole number from 1", "did you mean 'early_stop'?",
        "dtype is one of float32", "each_at is a level between 0 and 1", "specs is a list of texts",
        "did you mean 'seeds'?", "the run names no specs", "seeds is a list of whole numbers", "no key other here",
    ):  # fmt: skip
        assert words in caught.value.message
    assert run("run") == SPEC_WRONG


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no run"),
        ("[[run]\n", "circuitdsl.toml: .*line 1"),
        ("run = 3\n", "run is no list of tables"),
        ("[run]\nspecs = ['ioi.circ']\n", "run is no list of tables"),
        ("run = [1, 2]\n", "run is no list of tables"),
        ("results = 3\n[[run]]\nspecs = ['ioi.circ']\n", "results is the name of a directory"),
        ("[[run]]\nspecs = ['ioi.circ']\noptions = 3\n", "options is a table"),
        ("[[run]]\nspecs = ['\\u0000']\n", "there is no file"),
        ("a" * 10**6 + "b", "more than 1 MB"),
    ],
)
def test_what_is_no_matrix_is_refused(text: str, said: str, lab: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        read(written(lab, text))


def test_a_missing_file_and_one_that_is_no_text(lab: Path) -> None:
    assert run("run") == SPEC_WRONG
    (lab / "circuitdsl.toml").write_bytes(b"\xff\xfe")
    assert run("run") == SPEC_WRONG


def test_errors_of_all_specs_are_named_before_anything_runs(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lab / "a.circ").write_text(IOI.replace("-> logits", "-> nobody"))
    (lab / "b.circ").write_text(IOI.replace("expect", "exepct"))
    (lab / "c.circ").write_text('circuit c\nmodel "pocket"\ntask ioi\n')
    assert run("verify a.circ b.circ c.circ --seed 0 --seed 1 --results r") == SPEC_WRONG
    said = capsys.readouterr().err
    assert "a.circ:6" in said and "b.circ:8" in said and "c.circ makes no claim" in said
    assert not (lab / "r").exists()


def test_a_spec_names_no_model_outside_its_folder(lab: Path) -> None:
    (lab / "specs").mkdir()
    for name, inside in (("../small", False), (str(lab / "small"), False), ("./own", True)):
        (lab / "specs" / "own").mkdir(exist_ok=True)
        for file in (lab / "small").iterdir():
            (lab / "specs" / "own" / file.name).write_bytes(file.read_bytes())
        text = IOI.replace('model "pocket"', f'model "{name}"').replace("2.4 2.5", "1.4 1.5")
        (lab / "specs" / "x.circ").write_text(text)
        if inside:
            assert plan([Run(("specs/x.circ",))])[0].own
            continue
        with pytest.raises(UserError, match="lies outside its folder"):
            plan([Run(("specs/x.circ",))])
        assert plan([Run(("specs/x.circ",))], allow_outside=True)
        assert plan([Run(("specs/x.circ",), ("small",))])[0].instead == "small"  # what the user names is trusted


@pytest.mark.parametrize(
    "written", ['task t = file("../p.jsonl")', 'task t = file("{lab}/p.jsonl")', 'use "../ioi.circ"']
)
def test_a_spec_opens_no_file_outside_its_folder(written: str, lab: Path) -> None:
    (lab / "specs").mkdir()
    (lab / "p.jsonl").write_text("{}\n")
    task = written.format(lab=lab)
    (lab / "specs" / "x.circ").write_text(IOI.replace("task ioi(prompts = 32)", task).replace("S2", "END"))
    with pytest.raises(SpecError, match=r"outside|out of the folder"):
        plan([Run(("specs/x.circ",))])


def test_ten_thousand_cells_are_planned_with_each_file_read_once(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(25):
        (lab / f"s{number}.circ").write_text(IOI.replace(">= 12", f">= {number}"))
    hashed, read_of = [], []
    real, real_spec = planning.model_hash, planning.as_written
    monkeypatch.setattr(planning, "model_hash", lambda *place: hashed.append(place) or real(*place))
    monkeypatch.setattr(planning, "as_written", lambda *given: read_of.append(given[0]) or real_spec(*given))
    specs = tuple(f"s{number}.circ" for number in range(25))
    wanted = Run(specs, ("pocket", "small"), ("ioi", "ioi(corrupt = flip)"), tuple(range(100)))
    start = time.process_time()
    cells = plan([wanted])
    taken = time.process_time() - start
    assert len({cell.key for cell in cells}) == 10_000
    assert sorted(hashed) == [("pocket", None), ("small", None)]
    assert sorted(read_of) == sorted(specs)
    assert taken < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3_000_000  # of the whole test process, in kilobytes


def test_the_key_of_a_cell_changes_with_whatever_it_depends_on(lab: Path) -> None:
    (lab / "p.jsonl").write_text("{}\n")
    (lab / "f.circ").write_text(
        IOI.replace("task ioi(prompts = 32)", 'task ioi = file("p.jsonl")').replace("S2", "END")
    )
    seen = set()

    def key(**change) -> str:
        (cell,) = plan([Run(**({"specs": ("f.circ",), "models": ("small",), "seeds": (0,)} | change))])
        return cell.key

    seen.add(key())
    assert key() in seen
    for change in ({"seeds": (1,)}, {"tasks": ("ioi",)}, {"options": {"prompts": 5}}, {"models": ("pocket",)}):
        seen.add(key(**change))
    (lab / "p.jsonl").write_text("{ }\n")
    seen.add(key())
    (lab / "small" / "config.json").write_text((lab / "small" / "config.json").read_text() + " ")
    seen.add(key())
    (lab / "f.circ").write_text((lab / "f.circ").read_text() + "# more\n")
    seen.add(key())
    assert len(seen) == 8
