"""Paths by brute force: whole runs of the model, summed from their terms; nothing of the fast path is used."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float

from circuitdsl.circuit.nodes import LOGITS, Edge, Node, Position
from circuitdsl.models.parts import Transformer
from tests.engine.reference import RunTerms, residual, share, stages, terms_of, write
from tests.engine.small_models import Case

Arrows = Sequence[frozenset[Edge]]


@torch.inference_mode()
def logits(case: Case, arrows: Arrows) -> Float[torch.Tensor, "n vocab"]:
    """Logits at END of every prompt when a change goes along a path."""
    rows = []
    for i, (clean, corrupt) in enumerate(zip(case.clean, case.corrupt, strict=True)):
        at = {e.position: tokens(case, e.position, i) for arrow in arrows for e in arrow}
        rows.append(one(case.model, clean, corrupt, arrows, at))
    return torch.stack(rows)


def tokens(case: Case, position: Position, prompt: int) -> set[int]:
    if position.name == "*":
        return set(range(case.clean.shape[1]))
    return {int(t) for t in case.positions[position][prompt] if t >= 0}


def one(
    model: Transformer, clean: torch.Tensor, corrupt: torch.Tensor, arrows: Arrows, at: dict[Position, set[int]]
) -> Float[torch.Tensor, " vocab"]:
    parts = [edge.sender for edge in arrows[0] if edge.sender.is_part]
    plain, other = (terms_of(model, each, parts) for each in (clean, corrupt))
    change = {
        edge.sender: share(model, other, edge.sender) - share(model, plain, edge.sender) for edge in arrows[0]
    }  # of what each node of the path writes
    for arrow in arrows[:-1]:
        coming = arriving(arrow, change, at)
        new: RunTerms = {}

        def read(node: Node, port: str, coming=coming) -> torch.Tensor:  # type: ignore[no-untyped-def]
            resid = residual(model, plain, node)
            return resid + coming.get((node, port), torch.zeros_like(resid))

        ends = {edge.receiver.node for edge in arrow}
        for stage in stages(model):
            if ends & set(stage):
                new |= write(model, clean, stage, read)
        change = {node: new[node] - plain[node] for node in ends}
    coming, now = arriving(arrows[-1], change, at), RunTerms()

    def live(node: Node, port: str) -> torch.Tensor:
        resid = residual(model, now, node)
        return resid + coming.get((node, port), torch.zeros_like(resid))

    for stage in stages(model):
        now |= write(model, clean, stage, live)
    return model.logits(live(LOGITS, "in")[-1]).float()


def arriving(
    arrow: frozenset[Edge], change: RunTerms, at: dict[Position, set[int]]
) -> dict[tuple[Node, str], torch.Tensor]:
    """What an arrow adds to each input: each sender's change once at a token, a part's not beside its whole's."""
    sent: dict[tuple[Node, str], set[tuple[Node, int]]] = {}
    for edge in arrow:
        place = edge.receiver.node, edge.receiver.port
        sent.setdefault(place, set()).update((edge.sender, t) for t in at[edge.position])
    found = {}
    for place, pairs in sent.items():
        total = torch.zeros_like(next(iter(change.values())))
        for sender, t in pairs:
            if not sender.is_part or (sender.whole, t) not in pairs:
                total[t] += change[sender][t]
        found[place] = total
    return found
