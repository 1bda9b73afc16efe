"""Diagrams: what is drawn, that nothing overlaps, and the files that come out."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from circuitdsl.circuit.changes import EdgePatch, Member
from circuitdsl.circuit.claims import Circuit, Claim, Group, ModelUse, TaskUse
from circuitdsl.circuit.criteria import Matters, Negligible, Signed
from circuitdsl.circuit.nodes import Edge, Input, Node, Position
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.diagram import collect, layout, render, to_dot, to_html, to_svg
from circuitdsl.diagram.elements import Curve, Point, Rect, document, width, wrap
from circuitdsl.diagram.formats import FORMATS, to_png
from circuitdsl.diagram.layout import spread
from circuitdsl.diagram.model import Drawing
from circuitdsl.diagram.page import OUTSIDE, Page, PlacedArrow, in_order, lay_out
from circuitdsl.diagram.palette import TONES
from circuitdsl.diagram.svg import layers
from circuitdsl.errors import UserError
from circuitdsl.measurements.edge import EdgeEffect
from circuitdsl.report.report import ClaimResult, Measured, MemberResult, ModelInfo, Report, SpecInfo
from tests.drawing import examples

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's dot is not installed")
SVG = "{http://www.w3.org/2000/svg}"
NAUGHTY = '<script>alert("1")</script> & ]]> \\N \\" \x00 %'

# --- circuits by hand -------------------------------------------------------------------------------


def node(name: str) -> Node:
    if name in ("embed", "logits"):
        return Node(name)
    if name[0] == "m":
        return Node("mlp", int(name[1:]))
    layer, head = name.split(".")
    return Node("head", int(layer), int(head))


def position(name: str) -> Position:
    base, plus, offset = name.partition("+")
    return Position(base, int(offset) if plus else 0)


def group(name: str, heads: str, at: str = "", role: str | None = None, outside: bool = False) -> Group:
    places = tuple(position(place) for place in at.split(", ")) if at else ()
    return Group(name, tuple(map(node, heads.split())), places, role or name, outside, 1)


def claim(number: int, text: str, groups: dict[str, Group], via: bool = False) -> Claim:
    """A claim from its text, in the few forms that the tests use."""
    edge, _, test = text.removeprefix("each ").partition(" : ")
    ends, _, at = edge.partition(" at ")
    sender, receiver = ends.split(" -> ")
    port = receiver[-1] if receiver[-2:] in (".q", ".k", ".v") else ""
    receiver = receiver.removesuffix(f".{port}") if port else receiver
    members = [
        Member(s, r, tuple(Edge(s, Input(r, p), position(at)) for p in ports))
        for s in members_of(sender, groups)
        for r in members_of(receiver, groups)
        if s.stage() < r.stage()
        for ports in [(port,) if port else ("q", "k", "v") if r.kind == "head" else ("in",)]
    ]
    tests = {"negligible": Negligible(), "lowers": Signed("lowers"), "raises": Signed("raises")}
    return Claim(
        f"c{number:02d}",
        10 + number,
        text,
        "edge",
        EdgeEffect(EdgePatch(tuple(members), via, sender=sender, receiver=receiver)),
        (tests.get(test, Matters()),),
        text.startswith("each "),
        0.01,
        ("ioi",),
    )


def members_of(names: str, groups: dict[str, Group]) -> list[Node]:
    found: list[Node] = []
    for sign, name in re.findall(r"([+-]?) ?([^ +-]+)", names):
        some = groups[name].nodes if name in groups else (node(name),)
        found = [n for n in found if n not in some] if sign == "-" else [*found, *some]
    return found


def circuit(groups: list[Group], edges: Sequence[str], title: str = "A circuit", via: bool = False) -> Circuit:
    known = {g.name: g for g in groups}
    claims = tuple(claim(i, text.strip(), known, via) for i, text in enumerate(edges, start=1))
    return Circuit(
        "c",
        title,
        ModelUse("gpt2"),
        (TaskUse("ioi", "ioi", corrupt="abc"),),
        Metric(),
        tuple(groups),
        tuple(c for c in claims if c.measurement.members),  # type: ignore[union-attr]
        ("Wang et al. 2022, arXiv:2211.00593",),
    )


IOI = circuit(
    [
        group("previous_token", "2.2 4.11", "S1+1"),
        group("duplicate_token", "0.1 0.10 3.0", "S2"),
        group("induction", "5.5 5.8 5.9 6.9", "S2"),
        group("inhibition", "7.3 7.9 8.6 8.10", "END"),
        group("mover", "9.6 9.9 10.0", "END"),
        group("negative", "10.7 11.10", "END", role="negative_mover"),
        group("backup", "9.0 9.7 10.1 10.2 10.6 10.10 11.2 11.9", "END", role="backup_mover"),
    ],
    [
        "previous_token -> induction.k at S1+1",
        "induction -> inhibition.v at S2 : lowers",
        "duplicate_token -> inhibition.v at S2",
        "inhibition -> mover.q at END : lowers",
        "each inhibition -> 9.9.q at END : lowers",
        "inhibition -> mover.v at END : negligible",
        "mover -> logits at END : lowers",
        "negative -> logits at END : raises",
        "backup -> logits at END",
        "mover -> mover.q at END",
        "9.9 -> 10.0.q at END",
        "mover -> backup.q at END",
    ],
    "Indirect object identification",
    via=True,
)
TINY = circuit(
    [group("previous_token", "0.3", "X+1"), group("induction", "1.4 1.6", "END")],
    ["previous_token -> induction.k at X+1", "induction -> logits at END"],
)
DENSE = circuit(
    [
        group("early", "0.0 0.1 0.2 0.5 0.7", "S2"),
        group("prev", "0.3 1.2", "S1+1"),
        group("induct", "1.0 1.5 2.2 2.7", "S2"),
        group("inhibit", "2.0 2.1 2.4", "END"),
        group("mover", "3.0 3.2 3.5", "END"),
        group("negative", "3.7", "END"),
        group("quiet", "1.1 1.6 2.6", "END", outside=True),
    ],
    """
    prev -> induct.k at S1+1
    early -> induct.q at S2
    early -> inhibit.v at S2
    induct -> inhibit.v at S2
    each induct -> 2.4.v at S2
    inhibit -> mover.q at END
    2.1 -> 3.0.q at END
    2.1 -> 3.2.q at END
    2.4 -> 3.5.q at END
    inhibit -> mover.k at END : negligible
    inhibit -> mover.v at END : negligible
    mover -> logits at END
    negative -> logits at END
    inhibit -> negative.q at END
    embed -> early at S2
    quiet -> mover.q at END : negligible
    embed -> prev.v at S1
    m0 -> induct.k at S2
    m3 -> logits at END
    mover -> m3 at END
    inhibit - 2.0 -> negative.v at END
    early + prev -> m0 at S2
    0.1 -> 2.4.v at S2
    """.strip().splitlines(),
)
EMPTY = circuit([], [])
HAND = {"ioi": IOI, "tiny": TINY, "dense": DENSE, "empty": EMPTY, "no_edges": replace(IOI, claims=())}


def a_report(drawn: Circuit, verdicts: Sequence[str] = ("holds",), effect: float | None = -0.4, **more: object) -> dict:
    """A report with the given verdicts, in turn."""
    claims = [
        {
            "id": stated.id,
            "line": stated.line,
            "text": stated.text,
            "kind": stated.kind,
            "task": "ioi",
            "verdict": verdict,
            "reason": "because",
            "measured": None if effect is None else {"name": "effect", "value": effect, "ci": None, "n": 128},
            "members": [],
        }
        for stated, verdict in zip(drawn.claims, itertools.cycle(verdicts), strict=False)
    ]
    return {"schema": 1, "model": {"name": "pocket"}, "claims": claims, **more}


def as_report(found: dict) -> Report:
    """The report that a dictionary sketches: what it leaves out is as a verification would have it."""
    spec, model = found.get("spec", {}), found["model"]
    return Report(
        SpecInfo("c.circ", "c", spec.get("sha256", "")),
        ModelInfo(model["name"], "", 4, 8, "cpu", "float32", False),
        (),
        tuple(map(as_result, found["claims"])),
        0.0,
    )


def as_result(entry: dict) -> ClaimResult:
    measured, members = entry["measured"], entry["members"]
    if measured is not None:
        unit = "gap" if measured["name"] == "effect" else ""
        measured = Measured(**{"ci": None, "n": 0, "unit": unit, **measured})
    missing = {"sender": "", "receiver": "", "input": "in", "position": "", "ci": None, "delta": None, "n": 0}
    members = tuple(MemberResult(**{**missing, **member}) for member in members)
    return ClaimResult(**{"kind": "edge", **entry, "measured": measured, "members": members})


def draw(spec: Circuit, report: dict | None = None) -> Drawing:
    return collect.draw(spec, None if report is None else as_report(report))


def line_of(arrow: PlacedArrow) -> list[Point]:
    """Points on an arrow."""
    return [on(curve, i / 24) for curve in arrow.curves for i in range(25)]


def on(curve: Curve, t: float) -> Point:
    s = 1 - t
    weights = (s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t)
    x, y = (sum(w * point[i] for w, point in zip(weights, curve, strict=True)) for i in (0, 1))
    return x, y


def overlap(one: Rect, other: Rect) -> bool:
    """Touching is not overlapping."""
    across = one.x < other.right and other.x < one.right
    return across and one.y < other.bottom and other.y < one.bottom


def holds(rect: Rect, point: Point) -> bool:
    return rect.x < point[0] < rect.right and rect.y < point[1] < rect.bottom


def random_circuit(seed: int) -> Circuit:
    """Anything: overlapping groups, edges both ways, single heads, many places."""
    r = random.Random(seed)
    layers, places = r.choice([2, 4, 12]), r.sample(["S1", "S1+1", "S2", "IO", "END"], r.randint(1, 5))
    groups = []
    for i in range(r.randint(0, 8)):
        low = r.randrange(layers)
        heads = sorted({(min(layers - 1, low + r.randint(0, 2)), r.randrange(8)) for _ in range(r.randint(1, 9))})
        written = " ".join(f"{layer}.{head}" for layer, head in heads)
        groups.append(group(f"g{i}" * r.randint(1, 4), written, r.choice(places), outside=r.random() < 0.1))
    heads_alone = [f"{r.randrange(layers)}.{r.randrange(8)}" for _ in range(5)] + [f"m{r.randrange(layers)}"]
    inside = [str(n) for g in groups for n in g.nodes]
    names = [g.name for g in groups] + heads_alone + inside
    edges = []
    for _ in range(r.randint(0, 26)):
        receiver = r.choice([*names, "logits"])
        port = "" if receiver == "logits" or receiver[0] == "m" else r.choice([".q", ".k", ".v", ""])
        edges.append(f"{r.choice([*names, 'embed'])} -> {receiver}{port} at {r.choice(places)}")
    return circuit(groups, edges)


# --- what is drawn ----------------------------------------------------------------------------------


def named(drawing: Drawing) -> list[str]:
    return [f"{arrow.sender} -> {arrow.receiver} {arrow.label}".strip() for arrow in drawing.arrows]


def test_every_group_head_and_edge_is_drawn_once() -> None:
    root = ET.fromstring(to_svg(draw(IOI)))
    boxes = Counter(g.get("data-box") for g in root.iter(f"{SVG}g") if g.get("data-box"))
    assert boxes == Counter([*(g.name for g in IOI.groups), "logits"])
    chips = Counter(rect.get("data-node") for rect in root.iter(f"{SVG}rect") if rect.get("data-node"))
    assert chips == Counter(["logits", *(str(n) for g in IOI.groups for n in g.nodes)])
    claims = Counter(g.get("data-claims") for g in root.iter(f"{SVG}g") if g.get("data-claims"))
    assert claims == Counter(c.id for c in IOI.claims)


def test_group_edges_join_boxes_and_single_heads_their_chips() -> None:
    found = named(draw(IOI))
    assert "inhibition -> mover q" in found
    assert "inhibition -> 9.9 q  each" in found
    assert "mover -> logits" in found
    assert "mover -> mover q" in found, (
        "pairs that cannot exist are left out of the claim, the arrow is still the group's"
    )
    assert "9.9 -> 10.0 q" in found


def test_set_expressions() -> None:
    found = named(draw(DENSE))
    assert "inhibit without 2.0 -> negative v  without 2.0" in found
    assert "early -> m0 jointly" in found
    assert "0.3 -> m0 jointly, at S2" in found


def test_the_boxes_of_an_edge_are_those_of_its_position() -> None:
    """m1 alone is a group at G, and a part of one at NAME; m2 and m3 likewise."""
    groups = [group("late", "m2 m3", "G"), group("all", "m1 m2 m3", "NAME"), group("early", "m1", "G")]
    spec = circuit(groups, ["m1 -> m2 at NAME", "m1 -> m2 at G", "embed -> m1 at NAME"])
    assert [(a.sender.box, a.receiver.box) for a in draw(spec).arrows] == [
        ("all", "all"),
        ("early", "late"),
        ("embed", "all"),
    ]
    both = replace(spec.claims[0], text="m1 -> (m2 m3) at NAME", measurement=joined("m1", "m2 m3", "NAME"))
    found = draw(replace(spec, claims=(both,))).arrows
    assert [f"{a.sender} -> {a.receiver} in {a.receiver.box}" for a in found] == ["m1 -> m2 in all", "m1 -> m3 in all"]
    far = circuit(groups, ["m1 -> m2 at END"])
    assert [(a.sender.box, a.receiver.box, a.note) for a in draw(far).arrows] == [("early", "late", "at END")]


def test_a_group_in_another_draws_no_head_twice_and_moves_no_arrow() -> None:
    again = [group("strong", "9.9", "END"), group("wide", "9.9 9.6 11.3", "END")]
    before, after = draw(IOI), draw(replace(IOI, groups=(*IOI.groups, *again)))
    assert named(after) == named(before)
    chips = Counter(node for box in after.boxes for node in box.nodes)
    assert set(chips.values()) == {1}
    assert after.box["mover"].notes == ("strong: 9.9", "wide: 9.9 9.6")
    assert after.box["wide"].nodes == (node("11.3"),) and "strong" not in after.box
    claims = [
        claim(i, text, {g.name: g for g in again})
        for i, text in enumerate(("strong -> 11.3.q at END", "wide -> logits at END"))
    ]
    asked = draw(replace(IOI, groups=(*IOI.groups, *again), claims=tuple(claims)))
    assert named(asked) == [
        "9.9 -> wide q",
        "mover without 10.0 -> logits without 10.0, jointly",
        "wide -> logits jointly",
    ]


def joined(senders: str, receivers: str, at: str) -> EdgeEffect:
    pairs = itertools.product(map(node, senders.split()), map(node, receivers.split()))
    return EdgeEffect(EdgePatch(tuple(Member(s, r, (Edge(s, Input(r, "in"), position(at)),)) for s, r in pairs)))


def test_claims_about_the_same_edge_are_one_arrow() -> None:
    groups = [group("a", "0.0 0.1", "END"), group("b", "1.0", "END")]
    twice = circuit(groups, ["a -> b.q at END", "a -> b.q at END : lowers"])
    (arrow,) = draw(twice).arrows
    assert [said.id for said in arrow.claims] == ["c01", "c02"]


def test_a_place_is_told_where_the_sender_does_not_tell_it() -> None:
    assert [arrow.note for arrow in draw(DENSE).arrows if arrow.sender.box == "embed"] == ["at S2", "at S1"]


def test_protocol_is_told_once_or_per_arrow() -> None:
    assert "edges via MLPs" in draw(IOI).facts
    a, b = group("a", "0.0", "END"), group("b", "1.0", "END")
    known = {"a": a, "b": b}
    claims = claim(1, "a -> b.q at END", known), claim(2, "a -> b.k at END", known, via=True)
    assert [arrow.note for arrow in draw(replace(circuit([a, b], []), claims=claims)).arrows] == ["", "via MLPs"]


def test_expectations_are_no_arrows() -> None:
    asked = replace(TINY, claims=(replace(TINY.claims[0], kind="expect"),))
    assert draw(asked).arrows == ()


# --- reports ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["holds", "fails", "undecided", "error"])
def test_verdicts_colour_the_edges(verdict: str) -> None:
    drawing = draw(TINY, a_report(TINY, (verdict,)))
    assert {arrow.tone for arrow in drawing.arrows} == {verdict}
    root = ET.fromstring(to_svg(drawing))
    edges = [g for g in root.iter(f"{SVG}g") if (g.get("class") or "").startswith("edge")]
    assert len(edges) == 2
    for edge in edges:
        assert edge.get("class") == f"edge {verdict}"
        assert edge.find(f"{SVG}path").get("stroke") == TONES[verdict]  # type: ignore[union-attr, index]
    assert TONES[verdict] in to_dot(drawing)  # type: ignore[index]


def test_worst_task_colours_the_edge() -> None:
    report = a_report(TINY)
    report["claims"] += [{**report["claims"][0], "task": "flip", "verdict": "fails", "reason": "too weak"}]
    first, second = draw(TINY, report).arrows
    assert (first.tone, second.tone) == ("fails", "holds")
    assert first.finding and "flip: fails: too weak" in first.finding.reasons


def on_two_tasks(drawn: Circuit, verdicts: Sequence[str] = ("holds",)) -> dict:
    """A report with other figures and verdicts on a second task."""
    report = a_report(drawn, verdicts)
    other = [
        {**entry, "task": "flip", "measured": {**entry["measured"], "value": -0.19}}
        for entry in a_report(drawn, verdicts[::-1])["claims"]
    ]
    return {**report, "claims": [*report["claims"], *other]}


def test_a_figure_is_told_with_its_task_where_there_are_several() -> None:
    drawing = draw(TINY, on_two_tasks(TINY))
    assert [arrow.label for arrow in drawing.arrows] == ["k  ioi −40 %, flip −19 %", "ioi −40 %, flip −19 %"]
    told = words(to_svg(drawing))
    assert told.count("ioi −40 %") == told.count("flip −19 %") == 2


def test_of_many_tasks_the_range_is_told() -> None:
    report = on_two_tasks(TINY)
    more = [
        {**entry, "task": "swap", "measured": {**entry["measured"], "value": -0.3}} for entry in report["claims"][:2]
    ]
    report["claims"] += [{**more[0], "verdict": "fails"}, more[1]]
    assert [arrow.label for arrow in draw(TINY, report).arrows] == [
        "k  ioi −40 % holds, flip −19 % holds, swap −30 % fails",
        "3 tasks −40 % to −19 %",
    ]


def test_claims_and_tasks_that_disagree_are_told_apart() -> None:
    groups = [group("a", "0.0 0.1", "END"), group("b", "1.0", "END")]
    spec = circuit(groups, ["a -> b.q at END : lowers", "a -> b.q at END : raises"])
    (arrow,) = lay_out(draw(spec, a_report(spec, ("holds", "fails")))).arrows
    assert arrow.arrow.label == "q  −40 % lowers holds, −40 % raises fails"
    assert arrow.label and list(arrow.label.verdicts) == ["holds", "fails"]
    told = words(to_svg(draw(spec, a_report(spec, ("holds", "fails")))))
    assert {"−40 % lowers", "−40 % raises"} <= set(told)
    (agreed,) = draw(spec, a_report(spec)).arrows
    assert agreed.label == "q  −40 %"
    marks = [a.label.verdicts for a in lay_out(draw(TINY, on_two_tasks(TINY, ("holds", "fails")))).arrows if a.label]
    assert marks == [("holds", "fails"), ("fails", "holds")]


def test_a_joint_figure_is_told_once() -> None:
    drawing = draw(DENSE, a_report(DENSE))
    told = [arrow for arrow in drawing.arrows if [said.text for said in arrow.claims] == ["early + prev -> m0 at S2"]]
    assert len(told) == 2 and {arrow.tone for arrow in told} == {"holds"}
    assert [arrow.label for arrow in told] == ["−40 %  jointly early + prev → m0", ""]
    marked = [arrow.label for arrow in lay_out(drawing).arrows if arrow.arrow in told]
    assert [label is None for label in marked] == [False, True]


def test_parts_of_a_box_are_told_beside_a_joint_figure() -> None:
    groups = [group("a", "0.0 0.1 0.2", "END"), group("b", "1.0", "END")]
    spec = circuit(groups, ["a - 0.0 + m0 -> b.q at END"])
    assert [arrow.label for arrow in draw(spec, a_report(spec)).arrows] == [
        "q  −40 %  without 0.0, jointly a - 0.0 + m0 → b",
        "",
    ]


def test_width_grows_with_the_effect_and_the_label_says_it() -> None:
    report = a_report(TINY)
    report["claims"][0]["measured"]["value"] = -0.02
    drawing = draw(TINY, report)
    weak, strong = drawing.arrows
    assert drawing.width(weak) < drawing.width(strong)
    assert (weak.label, strong.label) == ("k  −2.0 %", "−40 %")
    assert drawing.full == 0.5
    assert "effect ±50 %" in to_svg(drawing)


def test_effect_from_members_where_the_claim_measures_something_else() -> None:
    report = a_report(TINY)
    report["claims"][0]["measured"] = {"name": "delta", "value": -1.25}
    report["claims"][0]["members"] = [{"effect": -0.1}, {"effect": 0.3}]
    arrow = draw(TINY, report).arrows[0]
    assert arrow.finding and (arrow.finding.effect, arrow.finding.shown) == (0.3, "−1.25")


def test_claims_missing_from_the_report_and_errors_without_numbers() -> None:
    report = a_report(TINY, ("error",), effect=None)
    del report["claims"][0]
    drawing = draw(TINY, report)
    assert [arrow.tone for arrow in drawing.arrows] == ["unmeasured", "error"]
    assert "not in the report" in to_svg(drawing)


def test_a_report_on_another_version_is_told() -> None:
    spec = replace(TINY, sha256="a" * 64)
    assert any("another version" in fact for fact in draw(spec, a_report(spec, spec={"sha256": "b" * 64})).facts)


def test_negligible_is_dashed_and_faint() -> None:
    root = ET.fromstring(to_svg(draw(IOI)))
    (faint,) = [g for g in root.iter(f"{SVG}g") if g.get("data-claims") == "c06"]
    line, head = faint.findall(f"{SVG}path")
    assert line.get("stroke-dasharray")
    assert line.get("stroke-opacity") == head.get("fill-opacity") == "0.50"


def asking(*verdicts: str) -> tuple[Circuit, dict]:
    """TINY with an expectation for every verdict, and its report."""
    asked = [
        replace(
            TINY.claims[0], id=f"c{i:02d}", line=10 + i, text=f"expect attention(a, END -> P{i}) >= 80%", kind="expect"
        )
        for i in range(3, 3 + len(verdicts))
    ]
    spec = replace(TINY, claims=(*TINY.claims, *asked))
    report = a_report(spec, ("holds", "holds", *verdicts))
    for entry in report["claims"][2:]:
        entry["measured"] = {"name": "attention", "value": 0.588, "ci": [0.54, 0.64], "n": 64, "unit": "share"}
    return spec, report


def words(svg: str) -> list[str]:
    return ["".join(line.itertext()) for line in ET.fromstring(svg).iter(f"{SVG}text")]


def test_expectations_that_do_not_hold_are_told_below_the_diagram() -> None:
    told = words(to_svg(draw(*asking("holds", "fails", "undecided", "error"))))
    assert [line for line in told if line.startswith("expect")] == [
        f"expect attention(a, END -> P{i}) >= 80%: 59 %" for i in (4, 5, 6)
    ]
    assert not [line for line in words(to_svg(draw(*asking("holds")))) if line.startswith("expect")]


def test_an_expectation_s_figure_says_what_it_is() -> None:
    spec, report = asking("fails")
    copying = {"name": "copying", "value": 0.6, "unit": "share", "named": True}
    report["claims"][2].update(text="expect role(mover)", measured=copying)
    assert "expect role(mover): copying 60 %" in words(to_svg(draw(spec, report)))
    report["claims"][2].update(
        text="expect attribution(a) > 0", measured={"name": "attribution", "value": -1, "unit": "logits"}
    )
    assert "expect attribution(a) > 0: −1.00 logits" in words(to_svg(draw(spec, report)))


def test_many_expectations_that_do_not_hold_are_counted() -> None:
    told = words(to_svg(draw(*asking(*["fails"] * 11))))
    assert sum(line.startswith("expect") for line in told) == 8
    assert "and 3 more" in told


def test_an_expectation_without_a_figure_says_why() -> None:
    spec, report = asking("error")
    report["claims"][2].update(measured=None, reason="no such position")
    assert f"{spec.claims[2].text}: no such position" in words(to_svg(draw(spec, report)))


@pytest.mark.parametrize(
    ("value", "unit", "label"),
    [
        (-0.0134, "points", "−1.3 points"),
        (0.001, "points", "0.1 points"),
        (-0.0034, "logits", "−0.0034 logits"),
        (1.234, "nats", "1.23 nats"),
        (0.0, "logits", "0.00 logits"),
        (0.25, "share", "25 %"),
    ],
)
def test_a_delta_is_labelled_in_its_unit(value: float, unit: str, label: str) -> None:
    report = a_report(TINY)
    report["claims"][0]["measured"] = {"name": "delta", "value": value, "ci": None, "n": 64, "unit": unit}
    finding = draw(TINY, report).arrows[0].finding
    assert finding and finding.shown == label


def test_heads_outside_are_counted_apart() -> None:
    apart = "quiet"
    (inside,) = {len({n for g in DENSE.groups if g.name != apart for n in g.nodes})}
    assert f"{inside} heads, 3 outside" in draw(DENSE).facts
    assert "3 heads" in draw(TINY).facts


def legend_of(drawing: Drawing) -> dict[str, tuple[float, str | None]]:
    """Entries of the legend: their height on the page and the colour of their line."""
    root = ET.fromstring(to_svg(drawing))
    legend = root.findall(f"{SVG}g")[-1]
    found, colour = {}, None
    for mark in legend.iter():
        if mark.tag == f"{SVG}path" and mark.get("stroke") != "#ffffff":
            colour = mark.get("stroke")
        if mark.tag == f"{SVG}text":
            found["".join(mark.itertext())] = float(mark.get("y") or 0), colour
    return found


def test_the_legend_shows_negligible_as_it_is_drawn() -> None:
    assert legend_of(draw(IOI))["claimed negligible"][1] == TONES["v"]
    assert legend_of(draw(IOI, a_report(IOI)))["claimed negligible"][1] == TONES["holds"]


@pytest.mark.parametrize("verdicts", [("holds",), ("holds", "fails"), ("holds", "fails", "undecided", "error")])
def test_the_widths_of_the_legend_stand_on_one_line(verdicts: Sequence[str]) -> None:
    for spec in (TINY, IOI):
        entries = legend_of(draw(spec, a_report(spec, verdicts)))
        assert len({y for words, (y, _) in entries.items() if words.startswith("effect")}) == 1


# --- layout -----------------------------------------------------------------------------------------


def assert_clear(page: Page) -> None:
    """Nothing lies over anything else, and everything lies on the page."""
    area = page.area
    labels = [(arrow, rect) for arrow in page.arrows if (rect := arrow.label_rect)]
    for (one, a), (other, b) in itertools.combinations(page.boxes.items(), 2):
        assert not overlap(a, b), (one, other)
    for (one, a), (other, b) in itertools.combinations(labels, 2):
        assert not overlap(a, b), (one.arrow.label, other.arrow.label)
    for arrow, rect in labels:
        for key, box in page.boxes.items():
            if arrow.arrow.within and key == arrow.arrow.sender.box:
                nodes = [chip.moved(box.x, box.y) for chip in page.shapes[key].chips.values()]
                assert not any(overlap(rect, node) for node in nodes), arrow.arrow.label
            else:
                assert not overlap(rect, box), (arrow.arrow.label, key)
    for rect in (*(rect for _, rect in labels), *page.boxes.values()):
        assert area.x <= rect.x and area.y <= rect.y and rect.right <= area.right and rect.bottom <= area.bottom
    for arrow in page.arrows:
        assert all(holds(area, point) for point in line_of(arrow))


def assert_inside(page: Page) -> None:
    """Chips, names and places lie in their box, apart from each other."""
    for shape in page.shapes.values():
        area = Rect(0, 0, shape.width, shape.height)
        root = ET.fromstring(f"<g>{''.join(shape.elements)}</g>")
        frames = [Rect(*(float(r.get(k) or 0) for k in ("x", "y", "width", "height"))) for r in root.iter("rect")]
        for rect in frames:
            assert area.x <= rect.x and rect.right <= area.right + 0.1
            assert area.y <= rect.y and rect.bottom <= area.bottom + 0.1
        parts = [rect.grown(-0.1) for rect in frames if rect.width < area.width - 1]
        if len(parts) == len(frames):  # no frame: a chip that stands alone
            continue
        for text in root.iter("text"):
            if not text.get("text-anchor"):
                size, bold = float(text.get("font-size") or 0), bool(text.get("font-weight"))
                x, y = float(text.get("x") or 0), float(text.get("y") or 0) - 0.35 * size
                parts.append(Rect(x, y - 6, width(text.text or "", size, bold), 12))
        for one, other in itertools.combinations(parts, 2):
            assert not overlap(one, other), shape.elements
        assert all(part.x >= 0 and part.right <= area.right for part in parts)


def assert_not_through_boxes(page: Page) -> None:
    for arrow in page.arrows:
        ends = (arrow.arrow.sender.box, arrow.arrow.receiver.box)
        for key, box in page.boxes.items():
            assert key in ends or not any(holds(box, point) for point in line_of(arrow)), (str(arrow.arrow.sender), key)


@pytest.mark.parametrize("reported", [False, True])
@pytest.mark.parametrize("name", HAND)
def test_nothing_overlaps(name: str, reported: bool) -> None:
    spec = HAND[name]
    layout = lay_out(draw(spec, a_report(spec, ("holds", "fails", "undecided")) if reported else None))
    assert_clear(layout)
    assert_inside(layout)
    assert_not_through_boxes(layout)
    assert layout.area.width < 1200 - 56  # the words about layers stand beside it


@pytest.mark.parametrize("name", HAND)
def test_nothing_overlaps_with_several_tasks(name: str) -> None:
    layout = lay_out(draw(HAND[name], on_two_tasks(HAND[name], ("holds", "fails", "undecided"))))
    assert_clear(layout)
    assert_inside(layout)
    assert_not_through_boxes(layout)


@pytest.mark.parametrize("seed", range(40))
def test_nothing_overlaps_in_random_circuits(seed: int) -> None:
    spec = random_circuit(seed)
    reports = (None, a_report(spec), on_two_tasks(spec, ("holds", "fails")))
    layout = lay_out(draw(spec, reports[seed % 3]))
    assert_clear(layout)
    assert_inside(layout)
    assert_not_through_boxes(layout)


def crowded(edges: int, between: str) -> Circuit:
    """So many edges between 144 single heads, between 48 groups, or between the 32 heads of `one` or `two` groups."""
    r, one = random.Random(0), {"one": 1, "two": 2}.get(between)
    heads = [f"{layer}.{head}" for layer in range(8 if one else 12) for head in range(4 if one else 12)]
    size = 3 if between == "groups" else len(heads) // (one or 1)
    some = [group(f"g{i}", " ".join(heads[i : i + size]), "END") for i in range(0, len(heads), size)]
    names = [(g.nodes[0].layer, g.name) for g in some]
    if between != "groups":
        names = [(int(head.split(".")[0]), head) for head in heads]
    pairs = [(a, b) for (low, a), (high, b) in itertools.product(names, names) if low < high]
    drawn = [f"{a} -> {b}.q at END" for a, b in sorted(r.sample(pairs, edges))]
    return circuit([] if between == "heads" else some, drawn)


@pytest.mark.parametrize("edges", examples([10, 100, 200], [10, 100, 400]))
@pytest.mark.parametrize("between", ["heads", "groups", "one", "two"])
def test_nothing_overlaps_however_many_edges(between: str, edges: int) -> None:
    spec = crowded(edges, between)
    drawing = draw(spec, a_report(spec, ("holds", "fails", "undecided")))
    page = lay_out(drawing)
    assert len([arrow for arrow in page.arrows if arrow.label]) == edges
    assert_clear(page)
    assert_inside(page)
    svg = to_svg(drawing)
    labels = rects_of(svg, "label")
    assert len(labels) == edges
    for one, other in itertools.combinations(labels, 2):
        assert not overlap(one.grown(-0.1), other.grown(-0.1))


def rects_of(svg: str, kind: str) -> list[Rect]:
    """The frames of the groups of a class, where they stand in the plot."""
    found = []
    for part in ET.fromstring(svg).iter(f"{SVG}g"):
        if part.get("class") == kind:
            (x, y), frame = map(float, (part.get("transform") or "")[10:-1].split()), part.find(f"{SVG}rect")
            assert frame is not None
            found.append(Rect(x, y, float(frame.get("width") or 0), float(frame.get("height") or 0)))
    return found


def test_only_the_lines_of_an_arrow_are_faint() -> None:
    """A painter paints a group that is faint as a whole on a page of its own, one for each arrow."""
    assert " opacity=" not in to_svg(draw(IOI, a_report(IOI)))


@pytest.mark.parametrize("between", ["heads", "groups"])
def test_the_work_of_a_layout_grows_with_the_arrows(between: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 400 arrows: few vertices each, a fixed number of sweeps, one programme with a place for each vertex."""
    from scipy import optimize

    drawing = draw(crowded(400, between))
    crossings, programmes = [], []
    counted, solved = layout._Chains._crossings, optimize.linprog
    monkeypatch.setattr(
        layout._Chains, "_crossings", lambda chains: crossings.append(len(chains.vertices)) or counted(chains)
    )
    monkeypatch.setattr(
        optimize, "linprog", lambda *a, **more: programmes.append(more["A_ub"].shape) or solved(*a, **more)
    )
    page = lay_out(drawing)
    assert len(page.arrows) == 400
    assert max(crossings) < 400 * 2 * 12 and len(crossings) <= 25
    ((places, forces),) = programmes
    assert places <= max(crossings) + 2 and forces < 4 * max(crossings)


