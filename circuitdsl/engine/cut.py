"""Whether a traced signal matters: it is cut out of the run, or added once more, and the change is measured.

The interventions of Franco & Crovella 2024 (arXiv:2410.00340), at both ends of a firing's arrow. A cut removes, for
each sender, the part of its clean term that lies along the singular vectors of the signal. The *local* cut removes it
from the normed residual that the firing head reads, so that only the query, key and value of this head change. The
*global* cut removes it from what the senders' layers write, so that every later reader is affected. In both cases,
everything after the cut is recomputed. The control cuts as many singular vectors outside the signal, drawn at random.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.ends import score_ends
from circuitdsl.engine.passes import Edits
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.runs import one_run
from circuitdsl.engine.terms import Cache, Rows
from circuitdsl.engine.trace import SIDES, Firing, Tracer
from circuitdsl.engine.workers import measuring
from circuitdsl.models.parts import PORTS, Attention, Port, attend

#: what a head reads, or what its senders write
Reach = Literal["local", "global"]
Vectors = Sequence[int]
#: how a cut changes the score, the length and the cosine (see `Change`), and along how many vectors
_Row = tuple[float, float, float, int]


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a cut changes, on each prompt on which the head fires.

    Attributes:
        metric: the change of the metric.
        score: the change of the head's attention score along its arrow.
        norm: the new length of what is cut, as a share of the old one: of the head's normed input (local), or of what
            a sender's layer writes (global); the mean over tokens and senders' layers.
        cosine: between the old and the new vector; the mean is taken likewise.
        vectors: how many singular vectors are cut.
    """

    metric: np.ndarray
    score: np.ndarray
    norm: np.ndarray
    cosine: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The cut of a signal beside its control.

    Attributes:
        indices: the prompts on which the head fires.
        score: the head's attention score along its arrow in the clean run.
    """

    indices: np.ndarray
    score: np.ndarray
    signal: Change
    control: Change


class Cuts:
    """Cuts of the signal of a head's firings, as far as these have been given.

    Attributes:
        boost: add it once more instead.
        seed: of the control's singular vectors.
    """

    def __init__(self, prompts: Prompts, reaches: Sequence[Reach], boost: bool = False, seed: int = 0) -> None:
        self._prompts, self._boost, self._generator = prompts, boost, torch.Generator().manual_seed(seed)
        self._indices: list[int] = []
        self._scores: list[float] = []
        ends = prompts.ends()[0]  # of the signal, and of its control
        self._found = {reach: [(ends.clone(), list[_Row]()) for _ in range(2)] for reach in dict.fromkeys(reaches)}

    @measuring()
    def add(self, tracer: Tracer, by_number: Mapping[int, Firing]) -> None:
        """Cut some firings, which are given by the numbers of their prompts."""
        firings = list(by_number.values())
        self._indices += by_number
        self._scores += [firing.score for firing in firings]
        signals: list[Vectors] = [firing.signal for firing in firings]
        controls = [outside(tracer, firing, self._generator) for firing in firings]
        for reach, found in self._found.items():
            for vectors, (ends, rows) in zip((signals, controls), found, strict=True):
                edits = edits_of(tracer, firings, vectors, reach, self._boost)
                cache = one_run(tracer.model, tracer.tokens, edits)
                ends[list(by_number)] = cache.end[[firing.prompt for firing in firings]]
                rows += [_changed(edits, cache, *each) for each in zip(firings, vectors, strict=True)]

    def found(self) -> dict[Reach, Cut]:
        """What was cut at each reach, by the order of the prompts."""
        order = np.argsort(self._indices)
        at, scores = np.asarray(self._indices, int)[order], np.asarray(self._scores)[order]

        def change(ends: Tensor, rows: Sequence[_Row]) -> Change:
            metric = (score_ends(self._prompts, ends) - self._prompts.clean)[at]
            return Change(metric, *np.asarray(rows).reshape(-1, 4)[order].T)

        return {reach: Cut(at, scores, *(change(*each) for each in both)) for reach, both in self._found.items()}


def outside(tracer: Tracer, firing: Firing, generator: torch.Generator) -> Vectors:
    """As many singular vectors outside a signal as it has, at random; all of them where fewer are left."""
    rest = [k for k in range(len(tracer.omega(firing.head, firing.distance).values)) if k not in firing.signal]
    return [rest[i] for i in torch.randperm(len(rest), generator=generator)[: len(firing.signal)].tolist()]


def _changed(edits: LocalCut | GlobalCut, run: Cache, firing: Firing, vectors: Vectors) -> _Row:
    """What the cut of one firing changes; norm and cosine are 1 where nothing is cut."""
    pairs = edits.before_and_after(run, firing)
    found = [(float(new.norm() / old.norm()), float(F.cosine_similarity(old, new, dim=0))) for old, new in pairs]
    norm, cosine = np.mean(found or [(1.0, 1.0)], axis=0).tolist()
    return edits.score(run, firing) - firing.score, norm, cosine, len(vectors)


def parts(tracer: Tracer, firing: Firing, vectors: Vectors) -> Iterator[tuple[Node, int, Float[Tensor, " d"]]]:
    """Each sender of a firing, its token, and the part of its term along some singular vectors.

    The 1 that is appended to residuals belongs to no head. (The authors' code projects it with each head's output.)
    """
    omega, chosen = tracer.omega(firing.head, firing.distance), torch.tensor(vectors, dtype=torch.long)
    for side in SIDES:
        basis = (omega.destination if side == "destination" else omega.source)[chosen, :-1]
        token = firing.token(side)
        for sender, _ in firing.senders[side]:
            yield sender, token, (basis @ tracer.written(firing.prompt, sender, token)) @ basis


def edits_of(
    tracer: Tracer, firings: Sequence[Firing], vectors: Sequence[Vectors], reach: Reach, boost: bool = False
) -> LocalCut | GlobalCut:
    """The cut of one head's firings, each along singular vectors of its own, as a change of the forward pass.

    Args:
        boost: add instead of taking away.
    """
    sign, head = 1.0 if boost else -1.0, firings[0].head
    layers = defaultdict[int, Tensor](lambda: torch.zeros_like(tracer.cache.embed, dtype=torch.float32))
    for firing, chosen in zip(firings, vectors, strict=True):
        for sender, token, vector in parts(tracer, firing, chosen):
            layer = sender.layer if reach == "global" else head.layer
            scale = 1.0 if reach == "global" else tracer.normed(firing.prompt, layer, token)[1]
            layers[layer][firing.prompt, token] += sign * vector / scale
    if reach == "global":
        return GlobalCut(tracer, layers)
    return LocalCut(tracer, head, layers[head.layer])


@dataclass(frozen=True, eq=False)
class LocalCut(Edits):
    """Something is added to the normed input of one head, before the norm's gain."""

    tracer: Tracer
    head: Node
    added: Float[Tensor, "n T d"]

    def attend(self, layer: int, attn: Attention, q: Tensor, k: Tensor, v: Tensor, rows: Rows) -> Tensor:
        z = attend(attn, q, k, v)
        if layer == self.head.layer:
            changed = (self._changed(port, rows).unsqueeze(1) for port in PORTS)
            cut = self.added[rows].flatten(1).any(1)  # other prompts keep every bit
            z[cut, :, self.head.head] = attend(attn, *changed)[cut, :, 0]
        return z

    def _changed(self, port: Port, rows: Rows) -> Float[Tensor, "n T d_head"]:
        """The head's queries, keys or values after the cut."""
        layer = self.head.layer
        block, resid = self.tracer.model.blocks[layer], self.tracer.cache.resid_pre[layer][rows]
        changed = block.attn_norm(resid) + (self.added[rows] * block.attn_norm.gain).to(resid.dtype)
        return block.attn.project_head(port, self.head.head, changed, self.tracer.model.turns(resid.shape[1])[layer])

    def score(self, run: Cache, firing: Firing) -> float:
        """The head's attention score along a firing's arrow."""
        rows = slice(firing.prompt, firing.prompt + 1)
        query, key = (self._changed(port, rows)[0].float() for port in PORTS[:2])
        scale = self.tracer.model.blocks[self.head.layer].attn.scale
        return scale * float(query[firing.destination] @ key[firing.source])

    def before_and_after(self, run: Cache, firing: Firing) -> Iterator[tuple[Tensor, Tensor]]:
        """The head's normed input before and after the cut, at each token where it changes."""
        for token in {firing.destination, firing.source}:
            if self.added[firing.prompt, token].any():
                yield self._reads(firing.prompt, token)

    def _reads(self, prompt: int, token: int) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        x = self.tracer.normed(prompt, self.head.layer, token)[0][:-1]
        return x, x + self.added[prompt, token]


