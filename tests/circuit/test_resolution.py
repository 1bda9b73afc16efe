"""What each construct resolves to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from circuitdsl.api import loads
from circuitdsl.circuit.changes import NodePatch
from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.criteria import Matters, Moves, Negligible, Signed, Stronger, Within
from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, LOGITS, Node, Position
from circuitdsl.circuit.roles import built_in
from circuitdsl.circuit.vocabulary import ROLES, Metric
from circuitdsl.measurements.attention import Attention
from circuitdsl.measurements.attribution import Attribution
from circuitdsl.measurements.behaviour import Behaviour
from circuitdsl.measurements.copying import Copying
from circuitdsl.measurements.edge import EdgeEffect
from circuitdsl.measurements.head_score import HeadScore
from circuitdsl.measurements.knockout import NodeEffect
from circuitdsl.measurements.role import RoleChecks
from circuitdsl.measurements.whole_circuit import WholeCircuit

Sound = Callable[[str], Circuit]
Resolve = Callable[..., Any]
END = Position("END")


def members(circuit: Circuit, claim: int = 0) -> list[str]:
    measurement = circuit.claims[claim].measurement
    assert isinstance(measurement, EdgeEffect)
    return [str(member) for member in measurement.members]


def edges(circuit: Circuit, claim: int = 0) -> list[str]:
    measurement = circuit.claims[claim].measurement
    assert isinstance(measurement, EdgeEffect)
    return [str(edge) for edge in measurement.patch.edges]


# --- the whole example ----------------------------------------------------------------------------


WHOLE = (Path(__file__).parent.parent / "fixtures" / "whole.circ").read_text(encoding="utf-8")


def test_the_whole_example(resolved: Resolve) -> None:
    (ioi,), found = resolved(WHOLE, notes=True)
    assert not found
    assert (ioi.name, ioi.title) == ("ioi", "Indirect object identification, GPT-2 small")
    assert ioi.sources == ("Wang et al. 2022, arXiv:2211.00593",)
    assert ioi.model is not None and ioi.model.name == "gpt2"
    (task,) = ioi.tasks
    assert (task.name, task.generator, task.corrupt, task.prompts, task.seed, task.line) == (
        "ioi",
        "ioi",
        "abc",
        256,
        0,
        5,
    )
    assert ioi.metric == Metric("logit_diff")
    assert [(g.name, len(g.nodes), g.role) for g in ioi.groups] == [
        ("previous_token", 2, "previous_token"),
        ("duplicate_token", 3, "duplicate_token"),
        ("induction", 4, "induction"),
        ("inhibition", 4, "inhibition"),
        ("mover", 3, "mover"),
        ("negative", 2, "negative_mover"),
        ("backup", 8, "backup_mover"),
    ]
    assert sum(len(g.nodes) for g in ioi.groups) == 26  # the paper's count
    assert [c.id for c in ioi.claims] == [f"c{i:02d}" for i in range(1, 17)]
    assert [c.line for c in ioi.claims] == [19, 20, 21, 22, 23, 24, 25, 26, 29, 30, 31, 32, 33, 34, 37, 38]
    by_line = {c.line: c for c in ioi.claims}
    assert by_line[22].text == "inhibition -> mover.q at END : lowers"
    assert by_line[22].citation == "Wang et al. §3.2"
    assert by_line[22].tests == (Signed("lowers"),)
    assert by_line[19].tests == (Matters(),)
    assert by_line[24].tests == (Negligible(),)
    assert by_line[23].each and not by_line[22].each
    assert all(c.tasks == ("ioi",) and c.margin == 0.01 for c in ioi.claims)
    assert all(c.measurement.patch.via_mlps for c in ioi.claims if isinstance(c.measurement, EdgeEffect))
    assert len(by_line[20].measurement.members) == 16  # type: ignore[union-attr]
    assert by_line[29].measurement == Behaviour(Metric("accuracy"))
    assert by_line[29].tests == (Within("value", 0.95, None, ">= 95%"),)
    assert (by_line[31].measurement, by_line[31].tests) == (
        WholeCircuit("faithfulness"),
        (Within("effect", 0.8, None, ">= 80%"),),
    )
    assert by_line[33].tests == (Within("effect", -0.3, 0.05, "effect in [-30%, 5%]"),)
    role = by_line[34].measurement
    assert isinstance(role, RoleChecks) and (role.role, len(role.checks)) == ("mover", 9)
    under = by_line[37].under
    assert under is not None and (under.line, under.text) == (36, "when inhibition -> mover.q at END is patched")
    assert by_line[38].under == under and by_line[33].under is None
    assert by_line[37].tests == (Moves("rises", 0.1, "rises by >= 10 points"),)
    assert by_line[38].tests == (Moves("falls", 0.0, "falls"),)


def test_records_are_frozen_and_equal_to_those_of_the_same_text(resolved: Resolve) -> None:
    (first,), _ = resolved(WHOLE)
    (second,), _ = resolved(WHOLE)
    assert first == second and len(first.sha256) == 64
    with pytest.raises(FrozenInstanceError):
        first.name = "other"
    (third,), _ = resolved(WHOLE.replace("9.6 9.9 10.0", "9.6 9.9"))
    assert third != first and third.sha256 != first.sha256


# --- groups ---------------------------------------------------------------------------------------


def group(circuit: Circuit, name: str) -> tuple[list[str], list[str]]:
    found = next(g for g in circuit.groups if g.name == name)
    return [str(n) for n in found.nodes], [str(p) for p in found.positions]


@pytest.mark.parametrize(
    ("line", "nodes", "positions"),
    [
        ("heads last = 0.1 0.10, 3.0 at END", ["0.1", "0.10", "3.0"], ["END"]),
        ("heads last = mover + inhibition", ["9.6", "9.9", "10.0", "7.3", "8.6"], ["END"]),
        ("heads last = mover - 9.9", ["9.6", "10.0"], ["END"]),
        ("heads last = mover - (9.9 10.0)", ["9.6"], ["END"]),
        ("heads last = mover - 9.9 + 9.1 at S2", ["9.6", "10.0", "9.1"], ["S2"]),
        ("heads last = (9.1 9.2) + mover", ["9.1", "9.2", "9.6", "9.9", "10.0"], []),
        ("heads last = mover induction", ["9.6", "9.9", "10.0", "5.5", "6.9"], []),
        ("heads last = 9.1 at S1, S2+1", ["9.1"], ["S1", "S2+1"]),
        ("heads last = 9.1 at *", ["9.1"], ["*"]),
        ("heads last = later - 9.1\nheads later = 9.1 9.2 at S2", ["9.2"], ["S2"]),
        ("nodes last = embed m0 0.1 late at END", ["embed", "m0", "0.1", "m10", "m11"], ["END"]),
        ("heads last = 9.1[3] at END", ["9.1[3]"], ["END"]),
    ],
)
def test_groups(sound: Sound, line: str, nodes: list[str], positions: list[str]) -> None:
    assert group(sound(line), "last") == (nodes, positions)


def test_roles_and_controls(sound: Sound) -> None:
    circuit = sound("heads negative_mover = 10.7 at END role none\nheads control = 3.3 outside at END")
    by_name = {g.name: g for g in circuit.groups}
    assert (by_name["mover"].role, by_name["negative_mover"].role, by_name["late"].role) == ("mover", None, None)
    assert by_name["control"].outside and not by_name["mover"].outside


def test_a_role_of_the_files_own(resolved: Resolve) -> None:
    text = "circuit a\ntask ioi\nheads looker = 9.9 at END\n"
    text += 'role looker "looks"\n  expect attention(self, END -> IO) >= 5%\n'
    (circuit,), found = resolved(text)
    assert found == ()
    assert circuit.groups[0].role == "looker"


def test_the_checks_of_a_role_are_those_of_every_head(sound: Sound) -> None:
    circuit = sound(
        'role mover "looks"\n  expect attention(self, END -> IO) >= 5%\n  expect knockout(self) : lowers\n'
        "heads spare = 10.1 at END  role backup_mover\nexpect role(mover)\nexpect role(spare)\nexpect role(induction)"
    )
    own, backup, built_in = (claim.measurement for claim in circuit.claims)
    assert isinstance(own, RoleChecks) and own.overrides
    assert [c.text for c in own.checks][:4] == [
        "attention(9.6, END -> IO) >= 5%",
        "attention(9.9, END -> IO) >= 5%",
        "attention(10.0, END -> IO) >= 5%",
        "knockout(9.6) : lowers",
    ]
    assert isinstance(backup, RoleChecks) and not backup.overrides
    alone, without = backup.checks
    assert alone.under is None and without.under is not None
    assert {site.node for site in without.under.effect.sites} == {Node("head", *at) for at in ((9, 6), (9, 9), (10, 0))}  # type: ignore[union-attr]
    assert isinstance(built_in, RoleChecks) and len(built_in.checks) == 2
    assert [claim.tasks for claim in circuit.claims] == [("ioi",), ("ioi",), ()]


@pytest.mark.parametrize("name", sorted(built_in()))
def test_every_built_in_role_can_be_claimed(name: str) -> None:
    head = 'circuit c\nmodel "gpt2"\ntask ioi\ntask colored_objects\nheads movers = 9.9 at END role mover\n'
    spec = loads(f"{head}heads some = 8.1 8.2 at END role {name}\nexpect role(some)\nexpect role(movers)\n")
    assert not spec.diagnostics
    (circuit,) = spec.circuits
    assert isinstance(circuit.claims[0].measurement, RoleChecks)
    assert name in ROLES and len(built_in()) == len(ROLES)


# --- edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # the line's position, else the sender's, else the receiver's
        ("inhibition -> 9.9.q at END", ["7.3 -> 9.9.q at END", "8.6 -> 9.9.q at END"]),
        ("induction -> inhibition.v", [f"{a} -> {b}.v at S2" for a in ("5.5", "6.9") for b in ("7.3", "8.6")]),
        ("3.1 -> 9.9.q", ["3.1 -> 9.9.q at END"]),
        ("3.1 -> late", ["3.1 -> m10 at END", "3.1 -> m11 at END"]),
        ("3.1 -> logits", ["3.1 -> logits at END"]),
        # a node named alone acts where its groups act
        ("7.3 -> 11.1.k", ["7.3 -> 11.1.k at END"]),
        ("4.11 -> 5.5.k", ["4.11 -> 5.5.k at S1+1"]),
        # several positions are one member
        ("3.1 -> 9.9.k at S1, S2+1", ["3.1 -> 9.9.k at S1, S2+1"]),
        ("embed -> m0 at *", ["embed -> m0 at *"]),
        ("embed -> logits at *", ["embed -> logits at END"]),
        # without an input: all three, at that position, wherever the receiver acts
        ("duplicate -> 7.3", ["0.1 -> 7.3 at S2", "0.10 -> 7.3 at S2", "3.0 -> 7.3 at S2"]),
        # sets
        ("inhibition - 8.6 -> (mover - 9.9).q", ["7.3 -> 9.6.q at END", "7.3 -> 10.0.q at END"]),
        ("(7.3 8.6) -> (9.1 9.2).q at END", [f"{a} -> {b}.q at END" for a in ("7.3", "8.6") for b in ("9.1", "9.2")]),
        # an MLP comes after the heads of its layer and before those of the next
        ("9.9 -> m9 at END", ["9.9 -> m9 at END"]),
        ("m9 -> 10.0.q", ["m9 -> 10.0.q at END"]),
        # a general name may be another name of the same token
        ("heads reader = 9.1 at ANSWER\n3.1 -> reader.q at IO", ["3.1 -> 9.1.q at IO"]),
    ],
)
def test_edges(sound: Sound, line: str, expected: list[str]) -> None:
    assert members(sound(line)) == expected


def test_a_receiver_without_input_has_all_three(sound: Sound) -> None:
    assert edges(sound("3.0 -> 7.3 at S2")) == ["3.0 -> 7.3.q at S2", "3.0 -> 7.3.k at S2", "3.0 -> 7.3.v at S2"]
    assert edges(sound("3.0 -> 7.3.k at S1, S2")) == ["3.0 -> 7.3.k at S1", "3.0 -> 7.3.k at S2"]


def test_a_sender_with_several_positions_writes_where_the_query_is_read(sound: Sound) -> None:
    circuit = sound("heads both = 3.1 at S2, END\nboth -> mover.q\nboth -> mover.k")
    assert members(circuit, 0)[0] == "3.1 -> 9.6.q at END"
    assert members(circuit, 1)[0] == "3.1 -> 9.6.k at S2, END"


def test_members_of_a_mixed_set_keep_their_positions(sound: Sound) -> None:
    circuit = sound("(duplicate + inhibition) -> 11.1.v")
    assert members(circuit)[2:4] == ["3.0 -> 11.1.v at S2", "7.3 -> 11.1.v at END"]


def test_pairs_that_cannot_exist_are_named(resolved: Resolve) -> None:
    text = "circuit a\ntask ioi\nheads some = 9.6 9.9 at END\nheads more = 9.9 10.0 at END\nsome -> more.q\n"
    (circuit,), (found,) = resolved(text)
    assert members(circuit) == ["9.6 -> 10.0.q at END", "9.9 -> 10.0.q at END"]
    assert (found.code, found.severity) == ("W070", "warning")
    assert found.message == "2 of 4 pairs cannot exist and are left out: 9.6 -> 9.9, 9.9 -> 9.9"


def test_protocols(sound: Sound) -> None:
    lines = "mover -> logits\nedges via mlps\n7.3 -> logits\n8.6 -> logits direct\nedges direct\n9.6 -> logits\n"
    circuit = sound(lines + "9.9 -> logits via mlps")
    assert [c.measurement.patch.via_mlps for c in circuit.claims] == [False, True, False, False, True]  # type: ignore[union-attr]


def test_in_parallel_models_an_mlp_stands_beside_its_heads(resolved: Resolve) -> None:
    text = 'circuit a\nmodel "{}"\ntask ioi\n5.1 -> m5 at END\n'
    assert resolved(text.format("gpt2"))[1] == ()
    _, (found,) = resolved(text.format("EleutherAI/pythia-160m-deduped"))
    assert found.code == "E070"


# --- claims ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "tests"),
    [
        ("", (Matters(),)),
        (": matters", (Matters(),)),
        (": negligible", (Negligible(),)),
        (": raises", (Signed("raises"),)),
        (": effect <= -20%", (Within("effect", None, -0.2, "effect <= -20%"),)),
        (": effect > 0", (Within("effect", 0.0, None, "effect > 0", True),)),
        (": effect >= -120%", (Within("effect", -1.2, None, "effect >= -120%"),)),
        (": effect in [-10%, 0%]", (Within("effect", -0.1, 0.0, "effect in [-10%, 0%]"),)),
        (": delta <= -0.5", (Within("delta", None, -0.5, "delta <= -0.5"),)),
        (": lowers and effect < -5 %", (Signed("lowers"), Within("effect", None, -0.05, "effect < -5%", True))),
    ],
)
def test_claims(sound: Sound, claim: str, tests: tuple[object, ...]) -> None:
    assert sound(f"mover -> logits {claim}").claims[0].tests == tests


def test_a_delta_is_in_the_metrics_unit(resolved: Resolve, sound: Sound) -> None:
    circuit = sound("metric accuracy\nmover -> logits : delta <= -5 points")
    assert circuit.claims[0].tests == (Within("delta", None, -0.05, "delta <= -5 points"),)
    text = "circuit a\ntask ioi\nmetric prob_diff\n9.9 -> logits : delta <= -0.5\n"
    assert [d.message for d in resolved(text)[1]] == [
        "delta is a difference of shares, written in points: did you mean -50 points?"
    ]


def test_margins(sound: Sound, resolved: Resolve) -> None:
    assert sound("margin 2.5%\nmover -> logits").claims[0].margin == 0.025
    assert sound("mover -> logits\nmargin 2.5%").claims[0].margin == 0.025
    assert sound("margin 2.5%").margin == 0.025
    assert sound("").margin == 0.01


# --- expectations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "metric", "test"),
    [
        ("expect accuracy >= 95%", Metric("accuracy"), Within("value", 0.95, None, ">= 95%")),
        ("expect accuracy(argmax) < 50%", Metric("accuracy", (("argmax", ""),)),
         Within("value", None, 0.5, "< 50%", True)),
        ("expect logit_diff in [-1, 2.5]", Metric(), Within("value", -1.0, 2.5, "in [-1, 2.5]")),
        ("expect logit_diff(against = max) >= 3", Metric("logit_diff", (("against", "max"),)),
         Within("value", 3.0, None, ">= 3")),
        ("metric logit_diff(against = corrupt)\nexpect logit_diff > 0", Metric("logit_diff", (("against", "corrupt"),)),
         Within("value", 0.0, None, "> 0", True)),
        ("expect prob_diff >= 40%", Metric("prob_diff"), Within("value", 0.4, None, ">= 40%")),
        ("expect prob_diff >= -4 points", Metric("prob_diff"), Within("value", -0.04, None, ">= -4 points")),
        ("expect logprob >= -1e1", Metric("logprob"), Within("value", -10.0, None, ">= -1e1")),
    ],
)  # fmt: skip
def test_behaviour(sound: Sound, line: str, metric: Metric, test: Within) -> None:
    (claim,) = sound(line).claims
    assert (claim.kind, claim.measurement, claim.tests) == ("expect", Behaviour(metric), (test,))


@pytest.mark.parametrize(
    ("argument", "heads", "source", "target"),
    [
        ("mover, END -> IO", 3, ["END"], ["IO"]),
        ("9.6 9.9, END -> IO", 2, ["END"], ["IO"]),
        ("9.6, 9.9, END -> S1, S2", 2, ["END"], ["S1", "S2"]),
        ("mover - 9.9, S2, END -> S1+1", 2, ["S2", "END"], ["S1+1"]),
        ("mover + inhibition, END -> *", 5, ["END"], ["*"]),
    ],
)
def test_attention(sound: Sound, argument: str, heads: int, source: list[str], target: list[str]) -> None:
    (claim,) = sound(f"expect attention({argument}) >= 40%").claims
    found = claim.measurement
    assert isinstance(found, Attention)
    assert len(found.heads) == heads
    assert ([str(p) for p in found.source], [str(p) for p in found.target]) == (source, target)


@pytest.mark.parametrize(
    ("line", "sites", "ablate", "test"),
    [
        ("expect knockout(mover)", 3, "corrupt", Matters()),
        ("expect knockout(mover, ablate = mean) : lowers", 3, "mean", Signed("lowers")),
        ("expect knockout(mover + late) <= -20%", 5, "corrupt", Within("effect", None, -0.2, "effect <= -20%")),
        ("expect knockout(mover 7.3) : delta <= -0.5", 4, "corrupt", Within("delta", None, -0.5, "delta <= -0.5")),
        ("expect knockout(mover 7.3) < 0", 4, "corrupt", Within("delta", None, 0.0, "delta < 0", strict=True)),
        ("heads two = 1.1 1.2 at S1, S2\nexpect knockout(two, ablate = zero) : negligible", 4, "zero", Negligible()),
    ],
)
def test_knockouts(sound: Sound, line: str, sites: int, ablate: str, test: object) -> None:
    (claim,) = sound(line).claims
    found = claim.measurement
    assert isinstance(found, NodeEffect)
    assert (len(found.patch.sites), found.patch.ablate, claim.tests) == (sites, ablate, (test,))


def test_what_acts_nowhere_in_particular_is_knocked_out_everywhere(sound: Sound) -> None:
    circuit = sound("expect knockout(embed m3 9.9)")
    found = circuit.claims[0].measurement
    assert isinstance(found, NodeEffect)
    assert [(s.node, s.position) for s in found.patch.sites] == [
        (EMBED, EVERYWHERE),
        (Node("mlp", 3), EVERYWHERE),
        (Node("head", 9, 9), END),
    ]


@pytest.mark.parametrize("order", ["one + two", "two + one"])
@pytest.mark.parametrize(
    ("at", "where"),
    [("at S1+1", ["S1+1", "END"]), ("at S2, END", ["S2", "END"]), ("", ["*"]), ("at *", ["*"])],
)
def test_a_node_of_two_groups_acts_where_either_says(sound: Sound, order: str, at: str, where: list[str]) -> None:
    groups = f"nodes one = 9.9 m3 {at}\nheads two = 9.9 9.7 at END\nnodes all = {order}\n"
    circuit = sound(groups + f"expect knockout({order}) : lowers\nexpect knockout(all) : lowers")
    for claim in circuit.claims:
        assert isinstance(claim.measurement, NodeEffect)
        sites = claim.measurement.patch.sites
        assert sorted(str(s.position) for s in sites if s.node == Node("head", 9, 9)) == sorted(where)
        assert [str(s.position) for s in sites if s.node == Node("head", 9, 7)] == ["END"]


def test_a_role_has_its_heads_wherever_a_group_of_it_acts(sound: Sound) -> None:
    circuit = sound(
        "heads elsewhere = 9.6 at S2  role mover\nheads backup = 9.7 at END  role backup_mover\nexpect role(backup)"
    )
    checks = circuit.claims[0].measurement
    assert isinstance(checks, RoleChecks)
    condition = checks.checks[1].under
    assert condition is not None and isinstance(condition.effect, NodePatch)
    assert [str(s.position) for s in condition.effect.sites if s.node == Node("head", 9, 6)] == ["END", "S2"]


def test_denoising_takes_nodes_or_an_edge(sound: Sound) -> None:
    circuit = sound("expect denoise(mover) : raises\nexpect denoise(7.3 -> mover.q at END via mlps) : effect >= 5%")
    nodes, edge = (claim.measurement for claim in circuit.claims)
    assert isinstance(nodes, NodeEffect) and isinstance(edge, EdgeEffect)
    assert (nodes.patch.direction, edge.patch.direction, edge.patch.via_mlps) == ("denoise", "denoise", True)
    assert [site.position for site in nodes.patch.sites] == [END] * 3


def test_the_other_edge_is_patched_the_same_way(sound: Sound) -> None:
    circuit = sound(
        "edges via mlps\n8.6 -> 9.9.q at END : lowers and stronger than 7.3 -> 9.9.q\n"
        "expect denoise(mover) : stronger than inhibition -> mover.q direct"
    )
    (_, first), (second,) = (claim.tests for claim in circuit.claims)
    assert isinstance(first, Stronger) and isinstance(second, Stronger)
    assert (first.name, first.patch.via_mlps, first.patch.direction) == ("7.3 -> 9.9.q", True, "noise")
    assert (second.patch.via_mlps, second.patch.direction) == (False, "denoise")


@pytest.mark.parametrize(
    ("line", "via_mlps"),
    [
        ("8.6 -> 9.9.q at END via mlps : stronger than 7.3 -> 9.9.q", True),
        ("8.6 -> 9.9.q at END via mlps : stronger than 7.3 -> 9.9.q direct", False),
        ("expect denoise(8.6 -> 9.9.q via mlps) : stronger than 7.3 -> 9.9.q", True),
        ("edges via mlps\n8.6 -> 9.9.q at END direct : stronger than 7.3 -> 9.9.q", False),
    ],
)
def test_the_protocol_of_a_line_is_that_of_both_its_edges(sound: Sound, line: str, via_mlps: bool) -> None:
    (test,) = sound(line).claims[0].tests
    assert isinstance(test, Stronger) and test.patch.via_mlps == via_mlps


def test_a_condition_belongs_to_the_lines_of_its_block(sound: Sound) -> None:
    circuit = sound(
        "when mover is knocked out\n  expect accuracy falls by > 5 points\n  expect knockout(late) : lowers\n"
        "expect accuracy >= 5%"
    )
    falls, knockout, plain = circuit.claims
    assert falls.under == knockout.under and falls.under is not None and plain.under is None
    assert isinstance(falls.under.effect, NodePatch) and len(falls.under.effect.sites) == 3
    assert falls.tests == (Moves("falls", 0.05, "falls by > 5 points"),)
    assert not list(circuit.edges())


def test_a_claim_needs_the_positions_of_its_condition(resolved: Resolve) -> None:
    text = (
        "circuit a\ntask ioi\ntask colored_objects\n"
        "when 0.1 -> 1.1.v at S2 is patched\n  expect accuracy falls\n"
        "9.9 -> logits at END : stronger than 0.1 -> 1.1.v at S1\n"
    )
    (circuit,), found = resolved(text)
    assert not found
    assert [claim.tasks for claim in circuit.claims] == [("ioi",), ("ioi",)]


def test_what_heads_write_and_where_they_look(sound: Sound) -> None:
    circuit = sound(
        "heads against = 10.7 at END  role negative_mover\n"
        "expect attribution(mover + late) > 0\nexpect copying(mover) >= 80%\nexpect copying(against) >= 80%\n"
        "expect copying(mover, negated) <= 5%\nexpect copying(mover + against) <= 5%\n"
        "expect induction_score(5.5 6.9) >= 30%"
    )
    attribution, *copying, score = (claim.measurement for claim in circuit.claims)
    assert isinstance(attribution, Attribution) and len(attribution.nodes) == 5
    assert [c.negated for c in copying if isinstance(c, Copying)] == [False, True, True, False]
    assert score == HeadScore("induction", (Node("head", 5, 5), Node("head", 6, 9)))
    assert [claim.tasks for claim in circuit.claims] == [("ioi",)] * 5 + [()]


def test_scores_need_no_task(resolved: Resolve) -> None:
    (circuit,), found = resolved("circuit a\nexpect induction_score(5.5) >= 30%\n")
    assert not found and len(circuit.claims) == 1


# --- tasks ----------------------------------------------------------------------------------------


TASKS = """\
circuit a
task ioi(corrupt = abc, prompts = 64, seed = 3, bos = yes)
task flip = ioi(corrupt = flip)
task objects = colored_objects(objects = 4)
task mine = file("data/prompts.v2.jsonl", seed = 1)
task file("more.jsonl")
"""


def test_task_lines(resolved: Resolve) -> None:
    (circuit,), found = resolved(TASKS)
    assert found == ()
    ioi, flip, objects, mine, more = circuit.tasks
    assert (ioi.prompts, ioi.seed, ioi.bos, ioi.corrupt) == (64, 3, True, "abc")
    assert (flip.name, flip.generator, flip.corrupt, flip.prompts, flip.bos) == ("flip", "ioi", "flip", 256, None)
    assert (objects.generator, objects.options, objects.corrupt) == ("colored_objects", (("objects", 4),), None)
    assert (mine.name, mine.generator, mine.file, mine.seed) == ("mine", None, "data/prompts.v2.jsonl", 1)
    assert (more.name, more.file) == ("more", "more.jsonl")


def test_a_claim_is_checked_on_every_task_that_has_its_positions(resolved: Resolve) -> None:
    lines = "9.9 -> logits\n3.0 -> 9.9.v at S2\n3.0 -> 9.9.v at ANSWER on objects\nexpect accuracy >= 5% on flip\n"
    lines += "expect attention(9.9, END -> NOWHERE) >= 5%\n"
    (circuit,), found = resolved(TASKS + lines)
    assert found == ()  # a file's own positions are not known here
    assert [claim.tasks for claim in circuit.claims] == [
        ("ioi", "flip", "objects", "mine", "more"),
        ("ioi", "flip", "mine", "more"),
        ("objects",),
        ("flip",),
        ("mine", "more"),
    ]


def test_no_task_has_all_positions(resolved: Resolve) -> None:
    text = "circuit a\ntask ioi\ntask objects = colored_objects\nexpect attention(9.9, END -> S2) >= 5% on objects\n"
    _, (found,) = resolved(text)
    assert found.message == "the task objects has no position S2 (it has END, ANSWER, DISTRACTOR)"
    assert (found.span.line, found.span.column) == (4, 43)


# --- files with several circuits ------------------------------------------------------------------


def test_lines_before_the_first_circuit_apply_to_all(resolved: Resolve) -> None:
    text = """\
