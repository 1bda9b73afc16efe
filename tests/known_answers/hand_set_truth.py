"""What is true of a whole population, by brute force: whole runs of all its prompts, no caches of what is patched.

Shares no code with the fast path but the weights and the definition of the metric; made for the GPT-2s of
`hand_set.py` (no rotary positions, an MLP after the heads of its layer). A test holds it against the reference.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, ERROR, EVERYWHERE, LOGITS, Node, Position
from circuitdsl.engine.experiment import Experiment
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import PromptPair

Terms = dict[Node, Float[Tensor, "n T d"]]
Mask = Float[Tensor, "n T 1"]


@dataclass(frozen=True, eq=False)
class Known:
    """A dictionary whose features have a meaning by construction: each fires above a threshold of its own.

    Attributes:
        whole: what its features are parts of.
        of: what its nodes carry.
    """

    whole: Node
    of: str
    threshold: Float[Tensor, " m"]
    W_enc: Float[Tensor, "d m"]
    b_enc: Float[Tensor, " m"]
    W_dec: Float[Tensor, "m d"]
    b_dec: Float[Tensor, " d"]

    @property
    def every(self) -> Node:
        """Stands for the activations of all features [n T m]."""
        return self.whole._replace(of=self.of)

    def node(self, index: int) -> Node:
        return self.whole._replace(of=self.of, index=index)

    def read(self, terms: Terms, x: Tensor, value: Tensor) -> None:
        """Note the activations of all features, and what they leave of a value."""
        before = x @ self.W_enc + self.b_enc
        terms[self.every] = before * (before > self.threshold)
        terms[self.node(ERROR)] = value - terms[self.every] @ self.W_dec - self.b_dec

    def term(self, node: Node, terms: Terms) -> Float[Tensor, "n T d"]:
        """What a feature writes in a run, or the error."""
        if node.index == ERROR:
            return terms[node]
        return terms[self.every][..., node.index, None] * self.W_dec[node.index]


class Brute:
    """Figures of all prompts of a population; only the unpatched corrupt (or clean) terms are kept between them."""

    def __init__(self, model: Transformer, pairs: Sequence[PromptPair], dictionaries: Sequence[Known] = ()) -> None:
        self.model, self.pairs, self.dictionaries = model, pairs, dictionaries
        lengths = np.asarray([len(pair.clean_tokens) for pair in pairs])
        places = [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
        self.parts = [part for same in places for part in np.array_split(same, max(1, len(same) // 512))]
        self._plain: dict[tuple[int, str], Run] = {}

    def logit_diffs(self, experiment: Experiment) -> np.ndarray:
        """Mean logit over answers minus mean over distractors of every prompt's patched run [n]."""
        return self._each(lambda number, pairs: self._logit_diffs(number, pairs, experiment))

    def attentions(self, heads: Sequence[Node], source: str, target: str) -> np.ndarray:
        """Attention of the clean runs, summed over the target's tokens, averaged over sources and heads [n]."""

        def figure(number: int, pairs: list[PromptPair]) -> list[float]:
            patterns = torch.stack([self._run(number, "clean_tokens").patterns[head] for head in heads], 1)
            rows = [
                patterns[i][:, list(pair.positions[source])][:, :, list(pair.positions[target])].sum(-1).mean()
                for i, pair in enumerate(pairs)
            ]
            return [float(row) for row in rows]

        return self._each(figure)

    def activations(self, nodes: Sequence[Node], position: str, fires: bool = False) -> np.ndarray:
        """Mean activation of features in the clean runs, or 1 where all of them are above 0, at a position [n]."""

        def figure(number: int, pairs: list[PromptPair]) -> list[float]:
            terms = self._run(number, "clean_tokens").terms
            f = torch.stack([terms[node._replace(index=-1)][..., node.index] for node in nodes])
            here = [f[:, i, list(pair.positions[position])] for i, pair in enumerate(pairs)]
            return [float((each > 0).all() if fires else each.mean()) for each in here]

        return self._each(figure)

    def _each(self, figure: Callable[[int, list[PromptPair]], list[float]]) -> np.ndarray:
        out = np.zeros(len(self.pairs))
        for number, part in enumerate(self.parts):
            out[part] = figure(number, [self.pairs[i] for i in part])
        return out

    def _run(self, number: int, side: str) -> Run:
        """The unpatched run of one part's clean or corrupt prompts."""
        if (number, side) not in self._plain:
            tokens = torch.tensor([getattr(self.pairs[i], side) for i in self.parts[number]])
            self._plain[number, side] = run(self.model, tokens, Experiment(), {}, {}, self.dictionaries)
        return self._plain[number, side]

    def _logit_diffs(self, number: int, pairs: list[PromptPair], experiment: Experiment) -> list[float]:
        sides = ("clean_tokens", "corrupt_tokens")
        here, there = sides if experiment.direction == "noise" else sides[::-1]
        masks = {position: _mask(pairs, position) for position in experiment.positions}
        tokens = torch.tensor([getattr(pair, here) for pair in pairs])
        other = self._run(number, there).terms if masks else {}
        logits = self.model.logits(run(self.model, tokens, experiment, other, masks, self.dictionaries).end)
        return [
            float(row[list(pair.answers)].mean() - row[list(pair.distractors)].mean())
            for row, pair in zip(logits, pairs, strict=True)
        ]


