"""Attribution graphs become claims: signs, places and dictionaries are right, and what cannot be said is counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuitdsl import cli
from circuitdsl.api import load
from circuitdsl.circuit.nodes import Position
from circuitdsl.discover.hypotheses import Hypothesis, asked_by, flows, place_of
from circuitdsl.interop.attribution_graphs import cantor, read
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.verify.session import Session

IOI = Path(__file__).parent.parent / "fixtures" / "attribution" / "ioi.json"
TASK = ("--task", "ioi(corrupt = abc)")
Node = dict[str, Any]


def feature(layer: int, number: int, token: int, activation: float | None = 2.0) -> Node:
    return node(f"{layer}_{number}_{token}", "cross layer transcoder", cantor(layer, number), activation=activation)


def node(name: str, kind: str, number: int = 0, **more: object) -> Node:
    layer, _, token = name.split("_")
    return {"node_id": name, "feature": number, "layer": layer, "ctx_idx": int(token), "feature_type": kind, **more}


GRAPH = [
    node("E_9_0", "embedding"),
    node("0_-1_1", "mlp reconstruction error", -1),
    feature(0, 3, 0, 4.0),
    feature(1, 5, 1),
    node("5_7_1", "logit", 7, is_target_logit=True),
    node("5_8_1", "logit", 8),
]
LINKS = [
    ("1_5_1", "5_7_1", 3.0),
    ("1_5_1", "5_8_1", -1.0),
    ("0_3_0", "1_5_1", -6.0),
    ("E_9_0", "0_3_0", 8.0),
    ("0_-1_1", "5_7_1", 0.5),
]


def written(folder: Path, nodes: list[Node], links: list, **about: object) -> Path:
    path = folder / "graph.json"
    rows = [dict(zip(("source", "target", "weight"), link, strict=True)) for link in links]
    path.write_text(json.dumps({"metadata": about, "nodes": nodes, "links": rows}))
    return path


def pair(answer: int = 7, other: int = 8) -> PromptPair:
    return PromptPair((1, 2), (3, 2), (answer,), (other,), {"S": (0,), "END": (1,)}, "")


def test_what_a_link_does_to_the_answer_is_its_weight_times_what_its_target_does(tmp_path: Path) -> None:
    graph = read(written(tmp_path, GRAPH, LINKS))
    token, error, first, second, logit, other = graph.points
    assert graph.layers == 4 and graph.length == 2
    totals, found, unknown = flows(graph, asked_by(graph, pair(), "logit_diff"))
    assert totals == {second: 4.0, first: -6.0 * (4.0 / 2), error: 0.5, token: 8.0 * (-12.0 / 4)}
    assert set(found) == {
        Hypothesis(second, other, 4.0),  # into both logits: 3 for the answer, and 1 less for the distractor
        Hypothesis(first, second, -12.0),
        Hypothesis(token, first, -24.0),
        Hypothesis(error, logit, 0.5),
    }
    assert [abs(each.effect) for each in found] == [24, 12, 4, 0.5] and not unknown
    assert flows(graph, asked_by(graph, pair(), "logit"))[0][second] == 3.0
    assert flows(graph, asked_by(graph, None, "logit_diff"))[0][second] == 3.0, "of the graph's own target"
    assert flows(graph, asked_by(graph, pair(8, 7), "logit_diff"))[0][second] == -4.0


def test_without_an_activation_nothing_is_said_of_what_goes_into_a_feature(tmp_path: Path) -> None:
    nodes = [feature(1, 5, 1, None) if each["node_id"] == "1_5_1" else each for each in GRAPH]
    graph = read(written(tmp_path, nodes, LINKS))
    _, found, unknown = flows(graph, asked_by(graph, pair(), "logit_diff"))
    assert unknown == 1 and {each.target.kind for each in found} == {"logit"}


def test_a_token_is_named_where_its_name_means_the_same_in_every_prompt() -> None:
    places = {"S": 0, "END": 4}
    one = PromptPair((0,) * 5, (0,) * 5, (1,), (2,), {"S": (0,), "END": (4,)}, "")
    two = PromptPair((0,) * 5, (0,) * 5, (1,), (2,), {"S": (2,), "END": (4,)}, "")
    assert place_of(4, places, [one, two]) == Position("END")
    assert place_of(1, places, [one]) == Position("S", 1)
    assert place_of(2, places, [one]) == Position("END", -2)
    assert place_of(2, places, [one, two]) is None, "S + 2 is END in the second, and END - 2 is S"


# --- on the pocket model --------------------------------------------------------------------------------


def imported(target: Path, *arguments: str) -> int:
    return cli.run(["import", *arguments, "-o", str(target)])


def test_the_strongest_links_of_a_graph_are_claims_that_verify_weighs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "draft.circ"
    assert imported(target, str(IOI), "--dictionary", "pocket/transcoders", *TASK, "--top", "14") == 0
    text, said = target.read_text(), capsys.readouterr().err
    lines = [line for line in text.splitlines() if " : " in line]
    assert "expect knockout(embed at S2) : lowers" in lines, "it is read at END, through heads"
    assert any(line.split() == "t2[129] -> logits at END : raises".split() for line in lines)
    assert "14 of 376 links of ioi.json" in said and "pocket/transcoders/0" in said
    assert "features of the graph are in no claim" in said
    report = Session(cache=False).verify(target, prompts=24)
    verdicts = {claim.text.split(" : ")[0]: claim.verdict for claim in report.claims}
    assert {verdicts[f"expect knockout(embed at {name})"] for name in ("IO", "S1", "S2")} == {"holds"}
    assert verdicts["t2[129] -> logits at END"] != "holds", "on one prompt it is said to work against the answer"
    assert "error" not in verdicts.values()


def test_a_link_between_features_is_an_edge(tmp_path: Path) -> None:
    target = tmp_path / "draft.circ"
    assert imported(target, str(IOI), "--dictionary", "pocket/transcoders", *TASK, "--top", "120") == 0
    lines = [" ".join(line.split()) for line in target.read_text().splitlines()]
    assert "t1[49] -> t3[142] at END : lowers" in lines and load(target).ok
    assert len(lines) == len(set(lines) | {""}) + lines.count("") - 1


def test_dictionaries_lie_beside_the_draft_or_are_named_one_by_one(tmp_path: Path) -> None:
    from circuitdsl.dictionaries import SHIPPED

    shutil.copytree(SHIPPED / "pocket" / "transcoders", tmp_path / "mine")
    target = tmp_path / "draft.circ"
    names = [argument for layer in (1, 2, 3) for argument in ("--dictionary", str(tmp_path / "mine" / str(layer)))]
    assert imported(target, str(IOI), *names, *TASK, "--top", "14") == 0
    assert 'dictionary t2 = transcoder("mine/2")' in target.read_text()
    assert not [each for each in load(target).diagnostics if each.code == "E064"]


# --- what is refused ------------------------------------------------------------------------------------


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """What `import` says of what it does not take."""

    def said(*arguments: str) -> str:
        assert cli.run(["import", *arguments]) in (2, 3)
        first, *more = capsys.readouterr().err.splitlines()
        assert first.startswith("error: ") and all(line.startswith("  help: ") for line in more)
        return first

    return said


def change(nodes: list[Node], name: str, **fields: object) -> list[Node]:
    return [{**each, **fields} if each["node_id"] == name else each for each in nodes]


@pytest.mark.parametrize(
    ("nodes", "links", "message"),
    [
        (change(GRAPH, "1_5_1", feature=27), LINKS, "and the Cantor pairing of layer 1 and feature 5 is 26"),
        (change(GRAPH, "1_5_1", layer="2"), LINKS, "its name does not say so"),
        (change(GRAPH, "1_5_1", ctx_idx=0), LINKS, "by `ctx_idx`"),
        (change(GRAPH, "1_5_1", feature_type="neuron"), LINKS, "is of the kind 'neuron'"),
        (change(GRAPH, "1_5_1", activation=float("inf")), LINKS, "an activation is a finite number"),
        ([*GRAPH, {"node_id": "x"}], LINKS, "nodes are named {layer}_{feature}_{position}"),
        ([*GRAPH, feature(0, 3, 0, 5.0)], LINKS, "two nodes are called 0_3_0"),
        ([*GRAPH, feature(4, 1, 0)], LINKS, "its logits stand above 4 layers"),
        (GRAPH, [("1_5_1", "5_7_1", float("nan"))], "a weight is a finite number"),
        (GRAPH, [("1_5_1", "5_7_1", "3")], "a weight is a finite number"),
        (GRAPH, [("1_5_1", "5_9_1", 1.0)], "there is no such node"),
        (GRAPH, [("1_5_1", "0_3_0", 1.0)], "which cannot read it"),
        (GRAPH[:4], [], "it has no logits"),
        (GRAPH, LINKS, "which is none of the task's"),
    ],
)
def test_a_wrong_graph_is_refused_in_a_sentence(
    nodes: list[Node], links: list, message: str, tmp_path: Path, refused: Refused
) -> None:
    assert message in refused(str(written(tmp_path, nodes, links)), "--dictionary", "pocket/transcoders", *TASK)


def test_what_is_no_graph_is_refused_in_a_sentence(tmp_path: Path, refused: Refused) -> None:
    path, dictionary = tmp_path / "g.json", ("--dictionary", "pocket/transcoders/1")
    for content, message in (
        (b"\x80\x04", "a file of PyTorch"),
        (b"[]", "it needs `nodes` and `links`"),
        (b"{", "it is no JSON"),
        (b'{"nodes": [], "links": []}', "it has no logits"),
    ):
        path.write_bytes(content)
        assert message in refused(str(path), *dictionary, *TASK)
    assert "a graph has one prompt and no corrupt partner" in refused(str(IOI), *dictionary)
    assert "it is an attribution graph" in refused(str(IOI), *TASK, "--model", "pocket")


def test_graphs_and_dictionaries_of_something_else_are_refused(tmp_path: Path, refused: Refused) -> None:
    told = ("--dictionary", "pocket/transcoders", *TASK)
    deeper = [
        *GRAPH[:4], node("7_7_1", "logit", 7, is_target_logit=True)
    ]  # fmt: skip
    assert "is of a model with 6 layers, and pocket has 4" in refused(str(written(tmp_path, deeper, [])), *told)
    beyond = [*GRAPH, feature(1, 300, 1)]
    path = str(written(tmp_path, beyond, [*LINKS, ("1_300_1", "5_7_1", 9.0)]))
    assert "has features 0 to 255" in refused(path, *told, "--position", "S2=0")
    path = str(written(tmp_path, GRAPH, LINKS))
    assert "no dictionary of its layer is named" in refused(
        path, "--dictionary", "pocket/transcoders/3", *TASK, "--position", "S2=1"
    )
    assert "are both of layer 3" in refused(path, *("--dictionary", "pocket/transcoders/3") * 2, *TASK)
    assert "features of such graphs are an MLP's" in refused(path, "--dictionary", "pocket/saes/resid2", *TASK)
    assert "has no position X" in refused(path, *told, "--position", "X=1")
    assert "has tokens 0 to 1" in refused(path, *told, "--position", "S2=9")
    assert "rank is better when lower" in refused(path, *told, "--metric", "rank", "--position", "S2=1")
    assert "is not written NAME=TOKEN" in refused(path, *told, "--position", "S2")
