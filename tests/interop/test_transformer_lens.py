"""A claim's patch as TransformerLens hooks gives the numbers of our engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import circuitdsl
import circuitdsl.models.pocket
from circuitdsl.circuit.changes import EdgePatch, Member, NodePatch, Patch
from circuitdsl.circuit.nodes import Edge, Input, Node, Position, Site
from circuitdsl.engine.experiment import Experiment
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import mean_terms
from circuitdsl.errors import UserError
from circuitdsl.interop.transformer_lens import NotByHooks, hooks, patch_hooks
from circuitdsl.models.load import load_model
from circuitdsl.verify.per_prompt import COLUMNS
from tests.drawing import examples
from tests.engine.bridge import bridge_of
from tests.engine.random_experiments import edges, sites
from tests.engine.small_models import Case, make_case, save_random

TOLERANCE = 1e-4
drawn = settings(
    max_examples=examples(25, 200),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def made(kind: str, path: Path) -> tuple[Any, Case]:
    save_random(kind, path)
    bridge = bridge_of(path)
    bridge.set_use_split_qkv_input(True)
    bridge.set_use_hook_mlp_in(True)
    return bridge, make_case(load_model(path, device="cpu"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Case]:
    return made("gpt2", tmp_path_factory.mktemp("gpt2"))


def by_hooks(bridge: Any, case: Case, patch: Patch, means: Any = None) -> torch.Tensor:
    found = patch_hooks(bridge, patch, case.clean, case.corrupt, case.positions, means)
    tokens = case.clean if patch.direction == "noise" else case.corrupt
    with torch.no_grad():
        return bridge.run_with_hooks(tokens, fwd_hooks=found)[:, -1]


def by_engine(case: Case, patch: Patch) -> torch.Tensor:
    if isinstance(patch, EdgePatch):
        experiment = Experiment(frozenset(patch.edges), via_mlps=patch.via_mlps, direction=patch.direction)
    else:
        experiment = Experiment(sites=frozenset(patch.sites), ablate=patch.ablate, direction=patch.direction)
    stratum = torch.tensor([0, 1, 0])
    runs = case.runs.with_means(mean_terms(case.model, case.corrupt, stratum, 2), stratum)
    return effects(runs, [experiment], case.positions, case.vocabulary)[0]


def means_in(bridge: Any, case: Case) -> Callable[[set[str]], dict[str, torch.Tensor]]:
    """Means over two strata, of what TransformerLens itself keeps."""

    def means(names: set[str]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            _, cache = bridge.run_with_cache(case.corrupt)
        return {name: torch.stack([cache[name][r].mean(0) for r in ([0, 2], [1], [0, 2])]) for name in names}

    return means


def edge_patch(some: frozenset[Edge], via_mlps: bool, direction: str) -> EdgePatch:
    members = tuple(Member(edge.sender, edge.receiver.node, (edge,)) for edge in sorted(some))
    return EdgePatch(members, via_mlps, direction)  # type: ignore[arg-type]


def check_edges(bridge: Any, case: Case, ports: str = "qkv", via: bool = True) -> None:
    whole = edges(case.model).filter(
        lambda edge: not edge.sender.is_part and (edge.receiver.port in ports or edge.receiver.port == "in")
    )

    @drawn
    @given(st.frozensets(whole, min_size=1, max_size=5), st.booleans(), st.sampled_from(("noise", "denoise")))
    def check(some: frozenset[Edge], via_mlps: bool, direction: str) -> None:
        patch = edge_patch(some, via_mlps and via, direction)
        assert (by_hooks(bridge, case, patch) - by_engine(case, patch)).abs().max() < TOLERANCE, str(patch)

    check()


def test_edges_equal_the_engine(gpt2: tuple[Any, Case]) -> None:
    """Into queries, keys, values, MLPs and logits, several at once, direct and via MLPs, noise and denoise."""
    check_edges(*gpt2)


def test_mlps_that_are_patched_themselves_stay_as_they_are(gpt2: tuple[Any, Case]) -> None:
    """Via MLPs, a change flows through no MLP that is a receiver itself, at the tokens of its edges."""
    bridge, case = gpt2
    sender, ends = Node("head", 0, 1), (Node("mlp", 1), Node("mlp", 2), Node("logits"))
    some = frozenset(Edge(sender, Input(node, "in"), Position(at)) for node, at in zip(ends, "AB*", strict=True))
    patch = edge_patch(some, True, "noise")
    assert (by_hooks(bridge, case, patch) - by_engine(case, patch)).abs().max() < TOLERANCE


def test_knock_outs_equal_the_engine(gpt2: tuple[Any, Case]) -> None:
    bridge, case = gpt2
    whole = sites(case.model).filter(lambda site: not site.node.is_part)
    ablations = st.sampled_from(("corrupt", "mean", "zero"))

    @drawn
    @given(st.frozensets(whole, min_size=1, max_size=3), ablations, st.sampled_from(("noise", "denoise")))
    def check(some: frozenset[Site], ablate: Any, direction: Any) -> None:
        patch = NodePatch(tuple(sorted(some)), ablate, direction)
        found = by_hooks(bridge, case, patch, means_in(bridge, case))
        assert (found - by_engine(case, patch)).abs().max() < TOLERANCE, str(patch)

    check()


@pytest.mark.parametrize(("family", "ports"), [("gpt_neox", "qkv"), ("llama", "q")])
def test_other_families_equal_the_engine(family: str, ports: str, tmp_path: Path) -> None:
    """Attention and MLPs side by side; keys and values that heads share."""
    bridge, case = made(family, tmp_path)
    for sender, read in (
        (Node("head", 0, 1), Input(Node("head", 2, 0), "q")),
        (Node("mlp", 0), Input(Node("head", 1, 1), "q")),
        (Node("head", 0, 2), Input(Node("mlp", 1), "in")),
        (Node("embed"), Input(Node("logits"), "in")),
        *((Node("head", 1, 0), Input(Node("head", 2, 2), port)) for port in ports),  # type: ignore[arg-type]
    ):
        for via_mlps in (False, True):
            patch = edge_patch(frozenset([Edge(sender, read, Position("*"))]), via_mlps, "noise")
            assert (by_hooks(bridge, case, patch) - by_engine(case, patch)).abs().max() < TOLERANCE, str(patch)
    for node in (Node("head", 1, 2), Node("mlp", 1)):
        patch_out = NodePatch((Site(node, Position("A")),), "zero")
        assert (by_hooks(bridge, case, patch_out) - by_engine(case, patch_out)).abs().max() < TOLERANCE


# --- what hooks cannot do --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "edge", "says"),
    [
        ("llama", Edge(Node("head", 0, 1), Input(Node("head", 2, 0), "k"), Position("*")), "share keys and values"),
        ("gemma2", Edge(Node("head", 0, 1), Input(Node("mlp", 1), "in"), Position("*")), "norms after attention"),
        ("gpt2", Edge(Node("head", 0, 1, 2), Input(Node("mlp", 1), "in"), Position("*")), "0.1[2] is a part of"),
        ("gpt2", Edge(Node("mlp", 0, index=3), Input(Node("mlp", 1), "in"), Position("*")), "m0[3] is a part of"),
    ],
)
def test_what_hooks_cannot_make_is_refused(family: str, edge: Edge, says: str, tmp_path: Path) -> None:
    bridge, case = made(family, tmp_path)
    with pytest.raises(NotByHooks) as refused:
        by_hooks(bridge, case, edge_patch(frozenset([edge]), False, "noise"))
    assert says in refused.value.message


def test_a_model_that_does_not_hook_inputs_is_told_how(tmp_path: Path) -> None:
    save_random("gpt2", tmp_path)
    bridge, case = bridge_of(tmp_path), make_case(load_model(tmp_path, device="cpu"))
    for read, cure in (
        (Input(Node("head", 2, 0), "q"), "model.set_use_split_qkv_input(True)"),
        (Input(Node("mlp", 1), "in"), "model.set_use_hook_mlp_in(True)"),
    ):
        with pytest.raises(UserError) as refused:
            by_hooks(bridge, case, edge_patch(frozenset([Edge(Node("embed"), read, Position("*"))]), False, "noise"))
        assert refused.value.hint == cure


def test_another_model_is_refused(gpt2: tuple[Any, Case]) -> None:
    bridge, case = gpt2
    for node, says in ((Node("head", 4, 0), "has no 4.0: it has 4 layers of 3 heads"), (Node("head", 0, 3), "no 0.3")):
        with pytest.raises(UserError) as refused:
            by_hooks(bridge, case, NodePatch((Site(node, Position("*")),)))
        assert says in refused.value.message
    with pytest.raises(UserError) as refused:
        patch_hooks(torch.nn.Linear(2, 2), NodePatch(()), case.clean, case.corrupt, {})
    assert "Linear is no model of TransformerLens" in refused.value.message


# --- claims of a spec ------------------------------------------------------------------------------

SPEC = """circuit t
model "pocket"
task ioi(prompts = 12)
heads inhibition = 1.3 1.5 at END
heads mover = 2.4 2.5 at END
inhibition -> mover.q at END : effect <= 0%
inhibition -> mover.q at END via mlps : effect <= 0%
each inhibition -> mover.q at END : effect <= 50%
embed -> inhibition.v at S2 : effect <= 50%
mover -> logits : effect <= 0%
expect knockout(mover) : effect <= 0%
expect knockout(mover, ablate = mean) : effect <= 0%
expect knockout(mover, ablate = zero) : effect <= 0%
expect attention(mover, END -> IO) >= 1%
when mover is knocked out
  expect knockout(inhibition) : effect <= 50%
