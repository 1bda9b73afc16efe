"""Warnings: what a spec says that is surely not meant, although it can be verified."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import reduce
from itertools import count, islice, product
from operator import attrgetter

from circuitdsl.circuit.changes import EdgePatch
from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.criteria import Exceeds, Matters, Moves, Negligible, Signed, Test, Within
from circuitdsl.circuit.measurement import Kinds
from circuitdsl.circuit.shapes import TaskShape
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Diagnostic, Sink, Span, listing, ordered

#: an `each` claim of more pairs is compared as a whole only
MAX_PAIRS = 32
#: claims on one subject that are looked through for the one that a later claim contradicts, and all that are
MOST_COMPARED, MOST_OF_ALL = 200, 20_000

#: by quantity (effect, delta, value), the intervals of values that fit; quantities without a bound are left out
Allowed = dict[str, list[tuple[float, float]]]
#: the groups of a circuit as they are written, by name
Groups = Mapping[str, s.Group]


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
    lines = list(_lines(syntax.statements))
    spans = {line.span.line: line.span for line in lines}
    broken = any(isinstance(line, (s.Broken, s.Use)) for line in lines)
    needs = {each.name.text: _needs(each) for each in syntax.statements if isinstance(each, s.Role)}
    compared = any(isinstance(each, s.Compare) for each in syntax.statements)
    for statements, circuit in zip(_parts(syntax), circuits, strict=False):
        subjects = list(_subjects(circuit.claims))
        _repeated(subjects, spans, sink)
        _contradicting(circuit, subjects, spans, sink)
        if not broken:
            groups = {each.name.text: each for each in statements if isinstance(each, s.Group)}
            _unused_groups(statements, groups, circuit, compared, kinds, sink)
            _roles_out_of_place(needs, groups, circuit, tasks, sink)
    return ordered(sink.found)


def _parts(syntax: s.File) -> list[list[s.Statement]]:
    """The statements of each circuit, after those that stand before the first one."""
    parts: list[list[s.Statement]] = []
    before: list[s.Statement] = []
    for statement in syntax.statements:
        if isinstance(statement, s.Circuit):
            parts.append(list(before))
        (parts[-1] if parts else before).append(statement)
    return parts or [before]


def _lines(statements: Iterable[s.Statement]) -> Iterator[s.Statement]:
    for statement in statements:
        yield statement
        if block := getattr(statement, "block", ()):
            yield from _lines(block)


#: what a claim is, apart from what it is about
_WORDING = frozenset({"id", "text", "tests", "margin", "tasks", "citation", "expected_to_fail", "measurement", "each"})
#: the other fields of a claim: its kind, the condition it stands under, …
_ABOUT = attrgetter(*[each.name for each in fields(Claim) if each.compare and each.name not in _WORDING])


#: a claim, and what it is about, whatever it says of it: all together; and with `each`, every pair for itself
Subject = tuple[Claim, Hashable, tuple[Hashable, ...]]


def _subjects(claims: Iterable[Claim]) -> Iterator[Subject]:
    """The subjects of claims. Two spellings of one set of nodes have one number, for sets are compared slowly."""
    numbers: dict[Hashable, int] = {}
    for claim in claims:
        measured, patch = claim.measurement, claim.measurement.patch
        others = ((test.other.subject, test.times) for test in claim.tests if isinstance(test, Exceeds) and test.other)
        about = (*_ABOUT(claim), *others)
        whole = (numbers.setdefault(measured.subject, len(numbers)), claim.each, *about)
        pairs: list[Hashable] = [whole]
        if claim.each and isinstance(patch, EdgePatch) and len(patch.members) <= MAX_PAIRS:
            alone = [type(measured)(replace(patch, members=(member,))) for member in patch.members]  # type: ignore[call-arg]
            pairs = [(numbers.setdefault(pair.subject, len(numbers)), False, *about) for pair in alone]
        yield claim, whole, tuple(pairs)


def _repeated(subjects: Iterable[Subject], spans: Mapping[int, Span], sink: Sink) -> None:
    """A claim that an earlier one makes already, on all of its tasks."""
    seen: dict[Hashable, list[Claim]] = {}
    for claim, whole, _ in subjects:
        same = seen.setdefault((whole, frozenset(claim.tests)), [])
        earlier = next((c for c in same if set(claim.tasks) <= set(c.tasks)), None)
        if earlier is None:
            same.append(claim)
        elif claim.line in spans:
            sink.warning("W001", f"this claim stands in line {earlier.line} already", spans[claim.line])


def _contradicting(circuit: Circuit, subjects: Iterable[Subject], spans: Mapping[int, Span], sink: Sink) -> None:
    """Claims on one subject and task that cannot both hold; a claim that alone cannot hold."""
    signs = not METRICS[circuit.metric.name].falls  # where the gap is negative, a delta above 0 is an effect below 0
    # the claims so far on one subject and task, and the values that fit them all
    compared = count()
    stated: dict[tuple[Hashable, str], tuple[list[Claim], Allowed]] = {}
    for claim, _, pairs in subjects:
        span, says = spans.get(claim.line), _allowed(claim, signs)
        if span is None or not says or claim.expected_to_fail is not None:
            continue
        if not all(says.values()):
            sink.warning("W002", "this claim contradicts itself: no value fits all that it says", span)
            continue
        against: dict[int, tuple[Claim, list[str]]] = {}
        for subject, task in product(pairs, claim.tasks):
            before, allowed = stated.get((subject, task), ([], {}))
            both = _both(allowed, says)
            earlier = islice(before, MOST_COMPARED)
            if all(both.values()):
                before.append(claim)
                stated[subject, task] = before, both
            elif other := next(
                (c for c in earlier if next(compared) < MOST_OF_ALL and not _agree(_allowed(c, signs), says)), None
            ):
                against.setdefault(other.line, (other, []))[1].append(task)
        for other, tasks in against.values():
            where = "" if len(circuit.tasks) < 2 else f" on {listing(dict.fromkeys(tasks))}"
            message = f"this contradicts line {other.line}: both cannot hold{where}"
            sink.warning("W002", message, span, None, f"line {other.line}: {other.text}")


def _allowed(claim: Claim, signs: bool) -> Allowed:
    """The values that fit a claim; `signs`: whether effect and delta have the same sign."""
    return reduce(_both, [_allows(test, claim.margin, signs) for test in claim.tests] or [Allowed()])


def _agree(one: Allowed, other: Allowed) -> bool:
    """Whether some values fit both."""
    return all(_both(one, other).values())


def _both(one: Allowed, other: Allowed) -> Allowed:
    """The values that fit both."""
    if not one:
        return other
    found = {**one, **other}
    for quantity in one.keys() & other.keys():
        cut = [(max(a, c), min(b, d)) for a, b in one[quantity] for c, d in other[quantity]]
        found[quantity] = [(low, high) for low, high in cut if low <= high]
    return found


def _allows(test: Test, margin: float, signs: bool) -> Allowed:
    """The values of each quantity that fit a test; a quantity it says nothing of is left out."""
    if isinstance(test, Within):
        least, most = -math.inf if test.low is None else test.low, math.inf if test.high is None else test.high
        if test.strict:
            least, most = math.nextafter(least, math.inf), math.nextafter(most, -math.inf)
        return {test.quantity: [(least, most)]}
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
        case Moves(direction=direction, by=by):
            least = by or math.ulp(0)
            return {"change": [(least, math.inf) if direction == "rises" else (-math.inf, -least)]}
    return {}


def _unused_groups(
    statements: list[s.Statement], groups: Groups, circuit: Circuit, whole: bool, kinds: Kinds, sink: Sink
) -> None:
    """A group that nothing names, and that says nothing by itself.

    Args:
        whole: whether some line is about the whole circuit, in which every group takes part that is not `outside`.
    """
    if not circuit.claims:
        return  # a figure without claims: there is nothing to be named by
    pieces = [piece for statement in statements for piece in s.walk_to(statement, s.GroupRef, s.Measurement)]
    names = {piece.name for piece in pieces if isinstance(piece, s.GroupRef)}
    measured = [kinds.word(piece.name.text) for piece in pieces if isinstance(piece, s.Measurement)]
    whole |= any(kind is not None and kind.of_whole for kind in measured)
    for group in circuit.groups:
        if group.name in names or group.role or (whole and not group.outside) or group.name not in groups:
            continue
        message = f"the group {group.name} is never used: no claim and no other group names it, and it has no role"
        sink.warning("W003", message, groups[group.name].name.span, "name it in a claim, give it a role, or delete it")


def _needs(role: s.Role) -> dict[frozenset[str], s.Statement]:
    """The positions that the checks of a role need together, each time with the first such check."""
    needed: dict[frozenset[str], s.Statement] = {}
    for check in role.block:
        needed.setdefault(frozenset(p.name for p in s.walk(check) if isinstance(p, s.Place)) - {"*"}, check)
    return needed


def _roles_out_of_place(
    needs: Mapping[str, Mapping[frozenset[str], s.Statement]],
    groups: Groups,
    circuit: Circuit,
    tasks: Mapping[str, TaskShape],
    sink: Sink,
) -> None:
    """A role of the file's own whose checks need positions that no task of the circuit has."""
    shapes = [tasks.get(use.generator or "") for use in circuit.tasks]
    if not shapes or None in shapes:
        return  # a task from a file may have any position
    known = [set(shape.positions) for shape in shapes if shape]
    for group in circuit.groups:
        written = groups.get(group.name)
        for needed, check in needs.get(group.role or "", {}).items() if written else ():
            if needed and not any(needed <= positions for positions in known) and written:
                missing = sorted(needed - set().union(*known))
                lack = "no task of this circuit has" if missing else "no task of this circuit has all of"
                message = f"a check of the role {group.role} needs what {lack}: {listing(missing or sorted(needed))}"
                where = written.roles[0].span if written.roles else written.name.span
                sink.warning("W004", message, where, None, f"line {check.span.line}: {getattr(check, 'text', '')}")
                break
