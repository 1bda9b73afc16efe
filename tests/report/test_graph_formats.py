"""A circuit as a graph for other programs: node-link JSON that networkx reads back, DOT, and Mermaid."""

from __future__ import annotations

import json
import re

import networkx
import pytest

from circuitdsl import cli
from circuitdsl.api import load, loads, shipped_specs
from circuitdsl.diagram import draw, to_mermaid

SPECS = sorted(str(p.relative_to(shipped_specs()).with_suffix("")) for p in shipped_specs().rglob("*.circ"))


@pytest.mark.parametrize("name", SPECS)
def test_json_is_the_graph(name: str, capsys) -> None:
    circuit = load(name).circuits[0]
    assert cli.run(["graph", name, "--circuit", circuit.name]) == 0
    found = networkx.node_link_graph(json.loads(capsys.readouterr().out), edges="edges")
    made = circuit.graph
    assert set(found.nodes) == set(made.nodes)
    assert found.number_of_edges() == made.number_of_edges()
    for node, attributes in made.nodes.items():
        assert found.nodes[node] == {k: list(v) if isinstance(v, tuple) else v for k, v in attributes.items()}


LINE = re.compile(
    r'  subgraph g\d+\["[^"]+"\]|    g\d+_\w+(\(\["[^"]+"\]\)|\{\{"[^"]+"\}\})|  end'
    r'|  g\d+(\["[^"]+"\]|\{\{"[^"]+"\}\})'
    r'|  g\d+(_\w+)? (-->|-\.->)(\|"[^"]+"\|)? g\d+(_\w+)?|  classDef outside .*|  class g[\dg,]+ outside'
)


@pytest.mark.parametrize("name", SPECS)
def test_mermaid_has_every_node_and_arrow(name: str) -> None:
    drawing = draw(load(name).circuits[0])
    first, *lines = to_mermaid(drawing).splitlines()
    assert first == "flowchart BT"
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert sum(("-->" in line) or ("-.->" in line) for line in lines) == len(drawing.arrows)
    declared = {m[1] for line in lines if (m := re.match(r" +(?:subgraph )?(g\w+)[\[({]", line))}
    used = {
        word for line in lines if "->" in line for word in re.findall(r"\b(g\d+\w*)\b", re.sub(r'"[^"]*"', "", line))
    }
    assert used <= declared


def test_mermaid_takes_words_literally_and_keeps_frames_apart() -> None:
    text = """circuit t
model "gpt2"
task ioi
heads a = 0.1 5.5 at END
heads c = 9.9 at END outside
a -> a.q at END
a -> c.q at END : negligible
"""
    spec = loads(text)
    assert spec.ok
    made = to_mermaid(draw(spec.circuits[0]))
    assert re.search(r'g0_0_1 -->(\|"[^"]*"\|)? g0_5_5', made)
    assert re.search(r'g0 -\.->(\|"[^"]*"\|)? g1', made)
    assert "class g1 outside" in made


def test_what_o_is_called_says_the_format(tmp_path, capsys) -> None:
    for name, begins in (("g.mmd", "flowchart"), ("g.dot", "digraph"), ("g.json", "{"), ("g", "{")):
        assert cli.run(["graph", "pocket/ioi", "-o", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text().startswith(begins)
    assert cli.run(["graph", "pocket/ioi", "--format", "dot"]) == 0
    assert capsys.readouterr().out.startswith("digraph")


def test_what_cannot_be_drawn_is_said(tmp_path, capsys) -> None:
    (tmp_path / "bad.circ").write_text("circuit t\nmovr -> logits\n")
    assert cli.run(["graph", str(tmp_path / "bad.circ")]) == 2
    assert cli.run(["graph", "pocket/ioi", "--circuit", "nope"]) == 2
    assert "there is no circuit nope" in capsys.readouterr().err
