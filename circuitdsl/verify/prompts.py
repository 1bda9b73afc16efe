"""The prompts of a circuit's tasks made for a model, and scored: a bench for each task."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset, PromptPair, sample
from circuitdsl.tasks.from_file import read_prompts
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.bench import bench
from circuitdsl.verify.properties import own_samples, own_use, sample_name
from circuitdsl.verify.store import Store

#: prompts of a generated task that mean ablation averages over, at the least
MEAN_PROMPTS = 2000
#: prompts of each other corruption that are looked at for advice
ADVICE = 4


def make_data(circuit: Circuit, use: TaskUse, model: Transformer, every: bool = False) -> Dataset:
    """A task's prompts for a model.

    Args:
        every: of a prompt file, give also the prompts that repeat a clean prompt.

    Raises:
        UserError: the model has no tokenizer, or the task cannot be made with it.
    """
    tokens = None if model.tokenizer is None else Tokens(model.tokenizer, model.name, use.bos)
    if use.file is not None:
        path = Path(circuit.path).parent / use.file
        return read_prompts(path, tokens, use.name, use.prompts, model.n_vocab, use.seed, every)
    if tokens is None:
        raise UserError(
            f"{model.name} has no tokenizer, and task {use.name} needs one to make its prompts",
            hint="put tokenizer.json beside the weights, or give prompts as token ids in a prompt file",
        )
    return sample(TASKS[use.generator or use.name], tokens, use.prompts, use.seed, use.corrupt, dict(use.options))


def make_bench(
    circuit: Circuit, use: TaskUse, model: Transformer, store: Store | None = None, max_memory: int | None = None
) -> Prompts:
    """A task's prompts for a model, ready to be measured. Numbers that the store knows are not measured again.

    Args:
        max_memory: bytes that measuring may take beside the model; by default what is free decides.

    Raises:
        UserError: the model has no tokenizer, or the task cannot be made with it.
    """
    data = make_data(circuit, use, model)
    count = sys.maxsize if use.file else max(MEAN_PROMPTS, use.prompts)

    def more() -> tuple[PromptPair, ...]:
        """Enough prompts for means that do not depend on how many are measured; the measured ones come first."""
        return make_data(circuit, replace(use, prompts=count), model).pairs

    if use.file:
        return bench(model, data, circuit.metric, more=more, store=store, max_memory=max_memory)
    task = TASKS[use.generator or use.name]
    others = {
        name: make_data(circuit, replace(use, prompts=ADVICE, corrupt=name), model).pairs
        for name in task.corruptions
        if name != data.corrupt
    }
    drawn_by = _source(task.draw)
    words = sorted(Tokens(model.tokenizer, model.name, use.bos).words(task).items())
    more_are = repr((task.name, count, use.seed, data.corrupt, sorted(dict(use.options).items()), words, drawn_by))
    return bench(model, data, circuit.metric, others, more, store, max_memory, more_are if drawn_by else "")


def _source(function: Callable[..., object]) -> str:
    """The text of the module that a function stands in; empty where it cannot be read."""
    try:
        return inspect.getsource(sys.modules[function.__module__])
    except (OSError, TypeError, KeyError):
        return ""


def make_benches(
    circuit: Circuit, model: Transformer, store: Store | None = None, max_memory: int | None = None
) -> dict[str, Prompts]:
    """A bench for every task that some claim of the circuit is checked on, and one for the properties of a task."""
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