def test_layers_go_up_and_positions_go_right() -> None:
    page = lay_out(draw(IOI))
    centre = {key: box.centre for key, box in page.boxes.items()}
    order = ["duplicate_token", "induction", "inhibition", "mover", "logits"]
    assert all(centre[low][1] > centre[high][1] for low, high in itertools.pairwise(order))
    assert centre["previous_token"][0] < centre["induction"][0] < centre["inhibition"][0]
    assert [column for column, _, _ in page.columns] == [("S1+1",), ("S2",), ("END",)]
    found = sorted(layers(draw(IOI), page), key=lambda row: -row[2])
    assert [row[:2] for row in found] == [(0, 4), (5, 6), (7, 8), (9, 11), (9, 11)]


def test_arrows_end_at_their_boxes_and_chips() -> None:
    page = lay_out(draw(IOI))
    for arrow in page.arrows:
        end = arrow.arrow.receiver
        box = page.boxes[end.box]
        target = page.shapes[end.box].chips[end.node].moved(box.x, box.y) if end.node else box
        x, y = arrow.tip
        assert target.x - 1 <= x <= target.right + 1
        assert min(abs(y - target.y), abs(y - target.bottom)) < 1e-6 or abs(x - target.right) < 1e-6


def test_outside_groups_stand_apart() -> None:
    page = lay_out(draw(DENSE))
    (apart,) = [box.key for box in draw(DENSE).boxes if box.outside]
    assert all(rect.right < page.boxes[apart].x for key, rect in page.boxes.items() if key != apart)
    assert page.columns[-1][0] == OUTSIDE


