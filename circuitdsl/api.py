"""Specs, tasks and models brought together: what the command line and a notebook call."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.circuit.catalogue import TaskShape
from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.circuit.lint import lint
from circuitdsl.circuit.resolve import resolve
from circuitdsl.errors import SPEC_WRONG, UsageError, UserError
from circuitdsl.language.diagnostics import Diagnostic, did_you_mean, has_errors, render, suggest
from circuitdsl.language.parse import parse
from circuitdsl.language.source import read_source
from circuitdsl.measurements import KINDS
from circuitdsl.tasks.registry import TASKS

if TYPE_CHECKING:
    import networkx

    from circuitdsl.models.parts import Transformer
    from circuitdsl.report.report import Report, Reports
    from circuitdsl.tasks.dataset import Dataset, PromptPair
    from circuitdsl.tasks.tokens import Tokens
    from circuitdsl.verify.bench import Bench
    from circuitdsl.verify.corruptions import Rerun
    from circuitdsl.verify.store import Store
    from circuitdsl.verify.verify import Options, Progress

#: prompts of a generated task that mean ablation averages over, at the least
MEAN_PROMPTS = 2000
#: prompts of each other corruption that are looked at for advice
ADVICE = 4


@dataclass(frozen=True, repr=False, eq=False)
class Spec:
    """A spec file as read: its circuits, and everything that was found wrong with it.

    Two specs of one path are equal when they say the same, whatever their blanks, comments and lines; those with errors
    when their texts are the same.
    """

    path: str
    text: str
    circuits: tuple[Circuit, ...]
    diagnostics: tuple[Diagnostic, ...]

    def __repr__(self) -> str:
        """One line: the fields are the whole file, and everything that it says."""
        wrong = sum(found.severity == "error" for found in self.diagnostics)
        return f"<Spec {self.path}: {f'{wrong} errors' if wrong else ', '.join(map(repr, self.circuits))}>"

    def __eq__(self, other: object) -> bool:
        return self._said() == other._said() if isinstance(other, Spec) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._said())

    def _said(self) -> tuple[Hashable, ...]:
        return self.path, self.circuits, "" if self.ok else self.text

    @property
    def ok(self) -> bool:
        """Whether the spec can be verified."""
        return not has_errors(self.diagnostics)

    @property
    def graph(self) -> networkx.MultiDiGraph:
        """The circuit as a networkx graph; raises `UsageError` where the file has not exactly one."""
        return self.circuit().graph

    def circuit(self, name: str | None = None) -> Circuit:
        """The circuit of that name, or the only one; raises `UsageError` where there is none."""
        named = {circuit.name: circuit for circuit in self.circuits}
        if name in named or (name is None and len(named) == 1):
            return named[name or next(iter(named))]
        asked = f"no circuit {name}" if name else ("no circuit" if not named else "more than one circuit")
        raise UsageError(f"{self.path} has {asked}", hint=f"it has {', '.join(named)}" if named else None)

    def verify(
        self,
        model: str | Path | Transformer | None = None,
        prompts: int | None = None,
        seed: int | None = None,
        device: str = "auto",
        *,
        dtype: str = "float32",
        circuit: str | None = None,
        early_stop: bool = True,
        cache: bool = True,
        memory: int | str | None = None,
        progress: Progress | None = None,
    ) -> Report | Reports:
        """Check every claim against the model.

        Args:
            model: a name, a directory, or a loaded model (`load_model`), instead of the spec's own.
            prompts, seed: for every task, instead of the spec's.
            circuit: the name of one circuit, where the file has several.
            early_stop: stop measuring a claim once it is decided.
            cache: use and keep what was measured before.
            memory: bytes that measuring may take beside the model, or a size ("2GB"); by default what is free decides.
            progress: called with (work done, work that may still be needed at most, what is going on).

        Returns:
            A report; `Reports`, a tuple of them, where the file has several circuits and none is named.

        Raises:
            SpecError: the spec has errors; the message lists them.
            UserError: an argument is out of range, the model cannot be loaded, nothing can be measured, or the memory
                is too little for one prompt.
        """
        from circuitdsl.verifying import verify_spec

        spec = self if circuit is None else replace(self, circuits=(self.circuit(circuit),))
        return verify_spec(spec, model, prompts, seed, device, dtype, early_stop, cache, memory, progress)

    def _repr_svg_(self) -> str | None:
        from circuitdsl.diagram import draw, to_svg

        return to_svg(draw(self.circuits[0])) if self.ok and len(self.circuits) == 1 else None

    def _repr_html_(self) -> str:
        from circuitdsl.diagram import draw, to_svg

        if not self.ok:
            return f"<pre>{escape(self.problems)}</pre>"
        return "\n".join(f"<div>{to_svg(draw(circuit))}</div>" for circuit in self.circuits)

    @property
    def problems(self) -> str:
        """All diagnostics as `check` prints them; empty where there are none."""
        return "\n".join(render(found, self.text, self.path) for found in self.diagnostics)


class _Shapes(Mapping[str, TaskShape]):
    """All tasks as resolution sees them; one that a package adds is loaded when it is named."""

    def __getitem__(self, name: str) -> TaskShape:
        task = TASKS[name]
        options = {key: option.values for key, option in task.options.items()}
        return TaskShape(task.name, task.positions, task.corruptions, options, task.before())

    def __iter__(self) -> Iterator[str]:
        return iter(TASKS)

    def __len__(self) -> int:
        return len(TASKS)


def catalogue() -> Mapping[str, TaskShape]:
    """The registered tasks as resolution sees them."""
    return _Shapes()


def shipped_specs() -> Path:
    """The folder of the specs that come with the package."""
    inside = Path(__file__).parent / "specs"
    return inside if inside.exists() else Path(__file__).parent.parent / "specs"


def find_spec(name: str) -> Path:
    """A file of that name, or a shipped spec (`pocket/ioi`).

    Raises:
        UsageError: there is neither.
    """
    shipped = shipped_specs() / f"{name.removesuffix('.circ')}.circ"
    try:
        if Path(name).exists():
            return Path(name)
        if shipped.is_file():
            return shipped
    except (OSError, ValueError):  # a name that no file can have
        name = f"{name[:40]}…"
    names = sorted(str(p.relative_to(shipped_specs()).with_suffix("")) for p in shipped_specs().rglob("*.circ"))
    guess = did_you_mean(f"pocket/{name}" if f"pocket/{name}" in names else suggest(name, names))
    raise UsageError(
        f"there is no file {name}, and no shipped spec of that name{guess}", f"shipped: {', '.join(names)}"
    )


class SpecError(UserError):
    """A spec that cannot be verified; the message lists what is wrong with it."""

    status = SPEC_WRONG


def dumps(spec: Spec) -> str:
    """The spec's text in its canonical layout; raises `NotFormatted` where it has syntax errors."""
    from circuitdsl.language.format import format_text

    return format_text(spec.text, spec.path)


