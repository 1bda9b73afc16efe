"""`compare A with B` blocks: what two circuits are claimed to share, known as soon as both are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import normpath
from typing import ClassVar, Literal, cast

from circuitdsl.circuit.bounds import within
from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.compare import RARE, Comparison, Overlap, compare
from circuitdsl.circuit.criteria import AboveChance, RolesAgree, Test, Within
from circuitdsl.circuit.measurement import Kinds
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.shapes import near, shape_of
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Sink
from circuitdsl.measurements.kind import Kind
from circuitdsl.report.numbers import percent
from circuitdsl.report.report import ClaimResult, Measured
from circuitdsl.verdicts import Verdict

What = Literal["heads", "edges", "roles"]


@dataclass(frozen=True, slots=True)
class Overlapping(Kind):
    """What two circuits share, as far as their specs say; positions apart.

    Attributes:
        what: heads, edges, or the roles of shared heads.
    """

    comparison: Comparison
    what: What
    line: int = field(compare=False)

    statement = s.Compare
    claim_kind = "compare"
    examples = ("compare battery with other\n  expect overlap >= 1%",)
    false_examples = ("compare battery with other\n  expect overlap >= 99%",)
    decided_by = "text"
    judge = "circuitdsl.measurements.overlap:judge"
    elsewhere: ClassVar = {
        "overlap": "two circuits overlap: write it below a line 'compare ONE with OTHER'",
        "roles": "write: role(GROUP); that two circuits agree in roles stands below 'compare ONE with OTHER'",
    }

    @classmethod
    def between(
        cls, block: s.Compare, known: Mapping[str, Circuit], missing: bool, kinds: Kinds, sink: Sink
    ) -> list[Claim]:
        unknown = [word for word in (block.first, block.second) if word.text not in known]
        for word in () if missing else unknown:
            sink.unknown("E059", "circuit", word.text, word.span, known)
        if unknown:
            return []
        first, second = known[block.first.text], known[block.second.text]
        if first is second:
            sink.error("E130", f"{first.name} is compared with itself", block.second.span)
            return []
        models = [circuit.model.name if circuit.model else "" for circuit in (first, second)]
        places = [normpath(near(model, each.path)) for model, each in zip(models, (first, second), strict=True)]
        if places[0] != places[1]:
            about = [name or "no model" for name in (models if models[0] != models[1] else places)]
            message = f"{first.name} is about {about[0]}, {second.name} about {about[1]}"
            help = "heads of different models have nothing but their numbers in common"
            sink.error("E130", message, block.first.span.to(block.second.span), help)
            return []
        shape = shape_of(near(models[0], first.path))[0] if models[0] else None
        comparison = compare(first, second, shape.n_heads if shape else None)
        scope = Scope(sink, kinds)
        lines = (line for line in block.block if isinstance(line, s.Expect))
        claims = [_claim(scope, line, comparison, block.span.line) for line in lines]
        return [claim for claim in claims if claim is not None]


def _claim(scope: Scope, line: s.Expect, comparison: Comparison, header: int) -> Claim | None:
    name = line.measurement.name
    if name.text not in Overlapping.elsewhere:
        message = f"a comparison is about overlap and roles, not {name.text}"
        help = "write: expect overlap >= 75%, expect overlap above chance, or expect roles agree"
        scope.sink.error("E131", message, name.span, help)
        return None
    if line.on is not None:
        scope.sink.error("E083", f"{name.text} is read off two specs: it has no task", line.on.span)
        return None
    if line.where is not None:
        scope.sink.error("E095", f"{name.text} is read off two specs: there are no strata", line.where.span)
        return None
    what = _what(line.measurement, scope.sink)
    test = None if what is None else _test(scope, line, what)
    if what is None or test is None:
        return None
    return Claim(
        id="",
        line=line.span.line,
        text=line.text,
        kind=Overlapping.claim_kind,
        measurement=Overlapping(comparison, what, header),
        tests=(test,),
        each=False,
        margin=0.0,
        tasks=(),
        citation=line.citation.text if line.citation else None,
        expected_to_fail=line.gap.reason.text if line.gap else None,
    )


def _what(measurement: s.Measurement, sink: Sink) -> What | None:
    """`overlap` and `overlap(of = heads)` are about heads, `overlap(of = edges)` about edges."""
    match measurement:
        case s.Measurement(name=s.Word(text=name), arguments=()):
            return "heads" if name == "overlap" else "roles"
        case s.Measurement(name=s.Word(text="roles")):
            sink.error("E084", "roles takes no arguments: expect roles agree", measurement.span)
            return None
        case s.Measurement(arguments=(s.Option(key=s.Word(text="of"), value=of),)) if of.text in ("heads", "edges"):
            return cast(What, of.text)
    sink.error("E084", "overlap is said of heads, or of edges: overlap(of = edges)", measurement.span)
    return None


def _test(scope: Scope, line: s.Expect, what: What) -> Test | None:
    match line.relation:
        case s.AboveChance() if what == "heads":
            return AboveChance()
        case s.Agree() if what == "roles":
            return RolesAgree()
        case s.Compared() | s.Between() if what != "roles":
            return within(scope, line.relation, "share", "value", "overlap", 0, 1)
    fits = {"heads": ">= 75% or 'above chance'", "edges": ">= 50%", "roles": "'agree'"}[what]
    where = line.relation.span if line.relation else line.measurement.span
    scope.sink.error("E131", f"{line.measurement.name.text} takes {fits}, and nothing else", where)
    return None


def judge(claims: Sequence[Claim], weights: object = None) -> list[ClaimResult]:
    """The records of comparisons: nothing is measured, so that they hold or fail."""
    return [_result(claim) for claim in claims]


def _result(claim: Claim) -> ClaimResult:
    about = claim.measurement
    assert isinstance(about, Overlapping)
    verdict, reason = _judged(claim, about)
    found = about.comparison
    shared: Overlap = found.edges if about.what == "edges" else found.heads
    chance = found.chance if about.what == "heads" else None
    by_chance = f"; by chance {percent(chance.jaccard)}, as much or more {percent(chance.p)}" if chance else ""
    counts = f"{len(shared.shared)} {'edges' if about.what == 'edges' else 'heads'} shared of {len(shared.first)}"
    share = f"{len(shared.second)}, {percent(shared.of_first)} of the first{by_chance}"
    note = f"{found.first} and {found.second}: {counts} and {share}"
    disagreeing = tuple(f"{node} is {a} here and {b} there" for node, a, b in found.disagreements)
    roles = about.what == "roles"
    return ClaimResult(
        id=claim.id,
        line=claim.line,
        text=claim.text,
        kind=claim.kind,
        task=None,
        verdict=verdict,
        reason=reason,
        protocol={"read": "specs", "run": "none"},
        measured=None if roles else Measured("overlap", shared.jaccard, ci=None, n=0, unit="share"),
        notes=(note, *disagreeing) if roles else (note,),
        citation=claim.citation,
        block=f"compare {found.first} with {found.second}",
        block_line=about.line,
    )


def _judged(claim: Claim, about: Overlapping) -> tuple[Verdict, str]:
    (test,), found = claim.tests, about.comparison
    match test:
        case AboveChance():
            if found.chance is None:
                return "error", "the model's shape is not known, so that there is no chance level"
            said = f"random heads of the same layers overlap as much in {percent(found.chance.p)} of draws"
            return ("holds", f"{said}, at most {percent(RARE)}") if found.chance.exceeded else ("fails", said)
        case RolesAgree():
            total, wrong = len(found.roles), len(found.disagreements)
            if not total:
                return "error", f"no head of {found.first} and {found.second} has a role in both"
            said = f"{total - wrong} of {total} shared heads play the same role in both"
            return ("fails" if wrong else "holds"), said
        case Within():
            jaccard = (found.edges if about.what == "edges" else found.heads).jaccard
            inside = test.admits(jaccard)
            said = f"overlap {percent(jaccard)} {'meets' if inside else 'does not meet'} {test.text}"
            return ("holds" if inside else "fails"), said
    raise TypeError(f"not said of a comparison: {test!r}")
