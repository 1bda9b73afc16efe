"""The search: which nodes send to what was found so far, beginning with the logits (Wang et al. 2022, section 3).

A stage has receivers: first the logits, then every group of nodes that an earlier stage found. Each candidate sender
is patched into all of them together, through one input and at one position, exactly and directly. It is kept when
its effect lies beyond the threshold, tested over all candidates of the stage, and when it stands out from those
candidates of its kind that do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from circuitdsl.circuit.nodes import EMBED, LOGITS, Edge, Input, Node, NodeKind, Port, Position
from circuitdsl.circuit.vocabulary import GENERAL_POSITIONS, METRICS
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.requests import EdgeRequest
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.verdict.means import pair
from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verdict.weighing import NULL_MEMBERS
from circuitdsl.verify.measure import measure

END = Position("END")
#: false finds that a stage may have on average, were there nothing to find
LEVEL = 0.05
#: members of a group at most; the strongest are kept
MOST = 16
#: a position is searched where this share of the prompts has it
COMMON = 0.9


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes of one kind that act together at one position; the logits are one as well."""

    nodes: tuple[Node, ...]
    position: Position

    @property
    def kind(self) -> NodeKind:
        return self.nodes[0].kind

    def __str__(self) -> str:
        return f"{' '.join(map(str, self.nodes))} at {self.position}"


@dataclass(frozen=True, slots=True)
class Link:
    """A sender that was kept, and what patching it into its receivers does.

    Attributes:
        port, position: the input that it is read through, and where.
        effect: as a share of the gap, with its 95 % interval.
    """

    sender: Node
    port: Port
    position: Position
    effect: float
    low: float
    high: float

    @property
    def lowers(self) -> bool:
        return self.effect < 0


@dataclass(frozen=True, slots=True)
class Sending:
    """Senders and receivers: every sender acts on every receiver, through one input, at one position, with one sign.

    Attributes:
        links: the senders, each patched alone into all receivers; the strongest first.
        joint: all of them patched together; `sender` is one of them.
    """

    group: Group
    receivers: Group
    links: tuple[Link, ...]
    joint: Link


@dataclass(frozen=True, slots=True)
class Search:
    """How to search.

    Attributes:
        threshold: effects this small, as a share of the gap, are of no interest.
        prompts: how many of the prompts are used.
        depth: stages at most, the logits being the first.
    """

    threshold: float = 0.02
    prompts: int = 96
    depth: int = 6


@dataclass
class Found:
    """Everything that a search found, in the order in which it did; `complete` unless it was stopped.

    `edges` is how many were measured.
    """

    sendings: list[Sending] = field(default_factory=list)
    edges: int = 0
    complete: bool = True


#: called with (edges measured so far, what is searched); returns whether to go on
Progress = Callable[[int, str], bool]


def search(prompts: Prompts, settings: Search, progress: Progress | None = None) -> Found:
    """Search backwards from the logits."""
    found, where = Found(), places(prompts)
    queue = [(Group((LOGITS,), END), 1)]
    acting: set[tuple[Node, Position]] = set()
    while queue:
        receivers, depth = queue.pop(0)
        if progress and not progress(found.edges, f"what sends to {receivers}"):
            found.complete = False
            break
        candidates = list(_candidates(prompts, receivers, where))
        found.edges += sum(len(request.edges) for request in candidates)
        for links in _buckets(_kept(prompts, candidates, settings)):
            found.sendings += _sendings(prompts, receivers, links, settings)
            senders, position = sorted(link.sender for link in links), links[0].position
            new = tuple(node for node in senders if (node, position) not in acting and node != EMBED)
            acting |= {(node, position) for node in new}
            if new and depth < settings.depth:
                queue.append((Group(new, position), depth + 1))
    return found


# --- candidates -------------------------------------------------------------------------------------


def places(prompts: Prompts) -> tuple[Position, ...]:
    """Positions to search: those of the task and the token after each, every token under one name.

    Positions that few prompts have are left out, and so are those whose tokens have names already.
    """
    named = dict.fromkeys(name for pair in prompts.pairs for name in pair.positions)
    ordered = sorted(named, key=lambda name: (name in GENERAL_POSITIONS, list(named).index(name)))
    wanted = [END, *(Position(name) for name in ordered), *(Position(name, 1) for name in ordered)]
    found: list[Position] = []
    covered = [frozenset[int]() for _ in prompts.pairs]
    for place in wanted:
        tokens = [_tokens(pair, place) for pair in prompts.pairs]
        has = [bool(here) for here in tokens]
        new = [not here & known for here, known in zip(tokens, covered, strict=True) if here]
        if np.mean(has) >= COMMON and np.mean(new) >= COMMON:
            found.append(place)
            covered = [known | here for known, here in zip(covered, tokens, strict=True)]
    return tuple(found)