@dataclass(frozen=True)
class Run:
    """The terms that a run writes, what the logits read at END, and where its heads attend."""

    terms: Terms
    end: Float[Tensor, "n d"]
    patterns: dict[Node, Float[Tensor, "n T T"]]


def _mask(pairs: list[PromptPair], position: Position) -> Mask:
    """1 where a position stands, 0 elsewhere."""
    mask = torch.zeros(len(pairs), len(pairs[0].clean_tokens), 1)
    for i, pair in enumerate(pairs):
        here = range(len(pair.clean_tokens)) if position == EVERYWHERE else pair.positions[position.name]
        for index in here:
            mask[i, index + position.offset] = 1
    return mask


@torch.inference_mode()
def run(
    model: Transformer,
    tokens: Int[Tensor, "n T"],
    experiment: Experiment,
    other: Terms,
    masks: Mapping[Position, Mask],
    dictionaries: Sequence[Known] = (),
) -> Run:
    """A patched run from the tokens up; `other` has the terms that patches put in."""
    terms: Terms = {}
    patterns = {}

    def sent(node: Node, by: Terms) -> Tensor:
        return next((d.term(node, by) for d in dictionaries if d.of == node.of), None) if node.of else by[node]

    def coded(whole: Node, value: Tensor, read: Tensor, resid: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """A value, read by every dictionary of its place, with the features replaced that are knocked out.

        Features that something is sent to read the stream `resid` with that, through `norm`.
        """
        change = torch.zeros_like(value)
        for d in dictionaries:
            if d.whole != whole:
                continue
            d.read(terms, read, value)
            for node in {e.receiver.node for e in experiment.edges if e.receiver.node.of == d.of}:
                before = norm(patched(resid, node, "in")) @ d.W_enc[:, node.index] + d.b_enc[node.index]
                f, every = before * (before > d.threshold[node.index]), terms[d.every]
                change = change + (f - every[..., node.index])[..., None] * d.W_dec[node.index]
                every[..., node.index] = f
            for site in experiment.sites:
                if site.node.of == d.of:
                    put = 0 if experiment.ablate == "zero" else d.term(site.node, other)
                    change = change + masks[site.position] * (put - d.term(site.node, terms))
        return value + change

    def patched(resid: Tensor, reader: Node, port: str) -> Tensor | None:
        """What an input reads, with the terms of its patched senders exchanged; None where it has none."""
        edges = [e for e in experiment.edges if (e.receiver.node, e.receiver.port) == (reader, port)]
        for e in edges:
            resid = resid + masks[e.position] * (sent(e.sender, other) - sent(e.sender, terms))
        return resid if edges else None

    def written(writer: Node, term: Tensor) -> Tensor:
        for site in experiment.sites:
            if site.node == writer:
                value = other[writer] if experiment.ablate == "corrupt" else torch.zeros_like(term)
                term = term + masks[site.position] * (value - term)
            elif site.node.along and site.node.whole == writer:
                unit = torch.tensor(struct.unpack(f"<{term.shape[-1]}f", site.node.along.unit))
                term = term + masks[site.position] * ((other[writer] - term) @ unit)[..., None] * unit
        terms[writer] = term
        return term

    assert model.W_pos is not None
    resid = written(EMBED, model.W_E[tokens] + model.W_pos[: tokens.shape[1]])
    for layer, block in enumerate(model.blocks):
        plain = block.attn_norm(resid)
        added = torch.zeros_like(resid)
        for head in range(model.n_heads):
            node = Node("head", layer, head)
            part = slice(head * block.attn.d_head, (head + 1) * block.attn.d_head)
            q, k, v = (
                F.linear(
                    plain if (seen := patched(resid, node, port)) is None else block.attn_norm(seen),
                    getattr(block.attn, port).weight[part],
                    getattr(block.attn, port).bias[part],
                )
                for port in ("q", "k", "v")
            )
            scores = q @ k.transpose(1, 2) * block.attn.scale
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            patterns[node] = scores.masked_fill(later, float("-inf")).softmax(-1)
            added = added + written(node, patterns[node] @ v @ block.attn.o.weight[:, part].T)
        resid = resid + added + block.attn.o.bias
        node = Node("mlp", layer)
        seen = patched(resid, node, "in")
        read = block.mlp_norm(resid if seen is None else seen)
        resid = resid + coded(node, written(node, block.mlp(read)), read, resid, block.mlp_norm)
        for site in experiment.sites:
            if site.node == Node("resid", layer + 1):
                biases = torch.stack([block.attn.o.bias for block in model.blocks[: layer + 1]]).sum(dim=0)
                there = torch.stack([other[writer] for writer in terms]).sum(dim=0) + biases
                resid = resid + masks[site.position] * (there - resid)
        resid = coded(Node("resid", layer + 1), resid, resid, resid, lambda x: x)
    seen = patched(resid, LOGITS, "in")
    return Run(terms, (resid if seen is None else seen)[:, -1], patterns)
