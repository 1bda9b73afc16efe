"""Running a circuit alone equals its definition, computed one prompt, input and term at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.engine.circuit_alone import subgraph_effects
from circuitdsl.engine.experiment import Experiment, PatchError
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import baseline, mean_terms
from circuitdsl.engine.tally import Tally
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.models.parts import Transformer
from tests.drawing import examples
from tests.engine.random_experiments import edges, inputs, senders, sites
from tests.engine.reference import RunTerms, neuron, nodes, share, stages, terms_of, write
from tests.engine.small_models import FAMILIES, Case, make_case, neurons

CLOSE = 1e-4
quick = settings(
    max_examples=examples(4, 25),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def kept(case: Case, *subgraphs: Subgraph, **options) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return subgraph_effects(case.runs, subgraphs, case.positions, case.vocabulary, **options)


def with_means(case: Case) -> Case:
    """The same, with the mean over all corrupt prompts to put in."""
    zeros = torch.zeros(len(case.clean), dtype=torch.long)
    means = mean_terms(case.model, case.corrupt, zeros, 1, neurons(case.model))
    return replace(case, runs=case.runs.with_means(means, zeros))


def test_each_prompt_gets_the_means_of_its_own_stratum(case: Case) -> None:
    """Neighbours of other strata make no difference to a prompt."""
    stratum = torch.tensor([0, 1, 0])
    means = mean_terms(case.model, case.corrupt, stratum, 2, neurons(case.model))
    some = [Subgraph("nodes", ablate="mean", mlps=True), Subgraph("edges", ablate="mean")]
    whole = kept(replace(case, runs=case.runs.with_means(means, stratum)), *some)
    for row in range(3):
        one = case.on([row])
        own, other = (
            kept(replace(one, runs=one.runs.with_means(means, torch.tensor([which]))), *some)[:, 0]
            for which in (stratum[row], 1 - stratum[row])
        )
        assert (whole[:, row] - own).abs().max() < CLOSE < (own - other).abs().max()


# --- the definition ---------------------------------------------------------------------------------


@cache
def corrupt_terms(model: Transformer, corrupt: torch.Tensor) -> list[RunTerms]:
    """The terms of every corrupt prompt, computed once for each case."""
    return [terms_of(model, tokens, neurons(model)) for tokens in corrupt]


@torch.inference_mode()
def by_definition(case: Case, one: Subgraph) -> torch.Tensor:
    """Logits at END of every prompt: each input is summed from the terms that it may read, each as it may read it."""
    means = corrupt_terms(case.model, case.corrupt)
    rows = []
    for i, clean in enumerate(case.clean):
        plain = means[i]
        if one.ablate == "mean":
            plain = {node: torch.stack([m[node] for m in means]).mean(0) for node in plain}
        other = {node: torch.zeros_like(t) if one.ablate == "zero" else t for node, t in plain.items()}
        rows.append(_logits(case, one, i, clean, other))
    return torch.stack(rows)


def _logits(case: Case, one: Subgraph, prompt: int, clean: torch.Tensor, other: RunTerms) -> torch.Tensor:
    model, now = case.model, RunTerms()

    def tokens(position: Position) -> set[int]:
        if position == EVERYWHERE:
            return set(range(len(clean)))
        return {int(t) for t in case.positions[position][prompt] if t >= 0}

    live_sites = {(site.node, t) for site in one.sites for t in tokens(site.position)}
    live_edges = {(edge.sender, edge.receiver, t) for edge in one.edges for t in tokens(edge.position)}

    def counts(sender: Node, receiver: Input) -> bool:
        return one.mlps or (sender.kind == "head" and receiver.node.kind in ("head", "logits"))

    def read(node: Node, port: str) -> torch.Tensor:
        receiver = Input(node, port)  # type: ignore[arg-type]
        total = torch.zeros_like(now[EMBED])
        for sender in senders(model, node):
            for t in range(len(clean)):
                listed = (sender.whole, receiver, t) in live_edges
                patch = one.keep == "edges" and counts(sender, receiver) and listed == one.inverted
                if not sender.is_part:
                    total[t] += (other if patch else now)[sender][t]
                elif (
                    not listed
                    and (sender, receiver, t) in live_edges
                    and one.keep == "edges"
                    and counts(sender, receiver)
                ):
                    change = share(model, now, sender)[t] - share(model, other, sender)[t]
                    total[t] += change if patch else -change
        for layer, block in enumerate(model.blocks):
            if block.attn.o.bias is not None and Node("head", layer).stage(model.parallel) < node.stage(model.parallel):
                total += block.attn.o.bias
        return total

    for node in nodes(model)[:-1]:
        if node.head <= 0:  # the heads of a layer are written together
            now |= write(model, clean, next(stage for stage in stages(model) if node in stage), read)
        now |= {part: neuron(model, part, read) for part in neurons(model) if part.whole == node}
        if one.keep == "nodes" and (node.kind == "head" or (node.kind == "mlp" and one.mlps)):
            written = dict(now) | {node: now[node].clone()}
            for t in range(len(clean)):
                whole = (node, t) in live_sites
                if whole == one.inverted:
                    now[node][t] = other[node][t]
                for part in {n for n, at in live_sites if n.is_part and n.whole == node and at == t and not whole}:
                    change = share(model, written, part)[t] - share(model, other, part)[t]
                    now[node][t] += -change if one.inverted else change
    return model.logits(read(LOGITS, "in")[-1]).float()


def subgraphs(model: Transformer) -> st.SearchStrategy[Subgraph]:
    """Nodes or edges, few or many, with and without MLPs, and all ways of ablating."""
    some_sites = st.frozensets(sites(model).filter(lambda s: s.node != EMBED), max_size=12)
    some_edges = st.frozensets(edges(model), max_size=12)
    return st.builds(
        Subgraph,
        keep=st.sampled_from(("nodes", "edges")),
        sites=some_sites,
        edges=some_edges,
        mlps=st.booleans(),
        ablate=st.sampled_from(("corrupt", "mean", "zero")),
        inverted=st.booleans(),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_subgraph_runs_as_defined(family: str, random_model: Callable) -> None:
    case = with_means(make_case(random_model(family)))

    @quick
    @given(st.lists(subgraphs(case.model), min_size=1, max_size=4), st.integers(1, 60))
    def check(some: list[Subgraph], max_rows: int) -> None:
        found = kept(case, *some, max_rows=max_rows)
        for one, values in zip(some, found, strict=True):
            assert (values - by_definition(case, one)).abs().max() < CLOSE, one

    check()


# --- identities -------------------------------------------------------------------------------------


def every_edge(model: Transformer) -> frozenset[Edge]:
    return frozenset(Edge(s, receiver, EVERYWHERE) for receiver in inputs(model) for s in senders(model, receiver.node))


def test_keeping_everything_is_the_clean_run_and_nothing_the_corrupt_one(case: Case) -> None:
    clean = baseline(case.model, case.runs.clean, case.vocabulary)
    corrupt = baseline(case.model, case.runs.corrupt, case.vocabulary)
    all_sites = frozenset(Site(node, EVERYWHERE) for node in nodes(case.model)[:-1])
    edges = every_edge(case.model) | frozenset(
        Edge(s, Input(LOGITS, "in"), EVERYWHERE) for s in senders(case.model, LOGITS)
    )
    whole = kept(case, Subgraph("nodes", all_sites, mlps=True), Subgraph("edges", edges=edges, mlps=True))
    assert (whole - clean).abs().max() < CLOSE
    (nothing,) = kept(case, Subgraph("edges", mlps=True))
    assert (nothing - corrupt).abs().max() < CLOSE


def test_the_complement_as_a_list_gives_the_same(case: Case) -> None:
    """The engine that patches what it is told, told every edge and every node outside."""
    model, heads = case.model, [node for node in nodes(case.model) if node.kind == "head"]
    keep = frozenset(
        [Edge(heads[0], Input(heads[-1], "v"), EVERYWHERE), Edge(heads[1], Input(LOGITS, "in"), EVERYWHERE)]
    )
    inside = [Input(node, port) for node in heads for port in ("q", "k", "v")] + [Input(LOGITS, "in")]  # type: ignore[arg-type]
    outside = {
        Edge(s, receiver, EVERYWHERE) for receiver in inside for s in heads if s in senders(model, receiver.node)
    }
    sites = frozenset(Site(node, EVERYWHERE) for node in heads[2:])
    listed = effects(
        case.runs,
        [Experiment(frozenset(outside - keep)), Experiment(sites=sites)],
        case.positions,
        case.vocabulary,
    )
    short = Subgraph("nodes", frozenset(Site(node, EVERYWHERE) for node in heads[:2]))
    assert (kept(case, Subgraph("edges", edges=keep), short) - listed).abs().max() < CLOSE


def test_order_repetition_and_batches_change_nothing(gpt2: Case) -> None:
    some = [Subgraph("nodes"), Subgraph("edges"), Subgraph("nodes", mlps=True), Subgraph("nodes")]
    whole = kept(gpt2, *some)
    assert torch.equal(whole[0], whole[3])
    assert (kept(gpt2, *some[::-1], max_rows=1).flip(0) - whole).abs().max() < CLOSE
    assert (kept(gpt2.on([2, 0, 1]), *some) - whole[:, [2, 0, 1]]).abs().max() < CLOSE


def test_work_is_that_of_plain_passes(gpt2: Case) -> None:
    """Leaving out every edge of the model costs no more blocks than a forward pass."""
    tally = Tally()
    kept(gpt2, Subgraph("edges", mlps=True), Subgraph("edges"), tally=tally)
    passes = 2 * len(gpt2.clean) * ((gpt2.model.n_layers - 1) * gpt2.runs.length + 1)
    assert tally.block_positions == passes


def test_kept_nodes_are_run_only_where_they_can_change_something(gpt2: Case) -> None:
    """Elsewhere and in earlier layers the run is the one without the circuit, or the clean one."""
    layers, n = gpt2.model.n_layers, len(gpt2.clean)
    ends = {name for name, at in gpt2.positions.items() if bool((at == gpt2.runs.length - 1).all())}
    end = next(iter(ends))
    sites = frozenset([Site(Node("head", 0, 0), end), Site(Node("head", layers - 1, 0), end)])

    def work(*subgraphs: Subgraph) -> int:
        tally = Tally()
        kept(gpt2, *subgraphs, tally=tally)
        return tally.block_positions

    assert work(Subgraph("nodes", sites)) == n * layers, "END alone in every layer"
    last = frozenset([Site(Node("head", layers - 1, 0), end)])
    assert work(Subgraph("nodes", last, inverted=True)) == n, "END alone in the last layer"
    everywhere = frozenset([Site(Node("head", 1, 0), EVERYWHERE)])
    both = Subgraph("nodes", sites), Subgraph("nodes", everywhere)
    assert work(*both) == work(both[0]) + work(both[1]), "one that is everywhere costs the other nothing"


def test_what_the_model_lacks_is_refused(gpt2: Case) -> None:
    with pytest.raises(PatchError, match=r"no 9\.0"):
        kept(gpt2, Subgraph("nodes", frozenset([Site(Node("head", 9, 0), EVERYWHERE)])))
    with pytest.raises(PatchError, match="does not come before"):
        backwards = Edge(Node("head", 1, 0), Input(Node("head", 0, 0), "q"), EVERYWHERE)
        kept(gpt2, Subgraph("edges", edges=frozenset([backwards])))
    with pytest.raises(PatchError, match="needs the means"):
        kept(gpt2, Subgraph("nodes", ablate="mean"))
