"""What requests need of the runs."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from circuitdsl.circuit.nodes import EMBED, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.measurements.activation import Activation
from circuitdsl.measurements.attention import Attention
from circuitdsl.measurements.attribution import Attribution
from circuitdsl.measurements.behaviour import Behaviour
from circuitdsl.measurements.copying import Copying
from circuitdsl.measurements.kept import Kept
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, Request, Subgraph, TermRequest, kept_for

END = Position("END")
HEAD = Node("head", 2, 1)
KNOCKOUT = NodeRequest((Site(Node("mlp", 1), END),))


def edges(sender: Node, **options) -> EdgeRequest:
    return EdgeRequest((Edge(sender, Input(LOGITS, "in"), END),), **options)


@pytest.mark.parametrize(
    ("request_", "clean", "corrupt"),
    [
        (edges(EMBED), inf, 0),
        (edges(HEAD), inf, 8),
        (edges(HEAD, direction="denoise"), inf, 8),
        (KNOCKOUT, inf, 6),
        (NodeRequest(KNOCKOUT.sites, "mean"), inf, 0),
        (Attention((HEAD,), (END,), (END,)), 7, 0),
        (Attention((HEAD,), (END,), (END,), under=KNOCKOUT), 7, 6),
        (Attribution((HEAD,)), inf, 0),
        (Copying((HEAD,)), 3, 0),
        (Activation((Site(Node("mlp", 1, index=3), END),)), 6, 0),
        (NodeRequest((Site(Node("head", 0, 0), END),), under=edges(HEAD)), inf, 8),
        (Subgraph("nodes"), inf, inf),
        (TermRequest(HEAD, END), 8, 8),
    ],
)
def test_runs_go_as_far_as_they_are_read(request_: Request, clean: float, corrupt: float) -> None:
    """A layer is three steps: queries, keys and values; heads; its MLP."""
    kept = request_.kept(4)
    assert (kept.clean_steps, kept.corrupt_steps) == (clean, corrupt)


def test_what_a_patch_does_not_reach_is_not_kept_for_it() -> None:
    """A head below a patched node attends as in the clean run."""
    below = Attention((Node("head", 0, 1),), (END,), (END,))
    patched = replace(below, under=KNOCKOUT).kept(4)
    assert patched == below.kept(4) | TermRequest(Node("mlp", 1), END).kept(4)


def test_what_is_read_by_several_is_kept_once() -> None:
    some = (Attention((HEAD,), (END,), (END,)), KNOCKOUT, Behaviour(Metric()))
    both = kept_for(some, 4)
    assert both == some[0].kept(4) | KNOCKOUT.kept(4) and both.covers(KNOCKOUT.kept(4))
    assert not KNOCKOUT.kept(4).covers(both)
    with pytest.raises(ValueError, match="corrupt"):
        Kept(corrupt=frozenset([EMBED]))


def test_only_terms_that_are_replaced_with_others_are_asked_for() -> None:
    two = NodeRequest((Site(HEAD, END), Site(HEAD, Position("IO"))), ablate="mean", under=KNOCKOUT)
    assert KNOCKOUT.terms == Attention((HEAD,), (END,), (END,), under=KNOCKOUT).terms == ()
    assert two.terms == (TermRequest(HEAD, END, "mean"), TermRequest(HEAD, Position("IO"), "mean"))
