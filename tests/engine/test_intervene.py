"""Interventions, against changed weights, against knock-outs, and against attention done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from circuitdsl.circuit.changes import Intervention, Replace, Scale, SetAttention, Verb
from circuitdsl.circuit.nodes import EVERYWHERE, Node, Position, Site
from circuitdsl.engine.experiment import Experiment, PatchError
from circuitdsl.engine.intervene import intervene, with_mass
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import mean_terms
from circuitdsl.models.parts import PORTS, Transformer
from circuitdsl.models.weights import fold
from circuitdsl.models.writers import unit_vector
from tests.engine.random_experiments import along
from tests.engine.small_models import LENGTH, Case

A, B, END = Position("A"), Position("B"), Position("END")


def logits(case: Case, *verbs: Verb) -> Tensor:
    found = intervene(case.runs, Intervention("test", "", verbs), case.positions)
    return case.model.logits(found.cache.end)


def by_hand(model: Transformer, tokens: Tensor, change: dict[int, Tensor], rows: list[int], head: Node) -> Tensor:
    """Logits at END of one prompt, its attention done token by token; `change` gives a head's rows."""
    length = len(tokens)
    resid = model.embed(tokens[None])[0]
    for layer, (block, turns) in enumerate(zip(model.blocks, model.turns(length), strict=True)):
        attn, x = block.attn, block.attn_norm(resid)
        out = torch.zeros_like(resid) + (attn.o.bias if attn.o.bias is not None else 0)
        for h in range(attn.n_heads):
            q, k, v = (attn.project_head(port, h, x, turns) for port in PORTS)
            for t in range(length):
                first = max(0, t + 1 - (attn.window or length))
                scores = (k[first : t + 1] @ q[t]) * attn.scale
                if attn.softcap:
                    scores = attn.softcap * (scores / attn.softcap).tanh()
                if attn.distances:
                    scores = scores - attn.distances.slopes[h] * torch.arange(t - first, -1, -1)
                weights = torch.cat((torch.zeros(first), scores.softmax(0)))
                if (layer, h) == (head.layer, head.head) and t in rows:
                    weights = change[t](weights)
                out[t] += attn.o.weight[:, h * attn.d_head : (h + 1) * attn.d_head] @ (weights @ v[: t + 1])
        out = attn.post(out) if attn.post else out
        mid = resid + out
        resid = mid + block.mlp(block.mlp_norm(resid if model.parallel else mid))
    return model.logits(resid[-1:])[0]


def first_seen(model: Transformer) -> int:
    """The first token that the heads of layer 1 see from END."""
    return LENGTH - (model.blocks[1].attn.window or LENGTH)


def test_a_part_scaled_to_nothing_is_one_knocked_out_everywhere(case: Case) -> None:
    """Of a stream, but for the biases `b_O`, which are in it and belong to no node."""
    plain = all(block.attn.o.bias is None for block in case.model.blocks)
    for node in along(case.model):
        if node.kind == "resid" and not plain:
            continue
        out = Experiment(sites=frozenset([Site(node, EVERYWHERE)]), ablate="zero")
        (knocked_out,) = effects(case.runs, [out], case.positions, case.vocabulary)
        assert (logits(case, Scale((node,), 0.0)) - knocked_out).abs().max() < 5e-5, str(node)


def test_of_a_stream_that_is_projected_nothing_is_left_along_the_direction(case: Case) -> None:
    """Twice is once; twice as much and half of it is nothing; attribution sees what is left."""
    streams = [node for node in along(case.model) if node.kind == "resid"]
    for node in streams:
        once = logits(case, Scale((node,), 0.0))
        assert (logits(case, Scale((node,), 0.0), Scale((node,), 3.0)) - once).abs().max() < 1e-4
        assert (logits(case, Scale((node,), 2.0), Scale((node,), 0.5)) - logits(case)).abs().max() < 1e-3
    last, unit = streams[-1], unit_vector(streams[-1].along, torch.float32, case.model.device)
    found = intervene(case.runs, Intervention("test", "", (Scale((last,), 0.0),)), case.positions)
    assert (found.term_at_end(last.whole) @ unit).abs().max() < 1e-4
    head = next(node for node in along(case.model) if node.kind == "head")
    found = intervene(case.runs, Intervention("test", "", (Scale((head,), 0.0),)), case.positions)
    assert (
        found.term_at_end(head.whole) @ unit_vector(head.along, torch.float32, case.model.device)
    ).abs().max() < 1e-5
    assert found.term_at_end(head).abs().max() < 1e-5
    with pytest.raises(PatchError, match="is not known"):
        found.term_at_end(head._replace(index=0, along=None))