def _tokens(pair: PromptPair, place: Position) -> frozenset[int]:
    """The tokens that a position stands for; the token after it only where it stands for one."""
    index = indices_of(pair, place)
    return frozenset() if place.offset and len(index) > 1 else frozenset(index)


def _candidates(prompts: Prompts, receivers: Group, where: Sequence[Position]) -> Iterator[EdgeRequest]:
    """Every sender into every input of the receivers, at every position where it can be read."""
    ports: tuple[Port, ...] = ("q", "k", "v") if receivers.kind == "head" else ("in",)
    for port in ports:
        for position in where if port in ("k", "v") else (receivers.position,):
            for sender in _nodes(prompts):
                if later := _later(prompts, sender, receivers):
                    yield EdgeRequest(tuple(Edge(sender, Input(node, port), position) for node in later))


def _later(prompts: Prompts, sender: Node, receivers: Group) -> tuple[Node, ...]:
    """The receivers that a sender comes before."""
    stage = sender.stage(prompts.model.parallel)
    return tuple(node for node in receivers.nodes if stage < node.stage(prompts.model.parallel))


def _nodes(prompts: Prompts) -> Iterator[Node]:
    yield EMBED
    for layer in range(prompts.model.n_layers):
        yield from (Node("head", layer, head) for head in range(prompts.model.n_heads))
        yield Node("mlp", layer)


# --- what is kept -----------------------------------------------------------------------------------


def _kept(prompts: Prompts, candidates: Sequence[EdgeRequest], settings: Search) -> list[Link]:
    """The candidates whose effect is beyond the threshold and stands out among those of their kind and input.

    It stands out where it is larger than 95 % of the weak ones, if there are enough to say.
    """
    beyond: list[tuple[Edge, Ratio]] = []
    weak: dict[tuple[NodeKind, Port], list[float]] = {}
    for edge, ratio in _ratios(prompts, candidates, settings):
        p = 2 * min(float(ratio.below(-settings.threshold)), float(ratio.above(settings.threshold)))
        if p * len(candidates) <= LEVEL:
            beyond.append((edge, ratio))
        else:
            weak.setdefault((edge.sender.kind, edge.receiver.port), []).append(abs(float(ratio.value)))

    def stands_out(edge: Edge, ratio: Ratio) -> bool:
        others = weak.get((edge.sender.kind, edge.receiver.port), [])
        return len(others) < NULL_MEMBERS or abs(float(ratio.value)) > float(np.quantile(others, 0.95))

    return [_link(*one) for one in beyond if stands_out(*one)]


def _ratios(prompts: Prompts, candidates: Sequence[EdgeRequest], settings: Search) -> Iterator[tuple[Edge, Ratio]]:
    """The first edge of candidates with their effect; not where few prompts have its position, or nothing changes."""
    indices = np.arange(min(settings.prompts, len(prompts.pairs)))
    series = measure(prompts, candidates, indices)
    for request in candidates:
        one = series[request].only(series[request].present)
        if len(one.indices) >= len(indices) / 2 and one.changed.any():
            d, gap = one.values - prompts.clean[one.indices], (prompts.clean - prompts.corrupt)[one.indices]
            paired = pair(d, gap, prompts.strata[one.indices], METRICS[prompts.metric.name].range, "first")
            yield request.edges[0], Ratio(paired)


def _link(edge: Edge, ratio: Ratio) -> Link:
    low, high = (float(v) for v in ratio.interval())
    return Link(edge.sender, edge.receiver.port, edge.position, float(ratio.value), low, high)


def _buckets(links: Iterable[Link]) -> list[tuple[Link, ...]]:
    """Links by kind of sender, input, position and sign: the strongest bucket first, and the strongest link of each."""
    found: dict[tuple[str, Port, Position, bool], list[Link]] = {}
    for link in sorted(links, key=lambda link: -abs(link.effect)):
        found.setdefault((link.sender.kind, link.port, link.position, link.lowers), []).append(link)
    return [tuple(bucket[:MOST]) for bucket in found.values()]


def _sendings(prompts: Prompts, receivers: Group, links: Sequence[Link], settings: Search) -> Iterator[Sending]:
    """A bucket as edges that all exist: its links by the receivers that they come before."""
    parts: dict[tuple[Node, ...], list[Link]] = {}
    for link in links:
        parts.setdefault(_later(prompts, link.sender, receivers), []).append(link)
    for later, part in parts.items():
        senders = Group(tuple(sorted(link.sender for link in part)), part[0].position)
        edges = (Edge(link.sender, Input(node, link.port), link.position) for link in part for node in later)
        ((edge, ratio),) = _ratios(prompts, [EdgeRequest(tuple(sorted(edges)))], settings)
        yield Sending(senders, Group(later, receivers.position), tuple(part), _link(edge, ratio))
