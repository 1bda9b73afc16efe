"""`channel 8.10 -> 9.9.q : composition z >= 2.5`: heads, or singular components of theirs, write what others read.

With `each` every pair must pass; without it the claim is about the mean over the pairs, which has no rank. Weights
alone decide: there is nothing to sample, so that a channel holds or fails (Merullo et al. 2406.09519).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from circuitdsl.circuit.bounds import within
from circuitdsl.circuit.criteria import ChannelTest, Composed, ComposedAboveChance
from circuitdsl.circuit.edges import ends_of, pairs_of
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import Input, Node
from circuitdsl.circuit.scope import Scope, complete
from circuitdsl.circuit.vocabulary import MOST_APART
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import listing, suggest
from circuitdsl.measurements.kind import Kind

FIGURES = ("rank", "z")


@dataclass(frozen=True, slots=True)
class Composition(Kind):
    """How strongly heads write into what others read.

    The figure of several pairs together is the mean over them. `distance`: how many tokens the one that attends is
    behind the one attended to, where positions turn queries and keys.
    """

    pairs: tuple[tuple[Node, Input], ...]
    distance: int | None = None

    statement = s.Channel
    claim_kind = "channel"
    examples = ("channel 0.6 -> 1.6.q : composition >= 0", "channel 0.6 -> 1.6.k at distance 3 : composition >= 0")
    false_examples = ("channel 0.6 -> 1.6.q : composition >= 0.99",)
    decided_by = "weights"
    needs_task = False
    judge = "circuitdsl.engine.readers.composition:judge"
    elsewhere: ClassVar = {"composition": "it is claimed of a channel: channel 8.10 -> 9.9.q : composition z >= 2.5"}

    @classmethod
    def resolve(cls, scope: Scope, channel: s.Channel) -> Expected | None:  # type: ignore[override]
        pairs = _pairs(scope, channel)
        tests: tuple[ChannelTest, ...] | None = complete(_test(scope, part) for part in channel.claim)
        distance = None if channel.apart is None else _distance(scope, channel.apart, pairs)
        if pairs is None or tests is None or (channel.apart is not None and distance is None):
            return None
        ranked = [part for part in channel.claim if part.kind is not None and part.kind.text == "rank"]
        if ranked and len(pairs) > 1 and not channel.each:
            message = f"a rank belongs to one pair, and there are {len(pairs)} here"
            help = f"write: channel each {channel.text.split(maxsplit=1)[1]}"
            scope.sink.error("E112", message, ranked[0].span, help)
            return None
        return cls(pairs, distance), tests


def _pairs(scope: Scope, channel: s.Channel) -> tuple[tuple[Node, Input], ...] | None:
    edge = s.Edge(channel.sender.span.to(channel.receiver.span), channel.sender, channel.receiver)
    ends = ends_of(scope, edge, "heads")
    if ends is None:
        return None
    right = _only_heads(scope, ends.senders, channel.sender) and _only_heads(scope, ends.receivers, channel.receiver)
    if right and ends.port is None:
        help = f"write {ends.receiver_name}.q, .k or .v"
        message = f"{ends.receiver_name} reads through three inputs, and a channel ends in one"
        scope.sink.error("E071", message, channel.receiver.span, help)
        right = False
    pairs = pairs_of(scope, ends) if right else []
    if not pairs or ends.port is None:
        return None
    return tuple((a, Input(b, ends.port)) for a, b in pairs)


def _distance(scope: Scope, apart: s.Apart, pairs: tuple[tuple[Node, Input], ...] | None) -> int | None:
    if apart.what.text != "distance":
        message = f"a channel is at a distance, not at '{apart.what.text}'"
        scope.sink.error("E115", message, apart.what.span, "write: at distance 3", meant="distance")
        return None
    steps = apart.steps
    if steps.unit or not steps.value.is_integer() or not 0 <= steps.value <= MOST_APART:
        message = f"a distance is a whole number of tokens from 0, not {steps.text}"
        scope.sink.error("E115", message, steps.span, "it says how far the attending token is behind the other")
        return None
    if pairs and pairs[0][1].port == "v":
        message = "a value is the same at every distance"
        scope.sink.error("E115", message, apart.span, "leave the distance out, or let the channel end in .q or .k")
        return None
    return int(steps.value)


def _only_heads(scope: Scope, nodes: Iterable[Node], where: s.Set) -> bool:
    others = [str(node) for node in nodes if node.kind != "head" or node.along]
    if others:
        message = f"a channel joins heads only, not {listing(others)}"
        scope.sink.error("E110", message, where.span)
    return not others


def _test(scope: Scope, part: s.Composition) -> ChannelTest | None:
    if part.quantity.text != "composition":
        meant = suggest(part.quantity.text, ("composition",)) or f"composition {part.quantity.text}"
        message = f"a channel has a composition, and no '{part.quantity.text}'"
        scope.sink.error("E111", message, part.quantity.span, meant=meant)
        return None
    if part.kind is not None and part.kind.text not in FIGURES:
        scope.sink.unknown("E111", "figure", part.kind.text, part.kind.span, FIGURES, " of a composition")
        return None
    figure = part.kind.text if part.kind else "composition"
    if isinstance(part.relation, s.AboveChance):
        if part.kind is None:
            return ComposedAboveChance()
        message = f"'above chance' is said of the composition itself, not of its {figure}"
        scope.sink.error("E083", message, part.relation.span, "write: composition above chance")
        return None
    low, high = {"rank": (1, None), "z": (None, None)}.get(figure, (0, 1))
    bounds = within(scope, part.relation, "plain", "value", figure, low, high)
    if bounds is None:
        return None
    found = [bound for bound in (bounds.low, bounds.high) if bound is not None and bound != int(bound)]
    if figure == "rank" and found:
        scope.sink.error("E081", f"a rank is a whole number, not {found[0]:g}", part.relation.span)
        return None
    words = "composition " + (f"{figure} " if part.kind else "") + bounds.text
    return Composed(figure, bounds.low, bounds.high, bounds.strict, words)  # type: ignore[arg-type]
