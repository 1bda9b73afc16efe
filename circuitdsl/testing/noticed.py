"""Which mutants the claims of a circuit notice, measured for all mutants together.

A mutant is planned where it says something else; the rest is the original's. What several mutants ask for is measured
once. The original comes first: a mutant that changes nothing but claims that do not hold is open, and is not measured.
Then come claims about single edges and heads. Each claim about the whole circuit follows in a round of its own, the
cheapest first: it takes hundreds of runs for every mutant that is another circuit, and most mutants are refuted by
their own line before. For the same reason a mutant that claims that something `matters` is first measured without the
random edges that it is compared with: an effect inside the margin refutes it, whatever those do.

A mutant is refuted when a claim that it changes fails, or cannot be measured, at the level that this claim has if
nothing is known of those to come. Holm's procedure gives a claim no stricter level once more is known, so that a
mutant is killed by then, and is measured no further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from circuitdsl.api import Spec, resolver
from circuitdsl.circuit.claims import Circuit, Claim, membership
from circuitdsl.circuit.criteria import NULL_PROMPTS, Beyond, Matters, Test
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.engine.prompts import Prompts
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import has_errors, ordered
from circuitdsl.language.parse import parse, with_line
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.plan import ClaimPlan
from circuitdsl.models.parts import Transformer
from circuitdsl.testing.mutants import Mutant
from circuitdsl.verdict.decide import Decision, levels_of, ruled, verdict_of
from circuitdsl.verdict.families import Levels
from circuitdsl.verdict.weighing import Evidence, unmeasured
from circuitdsl.verdicts import Verdict
from circuitdsl.verify.plan import claim_plan, on_runs
from circuitdsl.verify.verify import Progress, weigh_plans

#: what a mutant is killed by is the first of these that it has
_WORST_FIRST: tuple[Verdict, ...] = ("fails", "undecided", "error", "holds")


@dataclass
class Case:
    """A mutant that is a spec.

    Attributes:
        claims: its claims on each of their tasks, in the original's order.
        circuit: what it was resolved to.
        plans: for each of these, the number of its plan. What is said of a whole circuit that is another one is
            planned when it is its turn, and is None until then.
        changed: the places of those that are not the original's, as far as they are planned.
        unmatched: those of them that are planned without the random edges that they must stand out from.
    """

    mutant: Mutant
    claims: tuple[tuple[Claim, str], ...]
    circuit: Circuit
    plans: list[int | None]
    changed: list[int] = field(default_factory=list)
    unmatched: list[int] = field(default_factory=list)

    @property
    def concerned(self) -> list[int]:
        """The places at which it says something else, or may."""
        return sorted({*self.changed, *(i for i, number in enumerate(self.plans) if number is None)})


@dataclass(frozen=True, slots=True)
class Judged:
    """A case, how many of the claims that it changes held before, and the decision on the weakest of these, if any."""

    case: Case
    claims: int
    weakest: tuple[Claim, str, Decision] | None


class Cases:
    """The plans of a circuit and of its mutants, each kind of plan once, and the evidence on those measured.

    Attributes:
        plans: by number.
        own: the numbers of the original's.
        whole_claims: the places of claims about the whole circuit, the cheapest first.
        rounds: places that are measured together, one after the other; the second time with what is to be matched.
        held: the places at which the original's claims hold, once that is measured.
    """

    def __init__(self, spec: Spec, circuit: Circuit, shape: ModelShape) -> None:
        self.circuit, self.shape = circuit, shape
        self.file, _ = parse(spec.text, spec.path)
        self.resolved = resolver(
            spec.path, spec.model, spec.allow_outside, shape=spec.shape, prompt_files=spec.prompt_files
        )
        claims = [claim for each in spec.circuits for claim in each.claims]
        self.known = {claim.line: claim for claim in claims if not claim.measurement.of_whole}
        self.plans: list[ClaimPlan] = []
        self._numbers: dict[tuple[object, ...], int] = {}
        self.asked, nulls = tuple(on_runs(circuit)), Nulls.of(circuit, shape)
        self.whole = membership(circuit)
        self.own = tuple(self._number(claim_plan(claim, task, nulls)) for claim, task in self.asked)
        places = range(len(self.own))
        about_all = [i for i in places if self.asked[i][0].measurement.of_whole]
        cost = {i: len(self.plans[self.own[i]].requests + self.plans[self.own[i]].null_requests) for i in about_all}
        rest, self.whole_claims = [i for i in places if i not in cost], sorted(about_all, key=cost.__getitem__)
        self.rounds = [rest, rest, *([i] for i in self.whole_claims)]
        self.evidence: dict[int, Evidence] = {}
        self.held: frozenset[int] = frozenset()

    def _number(self, found: ClaimPlan) -> int:
        """The number of a plan; plans that are measured and tested alike have one."""
        claim = found.claim
        key = (
            found.task,
            found.parts,
            found.extremes,
            claim.tests,
            claim.margin,
            claim.each,
            claim.under,
            claim.strata,
        )
        if key not in self._numbers:
            self._numbers[key] = len(self.plans)
            self.plans.append(replace(found, members=()))  # these are not measured beside a joint patch
        return self._numbers[key]

    # --- mutants as specs

    def case(self, mutant: Mutant) -> Case | str:
        """What a mutant asks for; the reason where it is no spec, and nothing where it says the same."""
        file, changed, problems = with_line(self.file, mutant.text, mutant.line)
        # what another line says does not depend on a claim; on a group it may
        same = {} if isinstance(changed, s.Group) else {k: v for k, v in self.known.items() if k != changed.span.line}
        circuits, more = self.resolved(file, known=same)
        if has_errors(found := ordered([*problems, *more])):
            return next(each.message for each in found if each.severity == "error")
        circuit = next(each for each in circuits if each.name == self.circuit.name)
        asked = tuple(on_runs(circuit))
        if [_place(*one) for one in asked] != [_place(*one) for one in self.asked]:
            return "it is not checked on the same tasks"
        case, whole = Case(mutant, asked, circuit, list(self.own)), membership(circuit)
        for i, ((claim, _), (before, _)) in enumerate(zip(asked, self.asked, strict=True)):
            measured = claim.measurement
            if measured.of_whole and measured.takes(whole) != measured.takes(self.whole):
                case.plans[i] = None
            elif _said(claim) != _said(before):
                case.changed.append(i)
        case.unmatched = [i for i in case.changed if any(isinstance(test, Matters) for test in asked[i][0].tests)]
        self._plan(case, case.changed)
        return case

    def _plan(self, case: Case, places: Iterable[int]) -> None:
        nulls = Nulls.of(case.circuit, self.shape)
        for i in places:
            claim, task = case.claims[i]
            claim = replace(claim, tests=tuple(map(_beyond(claim), claim.tests))) if i in case.unmatched else claim
            case.plans[i] = self._number(claim_plan(claim, task, nulls))

    def _plan_more(self, case: Case, places: Iterable[int]) -> None:
        """Plan what a case says of its whole circuit, at some places, and what it is to be matched with."""
        unmatched, case.unmatched = case.unmatched, []
        self._plan(case, unmatched)
        if mine := [i for i in places if case.plans[i] is None]:
            self._plan(case, mine)
            case.changed += mine

    # --- measured

    def weigh(
        self,
        cases: Sequence[Case],
        model: Transformer,
        by_task: Mapping[str, Prompts],
        progress: Progress | None = None,
    ) -> None:
        """Measure the original, then the cases that change what holds there, each as long as nothing refutes it."""
        family, done = len({_place(*one) for one in self.asked}), 0
        concerned, everywhere = [case for case in cases if case.concerned], range(len(self.own))

        def measure(mutants: Sequence[Case], places: Sequence[int], later: int, says: str) -> None:
            """Measure what is missing at some places; `later` is what the rounds to come may take."""
            before = done

            def told(work: int, total: int, _: str) -> None:
                nonlocal done
                done = before + work
                if progress:
                    progress(done, before + total + later, says)

            if numbers := self.missing(mutants, places):
                found = weigh_plans([self.plans[i] for i in numbers], model, by_task, family, told)
                self.evidence |= zip(numbers, found, strict=True)

        measure((), everywhere, sum(self._most(i, concerned, by_task) for i in everywhere), "the spec itself")
        self.held = self._held()
        alive = [case for case in concerned if not self.held.isdisjoint(case.concerned)]
        for number, places in enumerate(self.rounds):
            for case in alive if number else ():
                self._plan_more(case, places)
            later = sum(self._most(i, alive, by_task) for i in chain(*self.rounds[number + 1 :]))
            measure(alive, places, later, f"{len(alive)} mutants open")
            alive = [case for case in alive if not self._refuted(case)]

    def missing(self, cases: Sequence[Case], places: Sequence[int]) -> list[int]:
        """The numbers of plans at some places of the original and of cases that are not weighed yet."""
        wanted = dict.fromkeys(plans[i] for plans in (self.own, *(case.plans for case in cases)) for i in places)
        return [number for number in wanted if number is not None and number not in self.evidence]

    def _most(self, place: int, cases: Sequence[Case], by_task: Mapping[str, Prompts]) -> int:
        """Patched prompts that one place of some cases takes at the most."""
        found, many = self.plans[self.own[place]], sum(place in case.concerned for case in cases)
        prompts = len(by_task[found.task].pairs) if found.task in by_task else 0
        return many * (len(found.requests) * prompts + len(found.null_requests) * NULL_PROMPTS)

    # --- judged

    def _levels(self, plans: Sequence[int | None]) -> tuple[list[Evidence], tuple[Levels, ...]]:
        """The evidence on a family and its levels; what is not measured yet counts as evidence of nothing."""
        nothing = unmeasured(self.plans[self.own[0]].tests(self.plans[self.own[0]].parts[0])[0], "not measured")
        evidence = [nothing if number is None else self.evidence.get(number, nothing) for number in plans]
        return evidence, levels_of(evidence)

    def _held(self) -> frozenset[int]:
        """The places at which the original's claims hold."""
        found = map(verdict_of, *self._levels(self.own))
        return frozenset(i for i, (verdict, _) in enumerate(found) if verdict == "holds")

    def _refuted(self, case: Case) -> bool:
        """Whether a claim that held before does not hold in a mutant, whatever comes of those not measured yet."""
        if not (places := self._judged(case)):
            return False
        evidence, levels = self._levels(case.plans)
        return not {"fails", "error"}.isdisjoint(verdict_of(evidence[i], levels[i])[0] for i in places)

    def _judged(self, case: Case) -> list[int]:
        """The places of the claims that a case changes, that held before, and that are measured."""
        return [i for i in sorted(case.changed) if i in self.held and case.plans[i] in self.evidence]

    def judged(self, cases: Sequence[Case]) -> list[Judged]:
        """What is decided of the claims that each case changes and that held, in the family of its spec."""
        weakest = [self._weakest(case) for case in cases]
        chosen = [each for each in weakest if each]
        decisions = iter(ruled([_as_claimed(evidence) for _, evidence, _ in chosen], [levels for *_, levels in chosen]))
        found = []
        for case, one in zip(cases, weakest, strict=True):
            lines = {case.claims[i][0].line for i in self.held.intersection(case.concerned)}
            found.append(Judged(case, len(lines), (*case.claims[one[0]], next(decisions)) if one else None))
        return found

    def _weakest(self, case: Case) -> tuple[int, Evidence, Levels] | None:
        """The place of the claim that held before and does worst in a mutant, the first of those that do as badly."""
        if not (places := self._judged(case)):
            return None
        evidence, levels = self._levels(case.plans)

        def order(i: int) -> tuple[int, float]:
            verdict, p_holds = verdict_of(evidence[i], levels[i])
            return _WORST_FIRST.index(verdict), -p_holds

        worst = min(places, key=order)
        return worst, evidence[worst], levels[worst]


def _place(claim: Claim, task: str) -> tuple[int, str]:
    return claim.line, task


def _beyond(claim: Claim) -> Callable[[Test], Test]:
    """`matters` without the comparison with random edges, and other tests as they are."""
    return lambda test: Beyond("effect", claim.margin, test.text) if isinstance(test, Matters) else test


def _as_claimed(evidence: Evidence) -> Evidence:
    """Evidence of what `_beyond` made of tests, as evidence of these."""
    if evidence.extreme:
        return evidence
    parts = (replace(part, test=Matters()) if isinstance(part.test, Beyond) else part for part in evidence.parts)
    return replace(evidence, parts=tuple(parts))


def _said(claim: Claim) -> tuple[object, ...]:
    """What a claim asks for, whatever its wording."""
    return claim.measurement.subject, claim.tests, claim.each, claim.margin, claim.under, claim.strata
