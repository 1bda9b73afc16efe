"""What is not patched in one run, since some of what is written would count twice: every rule, with its sentence.

A rule looks at the edges that are patched, at the nodes that are knocked out, and at those whose terms are read
meanwhile. What is knocked out may stand beside parts of a later stream: their encoder reads what stands there then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from circuitdsl.circuit.crossing import of_one_set, writings
from circuitdsl.circuit.nodes import Edge, Node

#: what helps against each of them
REMEDY = "patch them in claims of their own"


@dataclass(frozen=True)
class Together:
    """What is patched in one run.

    Attributes:
        edges: whose senders' terms are exchanged.
        sites: all nodes that are knocked out.
        read: nodes whose terms are read in that run.
        via_mlps: the senders' changes go through MLPs as well.
    """

    edges: frozenset[Edge]
    sites: frozenset[Node]
    read: frozenset[Node]
    via_mlps: bool

    @cached_property
    def senders(self) -> frozenset[Node]:
        return frozenset(part for edge in self.edges for part in writings(edge.sender))

    @cached_property
    def readers(self) -> list[Node]:
        """The neurons and features that something is sent to, in order."""
        return sorted({edge.receiver.node for edge in self.edges if edge.receiver.node.is_part})

    @cached_property
    def every(self) -> list[Node]:
        """All that is sent or knocked out, in order."""
        return sorted(self.senders | self.sites)


def divided_twice(nodes: Collection[Node]) -> tuple[Node, Node] | None:
    """Two parts of one node that is divided in two ways: into neurons and features, say, or by two dictionaries.

    What the heads of a layer write together is divided into them, and into features of it.
    """
    first: dict[Node, Node] = {}
    for part in sorted(node for node in nodes if node.is_part):
        one = first.setdefault(part.whole, part)
        if one.overlaps(part) and not of_one_set(one, part):
            return one, part
        if heads := [node for node in nodes if part.kind == "attn" and node[:2] == ("head", part.layer)]:
            return min(heads), part
    return None


def _divided(run: Together) -> Iterator[str]:
    if twice := divided_twice({*run.every, *run.readers}):
        yield _not_both(*twice, f"parts of {twice[1].whole}, which is divided in two ways")


def _head_along(run: Together) -> Iterator[str]:
    """The part of a head along a direction is replaced in what its layer writes, not in the head's own value."""
    for part in run.every:
        if part.along and part.kind == "head" and part in run.sites:
            for sent in {part, part.whole} & run.senders:
                yield _not_both(part, sent, f"what {part.whole} writes would be sent as it was before")


def _in_its_stream(run: Together) -> Iterator[str]:
    """A node that is sent, and a part of a stream in which it is."""
    for stream, part in {part.whole: part for part in run.every if part.is_part}.items():
        yield from _held(stream, part, run.senders)


def _past_its_stream(run: Together) -> Iterator[str]:
    """A node that is sent past a feature of a stream in which it is, where something is sent to that feature."""
    for stream, part in {part.whole: part for part in run.readers}.items():
        yield from _held(stream, part, {e.sender for e in run.edges if e.receiver.node.stage() > part.stage()})


def _read_while_replaced(run: Together) -> Iterator[str]:
    """What a node writes is not known where parts of it, or of what it is in, are replaced along a direction."""
    for part in sorted(run.sites):
        for node in sorted(run.read) if part.along else ():
            if part.whole.holds(node) or (part.kind == "head" and part.whole == node.whole):
                yield f"what {node} writes is not read while {part} is replaced"


def _past_features(run: Together) -> Iterator[str]:
    """What goes through MLPs past features of a stream would have to encode it anew."""
    if not run.via_mlps:
        return
    streams = [node for node in run.sites if node.kind == "resid" and not node.is_part]
    last = max((edge.receiver.node.stage() for edge in run.edges), default=0)
    past = run.sites | {node for node in run.readers if node.stage() < last}
    past |= {node for node in run.senders if any(map(node.whole.holds, streams))}
    for node in sorted(past):
        if node.of and node.kind in ("resid", "mid"):
            yield f"edges via MLPs past {node}, a feature of the residual stream that is patched too, are not measured"


def _crossing(run: Together) -> Iterator[str]:
    """A feature of a cross-layer transcoder, and an MLP that it writes into; and a way that is not open to it."""
    crossing = sorted({part for node in (*run.every, *run.read) if node.crosses for part in writings(node)})
    for part in crossing:
        if part.whole in run.every:
            yield _not_both(part.whole, part, "the feature is a part of what that MLP writes")
    if crossing and run.via_mlps:
        yield f"edges via MLPs are not measured with {crossing[0]}, which itself writes into several MLPs"


RULES: tuple[Callable[[Together], Iterator[str]], ...] = (
    _divided,
    _head_along,
    _in_its_stream,
    _past_its_stream,
    _read_while_replaced,
    _past_features,
    _crossing,
)


def clash(
    edges: Collection[Edge], sites: Collection[Node] = (), read: Collection[Node] = (), via_mlps: bool = False
) -> str:
    """Why some patches are not made in one run; empty where they can be (see `Together`)."""
    parts = frozenset(part for node in sites for part in writings(node))
    run = Together(frozenset(edges), parts, frozenset(read), via_mlps)
    return next((said for rule in RULES for said in rule(run)), "")


def _held(stream: Node, part: Node, senders: Collection[Node]) -> Iterator[str]:
    if held := [node for node in senders if stream.holds(node) and node.whole != stream]:
        yield _not_both(min(held), part, f"what the first writes is in {stream}")


def _not_both(one: Node, other: Node, why: str) -> str:
    return f"{one} and {other} cannot be patched together: {why}"
