"""Whatever a stranger uploads: one clear sentence and the exit status of it, or the numbers of what is hashed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuitdsl.models.load import POCKET
from tests.hostile.attacks import CONFIGURATIONS, HARMLESS, LOADED, PROMPTS, TOKENIZERS, WEIGHTS, Attack

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")

SPEC = """circuit t
model "."
task {task}
expect accuracy >= 50%
embed -> 0.6.v at S2 : effect <= 90%
"""
FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's directory, to be spoilt."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in FILES:
        shutil.copy(POCKET / name, folder / name)
    return folder


def commands(model: Path, *verbs: str) -> list[list[str]]:
    """The verbs on a model, and on a spec where they need one."""
    spec = model.parent / "t.circ"
    spec.write_text(SPEC.format(task="ioi"))
    known = {
        "check": ["check", str(spec), "--model", str(model)],
        "verify": ["verify", str(spec), "--model", str(model), "--prompts", "32", "--format", "json"],
        "plan": ["plan", str(spec), "--model", str(model), "--prompts", "32"],
        "channels": ["channels", str(model), "--to", "3.0.q", "--top", "1"],
        "sample": ["tasks", "sample", "ioi", "--model", str(model), "-n", "1"],
    }
    return [known[verb] for verb in verbs]


def refused(run: Callable[..., tuple[int, str, str]], command: list[str], sentence: str, status: int = 3) -> None:
    found, out, err = run(*command)
    assert found == status, (command[0], err)
    said = [line for line in err.splitlines() if line.startswith("error:")] or err.splitlines()
    assert re.search(sentence, said[0]), said
    assert "Traceback" not in out + err and "failed:" not in said[0] and len(said[0]) < 1000
    assert not out or command[0] == "check"


@pytest.mark.parametrize(
    ("attack", "sentence", "verbs"),
    [
        pytest.param(*attacks[name], verbs, id=name)
        for attacks, verbs in (
            (CONFIGURATIONS, ("verify", "plan", "channels")),
            (LOADED, ("verify", "channels")),
            (TOKENIZERS, ("verify", "plan", "sample")),
        )
        for name in attacks
    ],
)
def test_a_model_is_refused_by_all(
    attack: Attack, sentence: str, verbs: tuple[str, ...], model: Path, run: Any
) -> None:
    attack(model)
    for command in commands(model, *verbs):
        refused(run, command, sentence)


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_file_is_refused(name: str, tmp_path: Path, run: Any) -> None:
    attack, sentence = PROMPTS[name]
    attack(tmp_path)
    (tmp_path / "t.circ").write_text(SPEC.format(task='file("p.jsonl")').replace('"."', '"pocket"'))
    spec = str(tmp_path / "t.circ")
    for verb in ("check", "verify"):
        status, out, err = run(verb, spec)
        assert status == 2 and re.search(sentence, out + err), err
        assert "Traceback" not in out + err and len(err) < 2000


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report on the model as it is."""
    from circuitdsl.verify.session import Session

    folder = tmp_path_factory.mktemp("honest")
    (folder / "t.circ").write_text(SPEC.format(task="ioi"))
    with Session(str(POCKET), "cpu", cache=False) as session:
        return json.loads(json.dumps(session.verify(folder / "t.circ", prompts=32).to_json()))


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_ignored_changes_nothing(name: str, model: Path, run: Any, honest: dict[str, Any]) -> None:
    """Neither the first time nor when the model is remembered; and the report says which files were read."""
    HARMLESS[name](model)
    for _ in range(2):
        (command,) = commands(model, "verify")
        status, out, err = run(*command, "--device", "cpu")
        assert status == 0, err
        report = json.loads(out)
        assert [claim["measured"] for claim in report["claims"]] == [claim["measured"] for claim in honest["claims"]]
        assert [task["sha256"] for task in report["tasks"]] == [task["sha256"] for task in honest["tasks"]]
        assert report["model"]["sha256"] == honest["model"]["sha256"]
        for hashed, files in (("config_sha256", FILES[:1]), ("tokenizer_sha256", FILES[2:])):
            changed = any((model / file).read_bytes() != (POCKET / file).read_bytes() for file in files)
            assert (report["model"][hashed] != honest["model"][hashed]) == changed
    assert not (model / "ran").exists()


