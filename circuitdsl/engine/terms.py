"""What nodes write at END, in the clean run and in patched ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.batches import Limits, in_batches
from circuitdsl.engine.experiment import Experiment, Positions, check_node
from circuitdsl.engine.forward import PatchedRun, first_residual, layer_after, next_layer
from circuitdsl.engine.runs import Runs, Terms
from circuitdsl.models.parts import Transformer
from circuitdsl.models.writers import term


def terms_at_end(model: Transformer, terms: Terms, nodes: Sequence[Node]) -> Float[Tensor, "n nodes d"]:
    """The terms that nodes write at END."""
    return torch.stack([term(model, node, terms.value(node)[:, -1]) for node in nodes], dim=1)


@torch.inference_mode()
def patched_terms(
    model: Transformer,
    runs: Runs,
    experiments: Sequence[Experiment],
    positions: Positions,
    nodes: Sequence[Node],
    **limits: Unpack[Limits],
) -> Float[Tensor, "experiments n nodes d"]:
    """The terms that nodes write at END in every patched run; replaced nodes write what they are replaced by.

    Recomputes no further than the last of the nodes. Arguments and errors are those of `effects`.
    """
    for node in nodes:
        check_node(model, node)

    def patched(run: PatchedRun) -> Float[Tensor, "N E nodes d"]:
        return _kept_terms(replace(run, batch=replace(run.batch, kept=frozenset(nodes))), nodes)

    return in_batches(
        runs, experiments, positions, lambda base: terms_at_end(model, base.clean, nodes), patched, **limits
    )


def _kept_terms(run: PatchedRun, nodes: Sequence[Node]) -> Float[Tensor, "N E nodes d"]:
    """One forward pass over a batch, up to the last of the nodes."""
    batch, last = run.batch, max(node.layer for node in nodes)
    if batch.entry <= last or batch.from_embed:
        resid = first_residual(run)
        for layer in range(next_layer(batch), last + 1):
            resid = layer_after(run, layer, resid)
    out = terms_at_end(run.model, run.runs.clean, nodes)[batch.prompts].unsqueeze(1)
    out = out.repeat(1, len(batch.plans), 1, 1)
    for i, node in enumerate(nodes):
        if node in run.now:
            out[:, :, i] = term(run.model, node, run.now.value(node)[:, :, -1])
    return out
