"""Sparse attention decomposition: which upstream heads made a head attend where it does.

Franco & Crovella 2024 (arXiv:2410.00340). The score of a head from token i to token j is `x_i Ω x_j`, where
residuals are normed and have a 1 appended, and `Ω = [[W_Q W_K^T, W_Q b_K], [b_Q W_K^T, b_Q b_K]]`; the norm's gain and
bias are folded in, and under LayerNorm, which leaves no mean to be read, W_Q and W_K are centred. In terms of its
singular vectors it is `Σ_k σ_k (x_i u_k)(v_k x_j)`. The *signal* of a firing is the smallest set of terms, the
largest first, whose sum reaches the whole score. What an upstream node adds to it is its output along `Σ_k s_k √σ_k
u_k` (at i) or along `Σ_k s_k √σ_k v_k` (at j), over the signal, `s_k` the sign of `x_i u_k`, divided by the norm's
scale. The senders of a side are the fewest heads that make up 70 % of all that heads add; each is traced in its turn
where it fires itself.

Where positions turn queries and keys (rotary), Ω is that of the firing's own distance i - j: `R(i)^T R(j)` stands
between W_Q and W_K^T. Where queries and keys go through norms, the norms' gains are folded in as well; their scales, at
i and at j, multiply every σ_k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, Node, Position
from circuitdsl.circuit.traced import Fired, Link, Place, Side, TraceGraph
from circuitdsl.engine import runs as engine
from circuitdsl.engine.memory import run_at_once
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.terms import Cache
from circuitdsl.engine.workers import measuring
from circuitdsl.errors import UserError
from circuitdsl.models.errors import NotTraced
from circuitdsl.models.parts import Transformer
from circuitdsl.models.weights import AttentionWeights, weights_of
from circuitdsl.tasks.dataset import PromptPair

#: a head fires where it gives one token at least this share of its attention
FIRES = 0.5
#: the senders are the fewest heads that make up this share of what all upstream heads add
COVERED = 0.7
#: general names, which a task gives to tokens that have a name of their own as well
GENERAL = ("ANSWER", "DISTRACTOR")
#: a token without a name
OTHER = "other"

SIDES: tuple[Side, ...] = ("destination", "source")
Added = tuple[tuple[Node, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Omega:
    """The singular value decomposition of a head's Ω; the last coordinate is that of the appended 1."""

    values: Float[Tensor, " k"]
    destination: Float[Tensor, "k d_plus_1"]
    source: Float[Tensor, "k d_plus_1"]


def omegas(weights: AttentionWeights) -> Callable[[Node, int], Omega]:
    """Gives Ω of a head at a distance, with its biases and the softmax's scale; what is known is kept.

    It is of rank d_head, and never made as a matrix.
    """

    @cache
    def factored(head: Node) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], float]:
        factors, norm, h = weights.factors(head.layer), weights.layers[head.layer][0], head.head
        q = torch.cat((norm.centred(factors.W_Q[h], 0), factors.b_Q[h][None]))
        k = torch.cat((norm.centred(factors.W_K[h], 0), factors.b_K[h][None]))
        return torch.linalg.qr(q), torch.linalg.qr(k), factors.scale

    @cache
    def omega(head: Node, distance: int) -> Omega:
        (left, left_r), (right, right_r), scale = factored(head)
        left_r, right_r = weights.turned(head.layer, distance, left_r, right_r)
        u, values, vh = torch.linalg.svd(scale * left_r @ right_r.T)
        return Omega(values.float(), (left @ u).T.float(), (vh @ right.T).float())

    return lambda head, distance: omega(head, distance if weights.rotary else 0)


def signal(terms: Float[Tensor, " k"]) -> Int[Tensor, " s"]:
    """The fewest terms, the largest first, whose sum reaches the sum of all.

    >>> signal(torch.tensor([0.5, -1.0, 3.0, 0.1])).tolist()
    [2]
    """
    order = terms.argsort(descending=True, stable=True)
    reached = terms[order].double().cumsum(0) >= terms.double().sum() - 1e-6 * terms.abs().sum()
    return order[: int(reached.int().argmax()) + 1]


def covering(added: Sequence[tuple[Node, float]]) -> Added:
    """The fewest nodes, the largest first, that make up 70 % of what all add; none where that is nothing."""
    total = sum(value for _, value in added)
    if total <= 0:
        return ()
    ordered = sorted(added, key=lambda item: -item[1])
    reached = np.cumsum([value for _, value in ordered]) >= COVERED * total
    return tuple(ordered[: int(reached.argmax()) + 1])


