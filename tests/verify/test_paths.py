"""Claims on paths, from text to report."""

from __future__ import annotations

import json

import jsonschema
import pytest

from circuitdsl.api import load, loads
from circuitdsl.circuit.nodes import Edge, Input, Node, Position
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.interop.transformer_lens import NotByHooks, _patch
from circuitdsl.language.parse import parse
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.requests import PathRequest
from circuitdsl.models.load import load_tokenizer
from circuitdsl.report.report import Report
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.testing.mutants import mutants
from circuitdsl.verify.plan import plan
from tests.schema import schema

SHAPE = ModelShape("pocket", 4, 8)
HEADER = 'circuit p\nmodel "pocket"\ntask ioi(prompts = 48)\nheads mover = 2.4 2.5 at END\nheads low = 0.3 0.6 at END\n'


def verified(*lines: str, corrupt: str = "abc") -> Report:
    text = (HEADER + "\n".join(lines) + "\n").replace("prompts", f"corrupt = {corrupt}, prompts")
    report = loads(text, "p.circ").verify(cache=False, early_stop=False)
    assert isinstance(report, Report)
    return report


def test_each_chain_is_reported() -> None:
    report = verified(
        "path each low -> mover.q at END -> logits : effect <= 50%", "path low -> mover.q at END -> logits"
    )
    each, joint = report.claims
    assert (each.kind, each.verdict, each.protocol["patch"]) == ("path", "holds", "path")
    assert [(m.sender, m.receiver, m.input, m.position) for m in each.members] == [
        (f"{a} -> {b}.q at END", "logits", "in", "END") for a in ("0.3", "0.6") for b in ("2.4", "2.5")
    ]
    assert all(m.verdict == "holds" and m.ci and m.n == 48 for m in each.members)
    assert joint.null is not None and joint.null.size == 40
    assert joint.members == ()
    jsonschema.validate(json.loads(json.dumps(report.to_json())), schema())


def test_what_the_corruption_leaves_alone_is_an_error() -> None:
    """The role-flip corruption changes nothing before S2, so that nothing goes along a path from there."""
    report = verified(
        "path 0.1 -> 1.1.v at S1 -> mover.q at END -> logits : negligible",
        "path 0.1 -> 1.1.v at S1 -> mover.q at END -> logits : effect in [-50%, 50%]",
        corrupt="flip",
    )
    assert [claim.verdict for claim in report.claims] == ["error", "error"]
    assert all("does not change" in claim.reason for claim in report.claims)


def test_an_effect_of_nothing_is_a_result() -> None:
    """What comes to a key that nobody attends to changes nothing, although something came."""
    (found,) = verified("path 0.3 -> 3.0.k at END -> logits : negligible").claims
    assert found.verdict in ("holds", "undecided")
    assert found.measured is not None and abs(found.measured.value) < 0.01


def test_a_null_is_the_same_path_from_other_senders() -> None:
    lines = (
        "path 0.3 -> mover.q at END -> logits",
        "path (0.3 0.6) -> m2 at END -> logits",
        "0.7 -> mover.q at END : lowers",
    )
    (circuit,) = loads(HEADER + "\n".join(lines)).circuits
    single, group, _ = plan(circuit, SHAPE)
    for found in (single, group):
        (part,) = found.parts
        assert isinstance(part.request, PathRequest)
        assert all(request.arrows[1:] == part.request.arrows[1:] for request in part.null)
        assert len(set(part.null)) == len(part.null) and part.request not in part.null
    senders = {edge.sender for request in single.parts[0].null for edge in request.arrows[0]}
    # neither what the spec claims for these inputs, nor what does not come before them
    assert senders == {Node("head", i, j) for i in (0, 1) for j in range(8)} - {Node("head", 0, i) for i in (3, 7)}
    assert all(len({e.sender for e in request.arrows[0]}) == 2 for request in group.parts[0].null)


def test_a_null_of_too_few_is_undecided() -> None:
    """Below layer 1 there are eight heads."""
    (found,) = verified("path 0.3 -> 1.1.q at END -> mover.q at END -> logits").claims
    assert found.verdict in ("undecided", "fails")
    request = PathRequest(
        ((Edge(Node("head", 0, 3), Input(Node("head", 1, 1), "q"), Position("END")),),) * 1
        + ((Edge(Node("head", 1, 1), Input(Node("logits"), "in"), Position("END")),),)
    )
    assert len(Nulls.of(load("pocket/ioi").circuits[0], SHAPE).of_paths(request)) <= 7


def test_mutants_of_a_path() -> None:
    text = (
        HEADER + "path each 0.3 -> 1.1.v at S2 -> mover.q at END -> logits : effect <= -1%\npath low -> m2 -> logits\n"
    )
    spec, (file, _) = loads(text), parse(text)
    found = [m for m in mutants(file, spec.circuits, (4, 8), lambda _: "S1") if m.line >= 6]
    after = {mutant.what: mutant.after for mutant in found if mutant.line == 6}
    assert set(after) == {
        *("head swapped", "input changed", "position changed", "arrow dropped", "bound tightened", "sign turned"),
    }
    assert after["arrow dropped"] == "path each 0.3 -> 1.1.v at S2 -> logits : effect <= -1%"
    turned = [mutant.after for mutant in found if mutant.line == 7 and mutant.what == "matters turned"]
    assert turned == ["path low -> m2 -> logits : negligible"]
    assert not any(mutant.what == "arrow dropped" for mutant in found if mutant.line == 7), "it would be an edge"


def test_hooks_make_no_path() -> None:
    (circuit,) = loads(HEADER + "path low -> m2 -> logits : lowers\n").circuits
    with pytest.raises(NotByHooks, match="line 6 is about a path"):
        _patch(circuit.claims[0], None)


def test_stronger_than_a_path_is_paired() -> None:
    found = verified(
        "path low -> m2 at END -> logits : stronger than path low -> mover.q at END -> logits",
        "path low -> mover.q at END -> logits : stronger than path low -> m2 at END -> logits",
        "low -> logits at END : stronger than path low -> mover.q at END -> logits",
    )
    assert [claim.verdict for claim in found.claims] == ["holds", "fails", "holds"]
    assert found.claims[0].against == "path low -> mover.q at END -> logits"


def test_what_is_lost_on_the_way_is_an_error(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Where positions stand, prompts may decide: a path that they let nothing through along is no effect of 0."""
    tokens = Tokens(load_tokenizer("pocket"), "pocket")
    records = [pair.record() for pair in sample(TASKS["ioi"], tokens, 40, 7).pairs]
    for record in records:
        record["positions"] = {"LATE": -1, "EARLY": -3, "END": -1}
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, records)))
    lines = [
        "path 0.3 -> 1.1.v at LATE -> 2.4.q at EARLY -> 3.1.v at EARLY : negligible",
        "path 0.3 -> 1.1.v at EARLY -> 2.4.q at LATE -> 3.1.v at LATE : negligible",
    ]
    text = 'circuit p\nmodel "pocket"\ntask file("mine.jsonl")\n' + "\n".join(lines)
    lost, through = loads(text, tmp_path / "p.circ").verify(cache=False).claims
    assert (lost.verdict, through.verdict) == ("error", "undecided")
    assert "so that nothing arrives" in lost.reason
