"""The search for edges: which groups send to which, by exact patching of all their edges together.

A receiver is the logits or a group; a sender is a group that is earlier, or the embedding. All senders are patched into
all receivers at once, through one input, directly (Wang et al. 2022, section 3, for whole groups). An edge is found
when its effect lies beyond the threshold, tested over all that are tried.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, LOGITS, Edge, Input, Node, NodeKind, Port, Position, Site
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.discover.places import COMMON, END, tokens_of
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest
from circuitdsl.verdict.means import pair
from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verdict.weighing import NULL_MEMBERS
from circuitdsl.verify.measure import measure

Array = np.ndarray
R = TypeVar("R", EdgeRequest, NodeRequest)
#: false finds that a search may have on average, were there nothing to find
LEVEL = 0.05
#: edges that do less than this share of the largest into the same group are not written down
WORTH = 0.2


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes of one kind that act together, at one position or several; the logits are one as well."""

    nodes: tuple[Node, ...]
    positions: tuple[Position, ...]

    @property
    def kind(self) -> NodeKind:
        return self.nodes[0].kind

    @property
    def sites(self) -> frozenset[Site]:
        return frozenset(Site(node, place) for node in self.nodes for place in self.positions)

    def __str__(self) -> str:
        return f"{' '.join(map(str, self.nodes))} at {', '.join(map(str, self.positions))}"


@dataclass(frozen=True, slots=True)
class Sending:
    """Senders and receivers: every sender acts on every receiver, through one input, at some positions.

    Attributes:
        positions: where the receivers read what the senders write.
        effect: of all these edges patched together, as a share of the gap, with its 95 % interval.
    """

    senders: Group
    receivers: Group
    port: Port
    positions: tuple[Position, ...]
    effect: float = 0.0
    low: float = 0.0
    high: float = 0.0

    @property
    def lowers(self) -> bool:
        return self.effect < 0

    @property
    def edges(self) -> tuple[Edge, ...]:
        return tuple(
            Edge(sender, Input(node, self.port), place)
            for sender in self.senders.nodes
            for node in self.receivers.nodes
            for place in self.positions
        )


def effects(prompts: Prompts, requests: Sequence[R], indices: Array) -> dict[R, Ratio]:
    """The effects of patches; not where few prompts have the positions, or nothing changes.

    Args:
        indices: which prompts; one may come several times.
    """
    every, rows = np.unique(indices, return_inverse=True)
    series, found = measure(prompts, requests, every), {}
    for request in requests:
        one = series[request].only(rows)
        one = one.only(one.present)
        if len(one.indices) >= len(indices) / 2 and one.changed.any():
            d, gap = one.values - prompts.clean[one.indices], (prompts.clean - prompts.corrupt)[one.indices]
            paired = pair(d, gap, prompts.strata[one.indices], METRICS[prompts.metric.name].range, "first")
            found[request] = Ratio(paired)
    return found


def found(ratios: Mapping[R, Ratio], threshold: float) -> frozenset[R]:
    """Those whose effect is beyond the threshold, tested over all of them."""

    def p(ratio: Ratio) -> float:
        return 2 * min(float(ratio.below(-threshold)), float(ratio.above(threshold)))

    return frozenset(request for request, ratio in ratios.items() if p(ratio) * len(ratios) <= LEVEL)


