"""Directions made from a task's prompts, and used in a spec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from circuitdsl.circuit.nodes import Node
from circuitdsl.cli import run
from circuitdsl.discover.sweep import asked_of
from circuitdsl.engine import runs as engine
from circuitdsl.errors import UsageError, UserError
from circuitdsl.measurements.kept import replacing
from circuitdsl.models.load import load_model
from circuitdsl.verify.session import Session


@pytest.fixture(scope="module")
def session() -> Session:
    return Session("pocket", cache=False)


def test_it_is_the_difference_of_means_of_length_1(session: Session) -> None:
    found = session.direction(task="ioi", at="S2", layer=2, prompts=12)
    prompts = asked_of(session, None, "ioi", None, 12, None, None)
    model, node = load_model("pocket", "cpu"), Node("resid", 2)
    sums = torch.zeros(2, model.d_model)
    for pair in prompts.pairs:
        tokens = (torch.tensor([list(side)]) for side in (pair.clean_tokens, pair.corrupt_tokens))
        runs = engine.run(model, *tokens, kept=replacing((node,)))
        for row, terms in zip(sums, (runs.clean, runs.corrupt), strict=True):
            row += terms.value(node)[0, pair.positions["S2"][0]]
    difference = (sums[0] - sums[1]) / len(prompts.pairs)
    assert found.length == pytest.approx(float(difference.norm()), rel=1e-4)
    assert np.allclose(found.unit, difference / difference.norm(), atol=1e-5)
    back = session.direction(task="ioi", at="S2", layer=2, prompts=12, sides=("corrupt", "clean"))
    assert np.allclose(back.unit, -np.asarray(found.unit), atol=1e-6)


def test_a_command_writes_it_and_a_spec_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, spec = tmp_path / "d.safetensors", tmp_path / "one.circ"
    asked = [
        "direction",
        "pocket/ioi",
        "--at",
        "S2",
        "--layer",
        "1",
        "--prompts",
        "24",
        "--tensor",
        "s",
        "-o",
        str(file),
    ]
    assert run(asked) == 0
    tensors = load_file(file)
    assert list(tensors) == ["s"] and float(tensors["s"].norm()) == pytest.approx(1, abs=1e-5)
    before = file.read_bytes()
    assert run(asked) == 2 and "is there already" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert run([*asked, "--overwrite", "--seed", "3"]) == 0 and file.read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["d.safetensors"]
    spec.write_text("""circuit one
model "pocket"
task ioi(prompts = 64)
direction u = file("d.safetensors", tensor = "s")
expect knockout(resid1[u] at S2) : delta <= 100
expect knockout(resid1[u] at S2) : delta >= 100
resid1[u] -> m1 at S2 : delta <= 100
expect attribution(0.6[u]) <= 1000
intervention erase "along u"
  project out resid1[u]
  expect logit_diff <= 1000
  expect attribution(m1) <= 1000
""")
    assert run(["verify", str(spec), "--no-cache"]) == 1
    assert "5 hold, 1 fails" in capsys.readouterr().out
    assert run(["mutate", str(spec), "--no-cache"]) in (0, 1)
    assert "direction dropped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ({"layer": 9}, UsageError, "has no layer 9"),
        ({"sides": ("clean", "dirty")}, UsageError, "the sides of prompts are clean, corrupt, not clean,dirty"),
        ({"at": "S9"}, UsageError, "no position S9"),
        ({"at": "IO-1", "layer": 0}, UserError, "have the same mean stream"),
    ],
)
def test_mistakes_are_named(session: Session, how: dict, kind: type, says: str) -> None:
    with pytest.raises(kind, match=says):
        session.direction(task="ioi", prompts=24, **{"layer": 1, **how})
