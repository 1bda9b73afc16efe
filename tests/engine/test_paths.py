"""Effects of whole paths: equal to brute force on every family, and what must be true of them whatever the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position
from circuitdsl.engine.along_paths import mlp_positions
from circuitdsl.engine.batch_index import Where, plan
from circuitdsl.engine.count import floor_of
from circuitdsl.engine.experiment import Experiment
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import baseline, first_difference, run
from circuitdsl.engine.tally import Tally
from circuitdsl.models.errors import PatchError
from circuitdsl.models.parts import Transformer
from tests.drawing import examples
from tests.engine import brute_path
from tests.engine.random_experiments import NAMES, inputs, senders
from tests.engine.small_models import BRIDGED, FAMILIES, FEW, Case, make_case, neurons

TOLERANCE = 1e-4
END = Position("END")
drawn = settings(
    max_examples=examples(8, 60),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def paths(draw: st.DrawFn, model: Transformer) -> Experiment:
    """Two to four arrows, drawn from the last reader back; groups of nodes at an arrow."""
    every = inputs(model)
    ends = {draw(st.sampled_from(every) | st.just(Input(LOGITS, "in"))) for _ in range(draw(st.integers(1, 2)))}
    arrows: list[frozenset[Edge]] = []
    for _ in range(draw(st.integers(2, 4))):
        arrow = set()
        for end in sorted(ends):
            whole = [node for node in senders(model, end.node) if not node.is_part and node.kind != "embed"]
            for _ in range(draw(st.integers(1, 2))):
                if not whole:
                    break
                names = ("END", "*") if end.node == LOGITS else NAMES
                arrow.add(Edge(draw(st.sampled_from(whole)), end, Position(draw(st.sampled_from(names)))))
        if not arrow or (arrows and {e.receiver.node for e in arrow} != {e.sender for e in arrows[0]}):
            break
        arrows.insert(0, frozenset(arrow))
        nodes = {edge.sender for edge in arrow}
        ends = {Input(n, draw(st.sampled_from("qkv" if n.kind == "head" else ("in",)))) for n in nodes}  # type: ignore[arg-type]
    if len(arrows) < 2:  # a single arrow is an edge
        middle = draw(st.sampled_from(every[:-1]))
        arrows = [
            frozenset([Edge(Node("embed"), middle, END)]),
            frozenset([Edge(middle.node, Input(LOGITS, "in"), END)]),
        ]
    if draw(st.booleans()):  # the first senders may be anything
        first = {draw(st.sampled_from(senders(model, e.receiver.node))): e for e in sorted(arrows[0])}
        some = frozenset(e._replace(sender=sender) for sender, e in first.items())
        if {e.receiver.node for e in some} == {e.receiver.node for e in arrows[0]}:
            arrows[0] = some
    return Experiment(arrows[-1], before=tuple(arrows[:-1]))


def logits(case: Case, *some: Experiment, **options) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return effects(case.runs, some, case.positions, case.vocabulary, **options)


def path(*arrows: Edge | tuple[Edge, ...]) -> Experiment:
    each = [frozenset([a] if isinstance(a, Edge) else a) for a in arrows]
    return Experiment(each[-1], before=tuple(each[:-1]))


@pytest.mark.parametrize("family", examples(("gpt2", "llama", "gpt_neox", "gemma2"), (*FAMILIES, *BRIDGED)))
def test_any_path_equals_brute_force(family: str, random_model: Callable[[str], Transformer]) -> None:
    model = random_model(family)

    @drawn
    @given(st.lists(paths(model), min_size=1, max_size=3), st.integers(0, 5))
    def check(some: list[Experiment], seed: int) -> None:
        case = make_case(model, seed)
        for one, found in zip(some, logits(case, *some), strict=True):
            slow = brute_path.logits(case, [*one.before, one.edges])
            assert (found - slow).abs().max() < TOLERANCE, str(one)

    check()


@pytest.mark.parametrize("family", examples(("gpt2", "gpt_neox", "gemma2"), FEW))
def test_batches_and_order_do_not_matter(family: str, random_model: Callable[[str], Transformer]) -> None:
    model = random_model(family)

    @settings(drawn, max_examples=examples(5, 30))
    @given(st.lists(paths(model), min_size=2, max_size=4), st.permutations(range(3)))
    def check(some: list[Experiment], rows: list[int]) -> None:
        case = make_case(model)
        together = logits(case, *some)
        assert (together - torch.cat([logits(case, one) for one in some])).abs().max() < 2e-5
        assert (together - logits(case, *some, max_rows=1)).abs().max() < 2e-5
        assert (together[:, rows] - logits(case.on(rows), *reversed(some)).flip(0)).abs().max() < 2e-5

    check()


@pytest.mark.parametrize("family", examples(("gpt2", "gemma2"), FEW))
def test_nothing_changed_changes_nothing(family: str, random_model: Callable[[str], Transformer]) -> None:
    case = make_case(random_model(family))
    runs = run(case.model, case.clean, case.clean, neurons(case.model))
    same = Case(case.model, case.clean, case.clean, runs, case.positions)
    clean = baseline(case.model, case.runs.clean, case.vocabulary)

    @settings(drawn, max_examples=examples(5, 30))
    @given(paths(case.model))
    def check(one: Experiment) -> None:
        assert (logits(same, one) - clean).abs().max() < 2e-5

    check()


@pytest.mark.parametrize("family", examples(("gpt2", "llama", "gpt_neox"), FEW))
def test_with_one_reader_of_the_middle_it_is_the_edge(family: str, random_model: Callable[[str], Transformer]) -> None:
    """Behind the last MLP, and the last heads of a parallel model, there are the logits alone."""
    model = random_model(family)
    case, last = make_case(model), model.n_layers - 1
    middles = [(Input(Node("mlp", last), "in"), "END")]
    if model.parallel and model.blocks[last].attn.post is None:
        middles += [(Input(Node("head", last, 1), port), name) for port, name in ("qE", "kA", "v*")]  # type: ignore[misc]

    @settings(drawn, max_examples=examples(10, 40))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        middle, name = data.draw(st.sampled_from(middles))
        position = Position(name if len(name) > 1 or name == "*" else {"E": "END", "A": "A"}[name])
        sender = data.draw(st.sampled_from(senders(model, middle.node)))
        edge, on = Edge(sender, middle, position), Edge(middle.node, Input(LOGITS, "in"), END)
        assert (logits(case, Experiment(frozenset([edge]))) - logits(case, path(edge, on))).abs().max() < 2e-5

    check()


@pytest.mark.parametrize("family", examples(("gpt2", "llama", "gpt_neox"), [f for f in FEW if "gemma" not in f]))
def test_with_all_readers_of_the_middle_it_is_the_edge(family: str, random_model: Callable[[str], Transformer]) -> None:
    """A change that goes on to every reader, everywhere, is what patching the edge does."""
    model = random_model(family)
    case = make_case(model)
    heads = [] if model.blocks[0].attn.post else [i for i in inputs(model) if i.node.kind == "head"]
    some = [each for each in (*heads, *inputs(model)) if each.node != LOGITS and each.node.layer < model.n_layers - 1]

    @settings(drawn, max_examples=examples(10, 40))
    @given(st.sampled_from(some), st.sampled_from(NAMES), st.data())
    def check(middle: Input, name: str, data: st.DataObject) -> None:
        sender = data.draw(st.sampled_from(senders(model, middle.node)))
        if middle.node.kind == "head" and model.blocks[middle.node.layer].attn.post is not None:
            return  # a head changes the scale of the others of its layer, which no path says
        edge, stage = Edge(sender, middle, Position(name)), middle.node.stage(model.parallel)
        readers = [each for each in inputs(model) if each.node.stage(model.parallel) > stage]
        on = tuple(Edge(middle.node, reader, EVERYWHERE) for reader in readers)
        assert (logits(case, Experiment(frozenset([edge]))) - logits(case, path(edge, on))).abs().max() < 5e-5

    check()


def test_a_change_of_a_query_is_lost_elsewhere(case: Case) -> None:
    """A query that is read at A changes what its head writes at A alone."""
    first, to = Edge(Node("embed"), Input(Node("head", 1, 0), "q"), Position("A")), Input(Node("head", 2, 0), "v")
    lost = path(first, Edge(Node("head", 1, 0), to, END))
    clean = baseline(case.model, case.runs.clean, case.vocabulary)
    assert (logits(case, lost)[0] - clean).abs().max() < 2e-5


def test_a_path_that_breaks_off_is_refused(case: Case) -> None:
    first = Edge(Node("embed"), Input(Node("head", 1, 0), "q"), END)
    with pytest.raises(PatchError, match=r"breaks off before 1\.1"):
        logits(case, path(first, Edge(Node("head", 1, 1), Input(LOGITS, "in"), END)))
    with pytest.raises(PatchError, match="does not come before"):
        logits(case, path(first, Edge(Node("head", 1, 0), Input(Node("head", 0, 0), "q"), END)))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_no_more_is_recomputed_than_for_its_arrows(family: str, random_model: Callable[[str], Transformer]) -> None:
    """Behind the last arrow as for that edge alone; of the way, MLPs at the positions that are read."""
    model = random_model(family)
    case = make_case(model)
    where = Where.of(case.positions, *case.clean.shape, first_difference(case.clean, case.corrupt))

    @settings(drawn, max_examples=examples(15, 60))
    @given(st.lists(paths(model), min_size=1, max_size=3))
    def check(some: list[Experiment]) -> None:
        tally, plans = Tally(), [plan(one, model) for one in set(some)]
        logits(case, *some, tally=tally)
        assert tally.block_positions == sum(int(floor_of(model, one, where).sum()) for one in plans)
        assert tally.flow_positions == mlp_positions(plans, where)
        arrows = {Experiment(arrow) for one in some for arrow in (*one.before, one.edges)}
        if len(some) == 1:
            alone = Tally()
            logits(case, *arrows, tally=alone)
            assert tally.block_positions + tally.flow_positions <= alone.block_positions

    check()


def test_ways_in_common_are_computed_once(random_model: Callable[[str], Transformer]) -> None:
    """Of a null, the first senders differ; of chains, the ends do."""
    case = make_case(random_model("gpt2"))
    middle, on = Input(Node("mlp", 0), "in"), Edge(Node("mlp", 0), Input(Node("head", 2, 0), "q"), END)
    once, twice = Tally(), Tally()
    chains = [
        path(Edge(Node("head", 0, 0), middle, END), on, Edge(Node("head", 2, 0), Input(Node("head", 3, i), "q"), END))
        for i in range(3)
    ]
    logits(case, chains[0], tally=once)
    logits(case, *chains, tally=twice)
    assert once.flow_positions == twice.flow_positions == len(case.clean)
