"""Direct logit attribution: what nodes write at END along the answer's unembedding minus the distractor's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.crossing import writings
from circuitdsl.engine.experiment import experiment_of
from circuitdsl.engine.intervene import Intervened
from circuitdsl.engine.metrics import padded
from circuitdsl.engine.path_patching import patched_terms, terms_at_end
from circuitdsl.engine.prompts import Array, Batch, Numbers
from circuitdsl.engine.workers import measuring
from circuitdsl.measurements.attribution import Attribution
from circuitdsl.measurements.requests import Request
from circuitdsl.models.parts import Norm, Transformer


@measuring()
def read(batch: Batch, requests: Sequence[Attribution]) -> Mapping[Request, Numbers]:
    """In logits, summed over nodes.

    The final norm is folded: its gain is applied, LayerNorm's centring too, and its scale is that of the clean run,
    under a condition as well. Means are taken over several answers and over several distractors.
    """
    found: dict[Request, Numbers] = {}
    for under in dict.fromkeys(request.under for request in requests):
        together = [request for request in requests if request.under == under]
        parts = {request: [part for node in request.nodes for part in writings(node)] for request in together}
        nodes = list(dict.fromkeys(part for own in parts.values() for part in own))
        if under is None:
            terms = terms_at_end(batch.model, batch.runs.clean, nodes)
        else:
            (terms,) = patched_terms(batch.runs, [experiment_of(under)], batch.places([under]), nodes, **batch.limits)
        logits = _logits(batch, terms).cpu().double().numpy()
        for request in together:
            found[request] = Numbers(logits[:, [nodes.index(part) for part in parts[request]]].sum(1))
    return found


@measuring()
def of_changed(batch: Batch, request: Attribution, run: Intervened) -> Array:
    """The attribution of nodes in a changed model, at the unchanged run's norm scale."""
    logits = _logits(batch, torch.stack([run.term_at_end(node) for node in request.nodes], dim=1))
    return logits.sum(1).cpu().double().numpy()


def _logits(batch: Batch, terms: Float[Tensor, "n nodes d"]) -> Float[Tensor, "n nodes"]:
    """Terms at END along the answer's unembedding minus the distractor's."""
    model, pairs = batch.model, batch.pairs
    answer = _unembedding(model, [pair.answers for pair in pairs])
    distractor = _unembedding(model, [pair.distractors for pair in pairs])
    norm, end = model.final_norm, batch.runs.clean.end.float()
    scale = (norm.centred(end).square().mean(-1) + norm.eps).sqrt()
    return (folded(model.final_norm, terms.float()) * (answer - distractor)[:, None]).sum(-1) / scale[:, None]


def _unembedding(model: Transformer, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "n d"]:
    """The mean over a prompt's tokens of what the unembedding reads for them."""
    ids, there = (each.to(model.device) for each in padded(tokens))
    return (model.W_U[ids].float() * there[..., None]).sum(1) / there.sum(-1, keepdim=True)


def folded(norm: Norm, terms: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """Terms as the unembedding sees them, but for the norm's scale: centred for LayerNorm, times the gain."""
    return norm.centred(terms) * norm.gain.float()
