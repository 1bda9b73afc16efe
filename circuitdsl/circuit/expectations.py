"""`expect` lines: what is measured, and what is claimed of it."""

from __future__ import annotations

from typing import cast

from circuitdsl.circuit.arguments import (
    Arguments,
    Expected,
    group_argument,
    one_set,
    only_heads,
    refuse_others,
    sites_of,
    sort_arguments,
    value_test,
)
from circuitdsl.circuit.bounds import delta_unit, resolve_claim, within
from circuitdsl.circuit.criteria import AboveChance, Test
from circuitdsl.circuit.edges import is_before, resolve_edge
from circuitdsl.circuit.header import metric_of
from circuitdsl.circuit.measurements import Attention, Behaviour, EdgeEffect, Metric, NodeEffect
from circuitdsl.circuit.nodes import Ablation, Direction, Position
from circuitdsl.circuit.roles import resolve_role
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import ABLATIONS, BEHAVIOUR, ELSEWHERE, MEASUREMENTS, METRICS, UNDER, WHOLE
from circuitdsl.circuit.whole import resolve_whole
from circuitdsl.circuit.writes import attribution, copying, head_score
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import did_you_mean, listing, suggest
from circuitdsl.language.written import written


def resolve_expect(scope: Scope, expect: s.Expect) -> Expected | None:
    """The measurement and tests of an expectation; None when it is wrong (and said so)."""
    name = expect.measurement.name
    if name.text in BEHAVIOUR:
        return _behaviour(scope, expect)
    if name.text == "attention":
        return _attention(scope, expect)
    if name.text == "knockout":
        return _knockout(scope, expect)
    if name.text == "attribution":
        return attribution(scope, expect)
    if scope.under and name.text in MEASUREMENTS:
        _refuse_under(scope, name)
        return None
    if name.text == "role":
        return resolve_role(scope, expect, resolve_expect)
    if name.text == "denoise":
        return _denoise(scope, expect)
    if name.text in WHOLE:
        return resolve_whole(scope, expect)
    if name.text == "copying":
        return copying(scope, expect)
    if name.text.endswith("_score") and name.text in MEASUREMENTS:
        return head_score(scope, expect)
    if name.text == "kl":
        scope.sink.error("E048", "kl compares two runs: it is a metric, and says nothing of one run alone", name.span)
    elif name.text in ELSEWHERE:
        scope.sink.error("E048", f"{name.text} is not measured on its own", name.span, ELSEWHERE[name.text])
    else:
        scope.sink.unknown("E048", "measurement", name.text, name.span, MEASUREMENTS)
    return None


# --- behaviour ------------------------------------------------------------------------------------


def _behaviour(scope: Scope, expect: s.Expect) -> Expected | None:
    measurement = expect.measurement
    entries: list[s.Option | s.Value] = []
    for argument in measurement.arguments:
        if isinstance(argument, s.GroupRef):
            entries.append(s.Word(argument.span, argument.name))
        elif isinstance(argument, s.Option):
            entries.append(argument)
        else:
            scope.sink.error("E084", f"{measurement.name.text} takes options only", argument.span)
            return None
    metric = metric_of(scope.sink, measurement.name, entries)
    shape = METRICS[measurement.name.text]
    if isinstance(expect.relation, s.AboveChance) and measurement.name.text == "accuracy":
        return None if metric is None else (Behaviour(_as_metric(scope, metric)), (AboveChance(),))
    test = value_test(scope, expect, shape.unit, shape.low, shape.high)
    if metric is None or test is None:
        return None
    return Behaviour(_as_metric(scope, metric)), (test,)


def _as_metric(scope: Scope, metric: Metric) -> Metric:
    """Without options of its own, a measurement named like the spec's metric is measured like it."""
    return scope.metric if metric.name == scope.metric.name and not metric.options else metric


# --- attention ------------------------------------------------------------------------------------


def _attention(scope: Scope, expect: s.Expect) -> Expected | None:
    attention = attention_of(scope, expect.measurement)
    test = value_test(scope, expect, "share", 0, 1)
    if attention is None or test is None:
        return None
    return attention, (test,)


def attention_of(scope: Scope, measurement: s.Measurement) -> Attention | None:
    """`attention(GROUP, FROM -> TO)`; None when it is wrong (and said so)."""
    found = sort_arguments(measurement.arguments)
    lowercase = [other for other in found.others if isinstance(other, s.Edge)]
    if lowercase:
        _lower_arrow(scope, lowercase[0])
        return None
    right = refuse_others(scope, measurement, found, positions=True, options=False)
    members = group_argument(scope, measurement, found)
    places = _from_to(scope, measurement, found)
    heads = members is not None and only_heads(scope, found, members)
    if not right or not heads or members is None or places is None:
        return None
    return Attention(tuple(members), *places, label=written(one_set(found.sets)))


def _lower_arrow(scope: Scope, edge: s.Edge) -> None:
    """`attention(mover, end -> io)`"""
    names = scope.position_names()
    guess = [suggest(written(end).upper(), names) or written(end).upper() for end in (edge.sender, edge.receiver)]
    message = f"attention goes from position to position, written in capitals{did_you_mean(' -> '.join(guess))}"
    scope.sink.error("E044", message, edge.span)


