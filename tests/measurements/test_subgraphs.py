"""What is run for claims about a whole circuit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from circuitdsl.api import loads
from circuitdsl.circuit.claims import Claim, Membership, membership
from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.peers import ROUNDS, Peers
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.measurements.whole_circuit import (
    RANDOM_SUBSETS,
    WholeCircuit,
    alone,
    contexts,
    groups,
    members,
    subsets,
    without,
)

END, S2 = Position("END"), Position("S2")
SHAPE = ModelShape("m", 3, 6)


def head(layer: int, number: int) -> Node:
    return Node("head", layer, number)


A, B, C, M = head(0, 1), head(1, 2), head(1, 3), Node("mlp", 1)
EDGES = frozenset(
    [Edge(A, Input(B, "v"), S2), Edge(B, Input(LOGITS, "in"), END), Edge(Node("embed"), Input(A, "v"), S2)]
)
WHOLE = Membership(
    sites=frozenset([Site(A, S2), Site(B, END), Site(C, END), Site(M, END)]),
    edges=EDGES,
    mlps=True,
    groups={"early": frozenset([Site(A, S2)]), "late": frozenset([Site(B, END), Site(C, END)])},
)


def nodes_of(whole: Membership = WHOLE) -> Subgraph:
    return alone(whole, "nodes", "corrupt", everywhere=False)


def edges_of() -> Subgraph:
    return alone(WHOLE, "edges", "corrupt", everywhere=False)


def kept_by(how: WholeCircuit) -> Subgraph:
    """What a claim keeps of `WHOLE`."""
    lines = "heads early = 0.1 at S2\nheads late = 1.2 1.3 at END\nmlps middle = m1 at END\n"
    lines += "embed -> 0.1.v at S2\n0.1 -> 1.2.v at S2\n1.2 -> logits at END\n"
    (circuit,) = loads(f"circuit t\ntask ioi\n{lines}").circuits
    assert membership(circuit) == replace(WHOLE, groups=membership(circuit).groups)
    claim = Claim("", 0, "", "expect", how, (), False, 0.01, ("ioi",))
    found = how.plan(claim, "ioi", Nulls.of(circuit, SHAPE)).circuit
    assert found is not None
    return found


def test_what_is_kept() -> None:
    assert kept_by(WholeCircuit("faithfulness")).sites == WHOLE.sites
    everywhere = kept_by(WholeCircuit("faithfulness", positions_kept="all"))
    assert {site.position for site in everywhere.sites} == {EVERYWHERE}
    edges = kept_by(WholeCircuit("faithfulness", keep="edges", ablate="mean"))
    assert (edges.edges, edges.sites, edges.ablate) == (EDGES, frozenset(), "mean")


def test_what_is_taken_out() -> None:
    kept = nodes_of()
    assert without(kept, frozenset([A, C])).sites == {Site(B, END), Site(M, END)}
    rest = without(kept, frozenset([A, C]), True)
    assert rest.inverted and rest.sites == {Site(A, S2), Site(C, END)}
    edges = edges_of()
    assert without(edges, frozenset([A])).edges == {Edge(B, Input(LOGITS, "in"), END)}
    assert len(without(edges, frozenset([A]), True).edges) == 2
    assert members(edges) == (A, B)
    assert groups(WHOLE, edges) == {"early": {A}, "late": {B}}


def test_subsets_are_groups_and_random_ones_and_always_the_same() -> None:
    kept = nodes_of()
    found = subsets(WHOLE, kept)
    assert list(found)[:2] == ["early", "late"]
    assert len(set(found.values())) == len(found) <= 2 + RANDOM_SUBSETS
    assert len(found) > 8
    assert found == subsets(WHOLE, kept)


def test_a_member_is_tried_alone_and_after_every_group() -> None:
    kept = nodes_of()
    assert contexts(B, groups(WHOLE, kept)) == {"": frozenset(), "early": {A}, "late without 1.2": {C}}
    assert contexts(A, groups(WHOLE, kept)) == {"": frozenset(), "late": {B, C}}  # its own class without it is nothing


def test_random_circuits_have_the_same_shape() -> None:
    def shape(sites: frozenset[Site]) -> Counter:
        return Counter((site.node.kind, site.node.layer, site.position) for site in sites)

    kept = nodes_of()
    found = Peers(kept, SHAPE).drawn
    assert len(found) == ROUNDS[0] and kept not in found
    assert all(shape(one.sites) == shape(kept.sites) and Site(M, END) in one.sites for one in found)
    assert len(set(found)) > 40
    assert found == Peers(kept, SHAPE).drawn
    edges = edges_of()
    for one in Peers(edges, SHAPE).drawn:
        by_kind = {(e.sender.kind, e.receiver.node.kind, e.receiver.port, e.position): e for e in one.edges}
        assert len(by_kind) == 3
        assert by_kind["head", "head", "v", S2].receiver.node == by_kind["head", "logits", "in", END].sender  # a path


def test_where_every_head_is_kept_there_is_no_other_circuit() -> None:
    everything = frozenset(Site(head(0, h), END) for h in range(6))
    whole = Membership(everything, frozenset(), False, {})
    none = Peers(nodes_of(whole), SHAPE)
    assert (none.drawn, len(none), none.more) == ((), 0, None)


def test_later_rounds_go_on_where_the_earlier_ones_ended() -> None:
    kept, drawn, sizes, peers = nodes_of(), list[Subgraph](), list[int](), Peers(nodes_of(), SHAPE)
    while True:
        drawn += peers.drawn
        sizes.append(len(peers))
        assert len(drawn) == len(peers)
        if (more := peers.more) is None:
            break
        peers = more
    assert tuple(sizes) == ROUNDS
    assert len(set(drawn[: ROUNDS[0]]) & set(drawn[ROUNDS[0] : 2 * ROUNDS[0]])) < ROUNDS[0], "not the same once more"
    assert drawn[: ROUNDS[0]] == list(Peers(kept, SHAPE).drawn)


def test_random_circuits_are_drawn_alike() -> None:
    """Every other head of the layer is as likely: one of five, in the long run 20 of 100."""
    whole = Membership(frozenset([Site(A, END)]), frozenset(), False, {})
    drawn = Counter(next(iter(one.sites)).node for one in Peers(nodes_of(whole), SHAPE).drawn)
    assert set(drawn) == {head(0, h) for h in range(6)} - {A}
    assert max(drawn.values()) <= 40
