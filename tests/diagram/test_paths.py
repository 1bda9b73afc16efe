"""A path in a diagram: double lines from box to box, one figure, at its end."""

from __future__ import annotations

import pytest

from circuitdsl.api import Spec, loads
from circuitdsl.diagram import draw, to_svg

SPEC = """circuit p
model "pocket"
task ioi(prompts = 32)
heads low = 0.3 0.6 at END
heads mover = 2.4 2.5 at END
low -> mover.q at END : effect <= 50%
path low -> mover.q at END -> logits : effect <= 50%
path low -> mover.q at END -> logits : effect >= -90%
path each 0.1 -> 1.1.v at S2 -> mover.q at END -> logits : negligible
"""


@pytest.fixture(scope="module")
def spec() -> Spec:
    return loads(SPEC, "p.circ")


def test_its_arrows_are_numbered_and_are_no_edges(spec: Spec) -> None:
    arrows = draw(spec.circuits[0]).arrows
    assert [(str(a.sender), str(a.receiver), a.path, a.step) for a in arrows] == [
        ("low", "mover", "", (1, 1)),
        ("low", "mover", "path 1", (1, 2)),
        ("mover", "logits", "path 1", (2, 2)),
        ("0.1", "1.1", "path 2", (1, 3)),
        ("1.1", "mover", "path 2", (2, 3)),
        ("mover", "logits", "path 2", (3, 3)),
    ]
    assert [len(a.claims) for a in arrows] == [1, 2, 2, 1, 1, 1]
    assert all(a.negligible == (a.path == "path 2") for a in arrows)
    assert arrows[3].label == "v  path 2, 1 of 3, each"


def test_its_last_arrow_alone_has_its_figure(spec: Spec) -> None:
    report = spec.verify()
    arrows = [a for a in draw(spec.circuits[0], report).arrows if a.path == "path 1"]
    assert ["%" in arrow.label for arrow in arrows] == [False, True]
    assert {arrow.tone for arrow in arrows} == {"holds"}


def test_it_is_drawn_as_double_lines(spec: Spec) -> None:
    svg = to_svg(draw(spec.circuits[0]))
    assert svg.count('stroke="#ffffff"') >= 5
    assert "arrow of a path" in svg
    (circuit,) = loads(SPEC[: SPEC.index("path")], "p.circ").circuits
    assert "arrow of a path" not in to_svg(draw(circuit))
