"""Specs read and resolved: what the command line, the pytest plugin and a notebook begin with."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from circuitdsl.brief import quoted
from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.circuit.lint import lint
from circuitdsl.circuit.resolve import OtherTask, resolve
from circuitdsl.circuit.shapes import ModelShape, TaskShape
from circuitdsl.errors import SPEC_WRONG, UsageError, UserError
from circuitdsl.garbage import quickly
from circuitdsl.language.diagnostics import (
    Diagnostic,
    did_you_mean,
    has_errors,
    listing,
    ordered,
    render_foremost,
    suggest,
)
from circuitdsl.language.diagnostics import render as rendered
from circuitdsl.language.parse import parse, read_source
from circuitdsl.measurements import KINDS
from circuitdsl.tasks.registry import TASKS
from circuitdsl.visible import escape

if TYPE_CHECKING:
    import networkx
    from transformer_lens.model_bridge import TransformerBridge

    from circuitdsl.models.parts import Transformer
    from circuitdsl.report.diff import Diff
    from circuitdsl.report.prompts import Prompts
    from circuitdsl.report.report import Report, Reports
    from circuitdsl.tasks.tokens import Token, Tokens
    from circuitdsl.verify.verify import Progress

#: every task has its own prompts
NO_FILES: Mapping[str, str] = MappingProxyType({})
#: circuits, and what is wrong with their file
Resolved = tuple[tuple[Circuit, ...], tuple[Diagnostic, ...]]


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
    #: the model that it was resolved for, instead of its own, and whether its prompt files may lie elsewhere
    model: str | None = None
    allow_outside: bool = False
    #: prompt files that take the place of the prompts of tasks, by their names
    prompt_files: Mapping[str, str] = field(default_factory=dict)
    #: the size of that model, where the caller knew it
    shape: ModelShape | None = None

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
        known = f"the file has {', '.join(named)}" if named else None
        if name:
            raise UsageError(f"there is no circuit {name}", hint=known)
        raise UsageError(f"{self.path} has {'more than one circuit' if named else 'no circuit'}", hint=known)

    def first(self, name: str | None = None) -> Circuit:
        """The circuit of that name, or the first; raises `UserError` where there is none."""
        if not self.circuits:
            raise UserError(f"{self.path} has no circuit")
        return self.circuit(name) if name else self.circuits[0]

    def verify(
        self,
        model: str | Path | Transformer | TransformerBridge | None = None,
        prompts: int | None = None,
        seed: int | None = None,
        device: str = "auto",
        *,
        dtype: str = "float32",
        cache: bool = True,
        memory: int | str | None = None,
        progress: Progress | None = None,
        device_map: str | None = None,
        **how: Any,
    ) -> Report | Reports:
        """Check every claim against the model, in a session of its own.

        `prompts`, `seed` and what stands in `how` (such as `circuit`, `claim`, `early_stop`) are arguments of
        `Session.verify`, the others of `Session`; results and errors are theirs.
        """
        from circuitdsl.verify.session import Session

        own = {"cache": cache, "memory": memory, "progress": progress, "device_map": device_map}
        with Session(model, device, dtype, **own) as session:  # type: ignore[arg-type]
            return session.verify(self, prompts=prompts, seed=seed, **how)

    def _repr_svg_(self) -> str | None:
        from circuitdsl.diagram import draw, to_svg

        return to_svg(draw(self.circuits[0])) if self.ok and len(self.circuits) == 1 else None

    def _repr_html_(self) -> str:
        from circuitdsl.diagram import draw, to_svg

        if not self.ok:
            return f"<pre>{escape(render_foremost(self.diagnostics, self.text, self.path))}</pre>"
        return "\n".join(f"<div>{to_svg(draw(circuit))}</div>" for circuit in self.circuits)

    @property
    def problems(self) -> str:
        """All diagnostics as `check --all` prints them; empty where there are none."""
        return "\n".join(rendered(found, self.text, self.path) for found in self.diagnostics)


class _Catalogue(Mapping[str, TaskShape]):
    """What resolution knows of the registered tasks; one that a package adds is loaded when it is named."""

    def __getitem__(self, name: str) -> TaskShape:
        task = TASKS[name]
        options = {key: option.values for key, option in task.options.items()}
        return TaskShape(task.name, task.positions, task.corruptions, options, task.before())

    def __iter__(self) -> Iterator[str]:
        return iter(TASKS)

    def __len__(self) -> int:
        return len(TASKS)


CATALOGUE = _Catalogue()


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
        f"there is no file {quoted(name)}, and no shipped spec of that name{guess}", f"shipped: {', '.join(names)}"
    )


class SpecError(UserError):
    """A spec that cannot be verified; the message lists what is wrong with it."""

    status = SPEC_WRONG
    keep = "\n"


def is_spec(name: str) -> bool:
    """Whether a name is a spec and not a model: a file, or a shipped spec that no directory hides."""
    path = Path(name)
    try:
        if name.endswith(".circ") or path.is_file():
            return True
        return not path.is_dir() and (shipped_specs() / f"{name}.circ").is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def dumps(spec: Spec) -> str:
    """The spec's text in its canonical layout; raises `NotFormatted` where it has syntax errors."""
    from circuitdsl.language.format import format_text

    return format_text(spec.text, spec.path)


