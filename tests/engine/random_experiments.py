"""Hypothesis strategies for edges, knock-outs and experiments on a model."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from circuitdsl.circuit.nodes import LOGITS, Edge, Input, Node, Position, Site
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
    some_edges = edges(model, streams(model))
    one = st.frozensets(some_edges, min_size=1, max_size=1)
    many = st.frozensets(some_edges, min_size=2, max_size=10)
    out = st.frozensets(sites(model, streams(model)), min_size=1, max_size=3)
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
    )
