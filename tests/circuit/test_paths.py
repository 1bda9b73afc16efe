"""Paths: what a line says, and what is wrong with one."""

from __future__ import annotations

import pytest

from circuitdsl.api import dumps, loads
from circuitdsl.circuit.changes import PathPatch
from circuitdsl.circuit.claims import membership
from circuitdsl.circuit.criteria import Stronger
from circuitdsl.circuit.nodes import Edge, Input, Node, Position, Site

HEADER = """circuit p
model "pocket"
task ioi
heads induction = 0.1 1.1 at S2
heads mover = 2.4 2.5 at END
heads late = 3.1 at END
"""


def spec(*lines: str):  # type: ignore[no-untyped-def]
    return loads(HEADER + "\n".join(lines) + "\n", "p.circ")


def path(line: str) -> PathPatch:
    found = spec(line)
    assert found.ok, found.problems
    patch = found.circuits[0].claims[0].measurement.patch
    assert isinstance(patch, PathPatch)
    return patch


def chains(line: str) -> list[str]:
    return [str(chain) for chain in path(line).chains()]


def mistakes(*lines: str) -> list[tuple[str, str]]:
    return [(d.code, d.message) for d in spec(*lines).diagnostics if d.severity == "error"]


def test_each_node_acts_where_the_next_arrow_reads_it() -> None:
    found = path("path 0.1 -> 1.1.v at S2 -> 2.4.q at END -> logits : lowers")
    head = {name: Node("head", *map(int, name.split("."))) for name in ("0.1", "1.1", "2.4")}
    assert [set(arrow) for arrow in found.edge_sets] == [
        {Edge(head["0.1"], Input(head["1.1"], "v"), Position("S2"))},
        {Edge(head["1.1"], Input(head["2.4"], "q"), Position("END"))},
        {Edge(head["2.4"], Input(Node("logits"), "in"), Position("END"))},
    ]
    assert set(map(str, found.positions)) == {"S2", "END"}


def test_a_line_without_positions_takes_those_of_its_groups() -> None:
    found = path("path induction -> mover.v -> late.q -> logits : lowers")
    assert [str(arrow.positions[0]) for arrow in found.arrows] == ["S2", "END", "END"]


def test_chains_are_those_of_single_nodes() -> None:
    assert chains("path each (0.1 1.1) -> 1.2.v at S2 -> mover.q at END -> logits") == [
        f"0.1 -> 1.2.v at S2 -> 2.{i}.q at END -> logits at END" for i in (4, 5)
    ]
    assert chains("path 0.1 -> 1.1 at S2 -> m2 at END -> logits") == ["0.1 -> 1.1 at S2 -> m2 at END -> logits at END"]


def test_pairs_that_no_chain_goes_along_are_left_out() -> None:
    """1.1 does not come before 1.2, and nothing comes to 0.3."""
    found = path("path 0.1 -> (1.1 2.1).v at S2 -> (2.4 3.2).q at END -> logits : lowers")
    pairs = [{(str(m.sender), str(m.receiver)) for m in arrow.members} for arrow in found.arrows]
    assert pairs[1] == {("1.1", "2.4"), ("1.1", "3.2"), ("2.1", "3.2")}
    found = path("path 0.1 -> (1.1 2.1).v at S2 -> 2.4.q at END -> logits : lowers")
    assert [str(m.receiver) for m in found.arrows[0].members] == ["1.1"]


def test_a_group_may_be_called_path() -> None:
    found = spec(
        "heads path = 1.2 at S2",
        "path -> 2.4.v at S2 : lowers",
        "path path -> 2.4.v at S2 -> logits : lowers and stronger than path path -> 2.5.v at S2 -> logits",
        "expect knockout(path) : lowers",
    )
    assert found.ok, found.problems
    kinds = [claim.kind for claim in found.circuits[0].claims]
    assert kinds == ["edge", "path", "expect"]
    (rival,) = (test for test in found.circuits[0].claims[1].tests if isinstance(test, Stronger))
    assert isinstance(rival.patch, PathPatch)
    assert rival.name == "path path -> 2.5.v at S2 -> logits"
    assert loads(dumps(found), "p.circ") == found


@pytest.mark.parametrize("first", ["0.*", "resid1", "m0", "embed", "(0.1 0.2)", "all - 0.3"])
def test_whatever_a_path_begins_with(first: str) -> None:
    found = spec(f"path {first} -> mover.q at END -> logits : stronger than path {first} -> 1.2.q at END -> logits")
    assert found.ok, found.problems


def test_an_edge_beside_a_path_is_direct() -> None:
    """A path is no edge via MLPs, whatever stands above; nor is what it is compared with."""
    found = spec("edges via mlps", "path 0.1 -> 2.4.q at END -> logits : stronger than 0.1 -> 2.4.q at END")
    (claim,) = found.circuits[0].claims
    assert not any(arrow.via_mlps for arrow in claim.measurement.patch.arrows)
    (test,) = claim.tests
    assert not test.patch.via_mlps


