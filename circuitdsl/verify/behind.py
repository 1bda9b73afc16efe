"""What is behind the figures of a report, gathered while it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.criteria import NULL_PROMPTS, Matters, Moves, Negligible, Signed, Test, Within
from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.prompts import Prompts
from circuitdsl.report.behind import Behind, ClaimNumbers, Pattern, ShownPrompt
from circuitdsl.report.report import Interval
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verdict.decide import Decision
from circuitdsl.verify.figures import Figures, figures_of
from circuitdsl.verify.samples import Collected

#: of each task, prompts whose attention patterns are kept; numbers in all patterns together, at most
PROMPTS, MOST = 8, 200_000
_ANY = float("inf")


@dataclass
class Gathered:
    """What was kept so far; `record` is called with every claim on every task."""

    command: str = ""
    numbers: list[ClaimNumbers] = field(default_factory=list)

    def record(self, own: Collected, decision: Decision) -> None:
        """Keep the numbers of a claim on a task, where it has a figure."""
        found = figures_of(own, decision)
        if found is None or any(request not in own.series for request in found.part.requests):
            return
        number, claim = own.plan.parts.index(found.part), own.plan.claim
        null = own.nulls[number] if number < len(own.nulls) else np.zeros(0)
        self.numbers.append(
            ClaimNumbers(
                claim.id,
                own.plan.task or None,
                found.unit,
                tuple(own.series[found.part.request].indices.tolist()),
                _rounded(found.values),
                _holds_in(own, decision, found),
                _rounded(null),
                _among_null(own, found) if len(null) else None,
                tuple(str(head) for head in sorted(set(heads_in(claim)))),
            )
        )

    def behind(self, circuit: Circuit, by_task: Mapping[str, Prompts], patterns: bool = True) -> Behind:
        """All of it, with the prompts, and attention patterns on those at the ends of the claims' numbers."""
        used = {each.task for each in self.numbers}
        return Behind(
            datetime.now().astimezone().isoformat(timespec="seconds"),
            self.command,
            {name: tuple(_shown(prompts)) for name, prompts in by_task.items() if name in used},
            tuple(self.numbers),
            tuple(self._patterns(circuit, by_task)) if patterns else (),
        )

    def _patterns(self, circuit: Circuit, by_task: Mapping[str, Prompts]) -> Iterator[Pattern]:
        from circuitdsl.engine.patterns import patterns_on

        room = MOST
        heads = sorted({head for claim in circuit.claims for head in heads_in(claim)})
        for task, prompts in by_task.items():
            wanted = _at_the_ends([each for each in self.numbers if each.task == task])
            for index in wanted:
                length = len(prompts.pairs[index].clean_tokens)
                fit = heads[: room // (length * (length + 1) // 2)]
                room -= len(fit) * length * (length + 1) // 2
                found = patterns_on(prompts.model, prompts.pairs[index].clean_tokens, fit)
                for head, rows in zip(fit, found, strict=True):
                    lines = tuple(tuple(round(x, 3) for x in row[: i + 1]) for i, row in enumerate(rows.tolist()))
                    yield Pattern(task, str(head), index, lines)


def heads_in(record: Any) -> Iterator[Node]:
    """Every whole head that a record names, however deep."""
    if isinstance(record, Node):
        if record.kind == "head":
            yield record.whole
    elif isinstance(record, tuple | list | frozenset):
        for each in record:
            yield from heads_in(each)
    elif is_dataclass(record):
        for each in fields(record):
            yield from heads_in(getattr(record, each.name))


def _at_the_ends(numbers: Sequence[ClaimNumbers]) -> list[int]:
    """The prompts that are the lowest or the highest of the most claims."""
    ends: Counter[int] = Counter()
    for each in numbers:
        if len(set(each.values)) > 1:
            ends.update((each.prompts[int(np.argmin(each.values))], each.prompts[int(np.argmax(each.values))]))
    return sorted(index for index, _ in ends.most_common(PROMPTS))


def _shown(prompts: Prompts) -> Iterator[ShownPrompt]:
    tokenizer, data = prompts.source.tokenizer, prompts.data
    tokens = None if tokenizer is None else Tokens(tokenizer, prompts.source.name, data.bos)
    text = cache(lambda token: tokens.text_of(token) if tokens else f"<{token}>")
    for pair, clean, corrupt in zip(prompts.pairs, prompts.clean, prompts.corrupt, strict=True):
        yield ShownPrompt(
            tuple(map(text, pair.clean_tokens)),
            tuple(map(text, pair.corrupt_tokens)),
            {name: tuple(at) for name, at in pair.positions.items()},
            tuple(map(text, pair.answers)),
            tuple(map(text, pair.distractors)),
            (round(float(clean), 4), round(float(corrupt), 4)),
            pair.stratum,
            pair.line,
        )


def _among_null(own: Collected, found: Figures) -> float:
    """The effect on the prompts of the null."""
    sample = own.sample(found.part)
    first = np.isin(own.series[found.part.request].indices, own.indices[:NULL_PROMPTS])
    return float(f"{np.mean(np.asarray(sample.d)[first]) / np.mean(sample.array('g')[first]):.5g}")


def _holds_in(own: Collected, decision: Decision, found: Figures) -> tuple[Interval, ...]:
    """Where the figure has to lie; empty where no test bounds it."""
    allowed = [(-_ANY, _ANY)]
    for test in own.plan.tests(found.part):
        bounds = _bounds(test, decision.name, own.plan.claim.margin, own.prompts.falls, bool(own.plan.called))
        both = [(max(a, c), min(b, d)) for a, b in allowed for c, d in bounds]
        allowed = [(low, high) for low, high in both if low < high]
    return () if (-_ANY, _ANY) in allowed else tuple(allowed)


def _bounds(test: Test, name: str, margin: float, falls: bool, called: bool) -> tuple[Interval, ...]:
    """Where a figure of that name passes a test."""
    below, above = (-_ANY, -margin), (margin, _ANY)
    match test:
        case Within(quantity=quantity, low=low, high=high) if called or quantity in (name, "value"):
            return ((-_ANY if low is None else low, _ANY if high is None else high),)
        case Negligible() if name == "effect":
            return ((-margin, margin),)
        case Signed(direction=direction) if name == "effect":
            return (above if (direction == "raises") != falls else below,)
        case Matters() if name == "effect":
            return below, above
        case Moves(direction=direction, by=by):
            return ((by, _ANY) if direction == "rises" else (-_ANY, -by),)
    return ((-_ANY, _ANY),)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.5g}") for value in values.tolist())
