"""Edges into features, paths through them and interventions equal hooks on the models of transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from circuitdsl.circuit.changes import Intervention, Replace, Scale
from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site, receives
from circuitdsl.engine.experiment import Experiment
from circuitdsl.engine.intervene import intervene
from circuitdsl.engine.runs import mean_terms
from tests.drawing import examples
from tests.engine.brute_hooks import Hooked, Plain, along, patched
from tests.engine.small_models import Case
from tests.engine.test_features import can_run, drawn, inner, logits, random, three, with_features

CLOSE = 2e-4
few = settings(drawn, max_examples=examples(4, 60))
END = Position("END")


def hooked(case: Case, family: str, nodes: list[Node]) -> Hooked:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(case.model.name, attn_implementation="eager").eval()
    places = {"t": (0, "read"), "s": (1, "wrote"), "r": (2, "stream")}
    places |= {"a": (7, "wrote"), "z": (8, "gathered"), "b": (9, "wrote"), "m": (10, "stream")}
    known = {}
    for node in nodes:
        seed, place = places[node.of[0]]
        wide = case.model.n_heads * case.model.d_head if place == "gathered" else case.model.d_model
        known[node] = Plain(node.whole, place, random(wide, 5, seed))
    return Hooked(model, family, known)


def inputs(case: Case, nodes: list[Node]) -> list[Input]:
    """Every feature, many times as likely as the queries of heads and the logits."""
    alone = [Input(node, "in") for node in nodes if receives(node)]
    heads = [Input(Node("head", layer, 1), "q") for layer in range(1, case.model.n_layers)]
    return [*alone, *alone, *heads, Input(LOGITS, "in")]


@st.composite
def edge(draw: st.DrawFn, case: Case, nodes: list[Node], sender: Node | None = None) -> Edge:
    model = case.model
    plain = [EMBED, *(Node("head", layer, h) for layer in range(model.n_layers) for h in range(2))]
    plain += [Node("mlp", layer) for layer in range(model.n_layers)]
    sender = sender or draw(st.sampled_from([*plain, *nodes]))
    later = [each for each in inputs(case, nodes) if each.node.stage(model.parallel) > sender.stage(model.parallel)]
    assume(later)
    receiver = draw(st.sampled_from(later))
    place = END if receiver.node == LOGITS else draw(st.sampled_from((EVERYWHERE, Position("A"), Position("B"), END)))
    return Edge(sender, receiver, place)


def rows(case: Case, one: Callable[[Tensor, Tensor, dict[Position, set[int]]], Tensor]) -> list[Tensor]:
    """What is computed of each prompt, given where its positions are."""
    found = []
    for i, (clean, corrupt) in enumerate(zip(case.clean, case.corrupt, strict=True)):
        at = {name: {int(t) for t in index[i] if t >= 0} for name, index in case.positions.items()}
        found.append(one(clean, corrupt, at | {EVERYWHERE: set(range(len(clean)))}))
    return found


@pytest.mark.parametrize(
    ("family", "where"),
    [
        *((family, three) for family in ("gpt2", "llama", "gpt_neox", "gemma2")),
        *((family, inner) for family in ("gpt2", "llama", "gpt_neox")),
    ],
)
def test_features_under_hooks(family: str, where: Callable, random_model: Callable, tmp_path: Path) -> None:
    model = random_model(family)
    nodes = where(model, tmp_path)
    case = with_features(model, nodes)
    stratum = torch.zeros(len(case.corrupt), dtype=torch.long)
    case = replace(case, runs=case.runs.with_means(mean_terms(model, case.corrupt, stratum, 1, nodes), stratum))
    slow = hooked(case, family, nodes)

    def close(fast: Tensor, wanted: list[Tensor], what: object) -> None:
        for own, row in zip(fast, wanted, strict=True):
            assert (own - row).abs().max() < CLOSE, str(what)

    places = st.sampled_from((EVERYWHERE, Position("A"), Position("B"), END))
    sites = st.builds(Site, st.sampled_from(nodes), places)

    @few
    @given(st.lists(edge(case, nodes), max_size=4, unique=True), st.frozensets(sites, max_size=3))
    def together(some: list[Edge], out: frozenset[Site]) -> None:
        one = Experiment(frozenset(some), out)
        assume((some or out) and can_run(model, one))
        assume(not any(a.sender == b.sender.whole != b.sender for a in some for b in some))
        (fast,) = logits(case, one)
        close(fast, rows(case, lambda clean, corrupt, at: patched(slow, clean, corrupt, some, at, out)), one)

    @few
    @given(st.data())
    def paths(data: st.DataObject) -> None:
        arrows = [frozenset([data.draw(edge(case, nodes))])]
        while next(iter(arrows[-1])).receiver.node != LOGITS and len(arrows) < 4:
            (last,) = arrows[-1]
            arrows.append(frozenset([data.draw(edge(case, nodes, last.receiver.node))]))
        one = Experiment(arrows[-1], before=tuple(arrows[:-1]))
        assume(len(arrows) > 1 and can_run(model, one))
        (fast,) = logits(case, one)
        close(fast, rows(case, lambda clean, corrupt, at: along(slow, clean, corrupt, arrows, at)), one)

    factors = st.dictionaries(st.sampled_from(nodes), st.sampled_from((0.0, 0.5, -2.0)), min_size=1, max_size=4)

    @few
    @given(factors, st.frozensets(sites, max_size=3))
    def changed(by: dict[Node, float], out: frozenset[Site]) -> None:
        verbs = (*(Scale((node,), factor) for node, factor in by.items()), Replace(tuple(sorted(out)), "mean"))
        found = intervene(case.runs, Intervention("test", "", verbs), case.positions)

        def slowly(clean: Tensor, corrupt: Tensor, at: dict[Position, set[int]]) -> Tensor:
            tokens = {(site.node, token) for site in out for token in at[site.position]}
            return slow.run(clean, scales=by, other=means, sites=tokens)

        close(model.logits(found.cache.end), rows(case, slowly), verbs)

    close(model.logits(case.runs.clean.end), rows(case, lambda clean, corrupt, at: slow.run(clean)), "nothing")
    ran = [slow.run(corrupt) is not None and slow.terms for corrupt in case.corrupt]
    means = {node: torch.stack([terms[node] for terms in ran]).mean(0) for node in nodes}
    together()
    paths() if any(map(receives, nodes)) else None
    changed()
