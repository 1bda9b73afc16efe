"""Mutants of a spec: the spec with one line changed, so that it says something else.

Operators, each an edit of a piece of syntax where it stands:

* a head of a group, or one named in a claim, is swapped for one of its layer outside the circuit (an MLP or a residual
  stream for that of another layer);
* a layer of heads (`0.*`) is swapped for another; a member is dropped from a group, and from a set what is subtracted;
* an input (`.q`, `.k`, `.v`) or a position is changed;
* a node is dropped from a path, whose neighbours are joined; one of two conditions is dropped;
* what is put in the place of terms (`ablate mean` of edges, also as a line of its own, and `ablate = mean` in
  brackets) is exchanged;
* the sign is turned round: `lowers` and `raises`, `<= -20%` and `>= 20%`;
* a bound is tightened twofold: effects and differences are doubled, a share that cannot be doubled is brought twice as
  near to 100 %, an interval is halved about its middle;
* of two figures that are compared (`>`, `stronger than`) the sides are swapped, and what is between them is doubled;
* a part along a direction (`8.6[u]`) becomes the whole node;
* `negligible` becomes `matters`, and `matters` becomes `negligible`.

What a claim says of an absence (a region that contains no effect, or little attention) is not moved to another subject:
there it would be as true, and no weakness of the spec.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.criteria import Exceeds, Negligible, Within
from circuitdsl.circuit.nodes import Node
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Span

#: (a node as it is written) -> one outside the circuit, None where there is none
Outsider = Callable[[s.Head | s.Mlp | s.Resid], str | None]
#: what such a node is called
_CALLED = {s.Head: "head", s.Mlp: "MLP", s.Resid: "stream"}
#: (a position as it is written) -> another place, None where there is none
Elsewhere = Callable[[s.Place], str | None]
#: what is replaced, by which text, and what that is called
Edit = tuple[Span, str, str]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A spec with one line changed."""

    line: int
    what: str
    before: str
    after: str
    text: str


def mutants(file: s.File, circuits: Sequence[Circuit], shape: tuple[int, int], elsewhere: Elsewhere) -> list[Mutant]:
    """All mutants of a spec, in the order of its lines; the same spec always has the same ones.

    Args:
        file: the parsed spec.
        circuits: what it was resolved to.
        shape: layers, and heads a layer, of the model.
        elsewhere: names another position of the tasks.
    """
    claims = {claim.line: claim for circuit in circuits for claim in circuit.claims}
    outsider = _outsider(circuits, shape)
    found = []
    for statement in _lines(file.statements):
        edits: list[Edit] = []
        if isinstance(statement, s.Group) and not statement.outside:
            edits += _of_group(statement, outsider, shape[0])
        elif isinstance(statement, s.WhenBoth):
            one, two = (condition.span for condition in statement.conditions)
            edits += [
                (Span(*one[2:], *two[2:]), "", "condition dropped"),
                (Span(*one[:2], *two[:2]), "", "condition dropped"),
            ]
        elif isinstance(statement, s.ProtocolLine):
            edits += _of_protocol(statement.protocol)
        claim = claims.get(statement.span.line)
        if claim and claim.expected_to_fail is None and isinstance(statement, s.EdgeClaim | s.PathClaim | s.Expect):
            edits += _of_claim(statement, claim, outsider, elsewhere, shape[0])
        found += [_mutant(file.text, *edit) for edit in edits]
    return found


def _lines(statements: Sequence[s.Statement]) -> Iterator[s.Statement]:
    for statement in statements:
        yield statement
        if isinstance(statement, s.When | s.Intervention):
            yield from statement.block


def _mutant(text: str, span: Span, new: str, what: str) -> Mutant:
    lines = text.split("\n")
    first = "\n".join((*lines[: span.line - 1], lines[span.line - 1][: span.column - 1]))
    last = "\n".join((lines[span.end_line - 1][span.end_column - 1 :], *lines[span.end_line :]))
    changed = first + new + last
    # the line as it was and as it is, with single blanks, without its comment
    before, after = (" ".join(each.split("\n")[span.line - 1].partition("#")[0].split()) for each in (text, changed))
    return Mutant(span.line, what, before, after, changed)


# --- groups -----------------------------------------------------------------------------------------


