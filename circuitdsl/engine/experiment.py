"""Records of what is replaced in a run and of what is read at its end.

An `Experiment` is hashable and comparable, so that claims which ask for the same experiment share one run. It names
positions; the token indices of a name differ from prompt to prompt and are passed separately.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.features import dictionary_of, stands_in
from circuitdsl.circuit.nodes import ERROR, Ablation, Direction, Edge, Node, Position, Site, receives
from circuitdsl.circuit.overlaps import REMEDY, clash
from circuitdsl.engine.hooks import check_fits
from circuitdsl.engine.memory import VOCAB_ROWS
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, PathRequest, Request
from circuitdsl.models.errors import PatchError
from circuitdsl.models.parts import Transformer

#: Token indices `[n, k]` of a position in each of `n` prompts; -1 where a prompt has fewer than `k`.
Positions = Mapping[Position, Int[Tensor, "n k"]]
#: arrows of a path, each as its edges
Before = tuple[frozenset[Edge], ...]


@dataclass(frozen=True, slots=True)
class Experiment:
    """Edges to patch and nodes to knock out, all together in one run (semantics §2).

    Attributes:
        edges: each receiver input reads, for each of its senders, the term of the other run instead.
        sites: nodes whose terms are replaced at a position; everything downstream is recomputed.
        ablate: what the terms at `sites` become: those of the other run, the mean passed in `Runs.means`, or zero.
        sent: the same of what the receivers of `edges` read; via MLPs and along paths those of the other run.
        via_mlps: the senders' changes also flow through the MLPs between (attention frozen).
        direction: `noise` puts corrupt terms into the clean run, `denoise` clean terms into the corrupt run.
        before: the arrows of a path before the last, which is `edges`: their senders do not write their terms of the
            other run, but change by what arrives along these arrows (semantics §8).
    """

    edges: frozenset[Edge] = frozenset()
    sites: frozenset[Site] = frozenset()
    ablate: Ablation = "corrupt"
    via_mlps: bool = False
    direction: Direction = "noise"
    before: Before = ()
    sent: Ablation = "corrupt"

    @property
    def positions(self) -> frozenset[Position]:
        """Every position named in it."""
        places = frozenset(e.position for arrow in (*self.before, self.edges) for e in arrow)
        return places | frozenset(s.position for s in self.sites)

    def __str__(self) -> str:
        way = "".join(f"{', '.join(map(str, sorted(arrow)))}, then " for arrow in self.before)
        parts = [way + ", ".join(map(str, sorted(self.edges)))] if way else [str(edge) for edge in sorted(self.edges)]
        parts += [f"{site.node} {self.ablate} at {site.position}" for site in sorted(self.sites)]
        how = f" ablate {self.sent}" if self.sent != "corrupt" else ""
        return ", ".join(parts) + (" via mlps" if self.via_mlps else "") + how


@dataclass(frozen=True, slots=True, eq=False)
class Readout:
    """What is read at END of a run: the logits of some tokens, or a function of all of them.

    Attributes:
        tokens: token ids per prompt; only their logits are computed.
        reduce: takes logits `[m, vocab]` (float32) and the prompt of each row `[m]`, gives `[m, width]`.
        at_once: rows whose logits over the whole vocabulary are held together.
    """

    tokens: Int[Tensor, "n width"] | None = None
    reduce: Callable[[Float[Tensor, "m vocab"], Int[Tensor, " m"]], Float[Tensor, "m width"]] | None = None
    at_once: int = VOCAB_ROWS


@lru_cache(maxsize=2**14)
def experiment_of(request: Request) -> Experiment:
    """All patches that a request makes, together: edges with edges, nodes with nodes, replaced alike in all of them.

    Asked for again with every part of the prompts.
    """
    patches = request.patches
    if isinstance(request, PathRequest):
        *before, last = map(frozenset, request.arrows)
        return Experiment(edges=last, before=tuple(before))
    edges = [patch for patch in patches if isinstance(patch, EdgeRequest)]
    nodes = [patch for patch in patches if isinstance(patch, NodeRequest)]
    if len({patch.ablate for patch in edges}) > 1 or any(p.ablate != "corrupt" and p.via_mlps for p in edges):
        raise ValueError("edges are ablated in one way, and via MLPs with corrupt terms")
    if len({patch.direction for patch in patches}) > 1 or len({patch.ablate for patch in nodes}) > 1:
        raise ValueError("patches of different directions or ablations cannot be made together")
    return Experiment(
        edges=frozenset(edge for patch in edges for edge in patch.edges),
        sites=frozenset(site for patch in nodes for site in patch.sites),
        ablate=nodes[0].ablate if nodes else "corrupt",
        sent=edges[0].ablate if edges else "corrupt",
        via_mlps=any(patch.via_mlps for patch in edges),
        direction=patches[0].direction,
    )


def check(model: Transformer, experiment: Experiment) -> None:
    """Refuse an experiment that the model cannot hold.

    Raises:
        PatchError: a head or MLP that does not exist, a sender that is not strictly earlier than its receiver, or a
            path that breaks off.
    """
    for arrow, following in pairwise((*experiment.before, experiment.edges)):
        if lost := {edge.sender for edge in following} - {edge.receiver.node for edge in arrow}:
            raise PatchError(f"a path breaks off before {min(lost)}: nothing on it is sent there")
    for edge in frozenset().union(*experiment.before, experiment.edges):
        if experiment.before and edge.sender.crosses:
            raise PatchError(f"no path starts at {edge.sender}, a feature that writes into several MLPs")
        check_node(model, edge.sender)
        check_node(model, edge.receiver.node)
        if edge.receiver.node.is_part and not receives(edge.receiver.node):
            raise PatchError(
                f"{edge.receiver.node} is a part of what {edge.receiver.node.whole} writes: it reads nothing"
            )
        if edge.sender.stage(model.parallel) >= edge.receiver.node.stage(model.parallel):
            raise PatchError(f"{edge.sender} does not come before {edge.receiver.node}, so it cannot send to it")
        if edge.receiver.node == edge.receiver.node.whole and edge.receiver.node.kind == "resid":
            raise PatchError(f"{edge.receiver.node} is a sum of what is written before: it reads nothing")
        if (edge.receiver.port == "in") == (edge.receiver.node.kind == "head"):
            raise PatchError(f"{edge.receiver.node} has no input {edge.receiver.port}")
    for site in experiment.sites:
        check_node(model, site.node)
        if site.node.kind == "logits":
            raise PatchError("logits write nothing that could be replaced")
    for arrow in (*experiment.before, experiment.edges):
        nodes = {site.node for site in experiment.sites} if arrow is experiment.edges else ()
        if message := clash(arrow, nodes, via_mlps=experiment.via_mlps):
            raise PatchError(message, REMEDY)


def check_feature(model: Transformer, node: Node) -> None:
    """Raises `PatchError` where a dictionary has no such feature, or where it sits features cannot be patched yet."""
    found = dictionary_of(node)
    if node.index != ERROR and node.index >= found.d_sae:
        raise PatchError(f"{found.name} has features 0 to {found.d_sae - 1}, so there is no {node}")
    check_fits(found, model)
    if stands_in(found) != (Node("mlp", node.reads) if node.crosses else node.whole):
        raise PatchError(f"{found.name} sits at {found.writes[0]}, where {node} is no part of {node.whole}")


def check_node(model: Transformer, node: Node) -> None:
    """Raises `PatchError` where the model has no such head, MLP or residual stream."""
    layers, heads = model.n_layers, model.n_heads
    if node.kind == "resid" and not 1 <= node.layer <= layers:
        raise PatchError(f"{model.name} has residual streams 1 to {layers}, so there is no {node}")
    if node.kind in ("head", "attn", "mid", "mlp") and not 0 <= node.layer < layers:
        raise PatchError(f"{model.name} has layers 0 to {layers - 1}, so there is no {node}")
    if node.kind == "head" and not 0 <= node.head < heads:
        raise PatchError(f"{model.name} has heads 0 to {heads - 1} in a layer, so there is no {node}")
    if node.along and node.along.width != model.d_model:
        wide = f"{node.along.width} numbers, and the residual stream of {model.name} {model.d_model}"
        raise PatchError(f"the direction {node.along.name} has {wide}", "take one that was made on this model")
    if not node.is_part or node.along:
        return
    if node.of:
        check_feature(model, node)
        return
    of_mlp = node.kind == "mlp"
    many, parts = (model.blocks[node.layer].mlp.neurons, "neurons") if of_mlp else (model.d_head, "singular components")
    if not many:
        raise PatchError(f"{node.whole} of {model.name} is a mixture of experts, whose neurons cannot be named: {node}")
    if node.index >= many:
        whole = "a head" if node.kind == "head" else "an MLP"
        raise PatchError(f"{whole} of {model.name} has {parts} 0 to {many - 1}, so there is no {node}")
