"""A task: a distribution over prompt pairs, written once for every tokenizer.

A task's `draw` is a pure function from a random generator and word lists to a `Draft` (texts with marked parts).
`dataset.py` turns drafts into token ids. As `draw` takes any `random.Random`, it serves both seeded sampling and
Hypothesis, which shrinks randomness.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from circuitdsl.errors import UsageError, UserError
from circuitdsl.tasks.template import Marked


class TaskError(UserError):
    """A task cannot be used with a model: it has too few usable words, or pairs that do not align."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One prompt pair as text, before any tokenizer.

    `answers` and `distractors` continue the clean prompt (`" Mary"`); `corrupt_answers` continue the corrupt one, and
    are empty where it asks for nothing. The `marks` of both texts have the names of the task's positions.
    """

    clean: Marked
    corrupt: Marked
    answers: tuple[str, ...]
    distractors: tuple[str, ...]
    stratum: str
    corrupt_answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WordList:
    """Candidate words. Only those are used that are one token after the text `before` and `glue`.

    With `cut`, a word must be two tokens instead, and the first of them must be its first `cut` characters.
    """

    words: tuple[str, ...]
    before: str = "the"
    glue: str = " "
    cut: int | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a task: its default, the values that it takes, and what it does (`says`)."""

    default: str | int
    values: tuple[str | int, ...]
    says: str


Words = Mapping[str, tuple[str, ...]]
Options = Mapping[str, str | int]


@dataclass(frozen=True)
class Task:
    """A registered task. The first of `corruptions` is the default."""

    name: str
    title: str
    source: str
    positions: Mapping[str, str]
    corruptions: Mapping[str, str]
    lists: Mapping[str, WordList]
    needs: Mapping[str, int]
    draw: Callable[[random.Random, Words, str, Options], Draft]
    options: Mapping[str, Option] = field(default_factory=dict)
    #: for a position that consists of several marks, or of marks of other names: these marks
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: positions in their order in the prompt: each strictly before all of the next (END is always last)
    order: tuple[tuple[str, ...], ...] = ()
    #: leaves out usable words that lack a partner in the same list or another
    narrow: Callable[[Words], Words] = field(default=lambda words: words)
    #: all strata that `draw` can give with these words and options; each gets equally many prompts. Without this field
    #: the shares of strata are random, and intervals do not count that
    strata: Callable[[Words, Options], tuple[str, ...]] = field(default=lambda words, options: ())
    #: what the task's paper measures
    metric: str = "logit_diff"
    #: text before an answer, for finding the token that the answer is
    answer_after: str = "to"

    def before(self) -> dict[str, frozenset[str]]:
        """For a position, the positions that come strictly before it in every prompt."""
        found = {"END": frozenset(self.positions) - {"END"}}
        for i, names in enumerate(self.order):
            found |= {name: frozenset(n for earlier in self.order[:i] for n in earlier) for name in names}
        return {name: names for name, names in found.items() if names}

    def marks_of(self, position: str) -> tuple[str, ...]:
        """The template marks of a position."""
        return self.aliases.get(position, (position,))

    def settings(self, given: Options) -> dict[str, str | int]:
        """The options as given, completed with defaults; unknown names or values raise `UsageError`."""
        for name, value in given.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise UsageError(f"task {self.name} has no option '{name}' (it has: {known})")
            if value not in self.options[name].values:
                allowed = ", ".join(map(str, self.options[name].values))
                raise UsageError(f"option {name} of task {self.name} cannot be {value} (it can be {allowed})")
        return {name: option.default for name, option in self.options.items()} | dict(given)

    def corruption(self, name: str | None) -> str:
        """The corruption of that name, or the default; an unknown one raises `UsageError`."""
        if name is None:
            return next(iter(self.corruptions))
        if name not in self.corruptions:
            raise UsageError(f"task {self.name} has no corruption '{name}' (it has {', '.join(self.corruptions)})")
        return name
