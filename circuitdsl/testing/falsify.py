"""Counterexamples: a task's own prompt space is searched for a prompt that breaks a property, and that is shrunk.

A task draws its prompts from a `random.Random`. Hypothesis provides one whose every answer it chooses, so that
templates, names, order and objects are all searched, steered towards prompts that pass by little, and the prompt that
breaks the property is shrunk to the simplest: the first template, the first names. The search is no random sample: it
says nothing about how many prompts break a property.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, find, settings, target
from hypothesis.errors import NoSuchExample
from rich.console import Console
from rich.text import Text

from circuitdsl.api import Spec
from circuitdsl.circuit.claims import Circuit, Claim, TaskUse
from circuitdsl.errors import UsageError, UserError
from circuitdsl.measurements.kind import kind_of
from circuitdsl.measurements.property import Property, property_of
from circuitdsl.models.parts import Transformer
from circuitdsl.report.report import Report
from circuitdsl.report.shown import Shown
from circuitdsl.tasks.dataset import Dataset, PromptPair, encode
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.task import Draft
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.testing.strategies import drafts
from circuitdsl.verify.measure import having
from circuitdsl.verify.prompts import make_data, scored_prompts
from circuitdsl.verify.properties import Counterexample, passes, values_of
from circuitdsl.verify.session import HOW_CLAIMS_ARE_NAMED, Session

#: prompts that a search looks at before it shrinks, where nothing else is said; within `verify`
BUDGET, BRIEF = 1000, 200
#: prompts by which a model is checked before a search
SOME = 32


@dataclass(frozen=True, slots=True)
class Search(Shown):
    """What a search came to: a counterexample, or none in so many prompts."""

    claim: Claim
    task: str
    tried: int
    found: Counterexample | None
    #: of the model, to show tokens
    tokenizer: Any = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The search as plain values; the counterexample as a line of a prompt file, with what was found on it."""
        what = {"line": self.claim.line, "text": self.claim.text, "task": self.task, "tried": self.tried}
        return what | {"found": self.found.record() if self.found else None}

    def show(self, console: Console) -> None:
        head = Text.assemble((f"{self.claim.line:>4}  ", "dim"), self.claim.text, (f"  {self.task}", "cyan"))
        console.print(head)
        if self.found is None:
            console.print(Text(f"      no counterexample in {self.tried} prompts", "green"))
            return
        for line, style in self._found(self.found):
            console.print(Text(f"      {line}", style))
        console.print(Text(f"      the simplest found among {self.tried} prompts", "dim"))
        if self.claim.expected_to_fail is not None:
            console.print(Text(f"      expected to fail: {self.claim.expected_to_fail}", "dim"))
        if kind_of(self.claim).decided_by != "own sample":
            remark = "the claim is about the mean over prompts: one prompt does not refute it"
        elif self.claim.tests:
            remark = "the property allows exceptions: verify tells whether they are too many"
        else:
            return
        console.print(Text(f"      {remark}", "yellow"))

    def _found(self, found: Counterexample) -> Iterator[tuple[str, str]]:
        """The prompt, its figures, its answers, tokens and positions, as lines with their styles."""
        pair, tokenizer = found.pair, self.tokenizer
        if pair.clean:
            yield pair.clean, "bold"
        for line in found.figures():
            yield line, "red" if ", not " in line else ""
        answers = tuple(text.strip() for text in pair.answer_texts) or pair.answers
        distractors = tuple(text.strip() for text in pair.distractor_texts) or pair.distractors
        yield f"answer {' '.join(map(str, answers))}, not {' '.join(map(str, distractors))}", ""
        if tokenizer is None:
            tokens = " ".join(map(str, pair.clean_tokens))
        else:
            words = (tokenizer.decode([token]) for token in pair.clean_tokens)
            tokens = " · ".join(f"{i} {word.strip() or repr(word)}" for i, word in enumerate(words))
        yield f"tokens     {tokens}", "dim"
        places = " · ".join(f"{name} {', '.join(map(str, index))}" for name, index in pair.positions.items())
        yield f"positions  {places}", "dim"


