"""The prompts of a task as a model sees them: their tokens, what the model predicts, and how it does on all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.report.formats import View
from circuitdsl.report.numbers import percent, plain
from circuitdsl.report.shown import Shown
from circuitdsl.report.tables import table_of
from circuitdsl.report.terminal import listed
from circuitdsl.tasks.tokens import Token

#: the widest row of tokens, and how many strata are listed
_WIDTH, _STRATA = 120, 30
_RIGHT, _WRONG, _CHANGED, _PLACE = "bold green", "bold red", "bold magenta", "cyan"


@dataclass(frozen=True, slots=True)
class Guess:
    """A token that a model predicts at END, and its probability."""

    token: Token
    probability: float


@dataclass(frozen=True, slots=True)
class Side:
    """A clean prompt or a corrupt one.

    Attributes:
        text: empty where the prompt is given as token ids.
        top: what the model predicts, the most probable first; empty where it was not run.
        score: the metric, with the clean prompt's answers.
    """

    text: str
    tokens: tuple[Token, ...]
    top: tuple[Guess, ...] = ()
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A clean prompt with its corrupt partner. Positions are indices of tokens, BOS counted."""

    clean: Side
    corrupt: Side
    positions: dict[str, tuple[int, ...]]
    answers: tuple[Token, ...]
    distractors: tuple[Token, ...]
    corrupt_answers: tuple[Token, ...] = ()
    stratum: str = ""
    line: int | None = None

    @property
    def differs(self) -> frozenset[int]:
        """The indices at which the two prompts have different tokens."""
        both = zip(self.clean.tokens, self.corrupt.tokens, strict=True)
        return frozenset(i for i, (a, b) in enumerate(both) if a.id != b.id)

    @property
    def rows(self) -> list[tuple[str, str, list[str]]]:
        """For each index both tokens as they are shown, and the names of the positions that stand there."""
        both = zip(self.clean.tokens, self.corrupt.tokens, strict=True)
        named = [(visible(a), visible(b), list[str]()) for a, b in both]
        for name, indices in self.positions.items():
            for i in indices:
                named[i][2].append(name)
        return named


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a model does on some prompts: means over them; None where it was not run."""

    prompts: int
    accuracy: float | None = None
    clean: float | None = None
    corrupt: float | None = None

    @property
    def gap(self) -> float | None:
        """Clean minus corrupt."""
        return None if self.clean is None or self.corrupt is None else self.clean - self.corrupt


@dataclass(frozen=True, slots=True)
class Prompts(Shown):
    """Prompts of a task on a model.

    Attributes:
        task, about: the task's name, and its title or its file.
        corrupt: which corruption; `file` for a prompt file.
        bos: whether prompts begin with the beginning-of-sequence token. Indices count it.
        available: how many prompts there are to choose from; None where they are generated.
        repeats: lines of a file that are left out, because their clean prompt stands in another.
        all: over all prompts that were looked at; `strata` has the same for each stratum.
        lengths: how many prompts have so many tokens.
        answers, distractors: the first few different tokens that are scored.
        notes: warnings, and why there are no predictions if there are none.
        does_task: whether the model is seen to do the task; None where it was not run. `notes` begin with why not.
        pairs: the first prompts, in the order in which they are measured.
    """

    task: str
    about: str
    model: str
    corrupt: str
    seed: int
    bos: bool
    metric: str
    all: Behaviour
    strata: dict[str, Behaviour]
    lengths: dict[int, int]
    answers: tuple[Token, ...]
    distractors: tuple[Token, ...]
    pairs: tuple[Pair, ...]
    available: int | None = None
    repeats: int = 0
    notes: tuple[str, ...] = ()
    does_task: bool | None = None

    def show(self, console: Console) -> None:
        console.print(Text.assemble((self.task, "bold"), f"  {how(self)}"))
        for number, pair in enumerate(self.pairs, start=1):
            console.print()
            console.print(Text(f"  {heading(pair, number)}", "dim"))
            for line in _pair_lines(pair, self.metric, min(console.width, _WIDTH)):
                console.print(line, soft_wrap=True)
        console.print()
        console.print(Text(summary(self), "bold"))
        console.print(Text(f"  answer tokens {listed(self.answers)} against {listed(self.distractors)}"))
        console.print(Text(f"  {legend(self)}", "dim"))
        if len(self.strata) > 1:
            console.print(_strata(self))
        for note in self.notes:
            console.print(Text(f"warning: {note}", "yellow"))

    def _repr_html_(self) -> str:
        from circuitdsl.report.prompts_html import to_html

        return to_html(self)


def text(found: Prompts, view: View) -> str:
    """The prompts as a screen shows them."""
    return view.text([found.show])


def how(found: Prompts) -> str:
    """`p.jsonl · pocket · seed 0, without BOS`"""
    corrupt = "" if found.corrupt == "file" else f"corrupt = {found.corrupt}, "
    return f"{found.about} · {found.model} · {corrupt}seed {found.seed}, {'with' if found.bos else 'without'} BOS"


def summary(found: Prompts) -> str:
    """`25 prompts: accuracy 100 %, logit_diff 4.47 clean, −6.02 corrupt, gap 10.49`"""
    of = f" of {found.available}" if found.available and found.available > found.all.prompts else ""
    lines = f" ({found.repeats} line{'s' * (found.repeats != 1)} more with the same clean prompts)" * bool(
        found.repeats
    )
    head = f"{found.all.prompts}{of} prompt{'s' * (found.all.prompts != 1)}{lines}"
    all_, gap = found.all, found.all.gap
    if all_.accuracy is None or all_.clean is None or all_.corrupt is None or gap is None:
        return head
    figures = f"{found.metric} {plain(all_.clean)} clean, {plain(all_.corrupt)} corrupt, gap {plain(gap)}"
    return f"{head}: accuracy {percent(all_.accuracy)}, {figures}"


def legend(found: Prompts) -> str:
    """What the indices and signs mean, and how long the prompts are."""
    bos = "; they count BOS, which is token 0" if found.bos else ""
    sizes = ", ".join(f"{tokens} ({n})" for tokens, n in found.lengths.items())
    return f"indices are those that a prompt file may give{bos}; · is a blank; tokens in a prompt: {sizes}"


def visible(token: Token) -> str:
    """A token with signs for its blanks and for what cannot be printed; the id of one without text."""
    signs = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in token.text.replace(" ", "·"))
    return "".join(signs) or str(token.id)


def heading(pair: Pair, number: int) -> str:
    """`prompt 2 · line 17 · ABBA`"""
    line = [] if pair.line is None else [f"line {pair.line}"]
    return " · ".join([f"prompt {number}", *line, *filter(None, [pair.stratum])])


def named(tokens: Iterable[Token]) -> str:
    """Tokens with their ids; the first few of many."""
    given = list(tokens)
    return ", ".join(f"{token} ({token.id})" if token.text else str(token) for token in given[:4]) + ", …" * (
        len(given) > 4
    )


def _pair_lines(pair: Pair, metric: str, width: int) -> Iterator[Text]:
    yield from _grid(pair, width)
    after = f"; after the corrupt prompt {named(pair.corrupt_answers)}" if pair.corrupt_answers else ""
    yield Text.assemble("  answer ", (named(pair.answers), _RIGHT), ", not ", (named(pair.distractors), _WRONG), after)
    for name, side in (("clean", pair.clean), ("corrupt", pair.corrupt)):
        if side.top:
            yield Text.assemble(
                f"  {name:<8} ", *_guesses(pair, side), (f"  {metric} {plain(side.score or 0.0)}", "dim")
            )


def _guesses(pair: Pair, side: Side) -> Iterator[tuple[str, str]]:
    for guess in side.top:
        style = _RIGHT if guess.token in pair.answers else _WRONG if guess.token in pair.distractors else ""
        yield f"{visible(guess.token)} {percent(guess.probability)}   ", style


def _grid(pair: Pair, width: int) -> Iterator[Text]:
    """Index, clean token, corrupt token and positions, one column for each token, as many columns as fit in a line."""
    rows = [(str(i), a, b, *names) for i, (a, b, names) in enumerate(pair.rows)]
    start = 0
    while start < len(rows):
        end, used = start, 11
        while end < len(rows) and (end == start or used + max(map(len, rows[end])) + 1 <= width):
            used += max(map(len, rows[end])) + 1
            end += 1
        yield from _grid_lines(rows, range(start, end), pair.differs)
        start = end


def _grid_lines(rows: list[tuple[str, ...]], shown: range, differs: frozenset[int]) -> Iterator[Text]:
    depth = max(len(rows[i]) for i in shown)
    for level, label in zip(range(depth), ("", "clean", "corrupt", *[""] * depth), strict=False):
        text = Text.assemble((f"  {label:<8}", "dim"))
        for i in shown:
            cell = rows[i][level] if level < len(rows[i]) else ""
            marked = _CHANGED if i in differs and level in (1, 2) else ""
            style = "dim" if level == 0 else _PLACE if level > 2 else marked
            text.append(f" {cell}", style).append(" " * (max(map(len, rows[i])) - len(cell)))
        text.rstrip()
        yield text


def _strata(found: Prompts) -> Table:
    table = table_of("stratum", *strata_columns(found), left=("stratum",))
    for name, row in strata_rows(found):
        table.add_row(name, *row)
    if len(found.strata) > _STRATA:
        table.add_row(f"… and {len(found.strata) - _STRATA} more", style="dim")
    return table


def strata_columns(found: Prompts) -> tuple[str, ...]:
    """The headings of the figures of a stratum."""
    return ("prompts",) if found.all.accuracy is None else ("prompts", "accuracy", "clean", "corrupt")


def strata_rows(found: Prompts) -> Iterator[tuple[str, list[str]]]:
    """The first strata with their figures."""
    for name, each in list(found.strata.items())[:_STRATA]:
        row = [str(each.prompts)]
        if each.accuracy is not None and each.clean is not None and each.corrupt is not None:
            row += [percent(each.accuracy), plain(each.clean), plain(each.corrupt)]
        yield name or "–", row
