"""From the numbers of a claim to the evidence for it and against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, product, zip_longest

import numpy as np

from circuitdsl.circuit.criteria import NULL_PROMPTS, Exceeds, Negligible, Stronger, Test, Within
from circuitdsl.circuit.nodes import is_number
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.peers import ROUNDS
from circuitdsl.measurements.plan import Part, by_itself
from circuitdsl.measurements.requests import ChangedRequest, PatchRequest, PathRequest, Request, TermRequest, replaced
from circuitdsl.report.numbers import plain
from circuitdsl.verdict.decide import Decision
from circuitdsl.verdict.means import SMALL
from circuitdsl.verdict.reasons import too_few
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdict.weighing import Evidence, unmeasured, weigh, weigh_extreme
from circuitdsl.verdict.weighing import Part as Weighed
from circuitdsl.verdicts import WORST_FIRST
from circuitdsl.verify.early_looks import first_difference
from circuitdsl.verify.matched import nearest_that_fire
from circuitdsl.verify.measure import measure
from circuitdsl.verify.samples import Collected, Found, base_of

#: so many terms are named; the others are only counted
_NAMED = 3
#: the scores of two circuits are tied where they differ by less than so many roundings of the gap's square
ROUNDED = 8


def weigh_plan(member: Collected) -> Evidence:
    """Weigh a claim on what was measured so far; on all prompts, a patch that changed no input is an error."""
    plan = member.plan
    if plan.parts[0].peers is not None:
        return _weigh_wins(member)
    if plan.extremes:
        (test,) = plan.claim.tests
        assert isinstance(test, Within)
        samples = [member.sample(part) for part in plan.parts]
        sets = [[samples[i] for i in one] for one in plan.extremes]
        return weigh_extreme(test, sets, name=plan.called, looks=member.looks, templates=member.templates)
    parts: list[Weighed] = []
    before, everything = iter(member.evidence.parts), member.measured == len(member.prompts.pairs)
    for part, null in zip_longest(plan.parts, member.nulls):
        tests = plan.tests(part)
        earlier = tuple(islice(before, len(tests)))  # what came of them at the look before
        # whether some patch or intervention that the part is about has changed nothing on any prompt so far
        idle = any(request.changes and not member.series[request].changed.any() for request in part.requests)
        if idle and everything:
            parts += unmeasured(tests[0], _why_unchanged(member, part), part.label).parts
            continue
        sample, margin = member.sample(part), plan.claim.margin
        templates = member.templates and part.request.figure(member.prompts.metric).of_prompts
        weighed = [
            weigh(test, sample, margin=margin, looks=member.looks, null=null, templates=templates, before=last)
            for test, last in zip_longest(tests, earlier)
        ]
        # later prompts may differ from those at which nothing has changed: these must not settle the claim yet
        if idle:
            weighed = [replace(p, p_holds=1.0, p_fails=1.0, final=False) for p in weighed]
        elif not everything and untested(member, part):
            weighed = [replace(p, p_holds=1.0, final=False) for p in weighed]
        parts += weighed
    return Evidence(tuple(parts))


# --- patches that change nothing -------------------------------------------------------------------


def _why_unchanged(member: Collected, part: Part) -> str:
    request = part.request
    if isinstance(request, ChangedRequest):
        return f"{request.intervention.name} changes nothing of what the model does on these prompts"
    patches = [patch for request in part.requests for patch in request.patches]
    found = measure(member.prompts, patches, member.indices) if len(patches) > 1 else {}
    patch = next((patch for patch in patches if found and not found[patch].changed.any()), patches[0])
    terms = replaced(patch)
    if isinstance(patch, PathRequest) and any(member.series[term].changed.any() for term in terms):
        return "on these prompts a node of the path is read before the change comes to it, so that nothing arrives"
    return said(terms) + instead(terms, member.prompts)


def unchanged(request: Request, found: Found) -> tuple[TermRequest, ...]:
    """The terms that a request replaces by equal ones on every prompt so far, if it changes any other term."""
    if request not in found or not found[request].changed.any():
        return ()
    return tuple(term for term in request.terms if term in found and not found[term].changed.any())


def untested(member: Collected, part: Part) -> tuple[TermRequest, ...]:
    """The unchanged terms of a part, if its tests pass without any effect of them: such a `holds` says nothing of them.

    Of two patches that are compared, each is looked at. The patch of a condition is left out: its effect is not what is
    claimed to be small.
    """
    if not isinstance(part.request, PatchRequest):
        return ()
    tests = member.plan.tests(part)
    sides = [part.request] * all(_met_by_nothing(test) for test in tests)
    if part.rival is not None and any(isinstance(test, Stronger) for test in tests):
        sides.append(part.rival)
    for side, test in product((part.request, part.base), tests):
        if isinstance(test, Exceeds) and isinstance(side, PatchRequest) and _met_without(side, test, member, part):
            sides.append(side)
    return tuple(term for side in sides for term in unchanged(side, member.series) if term in side.patches[0].terms)


def _met_by_nothing(test: Test) -> bool:
    """Whether an effect of 0 passes a test of one patch."""
    if isinstance(test, Within):
        return test.quantity != "value" and not isinstance(test, Exceeds) and test.admits(0.0)
    return isinstance(test, Negligible)


def _met_without(side: PatchRequest, test: Exceeds, member: Collected, part: Part) -> bool:
    """Whether two patches would differ on average as a test wants it if one of them did nothing."""
    found, prompts = member.series, member.prompts
    indices, start = found[side].indices, by_itself(side).base
    assert start is not None and isinstance(part.base, PatchRequest)
    nothing = base_of(prompts, start, found, indices)
    mine, other = (nothing if each == side else found[each].values for each in (part.request, part.base))
    size = (prompts.clean - prompts.corrupt)[indices].mean() if test.quantity == "effect" else 1.0
    return bool(test.admits((mine - part.times * other).mean() / size))


def unless_untested(member: Collected, decision: Decision) -> Decision:
    """The decision; an error takes the place of a `holds` that says nothing of some terms."""
    empty: dict[str, tuple[TermRequest, ...]] = {}
    for part in member.plan.parts:  # those of one label are one claim: one that needs an effect is enough
        terms = untested(member, part)
        empty[part.label] = empty.get(part.label, terms) and terms

    def judged(one: Decision) -> Decision:
        terms = empty.get(one.label)
        if not terms or one.verdict != "holds":
            return one
        because = f"{said(terms)}, and the claim would hold without any effect of it: leave that out"
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
    """The terms that a part's patches and intervention leave as they are, though they change others.

    What the reason of the verdict names already is not said again.
    """
    terms = dict.fromkeys(term for request in part.requests for term in unchanged(request, found))
    kinds = dict.fromkeys(term.ablate for term in terms)
    texts = {said([term for term in terms if term.ablate == kind]): kind for kind in kinds}
    same = ": the same is written there on both prompts"
    return [text + same * (kind == "corrupt") for text, kind in texts.items() if text not in reason]


def said(terms: Sequence[TermRequest]) -> str:
    """`this corruption does not change 0.3 at IO`"""
    names = [f"{term.node} at {term.position}" for term in terms]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    features = "; a feature that is 0 on both prompts has nothing to patch" if any(t.node.of for t in terms) else ""
    what = "this corruption" if terms[0].ablate == "corrupt" else f"ablate = {terms[0].ablate}"
    return f"{what} does not change {', '.join(names[:_NAMED])}{more}{features}"


def instead(terms: Sequence[TermRequest], prompts: Prompts) -> str:
    """What to try: features near to one that never fires; ` (try corrupt = abc)`, if that changes one of the terms."""
    for term in terms:
        if is_number(term.node) and term.node.of and (near := nearest_that_fire(prompts, term.node, term.position)):
            others = ", ".join(f"{node} (cosine {plain(cosine, 2)})" for node, cosine in near)
            return f": {term.node} never fires there, and the nearest by what they write that do are {others}"
    if terms[0].ablate != "corrupt":
        return ""
    better = next((name for name in prompts.others if any(_could_change(t, prompts, name) for t in terms)), None)
    return f" (try corrupt = {better})" if better else ""


def _could_change(term: TermRequest, prompts: Prompts, corruption: str) -> bool:
    """Whether another corruption changes some token at or before a term."""
    for pair in prompts.others[corruption]():
        at, first = indices_of(pair, term.position), first_difference(pair)
        if any(pair.clean_tokens[i] != pair.corrupt_tokens[i] for i in at):
            return True
        if term.node.kind != "embed" and any(first <= i for i in at):
            return True
    return False


# --- nulls and rivals ------------------------------------------------------------------------------


def weigh_nulls(member: Collected, found: Found) -> None:
    """Take note of how the nulls and the rivals of a claim did on its first prompts; of rivals, those drawn last."""
    prompts, first = member.prompts, member.indices[:NULL_PROMPTS]
    if ranked := next((part for part in member.plan.parts if part.peers), None):
        earlier = [] if member.wins is None else [member.wins]
        member.wins = np.concatenate([*earlier, _won(ranked, prompts, found, first)])
    gap = float(np.mean((prompts.clean - prompts.corrupt)[first]))

    def delta(part: Part, request: Request) -> float:
        return float(np.mean(found[request].values - base_of(prompts, part.base or "clean", found, first)))

    def null(part: Part) -> Sequence[Request]:
        """Those that change something: no effect of 0 is of a patch that changes nothing."""
        return [request for request in part.null if found[request].changed.any()]

    member.nulls = [np.asarray([delta(part, r) for r in null(part)], float) / gap for part in member.plan.parts]


def draws_more(member: Collected, family: int, alpha: float, holm: bool) -> bool:
    """Whether a claim about a rank is still open and draws one more round of rivals; they are then in its plan."""
    part, *_ = member.plan.parts
    if part.peers is None or weigh_plan(member).settled(family, alpha, holm) or (more := part.peers.more) is None:
        return False
    member.plan = replace(member.plan, parts=(replace(part, peers=more),))
    return True


def _won(part: Part, prompts: Prompts, found: Found, indices: np.ndarray) -> np.ndarray:
    """Whether the circuit is closer to the model than each rival, by the score of Shi et al. 2024: E[(m(M) - m(C))^2].

    A tie is no win, nor is what rounding may have made of one.
    """
    clean, corrupt = prompts.clean[indices], prompts.corrupt[indices]
    rounding = ROUNDED * prompts.source.rounding * float(np.mean((clean - corrupt) ** 2))

    def loss(request: Request) -> float:
        return float(np.mean((found[request].values - clean) ** 2))

    own = loss(part.request) + rounding
    assert part.peers is not None
    return np.asarray([own < loss(rival) for rival in part.peers.drawn], bool)


def _weigh_wins(member: Collected) -> Evidence:
    """The share of circuits of this shape that the circuit is better than, from a random sample of them.

    The rivals are independent draws, the prompts are fixed: hits and misses are binomial, and what the verdict says is
    about circuits on these prompts. Rounds of draws are looks: each gets the same share of the level (Bonferroni), so
    that a wrong verdict in any round is no more likely than the level, however many rounds there are.
    """
    (test,), wins = member.plan.claim.tests, member.wins
    if wins is None or not len(wins):
        return unmeasured(test, "every circuit of this shape is this one: there is none to compare it with")
    sample = Sample(np.zeros(len(wins)), value=wins, name=member.plan.called, unit="percent", hits=True)
    limit = f"no more than {ROUNDS[-1]} are drawn"
    sample = replace(sample, rows="random circuits", most=ROUNDS[-1], limit=limit)
    weighed = weigh(test, sample, looks=Looks(ROUNDS, early=1 - 1 / len(ROUNDS)))
    if (n := len(member.indices[:NULL_PROMPTS])) < SMALL:
        weighed = replace(weighed, forced="undecided", because=too_few(n, SMALL), final=True)
    return Evidence((weighed,))
