"""The prompts of a task, looked at before anything is claimed of them: their tokens, and what a model makes of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from circuitdsl.api import circuit_of_task
from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.circuit.shapes import place_of
from circuitdsl.circuit.vocabulary import CHANCE, Metric
from circuitdsl.engine import prompts as engine
from circuitdsl.engine.ends import ends_of, read_ends, whole_vocabulary
from circuitdsl.errors import UsageError
from circuitdsl.models.errors import ModelUnavailable
from circuitdsl.models.load import load_tokenizer, vocabulary_size
from circuitdsl.models.parts import Transformer
from circuitdsl.report.numbers import percent, plain
from circuitdsl.report.prompts import Behaviour, Guess, Pair, Prompts, Side
from circuitdsl.tasks.dataset import Dataset, PromptPair, scored_tokens
from circuitdsl.tasks.records import PromptFileError
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Token, Tokens
from circuitdsl.verdict.families import FAMILY
from circuitdsl.verdict.means import mean
from circuitdsl.verify.answers import notes_on
from circuitdsl.verify.prompts import data_for, make_data, scored_prompts
from circuitdsl.verify.session import Session

#: prompts that are shown; that are made of a generated task; and of a file that are run at most
SHOWN, MADE, MOST = 4, 64, 1024
#: tokens that are shown of what the model predicts
TOP = 5


def prompts(
    session: Session, task: str, n: int = SHOWN, seed: int | None = None, corrupt: str | None = None
) -> Prompts:
    """Prompts of a task on the session's model (by default `pocket`), and how the model does on them.

    Where the model's weights are not at hand, its tokenizer is enough for everything but the predictions.

    Args:
        task: as in a spec (`ioi(order = abba)`, `file("prompts.jsonl")`), or the path of a prompt file.
        n: how many pairs are shown. A generated task is measured on 64 or more, a file on its first 1,024 prompts.
        seed, corrupt: instead of the task's own.

    Raises:
        UsageError: there is no such task, or no such corruption of it.
        UserError: the model or the file cannot be read, or no prompts can be made.
    """
    circuit = circuit_of_task(task)
    use = circuit.tasks[0]
    if corrupt is not None and use.file is not None:
        raise UsageError("a prompt file has corrupt prompts of its own", hint="leave --corrupt out")
    use = replace(
        use,
        prompts=sys.maxsize if use.file else max(MADE, n),
        seed=use.seed if seed is None else seed,
        corrupt=corrupt or use.corrupt,
    )
    try:
        model = session.model_of(circuit)
    except ModelUnavailable as missing:
        alone, name, n_vocab = _tokenizer(session, circuit, use, missing)
        found = _blank(circuit, use, data_for(circuit, use, alone, name, n_vocab), alone, name, n)
        return replace(found, notes=(f"the model was not run: {missing.message}",))
    tokens = None if model.tokenizer is None else Tokens(model.tokenizer, model.name, use.bos, use.chat)
    try:
        whole = make_data(circuit, use, model)
    except PromptFileError as error:
        if session.name is not None:
            raise
        first = "\n".join(error.message.split("\n")[:2])
        raise PromptFileError(
            first, hint=f"no model is named: these are the tokens of {model.name} (--model)"
        ) from None
    found = _blank(circuit, use, whole, tokens, model.name, n)
    return _measured(session, circuit, use, found, replace(whole, pairs=whole.pairs[:MOST]), model, tokens)


def _tokenizer(
    session: Session, circuit: Circuit, use: TaskUse, missing: ModelUnavailable
) -> tuple[Tokens, str, int | None]:
    """The tokenizer of a model whose weights are missing; raises that they are where it is missing too."""
    name, place, revision = place_of(circuit, session.name)
    try:
        return Tokens(load_tokenizer(place, revision), name, use.bos, use.chat), name, vocabulary_size(place, revision)
    except ModelUnavailable:
        raise missing from None


def _blank(circuit: Circuit, use: TaskUse, whole: Dataset, tokens: Tokens | None, name: str, n: int) -> Prompts:
    """What can be known without the model."""
    pairs = whole.pairs[:MOST]
    sizes = Counter(pair.stratum for pair in pairs)
    lengths = Counter(len(pair.clean_tokens) for pair in pairs)
    answers, distractors = scored_tokens(pairs, tokens)
    return Prompts(
        task=use.name,
        about=use.file or TASKS[use.generator or use.name].title,
        model=name,
        corrupt=whole.corrupt,
        seed=whole.seed,
        bos=whole.bos,
        metric=str(circuit.metric),
        all=Behaviour(len(pairs)),
        strata={stratum: Behaviour(sizes[stratum]) for stratum in sorted(sizes)},
        lengths=dict(sorted(lengths.items())),
        answers=answers,
        distractors=distractors,
        pairs=tuple(_pair(pair, tokens) for pair in pairs[:n]),
        available=len(whole.pairs) if use.file else None,
        repeats=whole.repeats,
    )


def _measured(
    session: Session,
    circuit: Circuit,
    use: TaskUse,
    found: Prompts,
    data: Dataset,
    model: Transformer,
    tokens: Tokens | None,
) -> Prompts:
    """The record with what the model predicts, and how it does."""
    scored = scored_prompts(model, data, circuit.metric, store=session.store, max_memory=session.memory)
    right = engine.behaviour(scored, Metric("accuracy"))

    def over(places: np.ndarray) -> Behaviour:
        figures = (float(each[places].mean()) for each in (right, scored.clean, scored.corrupt))
        return Behaviour(int(places.sum()), *figures)

    few = data.pairs[: len(found.pairs)]
    tops = _tops(model, few, tokens, session.memory)
    pairs = tuple(
        replace(
            pair,
            clean=replace(pair.clean, top=top, score=float(scored.clean[i])),
            corrupt=replace(pair.corrupt, top=other, score=float(scored.corrupt[i])),
        )
        for i, (pair, top, other) in enumerate(zip(found.pairs, *tops, strict=True))
    )
    trouble = _trouble(scored, right)
    return replace(
        found,
        pairs=pairs,
        all=over(np.ones(len(data.pairs), bool)),
        strata={stratum: over(scored.strata == stratum) for stratum in found.strata},
        notes=(*([trouble] if trouble else []), *notes_on(scored, use)),
        does_task=not trouble,
    )


def _trouble(scored: engine.Prompts, right: np.ndarray) -> str:
    """In which way the model does not do the task, or is not known to; empty where it does.

    Effects are shares of the gap. Where its 95 % interval includes 0, `verify` decides no claim on effects either.
    """
    gap, n = scored.clean - scored.corrupt, len(scored.clean)
    name, clean, corrupt = scored.source.name, float(scored.clean.mean()), float(scored.corrupt.mean())
    figures = f"{scored.metric} is {plain(clean)} clean and {plain(corrupt)} corrupt"
    if gap.mean() <= 0:
        return f"{name} does not do this task: {figures}, and effects are shares of that gap"
    guessed, hits = float(engine.behaviour(scored, Metric(f"{CHANCE}accuracy")).mean()), float(right.mean())
    if hits <= guessed:
        shares = f"it is right on {percent(hits)} of the prompts, and guesses would be on {percent(guessed)}"
        return f"{name} does not do this task: {shares}"
    if n == 1 or float(mean(gap, scored.strata).above(0.0)) > FAMILY / 2:
        return f"{n} prompt{'s' * (n != 1)} cannot tell whether {name} does this task: {figures}"
    return ""


def _tops(
    model: Transformer, pairs: Sequence[PromptPair], tokens: Tokens | None, memory: int | None
) -> list[list[tuple[Guess, ...]]]:
    """The most probable tokens after each clean prompt, and after each corrupt one."""
    whole, found = whole_vocabulary(model, memory), []
    for ends in ends_of(model, pairs, memory):
        values, ids = read_ends(model, ends, whole).float().softmax(-1).topk(TOP)
        rows = zip(values.tolist(), ids.tolist(), strict=True)
        found.append([tuple(Guess(_token(i, tokens), p) for p, i in zip(*row, strict=True)) for row in rows])
    return found


def _pair(pair: PromptPair, tokens: Tokens | None) -> Pair:
    def listed(ids: Sequence[int]) -> tuple[Token, ...]:
        return tuple(_token(i, tokens) for i in ids)

    return Pair(
        clean=Side(pair.clean, listed(pair.clean_tokens)),
        corrupt=Side(pair.corrupt, listed(pair.corrupt_tokens)),
        positions=dict(pair.positions),
        answers=listed(pair.answers),
        distractors=listed(pair.distractors),
        corrupt_answers=listed(pair.corrupt_answers),
        stratum=pair.stratum,
        line=pair.line,
    )


def _token(token: int, tokens: Tokens | None) -> Token:
    return Token(tokens.text_of(token) if tokens else "", token)
