"""Matched random edges: what a claim that something `matters` must stand out from (semantics: verdicts).

Pairs of the same kind (sender kind, receiver input, position), first into the same receiver, then into others of its
layer; for groups, random groups of the same size. A counterpart keeps the shape of the claimed patch: every sender is
exchanged for another one, at the positions and into the inputs that the claimed one had; for a residual stream, which
stands for all nodes that write before its layer, each of these is. Pairs that the spec claims
elsewhere are left out, and so are nodes that it knocks out. A singular component is matched with those of the same
number in other heads, a neuron with others of its layer, a part along a direction with those of other nodes along it, a
feature with those of its dictionary that fire on at least as many of the prompts at its positions. Which do is known
when the model has run: until then any feature stands for them, so that work can be planned.

The members of a group may stand in its null, in other company: a group that matters by one member alone must not look
rare only because no random group was allowed to have that member. So a random group is as rare as it should be, in 5 %
of the cases at the most.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import perm, prod

from circuitdsl.circuit.changes import knocked_out
from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.features import dictionary_of
from circuitdsl.circuit.nodes import EMBED, ERROR, Edge, Input, Node, Site
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, PatchRequest, PathRequest

#: members of a null, where there are that many
SIZE = 40
#: draws before a null is taken to have no more members
TRIES = 20 * SIZE

Swap = dict[Node, Node]


@dataclass(frozen=True)
class Nulls:
    """The nulls of one circuit in a model of one shape; the same spec always gets the same ones.

    Attributes:
        claimed: the edges that the spec claims.
        named: the nodes that it names or knocks out.
        alike: gives the features that fire as often as one, where that is known.
    """

    circuit: Circuit = field(compare=False)
    shape: ModelShape
    claimed: frozenset[Edge]
    named: frozenset[Node]
    alike: Callable[[Node], Iterable[int]] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, circuit: Circuit, shape: ModelShape) -> Nulls:
        """Those of a circuit."""
        patches = [claim.measurement.patch for claim in circuit.claims]
        patches += [claim.under.effect for claim in circuit.claims if claim.under]  # type: ignore[misc]
        named = {node for group in circuit.groups for node in group.nodes}
        named |= {site.node for patch in patches for site in knocked_out(patch)}
        claimed = frozenset(edge for _, member in circuit.edges() for edge in member.edges)
        return cls(circuit, shape, claimed, frozenset(named))

    @cached_property
    def with_parts(self) -> Set[Edge]:
        """The claimed edges of the whole nodes whose parts are claimed."""
        return {edge._replace(sender=edge.sender.whole) for edge in self.claimed if edge.sender.is_part}

    def about(self, nodes: Set[Node]) -> Nulls:
        """What of these concerns features of the dictionaries of some."""
        names = {node.of for node in nodes}
        claimed = frozenset(edge for edge in self.claimed if edge.sender.of in names and edge.receiver.node.of in names)
        return replace(self, claimed=claimed, named=frozenset(node for node in self.named if node.of in names))

    def of_patch(self, request: PatchRequest) -> tuple[PatchRequest, ...]:
        """Random counterparts of a patch. Features beside other nodes have none: they might share what they write."""
        if len({not node.of for node, _ in request.writes}) > 1:
            return ()
        match request:
            case EdgeRequest():
                return self.of_edges(request)
            case PathRequest():
                return self.of_paths(request)
        return self.of_sites(request)

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
        if edge.sender.kind != "resid" or edge.sender.of:
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
            sites = tuple(sorted({Site(swap[site.node], site.position) for site in request.sites}))
            if len(sites) == len(request.sites) and set(sites) != set(request.sites):
                found[sites] = None
            if len(found) == SIZE:
                break
        return tuple(NodeRequest(sites, request.ablate, request.direction, request.under) for sites in found)

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
        pools = {node: pool for node in receivers if (pool := self._beside(node))}
        # these are the last that are drawn, and come to an end where every exchange has been met
        most = _exchanges(senders, early)
        most *= prod(perm(len(pool), many) for pool, many in Counter(map(tuple, pools.values())).items())
        both = (swap | other for swap in _draws(senders, early, rng) if (other := _exchanged(pools, rng)) is not None)
        yield from _distinct(both, most)

    def _beside(self, receiver: Node) -> list[Node]:
        """What a receiver is exchanged for: the heads of its layer, its neurons, or the features that fire as often."""
        if receiver.kind == "head":
            return [Node("head", receiver.layer, head) for head in range(self.shape.n_heads)]
        return self._nodes(_kind(receiver)) if receiver.is_part else []

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
        """Every node of a kind: heads, their components of one number, MLPs, the neurons of a layer, features alike."""
        layers, heads = range(self.shape.n_layers), range(self.shape.n_heads)
        if like.of:
            alike = self.alike or (lambda node: range(dictionary_of(node).d_sae))
            return [like] if like.index == ERROR else [like._replace(index=i) for i in alike(like)]
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


def _kind(node: Node) -> Node:
    """What a node's counterparts have in common, as a node without the rest; features are matched one by one."""
    if node.of:
        return node
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


def _exchanged(pools: Mapping[Node, list[Node]], rng: random.Random) -> Swap | None:
    """Every node exchanged for one of its pool, no two for the same; None where the others have taken all of a pool."""
    swap: Swap = {}
    for node, pool in pools.items():
        left = [other for other in pool if other not in swap.values()]
        if not left:
            return None
        swap[node] = rng.choice(left)
    return swap


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
