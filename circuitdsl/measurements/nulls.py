"""Matched random edges: what a claim that something `matters` must stand out from (semantics: verdicts).

Pairs of the same kind (sender kind, receiver input, position), first into the same receiver, then into others of its
layer; for groups, random groups of the same size. A counterpart keeps the shape of the claimed patch: every sender is
exchanged for another one, at the positions and into the inputs that the claimed one had; for a residual stream, which
stands for all nodes that write before its layer, each of these is. Pairs that the spec claims
elsewhere are left out, and so are nodes that it knocks out. A singular component is matched with those of the same
number in other heads, a neuron with others of its layer, a part along a direction with those of other nodes along it, a
feature with those of its dictionary that the patch changes on at least as many of the prompts.

The members of a group may stand in its null, in other company: a group that matters by one member alone must not look
rare only because no random group was allowed to have that member. So a random group is as rare as it should be, in 5 %
of the cases at the most.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from math import perm, prod

from circuitdsl.circuit.changes import knocked_out
from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.criteria import Matters
from circuitdsl.circuit.features import dictionary_of
from circuitdsl.circuit.nodes import EMBED, ERROR, Edge, Input, Node, Site
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, PatchRequest, PathRequest

#: members of a null, where there are that many
SIZE = 40
#: features that are run to find those that fire as often as a claimed one
FEATURES = 6 * SIZE
#: draws before a null is taken to have no more members
TRIES = 20 * SIZE

Swap = dict[Node, Node]


class Nulls:
    """The nulls of one circuit in a model of one shape; the same spec always gets the same ones."""

    def __init__(self, circuit: Circuit, shape: ModelShape) -> None:
        self.circuit = circuit
        self.shape = shape
        self.claimed = {edge for _, member in circuit.edges() for edge in member.edges}
        #: the same of the whole nodes whose parts are claimed
        self.with_parts = {edge._replace(sender=edge.sender.whole) for edge in self.claimed if edge.sender.is_part}
        patches = [claim.measurement.patch for claim in circuit.claims]
        self.named = {node for group in circuit.groups for node in group.nodes}
        patches += [claim.under.effect for claim in circuit.claims if claim.under]  # type: ignore[misc]
        self.named |= {site.node for patch in patches for site in knocked_out(patch)}

    def of_edges(self, request: EdgeRequest) -> tuple[EdgeRequest, ...]:
        """Random counterparts of a patch: other senders into its receivers, then into others of their layers."""
        rng = random.Random(repr(request))
        request = replace(request, edges=tuple(sorted({each for edge in request.edges for each in self._terms(edge)})))
        found = self._counterparts(request, self._swaps(request, rng))
        return tuple(EdgeRequest(edges, request.via_mlps, request.direction, request.ablate) for edges in found)

    def _counterparts(self, request: EdgeRequest, swaps: Iterator[Swap]) -> Iterable[tuple[Edge, ...]]:
        """The edges that exchanges make of those of a patch, where they exist and the spec does not claim them."""
        found: dict[tuple[Edge, ...], None] = {}
        for swap in swaps:
            edges = tuple(sorted({_swapped(edge, swap) for edge in request.edges}))
            free = (self._free(edge) or (len(swap) > 1 and edge in request.edges) for edge in edges)
            if len(edges) == len(request.edges) and set(edges) != set(request.edges) and all(free):
                found[edges] = None
            if len(found) == SIZE:
                break
        return found

    def of_paths(self, request: PathRequest) -> tuple[PathRequest, ...]:
        """The same path with its first senders exchanged."""
        edges = tuple(sorted({each for edge in request.arrows[0] for each in self._terms(edge)}))
        first, rng = EdgeRequest(edges), random.Random(repr(request))
        found = self._counterparts(first, self._senders(first, rng))
        return tuple(PathRequest((others, *request.arrows[1:])) for others in found)

    def _terms(self, edge: Edge) -> Iterator[Edge]:
        """The edges that are patched together where a residual stream is the sender: of every node that it holds."""
        if edge.sender.kind != "resid":
            yield edge
            return
        stream, kinds = edge.sender, (Node("head"), Node("mlp"), EMBED)
        inside = (node for like in kinds for node in self._nodes(like) if stream.whole.holds(node))
        yield from (edge._replace(sender=node._replace(index=stream.index, along=stream.along)) for node in inside)

    def of_sites(self, request: NodeRequest) -> tuple[NodeRequest, ...]:
        """Random nodes of the same kinds at the same positions, none of them named by the spec elsewhere."""
        rng = random.Random(repr(request))
        nodes = sorted({site.node for site in request.sites})
        named = self.named - set(nodes) if len(nodes) > 1 else self.named
        pools = {kind: [n for n in self._nodes(kind) if _unnamed(n, named)] for kind in map(_kind, nodes)}
        found: dict[tuple[Site, ...], None] = {}
        for swap in _distinct(_draws(nodes, pools, rng), _exchanges(nodes, pools)):
            sites = tuple(sorted(Site(swap[site.node], site.position) for site in request.sites))
            if set(sites) != set(request.sites):
                found[sites] = None
            if len(found) == SIZE:
                break
        return tuple(NodeRequest(sites, request.ablate, request.direction, request.under) for sites in found)

    def of_feature(self, request: PatchRequest) -> tuple[PatchRequest, ...]:
        """Other features of the same dictionary; those that fire more rarely are left out when they were run.

        Groups of features, features beside other nodes, and what a dictionary does not explain have none.
        """
        nodes = {node for node, _ in request.writes}
        if len(nodes) > 1 or isinstance(request, PathRequest):
            return ()
        (node,), rng = nodes, random.Random(repr(request))
        many = 0 if node.index == ERROR else dictionary_of(node).d_sae
        others = [node._replace(index=i) for i in rng.sample(range(many), many) if i != node.index]
        found: list[PatchRequest] = []
        for other in others:
            if isinstance(request, NodeRequest):
                sites = tuple(Site(other, site.position) for site in request.sites)
                found += [replace(request, sites=sites)] * _unnamed(other, self.named)
            else:
                edges = tuple(edge._replace(sender=other) for edge in request.edges)
                found += [replace(request, edges=edges)] * (not any(edge in self.claimed for edge in edges))
            if len(found) == FEATURES:
                break
        return tuple(found)

    def _early(self, request: EdgeRequest) -> dict[Node, list[Node]]:
        """The nodes of each kind of sender that come before some receiver."""
        last = max(edge.receiver.node.stage(self.shape.parallel) for edge in request.edges)
        return {
            kind: [node for node in self._nodes(kind) if node.stage(self.shape.parallel) < last]
            for kind in {_kind(edge.sender): None for edge in sorted(request.edges)}
        }

    def _senders(self, request: EdgeRequest, rng: random.Random) -> Iterator[Swap]:
        """Exchanges of senders, receivers kept."""
        senders, early = sorted({edge.sender for edge in request.edges}), self._early(request)
        mine = set(senders) if len(senders) > 1 else set()
        free = {kind: [n for n in pool if n in mine or self._unclaimed(n, request)] for kind, pool in early.items()}
        if len(senders) == 1:
            (pool,) = free.values()
            yield from ({senders[0]: other} for other in rng.sample(pool, len(pool)))
        else:
            yield from _draws(senders, free, rng)

    def _swaps(self, request: EdgeRequest, rng: random.Random) -> Iterator[Swap]:
        """Exchanges of senders, receivers kept; then of senders and receivers both."""
        yield from self._senders(request, rng)
        senders, early = sorted({edge.sender for edge in request.edges}), self._early(request)
        receivers = sorted({edge.receiver.node for edge in request.edges})
        # these are the last that are drawn, and come to an end where every exchange has been met
        heads = Counter(node.layer for node in receivers if node.kind == "head")
        most = _exchanges(senders, early) * prod(perm(self.shape.n_heads, many) for many in heads.values())
        both = (swap | self._other_receivers(receivers, rng) for swap in _draws(senders, early, rng))
        yield from _distinct(both, most)

    def _other_receivers(self, receivers: list[Node], rng: random.Random) -> Swap:
        """Every receiving head exchanged for one of its layer, no two for the same."""
        swap: Swap = {}
        for node in receivers:
            if node.kind == "head":
                heads = [Node("head", node.layer, head) for head in range(self.shape.n_heads)]
                swap[node] = rng.choice([head for head in heads if head not in swap.values()])
        return swap

    def _unclaimed(self, sender: Node, request: EdgeRequest) -> bool:
        """Whether the spec claims nothing of a sender into the inputs of a patch."""
        inputs = {(edge.receiver, edge.position) for edge in request.edges}
        return not any(self._claimed(Edge(sender, receiver, position)) for receiver, position in inputs)

    def _claimed(self, edge: Edge) -> bool:
        """Whether the spec claims an edge, or one of the whole head or of a part."""
        if edge in self.claimed:
            return True
        if edge.sender.kind == "head" and edge.sender.is_part:
            return edge._replace(sender=edge.sender.whole) in self.claimed
        return edge in self.with_parts

    def _free(self, edge: Edge) -> bool:
        """Whether an edge exists and the spec does not claim it."""
        earlier = edge.sender.stage(self.shape.parallel) < edge.receiver.node.stage(self.shape.parallel)
        return earlier and not self._claimed(edge)

    def _nodes(self, like: Node) -> list[Node]:
        """Every node of a kind: heads, their components of one number, MLPs, the neurons of a layer."""
        layers, heads = range(self.shape.n_layers), range(self.shape.n_heads)
        match like.kind:
            case "head":
                return [Node("head", layer, head, like.index, along=like.along) for layer in layers for head in heads]
            case "mlp" if like.is_part and like.along is None:
                return [Node("mlp", like.layer, index=i) for i in range(self.shape.d_mlp or 0)]
            case "mlp":
                return [Node("mlp", layer, -1, like.index, along=like.along) for layer in layers]
            case "resid":
                return [Node("resid", layer + 1, -1, like.index, along=like.along) for layer in layers]
            case _:
                return [like]


def null_of(request: PatchRequest, claim: Claim, nulls: Nulls) -> tuple[PatchRequest, ...]:
    """The null of a patch, where the claim compares it with one."""
    if not any(isinstance(test, Matters) for test in claim.tests):
        return ()
    if any(node.of for node, _ in request.writes):
        return nulls.of_feature(request)
    match request:
        case EdgeRequest():
            return nulls.of_edges(request)
        case PathRequest():
            return nulls.of_paths(request)
    return nulls.of_sites(request)


def _kind(node: Node) -> Node:
    """What a node's counterparts have in common, as a node without the rest."""
    if node.kind == "head" or node.along:
        return Node(node.kind, index=node.index, along=node.along)
    return Node("mlp", node.layer, index=0) if node.is_part else Node(node.kind)


