"""Fast patching equals a brute-force recomputation of the whole model, and TransformerLens' own."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuitdsl.circuit.nodes import Edge, Input, Node, Position
from circuitdsl.engine import forward, narrow
from circuitdsl.engine.batch_index import Where, plan
from circuitdsl.engine.batches import Group
from circuitdsl.engine.count import floor_of
from circuitdsl.engine.experiment import Experiment, Readout
from circuitdsl.engine.path_patching import effects, effects_side_by_side, patched_attention
from circuitdsl.engine.runs import first_difference, mean_terms
from circuitdsl.engine.tally import Tally
from circuitdsl.models import products
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Attention, Transformer
from tests.drawing import examples
from tests.engine import reference
from tests.engine.bridge import bridge_of
from tests.engine.random_experiments import experiments
from tests.engine.small_models import (
    BRIDGED,
    FAMILIES,
    FEW,
    LENGTH,
    NEVER_NARROW,
    Case,
    make_case,
    neurons,
    only_named,
    save_random,
)

TOLERANCE = 1e-4
drawn = settings(
    max_examples=examples(10, 75),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def with_means(case: Case) -> tuple[Case, dict[int, reference.RunTerms]]:
    """The case with means over two strata, and the same means by brute force."""
    stratum = torch.tensor([0, 1, 0])
    means = mean_terms(case.model, case.corrupt, stratum, 2, only_named(case.model))
    each = [reference.terms_of(case.model, tokens, neurons(case.model)) for tokens in case.corrupt]
    slow = {}
    for i in range(len(case.clean)):
        same = [terms for terms, s in zip(each, stratum, strict=True) if s == stratum[i]]
        slow[i] = {node: torch.stack([terms[node] for terms in same]).mean(dim=0) for node in same[0]}
    return Case(case.model, case.clean, case.corrupt, case.runs.with_means(means, stratum), case.positions), slow


def check_exact(case: Case, drawn: list[Experiment]) -> None:
    """Logits of all tokens, fast against slow, and no more work than the least there is."""
    case, means = with_means(case)
    tally = Tally()
    fast = effects(case.runs, drawn, case.positions, case.vocabulary, tally=tally)
    for experiment, logits in zip(drawn, fast, strict=True):
        slow = reference.logits(case.model, case.clean, case.corrupt, experiment, case.positions, means)
        assert (logits - slow).abs().max() < TOLERANCE, str(experiment)
    where = Where.of(case.positions, *case.clean.shape, first_difference(case.clean, case.corrupt))
    least = [int(floor_of(case.model, plan(e, case.model), where).sum()) for e in set(drawn)]
    assert tally.block_positions == sum(least)


def check_drawn(model: Transformer) -> None:
    """Any experiments on a model equal brute force."""

    @drawn
    @given(st.lists(experiments(model), min_size=1, max_size=3), st.integers(0, 5))
    def check(some: list[Experiment], seed: int) -> None:
        check_exact(make_case(model, seed), some)

    check()


@pytest.mark.parametrize("family", examples(("gpt2", "gemma2"), FAMILIES))
def test_prompts_of_several_lengths_side_by_side_are_exact(
    family: str, random_model: Callable[[str], Transformer]
) -> None:
    """Each group equals brute force, and what it gives alone; nothing is computed twice."""
    model = random_model(family)

    @settings(drawn, max_examples=examples(6, 40))
    @given(st.lists(experiments(model), min_size=1, max_size=3), st.integers(0, 5))
    def check(some: list[Experiment], seed: int) -> None:
        cases = [with_means(make_case(model, seed, length)) for length in (LENGTH, LENGTH + 3, LENGTH - 1)]
        readouts = [case.vocabulary for case, _ in cases]
        together, alone = Tally(), Tally()
        groups = [Group(case.runs, case.positions) for case, _ in cases]
        found = effects_side_by_side(groups, some, readouts, tally=together)
        for (case, means), every in zip(cases, found, strict=True):
            assert (every - effects(case.runs, some, case.positions, case.vocabulary, tally=alone)).abs().max() < 1e-5
            for experiment, logits in zip(some, every, strict=True):
                slow = reference.logits(model, case.clean, case.corrupt, experiment, case.positions, means)
                assert (logits - slow).abs().max() < TOLERANCE, str(experiment)
        assert together.block_positions == alone.block_positions
        assert together.batches <= alone.batches

    check()


@pytest.mark.parametrize("family", examples(("gpt2", "gemma2"), FAMILIES))
def test_exact_with_one_dnn_too(
    family: str, random_model: Callable[[str], Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The products of fast patching by oneDNN, those of brute force by PyTorch's default."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch was built without oneDNN")
    model = random_model(family)

    @settings(drawn, max_examples=examples(8, 20))
    @given(st.lists(experiments(model), min_size=1, max_size=3), st.integers(0, 5))
    def check(some: list[Experiment], seed: int) -> None:
        case, means = with_means(make_case(model, seed))
        with monkeypatch.context() as here:
            here.setattr(products, "FEWEST", 0)
            here.setattr(products, "prefers_one_dnn", lambda: True)
            fast = effects(case.runs, some, case.positions, case.vocabulary)
        for experiment, logits in zip(some, fast, strict=True):
            slow = reference.logits(model, case.clean, case.corrupt, experiment, case.positions, means)
            assert (logits - slow).abs().max() < TOLERANCE, str(experiment)

    check()


@pytest.mark.parametrize("family", [family for family in examples(FEW, FAMILIES) if family not in NEVER_NARROW])
def test_an_mlp_behind_one_head_is_exact_through_few_directions(
    family: str, random_model: Callable[[str], Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for models and batches that are large enough for it to pay."""
    model, calls = random_model(family), []
    real = narrow.mlp_of_heads
    monkeypatch.setattr(narrow, "FEWEST", 0)
    monkeypatch.setattr(narrow, "WORTH", float("inf"))
    monkeypatch.setattr(narrow, "mlp_of_heads", lambda *given: calls.append(1) or real(*given))
    edges = [
        Edge(Node("head", 0, i), Input(Node("head", layer, head), port), Position(name))
        for layer in range(1, model.n_layers)
        for i, head, port, name in ((0, 1, "q", "END"), (1, 1, "k", "A"), (1, 0, "v", "*"), (0, 2, "q", "B"))
    ]
    check_exact(make_case(model), [Experiment(frozenset([edge])) for edge in edges])
    assert len(calls) >= model.n_layers - 1
    check_drawn(model)


