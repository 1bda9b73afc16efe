"""What requests need of the runs."""

from __future__ import annotations

import pytest

from circuitdsl.circuit.nodes import EMBED, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.measurements.attention import Attention
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, Request, Subgraph, TermRequest

END = Position("END")
HEAD = Node("head", 2, 1)
KNOCKOUT = NodeRequest((Site(Node("mlp", 1), END),))


def edges(sender: Node, **options) -> EdgeRequest:
    return EdgeRequest((Edge(sender, Input(LOGITS, "in"), END),), **options)


@pytest.mark.parametrize(
    ("request_", "stages"),
    [
        (edges(EMBED), 0),
        (edges(HEAD), 5),
        (edges(HEAD, direction="denoise"), 8),
        (KNOCKOUT, 4),
        (Attention((HEAD,), (END,), (END,)), 0),
        (Attention((HEAD,), (END,), (END,), under=KNOCKOUT), 4),
        (NodeRequest((Site(Node("head", 0, 0), END),), under=edges(HEAD)), 5),
        (Subgraph("nodes"), 8),
        (TermRequest(HEAD, END), 5),
    ],
)
def test_the_corrupt_run_goes_as_far_as_terms_are_taken_from_it(request_: Request, stages: int) -> None:
    assert request_.corrupt_stages(4) == stages


def test_only_terms_that_are_replaced_with_others_are_asked_for() -> None:
    two = NodeRequest((Site(HEAD, END), Site(HEAD, Position("IO"))), ablate="mean", under=KNOCKOUT)
    assert KNOCKOUT.terms == Attention((HEAD,), (END,), (END,), under=KNOCKOUT).terms == ()
    assert two.terms == (TermRequest(HEAD, END, "mean"), TermRequest(HEAD, Position("IO"), "mean"))