"""


@pytest.fixture(scope="module")
def pocket() -> Any:
    bridge = bridge_of(Path(circuitdsl.models.pocket.__file__).parent)
    bridge.set_use_split_qkv_input(True)
    return bridge


def test_claims_have_the_numbers_of_the_report(pocket: Any) -> None:
    """Prompts of several lengths run at once; the metric of each is what `verify` has for that prompt."""
    spec, rows = circuitdsl.loads(SPEC), circuitdsl.PerPrompt()
    lines = [each.line for each in spec.circuits[0].claims if each.line in (6, 7, 9, 10, 11, 12, 13)]
    with circuitdsl.Session(device="cpu", cache=False) as session:
        session.verify(spec, claim=lines, early_stop=False, per_prompt=rows)
        for line in lines:
            own = [row for row in map(dict, (zip(COLUMNS, row, strict=True) for row in rows)) if row["line"] == line]
            patched = hooks(spec, line, pocket, prompts=12, session=session)
            with torch.no_grad():
                logits = patched.at_end(pocket.run_with_hooks(patched.tokens, fwd_hooks=patched.fwd_hooks))
            assert len({len(pair.clean_tokens) for pair in patched.pairs}) > 1
            for row, pair, found in zip(own, patched.pairs, logits, strict=True):
                value = found[list(pair.answers)].mean() - found[list(pair.distractors)].mean()
                assert row["clean_text"] == pair.clean
                assert abs(float(value) - row["value"]) < TOLERANCE, row["text"]


def test_one_pair_of_a_group_edge(pocket: Any) -> None:
    with circuitdsl.Session(device="cpu", cache=False) as session:
        one = hooks(circuitdsl.loads(SPEC), 8, pocket, member="1.3 -> 2.4.q at END", prompts=4, session=session)
        assert [name for name, _ in one.fwd_hooks] == ["blocks.1.attn.hook_z", "blocks.2.hook_q_input"]


@pytest.mark.parametrize(
    ("line", "how", "error", "says"),
    [
        (99, {}, UserError, "there is no claim 99"),
        (8, {}, UserError, "line 8 claims something of each pair"),
        (8, {"member": "0.0 -> 2.4.q at END"}, UserError, "has no member 0.0 -> 2.4.q at END"),
        (11, {"member": "1.3"}, UserError, "a knock-out has no members"),
        (11, {"task": "induction"}, UserError, "line 11 is not about task induction"),
        (14, {}, NotByHooks, "line 14 patches nothing"),
        (16, {}, NotByHooks, "under a condition"),
    ],
)
def test_a_claim_that_has_no_patch_is_refused(pocket: Any, line: int, how: Any, error: Any, says: str) -> None:
    with pytest.raises(error) as refused:
        hooks(circuitdsl.loads(SPEC), line, pocket, **how)
    assert says in refused.value.message