def test_a_path_is_part_of_its_circuit() -> None:
    found = spec(
        "path 0.3 -> 1.3.q at END -> 2.7.q at END -> logits : lowers", "path 0.4 -> m1 at END -> logits : negligible"
    )
    whole = membership(found.circuits[0])
    assert Site(Node("head", 1, 3), Position("END")) in whole.sites
    assert len(whole.edges) == 3
    graph = found.circuits[0].graph
    assert {(a, b) for a, b, about in graph.edges(data=True) if about["path"] and about["claim"] == "c01"} == {
        ("0.3", "1.3"),
        ("1.3", "2.7"),
        ("2.7", "logits"),
    }


def test_the_same_path_twice_is_noticed() -> None:
    found = spec("path 0.7 -> 2.4.q at END -> logits : lowers", "path 0.7 -> 2.4.q at END -> logits at END : raises")
    assert "W002" in [d.code for d in found.diagnostics]


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("path 0.1 -> logits", "E070", "a path goes through a node: a single arrow is an edge"),
        ("path 2.4 -> 1.3.q at END -> logits", "E070", "2.4 -> 1.3.q: the sender is above the receiver"),
        (
            "path 0.1 -> 2.4.q at END -> 1.1.q at END -> logits",
            "E070",
            "2.4 -> 1.1.q: the sender is above the receiver",
        ),
        ("path 0.1 -> 2.4.q at END -> logits -> m3 at END", "E070", "logits only reads: it sends nothing"),
        ("path 0.1 -> 2.4[1] at END -> logits", "E070", "2.4[1] is a part of what 2.4 writes: it reads nothing"),
        ("path 0.1 -> embed at END -> logits", "E070", "embed only writes: nothing is sent to it"),
        (
            "path 0.1 -> 1.2.v at END -> 2.1.v at S2 -> logits",
            "E073",
            "1.2 is read at S2, before END, where the change comes to it: no node sees what follows it",
        ),
        (
            "path 0.1 -> 1.2.q at S2 -> 2.1.q at END -> logits",
            "E073",
            "1.2 reads its query at S2, and is read at END: what comes there changes nothing elsewhere; "
            "did you mean .k or .v?",
        ),
        (
            "path 0.1 -> m1 at S2 -> 2.1.q at END -> logits",
            "E073",
            "m1 reads its input at S2, and is read at END: what comes there changes nothing elsewhere",
        ),
        (
            "path 0.1 -> m1 at S2, END -> 2.1.q at END -> logits",
            "E073",
            "m1 reads its input at S2, END, and is read at END: what comes there changes nothing elsewhere",
        ),
        ("path 0.7 -> 1.2.q -> logits", "E072", "0.7 -> 1.2.q has no position: nothing says where 0.7 acts"),
        ("path 0.1 -> (1.1 2.9).q at END -> logits", "E060", "2.9"),
        ("path 0.1 -> 2.4.q at END -> logits : stronger than path 0.1 -> 2.4.q at END -> logits", "E086", "no path is"),
        ("expect denoise(mover) : stronger than path 0.1 -> 2.4.q at END -> logits", "E086", "a path is not denoised"),
        ("path 0.1 -> m1 via mlps -> logits", "E020", "a path goes through the nodes that it names"),
        ("path 0.1 -> 9.1.q at END -> logits : effect <= -20", "E060", "9.1"),
    ],
)
def test_what_is_wrong_is_said_once(line: str, code: str, message: str) -> None:
    found = mistakes(line)
    assert [c for c, _ in found][:1] == [code]
    assert message in found[0][1]
    assert len({m for _, m in found}) == len(found)


def test_what_comes_down_says_what_to_do() -> None:
    (found,) = (d for d in spec("path 2.4 -> 1.3.q at END -> logits").diagnostics if d.severity == "error")
    assert found.help == "what is sent goes up: a sender must be earlier than its receiver"
    assert (found.span.line, found.span.column, found.span.end_column) == (7, 6, 25)


def test_too_many_chains_are_refused() -> None:
    heads = " ".join(f"{layer}.{i}" for layer in (0, 1, 2) for i in range(8))
    found = mistakes(
        f"heads all_of = {heads} at END", "path all_of -> all_of.q -> all_of.q -> (m3 3.1) -> logits : lowers"
    )
    assert found == []
    many = spec(
        f"heads low = {' '.join(f'0.{i}' for i in range(8))} at END",
        f"heads mid = {' '.join(f'1.{i}' for i in range(8))} at END",
        f"heads top = {' '.join(f'2.{i}' for i in range(8))} at END",
        f"heads end = {' '.join(f'3.{i}' for i in range(8))} at END",
        "path each low -> mid.q -> top.q -> end.q -> logits : lowers",
    )
    assert many.ok
    assert len(list(many.circuits[0].claims[0].measurement.patch.chains())) == 8**4
