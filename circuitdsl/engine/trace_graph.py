"""Traces of many prompts as one graph: which heads send what, at which token, on how many prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.circuit.traced import Fired, Link, Place, Side, TraceGraph
from circuitdsl.engine.trace import FIRES, SIDES, Firing, fired
from circuitdsl.errors import UserError
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import PromptPair

#: general names, which a task gives to tokens that have a name of their own as well
GENERAL = ("ANSWER", "DISTRACTOR")
#: a token without a name
OTHER = "other"


def trace_graph(
    model: Transformer, pairs: Sequence[PromptPair], head: Node, source: Position, target: Position
) -> TraceGraph:
    """Trace a head's firings from one position to another, back to the first layer.

    Raises:
        NotTraced: the model turns queries and keys with the position.
        UserError: the head never fires so.
    """
    starts: list[Firing] = []
    dimensions: dict[Place, list[int]] = {}
    weights: dict[tuple[Place, Place, Side], list[float]] = {}
    tokens: dict[str, list[int]] = {}

    def place(head: Node, token: int) -> Place:
        name = names.get(token, OTHER)
        tokens.setdefault(name, []).append(token)
        return Place(head, name)

    for tracer, firings in fired(model, pairs, head, [source], [target]):
        for number, start in firings.items():
            starts.append(start)
            names = token_names(pairs[number])
            here: dict[tuple[Place, Place, Side], float] = {}  # a link between tokens of the same names counts once
            for firing in tracer.traced(start):
                receiver = place(firing.head, firing.destination)
                dimensions.setdefault(receiver, []).append(len(firing.signal))
                for side in SIDES:
                    for sender, value in firing.senders[side]:
                        link = place(sender, firing.token(side)), receiver, side
                        here[link] = here.get(link, 0.0) + value
            for link, value in here.items():
                weights.setdefault(link, []).append(value)
    if not starts:
        raise UserError(
            f"{head} does not fire {source} -> {target} on any of {len(pairs)} prompts",
            f"it fires where it gives one token, not the first, {FIRES:.0%} of its attention",
        )
    links = [Link(*key, len(values), float(np.mean(values))) for key, values in weights.items()]
    return TraceGraph(
        head=head,
        source=str(source),
        target=str(target),
        prompts=len(pairs),
        firings=len(starts),
        d_head=model.d_head,
        fired={p: Fired(len(d), float(np.mean(d)), min(d), max(d)) for p, d in dimensions.items()},
        links=tuple(sorted(links, key=lambda link: (-link.count, -link.weight))),
        parts={
            side: {
                name: float(np.mean([start.parts[side][name] for start in starts])) for name in starts[0].parts[side]
            }
            for side in SIDES
        },
        order=tuple(sorted(tokens, key=lambda name: (name == OTHER, float(np.mean(tokens[name]))))),
    )


def token_names(pair: PromptPair) -> dict[int, str]:
    """What the tokens of a prompt are called: their own names before general ones, the token after a named one `S1+1`.

    >>> token_names(PromptPair((1, 2, 3), (1, 2, 3), (4,), (5,), {"S1": (0,), "ANSWER": (0,), "END": (2,)}, ""))
    {0: 'S1', 2: 'END', 1: 'S1+1'}
    """
    found: dict[int, str] = {}
    for name in sorted(pair.positions, key=lambda name: name in GENERAL):
        for index in pair.positions[name]:
            found.setdefault(index, name)
    for index, name in list(found.items()):
        if index + 1 < len(pair.clean_tokens):
            found.setdefault(index + 1, f"{name}+1")
    return found