def searchable(claim: Claim) -> Property:
    """What can be broken of a claim by a single prompt.

    Raises:
        UsageError: the claim is not about single prompts.
    """
    found = property_of(claim)
    if found is None:
        raise UsageError(
            f"line {claim.line} is not about single prompts: {claim.text}",
            hint="a property is, and an expectation of behaviour, attention or attribution outside `when`",
        )
    return found


def falsify(
    circuit: Circuit,
    model: Transformer,
    claim: Claim,
    task: str,
    budget: int = BUDGET,
    seed: int = 0,
    max_memory: int | None = None,
    looked: Callable[[int], None] = lambda _: None,
) -> Search:
    """Look for a prompt of a task that breaks a claim.

    Args:
        budget: prompts to look at before what is found is shrunk.
        max_memory: bytes that measuring may take beside the model; by default what is free decides.
        looked: called with the number of prompts looked at so far.

    Raises:
        UsageError: the claim is not about single prompts.
        UserError: the task's prompts cannot be made for the model, or the engine does not compute it rightly.
    """
    wanted = searchable(claim)
    use = next(use for use in circuit.tasks if use.name == task)
    # prompts are refused for a model that is not computed rightly: some before the search, and what it found
    scored_prompts(model, make_data(circuit, replace(use, prompts=SOME), model), circuit.metric, max_memory=max_memory)
    probe = Probe(circuit, replace(model, original=None), wanted, use, max_memory, looked, claim.asks_of)
    found = _in_file(probe, budget) if use.file is not None else _in_space(probe, budget, seed)
    if found is None:
        return Search(claim, task, len(probe.seen), None, model.tokenizer)
    scored_prompts(model, probe.data(found), circuit.metric, max_memory=max_memory)
    values = probe.values(found)
    assert values is not None
    broken = Counterexample(wanted, found, values)
    return Search(claim, task, len(probe.seen), broken, model.tokenizer)


def searches(
    session: Session,
    spec: Spec | str | Path,
    property: str | None = None,
    claim: str | None = None,
    budget: int = BUDGET,
    seed: int = 0,
) -> Iterator[Search]:
    """Search for prompts that break properties, and shrink them: a search for each property and task.

    Args:
        property: the title or the line of one property.
        claim: an expectation that has a value on each prompt, taken prompt by prompt.
        budget: prompts to look at.

    Raises:
        UsageError: there is no such property, or it is not about single prompts.
    """
    every = [(circuit, one) for circuit in session.spec(spec).circuits for one in circuit.claims]
    if claim is not None:
        chosen = [pair for pair in every if pair[1].answers_to(claim)]
        if not chosen:
            raise UsageError(f"there is no claim {claim}", hint=HOW_CLAIMS_ARE_NAMED)
    else:
        properties = [pair for pair in every if pair[1].kind == "property"]
        if not properties:
            hint = "write one (docs/testing.md), or name an expectation of behaviour with --claim LINE"
            raise UsageError("the spec has no property to break", hint=hint)
        title = f'"{property}"'
        chosen = [p for p in properties if property is None or title in p[1].text or p[1].answers_to(property)]
        if not chosen:
            known = "; ".join(f"line {one.line}, {one.text}" for _, one in properties)
            raise UsageError(f"there is no property {title}", hint=f"the spec has: {known}")
    for _, one in chosen:
        searchable(one)

    def search(circuit: Circuit, one: Claim, task: str) -> Search:
        what, model = f"looking for a prompt of {task} that breaks line {one.line}", session.model_of(circuit)
        with session.busy(what) as spinner:

            def looked(prompts: int) -> None:
                if spinner:
                    spinner.update(f"{what}: {prompts} looked at")

            return falsify(circuit, model, one, task, budget, seed, session.memory, looked)

    return (search(circuit, one, task) for circuit, one in chosen for task in one.tasks)