model "gpt2"
task ioi
margin 2%
edges via mlps
circuit one
heads mover = 9.9 at END
mover -> logits
circuit two "the second"
model "gpt2-medium"
task objects = colored_objects
metric accuracy
margin 3%
heads mover = 17.4 at END
edges direct
mover -> logits
expect accuracy >= 5%
"""
    (one, two), found = resolved(text)
    assert found == ()
    assert (one.name, two.name, one.title, two.title) == ("one", "two", "", "the second")
    assert one.model is not None and two.model is not None
    assert (one.model.name, two.model.name) == ("gpt2", "gpt2-medium")
    assert ([t.name for t in one.tasks], [t.name for t in two.tasks]) == (["ioi"], ["ioi", "objects"])
    assert (one.margin, two.margin, one.metric.name, two.metric.name) == (0.02, 0.03, "logit_diff", "accuracy")
    assert ([str(n) for n in one.groups[0].nodes], [str(n) for n in two.groups[0].nodes]) == (["9.9"], ["17.4"])
    assert ([c.id for c in one.claims], [c.id for c in two.claims]) == (["c01"], ["c01", "c02"])
    assert one.claims[0].measurement.patch.via_mlps and not two.claims[0].measurement.patch.via_mlps  # type: ignore[union-attr]


def test_groups_belong_to_their_circuit(resolved: Resolve) -> None:
    _, (found,) = resolved("task ioi\ncircuit a\nheads mover = 9.9 at END\ncircuit b\nmover -> logits\n")
    assert (found.code, found.span.line) == ("E040", 5)


# --- models ---------------------------------------------------------------------------------------


def test_a_model_from_outside_takes_the_place_of_the_files_own(resolved: Resolve, tmp_path: Path) -> None:
    text = 'circuit a\nmodel "gpt2"\ntask ioi\nheads mover = 17.4 at END\n'
    assert [d.code for d in resolved(text)[1]] == ["E060"]
    (circuit,), found = resolved(text, model="gpt2-medium")
    assert found == () and circuit.model.name == "gpt2-medium"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 2, "n_head": 4}))
    _, (found,) = resolved(text, model=str(tmp_path))
    assert found.message == f"{tmp_path} has 2 layers: 17.4 does not exist (the last is 1.3)"


def test_the_size_of_an_unknown_model_is_not_guessed(resolved: Resolve) -> None:
    assert resolved('circuit a\nmodel "somebody/something"\ntask ioi\nheads mover = 99.99 at END\n')[1] == ()
    assert LOGITS.stage() > Node("mlp", 10**9).stage()
