"""Features and neurons as receivers and on paths: identities of semantics §8, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuitdsl.circuit.changes import Intervention, Replace, Scale, Verb
from circuitdsl.circuit.features import feature
from circuitdsl.circuit.nodes import EMBED, ERROR, EVERYWHERE, LOGITS, QKV, Edge, Input, Node, Position, Site, receives
from circuitdsl.engine.batch_index import Where, plan
from circuitdsl.engine.count import floor_of
from circuitdsl.engine.experiment import Experiment
from circuitdsl.engine.intervene import intervene
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import first_difference, mean_terms
from circuitdsl.engine.tally import Tally
from circuitdsl.models.errors import PatchError
from circuitdsl.models.parts import Transformer
from tests.engine.small_models import Case
from tests.engine.test_features import (
    as_transcoder,
    drawn,
    inner,
    logits,
    of_relu,
    random,
    three,
    with_features,
    written,
)

END, A = Position("END"), Position("A")


def into(sender: Node, receiver: Node, at: Position = END, port: str = "in") -> Edge:
    return Edge(sender, Input(receiver, port), at)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def twins(random_model: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, list[list[Node]]]:
    """A model, and the MLPs of its middle layers as neurons and as the features of transcoders."""
    model, folder = of_relu(random_model("gpt2")), tmp_path_factory.mktemp("twins")
    pairs = []
    for layer in (1, 2):
        found = as_transcoder(model, layer, folder / f"m{layer}")
        many = range(found.d_sae)
        pairs.append([[Node("mlp", layer, index=i) for i in many], [feature(f"t{layer}", found, i) for i in many]])
    return with_features(model, [node for pair in pairs for each in pair for node in each]), pairs


places = st.sampled_from((END, A, Position("B"), EVERYWHERE))


def test_as_receivers_features_are_the_neurons_that_they_are(twins: tuple[Case, list]) -> None:
    case, (low, high) = twins
    senders = [EMBED, Node("mlp", 0), Node("head", 1, 2), Node("head", 0, 0, 1)]

    @drawn
    @given(st.sampled_from(senders), st.sets(st.integers(0, 39), min_size=1, max_size=3), places, st.data())
    def equal(sender: Node, which: set[int], at: Position, data: st.DataObject) -> None:
        then = data.draw(st.sampled_from((LOGITS, Node("head", 3, 1))))
        port, there = ("in", END) if then == LOGITS else ("v", at)
        how = data.draw(st.sampled_from(("single", "beside", "between", "path", "two", "via")))
        found = []
        for mine, next_ones in zip(low, high, strict=True):
            nodes = [mine[i] for i in which]
            first = frozenset(into(sender, node, at) for node in nodes)
            onwards = frozenset(into(node, then, there, port) for node in nodes)
            last = next_ones[min(which)]
            across = frozenset(into(node, last, at) for node in nodes)
            found.append(
                {
                    "single": Experiment(first),
                    "beside": Experiment(first | onwards, frozenset([Site(next_ones[3], at)])),
                    "between": Experiment(across, direction="denoise"),
                    "path": Experiment(onwards, before=(first,)),
                    "two": Experiment(frozenset([into(last, then, there, port)]), before=(first, across)),
                    "via": Experiment(first if sender.index < 0 else across, via_mlps=True),
                }[how]
            )
        of_neurons, of_features = logits(case, *found)
        torch.testing.assert_close(of_neurons, of_features, atol=1e-4, rtol=1e-4)

    equal()


def test_all_features_together_receive_as_their_mlp_does(twins: tuple[Case, list]) -> None:
    """The features of an MLP that is written as a transcoder leave nothing, so that they are all of what it reads."""
    case, (low, _) = twins
    whole = Node("mlp", 1)
    for sender, at in ((EMBED, EVERYWHERE), (Node("head", 1, 0), A)):
        edges = [frozenset(into(sender, node, at) for node in mine) for mine in ([whole], *low)]
        on = [frozenset(into(node, LOGITS) for node in mine) for mine in ([whole], *low)]
        some = [Experiment(each) for each in edges]
        some += [Experiment(last, before=(first,)) for first, last in zip(edges, on, strict=True)]
        found = logits(case, *some)
        assert (found[0] - logits(case, Experiment())[0]).abs().max() > 1e-3
        for one in (found[:3], found[3:]):
            torch.testing.assert_close(one[1], one[0], atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(one[2], one[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("where", [three, inner])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_everything_sent_to_a_feature_is_its_value_on_the_corrupt_prompts(
    family: str, where: Callable, random_model: Callable, tmp_path: Path
) -> None:
    """Where all that an encoder reads is exchanged, its features are those of the other run: a knock-out of them."""
    model = random_model(family)
    nodes = [node for node in where(model, tmp_path) if receives(node)]
    case = with_features(model, nodes)
    plain = [EMBED, *(Node("head", layer, head) for layer in range(model.n_layers) for head in range(model.n_heads))]
    plain += [Node("mlp", layer) for layer in range(model.n_layers)]
    for node in nodes:
        before = [each for each in plain if each.stage(model.parallel) < node.stage(model.parallel)]
        sent = Experiment(frozenset(into(each, node, EVERYWHERE) for each in before))
        knocked_out = Experiment(sites=frozenset([Site(node, EVERYWHERE)]))
        first, second = logits(case, sent, knocked_out)
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_all_features_of_a_stream_together_receive_for_everything_after_it(
    family: str, random_model: Callable, tmp_path: Path
) -> None:
    """Two features for each dimension leave nothing of a stream: what is sent to all of them is sent to all readers."""
    model = random_model(family)
    one, layers = torch.eye(model.d_model), model.n_layers
    both = torch.cat((one, -one))
    tensors = {"W_enc": both.T, "W_dec": both, "b_enc": torch.zeros(len(both)), "b_dec": torch.zeros(len(one))}
    high = layers - 1
    every = {}
    for layer in (high, layers):
        hook = f"blocks.{layer - 1}.hook_resid_post"
        found = written(tmp_path / str(layer), tensors, hook, hook)
        every[layer] = [feature(f"r{layer}", found, i) for i in range(len(both))]
    if not model.parallel:
        found = written(tmp_path / "mid", tensors, f"blocks.{high}.hook_resid_mid", f"blocks.{high}.hook_resid_mid")
        every[-1] = [feature("mid", found, i) for i in range(len(both))]
    case = with_features(model, [node for nodes in every.values() for node in nodes])
    readers = [Input(Node("head", high, head), port) for head in range(model.n_heads) for port in QKV]
    readers += [Input(Node("mlp", high), "in"), Input(LOGITS, "in")]
    for sender in (Node("head", 0, 1), Node("mlp", 0), Node("mlp", high - 1)):
        if sender.stage(model.parallel) < Node("resid", high).stage(model.parallel):
            features = frozenset(into(sender, node, END) for node in every[high])
            plain = frozenset(Edge(sender, reader, END) for reader in readers)
            first, second = logits(case, Experiment(features), Experiment(plain))
            torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
        pairs = [(frozenset(into(sender, node, END) for node in every[layers]), frozenset([into(sender, LOGITS)]))]
        if -1 in every and sender != Node("mlp", high):  # behind the heads of the last layer: its MLP, and the logits
            behind = frozenset(into(sender, node, END) for node in every[-1])
            pairs += [(behind, frozenset([into(sender, LOGITS), into(sender, Node("mlp", high))]))]
        for how in ({}, {"via_mlps": True}, {"direction": "denoise"}):
            for pair in pairs[::-1]:
                first, second = logits(case, *(Experiment(edges, **how) for edges in pair))  # type: ignore[arg-type]
                torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
        moved = (first - logits(case, Experiment(direction="denoise"))[0]).abs().max()
        assert moved > 1e-3 or sender.kind == "mlp", "beside its heads, the first MLP reads the same at END"


def test_how_a_receiver_is_scaled_changes_nothing(random_model: Callable, tmp_path: Path) -> None:
    model = random_model("llama")
    for hook in ("blocks.1.hook_resid_pre", "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"):
        tensors, folder = random(model.d_model, 5, 3), tmp_path / hook
        plain = written(folder / "plain", tensors, hook, hook)
        scale = torch.tensor([2.0, 0.5, 3.0, 1.0, 0.1])
        scaled = {"W_enc": tensors["W_enc"] * scale, "b_enc": tensors["b_enc"] * scale, "b_dec": tensors["b_dec"]}
        other = written(folder / "scaled", scaled | {"W_dec": tensors["W_dec"] / scale[:, None]}, hook, hook)
        for index in (0, 4):
            both = [feature(name, found, index) for name, found in (("p", plain), ("s", other))]
            case = with_features(model, both)
            edges = [frozenset([into(Node("head", 0, 1), each, A)]) for each in both]
            last = [frozenset([into(each, Node("head", 2, 1), A, "k")]) for each in both]
            some = [Experiment(each) for each in edges]
            some += [Experiment(each, before=(first,)) for first, each in zip(edges, last, strict=True)]
            first, second, third, fourth = logits(case, *some)
            torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(third, fourth, atol=1e-4, rtol=1e-4)


def test_of_the_k_largest_features_the_selection_is_made_anew(random_model: Callable, tmp_path: Path) -> None:
    """What is sent to one feature may take it out of the k largest, or put it in; the others stay."""
    model, hook = random_model("gpt2"), "blocks.1.hook_resid_pre"
    found = written(tmp_path / "k", random(model.d_model, 8, 3), hook, hook, architecture="topk", k=2)
    nodes = [feature("k", found, i) for i in range(8)]
    case = with_features(model, nodes)
    before = case.runs.clean.value(Node("resid", 1))
    sender = Node("mlp", 0)
    x = before + case.runs.corrupt.value(sender) - case.runs.clean.value(sender)
    tensors = {name: found.tensors[name].read() for name in ("W_enc", "W_dec", "b_enc")}
    after = x @ tensors["W_enc"].T + tensors["b_enc"]
    kept = after.relu() * (after >= after.topk(2, dim=-1).values[..., -1:])
    old = torch.stack([case.runs.clean.value(node)[..., 0] for node in nodes], dim=-1)
    assert ((old > 0) != (kept > 0)).any(), "the selection changes"
    for i, node in enumerate(nodes):
        shown = Experiment(frozenset([into(sender, node, EVERYWHERE)]))
        change = (kept[..., i] - old[..., i])[..., None] * tensors["W_dec"][i]
        torch.testing.assert_close(
            logits(case, shown)[0], _from_stream(model, before + change, 1), atol=1e-4, rtol=1e-4
        )


def _from_stream(model: Transformer, resid: torch.Tensor, layer: int) -> torch.Tensor:
    """Logits at END, given the stream that enters a layer of a model without anything special."""
    from circuitdsl.models.parts import attend

    for i in range(layer, model.n_layers):
        block, x = model.blocks[i], model.blocks[i].attn_norm(resid)
        turns = model.turns(resid.shape[1])[i]
        q, k, v = (block.attn.project(port, x, turns).transpose(1, 2) for port in ("q", "k", "v"))  # type: ignore[arg-type]
        mid = resid + block.attn.write(attend(block.attn, q, k, v))
        resid = mid + block.mlp(block.mlp_norm(mid))
    return model.logits(resid[:, -1]).float()


def test_into_a_feature_costs_what_it_does_into_a_neuron(twins: tuple[Case, list]) -> None:
    """Features that read the same share the MLP that they are computed from."""
    case, (low, _) = twins
    neurons, features = low

    def counted(nodes: list[Node], at: Position, before: tuple = ()) -> tuple[int, int]:
        tally = Tally()
        edges = frozenset(into(EMBED, node, at) for node in nodes)
        last = frozenset(into(node, LOGITS) for node in nodes)
        some = [Experiment(edges)] if not before else [Experiment(last, before=(edges,))]
        effects(case.runs, some, case.positions, case.vocabulary, tally=tally)
        return tally.block_positions, tally.flow_positions

    for at in (END, EVERYWHERE):
        whole = counted([Node("mlp", 1)], at)
        assert counted(features[:1], at) == counted(neurons[:1], at) == counted(features[:5], at) == whole
        assert whole[0] > 0
        on_path = counted([Node("mlp", 1)], at, (True,))
        assert counted(features[:5], at, (True,)) == counted(neurons[:1], at, (True,)) == on_path
        assert on_path[1] > 0


def test_into_a_feature_behind_the_heads_costs_what_it_does_into_their_mlp(
    random_model: Callable, tmp_path: Path
) -> None:
    model = random_model("gpt2")
    behind = [node for node in inner(model, tmp_path) if receives(node)]
    case = with_features(model, behind)
    where = Where.of(case.positions, *case.clean.shape, first_difference(case.clean, case.corrupt))
    for sender, at in ((EMBED, END), (Node("head", 1, 0), A), (Node("mlp", 0), EVERYWHERE)):
        costs = []
        for nodes in ([Node("mlp", 1)], behind[:1], behind):
            one = Experiment(frozenset(into(sender, node, at) for node in nodes))
            effects(case.runs, [one], case.positions, case.vocabulary, tally=(tally := Tally()))
            assert tally.block_positions == floor_of(model, plan(one, model), where).sum()
            costs.append(tally.block_positions)
        assert costs[0] == costs[1] == costs[2] > 0


@pytest.mark.parametrize("where", [three, inner])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_changed_features_are_knocked_out(family: str, where: Callable, random_model: Callable, tmp_path: Path) -> None:
    """Scaled by 0 or replaced, alone and in groups; scaled twice; what they write is known afterwards."""
    model = random_model(family)
    nodes = [*where(model, tmp_path), Node("mlp", 1 if model.n_layers == 3 else 2, index=3)]
    nodes = [node for node in nodes if node.of[:1] not in ("s", "b")]
    case = with_features(model, nodes)
    stratum = torch.tensor([0, 1, 0])
    means = mean_terms(model, case.corrupt, stratum, 2, nodes)
    case = replace(case, runs=case.runs.with_means(means, stratum))

    def changed(*verbs: Verb) -> torch.Tensor:
        found = intervene(case.runs, Intervention("test", "", verbs), case.positions)
        return model.logits(found.cache.end)

    for group in [*([node] for node in nodes), nodes[:3], [nodes[0], nodes[7], nodes[-1]]]:
        out, every = tuple(Site(node, EVERYWHERE) for node in group), tuple(group)
        sites = tuple(Site(node, at) for node in group for at in (A, END))
        wanted = logits(
            case,
            Experiment(sites=frozenset(out), ablate="zero"),
            *(Experiment(sites=frozenset(sites), ablate=how) for how in ("corrupt", "mean")),
        )
        found = [changed(Scale(every, 0.0)), *(changed(Replace(sites, how)) for how in ("corrupt", "mean"))]
        torch.testing.assert_close(torch.stack(found), wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(changed(Scale(every, 0.0), Scale(every, 3.0)), wanted[0], atol=1e-4, rtol=1e-4)
        back = changed(Scale(every, 4.0), Scale(every, 0.25))
        torch.testing.assert_close(back, model.logits(case.runs.clean.end), atol=1e-3, rtol=1e-3)
    # the features of a place are encoded before anything of it is changed: the others stay
    own = intervene(case.runs, Intervention("test", "", (Scale(tuple(nodes[6:8]), 3.0),)), case.positions)
    for i, factor in ((6, 3.0), (7, 3.0), (8, 1.0)):
        torch.testing.assert_close(own.cache.value(nodes[i]), factor * case.runs.clean.value(nodes[i]))


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([into(EMBED, Node("mlp", 0, index=ERROR, of="t"))], "reads nothing"),
        ([into(EMBED, Node("resid", 1))], "reads nothing"),
        ([into(Node("head", 1, 0), Node("resid", 1, index=0, of="r"))], "does not come before"),
        ([into(EMBED, Node("resid", 1, index=0, of="r")), into(EMBED, LOGITS)], "cannot be patched together"),
        ([into(EMBED, Node("mlp", 0, index=0, of="t")), into(EMBED, Node("mlp", 0, index=0))], "divided in two ways"),
    ],
)
def test_what_cannot_be_sent_is_refused(
    edges: list[Edge], message: str, random_model: Callable, tmp_path: Path
) -> None:
    model = random_model("gpt2")
    nodes = three(model, tmp_path)
    named = {node.of[0]: node.of for node in nodes}

    def real(node: Node) -> Node:
        return node._replace(of=named[node.of]) if node.of else node

    some = frozenset(Edge(real(e.sender), Input(real(e.receiver.node), e.receiver.port), e.position) for e in edges)
    with pytest.raises(PatchError, match=message):
        logits(with_features(model, nodes), Experiment(some))
