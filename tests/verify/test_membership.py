"""What a spec says of its whole circuit is measured anew when the circuit is another one, and only then."""

from __future__ import annotations

import pytest

from circuitdsl.api import loads
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.verify import anew as measuring
from circuitdsl.verify.anew import measure_anew
from circuitdsl.verify.session import Session

GROUPS = """circuit t
model "pocket"
task ioi(prompts = 8)
heads suppressor = 0.3 0.5 0.6 at END
heads mover = 2.4 2.5 at END
heads idle = 3.3 3.5 at END outside
"""
CLAIMS = """suppressor -> mover.q at END : effect <= -1%
suppressor -> logits at END : lowers
"""
OF_NODES = """expect faithfulness >= 1%
expect faithfulness(ablate = mean) >= 1%
expect incompleteness <= 300%
expect sufficiency >= 1%
"""
OF_EDGES = "expect faithfulness(keep = edges) >= 1%\nexpect incompleteness(keep = edges, ablate = mean) <= 300%\n"


@pytest.fixture
def anew(pocket, monkeypatch):
    """Verify a text; returns how many circuits were run on how many prompts, of those that were not known."""
    run: list[int] = []

    def noted(prompts, requests, indices, done=None):  # type: ignore[no-untyped-def]
        run.append(len(indices) * sum(isinstance(request, Subgraph) for request in requests))
        return measure_anew(prompts, requests, indices, done)

    monkeypatch.setattr(measuring, "measure_anew", noted)

    def verify(text: str) -> int:
        spec = loads(text)
        assert spec.ok, spec.problems
        run.clear()
        with Session(pocket) as session:
            session.verify(spec, early_stop=False)
        return sum(run)

    return verify


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("effect <= -1%", "effect <= -2%"),
        (">= 1%", ">= 50%"),
        ("<= 300%", "<= 10%"),
        (
            "suppressor -> logits at END : lowers\n",
            "0.1 -> 1.1.q at END : negligible\nsuppressor -> logits at END : lowers\n",
        ),
        # false, but between nodes of the circuit: it is the same nodes
        (
            "suppressor -> logits at END : lowers\n",
            "0.3 -> 2.4.q at END : raises\nsuppressor -> logits at END : lowers\n",
        ),
        (
            "suppressor -> logits at END : lowers\n",
            "suppressor -> mover.k at END : raises\nsuppressor -> logits at END : lowers\n",
        ),
        (CLAIMS, "".join(reversed(CLAIMS.splitlines(keepends=True)))),
        ("\ntask", "\n\n# a remark\n\ntask"),
        ("idle = 3.3 3.5", "idle = 3.3"),
        ("mover", "writer"),
        ("2.4 2.5 at END", "2.5 2.4 at END"),
    ],
)
def test_nodes_are_run_again_where_others_belong_to_the_circuit(anew, old: str, new: str) -> None:
    text = GROUPS + CLAIMS + OF_NODES
    assert old in text
    assert anew(text) > 100
    assert anew(text.replace(old, new)) == 0


def test_edges_are_run_again_where_others_belong_to_the_circuit(anew) -> None:
    """With `keep = edges` it does not matter which nodes are in groups that no claim names."""
    text = GROUPS + CLAIMS.replace("suppressor", "(0.3 0.5 0.6)") + "expect faithfulness(keep = edges) >= 1%\n"
    assert anew(text) > 0
    assert anew(text.replace("0.5 0.6 at END\nheads mover", "0.5 0.6 0.7 at END\nheads mover")) == 0


@pytest.mark.parametrize(
    ("claims", "old", "new"),
    [
        (OF_NODES, "0.5 0.6 at END", "0.5 at END"),
        (OF_NODES, "3.5 at END outside", "3.5 at END"),
        (OF_NODES, "suppressor -> logits", "0.1 -> logits at END\nsuppressor -> logits"),
        (OF_NODES, "suppressor -> logits", "m1 -> logits at END : negligible\nsuppressor -> logits"),
        (OF_EDGES, "suppressor -> logits", "0.3 -> 2.4.k at END : raises\nsuppressor -> logits"),
        (OF_EDGES, "suppressor -> logits at END : lowers", "suppressor -> logits at END : negligible"),
    ],
)
def test_a_circuit_that_is_another_one_is_run(anew, claims: str, old: str, new: str) -> None:
    text = GROUPS + CLAIMS + claims
    assert old in text
    assert anew(text) > 0
    assert anew(text.replace(old, new)) > 0
