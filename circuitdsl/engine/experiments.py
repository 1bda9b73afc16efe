"""From requests to the engine's experiments."""

from __future__ import annotations

from circuitdsl.engine.experiment import Experiment
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, Request


def experiment_of(request: Request) -> Experiment:
    """All patches that a request makes, together: edges with edges, nodes with nodes, replaced alike in all of them."""
    patches = request.patches
    edges = [patch for patch in patches if isinstance(patch, EdgeRequest)]
    nodes = [patch for patch in patches if isinstance(patch, NodeRequest)]
    if len({patch.direction for patch in patches}) > 1 or len({patch.ablate for patch in nodes}) > 1:
        raise ValueError("patches of different directions or ablations cannot be made together")
    return Experiment(
        edges=frozenset(edge for patch in edges for edge in patch.edges),
        sites=frozenset(site for patch in nodes for site in patch.sites),
        ablate=nodes[0].ablate if nodes else "corrupt",
        via_mlps=any(patch.via_mlps for patch in edges),
        direction=patches[0].direction,
    )