def load(name: str | Path, model: str | Path | None = None) -> Spec:
    """Read, parse and resolve a spec; whatever is wrong with it stands in `diagnostics`.

    Args:
        name: a path, or the name of a shipped spec.
        model: checked against this model instead of the spec's own.
    """
    path = find_spec(str(name))
    text, found = read_source(path)
    return _resolved(text, str(path), tuple(found), _named(model))


def loads(text: str, path: str | Path = "<text>", model: str | Path | None = None) -> Spec:
    """Parse and resolve a spec given as text; raises `UsageError` where that is no text."""
    if not isinstance(text, str):
        raise UsageError(f"loads takes the text of a spec, not {type(text).__name__}", hint="load reads a file")
    return _resolved(text, str(path), (), _named(model))


def _named(model: str | Path | None) -> str | None:
    return None if model is None else str(model)


def _resolved(text: str, path: str, found: tuple[Diagnostic, ...], model: str | None) -> Spec:
    if found:
        return Spec(path, text, (), found)
    with _without_collecting():
        syntax, problems = parse(text, path)
        circuits, more = resolve(syntax, tasks=catalogue(), kinds=KINDS, model_override=model, files=_file_shape(path))
        more += lint(syntax, circuits, catalogue(), KINDS)
    diagnostics = sorted({*problems, *more}, key=lambda d: (d.span.line, d.span.column, d.code))
    return Spec(path, text, circuits, tuple(diagnostics))


