"""A circuit that holds features of an MLP, alone: as defined, written down here, and as the neurons that they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circuitdsl.circuit.features import feature
from circuitdsl.circuit.nodes import EMBED, ERROR, EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.engine.circuit_alone import subgraph_effects
from circuitdsl.engine.runs import mean_terms
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.models.parts import Transformer
from tests.engine import reference
from tests.engine.small_models import Case, only_named
from tests.engine.test_features import (
    CLOSE,
    NAMES,
    TENSORS,
    all_of,
    as_transcoder,
    drawn,
    note,
    of_relu,
    random,
    with_features,
    written,
)

Terms = dict[Node, Tensor]


def two(model: Transformer, folder: Path) -> list[Node]:
    """Features of a transcoder of the first MLP and of an autoencoder of a later one, with the errors."""
    top = model.n_layers - 2
    places = (
        ("t", "blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"),
        ("s", f"blocks.{top}.hook_mlp_out", f"blocks.{top}.hook_mlp_out"),
    )
    made = [written(folder / name, random(model.d_model, 5, i), *hooks) for i, (name, *hooks) in enumerate(places)]
    return [node for (name, *_), found in zip(places, made, strict=True) for node in all_of(name, found)]


def terms_of(model: Transformer, nodes: list[Node], tokens: Tensor, ablated: Callable[[Terms, Node], None]) -> Terms:
    """Every term of a run, those of features beside their MLPs; `ablated` overwrites a node's when it is written."""
    now: Terms = {}

    def read(node: Node, port: str) -> Tensor:
        return reference.residual(model, now, node)

    for stage in reference.stages(model):
        now |= reference.write(model, tokens, stage, read)
        for node in stage:
            for part in (each for each in nodes if each.whole == node):
                tensors, transcoder = TENSORS[part.of]
                x = model.blocks[node.layer].mlp_norm(read(node, "in")) if transcoder else now[node]
                f = (x @ tensors["W_enc"] + tensors["b_enc"]).relu()
                rows = torch.outer(f[:, part.index], tensors["W_dec"][part.index]) if part.index != ERROR else None
                now[part] = now[node] - f @ tensors["W_dec"] - tensors["b_dec"] if rows is None else rows
            ablated(now, node)
    return now


def slowly(case: Case, nodes: list[Node], one: Subgraph) -> Tensor:
    """Logits at END: of an MLP that is ablated, the kept features stand at what they write now."""
    model = case.model
    plain = [terms_of(model, nodes, tokens, lambda now, node: None) for tokens in case.corrupt]
    rows = []
    for i, clean in enumerate(case.clean):
        other = plain[i]
        if one.ablate == "mean":
            other = {node: torch.stack([each[node] for each in plain]).mean(0) for node in other}
        if one.ablate == "zero":
            other = {node: torch.zeros_like(term) for node, term in other.items()}
        at = {
            p: case.positions[p][i].tolist() if p != EVERYWHERE else range(len(clean))
            for p in {s.position for s in one.sites}
        }
        named = {(site.node, int(t)) for site in one.sites for t in at[site.position] if t >= 0}

        def ablated(now: Terms, node: Node, named=named, other=other) -> None:  # type: ignore[no-untyped-def]
            if node == EMBED or (node.kind == "mlp" and not one.mlps):
                return
            before = now[node].clone()
            for t in range(len(before)):
                parts = [each for each in nodes if each.whole == node and (each, t) in named]
                change = sum((now[each][t] - other[each][t] for each in parts), torch.zeros_like(before[t]))
                if ((node, t) in named) == one.inverted:
                    now[node][t] = other[node][t]
                if (node, t) not in named:
                    now[node][t] += -change if one.inverted else change

        now = terms_of(model, nodes, clean, ablated)
        rows.append(model.logits(reference.residual(model, now, LOGITS)[-1]).float())
    return torch.stack(rows)


