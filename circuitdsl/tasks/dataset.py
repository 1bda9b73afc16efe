"""From a task and a tokenizer to aligned prompt pairs; the engine sees nothing else of a task."""

from __future__ import annotations

import hashlib
import json
import random
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import NamedTuple

from circuitdsl.tasks.task import Draft, Options, Task, TaskError
from circuitdsl.tasks.template import Marked
from circuitdsl.tasks.tokens import Encoded, Token, Tokens

#: so many different answers of a task are named, and so many distractors
DIFFERENT = 8


@dataclass(frozen=True, slots=True)
class PromptPair:
    """A clean prompt and its aligned corrupt partner, as token ids.

    Attributes:
        answers, distractors, corrupt_answers: token ids that are scored at END.
        positions: token indices by name; they are the same in both prompts.
        line: the line of the prompt file that the pair comes from.
        first: whether answers and distractors of several tokens count by their first one.
    """

    clean_tokens: tuple[int, ...]
    corrupt_tokens: tuple[int, ...]
    answers: tuple[int, ...]
    distractors: tuple[int, ...]
    positions: Mapping[str, tuple[int, ...]]
    stratum: str
    corrupt_answers: tuple[int, ...] = ()
    clean: str = ""
    corrupt: str = ""
    answer_texts: tuple[str, ...] = ()
    distractor_texts: tuple[str, ...] = ()
    corrupt_answer_texts: tuple[str, ...] = ()
    line: int | None = field(default=None, compare=False)
    first: bool = False

    @property
    def scored(self) -> tuple[tuple[int, ...], ...]:
        """The token ids that metrics read."""
        return self.answers, self.distractors, self.corrupt_answers

    @property
    def measured(self) -> Hashable:
        """All that a measurement of the pair can depend on."""
        return self.clean_tokens, self.corrupt_tokens, self.scored, tuple(sorted(self.positions.items()))

    def record(self) -> dict[str, object]:
        """The pair as one line of a prompt file, with the token ids of its prompts, and texts where it has them."""
        asked = self.corrupt_answer_texts or self.corrupt_answers
        return {
            "clean": self.clean,
            "corrupt": self.corrupt,
            "answer": _one(self.answer_texts or self.answers),
            "distractor": _one(self.distractor_texts or self.distractors),
            **({"corrupt_answer": _one(asked)} if asked else {}),
            **({"answer_tokens": "first"} if self.first else {}),
            "positions": {name: _one(index) for name, index in self.positions.items()},
            "stratum": self.stratum,
            "clean_tokens": list(self.clean_tokens),
            "corrupt_tokens": list(self.corrupt_tokens),
        }


