"""One way to verify: a session holds models, the cache of numbers and the limits, and has a method for every verb.

The command line, `Spec.verify` and the pytest plugin all go through it. Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitdsl.circuit.claims import Circuit, Claim, TaskUse
from circuitdsl.errors import UsageError, UserError
from circuitdsl.limits import memory_of, prompts_of, seed_of
from circuitdsl.models.named import place_of, threads_for
from circuitdsl.report.report import Report, Reports, until_interrupted

if TYPE_CHECKING:
    from circuitdsl.api import Spec
    from circuitdsl.discover.discover import Discovery
    from circuitdsl.engine.cut import Reach
    from circuitdsl.models.parts import Transformer
    from circuitdsl.models.weights import AttentionWeights
    from circuitdsl.testing.falsify import Search
    from circuitdsl.testing.mutate import Mutation
    from circuitdsl.verify.bench import Bench
    from circuitdsl.verify.compared import Compared
    from circuitdsl.verify.forecast import Forecast
    from circuitdsl.verify.per_prompt import PerPrompt
    from circuitdsl.verify.store import Store
    from circuitdsl.verify.traced import Traced
    from circuitdsl.verify.upstream import Upstream
    from circuitdsl.verify.verify import Options, Progress

HOW_CLAIMS_ARE_NAMED = "a claim is named by its line in the spec, or c01, c02, …"

Busy = Callable[[str], AbstractContextManager[Any]]
Meter = Callable[[], AbstractContextManager["Progress | None"]]


def options(
    claim: str | None = None,
    each_at: float | None = None,
    generalise: str = "prompts",
    early_stop: bool = True,
    full: bool = False,
    memory: int | None = None,
) -> Options:
    """How to verify, in the words of the command line.

    Args:
        claim: the id or the line of a single claim.
        each_at: judge claims one by one at this level, instead of all together by Holm's procedure.
        generalise: whether verdicts are about `prompts` from the same templates, or about other `templates`.
        early_stop: stop measuring a claim once it is decided.
        full: measure the whole circuit besides, whether or not something is claimed of it.
        memory: bytes that measuring may take beside the model.

    Raises:
        UsageError: a level or a word that is none.
    """
    from circuitdsl.verdict.families import FAMILY
    from circuitdsl.verify.verify import Options

    if each_at is not None and not 0 < each_at < 1:
        raise UsageError(f"each_at = {each_at!r} is not a level between 0 and 1")
    if generalise not in ("prompts", "templates"):
        raise UsageError(f"generalise = {generalise!r} is neither prompts nor templates")
    return Options(
        early_stop=early_stop,
        holm=each_at is None,
        alpha=FAMILY if each_at is None else each_at,
        only=claim,
        full=full,
        templates=generalise == "templates",
        max_memory=memory,
    )


class Session:
    """What a program holds while it works on models: each is loaded once, and the cache of numbers is opened once.

    It is a context manager: leaving it closes the cache and gives torch back its number of threads. Wherever a method
    takes a spec, the name of one does as well.

    Args:
        model: a name, a directory or a loaded model, instead of those that specs name.
        device, dtype: where models run, and in which number format.
        cache: use the numbers that earlier runs have measured, and keep new ones.
        memory: bytes that measuring may take beside the model, or a size ("2GB"); by default what is free decides.
        progress: called with (work done, work that may still be needed at most, what is going on).
        busy: entered with a sentence while something is read or searched: a place for a spinner.
        meter: entered while a circuit is measured; gives what to call as `progress`, or None.
        warn: called with a sentence where the cache cannot be used; by default it is a Python warning.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        model: str | Path | Transformer | None = None,
        device: str = "auto",
        dtype: str = "float32",
        *,
        cache: bool = True,
        memory: int | str | None = None,
        progress: Progress | None = None,
        busy: Busy = lambda _: nullcontext(),
        meter: Meter | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        if progress is not None and not callable(progress):
            raise UsageError(f"progress = {progress!r} is nothing that can be called")
        self.own: Transformer | None = None
        if model is not None and not isinstance(model, str | Path):
            from circuitdsl.models.parts import Transformer

            self.own = model if isinstance(model, Transformer) else None
        self.name = self.own.name if self.own else None if model is None else str(model)
        self.device, self.dtype, self.cache, self.memory = device, dtype, cache, memory_of(memory)
        self.busy, self.meter, self.warn = busy, meter or (lambda: nullcontext(progress)), warn
        self._models: dict[tuple[str, str | None], Transformer] = {}
        self._weights: dict[tuple[str, str | None], AttentionWeights] = {}
        self._threads: int | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the cache, and give torch back its number of threads. The session can be used again."""
        if store := self.__dict__.pop("store", None):
            store.close()
        if self._threads is not None:
            import torch

            torch.set_num_threads(self._threads)

    # --- what it holds

    @cached_property
    def store(self) -> Store | None:
        """The cache of numbers; None where it is not to be used."""
        from circuitdsl.verify.store import Store, default_path

        return Store(default_path(), warn=self.warn) if self.cache else None

    def spec(self, given: Spec | str | Path, circuit: str | None = None) -> Spec:
        """A spec that can be verified, resolved for the session's model; with a name, that circuit of it alone.

        Raises:
            SpecError: the spec has errors; the message lists them.
            UserError: there is no such spec or circuit, or a prompt file has errors.
        """
        from circuitdsl.api import SpecError, check_prompt_files, load, loads

        found = load(given, self.name) if isinstance(given, str | Path) else given
        if self.name is not None and found.model != self.name:
            names = {one.name for one in found.circuits}
            found = loads(found.text, found.path, self.name)
            found = replace(found, circuits=tuple(one for one in found.circuits if one.name in names))
        if not found.ok:
            raise SpecError(found.problems)
        check_prompt_files(found, self.name)
        return found if circuit is None else replace(found, circuits=(found.circuit(circuit),))

    def circuit(self, given: Circuit | Spec | str | Path, name: str | None = None) -> Circuit:
        """The circuit of that name, or the first of a spec; `SPEC#CIRCUIT` names both at once.

        Raises:
            UserError: there is none, and what `spec` raises.
        """
        if isinstance(given, Circuit):
            return given
        if isinstance(given, str) and name is None:
            given, _, name = given.partition("#")
        spec = self.spec(given)
        if not spec.circuits:
            raise UserError(f"{spec.path} has no circuit")
        return spec.circuit(name) if name else spec.circuits[0]

    def model_of(self, circuit: Circuit) -> Transformer:
        """The model to verify a circuit on; sets the number of threads that suits it.

        Raises:
            UserError: the circuit names none, or it cannot be loaded.
        """
        from circuitdsl.models.load import load_model

        found = self.own
        if found is None:
            name, place, revision = place_of(circuit, self.name)
            if (place, revision) not in self._models:
                with self.busy(f"loading {name}"):
                    self._models[place, revision] = replace(
                        load_model(place, self.device, self.dtype, revision), name=name
                    )
            found = self._models[place, revision]
        self.use_threads(found.d_model, found.device.type)
        return found

    def weights_of(self, circuit: Circuit | None = None) -> AttentionWeights:
        """The attention weights of a circuit's model, or of the session's, read from its files without building it.

        Raises:
            UserError: the circuit names none, or they cannot be read.
        """
        from circuitdsl.models.weights import read_weights

        if circuit is not None:
            name, place, revision = place_of(circuit, self.name)
        elif self.name is not None:
            name, place, revision = self.name, self.name, None
        else:
            raise UsageError("no model is named", hint="give the session a model, or a spec that names one")
        if (place, revision) not in self._weights:
            with self.busy(f"reading the weights of {name}"):
                self._weights[place, revision] = replace(read_weights(place, revision), name=name)
        return self._weights[place, revision]

    def use_threads(self, width: int, device: str) -> None:
        """Set the number of threads that suits a model of this width."""
        import torch

        if self._threads is None:
            self._threads = torch.get_num_threads()
        torch.set_num_threads(threads_for(width, device, self._threads))

    def bench(self, circuit: Circuit, use: TaskUse) -> Bench:
        """A task's prompts on the circuit's model, scored; raises what `make_bench` raises."""
        from circuitdsl.verify.prompts import make_bench

        return make_bench(circuit, use, self.model_of(circuit), self.store, self.memory)

    def benches(self, circuit: Circuit) -> dict[str, Bench]:
        """A bench for every task that some claim is checked on; raises what `make_bench` raises."""
        from circuitdsl.verify.prompts import make_benches

        return make_benches(circuit, self.model_of(circuit), self.store, self.memory)

    # --- verify and plan

    def verify(self, spec: Spec | str | Path, circuit: str | None = None, **how: Any) -> Report | Reports:
        """Check every claim of a spec against the model.

        Args:
            circuit: the name of one circuit, where the file has several.
            how: the other arguments of `reports`.

        Returns:
            A report; `Reports`, a tuple of them, where the file has several circuits and none is named. Ctrl-C ends
            the run early; what was measured by then is reported.

        Raises:
            UserError: nothing can be measured, an argument is out of range, and what `spec` and `model_of` raise.
        """
        found = self.spec(spec, circuit)
        reports = Reports(self.reports([found], **how))
        return reports[0] if len(found.circuits) == 1 else reports

    def reports(
        self,
        specs: Sequence[Spec | str | Path],
        prompts: int | None = None,
        seed: int | None = None,
        other_corruptions: bool = False,
        per_prompt: PerPrompt | None = None,
        simplest: bool = False,
        **words: Any,
    ) -> Iterator[Report]:
        """Reports on the circuits of some specs, one by one as they are made, up to one that was interrupted.

        Args:
            prompts, seed: for every task, instead of the spec's.
            other_corruptions: note beside each `matters` claim what it is under the task's other corruptions.
            per_prompt: is given the numbers of every prompt.
            simplest: show with each property that fails the simplest counterexample that a short search finds.
            words: the arguments of `options`.

        Raises:
            UserError: there is no claim to verify, or not the one that is named.
        """
        circuits = [one for spec in specs for one in self.spec(spec).circuits]
        claims = [claim for one in circuits for claim in one.claims]
        wanted = words.get("claim")
        if not claims:
            raise UserError("nothing to verify: the spec makes no claim that can be measured")
        if not any(wanted is None or claim.answers_to(wanted) for claim in claims):
            raise UsageError(f"there is no claim {wanted}", hint=HOW_CLAIMS_ARE_NAMED)
        chosen = [one for one in circuits if any(wanted is None or claim.answers_to(wanted) for claim in one.claims)]
        how = options(**words, memory=self.memory)

        def made() -> Iterator[Report]:
            for one in (_overridden(each, prompts, seed) for each in chosen):
                report = self._report(one, how, other_corruptions, per_prompt)
                yield self._with_simplest(report, one) if simplest and not report.interrupted else report

        return until_interrupted(made())

    def _report(self, circuit: Circuit, how: Options, other_corruptions: bool, per_prompt: PerPrompt | None) -> Report:
        from circuitdsl.verify.channels import verify_without_model
        from circuitdsl.verify.verify import verify

        if self.own is None and (known := verify_without_model(circuit, partial(self.weights_of, circuit), how.only)):
            return known
        model, start = self.model_of(circuit), time.perf_counter()
        record = None if per_prompt is None else partial(per_prompt.record, circuit.name)
        with self.meter() as progress:
            benches = self.benches(circuit)
            report = verify(circuit, model, benches, how, progress, record)
            if other_corruptions and not report.interrupted:
                report = self._under_other_corruptions(circuit, benches, report, how)
        return replace(report, seconds=time.perf_counter() - start)

    def _with_simplest(self, report: Report, circuit: Circuit) -> Report:
        """The report with counterexamples for properties that fail; Hypothesis is imported for them alone."""
        if not any(claim.kind == "property" and claim.verdict == "fails" for claim in report.claims):
            return report
        from circuitdsl.testing.falsify import with_simplest

        return with_simplest(report, circuit, self.model_of(circuit))

    def _under_other_corruptions(
        self, circuit: Circuit, benches: dict[str, Bench], report: Report, how: Options
    ) -> Report:
        """The report with a note beside every `matters` claim: whether it holds under the task's other corruptions too.

        Ctrl-C ends this early: the notes are then on those corruptions that all claims were measured under.
        """
        from circuitdsl.verify.corruptions import reruns, with_notes
        from circuitdsl.verify.verify import verify

        reported = {claim.id for claim in report.claims}
        others = {use.name: tuple(benches[use.name].others) for use in circuit.tasks if use.name in benches}
        again = []
        try:
            for one in reruns(circuit, others, reported.__contains__):
                use = next(use for use in one.circuit.tasks if use.name == one.task)
                kept = replace(how, only=None, full=False, ids=one.claims, task=one.task)
                changed = benches | {one.task: self.bench(one.circuit, use)}
                found = verify(one.circuit, self.model_of(circuit), changed, kept)
                if found.interrupted:
                    raise KeyboardInterrupt
                again.append((one, found))
        except KeyboardInterrupt:
            report = replace(report, interrupted=True)
        return with_notes(report, again)

    def plan(
        self,
        *specs: Spec | str | Path,
        prompts: int | None = None,
        seed: int | None = None,
        early_stop: bool = True,
    ) -> tuple[Forecast, ...]:
        """What verifying some specs runs, and about how long it takes: a forecast for each circuit with claims.

        No weights are loaded, and nothing is measured.

        Raises:
            UserError: the specs make no claim, and what `spec` raises.
        """
        circuits = [one for spec in specs for one in self.spec(spec).circuits if one.claims]
        if not circuits:
            raise UserError("nothing to plan: the spec makes no claim that can be measured")
        from circuitdsl.verify.forecast import forecast

        return tuple(forecast(self, _overridden(one, prompts, seed), early_stop) for one in circuits)

    # --- other questions about circuits and models

    def compare(
        self,
        first: Circuit | Spec | str | Path,
        second: Circuit | Spec | str | Path,
        control: Circuit | Spec | str | Path | None = None,
        measure: bool = False,
        prompts: int = 128,
    ) -> Compared:
        """What two circuits of one model have in common, against chance.

        Args:
            control: a circuit of another task, with which both are compared as well.
            measure: measure every head of the model on both tasks, on so many `prompts`, and correlate.

        Raises:
            UserError: the circuits are about different models, or one of them has no task to measure on.
        """
        from circuitdsl.verify.compared import compare

        other = None if control is None else self.circuit(control)
        return compare(self, self.circuit(first), self.circuit(second), other, prompts if measure else None)

    def channels(
        self,
        to: Iterable[str],
        senders: Iterable[str] = (),
        components: bool = False,
        spec: Spec | str | Path | None = None,
        circuit: str | None = None,
    ) -> Upstream:
        """Which heads write what some receiver inputs read, from weights alone.

        Args:
            to: receiver inputs: `9.9.q`, or `mover.q` for a group of the spec.
            senders: heads `8.10`, components `8.6[2]`, groups; by default everything upstream.
            components: score single singular components instead of whole heads.
            spec: gives the model and the groups; without one the session's model is read.

        Raises:
            UsageError: a word names nothing, or no sender is upstream.
        """
        from circuitdsl.verify.upstream import upstream

        return upstream(self, None if spec is None else self.circuit(spec, circuit), to, senders, components)

    def trace(
        self,
        spec: Spec | str | Path,
        head: str,
        source: str,
        target: str,
        cut: Sequence[Reach] = (),
        boost: bool = False,
        task: str | None = None,
        prompts: int | None = None,
        seed: int | None = None,
        circuit: str | None = None,
    ) -> Traced:
        """Which heads made a head attend from one position to another.

        Args:
            head, source, target: as in a spec: "9.9", "END", "IO".
            cut: take the signal out of what the head reads (`local`) or of what its senders write (`global`).
            boost: add the signal once more instead.
            task: which task, where the spec has several.

        Raises:
            UserError: a name that does not exist, or the head never attends so.
        """
        from circuitdsl.verify.traced import trace

        wanted = _overridden(self.circuit(spec, circuit), prompts, seed)
        return trace(self, wanted, task, head, source, target, cut, boost)

    def discover(self, task: str, **how: Any) -> Discovery:
        """Search a model for its circuit of a task, and draft a spec; the arguments are those of `drafting.drafted`.

        Raises:
            UserError: the task is not one, or the model does not do it.
        """
        from circuitdsl.discover.drafting import drafted

        return drafted(self, task, **how)

    # --- tests of specs, edits of models

    def mutate(
        self,
        spec: Spec | str | Path,
        prompts: int | None = None,
        seed: int | None = None,
        circuit: str | None = None,
    ) -> tuple[Mutation, ...]:
        """Change each circuit of a spec line by line, and see what its claims notice.

        Raises:
            UserError: a circuit has no claim on a task, and what `spec` and `model_of` raise.
        """
        from circuitdsl.testing.mutate import mutate

        found = self.spec(spec, circuit)
        return tuple(mutate(self, found, one, prompts, seed) for one in found.circuits)

    def falsify(
        self,
        spec: Spec | str | Path,
        property: str | None = None,
        claim: str | None = None,
        budget: int = 1000,
        seed: int = 0,
    ) -> Iterator[Search]:
        """Search for prompts that break properties, and shrink them: a search for each property and task.

        Args:
            property: the title or the line of one property.
            claim: an expectation of behaviour or attention instead, taken prompt by prompt.
            budget: prompts to look at.

        Raises:
            UsageError: there is no such property, or it is not about single prompts.
        """
        from circuitdsl.testing.falsify import falsify, searchable

        chosen = list(_to_break(self.spec(spec).circuits, property, claim))
        for _, one in chosen:
            searchable(one)
        return (
            falsify(circuit, self.model_of(circuit), one, task, budget, seed, self.memory)
            for circuit, one in chosen
            for task in one.tasks
        )

    def edit(
        self, spec: Spec | str | Path, target: str | Path, intervention: str | None = None, circuit: str | None = None
    ) -> str:
        """Write an intervention of a circuit into the weights of a new model directory; returns its name.

        Raises:
            UserError: there is no such intervention, it is no change of weights, or the directory exists.
        """
        wanted = self.circuit(spec, circuit)
        known = {each.name: each for each in wanted.interventions}
        if not known:
            raise UsageError(f"{wanted.name} has no intervention", hint="see docs/repair.md for how to write one")
        if (intervention is None and len(known) > 1) or intervention not in (None, *known):
            what = f"there is no intervention {intervention}" if intervention else "which intervention?"
            raise UsageError(what, hint=f"--intervention is one of {', '.join(known)}")
        change = known[intervention or next(iter(known))]
        from circuitdsl.models.edit import changes, save_edited

        changes(change)  # refused before anything is read
        with self.busy(f"editing {place_of(wanted, self.name)[1]}"):
            save_edited(place_of(wanted, self.name)[1], self.weights_of(wanted), change, Path(target))
        return change.name


def _overridden(circuit: Circuit, prompts: int | None, seed: int | None) -> Circuit:
    """The circuit with another number of prompts and another seed for every task."""
    from circuitdsl.verify.verify import with_overrides

    return with_overrides(circuit, prompts_of(prompts), seed_of(seed))


def _to_break(circuits: Sequence[Circuit], property: str | None, claim: str | None) -> Iterator[tuple[Circuit, Claim]]:
    """The properties to break, or the claim of that name, with their circuits."""
    every = [(circuit, one) for circuit in circuits for one in circuit.claims]
    if claim is not None:
        chosen = [(circuit, one) for circuit, one in every if one.answers_to(claim)]
        if not chosen:
            raise UsageError(f"there is no claim {claim}", hint=HOW_CLAIMS_ARE_NAMED)
        return iter(chosen)
    properties = [(circuit, one) for circuit, one in every if one.kind == "property"]
    if not properties:
        hint = "write one (docs/testing.md), or name an expectation of behaviour with --claim LINE"
        raise UsageError("the spec has no property to break", hint=hint)
    title = f'"{property}"'
    chosen = [pair for pair in properties if property is None or title in pair[1].text or pair[1].answers_to(property)]
    if not chosen:
        known = "; ".join(f"line {one.line}, {one.text}" for _, one in properties)
        raise UsageError(f"there is no property {title}", hint=f"the spec has: {known}")
    return iter(chosen)
