"""`circuitdsl dictionaries`: what is said of a dictionary on a task, as a table, JSON and a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from circuitdsl.cli import run
from circuitdsl.dictionaries import place_of, shipped
from circuitdsl.verify.session import Session

D = 128


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Two features for each dimension of what enters layer 1: they explain everything."""
    one = torch.eye(D)
    both = torch.cat((one, -one))
    tensors = {"W_enc": both.T, "W_dec": both, "b_enc": torch.zeros(2 * D), "b_dec": torch.zeros(D)}
    folder = tmp_path / "known"
    folder.mkdir()
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "sae_weights.safetensors")
    metadata = {"sae_lens_version": "6.51.1", "hook_name": "blocks.1.hook_resid_pre", "model_name": "pocket"}
    config = {"architecture": "standard", "d_in": D, "d_sae": 2 * D, "metadata": metadata}
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def test_a_table_and_a_picture(known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "features.svg"
    given = ["dictionaries", str(known), "--task", "ioi", "--prompts", "16", "--top", "3", "-o", str(picture)]
    assert run(given) == 0
    out, said = capsys.readouterr()
    assert "known: sparse autoencoder (SAELens, relu, made for pocket)" in out.replace("\n", "")
    assert "at blocks.1.hook_resid_pre" in out
    assert "ioi on pocket, 16 prompts of seed 0: explains 100 %" in out
    assert "of 256 features fire, 128.0 at a position" in out
    table = out[out.index("feature  ") :].splitlines()
    assert len(table) == 4 and "END" in out
    assert f"wrote {picture}" in said
    assert picture.read_text().startswith("<svg") and "DISTRACTOR" in picture.read_text()


def test_json_says_all_and_features_are_those_that_differ(known: Path) -> None:
    with Session("pocket") as session:
        found = session.dictionaries(str(known), "ioi", prompts=16, top=5).to_json()
    (one,) = found["found"]
    assert one["reconstruction"] == pytest.approx(1, abs=1e-5)
    assert (one["reads"], one["writes"], one["features"]) == ("blocks.1.hook_resid_pre",) * 2 + (256,)
    first, *others = one["strongest"]
    assert all(first["differs"] >= other["differs"] for other in others) and len(others) == 4
    assert set(first["clean"]) == set(first["corrupt"]) >= {"IO", "S1", "S2", "END"}
    activations = [example["activation"] for example in first["examples"]]
    assert activations == sorted(activations, reverse=True) and len(activations) == 3
    assert json.loads(json.dumps(found))["prompts"] == 16


def test_what_explains_less_than_a_constant_is_refused(known: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((known / "cfg.json").read_text())
    config["metadata"] |= {"hook_name": "blocks.3.hook_mlp_out", "model_name": "gpt2-small"}
    (known / "cfg.json").write_text(json.dumps(config))
    weights = {"W_enc": torch.eye(D), "W_dec": -torch.eye(D), "b_enc": torch.zeros(D), "b_dec": torch.zeros(D)}
    (known / "cfg.json").write_text(json.dumps(config | {"d_sae": D}))
    save_file(weights, known / "sae_weights.safetensors")
    assert run(["dictionaries", str(known), "--task", "ioi", "--prompts", "8"]) == 3
    said = capsys.readouterr().err
    assert "% of blocks.3.hook_mlp_out in pocket, less than a constant would: it is not of this model" in said
    assert "made for gpt2-small" in said


def test_what_explains_little_is_warned_of(known: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {"W_enc": torch.eye(D), "W_dec": torch.eye(D), "b_enc": torch.zeros(D), "b_dec": torch.zeros(D)}
    config = json.loads((known / "cfg.json").read_text()) | {"apply_b_dec_to_input": False}
    (known / "cfg.json").write_text(json.dumps(config | {"d_sae": D}))
    save_file(weights, known / "sae_weights.safetensors")
    assert run(["dictionaries", str(known), "--task", "ioi", "--prompts", "8"]) == 0
    assert "warning: it explains only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--at", "blocks.1.hook_q"], 3, "sits at 'blocks.1.hook_q', a place that is not read"),
        (["--task", "nothing"], 2, "nothing"),
        (["--model", "./nowhere"], 2, "there is no model directory ./nowhere"),
        (["--at", "blocks.9.hook_resid_pre"], 3, "pocket has layers 0 to 3: it is not of this model"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    known: Path, capsys: pytest.CaptureFixture[str], more: list[str], status: int, message: str
) -> None:
    assert run(["dictionaries", str(known), "--task", "ioi", "--prompts", "8", *more]) == status
    assert message in capsys.readouterr().err


def test_the_shipped_ones_explain_the_pocket_model_and_keep_their_size() -> None:
    names = shipped()
    places = [f"saes/resid{i}" for i in (1, 2, 3, 4)] + [f"transcoders/{i}" for i in range(4)]
    assert names == [f"pocket/{place}" for place in places]
    with Session("pocket") as session:
        for name in names:
            (found,) = session.dictionaries(name, "ioi", prompts=16, top=1).found
            assert found.reconstruction > 0.9, name
            assert found.made_for == "pocket" and not found.reading
    assert sum(path.stat().st_size for name in names for path in place_of(name).iterdir()) < 3 * 10**6
