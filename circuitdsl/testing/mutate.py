"""Mutation testing of specs: which changes of a spec its own claims would notice.

Every mutant is resolved as a spec of its own; the claims that differ from the original's are measured, all mutants
together, on the model that is loaded anyway (`noticed.py`). A mutant is *killed* when some claim of it does not hold;
once that is certain, its other claims are not measured. It is judged in the original's family, its own claims in their
places, so that no claim has another level than it would have. Asked are claims on tasks; channels, comparisons and
properties are not.

A *survivor* is a change that nothing notices: the claim says less than it seems. *Equivalent* mutants ask for the same
tests of the same measurements; *impossible* ones are refused as specs; *open* ones change a claim that does not hold
to begin with. These three are left out of the share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console
from rich.text import Text

from circuitdsl.api import Spec, quickly
from circuitdsl.circuit.claims import Circuit
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.language import syntax as s
from circuitdsl.report.numbers import percent
from circuitdsl.report.shown import Shown
from circuitdsl.testing.mutants import Elsewhere, Mutant, mutants
from circuitdsl.testing.noticed import Case, Cases, Judged
from circuitdsl.verify.plan import shape_of
from circuitdsl.verify.session import Session, with_overrides

Fate = Literal["killed", "survived", "equivalent", "impossible", "open"]
FATES: tuple[Fate, ...] = get_args(Fate)
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
    """What became of a mutant; `reason` is that of the claim that does not hold, or of the one that nearly does not.

    `claims` is how many claims it changes, without those that do not hold in the original.
    """

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
    cases = Cases(spec, circuit, shape_of(model))
    if not cases.own:
        raise UserError(f"circuit {circuit.name} has no claim on a task: there is nothing to mutate")
    with session.meter() as progress:
        by_task = session.prompts_by_task(circuit)
        with quickly():
            made = mutants(cases.file, [circuit], (model.n_layers, model.n_heads), _elsewhere(by_task))
            found = [cases.case(mutant) for mutant in made]
        measured = [case for case in found if isinstance(case, Case)]
        cases.weigh(measured, model, by_task, progress)
    judged = iter(cases.judged(measured))
    outcomes = (
        Outcome(mutant, "impossible", reason=case) if isinstance(case, str) else _outcome(next(judged))
        for mutant, case in zip(made, found, strict=True)
    )
    return Mutation(circuit.name, spec.path, tuple(outcomes))


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


def _outcome(found: Judged) -> Outcome:
    """The fate of a mutant by what was decided of the claims that it changes, those apart that did not hold before."""
    mutant = found.case.mutant
    if not found.case.concerned:
        return Outcome(mutant, "equivalent", reason="no claim says anything else")
    if not found.decided:
        return Outcome(mutant, "open", reason="the claim that it changes does not hold to begin with")
    rank = ("fails", "undecided", "error", "holds")
    claim, task, worst = min(found.decided, key=lambda one: (rank.index(one[2].verdict), -one[2].p_holds))
    fate: Fate = "survived" if worst.verdict == "holds" else "killed"
    reason = worst.reason if worst.verdict in ("holds", "fails") else f"{worst.verdict}: {worst.reason}"
    return Outcome(mutant, fate, found.claims, claim.text, task, reason)