def test_labels_stand_beside_neighbours_where_there_is_room() -> None:
    """Of two arrows side by side, neither label covers the other arrow."""
    groups = [group("a", "0.0 0.1", "END"), group("b", "1.0 1.1", "END")]
    layout = lay_out(draw(circuit(groups, ["a -> b.q at END", "a -> b.k at END"], via=True)))
    for one, other in itertools.permutations(layout.arrows, 2):
        assert one.label_rect and not any(holds(one.label_rect, point) for point in line_of(other))


def test_columns_read_like_the_prompt() -> None:
    columns = [("END",), OUTSIDE, ("S2",), ("S1", "1"), ("S1+1",), ("S1",), ("IO",)]
    found = in_order(columns)
    assert [c for c in found if c in [("S1",), ("S1+1",), ("S2",)]] == [("S1",), ("S1+1",), ("S2",)]
    assert found[-2:] == [("END",), OUTSIDE]


def test_the_same_circuit_gives_the_same_picture() -> None:
    assert to_svg(draw(DENSE)) == to_svg(draw(DENSE))


def test_spread_keeps_order_and_gaps() -> None:
    assert spread([5.0, 4.0], [2.0], 0.0, 10.0, [1.0, 1.0]) == [3.5, 5.5]
    found = spread([9.0, 9.0, 9.0], [2.0, 2.0], 0.0, 10.0, [1.0] * 3)
    assert found[-1] <= 10.0 and all(b - a >= 2.0 - 1e-9 for a, b in itertools.pairwise(found))
    assert spread([0.0, 0.0], [100.0], 0.0, 10.0, [1.0, 1.0]) == [0.0, 10.0]


