"""The prompts of a circuit's tasks, made for a model, run once and scored.

Before anything is measured, the engine's logits of some prompts are compared with those of the model as its library
runs it. A model is checked when it is loaded, on random tokens (`agreement.check_sum`). The numbers are about a task's
own prompts, the longest among them: these decide.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from circuitdsl.circuit.claims import Circuit, Claim, TaskUse
from circuitdsl.circuit.features import reopen
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.away import Recipe
from circuitdsl.engine.prompts import SIDES, Means, Prompts, scores_of
from circuitdsl.engine.random_tokens import SEQUENCES, sequence
from circuitdsl.engine.tally import Tally
from circuitdsl.errors import UserError
from circuitdsl.measurements.kept import Kept
from circuitdsl.measurements.plan import RANDOM
from circuitdsl.measurements.requests import kept_for
from circuitdsl.models.errors import ModelUnavailable, UnsupportedModel
from circuitdsl.models.model import Model, as_model
from circuitdsl.ordinary import Unreadable, opened
from circuitdsl.tasks.dataset import Corrupt, Dataset, PromptPair, corrupt_prompts, sample
from circuitdsl.tasks.from_file import read_prompts
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.cache import Memory, memory
from circuitdsl.verify.plan import plan, shape_of
from circuitdsl.verify.properties import OWN_SEED, own_samples, sample_name
from circuitdsl.verify.store import Store

if TYPE_CHECKING:
    from circuitdsl.engine.ends import Ends
    from circuitdsl.engine.runs import Runs
    from circuitdsl.models.parts import Transformer

#: prompts of a generated task that mean ablation averages over, at the least
MEAN_PROMPTS = 2000
#: prompts of each other corruption that are looked at for advice
ADVICE = 4
#: prompts of each length whose logits are compared with the library's, and tokens of them and of their partners: of
#: longer prompts it is one
FEW, TOKENS = 2, 512


def make_data(circuit: Circuit, use: TaskUse, model: Model | Transformer, every: bool = False) -> Dataset:
    """A task's prompts for a model.

    Args:
        every: of a prompt file, give also the prompts that repeat a clean prompt.

    Raises:
        UserError: the model has no tokenizer, or the task cannot be made with it.
    """
    tokens = None if model.tokenizer is None else Tokens(model.tokenizer, model.name, use.bos, use.chat)
    return data_for(circuit, use, tokens, model.name, model.n_vocab, every)


def data_for(
    circuit: Circuit, use: TaskUse, tokens: Tokens | None, name: str, n_vocab: int | None, every: bool = False
) -> Dataset:
    """A task's prompts for the tokenizer of a model of that name; raises what `make_data` raises."""
    if use.file is not None:
        path = Path(circuit.path).parent / use.file
        return read_prompts(path, tokens, use.name, use.prompts, n_vocab, use.seed, every)
    if tokens is None:
        raise UserError(
            f"{name} has no tokenizer, and task {use.name} needs one to make its prompts",
            hint="put tokenizer.json beside the weights, or give prompts as token ids in a prompt file",
        )
    return sample(TASKS[use.generator or use.name], tokens, use.prompts, use.seed, use.corrupt, dict(use.options))


def make_prompts(
    circuit: Circuit,
    use: TaskUse,
    model: Model | Transformer,
    store: Store | None = None,
    max_memory: int | None = None,
    reads: Callable[[], Kept] | None = None,
    keeps: bool = True,
) -> Prompts:
    """A task's prompts for a model, ready to be measured. Numbers that the store knows are not measured again.

    Args:
        max_memory: bytes that measuring may take beside the model; by default what is free decides.
        reads: says what will be read of the runs.
        keeps: whether runs are kept, as far as there is room.

    Raises:
        UserError: the model has no tokenizer, or the task cannot be made with it.
    """
    reopen(circuit.dictionaries)
    data = make_data(circuit, use, model)
    more, more_are = means_over(circuit, use, model, data)
    corruptions = () if use.file else TASKS[use.generator or use.name].corruptions

    @cache
    def few(corrupt: str) -> tuple[PromptPair, ...]:
        return make_data(circuit, replace(use, prompts=ADVICE, corrupt=corrupt), model).pairs

    others = {name: partial(few, name) for name in corruptions if name != data.corrupt}
    recipe = Recipe(circuit, "another" if reads is None else "task", use, keeps)
    return scored_prompts(model, data, circuit.metric, others, more, store, max_memory, more_are, reads, recipe)


