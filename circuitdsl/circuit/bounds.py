"""Claims and relations to tests: bounds in plain numbers, each in the unit its quantity has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

from circuitdsl.circuit.changes import EdgePatch, NodePatch, Patch, PathPatch
from circuitdsl.circuit.criteria import Exceeds, Matters, Moves, Negligible, Quantity, Signed, Stronger, Test, Within
from circuitdsl.circuit.edges import resolve_edge
from circuitdsl.circuit.nodes import Direction
from circuitdsl.circuit.path_arrows import resolve_path
from circuitdsl.circuit.scope import Scope, complete
from circuitdsl.circuit.vocabulary import METRICS, Unit
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Fix

#: how large a bound or a factor may be: squares and cubes of it must be numbers, too
LARGEST = 1e9
#: the nodes of a knock-out that is named behind `stronger than`
ReadKnockout = Callable[[s.Measurement], NodePatch | None]
_PLAIN: dict[str, Test] = {str(test): test for test in (Matters(), Negligible(), Signed("lowers"), Signed("raises"))}
#: words of which no effect can be both; the first pair that a claim holds is reported
_EXCLUSIVE = (("lowers", "raises"), *(("negligible", word) for word in ("matters", "lowers", "raises")))


def is_negligible(parts: Iterable[s.ClaimPart]) -> bool:
    """Whether a claim says of its patch that it does next to nothing: it is no part of the circuit then."""
    return any(isinstance(part, s.PlainClaim) and part.word == "negligible" for part in parts)


def resolve_claim(
    scope: Scope,
    parts: tuple[s.ClaimPart, ...],
    direction: Direction = "noise",
    own: Patch | None = None,
    knockout: ReadKnockout | None = None,
) -> tuple[Test, ...] | None:
    """The tests of a claim on a patch; None where one is wrong, after a diagnostic was emitted.

    Args:
        direction: which run is patched. The edges of `stronger than` are patched in the same run, so that both changes
            start from one run.
        own: what the claim is about. Edges of `stronger than` follow their protocol unless they
            name one: an effect via MLPs is no measure of a direct one. Without them it is the one at this place in the
            file.
        knockout: reads a knock-out that this one is compared with; None where the claim is about no knock-out.
    """
    tests: list[Test | None] = [] if parts else [Matters()]
    for part in parts:
        match part:
            case s.PlainClaim(word=word):
                tests.append(_PLAIN[word])
            case s.Bound(quantity="effect", relation=relation):
                tests.append(within(scope, relation, "effect", "effect", "effect"))
            case s.Bound(relation=relation):
                tests.append(within(scope, relation, delta_unit(scope), "delta", "delta"))
            case s.Stronger():
                tests.append(_stronger(scope, part, direction, own, knockout))
    words = {part.word for part in parts if isinstance(part, s.PlainClaim)}
    for one, other in _EXCLUSIVE if len(words) > 1 else ():
        if one in words and other in words:
            scope.sink.error("E086", f"'{one}' and '{other}' exclude each other", parts[0].span.to(parts[-1].span))
            break
    return complete(tests)


def _stronger(
    scope: Scope, part: s.Stronger, direction: Direction, own: Patch | None, knockout: ReadKnockout | None
) -> Stronger | None:
    """What a claim is compared with: other edges, another path or another knock-out, so many times."""
    other, times = part.other, 1.0
    if part.times is not None:
        found = factor(scope, part.times)
        if found is None:
            return None
        times = found
    if isinstance(other, s.Measurement):
        if knockout is None:
            message = "a knock-out is compared with a knock-out"
            scope.sink.error("E086", message, other.span, "write: expect knockout(…) : stronger than knockout(…)")
            return None
        nodes = knockout(other)
        if nodes and isinstance(own, NodePatch) and (set(nodes.sites), nodes.ablate) == (set(own.sites), own.ablate):
            scope.sink.error("E086", "no knock-out is stronger than itself", part.span)
        return None if nodes is None else Stronger(nodes, str(other), times)
    if isinstance(other, s.Path):
        if direction == "denoise":
            message = "a path is not denoised: both must be patched in one run"
            scope.sink.error("E086", message, other.span, "compare it with an edge")
            return None
        path = resolve_path(scope, other)
        if path and isinstance(own, PathPatch) and path.edge_sets == own.edge_sets:
            scope.sink.error("E086", "no path is stronger than itself", part.span)
        return None if path is None else Stronger(path, str(other), times)
    via_mlps = own.via_mlps if isinstance(own, EdgePatch) else scope.via_mlps and not isinstance(own, PathPatch)
    ablate = own.ablate if isinstance(own, EdgePatch) else scope.ablate
    patch = resolve_edge(scope, other, via_mlps, direction, ablate=ablate if direction == "noise" else None)
    same = patch and isinstance(own, EdgePatch) and _patched(patch) == _patched(own)
    if same:
        scope.sink.error("E086", "no edge is stronger than itself", part.span)
    return None if patch is None else Stronger(patch, f"{other.sender} -> {other.receiver}", times)


def _patched(patch: EdgePatch) -> tuple[object, ...]:
    return patch.edge_set, patch.via_mlps, patch.ablate


def moves(scope: Scope, change: s.Change, unit: Unit, name: str) -> Moves | None:
    """`rises`, `falls by >= 10 points`: the difference that a condition makes."""
    direction: Literal["rises", "falls"] = "rises" if change.direction == "rises" else "falls"
    if change.by is None:
        return Moves(direction, 0.0, direction)
    number = change.by.bound
    if not change.by.relation.startswith(">"):
        message = f"'{direction} by' says how much at least: write it with >= or >"
        scope.sink.error("E083", message, change.by.span, f"write: {direction} by >= {number.text}")
        return None
    by = read(scope, number, "plain" if unit == "plain" else "points", f"a change of {name}", 0)
    return None if by is None else Moves(direction, by, f"{direction} by {change.by.relation} {number.text}")


def effect_tests(
    scope: Scope,
    expect: s.Expect,
    direction: Direction = "noise",
    own: Patch | None = None,
    knockout: ReadKnockout | None = None,
) -> tuple[Test, ...] | None:
    """`: CLAIM`, or a relation whose unit says of what: `%` of the effect, a share of the gap; `points` of the delta.

    A number without a unit says neither, but for 0: it is an error, for a share that lacks its sign would be read as a
    bound in logits, which holds much sooner.
    """
    if expect.relation is None:
        compared = next((part for part in expect.claim if isinstance(part, s.Stronger)), None)
        if scope.under and compared:
            message = "under a condition, no two effects are compared"
            scope.sink.error("E087", message, compared.span, "compare them outside of the block")
            return None
        return resolve_claim(scope, expect.claim, direction, own, knockout)
    if isinstance(expect.relation, s.Change) and scope.under:
        message = (
            f"under a condition, {expect.measurement.name.text} has an effect: the change from the condition alone"
        )
        scope.sink.error("E083", message, expect.relation.span, "write a claim on it, such as ': lowers'")
        return None
    if isinstance(expect.relation, s.Against):
        by, shares, shape = expect.relation.by, delta_unit(scope) == "points", METRICS.get(scope.metric.name)
        # where the metric is better when lower, a change above 0 is a share of the gap below 0, which `by` speaks of
        delta = shape is None or not shape.falls if by is None else shares and by.unit == "points"
        unit: Unit = "effect" if not delta else delta_unit(scope)
        found = against(scope, expect.relation, unit, "delta" if delta else "effect", expect.measurement.name.text)
        return None if found is None else (found,)
    numbers = [part for part in s.walk(expect.relation) if isinstance(part, s.Number)]
    units, plain = {number.unit for number in numbers}, delta_unit(scope) == "plain"
    bare = next((number for number in numbers if plain and units == {""} and number.value), None)
    if bare and isinstance(expect.relation, s.Compared | s.Between):
        message = f"{bare.text} could be a share of the gap or a change of {scope.metric.name}"
        fixes = tuple(
            Fix(expect.relation.span, f": {claim}")
            for claim in (f"effect {_as_shares(expect.relation)}", f"delta {expect.relation}")
        )
        guess = " or ".join(f"'{fix.text}'" for fix in fixes)
        scope.sink.error("E080", f"{message}: did you mean {guess}?", expect.relation.span, fixes=fixes)
        return None
    delta = units == {""} if plain else "points" in units
    name: Quantity = "delta" if delta else "effect"
    test = within(scope, expect.relation, delta_unit(scope) if delta else "effect", name, name)
    return None if test is None else (test,)


def against(
    scope: Scope,
    relation: s.Against,
    unit: Unit,
    quantity: Quantity,
    name: str,
    low: float | None = None,
    high: float | None = None,
) -> Exceeds | None:
    """`> FIGURE by 30 points`, `< FIGURE by 2 times`: the difference of two figures of `name`, without the other one.

    It is None where the relation is wrong, after a diagnostic was emitted. A figure that can be below 0 is not compared
    by a factor: twice as little is not more.
    """
    number, above = relation.by, relation.relation.startswith(">")
    by, times = 0.0, 1.0
    if number is not None and relation.times:
        if low is None or low < 0:
            message = f"{name} can be below 0, where a larger number is no larger figure: 'times' says nothing of it"
            scope.sink.error("E081", message, number.span, "give a difference, such as: by …")
            return None
        found = factor(scope, number)
        times = 1.0 if found is None else found if above else 1 / found
    elif number is not None:
        span = None if low is None or high is None else high - low
        difference: Unit = "plain" if unit == "plain" else "effect" if unit == "effect" else "points"
        found = read(scope, number, difference, f"a difference of {name}", 0, span)
        by = 0.0 if found is None else found
    if number is not None and found is None:
        return None
    least, most = (by, None) if above else (None, 0.0 - by)
    return Exceeds(quantity, least, most, str(relation), "=" not in relation.relation, times)


def factor(scope: Scope, number: s.Number) -> float | None:
    """How many times as large one size is claimed to be as another."""
    found = read(scope, number, "plain", "a factor")
    if found is None or found > 0:
        return found
    message = f"{number.text} times: no size is below 0, so that this compares nothing"
    scope.sink.error("E081", message, number.span, "write a factor above 0, such as: by 2 times")
    return None


def delta_unit(scope: Scope) -> Unit:
    """The unit in which a difference of the spec's metric is written."""
    shape = METRICS.get(scope.metric.name)
    return "points" if shape is not None and shape.unit != "plain" else "plain"


