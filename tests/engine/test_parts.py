"""Singular components and neurons: the parts of a node add up to it, and what does not exist is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.engine.experiment import Experiment, PatchError
from circuitdsl.engine.path_patching import effects, patched_terms, terms_at_end
from circuitdsl.engine.runs import baseline, changed, run
from circuitdsl.models import parts
from circuitdsl.models.parts import Mlp, Transformer
from tests.drawing import examples
from tests.engine.small_models import FAMILIES, FEW, NUMBERED, Case, make_case

CLOSE = 2e-5


@pytest.fixture(params=[family for family in examples(FEW, FAMILIES) if family in NUMBERED])
def case(request: pytest.FixtureRequest, random_model: Callable[[str], Transformer]) -> Case:
    return make_case(random_model(request.param))


def every_part(case: Case, node: Node) -> list[Node]:
    many = case.model.d_head if node.kind == "head" else case.model.d_mlp
    return [node._replace(index=i) for i in range(many)]


def with_neurons(case: Case, layer: int) -> Case:
    return replace(case, runs=run(case.model, case.clean, case.corrupt, every_part(case, Node("mlp", layer))))


@pytest.mark.parametrize("node", [Node("head", 1, 2), Node("mlp", 1)], ids=str)
def test_all_parts_of_a_node_are_the_node(case: Case, node: Node) -> None:
    """Replaced, or patched into a later input, direct and via MLPs."""
    case = with_neurons(case, 1)
    parts = every_part(case, node)
    whole, together = [], []
    for nodes, out in (([node], whole), (parts, together)):
        for receiver in (Input(Node("head", 2, 1), "v"), Input(LOGITS, "in")):
            edges = frozenset(Edge(sender, receiver, EVERYWHERE) for sender in nodes)
            out += [Experiment(edges), Experiment(edges, via_mlps=True), Experiment(edges, direction="denoise")]
        out.append(Experiment(sites=frozenset(Site(sender, Position("A")) for sender in nodes)))
    found = effects(case.runs, whole + together, case.positions, case.vocabulary)
    clean = baseline(case.model, case.runs.clean, case.vocabulary)
    assert (found[0] - clean).abs().max() > 1e-2
    assert (found[: len(whole)] - found[len(whole) :]).abs().max() < CLOSE * 5


def test_attributed_terms_of_parts_add_up(case: Case) -> None:
    """At END, in the clean run and in patched ones; an MLP's output bias belongs to none of its neurons."""
    case, model = with_neurons(case, 2), case.model
    head, mlp = Node("head", 2, 1), Node("mlp", 2)
    nodes = [head, mlp, *every_part(case, head), *every_part(case, mlp)]
    bias = model.blocks[2].mlp.down.bias
    patch = Experiment(frozenset([Edge(Node("mlp", 0), Input(Node("head", 1, 0), "v"), EVERYWHERE)]))
    clean = terms_at_end(model, case.runs.clean, nodes)
    (live,) = patched_terms(case.runs, [patch], case.positions, nodes)
    assert (clean[:, 0] - live[:, 0]).abs().max() > 1e-3
    for terms in (clean, live):
        of_head, of_mlp = terms[:, 2 : 2 + model.d_head].sum(1), terms[:, 2 + model.d_head :].sum(1)
        assert (of_head - terms[:, 0]).abs().max() < 1e-4
        assert (of_mlp + (0 if bias is None else bias) - terms[:, 1]).abs().max() < 1e-4


def test_a_part_changes_only_where_its_whole_does(case: Case) -> None:
    """Before the first token that differs both runs write the same."""
    for node in (Node("head", 1, 0, 1), Node("mlp", 1, index=0)):
        first = changed(case.runs, node, torch.zeros(len(case.clean), 1, dtype=torch.long))
        later = changed(case.runs, node, torch.full((len(case.clean), 1), 1))
        differ = case.clean[:, 1] != case.corrupt[:, 1]
        assert not first.any()
        assert torch.equal(later, differ)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Node("head", 1, 0, 99), "singular components 0 to"),
        (Node("mlp", 1, index=9999), "neurons 0 to"),
        (Node("mlp", 1, index=3), r"does not hold the activation of m1\[3\]"),
    ],
)
def test_parts_that_are_not_there_are_refused(gpt2: Case, node: Node, message: str) -> None:
    with pytest.raises(PatchError, match=message):
        effects(
            gpt2.runs,
            [Experiment(sites=frozenset([Site(node, EVERYWHERE)]))],
            gpt2.positions,
            gpt2.vocabulary,
        )


def test_a_part_reads_nothing(gpt2: Case) -> None:
    edge = Edge(Node("embed"), Input(Node("head", 1, 0, 2), "q"), EVERYWHERE)
    with pytest.raises(PatchError, match="reads nothing"):
        effects(gpt2.runs, [Experiment(frozenset([edge]))], gpt2.positions, gpt2.vocabulary)


def test_an_mlp_of_many_rows_is_computed_some_at_a_time(gpt2: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp, x, rows = gpt2.model.blocks[1].mlp, gpt2.runs.clean.mlp_in[1], []
    whole, true_hidden = mlp(x), Mlp._hidden
    monkeypatch.setattr(Mlp, "_hidden", lambda self, x, *maps: rows.append(len(x)) or true_hidden(self, x, *maps))
    monkeypatch.setattr(parts, "AT_ONCE", 4 * gpt2.model.d_mlp)
    assert torch.allclose(mlp(x), whole, atol=1e-5)
    assert rows == [4, 4, 4, 4, 2]


def test_neurons_of_experts_cannot_be_named(random_model: Callable[[str], Transformer]) -> None:
    """In a model whose other layers have plain MLPs as well."""
    model = random_model("qwen3_moe")
    assert [block.mlp.neurons for block in model.blocks] == [40, 0, 0]
    case = make_case(model)
    edge = Edge(Node("mlp", 1, index=3), Input(LOGITS, "in"), Position("END"))
    with pytest.raises(PatchError, match=r"m1 of .* is a mixture of experts, whose neurons cannot be named"):
        effects(case.runs, [Experiment(frozenset([edge]))], case.positions, case.vocabulary)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_logits_of_a_few_tokens_are_not_rounded_in_half_precision(
    family: str, random_model: Callable[[str], Transformer]
) -> None:
    """A step of bfloat16 at the size of a logit would be larger than many effects."""
    model = random_model(family)
    half = parts.changed(model, torch.Tensor.bfloat16)
    resid = torch.randn(3, 2, model.d_model, generator=torch.Generator().manual_seed(0)).bfloat16()
    tokens = torch.tensor([[1, 2], [3, 4], [5, 6]])
    exact = parts.changed(half, torch.Tensor.double)
    found, expected = half.logits_of(resid, tokens), exact.logits_of(resid.double(), tokens)
    assert found.dtype == torch.float32 and torch.allclose(found, expected.float(), atol=1e-5)
    whole = half.logits(resid).gather(-1, tokens[:, None].expand(-1, 2, -1))
    assert not torch.allclose(whole.float(), found, atol=1e-3), "which are rounded"