def means_over(
    circuit: Circuit, use: TaskUse, model: Model | Transformer, data: Dataset
) -> tuple[Callable[[], Means], str]:
    """What makes the prompts that means are taken over, and a text that tells which these are.

    They do not depend on how many are measured; the measured ones come first. The text is empty where none tells.
    """
    if use.file:
        every = replace(use, prompts=sys.maxsize)
        return lambda: make_data(circuit, every, model).pairs, ""
    task, count = TASKS[use.generator or use.name], max(MEAN_PROMPTS, use.prompts)
    tokens = Tokens(model.tokenizer, model.name, use.bos, use.chat)

    def more() -> tuple[Corrupt, ...]:
        return corrupt_prompts(task, tokens, count, use.seed, use.corrupt, dict(use.options))

    try:
        drawn_by = inspect.getsource(sys.modules[task.draw.__module__])
    except (OSError, TypeError, KeyError):  # it cannot be read
        return more, ""
    words = sorted(tokens.words(task).items())
    return more, repr((task.name, count, use.seed, data.corrupt, sorted(dict(use.options).items()), words, drawn_by))


#: prompts that are kept between runs, by the circuit and the name of the task, with what they depend on
Keep = dict[tuple[str, str, str], tuple[tuple[object, ...], Prompts]]


def prompts_by_task(
    circuit: Circuit,
    model: Model | Transformer,
    store: Store | None = None,
    max_memory: int | None = None,
    keep: Keep | None = None,
    claims: Sequence[Claim] | None = None,
) -> dict[str, Prompts]:
    """The prompts of every task that some claim is checked on, and those for the properties of a task.

    Args:
        claims: those that are to be checked; by default all of the circuit.
        keep: prompts of earlier runs, which are taken where nothing has changed; what is made is kept there.
    """
    model = as_model(model)
    uses = {use.name: use for use in tasks_in_use(circuit, claims)}
    needed = own_samples(circuit, claims)
    # other prompts than those that means are taken over, and enough of them
    own = {
        sample_name(use.name): replace(use, prompts=needed[use.name], seed=use.seed + OWN_SEED)
        for use in circuit.tasks
        if use.name in needed
    }

    found: dict[str, Prompts] = {}

    def made(name: str, use: TaskUse) -> Prompts:
        keeps = not found  # memory is for the runs of one task, the first that is measured
        if name in uses:
            reads = partial(reads_of, circuit, model, name, claims)
            return make_prompts(circuit, use, model, store, max_memory, reads, keeps)
        return _for_properties(circuit, use, model, store, max_memory, keeps)

    for name, use in (uses | own).items():
        file = b"" if keep is None else _file_digest(circuit, use)
        place, what = (circuit.path, circuit.name, name), (model.digest, use, circuit.metric, file)
        known = (keep or {}).get(place)
        if known and known[0] == what:
            if found:
                known[1].kept.clear()  # it may have been the first
            found[name] = _again(known[1])
        else:
            found[name] = made(name, use)
        if keep is not None:
            keep[place] = what, found[name]
    return found


def _of_what(model: Model, data: Dataset, recipe: Recipe) -> bytes:
    """A hash of a model, of prompts, and of the file from which those come that means are taken over."""
    file = _file_digest(recipe.circuit, recipe.use) if recipe.circuit and recipe.use and recipe.use.file else b""
    return hashlib.sha256(model.digest + file + repr(data.pairs).encode()).digest()


def made_by(recipe: Recipe, model: Model, max_memory: int | None = None) -> Prompts:
    """The prompts of a recipe, ready to be measured here; nothing is known of them from earlier.

    Raises:
        ModelUnavailable: the prompts, or the model, are others here than where the recipe is from.
    """
    made = _made_by(recipe, model, max_memory)
    if recipe.sha256 and made.recipe and made.recipe.sha256 != recipe.sha256:
        raise ModelUnavailable(
            "a worker has other prompts or another model than the run that it measures for", "run again"
        )
    return made


