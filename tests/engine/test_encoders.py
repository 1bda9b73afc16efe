"""No more of a dictionary is encoded and held than what some patch needs: products are counted, and their sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from circuitdsl.circuit.features import feature
from circuitdsl.circuit.nodes import ERROR, Edge, Input, Node, Position, Site
from circuitdsl.dictionaries.coder import Coder, load
from circuitdsl.dictionaries.record import Dictionary
from circuitdsl.engine.experiment import Experiment
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import run
from circuitdsl.engine.tally import Tally
from circuitdsl.models import features
from circuitdsl.models.parts import Transformer
from tests.engine.small_models import Case, make_case
from tests.engine.test_features import random, written

END, FEATURES = Position("END"), 50
Encoded = list[tuple[int, int]]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Encoded:
    """(rows, features of the encoder) of each product that is made."""
    found, encode = Encoded(), Coder.encode

    def counted(coder: Coder, x: Tensor) -> Tensor:
        found.append((x.shape[:-1].numel(), len(coder.W_enc)))
        return encode(coder, x)

    monkeypatch.setattr(Coder, "encode", counted)
    return found


@pytest.fixture
def case(random_model: Callable[[str], Transformer]) -> Case:
    return make_case(random_model("gpt2"))


def of_mlp(case: Case, folder: Path, at: str = "blocks.0.hook_mlp_out", **config: object) -> Dictionary:
    reads = at if config else at.replace("hook_mlp_out", "ln2.hook_normalized")
    return written(folder / "d", random(case.model.d_model, FEATURES, 0), reads, at, **config)


def counted(case: Case, nodes: Sequence[Node], experiments: Sequence[Experiment]) -> int:
    """Block-positions of experiments on runs that hold some nodes."""
    runs, tally = run(case.model, case.clean, case.corrupt, neurons=nodes), Tally()
    effects(runs, experiments, case.positions, case.vocabulary, tally=tally)
    return tally.block_positions


def into_queries(case: Case, nodes: Sequence[Node]) -> list[Experiment]:
    heads = [Node("head", layer, 0) for layer in range(1, case.model.n_layers)]
    return [Experiment(frozenset([Edge(node, Input(head, "q"), END)])) for node in nodes for head in heads]


def test_whole_runs_encode_once_and_edges_never(case: Case, tmp_path: Path, encoded: Encoded) -> None:
    found = of_mlp(case, tmp_path)
    nodes = [feature("t", found, i) for i in (40, 3, 17)]
    neurons = [Node("mlp", 0, index=i) for i in range(3)]
    taken = counted(case, nodes, into_queries(case, nodes))
    tokens = case.clean.numel()
    assert encoded[0] == (tokens, 3), "the clean prompts, and of the encoder the features that are named"
    assert sum(rows for rows, _ in encoded) <= 2 * tokens, "and their partners from where they differ"
    assert {width for _, width in encoded} == {3}
    assert taken == counted(case, neurons, into_queries(case, neurons))


def test_knock_outs_encode_nothing_anew_unless_something_below_them_changes(
    case: Case, tmp_path: Path, encoded: Encoded
) -> None:
    found = of_mlp(case, tmp_path, "blocks.1.hook_mlp_out")
    nodes, head = [feature("t", found, i) for i in range(6)], Site(Node("head", 0, 0), END)
    neurons = [Node("mlp", 1, index=i) for i in range(6)]
    runs = run(case.model, case.clean, case.corrupt, neurons=nodes)
    alone, with_head = ([frozenset([Site(node, END), *more]) for node in nodes] for more in ((), (head,)))
    encoded.clear()
    effects(runs, [Experiment(sites=sites) for sites in alone], case.positions, case.vocabulary)
    assert sum(rows for rows, _ in encoded) == 0
    encoded.clear()
    effects(runs, [Experiment(sites=sites) for sites in with_head], case.positions, case.vocabulary)
    assert encoded == [(len(nodes) * len(case.clean), 6)], "all that run together at once, at END alone"
    for some in (nodes, neurons):
        out = [Experiment(sites=frozenset([Site(node, END), head])) for node in some]
        assert counted(case, some, out) == len(nodes) * len(case.clean) * case.model.n_layers


def test_an_encoder_that_depends_on_all_features_is_held_once(case: Case, tmp_path: Path, encoded: Encoded) -> None:
    found = of_mlp(case, tmp_path, architecture="topk", k=5)
    one, other = load(found, [1, 2]), load(found, [2, 3, 4])
    assert one.W_enc.data_ptr() == other.W_enc.data_ptr()
    assert len(one.W_enc) == FEATURES
    assert (one.d.shape[0], other.d.shape[0]) == (2, 3), "of the decoder there are those that are needed"
    x = torch.randn(4, case.model.d_model)
    assert torch.equal(one.encode(x)[:, 1], other.encode(x)[:, 0])


def test_what_is_encoded_whole_goes_some_rows_at_a_time(
    case: Case, tmp_path: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of_mlp(case, tmp_path)
    nodes = [feature("t", found, i) for i in (40, 3, ERROR)]
    whole = run(case.model, case.clean, case.corrupt, neurons=nodes)
    monkeypatch.setattr(features, "AT_ONCE", 4 * FEATURES)
    encoded.clear()
    parts = run(case.model, case.clean, case.corrupt, neurons=nodes)
    assert max(rows for rows, _ in encoded) == 4
    for node in nodes:
        assert torch.allclose(parts.clean.value(node), whole.clean.value(node), atol=1e-6)
        assert torch.allclose(parts.corrupt.value(node), whole.corrupt.value(node), atol=1e-6)
