"""Warnings: what a spec says that is surely not meant, although it can be verified."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import islice

from circuitdsl.circuit.catalogue import TaskShape
from circuitdsl.circuit.changes import EdgePatch
from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.criteria import Matters, Moves, Negligible, Signed, Test, Within
from circuitdsl.circuit.measurement import Kinds, Measurement
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Diagnostic, Sink, Span, listing, ordered

#: an `each` claim of more pairs is compared as a whole only
MAX_PAIRS = 32
#: claims on one subject that are looked through for the one that a later claim contradicts
MOST_COMPARED = 200

#: by quantity (effect, delta, value), the intervals that are left; a quantity of which nothing is said is left out
Allowed = dict[str, list[tuple[float, float]]]


def lint(
    syntax: s.File, circuits: tuple[Circuit, ...], tasks: Mapping[str, TaskShape], kinds: Kinds
) -> tuple[Diagnostic, ...]:
    """The warnings of a resolved file.

    Args:
        syntax: the parsed file.
        circuits: what `resolve` made of it.
        tasks: the registered tasks.
        kinds: what can be measured.
    """
    sink = Sink()
    spans = {line.span.line: line.span for line in _lines(syntax.statements)}
    broken = any(isinstance(line, s.Broken | s.Use) for line in _lines(syntax.statements))
    for part, circuit in zip(_parts(syntax), circuits, strict=False):
        subjects = _Subjects()
        _repeated(circuit.claims, subjects, spans, sink)
        _contradicting(circuit, subjects, spans, sink)
        if not broken:
            _unused_groups(part, circuit, kinds, sink)
            _roles_out_of_place(part, circuit, tasks, sink)
    return ordered(sink.found)


@dataclass(slots=True)
class _Part:
    """What can name the groups of one circuit: its own statements and those of the whole file."""

    statements: list[s.Statement] = field(default_factory=list)
    shared: list[s.Statement] = field(default_factory=list)


def _parts(syntax: s.File) -> list[_Part]:
    shared: list[s.Statement] = [each for each in syntax.statements if isinstance(each, s.Role | s.Compare)]
    parts: list[_Part] = []
    before: list[s.Statement] = []
    for statement in syntax.statements:
        if isinstance(statement, s.Circuit):
            parts.append(_Part(list(before), shared))
        (parts[-1].statements if parts else before).append(statement)
    return parts or [_Part(before, shared)]


def _lines(statements: Iterable[s.Statement]) -> Iterator[s.Statement]:
    for statement in statements:
        yield statement
        yield from _lines(getattr(statement, "block", ()))


# --- claims ---------------------------------------------------------------------------------------


def _repeated(claims: Iterable[Claim], subjects: _Subjects, spans: Mapping[int, Span], sink: Sink) -> None:
    """A claim that an earlier one makes already, on all of its tasks."""
    seen: dict[Hashable, list[Claim]] = {}
    for claim in claims:
        same = seen.setdefault((subjects.of(claim), frozenset(_said(test) for test in claim.tests)), [])
        earlier = next((c for c in same if set(claim.tasks) <= set(c.tasks)), None)
        if earlier and claim.line in spans:
            sink.warning("W001", f"this claim stands in line {earlier.line} already", spans[claim.line])
        same.append(claim)


#: what a claim is, apart from what it is about
_WORDING = frozenset(
    {"id", "line", "text", "tests", "margin", "tasks", "citation", "measurement", "each", "lone_nodes"}
)


#: the other fields of a claim: its kind, the condition it stands under, …
_ABOUT = tuple(each.name for each in fields(Claim) if each.compare and each.name not in _WORDING)


@dataclass(slots=True)
class _Subjects:
    """What claims are about, whatever they say of it: two spellings of one set of nodes are one subject."""

    numbers: dict[Hashable, int] = field(default_factory=dict)
    #: by identity, for claims on one edge share its record; `kept` keeps the identities from being used again
    whole: dict[int, int] = field(default_factory=dict)
    parts: dict[int, tuple[int, ...]] = field(default_factory=dict)
    kept: list[object] = field(default_factory=list)

    def of(self, claim: Claim) -> Hashable:
        """The subject of a claim."""
        return self.number(claim.measurement), claim.each, *(getattr(claim, name) for name in _ABOUT)

    def pairs(self, claim: Claim) -> list[Hashable]:
        """What a claim is about: with `each`, every pair for itself."""
        measured, patch = claim.measurement, claim.measurement.patch
        if not (claim.each and isinstance(patch, EdgePatch) and len(patch.members) <= MAX_PAIRS):
            return [self.of(claim)]
        if id(measured) not in self.parts:
            alone = (type(measured)(replace(patch, members=(member,))) for member in patch.members)  # type: ignore[call-arg]
            self.parts[id(measured)] = tuple(self.numbered(pair.subject) for pair in alone)
            self.kept.append(measured)
        about = [getattr(claim, name) for name in _ABOUT]
        return [(number, False, *about) for number in self.parts[id(measured)]]

    def number(self, measured: Measurement) -> int:
        if id(measured) not in self.whole:
            self.whole[id(measured)] = self.numbered(measured.subject)
            self.kept.append(measured)
        return self.whole[id(measured)]

    def numbered(self, contents: Hashable) -> int:
        return self.numbers.setdefault(contents, len(self.numbers))


def _said(test: Test) -> Hashable:
    """A test without its wording: `-5%` and `-5.0%` are one bound."""
    return replace(test, text="") if isinstance(test, Within | Moves) else test


@dataclass(slots=True)
class _Stated:
    """What the claims so far say of one subject on one task, all together: the values that fit them."""

    claims: list[Claim] = field(default_factory=list)
    allowed: Allowed = field(default_factory=dict)


def _contradicting(circuit: Circuit, subjects: _Subjects, spans: Mapping[int, Span], sink: Sink) -> None:
    """Claims on one subject and task that cannot both hold; a claim that alone cannot hold."""
    signs = not METRICS[circuit.metric.name].falls  # where the gap is negative, a delta above 0 is an effect below 0
    stated: dict[Hashable, _Stated] = {}
    for claim in circuit.claims:
        span = spans.get(claim.line)
        says = _allowed(claim, signs)
        if span is None or not says:
            continue
        if not _possible(says):
            sink.warning("W002", "this claim contradicts itself: no value fits all that it says", span)
            continue
        against: dict[int, tuple[Claim, list[str]]] = {}
        for subject in subjects.pairs(claim):
            for task in claim.tasks:
                before = stated.setdefault((subject, task), _Stated())
                both = _both(before.allowed, says)
                if _possible(both):
                    before.claims.append(claim)
                    before.allowed = both
                elif other := _opponent(before.claims, says, signs):
                    against.setdefault(other.line, (other, []))[1].append(task)
        for other, tasks in against.values():
            where = "" if len(circuit.tasks) < 2 else f" on {listing(dict.fromkeys(tasks))}"
            message = f"this contradicts line {other.line}: both cannot hold{where}"
            sink.warning("W002", message, span, None, f"line {other.line}: {other.text}")


def _opponent(claims: Iterable[Claim], says: Allowed, signs: bool) -> Claim | None:
    """The first of the claims that leaves no value; none where only several of them together do."""
    return next(
        (claim for claim in islice(claims, MOST_COMPARED) if not _possible(_both(_allowed(claim, signs), says))), None
    )


def _allowed(claim: Claim, signs: bool) -> Allowed:
    """The values that fit a claim; `signs`: whether effect and delta have the same sign."""
    found: Allowed = {}
    for test in claim.tests:
        found = _both(found, _allows(test, claim.margin, signs))
    return found


def _both(one: Allowed, other: Allowed) -> Allowed:
    """The values that fit both."""
    found = {**one, **other}
    for quantity in one.keys() & other.keys():
        cut = [(max(a, c), min(b, d)) for a, b in one[quantity] for c, d in other[quantity]]
        found[quantity] = [(low, high) for low, high in cut if low <= high]
    return found


def _possible(allowed: Allowed) -> bool:
    return all(allowed.values())


def _allows(test: Test, margin: float, signs: bool) -> Allowed:
    """The values of each quantity that fit a test; a quantity it says nothing of is left out."""
    below, above = (-math.inf, math.nextafter(-margin, -1)), (math.nextafter(margin, 1), math.inf)
    match test:
        case Negligible():
            return {"effect": [(-margin, margin)]}
        case Matters():
            return {"effect": [below, above]}
        case Signed(direction="lowers"):
            return {"effect": [below if signs else above], "delta": [(-math.inf, -math.ulp(0))]}
        case Signed():
            return {"effect": [above if signs else below], "delta": [(math.ulp(0), math.inf)]}
        case Within(quantity=quantity, low=low, high=high):
            return {quantity: [(-math.inf if low is None else low, math.inf if high is None else high)]}
        case Moves(direction=direction, by=by):
            least = by or math.ulp(0)
            return {"change": [(least, math.inf) if direction == "rises" else (-math.inf, -least)]}
    return {}


# --- groups and roles -----------------------------------------------------------------------------


def _unused_groups(part: _Part, circuit: Circuit, kinds: Kinds, sink: Sink) -> None:
    """A group that nothing names, and that says nothing by itself."""
    if not circuit.claims:
        return  # a figure without claims: there is nothing to be named by
    names: set[str] = set()
    whole = any(isinstance(each, s.Compare) for each in part.shared)
    for statement in part.statements:
        for piece in s.walk(statement):
            if isinstance(piece, s.GroupRef):
                names.add(piece.name)
            elif isinstance(piece, s.Measurement):
                kind = kinds.word(piece.name.text)
                whole |= kind is not None and kind.of_whole
    groups = {each.name.text: each for each in part.statements if isinstance(each, s.Group)}
    for group in circuit.groups:
        if group.name in names or group.role or (whole and not group.outside) or group.name not in groups:
            continue
        message = f"the group {group.name} is never used: no claim and no other group names it, and it has no role"
        sink.warning("W003", message, groups[group.name].name.span, "name it in a claim, give it a role, or delete it")


def _roles_out_of_place(part: _Part, circuit: Circuit, tasks: Mapping[str, TaskShape], sink: Sink) -> None:
    """A role of the file's own whose checks need positions that no task of the circuit has."""
    shapes = [tasks.get(use.generator or "") for use in circuit.tasks]
    if not shapes or None in shapes:
        return  # a task from a file may have any position
    known = [set(shape.positions) for shape in shapes if shape]
    roles = {each.name.text: each for each in part.shared if isinstance(each, s.Role)}
    groups = {each.name.text: each for each in part.statements if isinstance(each, s.Group)}
    for group in circuit.groups:
        role, written = roles.get(group.role or ""), groups.get(group.name)
        for check in role.block if role and written else ():
            needed = {p.name for p in s.walk(check) if isinstance(p, s.Place)} - {"*"}
            if needed and not any(needed <= positions for positions in known) and written:
                missing = sorted(needed - set().union(*known))
                lack = "no task of this circuit has" if missing else "no task of this circuit has all of"
                message = f"a check of the role {group.role} needs what {lack}: {listing(missing or sorted(needed))}"
                where = written.roles[0].span if written.roles else written.name.span
                sink.warning("W004", message, where, None, f"line {check.span.line}: {getattr(check, 'text', '')}")
                break