@contextmanager
def _without_collecting() -> Iterator[None]:
    """No search for garbage cycles: a spec's many small records hold none, and are made twice as fast."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _file_shape(spec: str) -> Callable[[str], TaskShape | None]:
    """What is known of the tasks that prompt files make; the files lie beside the spec."""
    from circuitdsl.tasks.from_file import positions_in

    def shape(name: str) -> TaskShape | None:
        found = positions_in(Path(spec).parent / name)
        return None if found is None else TaskShape(name, dict.fromkeys(found, "as the file says"), {})

    return cache(shape)


def check_prompt_files(spec: Spec, model: str | None = None) -> None:
    """Raise `PromptFileError` for a prompt file of the spec that is missing or has bad lines.

    Args:
        model: instead of the spec's own; its tokenizer, where at hand, finds what else is wrong with such a file.
    """
    from circuitdsl.tasks.from_file import PromptFileError, check_file

    for circuit in spec.circuits:
        for use in circuit.tasks:
            if use.file is not None:
                path = Path(circuit.path).parent / use.file
                try:
                    check_file(path)
                except PromptFileError:
                    _check_with_tokenizer(circuit, use, path, model)
                    raise


def _check_with_tokenizer(circuit: Circuit, use: TaskUse, path: Path, model: str | None) -> None:
    """Raise `PromptFileError` with all that is wrong with a prompt file; say nothing without a tokenizer at hand."""
    from circuitdsl.models.cache import place_of
    from circuitdsl.models.load import load_tokenizer, vocabulary_size
    from circuitdsl.models.tokenizers import quiet_and_offline
    from circuitdsl.tasks.from_file import read_prompts
    from circuitdsl.tasks.tokens import Tokens

    try:
        name, place, revision = place_of(circuit, model)
        with quiet_and_offline():
            tokens, size = Tokens(load_tokenizer(place, revision), name, use.bos), vocabulary_size(place, revision)
    except UserError:
        return
    read_prompts(path, tokens, use.name, n_vocab=size)


# --- ready to measure ------------------------------------------------------------------------------


def make_data(circuit: Circuit, use: TaskUse, model: Transformer, every: bool = False) -> Dataset:
    """A task's prompts for a model; of a prompt file, with `every`, those that repeat a clean prompt as well.

    Raises:
        UserError: the model has no tokenizer, or the task cannot be made with it.
    """
    from circuitdsl.tasks.dataset import sample

    if use.file is not None:
        return _from_file(circuit, use.file, use, model, use.prompts, every)
    tokens = _tokens(use, model)
    if tokens is None:
        raise UserError(
            f"{model.name} has no tokenizer, and task {use.name} needs one to make its prompts",
            hint="put tokenizer.json beside the weights, or give prompts as token ids in a prompt file",
        )
    return sample(TASKS[use.generator or use.name], tokens, use.prompts, use.seed, use.corrupt, dict(use.options))


def _from_file(
    circuit: Circuit, file: str, use: TaskUse, model: Transformer, limit: int | None, every: bool = False
) -> Dataset:
    """The first prompts of a task's file, or all of them."""
    from circuitdsl.tasks.from_file import read_prompts

    path = Path(circuit.path).parent / file
    return read_prompts(path, _tokens(use, model), use.name, limit, model.n_vocab, use.seed, every)


def _tokens(use: TaskUse, model: Transformer) -> Tokens | None:
    from circuitdsl.tasks.tokens import Tokens

    return None if model.tokenizer is None else Tokens(model.tokenizer, model.name, use.bos)


