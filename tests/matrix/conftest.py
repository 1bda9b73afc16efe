"""A folder with specs and models for a matrix, and the command line that runs in it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from circuitdsl import cli
from circuitdsl.matrix import on_ray
from circuitdsl.models.load import POCKET
from tests.matrix.fake_ray import FakeRay

IOI = """circuit ioi
model "pocket"
task ioi(prompts = 32)
heads early = 0.3 0.5 0.6 at END
heads late  = 2.4 2.5 at END
early -> logits at END : lowers
late -> logits at END : effect <= 50%
expect logit_diff >= 12
expect attention(early, END -> S2) >= 10%
expect faithfulness >= 5%
"""
WEIGHTS = """circuit weights
model "pocket"
channel 0.3 -> 2.5.v : composition z >= -9
"""


def shortened(target: Path, layers: int) -> None:
    """The pocket model without its last layers."""
    target.mkdir()
    config = json.loads((POCKET / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"n_layer": layers}))
    gone = tuple(f"transformer.h.{layer}." for layer in range(layers, config["n_layer"]))
    weights = load_file(POCKET / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith((*gone, *(g[12:] for g in gone)))}
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(POCKET / name, target / name)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers, `small`, and one whose weights cannot be read, `broken`."""
    folder = tmp_path_factory.mktemp("models")
    shortened(folder / "small", 2)
    shutil.copytree(folder / "small", folder / "broken")
    (folder / "broken" / "model.safetensors").write_bytes(b"nothing")
    return folder


@pytest.fixture
def lab(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: `ioi.circ`, `weights.circ`, and the models `small` and `broken`."""
    (tmp_path / "ioi.circ").write_text(IOI)
    (tmp_path / "weights.circ").write_text(WEIGHTS)
    for name in ("small", "broken"):
        shutil.copytree(models / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRay]:
    """Makes a cluster that is played in this process."""

    def make(*given: Any, **has: float) -> FakeRay:
        made = FakeRay(*given, **has)
        monkeypatch.setitem(sys.modules, "ray", made)
        monkeypatch.setattr(on_ray, "SOON", 0.001)
        monkeypatch.setattr(on_ray, "LOOK", 0.05)
        return made

    return make


def run(line: str) -> int:
    """The exit status of a command line without the program's name."""
    return cli.run(line.split())
