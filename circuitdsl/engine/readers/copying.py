"""Whether heads map the residual stream at ANSWER onto the answer's own logit.

(residual after MLP 0) through the head's norm, W_V and W_O, then the folded final norm and W_U: a hit where an answer
is among the top 5 of the vocabulary (Wang et al. 2022, section 3.1; for negative movers, of the negated output:
section 3.3 and appendix F).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.experiment import check_node
from circuitdsl.engine.memory import VOCAB_THREADS
from circuitdsl.engine.metrics import padded
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.prompts import Array, Batch, Numbers
from circuitdsl.engine.readers.attribution import folded
from circuitdsl.engine.workers import each, measuring
from circuitdsl.measurements.copying import ANSWER, Copying
from circuitdsl.measurements.requests import Request
from circuitdsl.models.outline import products

#: a head copies where the answer is among this many tokens (Wang et al. 2022, section 3.1: the copy score)
TOP = 5


def read(batch: Batch, requests: Sequence[Copying]) -> Mapping[Request, Numbers]:
    """The share of heads and positions that copy."""
    return {request: Numbers(_copied(batch, request)) for request in requests}


@measuring()
def _copied(batch: Batch, request: Copying) -> Array:
    model, pairs = batch.model, batch.pairs
    places = token_indices(pairs, [ANSWER]).to(model.device)
    rows = torch.arange(len(pairs), device=model.device)[:, None]
    clean = batch.runs.clean
    if model.n_layers > 1:
        resid = clean.resid_pre[1]
    else:
        resid = clean.resid_pre[0] + model.blocks[0].attn.write(clean.z[0]) + clean.mlp[0]
    resid = resid[rows, places.clamp_min(0)]
    ids, there = (each.to(model.device)[:, None] for each in padded([pair.answers for pair in pairs]))
    here = places >= 0

    def copied_by(head: Node) -> Float[Tensor, " n"]:
        check_node(model, head)
        block = model.blocks[head.layer]
        turns = clean.turns[head.layer]  # values are not turned
        value = block.attn.project_head("v", head.head, block.attn_norm(resid), turns)
        wrote = block.attn.out_head(head.head, value)
        logits = folded(model.final_norm, wrote.float()) @ model.W_U.float().T
        logits = -logits if request.negated else logits
        answers = logits.gather(-1, ids.expand(-1, logits.shape[1], -1)).masked_fill(~there, -torch.inf)
        # ties count against the answer, so that no output is no copy
        hit = (logits >= answers.amax(-1, keepdim=True)).sum(-1) <= TOP
        return (hit * here).sum(1) / here.sum(1).clamp_min(1)

    size = places.numel() * model.W_U.numel() // products(model.blocks[0])  # rows of which a layer takes as long
    sizes = [size] * len(request.heads)
    hits = torch.stack(each(model, copied_by, request.heads, sizes, VOCAB_THREADS * size)).sum(0)
    return (hits / len(request.heads)).cpu().double().numpy()