def make_bench(
    circuit: Circuit, use: TaskUse, model: Transformer, store: Store | None = None, max_memory: int | None = None
) -> Bench:
    """A task's prompts for a model, ready to be measured; what a store knows is not measured again.

    Args:
        max_memory: bytes that measuring may take beside the model; by default what is free decides.

    Raises:
        UserError: the model has no tokenizer, or the task cannot be made with it.
    """
    from circuitdsl.tasks.dataset import sample
    from circuitdsl.verify.bench import bench

    data = make_data(circuit, use, model)
    if file := use.file:

        def whole() -> tuple[PromptPair, ...]:
            return _from_file(circuit, file, use, model, limit=None).pairs

        return bench(model, data, circuit.metric, more=whole, store=store, max_memory=max_memory)
    tokens = _tokens(use, model)
    assert tokens is not None
    task, options = TASKS[use.generator or use.name], dict(use.options)
    others = {
        name: sample(task, tokens, ADVICE, use.seed, name, options).pairs
        for name in task.corruptions
        if name != data.corrupt
    }

    count = max(MEAN_PROMPTS, use.prompts)

    def more() -> tuple[PromptPair, ...]:
        """Enough prompts for means that do not depend on how many are measured; the measured ones come first."""
        return sample(task, tokens, count, use.seed, use.corrupt, options).pairs

    drawn_by = _source(task.draw)
    words = sorted(tokens.words(task).items())
    more_are = repr((task.name, count, use.seed, data.corrupt, sorted(options.items()), words, drawn_by))
    return bench(model, data, circuit.metric, others, more, store, max_memory, more_are if drawn_by else "")


def _source(function: Callable[..., object]) -> str:
    """The text of the module that a function stands in; empty where it cannot be had."""
    try:
        return inspect.getsource(sys.modules[function.__module__])
    except (OSError, TypeError, KeyError):
        return ""


def make_benches(
    circuit: Circuit, model: Transformer, store: Store | None = None, max_memory: int | None = None
) -> dict[str, Bench]:
    """A bench for every task that some claim of the circuit is checked on, and one for the properties of a task."""
    from circuitdsl.verify.bench import bench
    from circuitdsl.verify.properties import own_samples, own_use, sample_name

    found = {use.name: make_bench(circuit, use, model, store, max_memory) for use in tasks_in_use(circuit)}
    needed = own_samples(circuit)
    for use in circuit.tasks:
        if use.name in needed:
            data = make_data(circuit, own_use(use, needed[use.name]), model)
            found[sample_name(use.name)] = bench(model, data, circuit.metric, store=store, max_memory=max_memory)
    return found


def tasks_in_use(circuit: Circuit) -> tuple[TaskUse, ...]:
    """The tasks on which some claim is checked."""
    wanted = {name for claim in circuit.claims for name in claim.tasks}
    return tuple(use for use in circuit.tasks if use.name in wanted)


def verify_other_corruptions(
    circuit: Circuit,
    model: Transformer,
    benches: Mapping[str, Bench],
    report: Report,
    options: Options,
    store: Store | None = None,
    max_memory: int | None = None,
) -> Report:
    """The report with a note beside every `matters` claim: whether it holds under the task's other corruptions too.

    Ctrl-C ends this early: the notes are then on those corruptions that all claims were measured under.
    """
    from circuitdsl.verify.corruptions import reruns, with_notes
    from circuitdsl.verify.verify import verify

    reported = {claim.id for claim in report.claims}
    others = {use.name: tuple(benches[use.name].others) for use in tasks_in_use(circuit)}
    again: list[tuple[Rerun, Report]] = []
    try:
        for one in reruns(circuit, others, reported.__contains__):
            use = next(use for use in one.circuit.tasks if use.name == one.task)
            bench = {one.task: make_bench(one.circuit, use, model, store, max_memory)}
            kept = replace(options, only=None, full=False, ids=one.claims, task=one.task)
            found = verify(one.circuit, model, bench | _rest(benches, one.task), kept)
            if found.interrupted:
                raise KeyboardInterrupt
            again.append((one, found))
    except KeyboardInterrupt:
        report = replace(report, interrupted=True)
    return with_notes(report, again)


def _rest(benches: Mapping[str, Bench], task: str) -> dict[str, Bench]:
    return {name: bench for name, bench in benches.items() if name != task}