def test_wrap_fits_and_loses_nothing() -> None:
    words = "a_rather_long_group_name and " + "x" * 60
    lines = wrap(words, 12, 80)
    assert all(width(line, 12) <= 80 for line in lines)
    assert "".join(lines).replace(" ", "") == words.replace(" ", "")


# --- files ------------------------------------------------------------------------------------------


@pytest.fixture
def naughty() -> Circuit:
    """User text where it may be: title, sources, model, roles, claims."""
    groups = [group("a", "0.0 0.1", "END", role=NAUGHTY), group("b", "1.0 1.1", "END")]
    spec = circuit(groups, ["a -> b.q at END"], NAUGHTY)
    said = replace(spec.claims[0], text=f'a -> b.q at END "{NAUGHTY}"')
    return replace(spec, sources=(NAUGHTY,), model=ModelUse(NAUGHTY), claims=(said,))


def test_text_is_escaped_in_svg_and_html(naughty: Circuit) -> None:
    for report in (None, a_report(naughty)):
        root = ET.fromstring(to_svg(draw(naughty, report)))
        assert not list(root.iter(f"{SVG}script"))
        page = to_html(draw(naughty, report))
        assert "<script" not in page and "&lt;script&gt;" in page


def test_html_is_self_contained() -> None:
    page = to_html(draw(IOI, a_report(IOI)))
    assert not re.search(r"(src|href)\s*=|url\(|@import", page)
    assert set(re.findall(r"https?://[^\"\s<]*", page)) == {"http://www.w3.org/2000/svg"}
    assert page.count("<tr>") == 1 + len(IOI.claims)
    assert "previous_token -&gt; induction.k at S1+1" in page


