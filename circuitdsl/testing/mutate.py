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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console
from rich.text import Text

from circuitdsl.api import Spec, quickly
from circuitdsl.circuit.claims import Circuit
from circuitdsl.engine.count import calibrate
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.language import syntax as s
from circuitdsl.models.parts import Transformer
from circuitdsl.report.numbers import duration, percent
from circuitdsl.report.shown import Shown
from circuitdsl.testing.mutants import Elsewhere, Mutant, mutants
from circuitdsl.testing.noticed import Case, Cases, Judged
from circuitdsl.verify.plan import shape_of
from circuitdsl.verify.prompts import prompts_by_task
from circuitdsl.verify.session import Session, with_overrides
from circuitdsl.verify.store import IN_MEMORY, Store
from circuitdsl.verify.work import TaskWork, seconds, work_of

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
#: what weighing and judging one claim of a mutant takes, in layers of a plain run on one token; no pairs are reported
WEIGHING = 30
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
        """Print what was changed into what, and why it was noticed or not, where its title does not say that."""
        mutant = self.mutant
        console.print(Text.assemble((f"{mutant.line:>4}  ", "dim"), mutant.after, (f"   {mutant.what}", "cyan")))
        console.print(Text(f"        was: {mutant.before}", "dim"))
        if self.fate in ("open", "equivalent"):
            return
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


@dataclass(frozen=True, slots=True)
class ToMeasure:
    """What judging the mutants of a circuit takes.

    Attributes:
        mutants: all of them; `judged` are those that are specs and may say something else.
        prompts: of all tasks together.
        experiments: distinct patches that edges and heads ask for, nulls included.
        circuits: claims about whole circuits, of the spec and of every mutant that is another circuit, at the most.
        seconds: if every claim is decided at the first look and no circuit is run, and at the most; on this machine as
            busy as it is now.
    """

    circuit: str
    mutants: int
    judged: int
    prompts: int
    experiments: int
    circuits: int
    seconds: tuple[float, float]

    def __str__(self) -> str:
        whole = f" and at most {self.circuits:,} figures of whole circuits" if self.circuits else ""
        time = " to ".join(dict.fromkeys(map(duration, self.seconds)))
        return (
            f"{self.circuit}: {self.mutants:,} mutants, {self.judged:,} of them to judge: {self.experiments:,} "
            f"experiments{whole} on {self.prompts:,} prompts; about {time} on this machine as busy as it is now, "
            "less what is known from earlier runs"
        )


def mutate(
    session: Session,
    spec: Spec | str | Path,
    prompts: int | None = None,
    seed: int | None = None,
    circuit: str | None = None,
    announce: Callable[[ToMeasure], None] | None = None,
) -> tuple[Mutation, ...]:
    """Change each circuit of a spec line by line, and see what its claims notice.

    Args:
        prompts, seed: for every task, instead of the spec's.
        circuit: the name of one circuit, where the file has several.
        announce: called for each circuit before its mutants are measured, with what that takes.

    Raises:
        UserError: a circuit has no claim about a task, or its model cannot be loaded.
    """
    found = session.spec(spec, circuit)
    return tuple(_mutated(session, found, with_overrides(one, prompts, seed), announce) for one in found.circuits)


def _mutated(session: Session, spec: Spec, circuit: Circuit, announce: Callable[[ToMeasure], None] | None) -> Mutation:
    """All mutants of a circuit, made and judged."""
    model = session.model_of(circuit)
    cases = Cases(spec, circuit, shape_of(model))
    if not cases.own:
        raise UserError(f"circuit {circuit.name} has no claim on a task: there is nothing to mutate")
    with session.meter() as progress:
        store = session.store or Store(IN_MEMORY)  # what the original asks for, its mutants ask for again
        by_task = prompts_by_task(circuit, session.source_of(circuit), store, session.memory)
        with quickly():
            made = mutants(cases.file, [circuit], (model.n_layers, model.n_heads), _elsewhere(by_task))
            found = [cases.case(mutant) for mutant in made]
        measured = [case for case in found if isinstance(case, Case)]
        if announce:
            announce(_to_measure(cases, measured, len(made), model, by_task, session.memory))
        cases.weigh(measured, model, by_task, progress)
    judged = iter(cases.judged(measured))
    outcomes = (
        Outcome(mutant, "impossible", reason=case) if isinstance(case, str) else _outcome(next(judged))
        for mutant, case in zip(made, found, strict=True)
    )
    return Mutation(circuit.name, spec.path, tuple(outcomes))


def _to_measure(
    cases: Cases,
    found: Sequence[Case],
    mutants: int,
    model: Transformer,
    by_task: Mapping[str, Prompts],
    max_memory: int | None,
) -> ToMeasure:
    circuit, machine = cases.circuit, calibrate(model, model.device)
    datasets = {task: by_task[task].data for _, task in cases.asked if task in by_task}
    judged = [case for case in found if case.concerned]
    whole = {i: 1 + sum(i in case.concerned for case in judged) for i in cases.whole_claims}

    def work(numbers: Iterable[int]) -> tuple[TaskWork, ...]:
        return work_of([cases.plans[i] for i in numbers], model, datasets, circuit.metric, max_memory=max_memory)

    def time_of(end: Literal["least", "most"], tasks: Iterable[TaskWork]) -> float:
        return sum(seconds(model, task, getattr(task, end), machine, WEIGHING) for task in tasks)

    first = work(cases.missing(judged, [i for i in range(len(cases.own)) if i not in whole]))
    of_whole = sum(many * time_of("most", work([cases.own[i]])) for i, many in whole.items())
    return ToMeasure(
        circuit=circuit.name,
        mutants=mutants,
        judged=len(judged),
        prompts=sum(len(data.pairs) for data in datasets.values()),
        experiments=sum(task.experiments + task.nulls for task in first),
        circuits=sum(whole.values()),
        seconds=(time_of("least", first), time_of("most", first) + of_whole),
    )


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
    if not found.weakest:
        return Outcome(mutant, "open", reason="the claim that it changes does not hold to begin with")
    claim, task, worst = found.weakest
    fate: Fate = "survived" if worst.verdict == "holds" else "killed"
    reason = worst.reason if worst.verdict in ("holds", "fails") else f"{worst.verdict}: {worst.reason}"
    return Outcome(mutant, fate, found.claims, claim.text, task, reason)