def _of_group(group: s.Group, outsider: Outsider, layers: int) -> Iterator[Edit]:
    names = {str(node) for node in s.walk_to(group.members, s.Feature)}
    for node in s.walk(group.members):
        if isinstance(node, s.Head | s.Mlp | s.Resid) and (other := outsider(node)):
            yield node.span, other, "member swapped"
        if isinstance(node, s.Feature) and node.which.text.isdigit() and _neighbour(node) not in names:
            yield node.span, _neighbour(node), "member swapped"
        yield from _of_set(node, layers)
    members = group.members.members if isinstance(group.members, s.Items) else ()
    if len(members) > 1:
        yield from ((member.span, "", "member dropped") for member in members)


def _of_set(node: s.Syntax, layers: int) -> Iterator[Edit]:
    """What is said of many nodes at once: of another layer, and without what is taken away."""
    if isinstance(node, s.Layer) and layers > 1:
        yield node.span, f"{(node.layer + 1) % layers}.*", "layer swapped"
    if isinstance(node, s.Sum):
        before = node.operands[0]
        for sign, operand in zip(node.signs[1:], node.operands[1:], strict=True):
            if sign == "-":
                yield Span(*before.span[2:], *operand.span[2:]), "", "subtraction dropped"
            before = operand


def _outsider(circuits: Sequence[Circuit], shape: tuple[int, int]) -> Outsider:
    inside = {node for circuit in circuits for group in circuit.groups if not group.outside for node in group.nodes}
    layers, heads = shape

    def other(node: s.Head | s.Mlp | s.Resid) -> str | None:
        rng = random.Random(f"{node.layer}.{getattr(node, 'head', '')}/{node.span.line}")
        if isinstance(node, s.Head):
            own, mates = Node("head", node.layer, node.head), [Node("head", node.layer, i) for i in range(heads)]
        elif isinstance(node, s.Mlp):
            own, mates = Node("mlp", node.layer), [Node("mlp", layer) for layer in range(layers)]
        else:
            own, mates = Node("resid", node.layer), [Node("resid", layer + 1) for layer in range(layers)]
        free = [str(mate) for mate in mates if mate not in inside and mate != own]
        return rng.choice(free) if free and getattr(node, "index", None) is None else None

    return other


def _neighbour(node: s.Feature) -> str:
    """The feature before it in its dictionary, or the one after the first."""
    index = int(node.which.text)
    return f"{node.dictionary}[{index - 1 if index else 1}]"


# --- claims -----------------------------------------------------------------------------------------

_NEXT = {"q": "k", "k": "v", "v": "k"}


def _of_claim(
    statement: s.EdgeClaim | s.PathClaim | s.Expect,
    claim: Claim,
    outsider: Outsider,
    elsewhere: Elsewhere,
    layers: int,
) -> Iterator[Edit]:
    about: s.Edge | s.Path | s.Measurement
    match statement:
        case s.EdgeClaim(edge=about) | s.PathClaim(path=about) | s.Expect(measurement=about):
            pass
    relation = getattr(statement, "relation", None)
    compared = relation if isinstance(relation, s.Against) else None
    if not _says_absence(claim):
        larger = compared.other if compared and compared.relation.startswith("<") else about
        yield from _of_subject(larger, outsider, elsewhere, layers)
        if isinstance(about, s.Path) and len(about.hops) > 2:
            yield from ((hop.span, "", "arrow dropped") for hop in about.hops[:-1])
    if not isinstance(statement, s.Expect) and not statement.claim:
        end = about.span
        yield Span(end.end_line, end.end_column, end.end_line, end.end_column), " : negligible", "matters turned"
    for part in statement.claim:
        if isinstance(part, s.PlainClaim):
            yield part.span, *_TURNED[part.word]
        elif isinstance(part, s.Bound):
            yield from _of_relation(part.relation, signed=True)
        elif isinstance(part, s.Stronger):
            yield from _of_comparison(part, about, alone=len(statement.claim) == 1 and not claim.each)
    if isinstance(about, s.Edge) and about.protocol is not None:
        yield from _of_protocol(about.protocol)
    for option in about.arguments if isinstance(about, s.Measurement) else ():
        if isinstance(option, s.Option) and option.key.text == "ablate":
            yield option.value.span, "mean" if str(option.value) == "corrupt" else "corrupt", "ablation changed"
    if statement.where is not None:
        yield statement.where.span, "", "strata dropped"
    if compared is not None:
        swapped = f"{compared.other} {replace(compared, other=cast(s.Measurement, about))}"
        yield about.span.to(compared.span), swapped, "sides swapped"
        if compared.by is not None and (more := _tighter(compared.by, True, False)):
            yield compared.by.span, more, "difference doubled"
    elif isinstance(statement, s.Expect) and statement.relation is not None:
        yield from _of_relation(statement.relation, claim.measurement.signed)


