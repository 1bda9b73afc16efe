"""A counterexample on the screen: the prompt with its positions marked, its numbers, its tokens."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from circuitdsl.measurements.kind import kind_of
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.testing.falsify import Counterexample, Search
from circuitdsl.verify.properties import figures


def show_search(search: Search, tokenizer: Any, console: Console) -> None:
    """Print what a search came to."""
    head = Text.assemble((f"{search.claim.line:>4}  ", "dim"), search.claim.text, (f"  {search.task}", "cyan"))
    console.print(head)
    if search.found is None:
        console.print(Text(f"      no counterexample in {search.tried} prompts", "green"))
        return
    _counterexample(search.found, tokenizer, console)
    console.print(Text(f"      the simplest found among {search.tried} prompts", "dim"))
    if kind_of(search.claim).decided_by != "own sample":
        console.print(Text("      the claim is about the mean over prompts: one prompt does not refute it", "yellow"))
    elif search.claim.tests:
        console.print(Text("      the property allows exceptions: verify tells whether they are too many", "yellow"))


def _counterexample(found: Counterexample, tokenizer: Any, console: Console) -> None:
    pair = found.pair
    if pair.clean:
        console.print(Text(f"      {pair.clean}", "bold"))
    for line in figures(found.property, found.values):
        console.print(Text(f"      {line}", "red" if ", not " in line else ""))
    answers, distractors = (" ".join(map(str, side)) for side in (_answers(pair), _distractors(pair)))
    console.print(Text(f"      answer {answers}, not {distractors}"))
    console.print(Text(f"      tokens     {_numbered(pair, tokenizer)}", "dim"))
    console.print(Text(f"      positions  {_positions(pair)}", "dim"))


def _answers(pair: PromptPair) -> tuple[object, ...]:
    return tuple(text.strip() for text in pair.answer_texts) or pair.answers


def _distractors(pair: PromptPair) -> tuple[object, ...]:
    return tuple(text.strip() for text in pair.distractor_texts) or pair.distractors


def _numbered(pair: PromptPair, tokenizer: Any) -> str:
    """`0 When · 1 Mary · 2 and`"""
    if tokenizer is None:
        return " ".join(map(str, pair.clean_tokens))
    words = (tokenizer.decode([token]).strip() or repr(tokenizer.decode([token])) for token in pair.clean_tokens)
    return " · ".join(f"{i} {word}" for i, word in enumerate(words))


def _positions(pair: PromptPair) -> str:
    """`IO 1 · S1 3`"""
    return " · ".join(f"{name} {', '.join(map(str, index))}" for name, index in pair.positions.items())