@dataclass(frozen=True, eq=False)
class GlobalCut(Edits):
    """Something is added to what the heads of some layers write, by layer."""

    tracer: Tracer
    added: Mapping[int, Float[Tensor, "n T d"]]

    def attn_out(self, layer: int, out: Tensor, rows: Rows) -> Tensor:
        return out + self.added[layer][rows].to(out.dtype) if layer in self.added else out

    def score(self, run: Cache, firing: Firing) -> float:
        attn, h = self.tracer.model.blocks[firing.head.layer].attn, firing.head.head
        query = run.q[firing.head.layer][firing.prompt, h, firing.destination]
        key = run.k[firing.head.layer][firing.prompt, h // attn.group, firing.source]
        return attn.scale * float(query.float() @ key.float())

    def before_and_after(self, run: Cache, firing: Firing) -> Iterator[tuple[Tensor, Tensor]]:
        """What all heads of a sender's layer write at its token, before and after the cut.

        Their output bias belongs to no node, and is left out.
        """
        for layer, added in self.added.items():
            block = self.tracer.model.blocks[layer]
            bias = block.attn.write(torch.zeros_like(self.tracer.cache.z[layer][0, 0])).float()
            for token in {firing.destination, firing.source}:
                if added[firing.prompt, token].any():
                    old, new = (
                        block.attn.write(each.z[layer][firing.prompt, token]).float() - bias
                        for each in (self.tracer.cache, run)
                    )
                    yield block.attn_norm.centred(old), block.attn_norm.centred(new + added[firing.prompt, token])
