"""Composition scores: how strongly one head writes what another reads, from weights alone (semantics: channels).

Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits") measure the composition of sender A with a
receiver input M as `‖W_OV(A) M‖ / (‖W_OV(A)‖ ‖M‖)`, Frobenius norms; Merullo et al. 2024 (arXiv:2406.09519) put one
singular component of A in the place of W_OV. With `M = L R` of rank d_head and `R^T = Q C`, `‖X M‖ = ‖X L C^T‖` for any
X: no matrix of d_model × d_model is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.criteria import ChannelTest, Composed
from circuitdsl.circuit.nodes import Input, Node
from circuitdsl.errors import UserError
from circuitdsl.measurements.channel import Composition
from circuitdsl.models.weights import AttentionWeights, Components
from circuitdsl.report.numbers import plain
from circuitdsl.report.report import ClaimResult, Measured, MemberResult, Standing
from circuitdsl.verdicts import WORST_FIRST, Verdict

PROTOCOL = {"read": "weights", "run": "none"}
#: a verdict with its reason
Judged = tuple[Verdict, str]
#: this share of all upstream senders is below chance level
CHANCE = 0.95
#: with fewer senders than this there is no chance level
FEWEST = 20


class NotComposed(UserError):
    """A composition that weights alone do not have."""


@dataclass(frozen=True, slots=True, eq=False)
class Compositions:
    """The composition of everything upstream with one receiver input.

    Attributes:
        heads: of whole heads [layers, heads].
        components: of their singular components [layers, heads, d_head]; NaN for those that are noise.
    """

    heads: NDArray[np.float64]
    components: NDArray[np.float64]

    def senders(self, components: bool) -> list[Node]:
        """All upstream heads, or all of their components that are not noise."""
        if not components:
            return [Node("head", layer, head) for layer, head in np.ndindex(self.heads.shape)]
        places = np.argwhere(np.isfinite(self.components)).tolist()
        return [Node("head", layer, head, index) for layer, head, index in places]

    def standing(self, sender: Node) -> Standing:
        """Where a sender stands among all upstream heads, or a component among all that are not noise.

        Raises:
            NotComposed: the component does not exist, or is noise.
        """
        if sender.index >= (count := self.components.shape[-1]):
            raise NotComposed(f"{sender} does not exist: {sender.whole} has components 0 to {count - 1}")
        found, part = (self.components, (sender.index,)) if sender.is_part else (self.heads, ())
        score = found[sender.layer, sender.head, *part]
        if not np.isfinite(score):
            raise NotComposed(
                f"the singular value of {sender} is under 1 % of its head's largest: it writes next to nothing"
            )
        everything = found[np.isfinite(found)]
        spread = float(everything.std())
        return Standing(
            composition=float(score),
            rank=1 + int(np.count_nonzero(everything > score)),
            of=len(everything),
            z=float((score - everything.mean()) / spread) if spread > 0 else 0.0,
            chance=float(np.quantile(everything, CHANCE)) if len(everything) >= FEWEST else None,
        )


def compositions(weights: AttentionWeights, receiver: Input, distance: int | None = None) -> Compositions:
    """The composition of every upstream head, and of each of its components, with a receiver input.

    Args:
        distance: how many tokens the query is behind the key. Where positions turn both (rotary), W_QK is
            `W_Q R W_K^T`, with the rotation R of that distance; elsewhere it changes nothing.

    Raises:
        NotComposed: queries and keys turn with the position, and no distance is given; the head does not see so far;
            or nothing is upstream.
    """
    node, port = receiver.node, receiver.port
    if weights.rotary and port in ("q", "k") and distance is None:
        raise NotComposed(
            f"{weights.name} turns queries and keys with the position (rotary), so that the {port} composition "
            "depends on the distance between them",
            f"say at which, as in: channel A -> {receiver} at distance 3; channels into .v need none",
        )
    window = weights.layers[node.layer][1].window if node.layer < weights.n_layers else None
    if distance is not None and window is not None and distance >= window:
        raise NotComposed(f"{node} sees {window} tokens, its own included, and none at distance {distance}")
    if node.layer == 0:
        raise NotComposed(f"nothing is upstream of {node}")
    reads = reading(weights, receiver, distance or 0)
    heads, components = zip(*(_scores(weights.components(layer), reads) for layer in range(node.layer)), strict=True)
    return Compositions(np.stack(heads), np.stack(components))


def reading(weights: AttentionWeights, receiver: Input, distance: int) -> Float[Tensor, "d d_head"]:
    """`L C^T` of a receiver input `M = L R`, `R^T = Q C`: what it reads, up to a rotation of what comes out."""
    layer, head = receiver.node.layer, receiver.node.head
    factors = weights.factors(layer)
    w_q, w_k = factors.W_Q[head], factors.W_K[head]
    if receiver.port != "v":
        w_q, w_k = weights.turned(layer, distance, w_q, w_k)
    read = {"q": (w_q, w_k), "k": (w_k, w_q), "v": (factors.W_V[head], factors.W_O[head].T)}
    left, right = read[receiver.port]
    return (left @ torch.linalg.qr(right)[1].T).float()


def _scores(components: Components, reads: Float[Tensor, "d k"]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the heads of one layer [heads], and of their components [heads, d_head]."""
    whole = reads.norm().double()
    if not bool(whole > 0):
        raise NotComposed("the receiver reads nothing: its weights are zero")
    each = (components.writes @ reads).norm(dim=-1).double() / whole
    values = components.values.double()
    size = values.norm(dim=-1).clamp_min(torch.finfo(torch.float64).tiny)
    heads = (each * values).norm(dim=-1) / size
    return heads.cpu().numpy(), each.masked_fill(~components.kept, torch.nan).cpu().numpy()