def load(
    name: str | Path,
    model: str | Path | None = None,
    *,
    allow_outside: bool = False,
    shape: ModelShape | None = None,
    prompt_files: Mapping[str, str | Path] = NO_FILES,
) -> Spec:
    """Read, parse and resolve a spec; whatever is wrong with it stands in `diagnostics`.

    Args:
        name: a path, or the name of a shipped spec.
        model: checked against this model instead of the spec's own.
        allow_outside: prompt files may lie outside the spec's folder; for specs that you trust.
        shape: the size of that model, where its name does not tell it.
        prompt_files: by the names of tasks, files whose prompts take the place of those of the spec, such as prompts
            that were held out.

    Raises:
        UsageError: the spec has no task of such a name.
    """
    path = find_spec(str(name))
    text, found = read_source(path)
    return _resolved(text, path, tuple(found), model, allow_outside, shape, prompt_files)


def loads(
    text: str,
    path: str | Path = "<text>",
    model: str | Path | None = None,
    *,
    allow_outside: bool = False,
    shape: ModelShape | None = None,
    prompt_files: Mapping[str, str | Path] = NO_FILES,
) -> Spec:
    """Parse and resolve a spec given as text; raises `UsageError` where that is no text. The rest is as for `load`."""
    if not isinstance(text, str):
        raise UsageError(f"loads takes the text of a spec, not {type(text).__name__}", hint="load reads a file")
    return _resolved(text, path, (), model, allow_outside, shape, prompt_files)


def _resolved(
    text: str,
    file: str | Path,
    found: tuple[Diagnostic, ...],
    wanted: str | Path | None,
    allow_outside: bool,
    shape: ModelShape | None,
    prompt_files: Mapping[str, str | Path],
) -> Spec:
    """The spec of a text, for the wanted model or its own; `found` are what hinders reading it."""
    path, model = str(file), None if wanted is None else str(wanted)
    files = {task: str(given) for task, given in prompt_files.items()}
    if found:
        return Spec(path, text, (), found, model, allow_outside, files, shape)
    with quickly():
        syntax, problems = parse(text, path)
        circuits, more = resolver(path, model, allow_outside, shape=shape, prompt_files=files)(syntax)
        more += lint(syntax, circuits, CATALOGUE, KINDS)
    made = Spec(path, text, circuits, ordered([*problems, *more]), model, allow_outside, files, shape)
    known = {use.name for circuit in circuits for use in circuit.tasks}
    for task in files if made.ok else ():
        if task not in known:
            hint = f"its tasks are {listing(known)}" if known else "it has no task"
            raise UsageError(f"{path} has no task {quoted(task)}{did_you_mean(suggest(task, known))}", hint)
    return made


