"""What must be true of patching whatever the model (semantics §5.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.engine import forward
from circuitdsl.engine.experiment import Experiment
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import baseline, run
from circuitdsl.models.parts import PORTS, Transformer
from tests.drawing import examples
from tests.engine.random_experiments import experiments, inputs, senders
from tests.engine.small_models import Case, make_case, only_named

CLOSE = 2e-5
quick = settings(
    max_examples=examples(10, 20),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def every_edge_into(model: Transformer, *receivers: Input) -> frozenset[Edge]:
    return frozenset(Edge(s, receiver, EVERYWHERE) for receiver in receivers for s in senders(model, receiver.node))


def logits(case: Case, *experiments: Experiment, **options) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return effects(case.runs, experiments, case.positions, case.vocabulary, **options)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_patching_with_the_same_run_changes_nothing(family: str, random_model: Callable) -> None:
    case = make_case(random_model(family))
    runs = run(case.model, case.clean, case.clean, only_named(case.model))
    same = Case(case.model, case.clean, case.clean, runs, case.positions)
    clean = baseline(case.model, case.runs.clean, case.vocabulary)

    @quick
    @given(experiments(case.model).filter(lambda e: e.ablate == e.sent == "corrupt"))
    def check(experiment: Experiment) -> None:
        assert (logits(same, experiment) - clean).abs().max() < CLOSE

    check()


def test_every_edge_gives_the_corrupt_run(case: Case) -> None:
    every = every_edge_into(case.model, *inputs(case.model))
    corrupt = baseline(case.model, case.runs.corrupt, case.vocabulary)
    clean = baseline(case.model, case.runs.clean, case.vocabulary)
    noise, denoise = logits(case, Experiment(every), Experiment(every, direction="denoise"))
    assert (noise - corrupt).abs().max() < CLOSE * 5
    assert (denoise - clean).abs().max() < CLOSE * 5


def test_every_sender_of_an_input_replaces_the_input(case: Case) -> None:
    """Nodes all of whose inputs are corrupt write their corrupt terms, as if they had been knocked out.

    Under a post-norm the heads of a layer share a scale, so that it takes all of them.
    """
    layer = tuple(Node("head", 1, head) for head in range(case.model.n_heads))
    alone = () if case.model.blocks[1].attn.post else ((layer[2],),)
    for nodes in ((Node("mlp", 1),), layer, *alone):
        ports = PORTS if nodes[0].kind == "head" else ("in",)
        edges = every_edge_into(case.model, *(Input(node, port) for node in nodes for port in ports))
        sites = frozenset(Site(node, EVERYWHERE) for node in nodes)
        patched, replaced = logits(case, Experiment(edges), Experiment(sites=sites))
        assert (patched - replaced).abs().max() < CLOSE * 5
    (into_logits,) = logits(case, Experiment(every_edge_into(case.model, Input(LOGITS, "in"))))
    assert (into_logits - baseline(case.model, case.runs.corrupt, case.vocabulary)).abs().max() < CLOSE


def test_knocking_out_embed_everywhere_gives_the_corrupt_run(case: Case) -> None:
    (out,) = logits(case, Experiment(sites=frozenset([Site(Node("embed"), EVERYWHERE)])))
    assert (out - baseline(case.model, case.runs.corrupt, case.vocabulary)).abs().max() < CLOSE


def test_a_stream_is_all_terms_in_it(case: Case) -> None:
    """As a sender all nodes before its layer; before the first layer it is the embedding; all of it the other run."""
    last, corrupt = case.model.n_layers, baseline(case.model, case.runs.corrupt, case.vocabulary)
    reader = Input(Node("head", last - 1, 1), "v")
    for at in (Position("A"), EVERYWHERE):
        every = frozenset(
            Edge(sender, reader, at) for sender in senders(case.model, reader.node) if sender.known_after < last - 1
        )
        alone = frozenset([Edge(Node("resid", last - 1), reader, at)])
        for via in (False, True):
            together, stream, both = logits(case, *(Experiment(e, via_mlps=via) for e in (every, alone, every | alone)))
            assert (together - stream).abs().max() < CLOSE * 5
            assert (both - stream).abs().max() < CLOSE * 5
    for layer in range(1, last + 1):
        whole = Experiment(sites=frozenset([Site(Node("resid", layer), EVERYWHERE)]))
        noise, denoise = logits(case, whole, replace(whole, direction="denoise"))
        assert (noise - corrupt).abs().max() < CLOSE
        assert (denoise - baseline(case.model, case.runs.clean, case.vocabulary)).abs().max() < CLOSE


def test_via_mlps_is_direct_where_no_mlp_lies_between(gpt2: Case) -> None:
    """From an MLP to the heads of the next layer there is only the direct path."""
    edge = frozenset([Edge(Node("mlp", 1), Input(Node("head", 2, 0), "v"), Position("A"))])
    direct, via = logits(gpt2, Experiment(edge), Experiment(edge, via_mlps=True))
    assert torch.equal(direct, via)
    further = frozenset([Edge(Node("mlp", 0), Input(Node("head", 2, 0), "v"), Position("A"))])
    direct, via = logits(gpt2, Experiment(further), Experiment(further, via_mlps=True))
    assert (direct - via).abs().max() > 1e-3


def test_knocking_out_embed_and_a_first_head_go_side_by_side(case: Case) -> None:
    """Both enter at layer 0 and start together, but what layer 0 reads changes in one of them alone."""
    both = [Experiment(sites=frozenset([Site(node, Position("A"))])) for node in (Node("head", 0, 1), Node("embed"))]
    for experiment, together in zip(both, logits(case, *both), strict=True):
        assert (logits(case, experiment)[0] - together).abs().max() < CLOSE
    assert (logits(case, *both[::-1]) - logits(case, *both).flip(0)).abs().max() < CLOSE


@pytest.mark.parametrize("at", [Position("A"), EVERYWHERE], ids=str)
def test_a_change_reaches_a_receiver_through_each_mlp_once(case: Case, at: Position) -> None:
    """Where all MLPs between are receivers, or are knocked out, nothing is left to flow through them beside that."""
    senders = [Node("head", 0, 0), Node("head", 0, 2)]
    mlps = [Node("mlp", layer) for layer in range(int(case.model.parallel), case.model.n_layers - 1)]
    last = Input(Node("head", case.model.n_layers - 1, 1), "v")
    alone = frozenset(Edge(sender, last, at) for sender in senders)
    all_of_them = alone | {Edge(sender, Input(mlp, "in"), at) for sender in senders for mlp in mlps}
    out = frozenset(Site(mlp, at) for mlp in [Node("mlp", 0), *mlps])
    for edges, sites in ((all_of_them, frozenset[Site]()), (alone, out), (all_of_them, out)):
        direct, via = logits(case, *(Experiment(edges, sites, via_mlps=via) for via in (False, True)))
        assert (direct - via).abs().max() < CLOSE
    direct, via = logits(case, *(Experiment(alone, via_mlps=via) for via in (False, True)))
    assert (direct - via).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_effects_do_not_depend_on_batches_or_order(family: str, random_model: Callable) -> None:
    case = make_case(random_model(family))

    @quick
    @given(
        st.lists(experiments(case.model).filter(lambda e: "mean" not in (e.ablate, e.sent)), min_size=1, max_size=6),
        st.permutations([0, 1, 2]),
        st.integers(1, 40),
    )
    def check(some: list[Experiment], order: list[int], max_rows: int) -> None:
        whole = logits(case, *some)
        assert (logits(case, *some[::-1]).flip(0) - whole).abs().max() < CLOSE
        assert (logits(case, *some, max_rows=max_rows) - whole).abs().max() < CLOSE
        assert (logits(case.on(order), *some) - whole[:, order]).abs().max() < CLOSE
        alone = torch.cat([logits(case, one) for one in some])
        assert (alone - whole).abs().max() < CLOSE

    check()


def test_positions_that_mean_the_same_token_patch_it_once(gpt2: Case) -> None:
    twice = {Position("A"): torch.full((3, 1), 2), Position("B"): torch.full((3, 2), 2)}
    receiver = Input(Node("head", 2, 0), "k")
    edges = [Edge(Node("embed"), receiver, Position(name)) for name in ("A", "B")]
    one, both = effects(
        gpt2.runs, [Experiment(frozenset(edges[:1])), Experiment(frozenset(edges))], twice, gpt2.vocabulary
    )
    assert torch.equal(one, both)


def test_running_out_of_memory_halves_the_batch(gpt2: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    receivers = [Input(Node("head", 2, head), port) for head in range(3) for port in ("q", "k", "v")]
    some = [Experiment(frozenset([Edge(Node("embed"), receiver, EVERYWHERE)])) for receiver in receivers]
    whole, sizes, enter = logits(gpt2, *some), [], forward.enter

    def entered(runs: forward.Passes) -> list[torch.Tensor]:
        sizes.append(sum(len(run.batch.plans) * len(run.batch.rows) for run in runs))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return enter(runs)

    monkeypatch.setattr(forward, "enter", entered)
    assert (logits(gpt2, *some) - whole).abs().max() < CLOSE
    assert max(sizes) > 2 >= min(sizes)
