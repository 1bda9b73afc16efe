"""Mutation testing of specs: which changes of a spec its own claims would notice.

Every mutant is resolved as a spec of its own; the claims that differ from the original's are measured, all mutants
together, on the model that is loaded anyway. A mutant is *killed* when some claim of it does not hold. It is judged in
the original's family, its own claims in their places, so that no claim has another level than it would have. Asked are
claims on tasks; channels, comparisons and properties are not.

A *survivor* is a change that nothing notices: the claim says less than it seems. *Equivalent* mutants ask for the same
tests of the same measurements; *impossible* ones are refused as specs; *open* ones change a claim that does not hold
to begin with. These three are left out of the share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console
from rich.text import Text

from circuitdsl.api import Spec, loads
from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.criteria import unworded
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.language import syntax as s
from circuitdsl.language.parse import parse
from circuitdsl.measurements.plan import ClaimPlan
from circuitdsl.report.numbers import percent
from circuitdsl.report.shown import Shown
from circuitdsl.testing.mutants import Elsewhere, Mutant, mutants
from circuitdsl.verdict.decide import decide_family
from circuitdsl.verdict.weighing import Evidence
from circuitdsl.verify.plan import plan, shape_of
from circuitdsl.verify.session import Session, with_overrides
from circuitdsl.verify.verify import weigh_plans

Fate = Literal["killed", "survived", "equivalent", "impossible", "open"]
FATES: tuple[Fate, ...] = get_args(Fate)
#: the plans of all claims of a circuit, in its order
Plans = tuple[ClaimPlan, ...]
#: how outcomes are listed: under which title, in which style, and whether always
_TITLES: dict[Fate, tuple[str, str, bool]] = {
    "killed": ("killed", "green", False),
    "survived": ("survived: nothing that the spec claims is against these", "bold red", True),
    "open": ("open: what they change does not hold to begin with", "yellow", True),
    "equivalent": ("equivalent: they say the same", "dim", False),
    "impossible": ("impossible: no such spec", "dim", False),
}
#: prompts that are looked at to see whether two positions are one place
LOOKED_AT = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant; `reason` is that of the claim that does not hold, or of the one that nearly does not."""

    mutant: Mutant
    fate: Fate
    claims: int = 0
    by: str = ""
    task: str = ""
    reason: str = ""

    def show(self, console: Console) -> None:
        """Print what was changed into what, and why it was noticed or not."""
        mutant = self.mutant
        console.print(Text.assemble((f"{mutant.line:>4}  ", "dim"), mutant.after, (f"   {mutant.what}", "cyan")))
        console.print(Text(f"        was: {mutant.before}", "dim"))
        where = f" on {self.task}" if self.task else ""  # scores on random tokens are of no task
        named = self.by and (self.claims > 1 or self.by != mutant.after)
        console.print(Text(f"        {f'{self.by}{where}: ' if named else ''}{self.reason}", "dim"))


@dataclass(frozen=True, slots=True)
class Mutation(Shown):
    """All mutants of one circuit."""

    circuit: str
    path: str
    outcomes: tuple[Outcome, ...]

    def of(self, fate: Fate) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.fate == fate)

    @property
    def judged(self) -> int:
        return len(self.of("killed")) + len(self.of("survived"))

    @property
    def share(self) -> float:
        """The share killed of those that could be; 1 where there are none."""
        return len(self.of("killed")) / self.judged if self.judged else 1.0

    def to_json(self) -> dict[str, Any]:
        body = [asdict(outcome) for outcome in self.outcomes]
        for each in body:
            del each["mutant"]["text"]
        counts = {fate: len(self.of(fate)) for fate in FATES}
        head = {"schema": 1, "circuit": self.circuit, "path": self.path}
        return head | {"share": self.share, "summary": counts, "mutants": body}

    def show(self, console: Console, verbose: bool = False) -> None:
        """Print the share killed, and every survivor with the number that let it live; `verbose` lists the rest too."""
        console.print(Text.assemble((self.circuit, "bold"), f" · {self.path} · {len(self.outcomes)} mutants"))
        console.print()
        for fate, (title, style, always) in _TITLES.items():
            if (always or verbose) and self.of(fate):
                console.print(Text(f"      {title}", style))
                for outcome in self.of(fate):
                    outcome.show(console)
                console.print()
        killed = Counter(outcome.mutant.what for outcome in self.of("killed"))
        judged = killed + Counter(outcome.mutant.what for outcome in self.of("survived"))
        for what in sorted(judged):
            console.print(Text.assemble(f"  {what:<18}", (f" {killed[what]} of {judged[what]} killed", "dim")))
        counts = [f"{len(self.of(fate))} {fate}" for fate in ("equivalent", "impossible", "open") if self.of(fate)]
        left_out = f" ({', '.join(counts)}, left out)" if counts else ""
        style = "green" if self.share >= 0.9 else "yellow"
        share = Text(f"{len(self.of('killed'))} of {self.judged} killed, {percent(self.share)}", style)
        console.print()
        console.print(Text.assemble("  ", share, (left_out, "dim")))


def mutate(
    session: Session,
    spec: Spec | str | Path,
    prompts: int | None = None,
    seed: int | None = None,
    circuit: str | None = None,
) -> tuple[Mutation, ...]:
    """Change each circuit of a spec line by line, and see what its claims notice.

    Args:
        prompts, seed: for every task, instead of the spec's.
        circuit: the name of one circuit, where the file has several.

    Raises:
        UserError: a circuit has no claim about a task, or its model cannot be loaded.
    """
    found = session.spec(spec, circuit)
    return tuple(_mutated(session, found, one, prompts, seed) for one in found.circuits)