@dataclass
class Probe:
    """Looks at one prompt after the other, each once."""

    circuit: Circuit
    model: Transformer
    wanted: Property
    use: TaskUse
    max_memory: int | None = None
    looked: Callable[[int], None] = lambda _: None
    asks_of: Callable[[str], bool] = lambda _: True
    seen: dict[Hashable, np.ndarray | None] = field(default_factory=dict)

    def values(self, pair: PromptPair) -> np.ndarray | None:
        """What the checks find on a prompt [checks]; None where it lacks a position."""
        if pair.measured not in self.seen:
            self.looked(len(self.seen))
            data = self.data(pair)
            one = scored_prompts(self.model, data, self.circuit.metric, max_memory=self.max_memory)
            here = having(data, self.wanted.requests)
            self.seen[pair.measured] = values_of(one, self.wanted, here)[:, 0] if len(here) else None
        return self.seen[pair.measured]

    def data(self, pair: PromptPair) -> Dataset:
        return Dataset(self.use.name, self.use.corrupt or "", 0, False, (pair,))

    def breaks(self, pair: PromptPair) -> bool:
        values = self.values(pair)
        return values is not None and not bool(passes(self.wanted, values[:, None])[0])

    def room(self, pair: PromptPair) -> float | None:
        """How far the closest check is from failing; what a search makes small."""
        values = self.values(pair)
        if values is None or not np.isfinite(values).all():
            return None
        rooms = []
        for check, found in zip(self.wanted.checks, values, strict=True):
            low, high = check.test.low, check.test.high
            rooms += [] if low is None else [found - low]
            rooms += [] if high is None else [high - found]
        return float(min(rooms, default=0.0))


def _in_space(probe: Probe, budget: int, seed: int) -> PromptPair | None:
    """The simplest prompt of a registered task that breaks the property, among what a search of this size finds."""
    use, model = probe.use, probe.model
    if model.tokenizer is None:
        raise UserError(f"{model.name} has no tokenizer, and task {use.name} needs one to make its prompts")
    task, tokens = TASKS[use.generator or use.name], Tokens(model.tokenizer, model.name, use.bos)

    def broken(draft: Draft) -> bool:
        (pair,) = encode(task, tokens, [draft])
        if not probe.asks_of(pair.stratum):
            return False
        room = probe.room(pair)
        if room is not None:
            target(-room)
        return probe.breaks(pair)

    phases, checks = (Phase.generate, Phase.target, Phase.shrink), list(HealthCheck)
    how = settings(max_examples=budget, database=None, deadline=None, phases=phases, suppress_health_check=checks)
    try:
        space = drafts(task, tokens, use.corrupt, dict(use.options))
        draft = find(space, broken, settings=how, random=random.Random(seed))
    except NoSuchExample:
        return None
    return encode(task, tokens, [draft])[0]


def _in_file(probe: Probe, budget: int) -> PromptPair | None:
    """The shortest prompt of a prompt file that breaks the property."""
    use = replace(probe.use, prompts=budget)
    pairs = make_data(probe.circuit, use, probe.model, every=True).pairs
    broken = [pair for pair in pairs if probe.asks_of(pair.stratum) and probe.breaks(pair)]
    return min(broken, key=lambda pair: len(pair.clean_tokens), default=None)


def with_simplest(report: Report, circuit: Circuit, model: Transformer) -> Report:
    """A report whose failed properties show the simplest counterexample that a short search finds."""
    claims = {claim.id: claim for claim in circuit.claims}
    results = []
    for result in report.claims:
        if result.kind == "property" and result.verdict == "fails" and result.task:
            found = falsify(circuit, model, claims[result.id], result.task, BRIEF).found
            if found is not None:
                notes = *result.notes, f"the simplest found by a search: {found}"
                result = replace(result, notes=notes, counterexample=found.record())
        results.append(result)
    return replace(report, claims=tuple(results))
