"""The names under which TransformerLens hooks a circuit's nodes and edges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import circuitdsl
import circuitdsl.models.pocket
from circuitdsl import cli
from circuitdsl.circuit.nodes import EMBED, LOGITS, Input, Node
from circuitdsl.interop.names import Place, hook_graph, reads_at, writes_at
from tests.engine.bridge import bridge_of

SPEC = """circuit t
model "pocket"
task ioi
heads mover = 2.4 2.5 at END
heads part = 1.3[2] at END
mlps late = m3
embed -> mover.k at S2 : negligible
m1[7] -> late at END via mlps : lowers
late -> logits : lowers
"""


@pytest.mark.parametrize(
    ("node", "place"),
    [
        (Node("head", 9, 6), Place("blocks.9.attn.hook_z", 6)),
        (Node("head", 9, 6, 2), Place("blocks.9.attn.hook_z", 6, 2)),
        (Node("mlp", 3), Place("blocks.3.hook_mlp_out")),
        (Node("mlp", 3, index=7), Place("blocks.3.mlp.hook_post", None, 7)),
        (EMBED, Place("blocks.0.hook_resid_pre")),
        (LOGITS, None),
    ],
)
def test_what_a_node_writes(node: Node, place: Place | None) -> None:
    assert writes_at(node) == place


@pytest.mark.parametrize(
    ("read", "place"),
    [
        (Input(Node("head", 9, 6), "q"), Place("blocks.9.hook_q_input", 6)),
        (Input(Node("head", 9, 6), "v"), Place("blocks.9.hook_v_input", 6)),
        (Input(Node("mlp", 3), "in"), Place("blocks.3.hook_mlp_in")),
        (Input(LOGITS, "in"), Place("ln_final.hook_in")),
    ],
)
def test_what_an_input_reads(read: Input, place: Place) -> None:
    assert reads_at(read) == place


def test_every_name_of_a_circuit_is_one_of_its_model() -> None:
    """The heads and neurons that are named are in the tensors that TransformerLens keeps there."""
    bridge = bridge_of(Path(circuitdsl.models.pocket.__file__).parent)
    bridge.set_use_split_qkv_input(True)
    bridge.set_use_hook_mlp_in(True)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(torch.tensor([[5, 6, 7]]))
    graph = hook_graph(circuitdsl.loads(SPEC).circuits[0])
    every = [*graph["nodes"], *graph["edges"]]
    places: list[Any] = [each[key] for each in every for key in ("write", "read") if key in each]
    assert len(places) == 6 + 2 * len(graph["edges"])  # all nodes but the logits write
    for place in places:
        shape = cache[place["hook"]].shape
        assert ("head" in place) == (len(shape) == 4)
        assert place.get("head", 0) < shape[2]


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.circ"
    path.write_text(SPEC)
    assert cli.run(["graph", str(path), "--format", "transformer_lens"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["circuit"], found["model"]) == ("t", "pocket")
    nodes = {each["node"]: each for each in found["nodes"]}
    assert nodes["1.3[2]"]["write"] == {"hook": "blocks.1.attn.hook_z", "head": 3, "part": 2}
    assert nodes["2.4"]["groups"] == ["mover"]
    assert "write" not in nodes["logits"]
    first, _ = (each for each in found["edges"] if each["sender"] == "embed")
    assert (first["receiver"], first["position"], first["line"]) == ("2.4.k", "S2", 7)
    assert first["write"] == {"hook": "blocks.0.hook_resid_pre"}
    assert first["read"] == {"hook": "blocks.2.hook_k_input", "head": 4}
    (through,) = (each for each in found["edges"] if each["via_mlps"])
    assert through["write"] == {"hook": "blocks.1.mlp.hook_post", "part": 7}