def _of_comparison(part: s.Stronger, about: s.Edge | s.Path | s.Measurement, alone: bool) -> Iterator[Edit]:
    """Both sides exchanged, and the factor twice as large."""
    if alone and type(part.other) is type(about):
        other, own = (str(side).removeprefix("path ") for side in (part.other, about))
        than = f"path {own}" if isinstance(about, s.Path) else own
        times = f" by {part.times} times" if part.times else ""
        yield about.span.to(part.span), f"{other} : stronger than {than}{times}", "sides swapped"
    if part.times is not None:
        yield part.times.span, f"{2 * part.times.value:.6g}", "factor doubled"


def _of_protocol(protocol: s.Protocol) -> Iterator[Edit]:
    """The other of what an edge may be replaced by, where the line says which."""
    if protocol.ablate is not None:
        other = replace(protocol, ablate="mean" if protocol.ablate == "corrupt" else "corrupt")
        yield protocol.span, str(other), "ablation changed"


def _says_absence(claim: Claim) -> bool:
    """Whether no effect at all, or no attention, is what the claim asks for."""

    zero = (
        replace(test, strict=False).admits(0)
        if isinstance(test, Within) and not isinstance(test, Exceeds)
        else isinstance(test, Negligible)
        for test in claim.tests
    )
    return not claim.measurement.level and bool(claim.tests) and all(zero)


def _of_subject(about: s.Syntax, outsider: Outsider, elsewhere: Elsewhere, layers: int) -> Iterator[Edit]:
    for node in s.walk(about):
        match node:
            case s.Head() | s.Mlp() | s.Resid():
                if other := outsider(node):
                    yield node.span, other, f"{_CALLED[type(node)]} swapped"
                if isinstance(node.index, str):
                    _, _, row, end = node.span
                    yield Span(row, end, row, end + len(node.index) + 2), "", "direction dropped"
            case s.Feature(which=which) if which.text.isdigit():
                yield node.span, _neighbour(node), "feature swapped"
            case s.WithPort(port=port):
                yield port.span, f".{_NEXT[port.text]}", "input changed"
            case s.Place():
                if place := elsewhere(node):
                    yield node.span, place, "position changed"
            case _:
                yield from _of_set(node, layers)


#: for each word of a claim, its opposite, and what is changed
_TURNED = {
    "lowers": ("raises", "sign turned"),
    "raises": ("lowers", "sign turned"),
    "negligible": ("matters", "negligible turned"),
    "matters": ("negligible", "matters turned"),
}


def _of_relation(relation: s.Relation, signed: bool) -> Iterator[Edit]:
    """The bound twice as tight, and turned round; `signed` figures are effects and differences, others are levels."""
    match relation:
        case s.Compared(relation=sign, bound=number):
            if tight := _tighter(number, sign.startswith(">"), signed):
                yield number.span, tight, "bound tightened"
            turned = sign.translate(str.maketrans("<>", "><"))
            value = -number.value if signed else number.value
            yield relation.span, f"{turned} {_written(value, number)}", "sign turned"
        case s.Between(low=low, high=high):
            middle, reach = (low.value + high.value) / 2, (high.value - low.value) / 4
            inner = f"in [{_written(middle - reach, low)}, {_written(middle + reach, high)}]"
            yield relation.span, inner, "bound tightened"
            if signed and low.value != -high.value:
                turned = f"in [{_written(-high.value, high)}, {_written(-low.value, low)}]"
                yield relation.span, turned, "sign turned"
        case s.Change(direction=word, by=by):
            other = "falls" if word == "rises" else "rises"
            new = other if by is None else f"{other} by {by.relation} {by.bound.text}"
            yield relation.span, new, "sign turned"
            if by is not None and (tight := _tighter(by.bound, True, True)):
                yield by.bound.span, tight, "bound tightened"


def _tighter(number: s.Number, above: bool, signed: bool) -> str | None:
    """A bound twice as tight: away from 0 where that is away from the region's inside, towards 0 elsewhere."""
    value = number.value
    if value == 0:
        return None
    outward = (value > 0) == above
    tight = 2 * value if outward else value / 2
    if outward and not signed and number.unit == "%" and tight > 100:
        tight = 100 - (100 - value) / 2
    return _written(tight, number) if tight != value else None


def _written(value: float, like: s.Number) -> str:
    unit = " points" if like.unit == "points" else like.unit
    return f"{value:.6g}{unit}"
