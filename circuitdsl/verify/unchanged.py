"""What a corruption leaves as it is: a patch changes nothing there, and an effect of 0 says nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from circuitdsl.circuit.criteria import Negligible, Test, Within
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.plan import Part
from circuitdsl.measurements.requests import PatchRequest, Request, TermRequest
from circuitdsl.verdict.decide import Decision
from circuitdsl.verdicts import WORST_FIRST
from circuitdsl.verify.samples import Collected, Found

#: terms that are named before the rest is counted
_NAMED = 3


def unchanged(request: Request, found: Found) -> tuple[TermRequest, ...]:
    """The terms that a request replaces by the same on every prompt so far, where it changes others."""
    if request not in found or not found[request].changed.any():
        return ()
    return tuple(term for term in request.terms if term in found and not found[term].changed.any())


def untested(part: Part, tests: Sequence[Test], found: Found) -> tuple[TermRequest, ...]:
    """The unchanged terms of a part whose tests an effect of 0 satisfies: they hold, and say nothing of these.

    Conditions are left out: what is claimed to be small is not their effect.
    """
    if not isinstance(part.request, PatchRequest) or not all(map(_admits_nothing, tests)):
        return ()
    own = part.request.patches[0]
    return tuple(term for term in unchanged(part.request, found) if term in own.terms)


def _admits_nothing(test: Test) -> bool:
    """Whether an effect of 0 satisfies a test."""
    if isinstance(test, Within):
        return test.quantity != "value" and test.admits(0.0)
    return isinstance(test, Negligible)


def unless_untested(member: Collected, decision: Decision) -> Decision:
    """A decision, with an error in place of a `holds` that says nothing of some terms."""
    empty: dict[str, tuple[TermRequest, ...]] = {}
    for part in member.plan.parts:  # those of one label are one claim: one that needs an effect is enough
        terms = untested(part, member.plan.tests(part), member.series)
        empty[part.label] = empty.get(part.label, terms) and terms

    def judged(one: Decision) -> Decision:
        terms = empty.get(one.label)
        if not terms or one.verdict != "holds":
            return one
        because = f"{said(terms)}, and a bound that 0 meets says nothing of it: leave that out"
        return replace(one, verdict="error", reason=because + instead(terms, member.prompts))

    if not decision.parts:
        return judged(decision)
    parts = tuple(map(judged, decision.parts))
    worst = min(parts, key=lambda one: WORST_FIRST.index(one.verdict))
    if worst.verdict == decision.verdict:
        return replace(decision, parts=parts)
    reason = f"{worst.label}: {worst.reason}" if worst.label else worst.reason
    return replace(worst, reason=reason, p_holds=decision.p_holds, p_fails=decision.p_fails, parts=parts)


def idle_notes(part: Part, found: Found, reason: str) -> list[str]:
    """What a part's patches and intervention leave as it is, though they change something; once, where the reason of
    the verdict does not name it."""
    terms = dict.fromkeys(term for request in part.requests for term in unchanged(request, found))
    kinds = dict.fromkeys(term.ablate for term in terms)
    texts = {said([term for term in terms if term.ablate == kind]): kind for kind in kinds}
    same = ": the same is written there on both prompts"
    return [text + same * (kind == "corrupt") for text, kind in texts.items() if text not in reason]


def said(terms: Sequence[TermRequest]) -> str:
    """`this corruption does not change 0.3 at IO`"""
    names = [f"{term.node} at {term.position}" for term in terms]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    what = "this corruption" if terms[0].ablate == "corrupt" else f"ablate = {terms[0].ablate}"
    return f"{what} does not change {', '.join(names[:_NAMED])}{more}"


def instead(terms: Sequence[TermRequest], prompts: Prompts) -> str:
    """` (try corrupt = abc)`, where another corruption of the task changes one of these terms."""
    if terms[0].ablate != "corrupt":
        return ""
    better = next((name for name in prompts.others if any(_could_change(t, prompts, name) for t in terms)), None)
    return f" (try corrupt = {better})" if better else ""


def _could_change(term: TermRequest, prompts: Prompts, corruption: str) -> bool:
    """Whether another corruption changes some token at or before a term."""
    for pair in prompts.others[corruption]:
        differ = (i for i, (a, b) in enumerate(zip(pair.clean_tokens, pair.corrupt_tokens, strict=True)) if a != b)
        first = next(differ, len(pair.clean_tokens))
        at = [i + term.position.offset for i in pair.positions.get(term.position.name, (len(pair.clean_tokens) - 1,))]
        if any(pair.clean_tokens[i] != pair.corrupt_tokens[i] for i in at if i < len(pair.clean_tokens)):
            return True
        if term.node.kind != "embed" and any(first <= i for i in at):
            return True
    return False