@pytest.mark.parametrize("family", [*FAMILIES, *examples(BRIDGED[:2], BRIDGED)])
def test_any_experiment_equals_brute_force(family: str, random_model: Callable[[str], Transformer]) -> None:
    check_drawn(random_model(family))


@pytest.mark.parametrize("family", examples(FEW, FAMILIES))
def test_long_prompts_equal_brute_force(
    family: str, random_model: Callable[[str], Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if prompts of a few tokens were long; no matrix of all scores is made for many positions."""
    monkeypatch.setattr(forward, "LONG", 2)
    check_drawn(random_model(family))


def test_a_long_prompt_has_no_matrix_of_scores(gpt2: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    true_pattern = Attention.pattern

    def pattern(self: Attention, products: torch.Tensor, *hidden: torch.Tensor) -> torch.Tensor:
        widths.append(products.shape[-2])
        return true_pattern(self, products, *hidden)

    monkeypatch.setattr(Attention, "pattern", pattern)
    edge = Experiment(frozenset([Edge(Node("head", 0, 1), Input(Node("head", 1, 0), "q"), Position("A"))]))
    for long, layers in ((LENGTH, 2), (2, 0)):  # the edge's own, and the one below the last; or none
        monkeypatch.setattr(forward, "LONG", long)
        effects(gpt2.runs, [edge], gpt2.positions, gpt2.vocabulary)
        assert sum(width > 1 for width in widths) == layers * 3  # each prompt has a start of its own
        widths.clear()


@pytest.fixture(scope="module")
def stories() -> Transformer:
    path = Path(__file__).parents[3] / "shared" / "data" / "stories260K"
    if not path.exists():
        pytest.skip(f"the trained Llama is not at hand: {path}")
    return load_model(path, device="cpu")


def test_a_trained_llama_equals_brute_force(stories: Transformer) -> None:
    draw, some = random.Random(0), []
    positions = [Position(name) for name in ("A", "B", "END", "*")]
    while len(some) < 12:
        receiver = Node("head", draw.randrange(1, 5), draw.randrange(8))
        sender = Node(draw.choice(("head", "mlp")), draw.randrange(5), draw.randrange(8))
        sender = sender if sender.kind == "head" else Node("mlp", sender.layer)
        if sender.layer < receiver.layer:
            edge = Edge(sender, Input(receiver, draw.choice("qkv")), draw.choice(positions))
            some.append(Experiment(frozenset([edge]), via_mlps=draw.random() < 0.5))
    check_exact(make_case(stories), some)


@pytest.mark.parametrize(("family", "ports"), [("gpt2", "qkv"), ("gemma", "q")])
def test_single_edges_equal_transformer_lens(family: str, ports: str, tmp_path: Path) -> None:
    """TransformerLens refuses keys and values under grouped-query attention, and models with post-norms."""
    from transformer_lens.patching import get_act_patch_direct_path

    path = save_random(family, tmp_path)
    case = make_case(load_model(path, device="cpu"))
    bridge = bridge_of(path)
    _, clean = bridge.run_with_cache(case.clean)
    _, corrupt = bridge.run_with_cache(case.corrupt)
    tokens = torch.tensor([[3], [4], [5]])
    for port in ports:
        # theirs puts the clean write of 1.2 into the corrupt run, at every position
        theirs = get_act_patch_direct_path(
            bridge,
            case.corrupt,
            clean,
            corrupt,
            lambda logits: logits[:, -1].gather(1, tokens).mean(),
            src_layer=1,
            src_head=2,
            component=port,  # type: ignore[arg-type]
            verbose=False,
        )
        readers = [(layer, head) for layer in range(2, case.model.n_layers) for head in range(3)]
        ours = effects(
            case.runs,
            [
                Experiment(
                    frozenset([Edge(Node("head", 1, 2), Input(Node("head", *reader), port), Position("*"))]),
                    direction="denoise",
                )
                for reader in readers
            ],
            {},
            Readout(tokens),
        )
        for reader, values in zip(readers, ours, strict=True):
            assert abs(float(values.mean()) - float(theirs[reader])) < TOLERANCE


@pytest.mark.parametrize("family", examples(FEW, FAMILIES))
def test_attention_under_any_experiment_equals_brute_force(
    family: str, random_model: Callable[[str], Transformer]
) -> None:
    model = random_model(family)
    heads = [Node("head", layer, head) for layer in range(model.n_layers) for head in (0, model.n_heads - 1)]
    some_heads = st.lists(st.sampled_from(heads), min_size=1, max_size=3, unique=True)
    without_means = experiments(model).filter(lambda e: "mean" not in (e.ablate, e.sent))

    @settings(drawn, max_examples=examples(5, 15))
    @given(st.lists(without_means, min_size=1, max_size=2), some_heads, st.integers(0, 5))
    def check(some: list[Experiment], watched: list[Node], seed: int) -> None:
        case = make_case(model, seed)
        fast = patched_attention(case.runs, some, case.positions, watched)
        for experiment, patterns in zip(some, fast, strict=True):
            slow = reference.attention(model, case.clean, case.corrupt, experiment, case.positions, watched)
            assert (patterns - slow).abs().max() < 1e-4, str(experiment)

    check()


def test_attention_of_patched_runs_equals_brute_force(case: Case) -> None:
    """A head that follows the patched one attends as it does where the patch is made by a hook."""
    model = case.model
    heads = [Node("head", layer, 1) for layer in range(model.n_layers)]
    patched = Input(Node("head", 1, 1), "k")
    experiments = [
        Experiment(frozenset([Edge(Node("embed"), patched, Position("A"))])),
        Experiment(frozenset([Edge(Node("embed"), Input(Node("head", 2, 1), "q"), Position("*"))])),
        Experiment(frozenset([Edge(Node("mlp", 0), Input(Node("mlp", 1), "in"), Position("A"))])),
    ]
    fast = patched_attention(case.runs, experiments, case.positions, heads)
    for experiment, patterns in zip(experiments, fast, strict=True):
        slow = reference.attention(model, case.clean, case.corrupt, experiment, case.positions, heads)
        assert (patterns - slow).abs().max() < 1e-5
