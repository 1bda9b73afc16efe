"""Nulls: matched to the claim, without what the spec itself claims, the same on every machine."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from circuitdsl.circuit.changes import EdgePatch, Member, NodePatch
from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.criteria import Matters
from circuitdsl.circuit.nodes import LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.measurements import nulls
from circuitdsl.measurements.edge import EdgeEffect
from circuitdsl.measurements.knockout import NodeEffect
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest
from circuitdsl.verify.plan import plan

SHAPE = ModelShape("four by eight", 4, 8)
END, S1, S2 = Position("END"), Position("S1"), Position("S2")


def head(text: str) -> Node:
    layer, number = text.split(".")
    return Node("head", int(layer), int(number))


def edge(sender: str, receiver: str, port: str, position: Position) -> Edge:
    node = LOGITS if receiver == "logits" else head(receiver)
    return Edge(head(sender), Input(node, port), position)


def circuit(*effects: EdgeEffect | NodeEffect) -> Circuit:
    claims = tuple(
        Claim(f"c{i:02d}", i, "", "edge", effect, (Matters(),), False, 0.01, ("ioi",))
        for i, effect in enumerate(effects, start=1)
    )
    return Circuit("t", "", None, (), Metric(), (), claims)


def group(*edges: Edge) -> EdgeEffect:
    return EdgeEffect(EdgePatch(tuple(Member(e.sender, e.receiver.node, (e,)) for e in edges)))


def null_of(*effects: EdgeEffect | NodeEffect) -> tuple[EdgeRequest, ...] | tuple[NodeRequest, ...]:
    return plan(circuit(*effects), SHAPE)[0].parts[0].null


def test_a_single_edge_first_meets_all_other_senders_of_its_own_receiver() -> None:
    null = null_of(group(edge("1.3", "2.1", "q", END)))
    assert len(null) == 40
    same = [request for request in null if request.edges[0].receiver.node == head("2.1")]
    assert {r.edges[0].sender for r in same} == {Node("head", a, h) for a in (0, 1) for h in range(8)} - {head("1.3")}
    assert null[: len(same)] == tuple(same)
    for request in null:
        (found,) = request.edges
        assert (found.receiver.port, found.position, found.receiver.node.layer) == ("q", END, 2)


def test_claimed_pairs_are_left_out() -> None:
    claimed = [edge(f"0.{h}", "logits", "in", END) for h in range(8)]
    null = null_of(*(group(e) for e in claimed))
    senders = {request.edges[0].sender for request in null}
    assert len(senders) == len(null) == 24
    assert not senders & {e.sender for e in claimed}


def test_a_group_is_matched_by_groups_of_its_shape() -> None:
    """Each sender keeps its position and the inputs it feeds."""
    mine = group(edge("0.1", "1.2", "v", S1), edge("0.2", "1.2", "v", S2), edge("0.2", "1.3", "k", S2))
    null = null_of(mine)
    assert len(null) == 40
    for request in null:
        by_position = {p: [e for e in request.edges if e.position == p] for p in (S1, S2)}
        assert [e.receiver.port for e in by_position[S1]] == ["v"]
        assert sorted(e.receiver.port for e in by_position[S2]) == ["k", "v"]
        assert len({e.sender for e in by_position[S2]}) == 1
        assert set(request.edges) != set(mine.patch.edges)
    alone = edge("0.2", "1.2", "v", S2)
    assert any(alone in request.edges for request in null)
    assert not any(alone in request.edges for request in null_of(mine, group(alone))) or alone in mine.patch.edges


def test_a_null_can_be_too_small() -> None:
    every = [edge(f"{a}.{h}", "logits", "in", END) for a in range(4) for h in range(8)]
    assert null_of(*(group(e) for e in every[:20])) != ()
    assert len(null_of(*(group(e) for e in every[:20]))) == 12
    assert null_of(*(group(e) for e in every)) == ()


def test_drawing_ends_where_every_exchange_was_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two MLPs can send to m2: more than a few draws give nothing new."""
    drawn: list[nulls.Swap] = []

    def noted(*given):  # type: ignore[no-untyped-def]
        for swap in draws(*given):
            drawn.append(swap)
            yield swap

    draws = nulls._draws
    monkeypatch.setattr(nulls, "_draws", noted)
    mine = Edge(Node("mlp", 0), Input(Node("mlp", 2), "in"), END)
    (other,) = null_of(group(mine))
    assert [e.sender for e in other.edges] == [Node("mlp", 1)]
    assert len(drawn) < 30


@pytest.mark.parametrize("size", [1, 3])
def test_knocked_out_nodes_are_not_their_own_null(size: int) -> None:
    """A single node is not in its null; of a group some may be, in other company; what else is knocked out is not."""
    sites = tuple(Site(Node("head", 0, h), END) for h in range(size))
    null = null_of(NodeEffect(NodePatch(sites)), NodeEffect(NodePatch((Site(head("3.7"), END),))))
    assert len(null) == (32 - 1 - size if size == 1 else 40)
    own = {site.node for site in sites}
    for request in null:
        assert len(request.sites) == size
        nodes = {site.node for site in request.sites}
        assert head("3.7") not in nodes and nodes != own
        assert size > 1 or not nodes & own
        assert {site.position for site in request.sites} == {END}
    assert size == 1 or any({site.node for site in request.sites} & own for request in null)


def test_nulls_do_not_depend_on_the_hash_seed() -> None:
    code = "from tests.measurements.test_nulls import drawn; print(drawn())"
    there = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=True
    )
    assert there.stdout == f"{drawn()}\n" != "[]\n"


def drawn() -> list[str]:
    mixed = group(edge("0.1", "2.1", "q", END), Edge(Node("mlp", 0), Input(head("2.1"), "q"), END))
    return [str(e) for r in null_of(mixed) for e in r.edges]


def test_the_null_of_a_stream_is_made_of_as_many_nodes_of_the_same_kinds() -> None:
    """A stream that the spec claims takes none of its nodes out of the nulls of others."""
    mine = Edge(Node("resid", 2), Input(head("3.1"), "q"), END)
    kinds = {"embed": 1, "mlp": 2, "head": 16}
    null = null_of(group(mine))
    assert len(null) == 40
    for request in null:
        assert Counter(edge.sender.kind for edge in request.edges) == kinds
        assert {edge.receiver.node.layer for edge in request.edges} == {3}
    other = group(Edge(head("1.1"), Input(head("3.1"), "q"), END))
    assert null_of(other, group(mine)) == null_of(other)


def test_a_knocked_out_stream_is_compared_with_those_of_other_layers() -> None:
    sites = (Site(Node("resid", 2), END),)
    null = null_of(NodeEffect(NodePatch(sites)))
    assert sorted(site.node.layer for request in null for site in request.sites) == [1, 3, 4]
