"""How often parts of a circuit are found again, drawn: faint arrows and outlines, and words in boxes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import loads
from circuitdsl.circuit.nodes import Node
from circuitdsl.diagram import draw, to_svg
from circuitdsl.diagram.palette import opacity
from circuitdsl.errors import UsageError
from circuitdsl.report.again import Again, read_again

SPEC = """
circuit t
model "pocket"
task ioi
heads some = 0.3 0.5 at END
some -> logits at END : lowers
embed -> some.v at S2 : lowers
"""


def written(path: Path, nodes: list[float], edges: list[float]) -> Path:
    """A file in which two heads, and their edges to the logits, have these shares."""
    heads = [{"node": f"0.{h}", "position": "END", "found": n} for h, n in zip((3, 5), nodes, strict=True)]
    sent = [
        {"sender": f"0.{h}", "receiver": "logits", "position": "END", "found": e}
        for h, e in zip((3, 5), edges, strict=True)
    ]
    path.write_text(json.dumps({"again": {"nodes": heads, "edges": sent}}))
    return path


def test_what_few_resamples_find_is_faint(tmp_path: Path) -> None:
    """What was not looked for, here what the embedding sends, is drawn as without a file."""
    again = read_again(written(tmp_path / "f.json", [1.0, 0.5], [0.4, 0.6]))
    assert again.of_node(Node("head", 0, 5), ["END", "S2"]) == 0.5
    assert again.of_node(Node("head", 0, 7), ["END"]) is None
    drawing = draw(loads(SPEC).circuits[0], again=again)
    to_logits, from_embed = drawing.arrows
    assert (to_logits.again, from_embed.again) == (0.5, None)
    assert opacity(to_logits) < opacity(from_embed) == 0.92
    svg = to_svg(drawing)
    assert outline(svg, "0.5") < outline(svg, "0.3")
    assert "found in 50 to 100 %" in svg and "found in 100 % of resamples" in svg
    assert "resamples" not in to_svg(draw(loads(SPEC).circuits[0]))
    assert read_again(rewritten(tmp_path, again)) == again


def outline(svg: str, node: str) -> float:
    """How opaque the outline of a node is."""
    found = re.search(f'data-node="{node}"[^>]*stroke-opacity="([0-9.]+)"', svg)
    assert found
    return float(found[1])


def rewritten(folder: Path, again: Again) -> Path:
    path = folder / "again.json"
    path.write_text(json.dumps({"again": again.to_json()}))
    return path


@pytest.mark.parametrize(
    "text", ["{}", "[]", "x", '{"again": null}', '{"again": {"nodes": [], "edges": [{"sender": 1}]}}']
)
def test_a_file_that_does_not_say_it_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="does not say how often"):
        read_again(path)
    path.write_text('{"again": {"nodes": [{"node": "0.3", "position": "END", "found": 7}], "edges": []}}')
    with pytest.raises(UsageError, match="does not say how often"):
        read_again(path)


def test_render_takes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, found = tmp_path / "t.circ", written(tmp_path / "f.json", [1.0, 1.0], [1.0, 1.0])
    spec.write_text(SPEC)
    assert cli.run(["render", str(spec), "--found", str(found), "-o", str(tmp_path / "t.svg")]) == 0
    assert "found in 100 %" in (tmp_path / "t.svg").read_text()
    assert cli.run(["render", str(spec), "--found", str(tmp_path / "none.json"), "-o", str(tmp_path / "u.svg")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_page_draws_the_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That of `verify`, and that of `view`; a report in a terminal has no picture."""
    spec, found, page = tmp_path / "t.circ", written(tmp_path / "f.json", [1.0, 0.5], [0.5, 0.5]), tmp_path / "p.html"
    spec.write_text(SPEC.replace("task ioi", "task ioi(prompts = 16)"))
    verify = ["verify", str(spec), "--found", str(found), "--allow-undecided"]
    cli.run([*verify, "-o", str(page)])
    assert "found in 100 % of resamples" in page.read_text()
    assert cli.run(verify) == 2
    assert "--found is drawn, and the format is text" in capsys.readouterr().err
    cli.run(["verify", str(spec), "-o", str(tmp_path / "r.json")])
    assert cli.run(["view", str(tmp_path / "r.json"), "--no-browser", "--found", str(found), "-o", str(page)]) == 0
    assert "found in 100 % of resamples" in page.read_text()