def test_what_one_verb_changes_another_that_changes_nothing_does_not_undo(case: Case) -> None:
    early, late = Scale((Node("head", 0, 1),), 0.5), Scale((Node("head", case.model.n_layers - 1, 0),), 1.0)
    for verbs, changed in (((early, late), True), ((late, early), True), ((late,), False)):
        found = intervene(case.runs, Intervention("test", "", verbs), case.positions)
        assert found.changed.tolist() == [changed] * len(case.clean)


def test_nothing_changed_changes_nothing(case: Case) -> None:
    assert torch.allclose(logits(case), case.model.logits(case.runs.clean.end), atol=1e-5)
    whole = Scale((Node("head", 1, 0), Node("mlp", 1), Node("head", 0, 1, 3)), 1.0)
    assert torch.allclose(logits(case, whole), case.model.logits(case.runs.clean.end), atol=1e-4)


@pytest.mark.parametrize("ablate", ["corrupt", "zero"])
def test_replacing_is_a_knock_out(case: Case, ablate: str) -> None:
    sites = (Site(Node("head", 1, 1), A), Site(Node("mlp", 0), B), Site(Node("head", 0, 2), EVERYWHERE))
    experiment = Experiment(sites=frozenset(sites), ablate=ablate)  # type: ignore[arg-type]
    wanted = effects(case.runs, [experiment], case.positions, case.vocabulary)[0]
    assert torch.allclose(logits(case, Replace(sites, ablate)), wanted, atol=1e-4)  # type: ignore[arg-type]


def test_replacing_with_means_is_a_knock_out(case: Case) -> None:
    stratum = torch.tensor([0, 1, 0])
    runs = case.runs.with_means(mean_terms(case.model, case.corrupt, stratum, 2), stratum)
    sites = (Site(Node("head", 1, 1), A), Site(Node("mlp", 0), END))
    wanted = effects(runs, [Experiment(sites=frozenset(sites), ablate="mean")], case.positions, case.vocabulary)
    found = intervene(runs, Intervention("test", "", (Replace(sites, "mean"),)), case.positions)
    assert torch.allclose(case.model.logits(found.cache.end), wanted[0], atol=1e-4)


def test_scaling_by_zero_is_zero_ablation(case: Case) -> None:
    head = Node("head", 1, 0)
    experiment = Experiment(sites=frozenset({Site(head, EVERYWHERE)}), ablate="zero")
    wanted = effects(case.runs, [experiment], case.positions, case.vocabulary)[0]
    assert torch.allclose(logits(case, Scale((head,), 0.0)), wanted, atol=1e-4)


def test_scaling_acts_on_what_is_there_already(case: Case) -> None:
    head = Node("head", 1, 0)
    once, twice = logits(case, Scale((head,), 6.0)), logits(case, Scale((head,), 2.0), Scale((head,), 3.0))
    assert torch.allclose(once, twice, atol=1e-4)
    gone = logits(case, Scale((head,), 6.0), Replace((Site(head, EVERYWHERE),), "zero"))
    assert torch.allclose(gone, logits(case, Scale((head,), 0.0)), atol=1e-4)