def _made_by(recipe: Recipe, model: Model, max_memory: int | None) -> Prompts:
    circuit, use = recipe.circuit, recipe.use
    if recipe.of == "random":
        return random_prompts(model, max_memory)
    assert circuit is not None and use is not None
    if recipe.of == "properties":
        return _for_properties(circuit, use, model, None, max_memory, recipe.keeps)
    reads = partial(reads_of, circuit, model, use.name, None) if recipe.of == "task" else None
    return make_prompts(circuit, use, model, None, max_memory, reads, recipe.keeps)


def _for_properties(
    circuit: Circuit, use: TaskUse, model: Model | Transformer, store: Store | None, max_memory: int | None, keeps: bool
) -> Prompts:
    data, recipe = make_data(circuit, use, model), Recipe(circuit, "properties", use, keeps)
    return scored_prompts(model, data, circuit.metric, store=store, max_memory=max_memory, recipe=recipe)


def reads_of(circuit: Circuit, model: Model | Transformer, task: str, claims: Sequence[Claim] | None) -> Kept:
    """What the claims on a task, all of them or these, read of the runs of its prompts."""
    wanted = {claim.id for claim in (circuit.claims if claims is None else claims)}
    plans = [p for p in plan(circuit, shape_of(model)) if p.task == task and p.claim.id in wanted]
    return kept_for((request for each in plans for request in (*each.asked, *each.null_requests)), model.n_layers)


def _again(prompts: Prompts) -> Prompts:
    """The same prompts for another run, which counts its work anew."""
    known = prompts.cache
    return replace(prompts, tally=Tally(), cache=known.again() if isinstance(known, Memory) else known)


def _file_digest(circuit: Circuit, use: TaskUse) -> bytes:
    """A hash of a task's prompt file; empty where there is none that can be read."""
    try:
        with opened(Path(circuit.path).parent / (use.file or "")) as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except (Unreadable, OSError):
        return b""


def tasks_in_use(circuit: Circuit, claims: Sequence[Claim] | None = None) -> tuple[TaskUse, ...]:
    """The tasks on which some claim, of the circuit or of these, is checked."""
    wanted = {name for claim in (circuit.claims if claims is None else claims) for name in claim.tasks}
    return tuple(use for use in circuit.tasks if use.name in wanted)


# --- prompts made ready ---------------------------------------------------------------------------


def scored_prompts(
    model: Model | Transformer,
    data: Dataset,
    metric: Metric,
    others: Mapping[str, Callable[[], tuple[PromptPair, ...]]] | None = None,
    more: Callable[[], Means] | None = None,
    store: Store | None = None,
    max_memory: int | None = None,
    more_are: str = "",
    reads: Callable[[], Kept] | None = None,
    recipe: Recipe | None = None,
) -> Prompts:
    """Run all prompts once and score them, unless a store knows their scores. Some are compared with the model's own.

    Args:
        more_are: what says which prompts `more` makes, where these are the first of them.
        reads: says what will be read of the runs.
        recipe: how they are made elsewhere, and whether runs are kept here.

    Raises:
        UserError: the metric cannot be taken on this task, a prompt does not fit the model or is the same as its
            partner, the model gives no finite numbers on it, the memory allowed is too little for a single one, or the
            engine's logits are not those of the model as its library runs it, or too coarse to tell the prompts apart.
    """
    for i, pair in enumerate(data.pairs):
        if pair.clean_tokens == pair.corrupt_tokens:
            raise UserError(
                f"prompt {i + 1} ({pair.clean!r}) is the same as its corrupt partner, so that no patch could change it"
            )
    source = as_model(model)
    kept: list[tuple[list[int], Runs]] = []
    keeps = recipe is None or recipe.keeps

    @cache
    def ends() -> Ends:
        from circuitdsl.engine.ends import ends_of
        from circuitdsl.engine.memory import refuse_too_little

        refuse_too_little(source.parts, max((len(pair.clean_tokens) for pair in data.pairs), default=1), max_memory)
        return ends_of(source.parts, data.pairs, max_memory, kept if keeps else None, reads)

    reference = cache(more) if more else lambda: data.pairs
    known = memory(store, source, data.pairs, metric, reference, more_are) if store else None
    nothing = np.zeros(len(data.pairs))
    made = Prompts(source, data, metric, nothing, nothing, ends, others or {}, reference, max_memory)
    if recipe is not None:
        recipe = replace(recipe, sha256=_of_what(source, data, recipe))
    made = replace(made, cache=known, kept=kept, recipe=recipe)
    check_agreement(made)
    if source.dtype != "float32" and not source.away:
        import_module("circuitdsl.engine.ends").check_rounding(made)
    clean, corrupt = (scores_of(made, metric, side) for side in SIDES)
    return replace(made, clean=clean, corrupt=corrupt)


