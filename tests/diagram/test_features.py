"""Features of dictionaries in a diagram: six sides, a dashed line for what they leave, and words for both."""

from __future__ import annotations

import json
import re
from pathlib import Path

from circuitdsl.api import load, loads
from circuitdsl.diagram import draw, to_dot, to_svg
from circuitdsl.diagram.mermaid import to_mermaid

PLAIN = """circuit f
model "pocket"
task ioi(prompts = 32)
heads low = 0.3 0.6 at END
low -> m1 at END : lowers
"""
SPEC = f"""{PLAIN}
dictionary t1 = transcoder("pocket/transcoders/1")
features some = t1[44] t1[49] at END
some -> logits at END : lowers
t1[error] -> logits at END : negligible
"""


def test_features_have_six_sides_and_the_error_is_dashed() -> None:
    plain, svg = (to_svg(draw(loads(text).circuits[0])) for text in (PLAIN, SPEC))
    sides = dict(re.findall(r'<polygon class="chip" data-node="(.+?)" points="(?:[\d.]+,[\d.]+ ?){6}"([^>]*)>', svg))
    assert set(sides) == {"t1[44]", "t1[49]", "t1[error]"}
    assert [name for name, pen in sides.items() if "dasharray" in pen] == ["t1[error]"]
    assert "feature of a dictionary" in svg and "what its features leave" in svg
    assert "polygon" not in plain and "dictionary" not in plain
    assert 'class="chip" data-node="0.3"' in svg


def test_other_formats_know_them_too() -> None:
    drawing = draw(loads(SPEC).circuits[0])
    dot, mermaid = to_dot(drawing), to_mermaid(drawing)
    assert dot.count("shape=hexagon") == 3 and dot.count('shape=hexagon margin=0.02 style="filled,dashed"') == 1
    assert mermaid.count("{{") == 3
    names = re.findall(r"^ +(\w\S*?)(?:\{\{|\(\[|\[)", mermaid, re.MULTILINE)
    assert len(set(names)) == len(names) >= 7
    assert all(re.fullmatch(r"\w+", name) for name in names), names


def test_labels_stand_in_pictures(tmp_path: Path) -> None:
    (tmp_path / "called.json").write_text(json.dumps({"44": "names\nof people", "5": "of no node", "49": "x" * 200}))
    spec = SPEC.replace('transcoders/1"', 'transcoders/1", labels = "called.json"')
    (tmp_path / "f.circ").write_text(spec + "t1[44] -> m3 at END : negligible\n")
    drawing = draw(load(tmp_path / "f.circ").circuits[0])
    svg, dot, mermaid = to_svg(drawing), to_dot(drawing), to_mermaid(drawing)
    for found in (svg, dot):
        assert "t1[44]: names of people" in found and "of no node" not in found
    assert ": names of people t1" in mermaid
    assert "x" * 79 + "…" in dot and "x" * 80 not in dot
    alone = spec.replace("features some = t1[44] t1[49] at END\nsome", "t1[44]")
    (tmp_path / "f.circ").write_text(alone)
    assert ">names of people</text>" in to_svg(draw(load(tmp_path / "f.circ").circuits[0]))