def within(
    scope: Scope,
    relation: s.Relation,
    unit: Unit,
    quantity: Quantity,
    name: str,
    low: float | None = None,
    high: float | None = None,
) -> Within | None:
    """A relation as bounds on `name`, which lies between `low` and `high`.

    It is None where the relation is wrong, after a diagnostic was emitted. A warning is emitted where no figure between
    `low` and `high` can fail it.
    """
    prefix = "" if quantity == "value" else f"{quantity} "
    match relation:
        case s.Compared(relation=sign, bound=number):
            value = read(scope, number, unit, name, low, high)
            if value is None:
                return None
            least, most = (value if sign.startswith(side) else None for side in "><")
            found = Within(quantity, least, most, f"{prefix}{sign} {number.text}", strict="=" not in sign)
        case s.Between(low=first, high=second):
            least, most = (read(scope, number, unit, name, low, high) for number in (first, second))
            if least is None or most is None:
                return None
            if least > most:
                message = f"the interval [{first.text}, {second.text}] is empty"
                scope.sink.error("E082", message, relation.span, f"write [{second.text}, {first.text}]")
                return None
            found = Within(quantity, least, most, f"{prefix}in [{first.text}, {second.text}]")
        case s.AboveChance():
            message = f"'above chance' is said of accuracy, of a channel's composition and of overlap, not of {name}"
            help = scope.kinds.instead_of_chance(name) or f"write a bound: {prefix or name + ' '}>= …"
            scope.sink.error("E083", message, relation.span, help)
            return None
        case s.Change(direction=word):
            where = "in a 'when' or 'intervention' block, where there is something to compare with"
            scope.sink.error("E083", f"'{word}' stands only {where}", relation.span)
            return None
        case s.Against():
            scope.sink.error("E083", f"{name} is compared with numbers, not with another figure", relation.span)
            return None
        case _:
            scope.sink.error("E083", "'agree' is said of roles only", relation.span)
            return None
    if found.admits(-math.inf if low is None else low) and found.admits(math.inf if high is None else high):
        message = f"nothing can fail this: {name} {_limits(unit, low, high)}"
        scope.sink.warning("W073", message, relation.span, "give a bound that a model could miss")
    return found