def _mutated(session: Session, spec: Spec, circuit: Circuit, prompts: int | None, seed: int | None) -> Mutation:
    """All mutants of a circuit, made and judged."""
    model, circuit = session.model_of(circuit), with_overrides(circuit, prompts, seed)

    def planned(one: Circuit) -> Plans:
        return plan(with_overrides(one, prompts, seed), shape_of(model))

    original = planned(circuit)
    if not original:
        raise UserError(f"circuit {circuit.name} has no claim on a task: there is nothing to mutate")
    with session.meter() as progress:
        by_task = session.prompts_by_task(circuit)
        file, _ = parse(spec.text, spec.path)
        made = mutants(file, [circuit], (model.n_layers, model.n_heads), _elsewhere(by_task))
        found = {mutant: _plans(mutant, spec, circuit, original, planned) for mutant in made}
        cases = [case for case in found.values() if not isinstance(case, Outcome)]
        changed = [p for case in cases for p, own in zip(case, original, strict=True) if p is not own]
        # each kind of plan once; members are not measured beside a joint patch
        unique = {_key(p): replace(p, members=()) for p in (*original, *changed)}
        family = len({_place(p) for p in (*original, *changed)})
        weighed = weigh_plans(list(unique.values()), model, by_task, family, progress)
        evidence = dict(zip(unique, weighed, strict=True))
    holding = [d.verdict == "holds" for d in decide_family([evidence[_key(p)] for p in original])]
    outcomes = (
        case if isinstance(case, Outcome) else _judge(mutant, case, original, evidence, holding)
        for mutant, case in found.items()
    )
    return Mutation(circuit.name, spec.path, tuple(outcomes))


# --- mutants as specs -------------------------------------------------------------------------------


def _plans(
    mutant: Mutant, spec: Spec, circuit: Circuit, original: Plans, planned: Callable[[Circuit], Plans]
) -> Plans | Outcome:
    """The mutant's plans, those of the original where nothing is changed; or why it has none."""
    read = loads(mutant.text, spec.path, circuit.model.name if circuit.model else None)
    if not read.ok:
        because = next(d.message for d in read.diagnostics if d.severity == "error")
        return Outcome(mutant, "impossible", reason=because)
    plans = planned(next(c for c in read.circuits if c.name == circuit.name))
    if [_place(p) for p in plans] != [_place(p) for p in original]:
        return Outcome(mutant, "impossible", reason="it is not checked on the same tasks")
    mine = tuple(own if _said(p) == _said(own) else p for p, own in zip(plans, original, strict=True))
    return Outcome(mutant, "equivalent", reason="no claim says anything else") if mine == original else mine


def _place(p: ClaimPlan) -> tuple[int, str]:
    return p.claim.line, p.task


def _said(p: ClaimPlan) -> tuple[object, ...]:
    """What a claim asks for, whatever its wording; of the whole circuit, what the spec has that consist of."""
    claim, measured = p.claim, p.claim.measurement
    circuit = p.parts if measured.of_whole else ()
    return measured.subject, circuit, tuple(map(unworded, claim.tests)), claim.each, claim.margin, claim.under


def _elsewhere(by_task: Mapping[str, Prompts]) -> Elsewhere:
    """Another position: one that stands elsewhere in every prompt of every task that has both."""
    pairs = [pair for prompts in by_task.values() for pair in prompts.pairs[:LOOKED_AT]]
    names = sorted({name for pair in pairs for name in pair.positions})

    def other(place: s.Place) -> str | None:
        if place.name == "*":
            return None
        if place.offset:
            moved = place.offset + 1 or 2
            return f"{place.name}{moved:+d}"
        at = names.index(place.name) if place.name in names else 0
        both = [pair.positions for pair in pairs if place.name in pair.positions]
        others = (*names[at + 1 :], *names[:at]) if both else ()
        return next((n for n in others if all(n in p and not {*p[n]} & {*p[place.name]} for p in both)), None)

    return other


# --- judging ----------------------------------------------------------------------------------------


def _key(p: ClaimPlan) -> tuple[object, ...]:
    """Plans that are measured and tested alike."""
    return p.task, p.parts, p.extremes, p.claim.tests, p.claim.margin, p.claim.each, p.claim.under


def _judge(
    mutant: Mutant, plans: Plans, original: Plans, evidence: Mapping[Any, Evidence], holding: Sequence[bool]
) -> Outcome:
    """The fate of a mutant in the family of its spec."""
    decisions = decide_family([evidence[_key(p)] for p in plans])
    asked = zip(plans, decisions, original, holding, strict=True)
    judged = [(p, decision) for p, decision, own, held in asked if p is not own and held]
    if not judged:
        return Outcome(mutant, "open", reason="the claim that it changes does not hold to begin with")
    rank = ("fails", "undecided", "error", "holds")
    p, worst = min(judged, key=lambda pair: (rank.index(pair[1].verdict), -pair[1].p_holds))
    fate: Fate = "survived" if worst.verdict == "holds" else "killed"
    reason = worst.reason if worst.verdict in ("holds", "fails") else f"{worst.verdict}: {worst.reason}"
    return Outcome(mutant, fate, len({p.claim.line for p, _ in judged}), p.claim.text, p.task, reason)
