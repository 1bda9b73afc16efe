"""What the answers of a task's prompts are to the model: which tokens, and whether other tokens were probably meant."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from circuitdsl.circuit.claims import TaskUse
from circuitdsl.engine.prompts import Prompts
from circuitdsl.report.numbers import percent, plain
from circuitdsl.tasks.dataset import PromptPair, scored_tokens
from circuitdsl.tasks.registry import SHIPPED
from circuitdsl.tasks.tokens import Token, Tokens
from circuitdsl.verify.cache import Memory

#: prompts whose answers are looked at, and answers of each
SOME, FEW = 64, 4
#: how many times as probable an answer must be with a blank before it
CLEARLY = 2.0


def tokens_of(prompts: Prompts) -> tuple[tuple[Token, ...], tuple[Token, ...]]:
    """The first few different tokens that are scored: answers, distractors."""
    return scored_tokens(prompts.pairs, _tokens(prompts))


def notes_on(prompts: Prompts, use: TaskUse) -> tuple[str, ...]:
    """A warning where answers are written without a blank that they probably begin with.

    The answer of a prompt is compared with the same text after a blank. On average over prompts, in log-probability,
    the blank must make it at least `CLEARLY` as probable, and it must do so on most of the prompts: one odd prompt
    decides nothing. Both tokens follow one prompt, so that their logits tell the ratio. Numbers that are known are not
    measured again. The tasks that ship are not looked at: their answers are known to be right.
    """
    tokens = _tokens(prompts)
    if tokens is None or use.generator in SHIPPED:
        return ()
    looked_at = ((i, _with_blanks(pair, tokens)) for i, pair in enumerate(prompts.pairs[:SOME]))
    found = {i: pair for i, pair in looked_at if pair}
    if not found:
        return ()
    places, pairs = list(found), list(found.values())

    def compute() -> np.ndarray:
        ratios: np.ndarray = prompts.ask("circuitdsl.engine.ends:more_probable", places, pairs)
        return ratios

    known = prompts.cache
    ratios = (
        known.of_answers("clean run: answers with a blank", pairs, compute) if isinstance(known, Memory) else compute()
    )
    typical, share = float(ratios.mean()), float((ratios > 0).mean())
    if typical < math.log(CLEARLY) or share <= 0.5:
        return ()
    times = "more than 1,000" if typical > math.log(1000) else plain(math.exp(typical), 1)
    with_blank, without = (Token(tokens.text_of(ids[0]), ids[0]) for ids in (pairs[0].answers, pairs[0].distractors))
    return (
        f"with a blank before them answers are {times} times as probable ({with_blank} for {without}; more probable on "
        f"{percent(share)} of {len(pairs)} prompts): is the blank missing in the prompt file?",
    )


def _tokens(prompts: Prompts) -> Tokens | None:
    model = prompts.source
    return None if model.tokenizer is None else Tokens(model.tokenizer, model.name)


def _with_blanks(pair: PromptPair, tokens: Tokens) -> PromptPair | None:
    """A pair that scores answers after a blank against its own; None where it has no answer that lacks one."""
    bare = [text for text in pair.answer_texts[:FEW] if not text[0].isspace()] if pair.clean else []
    found = tokens.continuations(pair.clean, [f" {text}" for text in bare])
    other = dict.fromkeys(ids[0] for ids in found if ids and (len(ids) == 1 or pair.first))
    wanted = tuple(token for token in other if token not in pair.answers)
    return replace(pair, answers=wanted, distractors=pair.answers) if wanted else None
