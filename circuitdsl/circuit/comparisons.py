"""`compare A with B` blocks: what two circuits are claimed to share, known as soon as both are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from os.path import normpath

from circuitdsl.circuit.bounds import within
from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.compare import Comparison, Overlap, compare
from circuitdsl.circuit.criteria import AboveChance, RolesAgree, Test
from circuitdsl.circuit.measurements import Overlapping
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.shapes import near, shape_of
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Sink

EXPECTED = ("overlap", "roles")


def with_comparisons(
    circuits: tuple[Circuit, ...],
    blocks: Iterable[s.Compare],
    known: Mapping[str, Circuit],
    missing: bool,
    sink: Sink,
) -> tuple[Circuit, ...]:
    """The circuits of a file with the claims of its comparisons, each with the first circuit that it names.

    Args:
        known: every circuit that can be compared, by its name: the file's own, and those of used files.
        missing: whether some used file could not be read, so that circuits may be missing.
    """
    found = {circuit.name: circuit for circuit in circuits}
    for block in blocks:
        claims = _claims(block, known, missing, sink)
        home = next((w.text for w in (block.first, block.second) if w.text in found), next(iter(found), None))
        if home is None and claims:
            help = 'add a line such as: circuit both "…"'
            sink.error("E090", "a comparison is reported with a circuit, and this file has none", block.span, help)
        elif home is not None:
            circuit = found[home]
            numbered = (
                replace(claim, id=f"c{i:02d}", margin=circuit.margin)
                for i, claim in enumerate(claims, len(circuit.claims) + 1)
            )
            found[home] = replace(circuit, claims=(*circuit.claims, *numbered))
    return tuple(found[circuit.name] for circuit in circuits)


def _claims(block: s.Compare, known: Mapping[str, Circuit], missing: bool, sink: Sink) -> list[Claim]:
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
    claims = [_claim(line, comparison, block.span.line, sink) for line in block.block if isinstance(line, s.Expect)]
    return [claim for claim in claims if claim is not None]


def _claim(line: s.Expect, comparison: Comparison, header: int, sink: Sink) -> Claim | None:
    scope, name = Scope(sink), line.measurement.name
    if name.text not in EXPECTED:
        message = f"a comparison is about overlap and roles, not {name.text}"
        help = "write: expect overlap >= 75%, expect overlap above chance, or expect roles agree"
        sink.error("E131", message, name.span, help)
        return None
    what = _what(line.measurement, sink)
    test = _test(scope, line, what)
    if what is None or test is None:
        return None
    return Claim(
        id="",
        line=line.span.line,
        text=line.text,
        kind="compare",
        measurement=_overlapping(comparison, what, header),
        tests=(test,),
        each=False,
        margin=0.0,
        tasks=(),
        citation=line.citation.text if line.citation else None,
    )


def _what(measurement: s.Measurement, sink: Sink) -> str | None:
    """`overlap` and `overlap(of = heads)` are about heads, `overlap(of = edges)` about edges."""
    if measurement.name.text == "roles":
        return "roles"
    if not measurement.arguments:
        return "heads"
    (argument, *more) = measurement.arguments
    if not more and isinstance(argument, s.Option) and argument.key.text == "of":
        found = argument.value.text
        if found in ("heads", "edges"):
            return found
    sink.error("E084", "overlap is that of heads, or overlap(of = edges)", measurement.span)
    return None


def _test(scope: Scope, line: s.Expect, what: str | None) -> Test | None:
    match line.relation:
        case s.AboveChance() if what == "heads":
            return AboveChance()
        case s.Agree() if what == "roles":
            return RolesAgree()
        case s.Compared() | s.Between() if what in ("heads", "edges"):
            return within(scope, line.relation, "share", "value", "overlap", 0, 1)
    if what is not None:
        fits = {"heads": ">= 75% or 'above chance'", "edges": ">= 50%", "roles": "'agree'"}[what]
        where = line.relation.span if line.relation else line.measurement.span
        scope.sink.error("E131", f"of {line.measurement.name.text} this is not said; it takes {fits}", where)
    return None


def _overlapping(comparison: Comparison, what: str, header: int) -> Overlapping:
    found: Overlap = comparison.edges if what == "edges" else comparison.heads
    return Overlapping(
        first=comparison.first,
        second=comparison.second,
        what=what,  # type: ignore[arg-type]
        sizes=(len(found.first), len(found.second)),
        shared=len(found.shared),
        jaccard=found.jaccard,
        chance=comparison.chance.jaccard if comparison.chance and what == "heads" else None,
        p=comparison.chance.p if comparison.chance and what == "heads" else None,
        agreeing=len(comparison.roles) - len(comparison.disagreements),
        line=header,
        disagreeing=tuple(f"{node} is {a} here and {b} there" for node, a, b in comparison.disagreements),
    )