def _unnamed(node: Node, named: Set[Node]) -> bool:
    """Whether a node is not among some, nor the head that it is a part of, nor a part of it."""
    if node in named or (node.kind == "head" and node.whole in named):
        return False
    return node.is_part or all(other.whole != node for other in named)


def _swapped(edge: Edge, swap: Swap) -> Edge:
    receiver = Input(swap.get(edge.receiver.node, edge.receiver.node), edge.receiver.port)
    return Edge(swap.get(edge.sender, edge.sender), receiver, edge.position)


def _exchanges(nodes: list[Node], pools: Mapping[Node, list[Node]]) -> int:
    """How many different exchanges `_draws` can give."""
    return prod(perm(len(pools[kind]), many) for kind, many in Counter(map(_kind, nodes)).items())


def _distinct(swaps: Iterator[Swap], possible: int) -> Iterator[Swap]:
    """Each exchange once, until all that are possible were drawn."""
    met = set[tuple[tuple[Node, Node], ...]]()
    for swap in swaps:
        if (key := tuple(swap.items())) not in met:
            met.add(key)
            yield swap
        if len(met) == possible:
            return


def _draws(nodes: list[Node], pools: Mapping[Node, list[Node]], rng: random.Random) -> Iterator[Swap]:
    """Random exchanges of nodes for distinct ones of the same kind; none where a pool is too small."""
    by_kind = {kind: [node for node in nodes if _kind(node) == kind] for kind in sorted(pools)}
    if any(len(pools[kind]) < len(mine) for kind, mine in by_kind.items()):
        return
    for _ in range(TRIES):
        swap: Swap = {}
        for kind, mine in by_kind.items():
            swap |= zip(mine, rng.sample(pools[kind], len(mine)), strict=True)
        yield swap
