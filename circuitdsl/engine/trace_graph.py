"""Traces of many prompts as one graph: which heads send what, at which token, on how many prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.circuit.traced import Fired, Link, Place, Side, TraceGraph
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.trace import FIRES, SIDES, Firing, tracers
from circuitdsl.errors import UserError
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import PromptPair

#: names that a task gives a second time to tokens of another name
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
    found = _Gathered()
    for numbers, tracer in tracers(model, [pair.clean_tokens for pair in pairs]):
        for place, number in enumerate(numbers):
            pair = pairs[number]
            start = tracer.start(place, head, indices_of(pair, source), indices_of(pair, target))
            if start is not None:
                found.add(list(tracer.traced(start)), token_names(pair))
    if not found.starts:
        raise UserError(
            f"{head} does not fire {source} -> {target} on any of {len(pairs)} prompts",
            f"it fires where it gives one token, not the first, {FIRES:.0%} of its attention",
        )
    return TraceGraph(
        head=head,
        source=str(source),
        target=str(target),
        prompts=len(pairs),
        firings=len(found.starts),
        d_head=model.d_head,
        fired={p: Fired(len(d), float(np.mean(d)), min(d), max(d)) for p, d in found.dimensions.items()},
        links=found.counted(),
        parts={side: found.mean_parts(side) for side in SIDES},
        order=tuple(sorted(found.tokens, key=lambda name: (name == OTHER, float(np.mean(found.tokens[name]))))),
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


class _Gathered:
    """What the traces of many prompts have in common."""

    def __init__(self) -> None:
        self.starts: list[Firing] = []
        self.dimensions: dict[Place, list[int]] = {}
        self.weights: dict[tuple[Place, Place, Side], list[float]] = {}
        self.tokens: dict[str, list[int]] = {}

    def add(self, firings: Sequence[Firing], names: Mapping[int, str]) -> None:
        """One prompt's trace; a link between tokens of the same names counts once."""
        self.starts.append(firings[0])
        here: dict[tuple[Place, Place, Side], float] = {}
        for firing in firings:
            receiver = self._place(firing.head, firing.destination, names)
            self.dimensions.setdefault(receiver, []).append(len(firing.signal))
            for side in SIDES:
                for sender, value in firing.senders[side]:
                    link = (self._place(sender, firing.token(side), names), receiver, side)
                    here[link] = here.get(link, 0.0) + value
        for link, value in here.items():
            self.weights.setdefault(link, []).append(value)

    def _place(self, head: Node, token: int, names: Mapping[int, str]) -> Place:
        name = names.get(token, OTHER)
        self.tokens.setdefault(name, []).append(token)
        return Place(head, name)

    def counted(self) -> tuple[Link, ...]:
        links = (Link(*key, len(values), float(np.mean(values))) for key, values in self.weights.items())
        return tuple(sorted(links, key=lambda link: (-link.count, -link.weight)))

    def mean_parts(self, side: Side) -> dict[str, float]:
        """What heads, embedding and MLPs add to the first head's signal, on average."""
        parts: dict[str, list[float]] = {"heads": [], "embed": [], "MLPs": []}
        for start in self.starts:
            others = dict(start.others[side])
            parts["heads"].append(start.heads[side])
            parts["embed"].append(sum(v for node, v in others.items() if node.kind == "embed"))
            parts["MLPs"].append(sum(v for node, v in others.items() if node.kind == "mlp"))
        return {name: float(np.mean(values)) for name, values in parts.items()}