def table_of(page: str) -> list[list[str]]:
    """The cells of every row, without what is folded away."""
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    return [
        [re.sub(r"<details>.*?</details>|<[^>]+>", "", cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)]
        for row in rows
    ]


def test_the_table_lists_every_claim() -> None:
    spec, report = asking("fails")
    report["claims"][0]["measured"].update(unit="gap", ci=[-0.45, -0.35])
    report["claims"][0]["members"] = [
        {"sender": "0.3", "receiver": r, "input": "k", "position": "X+1", "effect": -0.2} for r in ("1.4", "1.6")
    ]
    page = to_html(draw(spec, report))
    assert table_of(page) == [
        ["line", "claim", "figure", "interval", "n", "verdict", "reason"],
        ["11", "previous_token -&gt; induction.k at X+1", "−40 %", "[−45, −35]", "128", "holds", "because"],
        ["12", "induction -&gt; logits at END", "−40 %", "", "128", "holds", "because"],
        ["13", "expect attention(a, END -&gt; P3) &gt;= 80%", "59 %", "[54, 64]", "64", "fails", "because"],
    ]
    assert "<details><summary>2 pairs</summary>" in page


def test_the_table_has_a_line_per_task() -> None:
    spec, report = asking("fails")
    report["claims"] += [{**entry, "task": "flip"} for entry in report["claims"]]
    head, *rows = table_of(to_html(draw(spec, report)))
    assert head[:3] == ["line", "claim", "task"]
    assert [(row[0], row[2]) for row in rows] == [
        (line, task) for line in ("11", "12", "13") for task in ("ioi", "flip")
    ]


