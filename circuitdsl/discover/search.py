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
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.discover.places import END, places
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.requests import EdgeRequest
from circuitdsl.verdict.means import pair
from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verdict.weighing import NULL_MEMBERS
from circuitdsl.verify.measure import measure

#: false finds that a stage may have on average, were there nothing to find
LEVEL = 0.05
#: members of a group at most; the strongest are kept
MOST = 16
#: stages at most, the logits being the first
DEPTH = 6


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
    """Nodes that send to others through one input, at one position, with one sign, every one of them to every other.

    Attributes:
        links: the senders, each patched alone into all receivers; the strongest first.
        joint: all of them patched together; `sender` is the first of them.
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
    """

    threshold: float = 0.02
    prompts: int = 96
    depth: int = DEPTH


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
        found.edges += sum(len(request.edges) for *_, request in candidates)
        for links in _buckets(_kept(prompts, receivers, candidates, settings)):
            found.sendings += _sendings(prompts, receivers, links, settings)
            senders, position = sorted(link.sender for link in links), links[0].position
            new = tuple(node for node in senders if (node, position) not in acting and node != EMBED)
            acting |= {(node, position) for node in new}
            if new and depth < settings.depth:
                queue.append((Group(new, position), depth + 1))
    return found


# --- candidates -------------------------------------------------------------------------------------

Candidate = tuple[Node, Port, Position, EdgeRequest]


def _candidates(prompts: Prompts, receivers: Group, where: Sequence[Position]) -> Iterator[Candidate]:
    """Every sender into every input of the receivers, at every position where it can be read."""
    ports: tuple[Port, ...] = ("q", "k", "v") if receivers.kind == "head" else ("in",)
    for port in ports:
        for position in where if port in ("k", "v") else (receivers.position,):
            for sender in _nodes(prompts):
                later = _later(prompts, sender, receivers)
                edges = tuple(Edge(sender, Input(node, port), position) for node in later)
                if edges:
                    yield sender, port, position, EdgeRequest(edges)


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


def _kept(prompts: Prompts, receivers: Group, candidates: Sequence[Candidate], settings: Search) -> list[Link]:
    """The candidates whose effect is beyond the threshold and stands out among those of their kind."""
    beyond: list[tuple[Candidate, Ratio]] = []
    weak: dict[tuple[NodeKind, Port], list[float]] = {}
    for candidate, ratio in zip(candidates, _ratios(prompts, candidates, settings), strict=True):
        if ratio is None:
            continue
        p = 2 * min(float(ratio.below(-settings.threshold)), float(ratio.above(settings.threshold)))
        if p * len(candidates) <= LEVEL:
            beyond.append((candidate, ratio))
        else:
            weak.setdefault(_kind(candidate), []).append(abs(float(ratio.value)))
    return [_link(*one) for one in beyond if _stands_out(float(one[1].value), weak.get(_kind(one[0]), []))]


def _ratios(prompts: Prompts, candidates: Sequence[Candidate], settings: Search) -> Iterator[Ratio | None]:
    """The effect of every candidate; none where too few prompts have its position, or nothing is changed there."""
    indices = np.arange(min(settings.prompts, len(prompts.pairs)))
    series = measure(prompts, [request for *_, request in candidates], indices)
    for *_, request in candidates:
        one = series[request].only(series[request].present)
        if len(one.indices) < len(indices) / 2 or not one.changed.any():
            yield None
            continue
        d, gap = one.values - prompts.clean[one.indices], (prompts.clean - prompts.corrupt)[one.indices]
        yield Ratio(pair(d, gap, prompts.strata[one.indices], METRICS[prompts.metric.name].range, "first"))


def _link(candidate: Candidate, ratio: Ratio) -> Link:
    sender, port, position, _ = candidate
    low, high = (float(v) for v in ratio.interval())
    return Link(sender, port, position, float(ratio.value), low, high)


def _sendings(prompts: Prompts, receivers: Group, links: Sequence[Link], settings: Search) -> Iterator[Sending]:
    """A bucket as edges that all exist: its links by the receivers that they come before."""
    parts: dict[tuple[Node, ...], list[Link]] = {}
    for link in links:
        parts.setdefault(_later(prompts, link.sender, receivers), []).append(link)
    for later, part in parts.items():
        senders = Group(tuple(sorted(link.sender for link in part)), part[0].position)
        yield Sending(senders, Group(later, receivers.position), tuple(part), _joint(prompts, later, part, settings))


def _joint(prompts: Prompts, receivers: Sequence[Node], links: Sequence[Link], settings: Search) -> Link:
    """All links patched together."""
    first = links[0]
    edges = (Edge(link.sender, Input(node, link.port), link.position) for link in links for node in receivers)
    candidate = (first.sender, first.port, first.position, EdgeRequest(tuple(sorted(edges))))
    (ratio,) = _ratios(prompts, [candidate], settings)
    assert ratio is not None, "its members could be measured"
    return _link(candidate, ratio)


def _kind(candidate: Candidate) -> tuple[NodeKind, Port]:
    """What candidates are compared with each other by."""
    sender, port, *_ = candidate
    return sender.kind, port


def _stands_out(effect: float, weak: Sequence[float]) -> bool:
    """Whether an effect is larger than 95 % of the weak ones of its kind, where there are enough to say."""
    return len(weak) < NULL_MEMBERS or abs(effect) > float(np.quantile(weak, 0.95))


def _buckets(links: Iterable[Link]) -> list[tuple[Link, ...]]:
    """Links by kind of sender, input, position and sign: the strongest bucket first, and the strongest link of each."""
    found: dict[tuple[str, Port, Position, bool], list[Link]] = {}
    for link in sorted(links, key=lambda link: -abs(link.effect)):
        found.setdefault((link.sender.kind, link.port, link.position, link.lowers), []).append(link)
    return [tuple(bucket[:MOST]) for bucket in found.values()]