def siblings(
    prompts: Prompts, indices: Array, circuit: frozenset[Site], forbidden: frozenset[Site], threshold: float
) -> frozenset[Site]:
    """Heads that a circuit can do without, and that act on it: those that cover for others, or work against them.

    Each head at each place of the circuit is patched into all that the circuit reads there, and at END into the logits.
    It is one where its effect stands out: beyond the threshold, and larger than 95 % of those that are not.
    """
    model, places = prompts.model, {site.position for site in circuit if site.position != EVERYWHERE} | {END}
    heads = [Node("head", layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    sites = {Site(head, place) for head in heads for place in places} - circuit - forbidden
    read = {site: edges for site in sorted(sites) if (edges := _read_by(circuit, site, model.parallel))}
    requests = {EdgeRequest(edges): site for site, edges in read.items()}
    ratios = effects(prompts, list(requests), indices)
    beyond = found(ratios, threshold)
    weak = [abs(float(ratio.value)) for request, ratio in ratios.items() if request not in beyond]
    least = float(np.quantile(weak, 0.95)) if len(weak) >= NULL_MEMBERS else 0.0
    return frozenset(requests[request] for request in beyond if abs(float(ratios[request].value)) > least)


def _read_by(circuit: frozenset[Site], sender: Site, parallel: bool) -> tuple[Edge, ...]:
    """The edges from a head at a place into a circuit."""
    read = {Edge(sender.node, Input(LOGITS, "in"), END)} if sender.position == END else set[Edge]()
    for site in circuit:
        read |= {Edge(sender.node, to, sender.position) for to in inputs_of(site, sender, parallel)}
    return tuple(sorted(read))


def inputs_of(receiver: Site, sender: Site, parallel: bool = False) -> tuple[Input, ...]:
    """Through which a node at a place reads what another writes at one.

    A query and what an MLP reads are read where the receiver acts, keys and values where the sender does.
    """
    if sender.node.stage(parallel) >= receiver.node.stage(parallel):
        return ()
    here = receiver.position in (sender.position, EVERYWHERE)
    of_head: tuple[Port, ...] = ("q", "k", "v") if here else ("k", "v")
    ports: tuple[Port, ...] = of_head if receiver.node.kind == "head" else ("in",) if here else ()
    return tuple(Input(receiver.node, port) for port in ports)


def sendings(
    prompts: Prompts,
    indices: Array,
    groups: Sequence[Group],
    where: Iterable[Position],
    threshold: float,
    of: Collection[Group] | None = None,
) -> tuple[list[Sending], int]:
    """What groups send to each other and to the logits, the last receivers first; and how many edges were tried.

    Args:
        of: only what these of them send and receive is asked for.
    """
    ends = list(_ends(prompts, where))
    every = (one for one in _tried(prompts, groups, ends) if of is None or {one.senders, one.receivers} & set(of))
    tried = {EdgeRequest(tuple(sorted(one.edges))): one for one in every}
    ratios = effects(prompts, list(tried), indices)
    beyond = found(ratios, threshold)
    result = [_measured(one, ratios[request]) for request, one in tried.items() if request in beyond]
    return result, sum(len(request.edges) for request in tried)


def again(
    prompts: Prompts, indices: Array, known: Sequence[Sending], there: frozenset[Site], threshold: float
) -> frozenset[Edge]:
    """The edges of known sendings that are found again, where only some of their nodes are there."""
    tried = dict[EdgeRequest, None]()
    for one in known:
        edges = [e for e in one.edges if _is_there(e.sender, one.senders, there)]
        edges = [e for e in edges if _is_there(e.receiver.node, one.receivers, there)]
        if edges:
            tried[EdgeRequest(tuple(sorted(edges)))] = None
    beyond = found(effects(prompts, list(tried), indices), threshold)
    return frozenset(edge for request in beyond for edge in request.edges)


def _is_there(node: Node, group: Group, there: frozenset[Site]) -> bool:
    return node in (EMBED, LOGITS) or any(Site(node, place) in there for place in group.positions)


def _measured(one: Sending, ratio: Ratio) -> Sending:
    low, high = (float(v) for v in ratio.interval())
    return replace(one, effect=float(ratio.value), low=low, high=high)


def _tried(prompts: Prompts, groups: Sequence[Group], ends: Sequence[Position]) -> Iterator[Sending]:
    """Every sender into every input of every receiver, at every position where it can be read."""
    embeds = [Group((EMBED,), (place,)) for place in ends]
    by_layer = sorted(groups, key=lambda group: [-node.stage(prompts.model.parallel) for node in group.nodes])
    for receivers in (Group((LOGITS,), (END,)), *by_layer):
        ports: tuple[Port, ...] = ("q", "k", "v") if receivers.kind == "head" else ("in",)
        for senders in (*by_layer, *embeds):
            for port in ports:
                here = senders.positions if port in ("k", "v") else receivers.positions
                if at := tuple(place for place in senders.positions if place in here):
                    yield from _existing(prompts, Sending(senders, receivers, port, at))


def _existing(prompts: Prompts, whole: Sending) -> Iterator[Sending]:
    """The edges that exist: senders by the receivers that they come before."""
    parallel, parts = prompts.model.parallel, dict[tuple[Node, ...], list[Node]]()
    for sender in whole.senders.nodes:
        later = tuple(node for node in whole.receivers.nodes if sender.stage(parallel) < node.stage(parallel))
        if later:
            parts.setdefault(later, []).append(sender)
    for later, part in parts.items():
        senders, receivers = replace(whole.senders, nodes=tuple(part)), replace(whole.receivers, nodes=later)
        yield replace(whole, senders=senders, receivers=receivers)


def _ends(prompts: Prompts, where: Iterable[Position]) -> Iterator[Position]:
    """Positions at which clean and corrupt prompts differ, in more than a few of them; each token at one of these."""
    known = [frozenset[int]() for _ in prompts.pairs]
    for place in where:
        tokens = [tokens_of(pair, place) for pair in prompts.pairs]
        differ = [
            any(pair.clean_tokens[i] != pair.corrupt_tokens[i] for i in here)
            for pair, here in zip(prompts.pairs, tokens, strict=True)
        ]
        again = [bool(here & before) for here, before in zip(tokens, known, strict=True)]
        if np.mean(differ) > 1 - COMMON and np.mean(again) <= 1 - COMMON:
            known = [before | here for before, here in zip(known, tokens, strict=True)]
            yield place


def worth_saying(sent: Sequence[Sending]) -> list[Sending]:
    """The edges that a person would write down: not those that are small beside others into the same group.

    Of a group that sends nothing large, the largest stays.
    """
    into, out = dict[Group, float](), dict[Group, float]()
    for one in sent:
        into[one.receivers] = max(abs(one.effect), into.get(one.receivers, 0.0))
        out[one.senders] = max(abs(one.effect), out.get(one.senders, 0.0))
    return [one for one in sent if abs(one.effect) >= min(WORTH * into[one.receivers], out[one.senders])]