def _from_to(
    scope: Scope, measurement: s.Measurement, found: Arguments
) -> tuple[tuple[Position, ...], tuple[Position, ...]] | None:
    if found.arrows != 1:
        message = "attention goes from one position to another: attention(mover, END -> IO)"
        scope.sink.error("E084", message, measurement.span)
        return None
    source = [scope.position(place) for place in found.source]
    target = [scope.position(place) for place in found.target]
    if None in source or None in target:
        return None
    sources = tuple(dict.fromkeys(p for p in source if p is not None))
    targets = tuple(dict.fromkeys(p for p in target if p is not None))
    if all(is_before(scope, a, b) for a in sources for b in targets):
        message = f"{sources[0]} stands before {targets[0]}: attention cannot look ahead, and is 0 there"
        scope.sink.warning("W072", message, found.source[0].span.to(found.target[-1].span))
    return sources, targets


# --- knock-outs and their counterpart -------------------------------------------------------------


def _refuse_under(scope: Scope, name: s.Word) -> None:
    message = f"{name.text} is not measured under a condition"
    help = f"under one can stand: {listing(UNDER)}"
    scope.sink.error("E087", message, name.span, help)


def _knockout(scope: Scope, expect: s.Expect) -> Expected | None:
    measurement = expect.measurement
    found = sort_arguments(measurement.arguments)
    right = refuse_others(scope, measurement, found, positions=False, options=True)
    members = group_argument(scope, measurement, found)
    ablate = _ablation(scope, found)
    tests = _effect_tests(scope, expect)
    sites = None if members is None else sites_of(scope, members, one_set(found.sets).span)
    if not right or sites is None or ablate is None or tests is None:
        return None
    if scope.under and ablate != "corrupt":
        message = "under a condition knock-outs put in corrupt terms, as the condition does"
        scope.sink.error("E087", message, found.options[0].span)
        return None
    return NodeEffect(sites, ablate, label=written(one_set(found.sets))), tests


def _denoise(scope: Scope, expect: s.Expect) -> Expected | None:
    """`denoise(mover)` or `denoise(inhibition -> mover.q)`: the clean term in the corrupt run."""
    measurement = expect.measurement
    found = sort_arguments(measurement.arguments)
    edges = [other for other in found.others if isinstance(other, s.Edge)]
    found.others = [other for other in found.others if not isinstance(other, s.Edge)]
    right = refuse_others(scope, measurement, found, positions=False, options=False)
    if len(edges) + bool(found.sets) != 1:
        message = "denoise takes nodes or one edge: denoise(mover), denoise(inhibition -> mover.q)"
        scope.sink.error("E084", message, measurement.span)
        return None
    effect: EdgeEffect | NodeEffect | None = None
    via_mlps = None
    if edges:
        effect = resolve_edge(scope, edges[0], scope.via_mlps, "denoise")
        via_mlps = effect.via_mlps if effect else None
    elif (members := group_argument(scope, measurement, found)) is not None:
        sites = sites_of(scope, members, one_set(found.sets).span)
        effect = NodeEffect(sites, direction="denoise", label=written(one_set(found.sets))) if sites else None
    tests = _effect_tests(scope, expect, "denoise", via_mlps)
    if not right or effect is None or tests is None:
        return None
    return effect, tests


def _ablation(scope: Scope, found: Arguments) -> Ablation | None:
    """What the nodes' term is replaced by."""
    value = "corrupt"
    for option in found.options:
        if option.key.text != "ablate":
            scope.sink.unknown("E046", "option", option.key.text, option.key.span, ("ablate",), " of knockout")
            return None
        if not isinstance(option.value, s.Word) or option.value.text not in ABLATIONS:
            scope.sink.error("E047", f"ablate is {listing(ABLATIONS[:-1])} or {ABLATIONS[-1]}", option.value.span)
            return None
        value = option.value.text
    return cast(Ablation, value)


def _effect_tests(
    scope: Scope, expect: s.Expect, direction: Direction = "noise", via_mlps: bool | None = None
) -> tuple[Test, ...] | None:
    """`: CLAIM`, or a relation whose unit tells an effect (a share of the gap) from a delta."""
    if expect.relation is None:
        return resolve_claim(scope, expect.claim, direction, via_mlps)
    if isinstance(expect.relation, s.Change) and scope.under:
        message = f"what {expect.measurement.name.text} does under a condition is an effect against the condition alone"
        scope.sink.error("E083", message, expect.relation.span, "write a claim on it, such as ': lowers'")
        return None
    numbers = [part for part in s.walk(expect.relation) if isinstance(part, s.Number)]
    if delta_unit(scope) == "points":
        delta = any(number.unit == "points" for number in numbers)
    else:
        delta = bool(numbers) and not any(number.unit for number in numbers)
    test = (
        within(scope, expect.relation, delta_unit(scope), "delta", "delta")
        if delta
        else within(scope, expect.relation, "effect", "effect", "effect")
    )
    return None if test is None else (test,)
