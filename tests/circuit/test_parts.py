"""A node is divided in one way at a time: parts of two divisions share what they write."""

from __future__ import annotations

import pytest

from circuitdsl.api import loads
from circuitdsl.circuit.nodes import ERROR, LOGITS, Edge, Input, Node, Position
from circuitdsl.circuit.overlaps import clash

HEAD = """circuit one
model "pocket"
task ioi
dictionary t1 = transcoder("pocket/transcoders/1")
dictionary r3 = sae("pocket/saes/resid3")
dictionary late = sae("pocket/saes/resid4")
dictionary again = sae("pocket/saes/resid3")
"""


@pytest.mark.parametrize(
    "lines",
    [
        "(r3[136] again[136]) -> logits at END : lowers",  # one feature, which was counted twice
        "expect knockout((r3[136] again[315]) at END) : lowers",
        "(m1[3] t1[49]) -> logits at END : lowers",
        "nodes both = m1[3] t1[error]   at END",
        "(0.3 r3[136]) -> logits at END : lowers",  # what 0.3 writes is in the stream, and so in the feature
        "(r3[136] late[7]) -> logits at END : lowers",
        "path (m1[3] t1[49]) -> m3 at END -> logits : lowers",
        "when m1[3] at END is knocked out\n  expect knockout(t1[49] at END) : lowers",
        "when t1[49] -> logits at END is patched\n  expect knockout(m1[3] at END) : lowers",
        "when 0.3 -> logits at END is patched\n  expect knockout(r3[136] at END) : lowers",
        "(0.3[1] r3[136]) -> logits at END : lowers",  # a component of a head, and the stream that it is in
        "when 3.1 -> logits at END via mlps is patched\n  expect knockout(r3[136] at END) : lowers",
    ],
)
def test_parts_of_two_divisions_are_not_patched_together(lines: str) -> None:
    errors = [each for each in loads(f"{HEAD}{lines}\n").diagnostics if each.severity == "error"]
    assert [each.code for each in errors] == ["E087" if lines.startswith("when") else "E051"]


@pytest.mark.parametrize(
    "lines",
    [
        "(r3[136] r3[315] r3[error] m3 3.1) -> logits at END : lowers",
        "(t1[49] t1[error] 0.3) -> logits at END : lowers",
        "(resid4 r3[136]) -> logits at END : lowers",  # the stream alone
        "expect knockout((0.3 r3[136] late[7]) at END) : lowers",
        "(m1[3] m1[4] m2[3] 0.3[1] 0.3[2]) -> logits at END : lowers",
        "expect knockout((0.3[1] r3[136]) at END) : lowers",
        "when 0.3 at END is knocked out\n  expect knockout(r3[136] at END) : lowers",
        "when 0.3[1] at END is knocked out\n  expect knockout(r3[136] at END) : lowers",
        "when 3.1 -> logits at END is patched\n  expect knockout(r3[136] at END) : lowers",
        "m1[3] -> logits at END : stronger than t1[49] -> logits at END",
    ],
)
def test_parts_of_one_division_are(lines: str) -> None:
    assert loads(f"{HEAD}{lines}\n").ok


def to_end(sender: Node) -> Edge:
    return Edge(sender, Input(LOGITS, "in"), Position("END"))


def test_a_share_of_what_varies_over_all_prompts_has_no_strata() -> None:
    (error,) = loads(f'{HEAD}expect reconstruction(r3) >= 50% where stratum "ABBA*"\n').diagnostics
    assert error.code == "E095"


def test_an_experiment_of_two_divisions_is_noticed() -> None:
    neuron, feature, error = (Node("mlp", 1, index=i, of=of) for i, of in ((3, ""), (7, "t#1"), (ERROR, "t#1")))
    said = clash([to_end(neuron)], [feature])
    assert said == "m1[3] and t[7] cannot be patched together: parts of m1, which is divided in two ways"
    assert not clash([to_end(feature)], [error])


def test_what_goes_via_mlps_past_a_feature_of_a_stream_is_not_measured() -> None:
    feature, below = Node("resid", 3, index=7, of="r#1"), Node("resid", 2)
    assert "past r[7]" in clash([to_end(feature)], [below], via_mlps=True)
    assert not clash([to_end(feature)], [below])
    assert not clash([to_end(feature)], [Node("mlp", 3)], via_mlps=True)