def judge(claims: Sequence[Claim], weights: AttentionWeights) -> list[ClaimResult]:
    """The records of channel claims; every receiver's scores are computed once."""
    scores = cache(partial(compositions, weights))
    return [_result(claim, scores) for claim in claims]


def _result(claim: Claim, scores: Callable[..., Compositions]) -> ClaimResult:
    assert isinstance(claim.measurement, Composition)
    given = claim.id, claim.line, claim.text, claim.kind
    record = partial(ClaimResult, *given, task=None, protocol=PROTOCOL, citation=claim.citation)
    try:
        distance = claim.measurement.distance
        found = [(sender, to, scores(to, distance).standing(sender)) for sender, to in claim.measurement.pairs]
    except UserError as error:
        return record(verdict="error", reason=error.message)
    standings = [where for _, _, where in found]
    tests: tuple[ChannelTest, ...] = claim.tests  # type: ignore[assignment]
    measured = partial(Measured, "composition", ci=None, n=0, unit="composition")
    label = ""
    judged: list[Judged | None] = [None] * len(found)
    if claim.each or len(found) == 1:
        each = [_all_of([_judge(test, where) for test in tests]) for where in standings]
        worst = min(range(len(found)), key=lambda i: (WORST_FIRST.index(each[i][0]), _room(tests[0], standings[i])))
        (sender, to, whole), (verdict, reason) = found[worst], each[worst]
        part = "" if len(found) == 1 else f"{sender} -> {to}"
        label = f"{part}: " if part else ""
        measured = partial(measured, part=part, sender=str(sender), receiver=str(to.node))
        judged = [*each] if claim.each else judged
    else:
        whole = _mean(standings)
        verdict, reason = _all_of([_judge(test, whole) for test in tests])
    members = []
    for (sender, to, where), own in zip(found, judged, strict=True):
        figures = f"composition {plain(where.composition, 3)}, rank {where.rank} of {where.of}, z {plain(where.z)}"
        member = MemberResult(
            sender=str(sender),
            receiver=str(to.node),
            input=to.port,
            position="",
            effect=None,
            ci=None,
            delta=None,
            verdict=own[0] if own else None,
            reason=f"{sender} -> {to}: {figures}" if own else figures,
            standing=where,
        )
        members.append(member)
    measures = measured(value=whole.composition, standing=whole)
    return record(verdict=verdict, reason=label + reason, measured=measures, members=tuple(members))


def _mean(standings: Sequence[Standing]) -> Standing:
    """Several pairs together: mean figures, the mean of their chance levels, no rank."""
    levels = [where.chance for where in standings if where.chance is not None]
    return Standing(
        composition=float(np.mean([where.composition for where in standings])),
        rank=None,
        of=None,
        z=float(np.mean([where.z for where in standings])),
        chance=float(np.mean(levels)) if len(levels) == len(standings) else None,
    )


def _judge(test: ChannelTest, where: Standing) -> Judged:
    """Whether a figure is where it is claimed to be, with the sentence that says so."""
    shown = plain(where.composition, 3)
    if isinstance(test, Composed):
        value = getattr(where, test.figure)
        words = {
            "rank": f"rank {where.rank} of {where.of}",
            "z": f"z {plain(where.z)}",
            "composition": f"composition {shown}",
        }[test.figure]
        claimed = test.text.removeprefix("composition ")
        holds = test.admits(value)
        return ("holds", f"{words} meets {claimed}") if holds else ("fails", f"{words} does not meet {claimed}")
    if where.chance is None:
        return "undecided", f"null too small: fewer than {FEWEST} senders are upstream"
    chance = f"{plain(where.chance, 3)}, the 95th percentile of all senders"
    if where.composition > where.chance:
        return "holds", f"composition {shown} is above {chance}"
    return "fails", f"composition {shown} is not above {chance}"


def _room(test: ChannelTest, where: Standing) -> float:
    """How far inside what is claimed a figure lies; below 0, how far outside."""
    if not isinstance(test, Composed):
        return where.composition - (where.chance or 0.0)
    figure = getattr(where, test.figure)
    low, high = (-np.inf if test.low is None else test.low), (np.inf if test.high is None else test.high)
    return min(figure - low, high - figure)


def _all_of(parts: Sequence[Judged]) -> Judged:
    """Parts joined by `and`: the one that decides, or all of them where all hold."""
    worst = min(parts, key=lambda part: WORST_FIRST.index(part[0]))
    return worst if worst[0] != "holds" else ("holds", "; ".join(reason for _, reason in parts))