def resolver(
    path: str,
    model: str | None = None,
    allow_outside: bool = False,
    task: OtherTask | None = None,
    prompt_files: Mapping[str, str] = NO_FILES,
    shape: ModelShape | None = None,
) -> Callable[..., Resolved]:
    """`resolve` for what the file at a path may say; for a model, a task or prompts instead of those that it names."""
    bound = partial(resolve, tasks=CATALOGUE, kinds=KINDS, files=_file_shape(path), prompt_files=prompt_files)
    return partial(bound, model_override=model, allow_outside=allow_outside, task=task, shape=shape)


def _file_shape(spec: str) -> Callable[[str], TaskShape | None]:
    """A function that gives what is known of the task in a prompt file; such files lie beside the spec."""
    from circuitdsl.tasks.places import positions_in

    def shape(name: str) -> TaskShape | None:
        found = positions_in(Path(spec).parent / name)
        return TaskShape(name, dict.fromkeys(found, "as the file says"), {}) if found else None

    return cache(shape)


def as_task(given: str) -> str:
    """A task as it is written in a spec; of the path of a prompt file, `file("…")`."""
    return f'file("{given}")' if Path(given).suffix.lower() in (".jsonl", ".csv") else given


def circuit_of_task(task: str) -> Circuit:
    """A circuit that has nothing but a task; files are named from here.

    Args:
        task: as in a spec (`ioi`, `file("prompts.jsonl")`), or the path of a prompt file.

    Raises:
        UsageError: there is no such task, or it is not written as in a spec.
    """
    spec = loads(
        f'circuit looked_at\nmodel "pocket"\ntask {as_task(task)}\nexpect accuracy >= 0%\n',
        "the task",
        allow_outside=True,
    )
    wrong = [found.message for found in spec.diagnostics if found.severity == "error"]
    if wrong or len(spec.circuits[0].tasks) != 1:
        said = wrong[0] if wrong else f"'{task}' is not a task"
        raise UsageError(said, hint="write it as in a spec: ioi, 'ioi(corrupt = flip)', 'file(\"prompts.jsonl\")'")
    return spec.circuits[0]


def prompts(
    task: str,
    model: str | Path | Transformer | TransformerBridge | None = None,
    n: int = 4,
    seed: int | None = None,
    corrupt: str | None = None,
    device: str = "auto",
    **how: Any,
) -> Prompts:
    """Prompts of a task as a model sees them: tokens, positions, answers, and what it predicts.

    Args:
        task, n, seed, corrupt: as `Session.prompts` takes them, whose errors these are too.
        model: a name, a directory or a loaded model; by default `pocket`.
        how: other arguments of `Session`.
    """
    from circuitdsl.verify.session import Session

    with Session(model, device, **how) as session:
        found: Prompts = session.prompts(task, n, seed, corrupt)
        return found


def check_prompt_files(spec: Spec, model: str | None = None) -> None:
    """Raise `PromptFileError` for a prompt file of the spec that is missing or has bad lines.

    Args:
        model: the model to use instead of the spec's own. If its tokenizer is at hand, bad lines that only a tokenizer
            can find are named as well.
    """
    from circuitdsl.tasks.from_file import PromptFileError, check_file

    for circuit, use, path in _file_tasks(spec):
        try:
            check_file(path)
        except PromptFileError:
            if (at_hand := _tokens_at_hand(circuit, use, model)) is not None:
                _scored(path, *at_hand)
            raise


def _scored(path: Path, tokens: Tokens | None, n_vocab: int | None) -> tuple[int, tuple[Token, ...], tuple[Token, ...]]:
    """How many prompts a file has for a tokenizer, and the first tokens that are scored: answers, distractors.

    Raises:
        PromptFileError: the file cannot be read, or has bad lines, which are named.
    """
    from circuitdsl.tasks.dataset import scored_tokens
    from circuitdsl.tasks.from_file import pairs_in
    from circuitdsl.tasks.reading import Reading

    found = Reading(path)
    with pairs_in(path, tokens, n_vocab) as each:
        scored = scored_tokens((pair for _, pair in found.usable(each)), tokens)
    found.refuse()
    return found.good, *scored


