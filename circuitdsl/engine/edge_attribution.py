"""Edge attribution patching: all edges of the whole graph at once, to first order, from backward passes.

An edge's score is how far its sender's clean term is from the corrupt one, times the gradient of the metric by what its
receiver reads, summed over positions. That is what keeping the edge is worth where all is linear (Nanda 2023; Syed et
al., 2310.10348). With integrated gradients (Hanna et al., 2403.17806) the gradient is a mean over runs between the
corrupt and the clean one. Either the embeddings lie between (`inputs`), or what one node or one layer's heads write
(`activations`). As in `attribute.py` of EAP-IG, `inputs` begin at the corrupt run and stop a step before the clean one;
`activations` do it the other way round.

What all heads of a layer read is the same tensor. Its gradient by head is made from that of each head's query, key or
value, one layer at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, Node
from circuitdsl.engine.terms import Terms
from circuitdsl.engine.whole_runs import Some, WholeRuns, terms_of
from circuitdsl.engine.workers import measuring
from circuitdsl.errors import UserError
from circuitdsl.models.parts import PORTS, Norm, Port, Transformer, attend

Array = np.ndarray
Between = Literal["inputs", "activations"]


@measuring()
def attributions(runs: WholeRuns, between: Between | None = None, steps: int = 5) -> Float[Array, " edges"]:
    """The score of every edge, in the metric's unit: a mean over the prompts.

    Args:
        between: of which runs gradients are taken; by default of the clean one.
        steps: such runs, of the inputs or of each node.

    Raises:
        UserError: queries or keys of all heads of the model go through one norm together.
    """
    if any(block.attn.norms_all(port) for block in runs.model.blocks for port in PORTS):
        raise UserError(
            f"{runs.model.name} puts the queries of all heads through one norm: attribution cannot tell them apart",
            hint="take the method hybrid or exact",
        )

    def work(some: Some) -> Tensor:
        found = Attribution(runs, some)
        replaced = list(_replaced(runs.model, some, between, steps))
        for each in replaced:
            found.run(each)
        return found.total / len(replaced)

    total = sum(found.double().cpu().numpy() for _, found in runs.each(work, gradient=True))
    made: Array = runs.graph.of_matrix(np.asarray(total)) / len(runs.indices)
    return made


def _replaced(model: Transformer, some: Some, between: Between | None, steps: int) -> Iterator[dict[Node, Tensor]]:
    """What some nodes write instead, in each run."""
    if between is None:
        yield {}
        return
    layers = (Node(kind, layer) for layer in range(model.n_layers) for kind in ("head", "mlp"))
    nodes, first = ([EMBED], 0) if between == "inputs" else ([EMBED, *layers], 1)
    for node in nodes:
        clean, corrupt = (terms.value(node) for terms in (some.clean, some.corrupt))
        for step in range(first, first + steps):
            yield {node: torch.lerp(corrupt, clean, step / steps)}


@dataclass(eq=False)
class Attribution:
    """The scores of some prompts of one length, summed over runs."""

    runs: WholeRuns
    some: Some
    total: Float[Tensor, "inputs senders"] = field(init=False)
    change: Float[Tensor, "senders n T d"] = field(init=False)

    def __post_init__(self) -> None:
        graph, model = self.runs.graph, self.runs.model
        self.total = torch.zeros(len(graph.inputs), len(graph.senders), device=model.device)
        with torch.no_grad():
            self.change = _all_terms(model, self.some.clean) - _all_terms(model, self.some.corrupt)

    def run(self, replaced: dict[Node, Tensor]) -> None:
        """Add the scores by the gradient of one run."""
        model, length = self.runs.model, self.some.tokens.shape[1]
        every, last = model.turns(length), model.n_layers - 1
        resid = replaced[EMBED] if EMBED in replaced else model.embed(self.some.tokens)
        resid = resid.detach().requires_grad_()
        for layer, block in enumerate(model.blocks):
            first, width = layer * (3 * model.n_heads + 1), 1 if layer == last else length
            projected = [
                self._projected(layer, port, first + number * model.n_heads, resid, width if port == "q" else length)
                for number, port in enumerate(PORTS)
            ]
            turned = (block.attn.turned(port, x, every[layer][length - x.shape[1] :]) for port, x in projected)
            z = attend(block.attn, *(x.transpose(1, 2) for x in turned))
            heads, mlp = (replaced.get(Node(kind, layer)) for kind in ("head", "mlp"))
            _, out = block.attn.written(z, (lambda z: z) if heads is None else partial(_at_end, heads))
            resid = resid[:, -width:]
            mid = resid + out
            source = self._read(first + 3 * model.n_heads, resid if model.parallel else mid)
            resid = mid + (block.mlp(block.mlp_norm(source)) if mlp is None else mlp[:, -width:])
        end = self._read(len(self.total) - 1, resid[:, -1:])
        self.runs.score(end, self.some.places).sum().backward()

    def _read(self, place: int, resid: Float[Tensor, "n W d"]) -> Float[Tensor, "n W d"]:
        """What an MLP or the logits read; its gradient is scored."""
        read = resid.view_as(resid)
        read.register_hook(lambda gradient: self._add(place, gradient[None]))
        return read

    def _projected(
        self, layer: int, port: Port, first: int, resid: Float[Tensor, "n T d"], width: int
    ) -> tuple[Port, Float[Tensor, "n W heads d_head"]]:
        """What each query head has as its query, key or value before positions matter; its gradient is scored."""
        block = self.runs.model.blocks[layer]
        attn, source = block.attn, resid[:, -width:]
        of_port = getattr(attn, port)
        found = of_port(block.attn_norm(source)).unflatten(-1, (-1, attn.d_head))
        weight = of_port.weight.unflatten(0, (-1, attn.d_head))
        if port != "q" and attn.group > 1:
            found, weight = (x.repeat_interleave(attn.group, dim=dim) for x, dim in ((found, -2), (weight, 0)))
        seen = source.detach()

        def score(gradient: Float[Tensor, "n W heads d_head"]) -> None:
            normed = gradient.permute(2, 0, 1, 3).flatten(1, 2) @ weight
            self._add(first, _through(block.attn_norm, seen, normed.unflatten(1, seen.shape[:2])))

        found.register_hook(score)
        return port, found

    def _add(self, first: int, gradients: Float[Tensor, "inputs n W d"]) -> None:
        """Score the edges into some inputs."""
        before = int(self.runs.graph.before[first])
        change = self.change[:before, :, -gradients.shape[2] :].flatten(1)
        self.total[first : first + len(gradients), :before] += gradients.flatten(1) @ change.T


def _at_end(value: Float[Tensor, "n T *rest"], z: Tensor) -> Tensor:
    """The last positions of a value, as many as another has."""
    return value[:, -z.shape[1] :]


def _through(norm: Norm, x: Float[Tensor, "n W d"], gradients: Float[Tensor, "heads n W d"]) -> Tensor:
    """Gradients by what a norm reads, given those by what it gives."""
    with torch.enable_grad():
        read = x.expand_as(gradients).requires_grad_()
        (found,) = torch.autograd.grad(norm(read), read, gradients)
    return found


def _all_terms(model: Transformer, terms: Terms) -> Float[Tensor, "senders n T d"]:
    """The terms of all nodes, side by side."""
    found = [terms.embed[None]]
    for layer, block in enumerate(model.blocks):
        z = terms.value(Node("head", layer))
        found += [terms_of(block.attn, np.arange(model.n_heads), z), terms.value(Node("mlp", layer))[None]]
    return torch.cat(found)