def test_a_component_is_scaled_in_what_the_head_writes(case: Case) -> None:
    """The centred write changes along the component's direction and nowhere else."""
    model, head, factor = case.model, Node("head", 1, 1), 3.0
    block = model.blocks[1]
    folded = fold(block.attn_norm, block.attn)
    _, _, directions = torch.linalg.svd(folded.W_V[1] @ folded.W_O[1])
    found = intervene(case.runs, Intervention("t", "", (Scale((Node("head", 1, 1, 2),), factor),)), case.positions)
    before, after = (
        block.attn.out_head(head.head, cache.z[1][:, :, head.head]).double() for cache in (case.runs.clean, found.cache)
    )
    if block.attn_norm.kind == "layer":
        before, after = (x - x.mean(-1, keepdim=True) for x in (before, after))
    v = directions[2]
    wanted = before + (factor - 1) * (before @ v)[..., None] * v
    assert torch.allclose(after, wanted, atol=1e-4)
    assert (after - before).abs().max() > 1e-3


def test_attention_that_is_set(case: Case) -> None:
    """A row gives what it is told to the targets that it sees, and shares the rest as before."""
    head, model = Node("head", 1, 1), case.model
    found = logits(case, SetAttention((head,), (END,), (A, B), 0.6))
    for prompt in range(len(case.clean)):
        there = sorted({int(i) for p in (A, B) for i in case.positions[p][prompt] if i >= first_seen(model)})

        def change(weights: Tensor, there: list[int] = there) -> Tensor:
            rest = [i for i in range(len(weights)) if i not in there]
            new = torch.zeros_like(weights)
            new[there] = 0.6 / len(there)
            new[rest] = weights[rest] * 0.4 / weights[rest].sum()
            return new

        wanted = by_hand(model, case.clean[prompt], {LENGTH - 1: change}, [LENGTH - 1], head)
        assert torch.allclose(found[prompt], wanted, atol=1e-4)


def test_patterns_are_those_that_were_set(case: Case) -> None:
    head, other = Node("head", 1, 1), Node("head", 1, 0)
    verb = SetAttention((head,), (END,), (A,), 1.0)
    found = intervene(case.runs, Intervention("t", "", (verb,)), case.positions)
    end = found.pattern(head)[:, -1]
    clean = intervene(case.runs, Intervention("t", "", ()), case.positions)
    for prompt, at in enumerate(case.positions[A][:, 0]):
        if at >= first_seen(case.model):
            assert end[prompt].argmax() == at
            assert end[prompt, at] == pytest.approx(1)
        else:
            assert torch.allclose(end[prompt], clean.pattern(head)[prompt, -1], atol=1e-6)
    assert torch.allclose(found.pattern(other), clean.pattern(other), atol=1e-6)
    assert torch.allclose(found.pattern(head)[:, :-1], clean.pattern(head)[:, :-1], atol=1e-6)


def test_targets_that_are_not_seen_get_nothing() -> None:
    pattern = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    source, target = torch.tensor([[True, True]]), torch.tensor([[False, True]])
    later = torch.tensor([[False, True], [False, False]])
    changed = with_mass(pattern, source, target, 1.0, later)
    assert changed.tolist() == [[[1.0, 0.0], [0.0, 1.0]]]
    blocked = with_mass(pattern, source, torch.tensor([[True, True]]), 0.0, later)
    assert blocked.tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize(
    ("verb", "why"),
    [
        (Scale((Node("head", 9, 0),), 0.0), "no 9.0"),
        (Scale((Node("mlp", 0, index=3),), 0.0), "does not hold the activation of m0"),
        (Replace((Site(Node("head", 0, 0, 1), A),), "zero"), "not replaced"),
        (Scale((Node("head", 0, 0, 99),), 0.0), "no 0.0"),
        (Scale((Node("embed"),), 0.0), "heads and MLPs"),
        (SetAttention((Node("mlp", 0),), (END,), (A,), 1.0), "only heads attend"),
    ],
)
def test_what_cannot_be_changed_is_refused(gpt2: Case, verb: Verb, why: str) -> None:
    with pytest.raises(PatchError, match=why):
        logits(gpt2, verb)
