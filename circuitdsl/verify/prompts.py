"""The prompts of a circuit's tasks, made for a model, run once and scored.

Before anything is measured, the engine's logits of some prompts are compared with those of the model as its library
runs it. A model is checked when it is loaded, on random tokens (`load.check_sum`). The numbers are about a task's own
prompts, the longest among them: these decide.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.circuit.vocabulary import METRICS, Metric
from circuitdsl.engine.experiment import Readout
from circuitdsl.engine.memory import out_of_memory, ran_out, refuse_too_little, vocabulary_rows
from circuitdsl.engine.metrics import Scorer, scorer
from circuitdsl.engine.prompts import SIDES, Prompts, ends_of, read_ends, score_of, tokens_of
from circuitdsl.engine.readers.head_score import SEQUENCES, sequence
from circuitdsl.engine.runs import Runs
from circuitdsl.errors import UserError
from circuitdsl.models.errors import UnsupportedModel
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset, PromptPair, sample
from circuitdsl.tasks.from_file import read_prompts
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.cache import Memory, memory
from circuitdsl.verify.properties import OWN_SEED, own_samples, sample_name
from circuitdsl.verify.store import Store

#: prompts of a generated task that mean ablation averages over, at the least
MEAN_PROMPTS = 2000
#: prompts of each other corruption that are looked at for advice
ADVICE = 4
#: prompts of each length whose logits are compared with the library's, and tokens that it runs at once
FEW, TOKENS = 2, 512
#: prompts that tell how much prompts differ
SPREAD = 64


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


def make_prompts(
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
        return scored_prompts(model, data, circuit.metric, more=more, store=store, max_memory=max_memory)
    task = TASKS[use.generator or use.name]
    others = {
        name: make_data(circuit, replace(use, prompts=ADVICE, corrupt=name), model).pairs
        for name in task.corruptions
        if name != data.corrupt
    }
    try:
        drawn_by = inspect.getsource(sys.modules[task.draw.__module__])
    except (OSError, TypeError, KeyError):  # it cannot be read
        drawn_by = ""
    words = sorted(Tokens(model.tokenizer, model.name, use.bos).words(task).items())
    more_are = repr((task.name, count, use.seed, data.corrupt, sorted(dict(use.options).items()), words, drawn_by))
    return scored_prompts(model, data, circuit.metric, others, more, store, max_memory, more_are if drawn_by else "")


def prompts_by_task(
    circuit: Circuit, model: Transformer, store: Store | None = None, max_memory: int | None = None
) -> dict[str, Prompts]:
    """The prompts of every task that some claim is checked on, and those for the properties of a task."""
    found = {use.name: make_prompts(circuit, use, model, store, max_memory) for use in tasks_in_use(circuit)}
    needed = own_samples(circuit)
    for use in circuit.tasks:
        if use.name in needed:
            # other prompts than those that means are taken over, and enough of them
            own = replace(use, prompts=needed[use.name], seed=use.seed + OWN_SEED)
            data = make_data(circuit, own, model)
            scored = scored_prompts(model, data, circuit.metric, store=store, max_memory=max_memory)
            found[sample_name(use.name)] = scored
    for prompts in list(found.values())[1:]:  # memory is for the runs of one task, the first that is measured
        prompts.kept.clear()
    return found


def tasks_in_use(circuit: Circuit) -> tuple[TaskUse, ...]:
    """The tasks on which some claim is checked."""
    wanted = {name for claim in circuit.claims for name in claim.tasks}
    return tuple(use for use in circuit.tasks if use.name in wanted)


# --- prompts made ready ---------------------------------------------------------------------------


def scored_prompts(
    model: Transformer,
    data: Dataset,
    metric: Metric,
    others: Mapping[str, tuple[PromptPair, ...]] | None = None,
    more: Callable[[], Sequence[PromptPair]] | None = None,
    store: Store | None = None,
    max_memory: int | None = None,
    more_are: str = "",
) -> Prompts:
    """Run all prompts once and score them, unless a store knows their scores. Some are compared with the model's own.

    Args:
        more_are: what says which prompts `more` makes, where these are the first of them.

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
    refuse_too_little(model, max((len(pair.clean_tokens) for pair in data.pairs), default=1), max_memory)
    kept: list[tuple[list[int], Runs]] = []
    ends = cache(lambda: ends_of(model, data.pairs, max_memory, kept))
    at_once = vocabulary_rows(model, max_memory)
    whole = Readout(reduce=lambda rows, _: rows, at_once=at_once)
    logits = None if METRICS[metric.name].behaviour else read_ends(model, ends()[0], whole)
    score = scorer(metric, data.pairs, logits)
    reference = cache(more) if more else lambda: data.pairs
    known = memory(store, model, data.pairs, metric, reference, more_are) if store else None

    def logits_of(side: str, at: Sequence[int]) -> Tensor:
        return read_ends(model, ends()[SIDES.index(side)][at], whole)

    def scores(side: str) -> np.ndarray:
        def compute() -> np.ndarray:
            return score_of(model, ends()[SIDES.index(side)], score, at_once)

        return known.scores(side, metric, compute) if known else compute()

    check_agreement(model, data.pairs, logits_of, known)
    check_rounding(model, data.pairs, logits_of)
    clean, corrupt = map(scores, SIDES)
    made = partial(Prompts, model, data, metric, score, clean, corrupt, ends, others or {}, reference, max_memory)
    return made(cache=known, kept=kept)


