"""`circuitdsl.toml`: which specs a `circuitdsl run` verifies, on which models, tasks and seeds."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import pairwise
from pathlib import Path
from typing import Any

from circuitdsl.brief import quoted
from circuitdsl.circuit.paths import prompts_instead
from circuitdsl.errors import SPEC_WRONG, UserError
from circuitdsl.language.diagnostics import did_you_mean, listing, suggest
from circuitdsl.matrix.runs import Problem, Run, problems
from circuitdsl.matrix.storage import is_address
from circuitdsl.ordinary import Unreadable, read_named

#: the file that is read where none is named, and the directory of results where none is
FILE, RESULTS = "circuitdsl.toml", "circuitdsl-results"
#: bytes of such a file, and mistakes that are shown, at the most
BYTES, SHOWN = 10**6, 50
_KEYS = ("run", "results")
_LISTS = {"specs": str, "models": str, "tasks": str, "seeds": int}
_RUN_KEYS = (*_LISTS, "options")
_EXAMPLE = '[[run]] with specs = ["specs/*.circ"] below it'
_IS = {str: "texts", int: "whole numbers"}


class ConfigError(UserError):
    """A configuration with mistakes; the message lists them, each with its line."""

    status = SPEC_WRONG
    keep = "\n"


@dataclass(frozen=True)
class Config:
    """What such a file asks for; `results` is where it keeps what is found."""

    runs: tuple[Run, ...]
    results: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake and its line."""

    line: int
    message: str
    hint: str = ""


def read(path: Path, allow_outside: bool = False) -> Config:
    """The configuration in a file. The paths in it are from the folder that the file lies in.

    Raises:
        ConfigError: it cannot be read, or has mistakes: all of them are listed, each with its line and what to do.
    """
    try:
        content = read_named(path, BYTES)
        if len(content) > BYTES:
            raise Unreadable(f"it has more than {BYTES // 10**6} MB")
        text = content.decode("utf-8")
    except (Unreadable, UnicodeDecodeError) as reason:
        why = reason if isinstance(reason, Unreadable) else "it is not UTF-8"
        raise ConfigError(f"cannot read {quoted(str(path))}: {why}", hint=f"name a file with {_EXAMPLE}") from None
    try:
        given = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}", hint="texts stand in quotes, lists in [ ], a run below [[run]]") from None
    places = _Places(text)
    runs, mistakes = [], list(_of_file(given, places))
    tables = given.get("run")
    for number, table in enumerate(tables if isinstance(tables, list) else ()):
        if not isinstance(table, dict):
            continue  # said of the whole file
        wrong = list(_of_run(table, places, number))
        mistakes += wrong
        if not wrong:
            run = _run(table, path.parent)
            mistakes += _unmatched(table, path.parent, places, number)
            mistakes += (places.of(problem, number) for problem in problems(run, allow_outside))
            runs.append(run)
    if mistakes:
        raise ConfigError(_listed(path, mistakes))
    results = given.get("results", RESULTS)
    return Config(tuple(runs), results if is_address(results) else str(path.parent / results))


def _of_file(given: dict[str, Any], places: _Places) -> Iterator[Mistake]:
    for key in given.keys() - set(_KEYS):
        guess = did_you_mean(suggest(key, (*_KEYS, *_RUN_KEYS)))
        yield Mistake(places.line(key), f"there is no key {quoted(key)} here{guess}", f"write {_EXAMPLE}")
    if not isinstance(given.get("results", ""), str):
        yield Mistake(places.line("results"), "results is the name of a directory, a text")
    tables = given.get("run")
    if not isinstance(tables, list) or not tables or not all(isinstance(each, dict) for each in tables):
        wrong = "run is no list of tables" if "run" in given else "there is no run"
        yield Mistake(places.line("run"), wrong, f"write {_EXAMPLE}")


