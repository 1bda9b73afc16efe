"""A run: specs, models, tasks, seeds and options as the user asks for them, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from circuitdsl.api import Spec, find_spec
from circuitdsl.circuit.shapes import shape_of
from circuitdsl.errors import UserError
from circuitdsl.language.diagnostics import did_you_mean, listing, suggest
from circuitdsl.limits import prompts_of, seed_of
from circuitdsl.matrix.asking import as_written, can_be_asked, prompt_files_of


@dataclass(frozen=True)
class Run:
    """What is verified: each spec on each model, each task and each seed.

    Attributes:
        specs: names of specs.
        models: names and directories; none for those that the specs name.
        tasks: as in a spec, prompt files, or names of the specs' own tasks; none for all of the specs' own.
        seeds: none for those of the specs.
        options: how to verify, by the names of `OPTIONS`.
    """

    specs: tuple[str, ...]
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a run: with its value under a key."""

    key: str
    value: Any
    message: str
    hint: str = ""


#: a spec that says nothing
NOTHING = Spec("", "", (), ())


def _one_of(*words: str) -> Callable[[Any], str]:
    return lambda given: "" if given in words else f"is one of {', '.join(words)}"


def _yes_or_no(given: Any) -> str:
    return "" if isinstance(given, bool) else "is true or false"


def _level(given: Any) -> str:
    right = isinstance(given, float) and 0 < given < 1
    return "" if right else "is a level between 0 and 1, such as 0.05"


def _limit(check: Callable[[Any], object], given: Any) -> str:
    try:
        check(given)
    except UserError as error:  # prompts = 0 is not a whole number from …
        return f"is {error.message.partition(' is not ')[2]}"
    return ""


#: the options of a run; each function says what a value is, where the given one is not
OPTIONS: Mapping[str, Callable[[Any], str]] = {
    "prompts": partial(_limit, prompts_of),
    "early_stop": _yes_or_no,
    "each_at": _level,
    "generalise": _one_of("prompts", "templates"),
    "other_corruptions": _yes_or_no,
    "full": _yes_or_no,
    "dtype": _one_of("float32", "bfloat16", "float16"),
    "device": _one_of("auto", "cpu", "cuda"),
    "device_map": _one_of("balanced", "auto"),
}
#: those of them that belong to a session, and not to a verification
OF_SESSION = ("device", "dtype", "device_map")


def problems(run: Run, allow_outside: bool = False) -> Iterator[Problem]:
    """What is wrong with a run. What a spec says wrong is found when it is planned."""
    specs = []
    for name in run.specs:
        try:
            find_spec(name)
            specs.append(as_written(name, allow_outside))
        except UserError as error:
            yield Problem("specs", name, error.message, error.hint or "")
    for model in run.models:
        if wrong := shape_of(model)[1]:
            yield Problem("models", model, wrong, "name a model's directory, or a model on the Hugging Face hub")
    for task in run.tasks:
        may_be_own = len(specs) < len(run.specs) and re.fullmatch(r"[a-z]\w*", task)
        if not may_be_own and not any(can_be_asked(spec, task) for spec in specs or (NOTHING,)):
            own = sorted({use.name for spec in specs for circuit in spec.circuits for use in circuit.tasks})
            hint = "write it as in a spec: ioi, ioi(corrupt = flip); or name a prompt file, or a task of the specs"
            yield Problem("tasks", task, f"there is no task '{task}'{did_you_mean(suggest(task, own))}", hint)
        for file in prompt_files_of(task).values() or [task] * (Path(task).suffix in (".jsonl", ".csv")):
            if not Path(file).is_file():
                yield Problem("tasks", task, f"there is no prompt file {file}", "its path is one from where you are")
    for seed in run.seeds:
        if wrong := _limit(seed_of, seed):
            yield Problem("seeds", seed, f"a seed {wrong}, not {seed!r}")
    for name, value in run.options.items():
        if name not in OPTIONS:
            guess = did_you_mean(suggest(name, OPTIONS))
            yield Problem(name, value, f"there is no option {name}{guess}", f"options are {listing(OPTIONS)}")
        elif wrong := OPTIONS[name](value):
            yield Problem(name, value, f"{name} {wrong}, not {value!r}")
