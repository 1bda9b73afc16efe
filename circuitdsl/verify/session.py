"""One way to verify: a session holds models, the cache of numbers and the limits, and has a method for every verb.

The command line, `Spec.verify` and the pytest plugin all go through it. Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from circuitdsl.brief import quoted
from circuitdsl.circuit.claims import Circuit, Claim, TaskUse
from circuitdsl.circuit.shapes import ModelShape, place_of
from circuitdsl.errors import UsageError, UserError
from circuitdsl.garbage import rarely_collected
from circuitdsl.limits import memory_of, prompts_of, seed_of
from circuitdsl.models.model import Model, as_model, restore_threads, use_threads
from circuitdsl.report.report import Report, Reports

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from circuitdsl.api import Spec
    from circuitdsl.engine.prompts import Prompts
    from circuitdsl.models.parts import Transformer
    from circuitdsl.models.weights import AttentionWeights
    from circuitdsl.verify.per_prompt import PerPrompt
    from circuitdsl.verify.prompts import Keep
    from circuitdsl.verify.store import Store
    from circuitdsl.verify.verify import Progress, Record

T = TypeVar("T")

HOW_CLAIMS_ARE_NAMED = "a claim is named by its line in the spec, or c01, c02, …"


@dataclass(frozen=True, slots=True)
class Options:
    """How to verify. Nothing here changes what a claim means.

    Attributes:
        claim: the id or the line of a claim, or several (`"27,28"`, `["27", "28"]`); each is judged at the level that
            it has among all.
        each_at: judge claims one by one at this level, instead of all together by Holm's procedure.
        generalise: whether verdicts are about `prompts` from the same templates, or about other `templates` (all
            prompts are measured then; see `verdict.samples.by_stratum`).
        early_stop: stop measuring a claim once it is decided.
        full: measure the whole circuit besides, whether or not something is claimed of it.
        memory: bytes that claims without a task may take beside the model; the prompts of tasks have their own limit.
        task, ids: verify only these claims on this task, each at the level that it has among all claims.

    Raises:
        UsageError: a level or a word that is none.
    """

    claim: str | int | Sequence[str | int] | None = None
    each_at: float | None = None
    generalise: str = "prompts"
    early_stop: bool = True
    full: bool = False
    memory: int | None = None
    task: str | None = None
    ids: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.each_at is not None and not 0 < self.each_at < 1:
            raise UsageError(f"each_at = {self.each_at!r} is not a level between 0 and 1")
        if self.generalise not in ("prompts", "templates"):
            raise UsageError(f"generalise = {self.generalise!r} is neither prompts nor templates")

    @property
    def claims(self) -> tuple[str, ...] | None:
        """The ids and lines of the claims to verify; None for all claims."""
        if self.claim is None:
            return None
        given = (self.claim,) if isinstance(self.claim, str | int) else self.claim
        return tuple(name.strip() for each in given for name in str(each).split(","))

    @property
    def templates(self) -> bool:
        """Whether verdicts are about prompts from other templates."""
        return self.generalise == "templates"

    @property
    def holm(self) -> bool:
        """Whether claims are judged all together."""
        return self.each_at is None

    @property
    def alpha(self) -> float:
        """The level of a claim, or of all claims together."""
        from circuitdsl.verdict.families import FAMILY

        return FAMILY if self.each_at is None else self.each_at


def with_overrides(circuit: Circuit, prompts: int | None = None, seed: int | None = None) -> Circuit:
    """The circuit with another number of prompts and another seed for every task; raises `UsageError`."""
    given: dict[str, Any] = {"prompts": prompts_of(prompts), "seed": seed_of(seed)}
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(circuit, tasks=tuple(replace(use, **changes) for use in circuit.tasks))


class _Verb:
    """A method that is a function of another module: the module is imported when the method is first asked for."""

    def __init__(self, module: str, function: str) -> None:
        self.module, self.function = module, function

    def __get__(self, session: Session | None, owner: type[Session]) -> Any:
        function = getattr(import_module(self.module), self.function)
        return function if session is None else MethodType(function, session)


class Session(AbstractContextManager["Session"]):
    """What a program holds while it works on models: each is loaded once, and the cache of numbers is opened once.

    It is a context manager: leaving it closes the cache and gives torch back its number of threads. Wherever a method
    takes a spec, the name of one does as well.

    Args:
        model: a name, a directory, a loaded model or a bridge of TransformerLens, instead of those that specs name.
        device, dtype: where models run, and in which number format.
        cache: use the numbers that earlier runs have measured, and keep new ones.
        memory: bytes that measuring may take beside the model, or a size ("2GB"); by default what is free decides.
        allow_outside: the prompt files of specs may lie outside their folders.
        progress: called with (work done, work that may still be needed at most, what is going on).
        busy: entered with a sentence while something is read or searched: a place for a spinner.
        meter: entered while a circuit is measured; gives what to call as `progress`, or None.
        warn: called with a sentence where the cache cannot be used; by default it is a Python warning.
        device_map: `balanced` or `auto`: models are laid over all GPUs, some layers on each; None for one device.
        prompt_files: by the names of tasks, files whose prompts take the place of those that specs name. Every spec
            must have these tasks.

    Raises:
        UserError: an argument is out of range.
    """

    prompts = _Verb("circuitdsl.verify.look", "prompts")
    plan = _Verb("circuitdsl.verify.planned", "plan")
    compare = _Verb("circuitdsl.verify.compared", "compare")
    channels = _Verb("circuitdsl.verify.upstream", "channels")
    trace = _Verb("circuitdsl.verify.upstream", "trace")
    discover = _Verb("circuitdsl.discover.discover", "drafted")
    scores = _Verb("circuitdsl.discover.scoring", "scored")
    curves = _Verb("circuitdsl.discover.curve", "curves")
    dictionaries = _Verb("circuitdsl.discover.features", "described")
    direction = _Verb("circuitdsl.discover.directions", "made")
    sweep = _Verb("circuitdsl.discover.sweep", "swept")
    starter = _Verb("circuitdsl.discover.starter", "starter")
    mutate = _Verb("circuitdsl.testing.mutate", "mutate")
    falsify = _Verb("circuitdsl.testing.falsify", "searches")
    watch = _Verb("circuitdsl.verify.watch", "watch")
    edit = _Verb("circuitdsl.verify.edited", "edit")

    def __init__(
        self,
        model: str | Path | Transformer | TransformerBridge | None = None,
        device: str = "auto",
        dtype: str = "float32",
        *,
        cache: bool = True,
        memory: int | str | None = None,
        allow_outside: bool = False,
        progress: Progress | None = None,
        busy: Callable[[str], AbstractContextManager[Any]] = lambda _: nullcontext(),
        meter: Callable[[], AbstractContextManager[Progress | None]] | None = None,
        warn: Callable[[str], None] | None = None,
        device_map: str | None = None,
        prompt_files: Mapping[str, str | Path] | None = None,
    ) -> None:
        if progress is not None and not callable(progress):
            raise UsageError(f"progress = {progress!r} is nothing that can be called")
        self.own: Transformer | None = None
        if not isinstance(model, str | Path | None):
            from circuitdsl.models.load import is_bridge, load_model
            from circuitdsl.models.parts import Transformer

            self.own = load_model(model, device, dtype) if is_bridge(model) else model
            if not isinstance(self.own, Transformer):
                raise UsageError(
                    f"a {type(model).__name__} is no model",
                    "give a name, a directory, what load_model gives, or a bridge",
                )
        self.name = self.own.name if self.own else None if model is None else str(model)
        self.device, self.dtype, self.cache, self.memory = device, dtype, cache, memory_of(memory)
        self.device_map = device_map
        if not isinstance(prompt_files or {}, Mapping):
            raise UsageError("prompt_files are files by the names of tasks", 'such as {"ioi": "held_out.jsonl"}')
        self.prompt_files = {task: str(file) for task, file in (prompt_files or {}).items()}
        self.allow_outside = allow_outside
        self.busy, self.meter, self.warn = busy, meter or (lambda: nullcontext(progress)), warn
        #: opens a model in another way, given a circuit, and the model's name, place and revision
        self.opened: Callable[[Circuit, str, str, str | None], Model] | None = None
        self._known: dict[str, dict[Any, Any]] = {}
        self._prompts: Keep | None = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the cache, and give torch back its number of threads. The session can be used again."""
        if store := self.__dict__.pop("store", None):
            store.close()
        restore_threads()

    # --- what it holds

    @cached_property
    def store(self) -> Store | None:
        """The cache of numbers; None where it is not to be used."""
        from circuitdsl.verify.folder import default_path
        from circuitdsl.verify.store import Store

        return Store(default_path(), warn=self.warn) if self.cache else None

    @cached_property
    def shape(self) -> ModelShape | None:
        """The size of the session's model, where that is loaded."""
        from circuitdsl.verify.plan import shape_of

        return shape_of(self.own) if self.own else None

    def spec(self, given: Spec | str | Path, circuit: str | None = None) -> Spec:
        """A spec that can be verified, resolved for the session's model; with a name, that circuit of it alone.

        Raises:
            SpecError: the spec has errors; the message lists them.
            UserError: there is no such spec, circuit or task, or a prompt file has errors.
        """
        from circuitdsl.api import SpecError, check_prompt_files, load, loads
        from circuitdsl.language.diagnostics import render_foremost

        read = partial(load, model=self.name, allow_outside=self.allow_outside, shape=self.shape)
        found = read(given) if isinstance(given, str | Path) else given
        files = self.prompt_files or found.prompt_files
        model, shape = (found.model, found.shape) if self.name is None else (self.name, self.shape)
        if (model, shape, files) != (found.model, found.shape, found.prompt_files):
            names, allow = {one.name for one in found.circuits}, found.allow_outside
            found = loads(found.text, found.path, model, allow_outside=allow, shape=shape, prompt_files=files)
            found = replace(found, circuits=tuple(one for one in found.circuits if one.name in names))
        if not found.ok:
            raise SpecError(render_foremost(found.diagnostics, found.text, found.path))
        check_prompt_files(found, self.name)
        return found if circuit is None else replace(found, circuits=(found.circuit(circuit),))

    def circuit(self, given: Circuit | Spec | str | Path, name: str | None = None) -> Circuit:
        """The circuit of that name, or the first of a spec; `SPEC#CIRCUIT` names both at once.

        Raises:
            UserError: there is none, and what `spec` raises.
        """
        if isinstance(given, Circuit):
            if own := [use.name for use in given.tasks if use.name in self.prompt_files and not use.instead]:
                raise UsageError(f"this circuit has its own prompts of {own[0]}", hint="give the session its spec")
            return given
        if isinstance(given, str) and name is None:
            given, _, name = given.partition("#")
        return self.spec(given).first(name)

    def model_of(self, circuit: Circuit) -> Transformer:
        """The model to verify a circuit on, read now; raises what `source_of` raises."""
        return self.source_of(circuit).parts

    def source_of(self, circuit: Circuit) -> Model:
        """What is known of the model to verify a circuit on; its parts are read when they are needed.

        Sets the number of threads that suits it.

        Raises:
            UserError: the circuit names none, or it cannot be loaded.
        """
        from circuitdsl.models.record import open_model

        folder = self.store.folder if self.store else None

        def opened(name: str, place: str, revision: str | None) -> Model:
            if self.opened:
                return self.opened(circuit, name, place, revision)
            return open_model(place, self.device, self.dtype, revision, folder, name, self.device_map)

        # the program may have changed weights since the last run: its own, or those that `model_of` has given it
        found: Model = as_model(self.own) if self.own else self._named(circuit, opened, "loading")
        found = Model.of(found.parts) if found.is_changed else found
        use_threads(found.suitable_threads)
        return found

    def weights_of(self, circuit: Circuit | None) -> AttentionWeights:
        """The attention weights of a circuit's model, or of the session's: of a loaded one, or read from its files.

        Raises:
            UserError: the circuit names none, or they cannot be read.
        """
        from circuitdsl.models.weights import read_weights, weights_of

        def read(name: str, place: str, revision: str | None) -> AttentionWeights:
            return replace(read_weights(place, revision), name=name)

        return weights_of(self.own) if self.own else self._named(circuit, read, "reading the weights of")

    def _named(self, circuit: Circuit | None, read: Callable[..., T], doing: str) -> T:
        """What is read of the model that a circuit names, or of the session's; each is read once."""
        name, place, revision = place_of(circuit, self.name)
        known = self._known.setdefault(doing, {})
        if (place, revision) not in known:
            with self.busy(f"{doing} {name}"):
                known[place, revision] = read(name, place, revision)
        return known[place, revision]

    def prompts_of(self, circuit: Circuit, use: TaskUse) -> Prompts:
        """A task's prompts on the circuit's model, scored; raises what `make_prompts` raises."""
        from circuitdsl.verify.prompts import make_prompts

        return make_prompts(circuit, use, self.source_of(circuit), self.store, self.memory)

    def prompts_by_task(self, circuit: Circuit, claims: Sequence[Claim] | None = None) -> dict[str, Prompts]:
        """The prompts of every task that some claim (of these) is checked on; raises what `make_prompts` raises."""
        from circuitdsl.verify.prompts import prompts_by_task

        return prompts_by_task(circuit, self.source_of(circuit), self.store, self.memory, self._prompts, claims)

    def keep_prompts(self) -> None:
        """Keep prompts and their runs between verifications, and numbers even without the cache on disk."""
        from circuitdsl.verify.store import IN_MEMORY, Store

        self._prompts = {} if self._prompts is None else self._prompts
        if self.store is None:
            self.__dict__["store"] = Store(IN_MEMORY, warn=self.warn)

    # --- verbs

    def verify(self, spec: Spec | str | Path, circuit: str | None = None, **how: Any) -> Report | Reports:
        """Check every claim of a spec against the model.

        Args:
            circuit: the name of one circuit, where the file has several.
            how: the arguments of `reports`, and the fields of `Options`.

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
        behind: bool | str = False,
        simplest: bool = False,
        **how: Any,
    ) -> Iterator[Report]:
        """Reports on the circuits of some specs, one by one as they are made, up to one that was interrupted.

        Args:
            prompts, seed: for every task, instead of the spec's.
            other_corruptions: note beside each `matters` claim what it is under the task's other corruptions.
            per_prompt: is given the numbers of every prompt.
            behind: keep in the reports what a page shows beside them; a text is the command that asked for it.
            simplest: show with each property that fails the simplest counterexample that a short search finds.
            how: the fields of `Options`.

        Raises:
            UserError: there is no claim to verify, or not the one that is named.
        """
        from circuitdsl.verify.judged import wanted
        from circuitdsl.verify.last import remember

        circuits = [circuit for spec in specs for circuit in self.spec(spec).circuits]
        if not any(circuit.claims for circuit in circuits):
            raise UserError("nothing to verify: the spec makes no claim that can be measured")
        settings = Options(memory=self.memory, **how)
        for name in settings.claims or ():
            if not any(each.answers_to(name) for one in circuits for each in one.claims):
                lines = sorted({each.line for one in circuits for each in one.claims})
                here = f"{HOW_CLAIMS_ARE_NAMED}; here are lines {', '.join(map(str, lines))}"
                raise UsageError(f"there is no claim {quoted(name)}", hint=here)
        chosen = [one for one in circuits if wanted(one, settings.claims)]
        if not chosen:
            raise UsageError("no claim is named", hint=HOW_CLAIMS_ARE_NAMED)

        def made() -> Iterator[Report]:
            for circuit in (with_overrides(one, prompts, seed) for one in chosen):
                report = self._report(circuit, settings, other_corruptions, per_prompt, behind)
                failing = (each for each in report.claims if each.kind == "property" and each.verdict == "fails")
                if simplest and any(failing) and not report.interrupted:
                    with_simplest = import_module("circuitdsl.testing.falsify").with_simplest  # imports Hypothesis
                    report = with_simplest(report, circuit, self.model_of(circuit))
                instead = any(use.instead for use in circuit.tasks)  # verdicts on other prompts than those of the spec
                if self.store and self.store.folder and not instead:
                    remember(circuit, report, self.store.folder)
                yield report
                if report.interrupted:  # a user who stops one run does not want the next to begin
                    return

        return made()

    def _report(
        self, circuit: Circuit, how: Options, other_corruptions: bool, per_prompt: PerPrompt | None, behind: bool | str
    ) -> Report:
        from circuitdsl.verify.judged import verify_without_model, wanted
        from circuitdsl.verify.verify import under_other_corruptions, verify

        known = None if self.own else verify_without_model(circuit, partial(self.weights_of, circuit), how.claims)
        if known:
            return known
        model, start = self.source_of(circuit), time.perf_counter()
        records: list[Record] = [] if per_prompt is None else [partial(per_prompt.record, circuit.name)]
        if behind:
            gathered = import_module("circuitdsl.verify.behind").Gathered(behind if isinstance(behind, str) else "")
            records.append(gathered.record)

        with rarely_collected(), self.meter() as progress:
            by_task = self.prompts_by_task(circuit, wanted(circuit, how.claims))
            report = verify(circuit, model, by_task, how, progress, records, self.store)
            if other_corruptions and not report.interrupted:
                report = under_other_corruptions(self, circuit, by_task, report, how)
            if behind:
                report = replace(report, behind=gathered.behind(circuit, by_task, not report.interrupted))
        return replace(report, seconds=time.perf_counter() - start)
