"""`attribution`, `copying` and the attention scores: what heads write and where they look, without a patch."""

from __future__ import annotations

from typing import cast

from circuitdsl.circuit.arguments import (
    Expected,
    group_argument,
    one_set,
    only_heads,
    refuse_others,
    sort_arguments,
    value_test,
)
from circuitdsl.circuit.measurements import Attribution, Copying, HeadScore, ScoreKind
from circuitdsl.circuit.nodes import LOGITS
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.language.written import written

NEGATED = "negated"
NEGATIVE, MOVER = "negative_mover", "mover"


def attribution(scope: Scope, expect: s.Expect) -> Expected | None:
    """`attribution(mover) > 0`, in logits."""
    found = sort_arguments(expect.measurement.arguments)
    right = refuse_others(scope, expect.measurement, found, positions=False, options=False)
    members = group_argument(scope, expect.measurement, found)
    test = value_test(scope, expect, "plain", None, None)
    if members is not None and LOGITS in members:
        scope.sink.error("E076", "logits writes nothing: nothing of it can be attributed", one_set(found.sets).span)
        return None
    if not right or members is None or test is None:
        return None
    return Attribution(tuple(members), written(one_set(found.sets))), (test,)


def copying(scope: Scope, expect: s.Expect) -> Expected | None:
    """`copying(mover) >= 80%`; `copying(G, negated)` is about the negated output, as it is for negative movers."""
    found = sort_arguments(expect.measurement.arguments)
    words = [each for each in found.sets if isinstance(each, s.GroupRef) and each.name == NEGATED]
    if NEGATED not in scope.definitions:
        found.sets = [each for each in found.sets if each not in words]
    right = refuse_others(scope, expect.measurement, found, positions=False, options=False)
    members = group_argument(scope, expect.measurement, found)
    test = value_test(scope, expect, "share", 0, 1)
    heads = members is not None and only_heads(scope, found, members, "only heads copy")
    if not right or not heads or members is None or test is None:
        return None
    negative, movers = scope.nodes_of_role(NEGATIVE), scope.nodes_of_role(MOVER)
    negated = bool(words) or all(node in negative and node not in movers for node in members)
    return Copying(tuple(members), negated, written(one_set(found.sets))), (test,)


def head_score(scope: Scope, expect: s.Expect) -> Expected | None:
    """`previous_token_score(G) >= 40%`, `duplicate_token_score(G)`, `induction_score(G)`."""
    name = expect.measurement.name.text
    found = sort_arguments(expect.measurement.arguments)
    right = refuse_others(scope, expect.measurement, found, positions=False, options=False)
    members = group_argument(scope, expect.measurement, found)
    test = value_test(scope, expect, "share", 0, 1)
    heads = members is not None and only_heads(scope, found, members)
    if expect.on is not None:
        scope.sink.error("E083", f"{name} is measured on random tokens: it has no task", expect.on.span)
        return None
    if not right or not heads or members is None or test is None:
        return None
    kind = cast(ScoreKind, name.removesuffix("_score"))
    return HeadScore(kind, tuple(members), written(one_set(found.sets))), (test,)
