"""From runs to cells: every spec is read once, and the files of every model are hashed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path

from circuitdsl.api import Spec, SpecError, load
from circuitdsl.circuit.paths import real
from circuitdsl.circuit.shapes import place_of
from circuitdsl.errors import UsageError, UserError
from circuitdsl.language.diagnostics import render_foremost
from circuitdsl.matrix.asking import as_written, other_task, prompt_files_of
from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.runs import OF_SESSION, Run, problems
from circuitdsl.ordinary import Unreadable, opened


@dataclass
class _Read:
    """What was read for a plan."""

    allow_outside: bool
    hashed: bool
    specs: dict[str, Spec] = field(default_factory=dict)
    texts: dict[tuple[str, str], str] = field(default_factory=dict)
    models: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def spec(self, name: str) -> Spec:
        if name not in self.specs:
            self.specs[name] = as_written(name, self.allow_outside)
        return self.specs[name]

    def text_hash(self, name: str, task: str) -> str:
        if (name, task) not in self.texts:
            self.texts[name, task] = hash_of(self.spec(name), task)
        return self.texts[name, task]

    def model(self, spec: Spec | None, name: str) -> str:
        """A hash of the files of a model, or of those that a spec names; empty where one cannot be read."""
        places = {place_of(circuit, None)[1:] for circuit in spec.circuits} if spec else {(name, None)}
        found = [self._hash(*place) for place in sorted(places, key=str)]
        return found[0] if len(found) == 1 else sha256(" ".join(found).encode()).hexdigest() if all(found) else ""

    def _hash(self, place: str, revision: str | None) -> str:
        if (place, revision) not in self.models:
            self.models[place, revision] = model_hash(place, revision) if self.hashed else ""
        return self.models[place, revision]


def plan(runs: Iterable[Run], allow_outside: bool = False, hashed: bool = True) -> tuple[Cell, ...]:
    """The cells of some runs, each once; those of one model stand together, so that it is loaded once.

    Args:
        allow_outside: specs are trusted to name files and models outside their folders.
        hashed: hash the files of models; what is planned and not run needs no hashes.

    Raises:
        SpecError: a spec has errors; those of all specs are listed.
        UserError: a run has mistakes, or a spec names a model outside its folder.
    """
    reading, runs = _Read(allow_outside, hashed), tuple(runs)
    wrong = [problem for run in runs for problem in problems(run, allow_outside)]
    if wrong:
        lines = [
            each for problem in wrong for each in (problem.message, f"  help: {problem.hint}" * bool(problem.hint))
        ]
        raise ManyProblems("\n".join(line for line in lines if line))
    _refuse_specs(reading, runs)
    cells = {cell.key: cell for run in runs for cell in _cells(reading, run)}
    order = {key: number for number, key in enumerate(dict.fromkeys(map(session_of, cells.values())))}
    return tuple(sorted(cells.values(), key=lambda cell: order[session_of(cell)]))


class ManyProblems(UsageError):
    """What is wrong with a run, a line for each."""

    keep = "\n"


def session_of(cell: Cell) -> tuple[object, ...]:
    """What a session is for: cells of which this is equal share one, with its models."""
    return cell.instead, *(cell.options.get(name) for name in OF_SESSION)


def _cells(reading: _Read, run: Run) -> Iterator[Cell]:
    options = dict(run.options)
    for name in run.specs:
        own = None if run.models else load(name, allow_outside=reading.allow_outside)
        for model in run.models or ((_own(own, reading.allow_outside),) if own else ()):
            files = reading.model(own, model)
            for task in run.tasks or ("",):
                text = reading.text_hash(name, task)
                for seed in run.seeds or (None,):
                    yield Cell(name, model, own is not None, task, seed, options, text, files)


def _own(spec: Spec, allow_outside: bool) -> str:
    """The names of the models that a spec names itself.

    Raises:
        UserError: it names none, or a directory outside its own folder.
    """
    found = dict[str, None]()
    for circuit in spec.circuits:
        name, place, _ = place_of(circuit, None)
        found[name] = None
        path = Path(place).expanduser()
        inside = real(path).is_relative_to(real(Path(spec.path).parent))
        if not allow_outside and not inside and (path.is_dir() or place.startswith((".", "/", "~"))):
            raise UserError(
                f"{spec.path} names the model {name}, which lies outside its folder",
                hint="name it with --model, or with models in the configuration; or trust specs with --allow-outside",
            )
    return ", ".join(found)


def _refuse_specs(reading: _Read, runs: Sequence[Run]) -> None:
    """Raise `SpecError` where specs have errors of their own; those of all of them are listed."""
    wrong = []
    own = {name for run in runs if not run.models for name in run.specs}
    for name in dict.fromkeys(name for run in runs for name in run.specs):
        spec = reading.spec(name)
        if spec.ok and name in own:
            spec = load(name, allow_outside=reading.allow_outside)
        if not spec.ok:
            wrong.append(render_foremost(spec.diagnostics, spec.text, spec.path))
        elif not any(circuit.claims for circuit in spec.circuits):
            wrong.append(f"{spec.path} makes no claim that can be measured")
    if wrong:
        raise SpecError("\n\n".join(wrong))


def hash_of(spec: Spec, task: str = "") -> str:
    """A hash of a spec, of the files that it uses and of its prompt files, or of the one of another task."""
    files = {Path(spec.path).parent / use.file for circuit in spec.circuits for use in circuit.tasks if use.file}
    other = other_task(task).use if task else None
    named = [*prompt_files_of(task).values(), *([other.file] if other and other.file else [])]
    files |= set(map(Path, named))
    made = sha256(" ".join(sorted({circuit.sha256 for circuit in spec.circuits})).encode())
    for file in sorted(files):
        try:
            with opened(file) as stream:
                made.update(file_digest(stream, "sha256").digest())
        except (Unreadable, OSError):
            made.update(b"not there")
    return made.hexdigest()


def model_hash(place: str, revision: str | None) -> str:
    """A hash of a model's files; empty where they cannot be read: the cells of such a model say why."""
    from circuitdsl.models.files import files_of
    from circuitdsl.models.load import locate

    try:
        return combined(files_of(locate(place, revision)).hashes.values())
    except UserError:
        return ""


def combined(hashes: Iterable[str]) -> str:
    """One hash of several; they are those that a report has of its model."""
    return sha256(" ".join(hashes).encode()).hexdigest()