def test_prompts_of_different_lengths_are_not_padded(model: Path, run: Any) -> None:
    rows = [
        {"clean": f"John{more} went to", "corrupt": f"Mary{more} went to", "answer": " the", "distractor": " a"}
        for more in ("", " and John", " and John and Mary")
    ]
    (model.parent / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = model.parent / "t.circ"
    spec.write_text(SPEC.format(task='file("p.jsonl")').replace(" at S2", " at END"))
    told = []
    for attack in (lambda _: None, HARMLESS["padding on the left"]):
        attack(model)
        status, out, err = run("verify", str(spec), "--model", str(model), "--format", "json", "--no-cache")
        assert status in (0, 1, 3) and out, err
        report = json.loads(out)
        told.append([report["tasks"], [claim["measured"] for claim in report["claims"]]])
    assert told[0] == told[1] and told[0][0][0]["prompts"] == 3


# --- mistakes of ours, and memory -------------------------------------------------------------------


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let a verb fail."""

    def fail(error: BaseException) -> None:
        def verb(given: object) -> int:
            raise error

        monkeypatch.setattr("circuitdsl.cli.tasks.task_named", lambda name: verb(name))

    return fail


class Panic(BaseException):
    """What a library in Rust raises is no `Exception`."""


@pytest.mark.parametrize("error", [KeyError("x"), Panic("out of bounds"), RecursionError(), OSError(5, "I/O", "f")])
def test_a_mistake_of_ours_is_no_failed_claim(error: BaseException, fails: Any, run: Any) -> None:
    fails(error)
    status, out, err = run("tasks", "sample", "ioi")
    assert (status, out) == (3, "")
    assert re.search(
        rf"error: circuitdsl \S+ failed: {type(error).__name__}.*\(\S+:\d+\)\n  help: .*please report", err
    )
    assert "Traceback" not in err
    status, out, err = run("tasks", "sample", "ioi", "--debug")
    assert status == 3 and "Traceback" in err and "failed:" in err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 51539607552 bytes."),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_memory_that_runs_out_is_said_to(error: BaseException, fails: Any, run: Any) -> None:
    fails(error)
    status, _, err = run("tasks", "sample", "ioi")
    assert status == 3 and err.startswith("error: the memory does not suffice\n  help: ")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is not kept")
@pytest.mark.parametrize("kilobytes", [100_000, 300_000, 500_000, 700_000, 900_000])
def test_memory_that_would_run_out_in_torch_is_said_before(kilobytes: int, tmp_path: Path) -> None:
    """Inside torch and the tokenizers, running out of it ends the process: nobody could say anything."""
    (tmp_path / "p.jsonl").write_text('{"clean": "a", "corrupt": "b", "answer": " a", "distractor": " b"}\n')
    commands = [["verify", "pocket/ioi", "--no-cache"], ["tasks", "check", str(tmp_path / "p.jsonl")]]
    for arguments in commands[: 2 if kilobytes > 500_000 else 1]:
        command = ["bash", "-c", f'ulimit -c 0; ulimit -v {kilobytes}; exec "$@"', "bash", sys.executable]
        found = subprocess.run([*command, "-m", "circuitdsl", *arguments], capture_output=True, text=True)
        assert found.returncode == 3, found.stderr
        assert found.stderr.startswith("error: the memory does not suffice") and found.stderr.count("\n") == 2


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is not kept")
def test_what_needs_little_memory_runs_in_little() -> None:
    command = ["bash", "-c", 'ulimit -v 300000; exec "$@"', "bash", sys.executable, "-m", "circuitdsl"]
    assert subprocess.run([*command, "check", "pocket/ioi"], capture_output=True).returncode == 0


def test_a_cache_in_the_home_of_nobody(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITDSL_CACHE", "~nosuchuser/x")
    status, _, err = run("verify", "pocket/ioi")
    assert status == 3 and "error: CIRCUITDSL_CACHE is ~nosuchuser/x, and there is no such user" in err


@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 3000, "a\0b"])
def test_a_model_whose_name_no_file_can_have(name: str, run: Any) -> None:
    for command in (["channels", name, "--to", "1.0.q"], ["verify", "pocket/ioi", "--model", name]):
        refused(run, command, "is no usable path|is neither a directory nor a name")


def test_a_changed_model_is_a_copy_of_its_own_files(model: Path, run: Any) -> None:
    for attack in (HARMLESS["other files"], HARMLESS["code"]):
        attack(model)
    spec = model.parent / "t.circ"
    spec.write_text('circuit t\nmodel "pocket"\ntask ioi\nintervention off\n  scale 2.4 by 0\nexpect accuracy >= 0%\n')
    status, _, err = run("edit", str(spec), "--model", str(model), "-o", str(model.parent / "edited"))
    assert status == 0, err
    assert not {"notes.json", "results.json", "mine.py"} & {file.name for file in (model.parent / "edited").iterdir()}