def _of_run(table: dict[str, Any], places: _Places, number: int) -> Iterator[Mistake]:
    """Mistakes in the keys of a run, and in the types of their values."""
    for key in table.keys() - set(_RUN_KEYS):
        guess = did_you_mean(suggest(key, _RUN_KEYS))
        hint = f"a run has {listing(_RUN_KEYS)}"
        yield Mistake(places.line(key, number), f"there is no key {quoted(key)} of a run{guess}", hint)
    for key, kind in _LISTS.items():
        value = table.get(key, [])
        if not isinstance(value, list) or not all(type(each) is kind for each in value):
            example = '["pocket"]' if kind is str else "[0, 1, 2]"
            yield Mistake(places.line(key, number), f"{key} is a list of {_IS[kind]}", f"such as {key} = {example}")
    if not table.get("specs"):
        yield Mistake(places.line("specs", number), "the run names no specs", 'such as specs = ["specs/*.circ"]')
    if not isinstance(table.get("options", {}), dict):
        hint = "such as options = {prompts = 128}"
        yield Mistake(places.line("options", number), "options is a table", hint)


def _run(table: dict[str, Any], root: Path) -> Run:
    specs = [name for pattern in table["specs"] for name in _matched(pattern, root)]
    return Run(
        tuple(dict.fromkeys(specs)),
        tuple(_from(root, name) for name in table.get("models", ())),
        tuple(_task_from(root, name) for name in table.get("tasks", ())),
        tuple(table.get("seeds", ())),
        table.get("options", {}),
    )


def _matched(pattern: str, root: Path) -> list[str]:
    """The specs that a name or a pattern stands for; a name that is no file here stays as it is."""
    if has_magic(pattern):
        return sorted(str(root / name) for name in glob(pattern, root_dir=root, recursive=True))
    return [_from(root, pattern)]


def _task_from(root: Path, task: str) -> str:
    """A task whose prompt file is named from where we are."""
    named = prompts_instead(task)
    return f"{named[0]}={_from(root, named[1])}" if named else _from(root, task)


def _from(root: Path, name: str) -> str:
    """A path from where we are, where the name is one from a folder; else the name."""
    try:
        path = name.startswith((".", "~")) or (root / name).exists()
    except (OSError, ValueError):  # a name that no file can have
        return name
    return os.path.join(root, name) if path and root != Path() and not name.startswith("~") else name


def _unmatched(table: dict[str, Any], root: Path, places: _Places, number: int) -> Iterator[Mistake]:
    for pattern in table["specs"]:
        if has_magic(pattern) and not _matched(pattern, root):
            where = places.line("specs", number, pattern)
            yield Mistake(where, f"no file matches {quoted(pattern)}", f"patterns are from {root.absolute()}")


def _listed(path: Path, mistakes: Sequence[Mistake]) -> str:
    lines = []
    for each in sorted(mistakes, key=lambda mistake: (mistake.line, mistake.message))[:SHOWN]:
        lines.append(f"{path}:{each.line}: {each.message}")
        if each.hint:
            lines.append(f"  help: {each.hint}")
    if len(mistakes) > SHOWN:
        lines.append(f"and {len(mistakes) - SHOWN} more")
    return "\n".join(lines)


class _Places:
    """Where keys and values stand in a text; `tomllib` does not say."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        headers = [i for i, line in enumerate(self.lines) if re.match(r"\s*\[\[\s*run\s*\]\]", line)]
        self.runs = list(pairwise([*headers, len(self.lines)]))

    def line(self, key: str, run: int | None = None, value: Any = None) -> int:
        """The line of a key, or of a value under it; else that of its run, or the first."""
        start, end = self.runs[run] if run is not None and run < len(self.runs) else (0, len(self.lines))
        known = re.compile(rf"""(^|[\s\[{{,."'])({re.escape(key)})["']?\s*[\].=]""")
        at = next((i for i in range(start, end) if known.search(self.lines[i])), start)
        if value is not None:
            at = next((i for i in range(at, end) if str(value) in self.lines[i]), at)
        return at + 1

    def of(self, problem: Problem, run: int) -> Mistake:
        """A problem of a run with its line."""
        value = problem.value if isinstance(problem.value, str | int) else None
        shown = Path(value).name if isinstance(value, str) and "(" not in value else value
        return Mistake(self.line(problem.key, run, shown), problem.message, problem.hint)
