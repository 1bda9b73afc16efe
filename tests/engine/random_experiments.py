"""Hypothesis strategies for edges, knock-outs and experiments on a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import strategies as st

from circuitdsl.circuit.directions import unit_of
from circuitdsl.circuit.nodes import ALONG, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.circuit.overlaps import clash
from circuitdsl.engine.experiment import Experiment
from circuitdsl.models.parts import Transformer
from tests.engine.reference import nodes
from tests.engine.small_models import neurons, streams

NAMES = ("A", "B", "END", "*")


def inputs(model: Transformer) -> list[Input]:
    """Every receiver input of a model."""
    ports = {"head": ("q", "k", "v"), "mlp": ("in",), "logits": ("in",), "embed": ()}
    return [Input(node, port) for node in nodes(model) for port in ports[node.kind]]


def parts(model: Transformer) -> list[Node]:
    """A few singular components of every head, and neurons of every MLP."""
    components = [(node, i) for node in nodes(model) if node.kind == "head" for i in (0, 1, model.d_head - 1)]
    return [*(node._replace(index=i) for node, i in components), *neurons(model)]


def along(model: Transformer) -> list[Node]:
    """The parts of a few nodes along two directions, which neither are orthogonal nor are what a head can write."""
    draw = torch.Generator().manual_seed(1)
    vectors = torch.nn.functional.normalize(torch.randn(2, model.d_model, generator=draw), dim=1).tolist()
    directions = [unit_of(name, tuple(vector))[0] for name, vector in zip("uw", vectors, strict=True)]
    heads = [Node("head", layer, head) for layer in range(model.n_layers) for head in (0, model.n_heads - 1)]
    mlps = [Node("mlp", layer) for layer in range(model.n_layers)]
    some = [Node("embed"), *heads, *mlps, *streams(model)]
    return [node._replace(index=ALONG, along=direction) for node in some for direction in directions]


def senders(model: Transformer, receiver: Node) -> list[Node]:
    """Every node that can send to a receiver, and parts of them."""
    stage = receiver.stage(model.parallel)
    return [node for node in (*nodes(model), *parts(model)) if node.stage(model.parallel) < stage]


@st.composite
def edges(draw: st.DrawFn, model: Transformer, more: Sequence[Node] = ()) -> Edge:
    receiver = draw(st.sampled_from(inputs(model)) | st.just(Input(LOGITS, "in")))
    early = [node for node in more if node.stage(model.parallel) < receiver.node.stage(model.parallel)]
    of_more = [st.sampled_from(early)] if early else []
    sender = draw(st.one_of(st.sampled_from(senders(model, receiver.node)), *of_more))
    names = ("END", "*") if receiver.node == LOGITS else NAMES
    return Edge(sender, receiver, Position(draw(st.sampled_from(names))))


def sites(model: Transformer, more: Sequence[Node] = ()) -> st.SearchStrategy[Site]:
    drawn = [st.sampled_from(list(some)) for some in ([*nodes(model)[:-1], *parts(model)], more) if some]
    return st.builds(Site, st.one_of(drawn), st.sampled_from(NAMES).map(Position))


def experiments(model: Transformer) -> st.SearchStrategy[Experiment]:
    """One edge, several, knock-outs, or both at once; direct or via MLPs; noise or denoise."""
    more = [*streams(model), *along(model)]
    some_edges = edges(model, more)
    one = st.frozensets(some_edges, min_size=1, max_size=1)
    many = st.frozensets(some_edges, min_size=2, max_size=10)
    out = st.frozensets(sites(model, more), min_size=1, max_size=3)
    none: st.SearchStrategy = st.just(frozenset())
    return st.one_of(
        *(
            st.builds(
                Experiment,
                edges=some,
                sites=ablated,
                ablate=st.sampled_from(("corrupt", "zero", "mean")) if ablated is not none else st.just("corrupt"),
                via_mlps=st.booleans(),
                direction=st.sampled_from(("noise", "denoise")),
            )
            for some, ablated in ((one, none), (many, none), (none, out), (many, out))
        ),
        st.builds(
            Experiment,
            edges=many,
            sites=none | out,
            direction=st.sampled_from(("noise", "denoise")),
            sent=st.just("mean"),
        ),
    ).filter(lambda e: not clash(e.edges, {site.node for site in e.sites}))
