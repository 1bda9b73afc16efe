"""What nodes write at END, in the clean run and in patched ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.batches import sweep
from circuitdsl.engine.count import Tally
from circuitdsl.engine.experiment import Experiment, PatchError, Positions, check_node
from circuitdsl.engine.forward import Live, first_residual, layer_after, next_layer
from circuitdsl.engine.runs import Runs, Terms
from circuitdsl.engine.via_mlps import term
from circuitdsl.models.parts import Transformer


def terms_at_end(model: Transformer, terms: Terms, nodes: Sequence[Node]) -> Float[Tensor, "n nodes d"]:
    """The terms that nodes write at END."""
    return torch.stack([_end_term(model, terms, node) for node in nodes], dim=1)


def _end_term(model: Transformer, terms: Terms, node: Node) -> Float[Tensor, "n d"]:
    match node.kind:
        case "head":
            return term(model, node, terms.z[node.layer][:, -1, node.head])
        case "mlp" if node.is_part:
            return term(model, node, terms.neuron(node)[:, -1:])
        case "mlp":
            return terms.mlp[node.layer][:, -1]
        case "embed":
            return terms.embed[:, -1]
    raise PatchError(f"{node} writes no term of the residual stream")


@torch.inference_mode()
def patched_terms(
    model: Transformer,
    runs: Runs,
    experiments: Sequence[Experiment],
    positions: Positions,
    nodes: Sequence[Node],
    *,
    max_rows: int | None = None,
    max_memory: int | None = None,
    tally: Tally | None = None,
) -> Float[Tensor, "experiments n nodes d"]:
    """The terms that nodes write at END in every patched run; replaced nodes write what they are replaced by.

    Recomputes no further than the last of the nodes. Arguments and errors are those of `effects`.
    """
    for node in nodes:
        check_node(model, node)

    def unpatched(base: Runs) -> Tensor:
        return terms_at_end(model, base.clean, nodes)

    def patched(live: Live) -> Tensor:
        return _kept_terms(replace(live, batch=replace(live.batch, kept=frozenset(nodes))), nodes)

    return sweep(
        runs, experiments, positions, unpatched, patched, max_rows=max_rows, max_memory=max_memory, tally=tally
    )


def _kept_terms(live: Live, nodes: Sequence[Node]) -> Float[Tensor, "N E nodes d"]:
    """One live pass over a batch, up to the last of the nodes."""
    model, batch = live.model, live.batch
    last = max(node.layer for node in nodes)
    if batch.entry <= last or batch.from_embed:
        resid = first_residual(live)
        for layer in range(next_layer(batch), last + 1):
            resid = layer_after(live, layer, resid)
    out = terms_at_end(model, live.runs.clean, nodes)[batch.prompts].unsqueeze(1)
    out = out.repeat(1, len(batch.plans), 1, 1)
    for i, node in enumerate(nodes):
        if node.kind == "head" and node.layer in live.z:
            out[:, :, i] = term(model, node, live.z[node.layer][:, :, -1, node.head])
        elif node in live.neurons:
            out[:, :, i] = term(model, node, live.neurons[node][:, :, -1:])
        elif node.kind == "mlp" and not node.is_part and node.layer in live.mlp:
            out[:, :, i] = live.mlp[node.layer][:, :, -1]
        elif node.kind == "embed" and live.embed is not None:
            out[:, :, i] = live.embed[:, :, -1]
    return out