def test_the_table_tells_what_the_report_lacks_and_has_beyond_the_spec() -> None:
    spec, report = asking("holds")
    report["claims"][2].update(id="c99", line=40, text="expect <accuracy>")
    assert [(row[0], row[1], row[5]) for row in table_of(to_html(draw(spec, report)))[3:]] == [
        ("13", "expect attention(a, END -&gt; P3) &gt;= 80%", "not in the report"),
        ("40", "expect &lt;accuracy&gt;", "holds"),
    ]


def test_the_table_without_a_report_lists_the_claims() -> None:
    spec, _ = asking("holds")
    assert [len(row) for row in table_of(to_html(draw(spec)))] == [2, 2, 2, 2]


def test_dot_names_what_is_outside_and_keeps_heads_in_order() -> None:
    source = to_dot(draw(DENSE))
    assert source.count("outside the circuit") == 1 and "quiet at END, outside the circuit" in source
    for g in DENSE.groups:
        for one, other in itertools.pairwise(g.nodes):
            assert f'"{g.name}/{one}" -> "{g.name}/{other}" [style=invis' in source


def test_dot_has_clusters_and_every_edge() -> None:
    source = to_dot(draw(IOI))
    assert "rankdir=BT" in source
    assert set(re.findall(r"subgraph cluster_(\w+)", source)) == {g.name for g in IOI.groups}
    visible = [line for line in source.splitlines() if " -> " in line and "style=invis" not in line]
    assert len(visible) == len(IOI.claims)
    for g in IOI.groups:
        for head in g.nodes:
            assert f'"{g.name}/{head}"' in source