def random_prompts(model: Model | Transformer, max_memory: int | None = None, store: Store | None = None) -> Prompts:
    """Repeated random tokens, for what needs no task: nothing is scored on them.

    Args:
        store: has numbers that are known from earlier.

    Raises:
        UserError: the memory allowed is too little for a single sequence, or the engine's logits are not those of the
            model as its library runs it.
    """
    source = as_model(model)
    bos = source.tokenizer is not None and Tokens(source.tokenizer, source.name).adds_bos
    rows = [tuple(sequence(source, 0, i, bos)) for i in range(SEQUENCES)]
    if max_memory is not None and not source.away:
        import_module("circuitdsl.engine.memory").refuse_too_little(source.parts, len(rows[0]), max_memory)
    pairs = tuple(PromptPair(row, row, (), (), {}, "") for row in rows)

    def made(some: tuple[PromptPair, ...]) -> Prompts:
        def ends() -> Ends:
            found: Ends = import_module("circuitdsl.engine.ends").ends_of(source.parts, some, max_memory)
            return found

        known = memory(store, source, some, Metric(), lambda: some) if store else None
        nothing, data = np.zeros(len(some)), Dataset(RANDOM, "", 0, bos, some, available=len(some))
        made = Prompts(source, data, Metric(), nothing, nothing, ends, max_memory=max_memory, cache=known)
        return replace(made, recipe=Recipe(None, "random"))

    check_agreement(made(pairs[:FEW]))
    return made(pairs)


def smallest_mean(prompts: Prompts) -> int:
    """Prompts behind the mean of the smallest stratum of one length, among the lengths of these prompts."""
    lengths = {len(pair.corrupt_tokens) for pair in prompts.pairs}

    def counted() -> int:
        sizes = Counter((n, p.stratum) for p in prompts.reference if (n := len(p.corrupt_tokens)) in lengths)
        return min(sizes.values())

    what, known = f"smallest mean of {sorted(lengths)}", prompts.cache
    return prompts.once(what, lambda: int(known.of_means(what, counted)) if isinstance(known, Memory) else counted())


def check_agreement(prompts: Prompts) -> None:
    """Compare the logits at END of a few prompts of each length, and of their partners, with the model's own.

    Where the model is away, those who hold it do so, for the prompts that they make.

    Raises:
        UnsupportedModel: they differ by more than rounding does.
        OutOfMemory: memory ran out on a single prompt.
    """
    source, pairs, groups = prompts.source, prompts.pairs, list[list[int]]()
    if source.library is None or source.away:
        return
    lengths = np.asarray([len(pair.clean_tokens) for pair in pairs])
    for length in np.unique(lengths):  # the first prompts of each length
        few = min(FEW, max(1, TOKENS // (len(SIDES) * max(1, int(length)))))
        groups.append(np.flatnonzero(lengths == length)[:few].tolist())
    places = [i for group in groups for i in group]

    def compute() -> np.ndarray:
        found: np.ndarray = import_module("circuitdsl.engine.ends").off_of_library(prompts, groups)
        return found

    known, checked = prompts.cache, [pairs[i] for i in places]
    off = known.of_model(source.library, checked, compute) if isinstance(known, Memory) else compute()
    for i in np.flatnonzero(off != 0)[:1]:
        pair = pairs[places[i]]
        raise UnsupportedModel(
            f"the engine does not compute what transformers computes with {source.name}: on prompt {places[i] + 1} "
            f"({pair.clean!r}) or its partner, logits at END are off by {off[i]:.1e} of the largest, so no number "
            "would be true of the model",
            "measure another model, and report this one with its config.json",
        )