def _file_tasks(spec: Spec) -> list[tuple[Circuit, TaskUse, Path]]:
    """The tasks of a spec that are prompt files, each file once for every model and way to read it."""
    uses = {
        (c.path, use.file, use.bos, use.chat, c.model): (c, use) for c in spec.circuits for use in c.tasks if use.file
    }
    return [(circuit, use, Path(circuit.path).parent / str(use.file)) for circuit, use in uses.values()]


def _tokens_at_hand(circuit: Circuit, use: TaskUse, model: str | None) -> tuple[Tokens | None, int | None] | None:
    """The tokenizer of a task's model, None where the model has none, and how many tokens the model has.

    None where its files are not at hand: nothing is downloaded.
    """
    from circuitdsl.circuit.shapes import place_of
    from circuitdsl.models.files import files_of
    from circuitdsl.models.load import locate
    from circuitdsl.models.tokenizers import quiet_and_offline, read_tokenizer
    from circuitdsl.tasks.tokens import Tokens

    try:
        name, place, revision = place_of(circuit, model)
        with quiet_and_offline():
            files = files_of(locate(place, revision, weights=False), weights=False)
            tokenizer, size = read_tokenizer(files), files.n_vocab
        return None if tokenizer is None else Tokens(tokenizer, name, use.bos, use.chat), size
    except UserError:
        return None


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A prompt file of a spec without bad lines.

    Attributes:
        prompts: how many lines it has.
        answers, distractors: the first few different tokens that are scored.
        by_tokens: whether its lines were read with the tokenizer of the model; it may not be at hand.
    """

    name: str
    prompts: int
    answers: tuple[Token, ...] = ()
    distractors: tuple[Token, ...] = ()
    by_tokens: bool = True


def checked_files(spec: Spec, model: str | None = None) -> tuple[CheckedFile, ...]:
    """The prompt files of a spec, read with the tokenizers of its models as far as these are at hand.

    Args:
        model: the model to use instead of the spec's own.

    Raises:
        PromptFileError: a file cannot be read, or has bad lines; those of all files are named.
    """
    from circuitdsl.tasks.from_file import PromptFileError, check_file

    found, wrong = [], []
    for circuit, use, path in _file_tasks(spec):
        file, at_hand = str(use.file), _tokens_at_hand(circuit, use, model)
        try:
            if at_hand is None:
                found.append(CheckedFile(file, check_file(path), by_tokens=False))
            else:
                found.append(CheckedFile(file, *_scored(path, *at_hand)))
        except PromptFileError as error:
            wrong.append(error.message)
    if wrong:
        raise PromptFileError("\n".join(dict.fromkeys(wrong)))
    return tuple(dict.fromkeys(found))


# --- reports and pictures --------------------------------------------------------------------------


def diff(old: str | Path, new: str | Path) -> Diff:
    """What changed between two files of reports: verdicts, and numbers that moved by more than chance.

    Raises:
        UsageError: a file cannot be read, or is no report.
    """
    from circuitdsl.report.diff import compare
    from circuitdsl.report.report import read_reports

    return compare(read_reports(Path(old)), read_reports(Path(new)))


def render(spec: Spec, path: str | Path, report: Report | None = None, circuit: str | None = None) -> None:
    """Draw a circuit into a file (.svg, .png, .dot or .html), coloured by the verdicts of a report if there is one.

    Args:
        circuit: the name of one circuit, where the spec has several.

    Raises:
        UsageError: there is no such circuit, or the suffix says nothing.
        UserError: the file cannot be written.
    """
    from circuitdsl.diagram import render as drawn

    drawn(spec.circuit(circuit), path, report)