def read(
    scope: Scope, number: s.Number, unit: Unit, name: str, low: float | None = None, high: float | None = None
) -> float | None:
    """A number in the unit it must have, as a plain fraction; None after a diagnostic was emitted."""
    if wrong := _unit_problem(number, unit, name):
        problem, meant = wrong
        besides = f", or an effect of {meant}%" if unit == "plain" and name == "delta" else ""
        message = f"{problem}: did you mean {meant}{besides}?"
        scope.sink.error("E080", message, number.span, fixes=(Fix(number.span, meant),))
        return None
    value = number.value / 100 if number.unit else number.value
    if not math.isfinite(value):
        message = f"{number.text[:20]} is no finite number"
    elif abs(value) > LARGEST:
        message = f"{number.text[:20]} is beyond anything that is measured ({LARGEST:g} at the most)"
    elif (low is not None and value < low) or (high is not None and value > high):
        message = f"{name} cannot be {number.text}: it {_limits(unit, low, high)}"
    else:
        return value
    scope.sink.error("E081", message, number.span)
    return None


def _unit_problem(number: s.Number, unit: Unit, name: str) -> tuple[str, str] | None:
    """What is wrong with the unit, and the number that was probably meant; zero needs no unit."""
    if number.unit == "" and number.value == 0:
        return None
    bare = number.text.removesuffix(" points").removesuffix("%")
    match unit, number.unit:
        case ("effect" | "share" | "share difference", "%") | ("points" | "share difference", "points") | ("plain", ""):
            return None
        case "effect", "":
            return "an effect is a share of the gap", _percent(number)
        case "share" | "share difference", "":
            return f"{name} is a share, written with a percent sign", _percent(number)
        case "effect" | "share", _:
            return f"{name} is a share, and points are differences of shares", f"{bare}%"
        case "points", "%":
            return f"{name} is a difference of shares, written in points", f"{bare} points"
        case "points", _:
            return f"{name} is a difference of shares, written in points", f"{_percent(number)[:-1]} points"
        case _ if name in ("a factor", "composition") and number.unit == "%":
            return f"{name} is a plain number", f"{number.value / 100:g}"
        case _:
            return f"{name} is a plain number, without '{number.unit}'", bare


def _percent(number: s.Number) -> str:
    """What was meant by a share without its sign: 20 is 20 %, 0.2 is 20 % too."""
    value = number.value
    small = abs(value) <= 1 and "." in number.text
    return f"{value * 100:g}%" if small else f"{number.text}%"


def _as_shares(relation: s.Relation) -> s.Relation:
    """A relation with the percent signs that it lacks."""
    numbers: dict[str, Any] = {name: part for name, part in vars(relation).items() if isinstance(part, s.Number)}
    return replace(relation, **{name: replace(part, text=_percent(part)) for name, part in numbers.items()})


def _limits(unit: Unit, low: float | None, high: float | None) -> str:
    """`lies between 0% and 100%`, `is never below 0`"""

    def show(value: float) -> str:
        sign = "%" if unit in ("share", "share difference") else " points" if unit == "points" else ""
        return f"{value * 100:g}{sign}" if sign else f"{value:g}"

    if low is not None and high is not None:
        return f"lies between {show(low)} and {show(high)}"
    side = f"below {show(low)}" if low is not None else f"above {show(high)}" if high is not None else ""
    return f"is never {side}"