def with_means(case: Case, nodes: list[Node]) -> Case:
    zeros = torch.zeros(len(case.clean), dtype=torch.long)
    return replace(
        case,
        runs=case.runs.with_means(
            mean_terms(case.model, case.corrupt, zeros, 1, [*only_named(case.model), *nodes]), zeros
        ),
    )


def alone(case: Case, *some: Subgraph) -> Tensor:
    return subgraph_effects(case.runs, some, case.positions, case.vocabulary)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_features_are_kept_and_ablated_as_defined(family: str, random_model: Callable, tmp_path: Path) -> None:
    model = random_model(family)
    nodes = two(model, tmp_path)
    note(nodes)
    case = with_means(with_features(model, nodes), nodes)
    plain = [node for stage in reference.stages(model) for node in stage if node != EMBED]
    places = st.one_of(st.just(EVERYWHERE), st.sampled_from(NAMES).map(Position))
    subgraphs = st.builds(
        Subgraph,
        keep=st.just("nodes"),
        sites=st.frozensets(st.builds(Site, st.sampled_from(nodes) | st.sampled_from(plain), places), max_size=8),
        mlps=st.just(True),
        ablate=st.sampled_from(("corrupt", "mean", "zero")),
        inverted=st.booleans(),
    )

    @drawn
    @given(st.lists(subgraphs, min_size=1, max_size=3))
    def check(some: list[Subgraph]) -> None:
        for one, values in zip(some, alone(case, *some), strict=True):
            assert (values - slowly(case, nodes, one)).abs().max() < CLOSE, one

    check()


@pytest.mark.parametrize("keep", ["nodes", "edges"])
def test_alone_features_of_a_written_mlp_are_its_neurons(keep: str, random_model: Callable, tmp_path: Path) -> None:
    model = of_relu(random_model("gpt2"))
    found = as_transcoder(model, 1, tmp_path / "m1")
    pairs = [(Node("mlp", 1, index=i), feature("t", found, i)) for i in range(0, 40, 3)]
    of_features = [node for _, node in pairs]
    every = [each for pair in pairs for each in pair]
    case = with_means(with_features(model, every), every)
    apart = []
    into = [Input(Node("head", 3, 1), "v"), Input(Node("mlp", 2), "in"), Input(LOGITS, "in")]
    heads = [Node("head", 0, 1), Node("head", 2, 0)]
    for ablate in ("corrupt", "mean", "zero"):
        for inverted in (False, True):
            both = [
                Subgraph(
                    keep,  # type: ignore[arg-type]
                    sites=frozenset(Site(each, Position(at)) for each in own for at in ("A", "END")),
                    edges=frozenset(Edge(each, to, Position("END")) for each in own for to in into),
                    mlps=True,
                    ablate=ablate,  # type: ignore[arg-type]
                    inverted=inverted,
                )
                for own in ([*heads, *(pair[0] for pair in pairs)], [*heads, *of_features], heads)
            ]
            neurons, features, neither = (alone(case, one) for one in both)
            torch.testing.assert_close(neurons, features, atol=1e-4, rtol=1e-4)
            apart.append(float((features - neither).abs().max()))
    assert sum(each > 1e-3 for each in apart) >= 3, "they do something, but where what they read is what stands in"


def test_all_features_and_the_error_are_the_mlp(random_model: Callable, tmp_path: Path) -> None:
    """With corrupt terms elsewhere `b_dec` is the same in both runs."""
    model = random_model("llama")
    nodes = two(model, tmp_path)
    case = with_features(model, nodes)
    for of in ("t", "s"):
        parts = [node for node in nodes if node.of.startswith(of)]
        whole = frozenset([Site(parts[0].whole, EVERYWHERE)])
        one, other = alone(
            case,
            Subgraph("nodes", frozenset(Site(part, EVERYWHERE) for part in parts), mlps=True),
            Subgraph("nodes", whole, mlps=True),
        )
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