@needs_dot
@pytest.mark.parametrize("name", HAND)
def test_graphviz_reads_the_dot(name: str, tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "x.dot").write_text(to_dot(draw(HAND[name], a_report(HAND[name]))))
    done = subprocess.run(["dot", "-Tsvg", tmp_path / "x.dot"], capture_output=True, text=True, check=True)
    assert "warning" not in done.stderr.lower() and "error" not in done.stderr.lower()


@needs_dot
def test_graphviz_reads_naughty_text(naughty: Circuit) -> None:
    import subprocess

    done = subprocess.run(["dot", "-Tsvg"], input=to_dot(draw(naughty)).encode(), capture_output=True, check=True)
    assert b"<script" not in done.stdout


def test_png_is_the_same_picture_at_twice_the_size(naughty: Circuit) -> None:
    for spec in (IOI, EMPTY, naughty):
        size, found = sizes(to_svg(draw(spec)))
        assert all(abs(got - 2 * want) <= 4 for got, want in zip(found, size, strict=True))


def test_a_large_png_has_as_many_pixels_as_are_useful() -> None:
    (wide, tall), (across, down) = sizes(document(5000, 2000, "", "", ()))
    assert 1 < across / wide < 2 and abs(across / wide - down / tall) < 0.01
    assert 0.99 * 2**24 < across * down < 1.01 * 2**24


