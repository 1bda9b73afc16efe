"""A model directory with an intervention in its weights does what the intervention does."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuitdsl import cli
from circuitdsl.api import loads
from circuitdsl.circuit.changes import Intervention, Replace, Scale, SetAttention, Verb
from circuitdsl.circuit.nodes import EVERYWHERE, Node, Position, Site
from circuitdsl.engine.intervene import intervene
from circuitdsl.errors import UserError
from circuitdsl.models.edit import NotWeights, save_edited
from circuitdsl.models.load import POCKET, load_model
from circuitdsl.models.weights import read_weights
from circuitdsl.verify.session import Session
from tests.drawing import examples
from tests.engine.small_models import make_case, save_random
from tests.families import ROWS

VERBS: dict[str, tuple[Verb, ...]] = {
    "heads": (Scale((Node("head", 1, 1), Node("head", 0, 2)), 0.3),),
    "mlps": (Scale((Node("mlp", 1),), 2.0),),
    "components": (Scale((Node("head", 1, 0, 2),), 0.0), Scale((Node("head", 1, 0, 0),), 3.0)),
    "silence": (Replace((Site(Node("head", 0, 1), EVERYWHERE), Site(Node("mlp", 0), EVERYWHERE)), "zero"),),
}


#: families with a row whose heads can be scaled in weights
SAVED = examples(("opt", "qwen3_moe"), tuple(kind for kind, row in ROWS.items() if not row.post))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "gemma", *SAVED])
@pytest.mark.parametrize("verbs", VERBS.values(), ids=VERBS)
def test_the_saved_model_does_what_the_intervention_does(kind: str, verbs: tuple[Verb, ...], tmp_path: Path) -> None:
    source = save_random(kind, tmp_path / "source")
    change = Intervention("change", "", verbs)
    save_edited(source, read_weights(source), change, tmp_path / "edited")
    case = make_case(load_model(source, "cpu"))
    wanted = case.model.logits(intervene(case.runs, change, case.positions).cache.end)
    edited = make_case(load_model(tmp_path / "edited", "cpu"))
    found = edited.model.logits(edited.runs.clean.end)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert (found - case.model.logits(case.runs.clean.end)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("verb", "why"),
    [
        (SetAttention((Node("head", 0, 0),), (Position("END"),), (Position("A"),), 1.0), "sets attention"),
        (Replace((Site(Node("head", 0, 0), EVERYWHERE),), "corrupt"), "depend on the prompt"),
        (Replace((Site(Node("head", 0, 0), Position("END")),), "zero"), "at END alone"),
    ],
)
def test_what_weights_cannot_say_is_refused(verb: Verb, why: str, tmp_path: Path) -> None:
    with pytest.raises(NotWeights, match=why):
        save_edited(POCKET, read_weights(POCKET), Intervention("x", "", (verb,)), tmp_path / "edited")
    assert not (tmp_path / "edited").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_writes_through_a_norm_cannot_be_edited(tmp_path: Path) -> None:
    source = save_random("gemma2", tmp_path / "source")
    with pytest.raises(NotWeights, match="a norm after the sum of all heads"):
        save_edited(source, read_weights(source), Intervention("x", "", VERBS["heads"]), tmp_path / "edited")
    assert not (tmp_path / "edited").exists()


def test_the_command_writes_a_directory_that_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "weak.circ"
    spec.write_text(
        'circuit weak\nmodel "pocket"\ntask ioi(prompts = 64)\nheads suppressor = 0.3 0.5 0.6 at END\n'
        "expect logit_diff <= 8\n"
        "intervention quiet\n  scale suppressor by 0.2\n  expect logit_diff <= 8\n"
    )
    assert loads(spec.read_text()).ok
    target = tmp_path / "quiet"
    assert cli.run(["edit", str(spec), "-o", str(target)]) == 0
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in target.iterdir()}
    assert not list(target.rglob("*.py"))
    report = tmp_path / "report.json"
    cli.run(["verify", str(spec), "--model", str(target), "-o", str(report), "--no-early-stop", "--no-cache"])
    cli.run(["verify", str(spec), "-o", str(tmp_path / "own.json"), "--no-early-stop", "--no-cache"])
    edited = json.loads(report.read_text())["claims"][0]["measured"]["value"]
    own = json.loads((tmp_path / "own.json").read_text())["claims"][1]["measured"]["value"]
    assert edited == pytest.approx(own, abs=1e-3)
    assert cli.run(["edit", str(spec), "-o", str(target)]) == 3
    assert "is there already" in capsys.readouterr().err


def test_which_intervention_must_be_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["edit", "pocket/repair", "-o", str(tmp_path / "x")]
    assert cli.run(arguments) == 2
    assert "look, push, both, component, control" in capsys.readouterr().err
    assert cli.run([*arguments, "--intervention", "look"]) == 3
    assert "sets attention" in capsys.readouterr().err
    assert cli.run([*arguments, "--intervention", "push"]) == 0


def test_an_edited_model_can_be_read_by_whom_other_files_can(tmp_path) -> None:
    """Whatever the modes of the model's own files are."""
    source, target = tmp_path / "own", tmp_path / "edited"
    shutil.copytree(POCKET, source)
    for file in source.rglob("*"):
        file.chmod(0o500 if file.is_dir() else 0o400)
    source.chmod(0o500)
    before = os.umask(0o022)
    try:
        save_edited(source, read_weights(source), Intervention("x", "", VERBS["heads"]), target)
    finally:
        os.umask(before)
        source.chmod(0o700)
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    modes = {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in target.iterdir() if file.is_file()}
    assert "model.safetensors" in modes and set(modes.values()) == {"0o644"}


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    weights, change = read_weights(POCKET), Intervention("x", "", VERBS["heads"])
    with pytest.raises(UserError, match=r"cannot write .*edited: No such file or directory"):
        save_edited(POCKET, weights, change, tmp_path / "nowhere" / "edited")


def test_the_revision_that_a_spec_names_is_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached = tmp_path / "hub" / "models--me--small"
    (cached / "refs").mkdir(parents=True)
    for revision in ("main", "tuned"):
        file = save_random("gpt2", cached / "snapshots" / revision) / "model.safetensors"
        (cached / "refs" / revision).write_text(revision)
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    spec = 'circuit c\nmodel "me/small", revision = "tuned"\nintervention off\n  scale 0.1 by 0\n'
    with Session(device="cpu", cache=False) as session:
        assert session.edit(loads(spec), tmp_path / "edited") == "off"
    own, edited = (
        load_file(path / "model.safetensors") for path in (cached / "snapshots" / "tuned", tmp_path / "edited")
    )
    changed = {name for name, tensor in own.items() if not torch.equal(tensor, edited[name])}
    assert changed == {"transformer.h.0.attn.c_proj.weight"}