@dataclass(frozen=True, slots=True)
class Dataset:
    """Prompt pairs of one task, and where they come from.

    Attributes:
        repeats: the number of pairs of a prompt file that are left out, because other pairs have their clean prompts.
        available: how many pairs there are to take these from; None where any number can be drawn.
        chat: the SHA-256 of the chat template that wrote the prompts; empty where none did.
    """

    task: str
    corrupt: str
    seed: int
    bos: bool
    pairs: tuple[PromptPair, ...]
    repeats: int = 0
    available: int | None = None
    chat: str = ""

    @property
    def from_file(self) -> bool:
        """Whether the pairs are those of a prompt file, which have one partner each."""
        return self.corrupt == "file"

    @property
    def sha256(self) -> str:
        """Hash of all pairs in order: texts, positions, and the token ids of prompts and answers."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            digest.update(json.dumps([pair.record(), pair.scored], sort_keys=True).encode())
        return digest.hexdigest()


def scored_tokens(pairs: Iterable[PromptPair], tokens: Tokens | None) -> tuple[tuple[Token, ...], tuple[Token, ...]]:
    """The first few different tokens that are scored in some pairs: answers, distractors."""
    answers: dict[int, None] = {}
    distractors: dict[int, None] = {}
    for pair in pairs:
        for ids, more in ((answers, pair.answers), (distractors, pair.distractors)):
            if len(ids) < DIFFERENT:
                ids.update(dict.fromkeys(more))

    def first(ids: Iterable[int]) -> tuple[Token, ...]:
        return tuple(Token(tokens.text_of(i) if tokens else "", i) for i in islice(ids, DIFFERENT))

    return first(answers), first(distractors)


def sample(
    task: Task,
    tokens: Tokens,
    n: int,
    seed: int = 0,
    corrupt: str | None = None,
    options: Options | None = None,
) -> Dataset:
    """Draw `n` prompt pairs, equally many of each stratum. The first k pairs are the same for every n.

    Raises:
        UsageError: unknown corruption or option.
        TaskError: too few usable words in a list, or a pair that does not align.
    """
    corruption, drafts = _drafts(task, tokens, seed, corrupt, options)
    return Dataset(task.name, corruption, seed, tokens.adds_bos, encode(task, tokens, islice(drafts, n)))


class Corrupt(NamedTuple):
    """What means are taken over: a corrupt prompt alone."""

    corrupt_tokens: tuple[int, ...]
    stratum: str


def corrupt_prompts(
    task: Task, tokens: Tokens, n: int, seed: int = 0, corrupt: str | None = None, options: Options | None = None
) -> tuple[Corrupt, ...]:
    """The corrupt prompts of the pairs that `sample` draws."""
    drafts = list(islice(_drafts(task, tokens, seed, corrupt, options)[1], n))
    encoded = tokens.encode([draft.corrupt.text for draft in drafts])
    return tuple(Corrupt(each.ids, draft.stratum) for each, draft in zip(encoded, drafts, strict=True))


def _drafts(
    task: Task, tokens: Tokens, seed: int, corrupt: str | None, options: Options | None
) -> tuple[str, Iterator[Draft]]:
    """The corruption, and drafts of prompt pairs without end."""
    corruption = task.corruption(corrupt)
    settings = task.settings(options or {})
    words = tokens.words(task)
    rng = random.Random(f"{task.name}/{seed}")
    drawn = (task.draw(rng, words, corruption, settings) for _ in count())
    return corruption, dealt(drawn, task.strata(words, settings), random.Random(f"{task.name}/{seed}/deal"))


def dealt(drafts: Iterator[Draft], strata: Sequence[str], rng: random.Random) -> Iterator[Draft]:
    """Drafts in rounds: each round has one draft of every stratum, in random order.

    This gives strata fixed shares. Intervals count only the spread within strata; with random shares they would be
    too narrow.
    """
    waiting: dict[str, deque[Draft]] = {stratum: deque() for stratum in strata}
    while waiting:
        for stratum in rng.sample(strata, len(strata)):
            while not waiting[stratum]:
                drawn = next(drafts)
                waiting[drawn.stratum].append(drawn)
            yield waiting[stratum].popleft()
    yield from drafts


def encode(task: Task, tokens: Tokens, drafts: Iterable[Draft]) -> tuple[PromptPair, ...]:
    """Turn drafts into token ids; raises `TaskError` for a pair whose sides do not align."""
    drafts = list(drafts)
    clean = tokens.encode([d.clean.text for d in drafts])
    corrupt = tokens.encode([d.corrupt.text for d in drafts])
    return tuple(_pair(task, tokens, d, a, b) for d, a, b in zip(drafts, clean, corrupt, strict=True))


def _pair(task: Task, tokens: Tokens, draft: Draft, clean: Encoded, corrupt: Encoded) -> PromptPair:
    for text, side in ((draft.clean.text, clean), (draft.corrupt.text, corrupt)):
        if (word := tokens.unknown(text, side)) is not None:
            raise TaskError(f"task {task.name}: the tokenizer of {tokens.name} does not know {word!r} in {text!r}")
    positions, others = _positions(task, draft.clean, clean), _positions(task, draft.corrupt, corrupt)
    if len(clean.ids) != len(corrupt.ids) or positions != others:
        raise TaskError(
            f"task {task.name}: the two prompts of a pair do not align under the tokenizer of {tokens.name}: "
            f"{draft.clean.text!r} and {draft.corrupt.text!r}"
        )

    def ids(texts: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(_answer(task, tokens, text) for text in texts))

    answers, distractors = ids(draft.answers), ids(draft.distractors)
    if set(answers) & set(distractors):
        raise TaskError(f"task {task.name}: answer and distractor of {draft.clean.text!r} are the same token")
    return PromptPair(
        clean_tokens=clean.ids,
        corrupt_tokens=corrupt.ids,
        answers=answers,
        distractors=distractors,
        corrupt_answers=ids(draft.corrupt_answers),
        positions=positions,
        stratum=draft.stratum,
        clean=draft.clean.text,
        corrupt=draft.corrupt.text,
        answer_texts=draft.answers,
        distractor_texts=draft.distractors,
        corrupt_answer_texts=draft.corrupt_answers,
    )


def _answer(task: Task, tokens: Tokens, text: str) -> int:
    """The token of an answer; raises `TaskError` where it is not one."""
    found = tokens.continuation(task.answer_after, text)
    if len(found) == 1:
        return found[0]
    split = " + ".join(repr(tokens.text_of(token)) for token in found) or "none of its own"
    raise TaskError(
        f"task {task.name}: the answer {text!r} is not one token after {task.answer_after!r} under the tokenizer of "
        f"{tokens.name}, but {split}",
        hint="words of a task's lists are left out where they are not one token (WordList)",
    )


def _positions(task: Task, text: Marked, encoded: Encoded) -> dict[str, tuple[int, ...]]:
    """Token indices of the task's positions; names that this prompt lacks are left out."""
    found: dict[str, tuple[int, ...]] = {}
    for name in task.positions:
        spans = [span for mark in task.marks_of(name) for span in text.marks.get(mark, ())]
        if spans:
            found[name] = tuple(sorted(encoded.token_before(end) for _, end in spans))
    return found | {"END": (len(encoded.ids) - 1,)}


def _one(values: tuple) -> object:
    return values[0] if len(values) == 1 else list(values)
