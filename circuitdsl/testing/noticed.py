"""Which mutants the claims of a circuit notice, measured for all mutants together.

A mutant is planned where it says something else; the rest is the original's. What several mutants ask for is measured
once. Claims about single edges and heads come first. Each claim about the whole circuit follows in a round of its own,
the cheapest first: it takes hundreds of runs for every mutant that is another circuit, and most mutants are refuted by
their own line before.

A mutant is refuted when a claim that it changes fails, or cannot be measured, at the level that this claim has if
nothing is known of those to come. Holm's procedure gives a claim no stricter level once more is known, so that a
mutant is killed by then, and is measured no further.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from circuitdsl.api import Spec, resolver
from circuitdsl.circuit.claims import Circuit, Claim, membership
from circuitdsl.circuit.criteria import NULL_PROMPTS, unworded
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
from circuitdsl.verify.plan import claim_plan, on_runs
from circuitdsl.verify.verify import Progress, weigh_plans


@dataclass
class Case:
    """A mutant that is a spec.

    Attributes:
        claims: its claims on each of their tasks, in the original's order.
        circuit: what it was resolved to.
        plans: for each of these, the number of its plan. What is said of a whole circuit that is another one is
            planned when it is its turn, and is None until then.
        changed: the places of those that are not the original's, as far as they are planned.
    """

    mutant: Mutant
    claims: tuple[tuple[Claim, str], ...]
    circuit: Circuit
    plans: list[int | None]
    changed: list[int] = field(default_factory=list)

    @property
    def concerned(self) -> list[int]:
        """The places at which it says something else, or may."""
        return sorted({*self.changed, *(i for i, number in enumerate(self.plans) if number is None)})


@dataclass(frozen=True, slots=True)
class Judged:
    """A case, how many of the claims that it changes are not known to be open, and what was decided of these."""

    case: Case
    claims: int
    decided: tuple[tuple[Claim, str, Decision], ...]


@dataclass
class Done:
    """Progress within a round, told as progress in all of them.

    Attributes:
        work: what is done; at first, before this round.
        later: what the rounds to come may take.
    """

    work: int
    progress: Progress | None
    later: int = 0
    says: str = ""

    def __post_init__(self) -> None:
        self.before = self.work

    def __call__(self, work: int, total: int, _: str) -> None:
        self.work = self.before + work
        if self.progress:
            self.progress(self.work, self.before + total + self.later, self.says)


class Cases:
    """The plans of a circuit and of its mutants, each kind of plan once, and the evidence on those measured.

    Attributes:
        plans: by number.
        own: the numbers of the original's.
        whole_claims: the places of claims about the whole circuit, the cheapest first.
        rounds: places that are measured together, one after the other.
    """

    def __init__(self, spec: Spec, circuit: Circuit, shape: ModelShape) -> None:
        self.circuit, self.shape = circuit, shape
        self.file, _ = parse(spec.text, spec.path)
        self.resolved = resolver(spec.path, spec.model, spec.allow_outside)
        claims = [claim for each in spec.circuits for claim in each.claims]
        self.known = {claim.line: claim for claim in claims if not claim.measurement.of_whole}
        self.plans: list[ClaimPlan] = []
        self._numbers: dict[tuple[object, ...], int] = {}
        self.asked, nulls = tuple(on_runs(circuit)), Nulls(circuit, shape)
        self.whole = membership(circuit)
        self.own = tuple(self._number(claim_plan(claim, task, nulls)) for claim, task in self.asked)
        places = range(len(self.own))
        about_all = [i for i in places if self.asked[i][0].measurement.of_whole]
        cost = {i: len(self.plans[self.own[i]].requests + self.plans[self.own[i]].null_requests) for i in about_all}
        rest, self.whole_claims = [i for i in places if i not in cost], sorted(about_all, key=cost.__getitem__)
        self.rounds = [*([rest] if rest else []), *([i] for i in self.whole_claims)]
        self.evidence: dict[int, Evidence] = {}

    def _number(self, found: ClaimPlan) -> int:
        """The number of a plan; plans that are measured and tested alike have one."""
        claim = found.claim
        key = (found.task, found.parts, found.extremes, claim.tests, claim.margin, claim.each, claim.under)
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
        self._plan(case, case.changed)
        return case

    def _plan(self, case: Case, places: Iterable[int]) -> None:
        nulls = Nulls(case.circuit, self.shape)
        for i in places:
            case.plans[i] = self._number(claim_plan(*case.claims[i], nulls))

    def _plan_whole(self, case: Case, places: Iterable[int]) -> None:
        """Plan what a case says of its whole circuit."""
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
        """Measure the original and the cases, each as long as nothing refutes it."""
        family, before = len({_place(*one) for one in self.asked}), 0
        alive = [case for case in cases if case.concerned]
        for number, places in enumerate(self.rounds):
            if not alive:
                return
            for case in alive:
                self._plan_whole(case, places)
            missing, done = self.missing(alive, places), Done(before, progress)
            if progress:
                done.later = sum(self._most(i, alive, by_task) for i in chain(*self.rounds[number + 1 :]))
                done.says = f"{len(alive)} mutants open"
            found = weigh_plans([self.plans[i] for i in missing], model, by_task, family, done)
            self.evidence |= zip(missing, found, strict=True)
            before, held = done.work, self._held(places)
            alive = [case for case in alive if not self._refuted(case, held)]

    def missing(self, cases: Sequence[Case], places: Sequence[int]) -> list[int]:
        """The numbers of plans at some places of the original and of cases that are not weighed yet."""
        wanted = dict.fromkeys(plans[i] for plans in (self.own, *(case.plans for case in cases)) for i in places)
        return [number for number in wanted if number is not None and number not in self.evidence]

    def _most(self, place: int, cases: Sequence[Case], by_task: Mapping[str, Prompts]) -> int:
        """Patched prompts that one place of the original and of some cases takes at the most."""
        found, many = self.plans[self.own[place]], 1 + sum(place in case.concerned for case in cases)
        prompts = len(by_task[found.task].pairs) if found.task in by_task else 0
        return many * (len(found.requests) * prompts + len(found.null_requests) * NULL_PROMPTS)

    # --- judged

    def _levels(self, plans: Sequence[int | None]) -> tuple[list[Evidence], tuple[Levels, ...]]:
        """The evidence on a family and its levels; what is not measured yet counts as evidence of nothing."""
        nothing = unmeasured(self.plans[self.own[0]].tests(self.plans[self.own[0]].parts[0])[0], "not measured")
        evidence = [nothing if number is None else self.evidence.get(number, nothing) for number in plans]
        return evidence, levels_of(evidence)

    def _held(self, places: Sequence[int] | None = None) -> set[int]:
        """The places at which the original's claims hold, among some."""
        evidence, levels = self._levels(self.own)
        places = range(len(evidence)) if places is None else places
        return {i for i in places if verdict_of(evidence[i], levels[i]) == "holds"}

    def _refuted(self, case: Case, held: set[int]) -> bool:
        """Whether a claim that held before does not hold in a mutant, whatever comes of those not measured yet."""
        if not (places := [i for i in case.changed if i in held]):
            return False
        evidence, levels = self._levels(case.plans)
        return any(verdict_of(evidence[i], levels[i]) in ("fails", "error") for i in places)

    def judged(self, cases: Sequence[Case]) -> list[Judged]:
        """What is decided of the claims that each case changes and that held, in the family of its spec."""
        held, asked = self._held(), list[list[int]]()
        evidence, levels = list[Evidence](), list[Levels]()
        for case in cases:
            asked.append([i for i in sorted(case.changed) if i in held and case.plans[i] in self.evidence])
            everything, at = self._levels(case.plans)
            evidence += [everything[i] for i in asked[-1]]
            levels += [at[i] for i in asked[-1]]
        decisions = iter(ruled(evidence, levels))
        found = []
        for case, places in zip(cases, asked, strict=True):
            lines = {case.claims[i][0].line for i in case.concerned if i in held or self.own[i] not in self.evidence}
            found.append(Judged(case, len(lines), tuple((*case.claims[i], next(decisions)) for i in places)))
        return found


def _place(claim: Claim, task: str) -> tuple[int, str]:
    return claim.line, task


def _said(claim: Claim) -> tuple[object, ...]:
    """What a claim asks for, whatever its wording."""
    return claim.measurement.subject, tuple(map(unworded, claim.tests)), claim.each, claim.margin, claim.under
