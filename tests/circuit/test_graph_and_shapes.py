"""The networkx view, and model shapes without weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.shapes import ModelShape, shape_of


def test_the_graph_has_every_node_and_claimed_edge(sound: Callable[[str], Circuit]) -> None:
    circuit = sound(
        "heads control = 3.3 at END outside\nheads last = 9.9 at S2 role negative_mover\n"
        "inhibition -> mover.q : lowers and effect <= -5%\nedges via mlps\n9.9 -> logits at END\nm0 -> 7.3 at S2\n"
    )
    made = circuit.graph
    assert made.graph == {"name": "ioi", "title": ""}
    assert dict(made.nodes["9.9"]) == {
        "kind": "head",
        "layer": 9,
        "head": 9,
        "groups": ("mover", "last"),
        "role": "mover",
        "positions": ("END", "S2"),
        "outside": False,
    }
    assert made.nodes["3.3"]["outside"] and not made.nodes["m0"]["outside"]
    assert made.nodes["m0"]["groups"] == () and made.nodes["logits"]["kind"] == "logits"
    assert made.nodes["m10"]["layer"] == 10 and made.nodes["m10"]["head"] == -1
    assert list(made.get_edge_data("7.3", "9.6").values()) == [
        {
            "port": "q",
            "position": "END",
            "claim": "c01",
            "line": 12,
            "test": "lowers and effect <= -5%",
            "via_mlps": False,
            "ablate": "corrupt",
            "path": False,
        }
    ]
    assert [d["port"] for d in made.get_edge_data("m0", "7.3").values()] == ["q", "k", "v"]
    assert made["9.9"]["logits"][0]["via_mlps"] and made["9.9"]["logits"][0]["test"] == "matters"
    assert made.number_of_edges() == 6 + 1 + 3
    assert made.number_of_nodes() == 2 + 3 + 2 + 2 + 3 + 2 + 1 + 2  # the prelude's, 3.3, m0 and logits


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("gpt2", ModelShape("GPT-2 small", 12, 12, False, 64, 3072)),
        ("openai-community/gpt2-medium", ModelShape("GPT-2 medium", 24, 16, False, 64, 4096)),
        ("gpt2-xl", ModelShape("GPT-2 XL", 48, 25, False, 64, 6400)),
        ("EleutherAI/pythia-160m-deduped", ModelShape("Pythia 160M", 12, 12, True, 64, 3072)),
        ("google/gemma-2-2b-it", ModelShape("Gemma 2 2B", 26, 8, False, 256, 9216)),
    ],
)
def test_well_known_models(name: str, shape: ModelShape) -> None:
    assert shape_of(name) == (shape, None)


def test_a_stranger_of_the_same_name_is_not_known() -> None:
    assert shape_of("somebody/gpt2") == (None, None)
    assert shape_of("no-such-model") == (None, None)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"model_type": "gpt2", "n_layer": 4, "n_head": 8}, (4, 8, False)),
        ({"model_type": "gpt2", "n_layer": 4, "n_head": 8, "n_embd": 64, "n_inner": None}, (4, 8, False, 8, 256, 64)),
        ({"model_type": "gpt2", "n_layer": 4, "n_head": 8, "n_embd": 64, "n_inner": 100}, (4, 8, False, 8, 100, 64)),
        ({"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4}, (2, 4, False)),
        ({"model_type": "gpt_neox", "num_hidden_layers": 2, "num_attention_heads": 4}, (2, 4, True)),
        (
            {
                "model_type": "gpt_neox",
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "use_parallel_residual": False,
            },
            (2, 4, False),
        ),
        ({"model_type": "gemma3", "text_config": {"num_hidden_layers": 3, "num_attention_heads": 1}}, (3, 1, False)),
    ],
)
def test_directories(tmp_path: Path, config: dict[str, Any], shape: tuple[Any, ...]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape_of(str(tmp_path)) == (ModelShape(str(tmp_path), *shape), None)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "{0} has no config.json, so it is not a model in Hugging Face's layout"),
        (b"{", "{0}/config.json is not JSON"),
        (b"\xff\xfe\0", "{0}/config.json is not JSON"),
        (b"[1]", "{0}/config.json does not give the numbers of layers and heads"),
        (b'{"n_layer": 1001, "n_head": 8}', "{0}/config.json has n_layer = 1001; it is a number from 1 to 1000"),
        (b'{"n_layer": "4", "n_head": 1}', "{0}/config.json does not give the numbers of layers and heads"),
        (b'{"n_layer": 4, "n_head": -1}', "{0}/config.json has n_head = -1; it is a number from 1 to 4096"),
    ],
)
def test_unreadable_directories(tmp_path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    assert shape_of(str(tmp_path)) == (None, problem.format(tmp_path))


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert shape_of(str(tmp_path / "file")) == (None, f"{tmp_path}/file is a file; a model is a directory")
    assert shape_of(str(tmp_path / "none")) == (None, f"there is no model directory {tmp_path}/none")
    assert shape_of("a\0b")[0] is None
    assert shape_of("x" * 5000)[0] is None
