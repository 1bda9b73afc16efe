"""What nodes write, read through the unembedding: direct logit attribution, and the copying of heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.experiment import check_node
from circuitdsl.engine.experiments import experiment_of
from circuitdsl.engine.positions import places_of, token_indices
from circuitdsl.engine.runs import Cache, Runs
from circuitdsl.engine.terms import patched_terms, terms_at_end
from circuitdsl.measurements.requests import (
    ANSWER,
    AttributionRequest,
    Condition,
    CopyingRequest,
    Request,
    by_condition,
)
from circuitdsl.models.parts import Norm, Transformer

if TYPE_CHECKING:
    from circuitdsl.verify.bench import Bench

Array = np.ndarray
#: a head copies where the answer is among this many tokens (Wang et al. 2022, section 3.1: the copy score)
TOP = 5


# --- direct logit attribution ----------------------------------------------------------------------


@torch.inference_mode()
def attribution(bench: Bench, runs: Runs, requests: Sequence[AttributionRequest], part: Array) -> dict[Request, Array]:
    """What nodes write at END along the answer's unembedding minus the distractor's, in logits, summed over nodes.

    The final norm is folded: its gain is applied, LayerNorm's centring too, and its scale is that of the clean run,
    under a condition as well. Means are taken over several answers and over several distractors.
    """
    found: dict[Request, Array] = {}
    for under, together in by_condition(requests).items():
        nodes = list(dict.fromkeys(node for request in together for node in request.nodes))
        for node in nodes:
            check_node(bench.model, node)
        logits = _logits(bench, runs, _terms(bench, runs, nodes, under, part), part).cpu().double().numpy()
        for request in together:
            mine = [nodes.index(node) for node in request.nodes]
            found[request] = logits[:, mine].sum(1)
    return found


@torch.inference_mode()
def attributed(bench: Bench, runs: Runs, request: AttributionRequest, changed: Cache, part: Array) -> Array:
    """The attribution of nodes as a changed model runs the clean prompts, at the unchanged run's norm scale."""
    for node in request.nodes:
        check_node(bench.model, node)
    logits = _logits(bench, runs, terms_at_end(bench.model, changed, request.nodes), part)
    return logits.sum(1).cpu().double().numpy()


def _logits(bench: Bench, runs: Runs, terms: Float[Tensor, "n nodes d"], part: Array) -> Float[Tensor, "n nodes"]:
    """Terms at END along the answer's unembedding minus the distractor's."""
    model = bench.model
    pairs = [bench.pairs[i] for i in part]
    answer = _unembedding(model, [pair.answers for pair in pairs])
    distractor = _unembedding(model, [pair.distractors for pair in pairs])
    scale = _scale(model.final_norm, runs.clean.end)
    folded = _folded(model.final_norm, terms.float())
    return (folded * (answer - distractor)[:, None]).sum(-1) / scale[:, None]


def _unembedding(model: Transformer, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "n d"]:
    """The mean over a prompt's tokens of what the unembedding reads for them."""
    count = torch.tensor([len(row) for row in tokens])[:, None]
    ids = _as_long(tokens)
    weight = (torch.arange(ids.shape[1]) < count) / count
    return (model.W_U[ids.to(model.device)].float() * weight.to(model.device)[..., None]).sum(1)


def _as_long(tokens: Sequence[Sequence[int]]) -> Int[Tensor, "n k"]:
    """Tokens of each prompt, the first of them (or token 0) repeated where there are fewer than of others."""
    width = max(1, *map(len, tokens))
    return torch.tensor([[*row, *[row[0] if row else 0] * (width - len(row))] for row in tokens])


def _terms(
    bench: Bench, runs: Runs, nodes: Sequence[Node], under: Condition | None, part: Array
) -> Float[Tensor, "n nodes d"]:
    if under is None:
        return terms_at_end(bench.model, runs.clean, nodes)
    positions = places_of(bench, [under], part)
    return patched_terms(
        bench.model, runs, [experiment_of(under)], positions, nodes, max_memory=bench.max_memory, tally=bench.tally
    )[0]


def _scale(norm: Norm, resid: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """What a norm divides by."""
    wide = resid.float()
    square = wide.var(-1, correction=0) if norm.kind == "layer" else wide.square().mean(-1)
    return (square + norm.eps).sqrt()


def _folded(norm: Norm, terms: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """Terms as the unembedding sees them, but for the norm's scale: centred for LayerNorm, times the gain."""
    centred = terms - terms.mean(-1, keepdim=True) if norm.kind == "layer" else terms
    return centred * norm.gain.float()


# --- copying ---------------------------------------------------------------------------------------


@torch.inference_mode()
def copying(bench: Bench, runs: Runs, request: CopyingRequest, part: Array) -> Array:
    """Whether heads map the residual stream at ANSWER onto the answer's own logit, as a share of heads and positions.

    (residual after MLP 0) through the head's norm, W_V and W_O, then the folded final norm and W_U: a hit where an
    answer is among the top 5 of the vocabulary (Wang et al. 2022, section 3.1; for negative movers, of the negated
    output: section 3.3 and appendix F).
    """
    model = bench.model
    pairs = [bench.pairs[i] for i in part]
    places = token_indices(pairs, [ANSWER]).to(model.device)
    rows = torch.arange(len(pairs), device=model.device)[:, None]
    resid = _after_first_mlp(model, runs.clean)[rows, places.clamp_min(0)]
    here = places >= 0
    hits = torch.zeros(len(pairs), device=model.device)
    for head in request.heads:
        check_node(model, head)
        block = model.blocks[head.layer]
        value = block.attn.value(head.head, block.attn_norm(resid))
        wrote = block.attn.out_head(head.head, value)
        logits = _folded(model.final_norm, wrote.float()) @ model.W_U.float().T
        hit = _among_the_first(-logits if request.negated else logits, [pair.answers for pair in pairs])
        hits += (hit * here).sum(1) / here.sum(1).clamp_min(1)
    return (hits / len(request.heads)).cpu().double().numpy()


def _after_first_mlp(model: Transformer, clean: Cache) -> Float[Tensor, "n T d"]:
    if model.n_layers > 1:
        return clean.resid_pre[1]
    return clean.resid_pre[0] + model.blocks[0].attn.write(clean.z[0]) + clean.mlp[0]


def _among_the_first(logits: Float[Tensor, "n k vocab"], answers: Sequence[Sequence[int]]) -> Float[Tensor, "n k"]:
    """Whether the best answer is among the first `TOP` tokens; ties count against it, so that no output is no copy."""
    ids = _as_long(answers).to(logits.device)
    best = logits.gather(-1, ids[:, None].expand(-1, logits.shape[1], -1)).amax(-1, keepdim=True)
    return ((logits >= best).sum(-1) <= TOP).to(logits.dtype)