@dataclass(frozen=True, slots=True)
class Firing:
    """A head that attends from one token to another, and the heads that caused it.

    Attributes:
        prompt: the row of the prompt in its tracer.
        signal: which singular vectors of Ω make the score, the largest term first.
        senders: for each side, the heads that make up 70 % of what heads add, and how much each adds.
        parts: for each side, what all heads, the embedding and all MLPs add to the signal.
    """

    prompt: int
    head: Node
    destination: int
    source: int
    attention: float
    score: float
    signal: tuple[int, ...]
    senders: dict[Side, Added]
    parts: dict[Side, dict[str, float]]

    @property
    def distance(self) -> int:
        """How many tokens the one that attends is behind the other."""
        return self.destination - self.source

    def token(self, side: Side) -> int:
        """The token of one side of the arrow."""
        return self.destination if side == "destination" else self.source


@dataclass(eq=False)
class Tracer:
    """Prompts of one length with everything that traces read; results are kept.

    Attributes:
        omega: gives Ω of a head at a distance.
        pattern: gives where a head attends.
        firing: gives the firing of a head from a token of a prompt (its row, the head, the token), or None where the
            head does not fire. It fires where one token gets at least half of its attention, with a score of 0 or more.
            Attention to the first token does not count: heads that find nothing attend there.
        normed: gives what the heads of a layer read at a token of a prompt: the normed residual, without the norm's
            gain and with a 1 appended; and its scale.
        written: gives the term that a head writes at a token of a prompt.

    Raises:
        NotTraced: the model does more to queries, keys or scores than Ω says.
    """

    model: Transformer
    tokens: Int[Tensor, "n T"]
    weights: AttentionWeights
    omega: Callable[[Node, int], Omega]
    cache: Cache = field(init=False)
    pattern: Callable[[Node], Float[Tensor, "n T T"]] = field(init=False)
    firing: Callable[[int, Node, int], Firing | None] = field(init=False)
    normed: Callable[[int, int, int], tuple[Float[Tensor, " d_plus_1"], float]] = field(init=False)
    written: Callable[[int, Node, int], Float[Tensor, " d"]] = field(init=False)

    def __post_init__(self) -> None:
        for _, attn in self.weights.layers:
            biased = any(norm is not None and norm.bias is not None for norm in (attn.q_norm, attn.k_norm))
            if does := "clips" if attn.clip is not None else "adds biases to the norms of" if biased else "":
                raise NotTraced(f"{self.model.name} {does} its queries and keys: no one matrix Ω gives its scores")
        if any(attn.distances is not None for _, attn in self.weights.layers):
            raise NotTraced(
                f"{self.model.name} adds to its attention scores for the distance (ALiBi), which no upstream head does"
            )
        self.cache = engine.one_run(self.model, self.tokens)
        self.pattern = cache(partial(engine.patterns, self.model, self.cache))
        self.firing, self.normed, self.written = cache(self._firing), cache(self._normed), cache(self._written)

    @measuring()
    def _firing(self, prompt: int, head: Node, i: int) -> Firing | None:
        row = self.pattern(head)[prompt, i]
        j, attention = int(row.argmax()), float(row.max())
        if head.layer == 0 or j == 0 or attention < FIRES:
            return None
        parts = self.omega(head, i - j)
        values = parts.values * self.scale(prompt, head, i, j)
        (x_i, scale_i), (x_j, scale_j) = (self.normed(prompt, head.layer, token) for token in (i, j))
        along_i, along_j = parts.destination @ x_i, parts.source @ x_j
        terms = values * along_i * along_j
        score = float(terms.sum())
        if score < 0:
            return None
        chosen = signal(terms)
        weigh = along_i[chosen].sign() * values[chosen].sqrt()
        senders: dict[Side, Added] = {}
        added: dict[Side, dict[str, float]] = {}
        ends = (i, parts.destination, scale_i), (j, parts.source, scale_j)
        for side, (token, vectors, scale) in zip(SIDES, ends, strict=True):
            heads, (embed, *mlps) = self.added(prompt, head.layer, token, weigh @ vectors[chosen, :-1] / scale)
            senders[side] = covering(heads)
            figures = (sum(value for _, value in some) for some in (heads, [embed], mlps))
            added[side] = dict(zip(("heads", "embed", "MLPs"), figures, strict=True))
        return Firing(prompt, head, i, j, attention, score, tuple(chosen.tolist()), senders, added)

    def scale(self, prompt: int, head: Node, i: int, j: int) -> float:
        """What the norms of a head's query at i and of its key at j multiply their product by; 1 without norms."""
        block, found = self.model.blocks[head.layer], 1.0
        attn = block.attn
        for port, token, norm, h in (("q", i, attn.q_norm, head.head), ("k", j, attn.k_norm, head.head // attn.group)):
            if norm is not None:
                every = getattr(attn, port)(block.attn_norm(self.cache.resid_pre[head.layer][prompt, token])).float()
                own = every if len(norm.gain) != attn.d_head else every.unflatten(0, (-1, attn.d_head))[h]
                found *= float(norm.scale(norm.centred(own)))
        return found

    def _normed(self, prompt: int, layer: int, token: int) -> tuple[Float[Tensor, " d_plus_1"], float]:
        norm = self.model.blocks[layer].attn_norm
        x = norm.centred(self.cache.resid_pre[layer][prompt, token].float())
        scale = float((x.square().mean() + norm.eps).sqrt())
        return torch.cat((x / scale, x.new_ones(1))), scale

    def added(
        self, prompt: int, layer: int, token: int, direction: Float[Tensor, " d"]
    ) -> tuple[list[tuple[Node, float]], Added]:
        """What every upstream head adds along a direction at a token; what the embedding and each MLP add."""
        heads = []
        for below in range(layer):
            attn = self.model.blocks[below].attn
            along = (direction @ attn.o.weight.float()).unflatten(0, (attn.n_heads, attn.d_head))
            values = (self.cache.z[below][prompt, token].float() * along).sum(-1).tolist()
            heads += [(Node("head", below, h), value) for h, value in enumerate(values)]
        rest = [EMBED, *(Node("mlp", below) for below in range(layer))]
        return heads, tuple((node, float(self.cache.value(node)[prompt, token].float() @ direction)) for node in rest)

    def _written(self, prompt: int, head: Node, token: int) -> Float[Tensor, " d"]:
        attn = self.model.blocks[head.layer].attn
        return attn.out_head(head.head, self.cache.z[head.layer][prompt, token, head.head]).float()

    def traced(self, firing: Firing) -> Iterator[Firing]:
        """A firing, the firings of its senders, theirs, and so on; each once."""
        seen = {(firing.head, firing.destination)}
        pending = [firing]
        while pending:
            now = pending.pop()
            yield now
            for side in SIDES:
                for sender, _ in now.senders[side]:
                    place = (sender, now.token(side))
                    if place not in seen:
                        seen.add(place)
                        before = self.firing(now.prompt, *place)
                        pending += [before] if before else []


def fired(
    model: Transformer,
    pairs: Sequence[PromptPair],
    head: Node,
    source: Sequence[Position],
    target: Sequence[Position],
    max_memory: int | None = None,
) -> Iterator[tuple[Tracer, dict[int, Firing]]]:
    """The firings of a head from one of some positions to one of others, where it fires so.

    Yields:
        Tracers of the prompts on which it fires, each with the firings by the prompts' numbers in `pairs`.

    Raises:
        NotTraced: the model does more to queries, keys or scores than Ω says.
    """
    for numbers, tracer in tracers(model, [pair.clean_tokens for pair in pairs], max_memory):
        found: dict[int, Firing] = {}
        for place, number in enumerate(numbers):
            sources, targets = (
                [token for position in positions for token in indices_of(pairs[number], position)]
                for positions in (source, target)
            )
            firings = (tracer.firing(place, head, token) for token in sources)
            if first := next((one for one in firings if one and one.source in targets), None):
                found[number] = first
        if found:
            yield tracer, found


def tracers(
    model: Transformer, prompts: Sequence[Sequence[int]], max_memory: int | None = None
) -> Iterator[tuple[list[int], Tracer]]:
    """Tracers for prompts, by length and as many at once as fit: (their numbers, tracer)."""
    weights = weights_of(model)
    omega_of = omegas(weights)
    for places, tokens in engine.by_length(prompts, partial(run_at_once, model, max_memory=max_memory)):
        yield places.tolist(), Tracer(model, tokens, weights, omega_of)


def trace_graph(
    model: Transformer,
    pairs: Sequence[PromptPair],
    head: Node,
    source: Position,
    target: Position,
    beside: Callable[[Tracer, dict[int, Firing]], None] = lambda tracer, firings: None,
    max_memory: int | None = None,
) -> TraceGraph:
    """Trace a head's firings from one position to another, back to the first layer.

    Args:
        beside: is given what `fired` yields as well.

    Raises:
        NotTraced: the model does more to queries, keys or scores than Ω says.
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

    for tracer, firings in fired(model, pairs, head, [source], [target], max_memory):
        beside(tracer, firings)
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