def sizes(svg: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height of a picture, and of its PNG."""
    size, image = re.search(r'viewBox="0 0 (\d+) (\d+)"', svg), to_png(svg)
    assert image[:8] == b"\x89PNG\r\n\x1a\n" and size
    pixels = int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big")
    return (int(size[1]), int(size[2])), pixels


@pytest.mark.parametrize("suffix", ["svg", "html", "dot", "mmd", "SVG"])
def test_render_writes_whole_files(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"x.{suffix}"
    target.write_text("the old file")
    render(TINY, target, as_report(a_report(TINY)))
    assert "the old file" not in target.read_text() and target.stat().st_size > 100
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_failed_write_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = tmp_path / "x.svg"
    target.write_text("the old file")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match="No space left"):
        render(TINY, target)
    assert target.read_text() == "the old file"


def test_a_suffix_names_one_format() -> None:
    suffixes = [suffix for each in FORMATS for suffix in each.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert [each.name for each in FORMATS if each.paint] == ["svg", "png"]


@pytest.mark.parametrize("name", ["x.pdf", "x"])
def test_unknown_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        render(TINY, tmp_path / name)
    assert all(kind in (caught.value.hint or "") for kind in (".svg", ".png", ".dot", ".html"))


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        render(TINY, tmp_path / "nowhere" / "x.svg")
