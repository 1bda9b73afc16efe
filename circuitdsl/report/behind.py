"""What is behind the figures of a report: prompts, the numbers on each, nulls, attention patterns. Kept when asked."""

from __future__ import annotations

from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ShownPrompt:
    """A prompt with its corrupt partner.

    Attributes:
        tokens, corrupt: the texts of their tokens, with the blanks that these begin with.
        positions: indices of tokens by the name of a position, BOS counted.
        answers, distractors: the tokens that are scored.
        scores: the metric of the clean prompt, and of the corrupt one.
        line: of a prompt file.
    """

    tokens: tuple[str, ...]
    corrupt: tuple[str, ...]
    positions: dict[str, tuple[int, ...]]
    answers: tuple[str, ...]
    distractors: tuple[str, ...]
    scores: Interval
    stratum: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class ClaimNumbers:
    """The numbers behind the figure of one claim on one task.

    Attributes:
        claim: its id.
        unit: as in `Measured`.
        prompts: indices of the task's prompts (without a task: of random sequences), one for each of the `values`.
        values: prompt by prompt; the figure is their mean.
        holds_in: where the figure has to lie, each side by side with the other; empty where the claim sets no bounds.
        null: the effects of random counterparts on the first prompts, as shares of the gap; `among_null` is the
            effect of the claim on the same prompts.
        heads: those that it is about.
    """

    claim: str
    task: str | None
    unit: str
    prompts: tuple[int, ...]
    values: tuple[float, ...]
    holds_in: tuple[Interval, ...] = ()
    null: tuple[float, ...] = ()
    among_null: float | None = None
    heads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pattern:
    """The attention pattern of a head on a prompt in the clean run: for each position, the shares of those up to it."""

    task: str
    head: str
    prompt: int
    rows: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Behind:
    """What a page shows beyond the report itself.

    Attributes:
        time: when it was made, as ISO 8601 writes it.
        command: the command line that made it, where there was one.
        prompts: of each task, by its name.
    """

    time: str
    command: str
    prompts: dict[str, tuple[ShownPrompt, ...]]
    numbers: tuple[ClaimNumbers, ...]
    patterns: tuple[Pattern, ...] = ()