def random_prompts(model: Transformer, max_memory: int | None = None, known: Memory | None = None) -> Prompts:
    """Repeated random tokens, for what needs no task: nothing is scored on them.

    Args:
        known: what a store knows of another task on the model.

    Raises:
        UserError: the memory allowed is too little for a single sequence, or the engine's logits are not those of the
            model as its library runs it.
    """
    bos = model.tokenizer is not None and Tokens(model.tokenizer, model.name).adds_bos
    rows = [tuple(sequence(model, 0, i, bos)) for i in range(SEQUENCES)]
    refuse_too_little(model, len(rows[0]), max_memory)
    data = Dataset("", "", 0, bos, tuple(PromptPair(row, row, (), (), {}, "") for row in rows), available=len(rows))
    few = cache(lambda: ends_of(model, data.pairs[:FEW], max_memory)[0])
    whole = Readout(reduce=lambda rows, _: rows, at_once=vocabulary_rows(model, max_memory))
    check_agreement(model, data.pairs[:FEW], lambda _, at: read_ends(model, few()[at], whole), known)
    nothing = np.zeros(SEQUENCES)
    ends = torch.empty(2, 0, model.d_model)
    score = Scorer(None, lambda logits, _: logits[:, 0])
    return Prompts(model, data, Metric(), score, nothing, nothing, lambda: (ends[0], ends[1]), max_memory=max_memory)


def smallest_mean(prompts: Prompts) -> int:
    """Prompts behind the mean of the smallest stratum of one length, among the lengths of these prompts."""
    lengths = {len(pair.corrupt_tokens) for pair in prompts.pairs}

    def counted() -> int:
        sizes = Counter((n, p.stratum) for p in prompts.reference if (n := len(p.corrupt_tokens)) in lengths)
        return min(sizes.values())

    what, known = f"smallest mean of {sorted(lengths)}", prompts.cache
    return prompts.once(what, lambda: int(known.of_means(what, counted)) if isinstance(known, Memory) else counted())


# --- agreement with the model as its library runs it ------------------------------------------------


def check_agreement(
    model: Transformer,
    pairs: Sequence[PromptPair],
    logits: Callable[[str, Sequence[int]], Tensor],
    known: Memory | None = None,
) -> None:
    """Compare the logits at END of a few prompts of each length, and of their partners, with the model's own.

    Args:
        logits: gives the engine's [n, vocab], of one side of the prompts at some places.
        known: what a store knows; what is found is kept there.

    Raises:
        UnsupportedModel: they differ by more than rounding does.
        OutOfMemory: memory ran out on a single prompt.
    """
    original, groups = model.original, list[list[int]]()
    if original is None:
        return
    lengths = np.asarray([len(pair.clean_tokens) for pair in pairs])
    for length in np.unique(lengths):  # the first prompts of each length, no more together than run at once
        few = np.flatnonzero(lengths == length)[:FEW].tolist()
        size = max(1, TOKENS // (len(SIDES) * max(1, int(length))))
        groups += [few[start : start + size] for start in range(0, len(few), size)]
    places = [i for group in groups for i in group]

    def off_of(group: list[int]) -> np.ndarray:
        """How far logits of prompts of one length, or those of their partners, are from the model's own."""
        ours = torch.cat([logits(side, group) for side in SIDES])
        tokens = torch.cat([tokens_of([pairs[i] for i in group], f"{side}_tokens") for side in SIDES])
        try:
            found = original.off(ours[:, None], tokens.to(original.module.device))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise ran_out(f"running the prompt {pairs[group[0]].clean!r}") from None
        return found.view(len(SIDES), -1).amax(0).double().cpu().numpy()

    def compute() -> np.ndarray:
        return np.concatenate([off_of(group) for group in groups])

    off = known.of_model(original.digest, [pairs[i] for i in places], compute) if known else compute()
    for i in np.flatnonzero(off != 0)[:1]:
        pair = pairs[places[i]]
        raise UnsupportedModel(
            f"the engine does not compute what transformers computes with {model.name}: on prompt {places[i] + 1} "
            f"({pair.clean!r}) or its partner, logits at END are off by {off[i]:.1e} of the largest, so no number "
            "would be true of the model",
            "measure another model, and report this one with its config.json",
        )


def check_rounding(
    model: Transformer, pairs: Sequence[PromptPair], logits: Callable[[str, Sequence[int]], Tensor]
) -> None:
    """In half precision, prompts must differ by more than one step of the number format at the size of the logits.

    Rounding averages out over prompts that differ. Where they do not, every prompt is rounded alike, and an effect may
    be off by a whole step on all of them, with no spread to show it.

    Raises:
        UserError: they do not.
    """
    if model.dtype == torch.float32:
        return
    few = range(min(len(pairs), SPREAD))
    rows = logits("clean", few)
    answers = (rows - rows.mean(-1, keepdim=True))[few, [pairs[i].answers[0] for i in few]]
    largest = float(rows.abs().max())
    step = torch.finfo(model.dtype).eps * largest
    if len(few) > 1 and float(answers.std()) < step:
        name = str(model.dtype).removeprefix("torch.")
        raise UserError(
            f"logits at END are as large as {largest:.0f}, where {name} has steps of {step:.2g}, and these prompts "
            "differ by less: what is rounded alike on all of them does not average out",
            hint="use --dtype float32",
        )
