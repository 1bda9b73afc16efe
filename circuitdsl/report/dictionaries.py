"""What a dictionary of features does on a task: how much it explains, and which features tell prompts apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.report.numbers import percent, plain
from circuitdsl.report.shown import Shown

#: below this share of what stands there, a dictionary is warned of (semantics §8)
LOW = 0.5
#: characters that are shown of a prompt
_TEXT = 60


@dataclass(frozen=True, slots=True)
class Example:
    """Where a feature fires strongly: the text before a token, the token, and the activation."""

    before: str
    token: str
    activation: float

    def __str__(self) -> str:
        before = self.before if len(self.before) <= _TEXT else f"…{self.before[-_TEXT:]}"
        return f"{before}[{self.token}]".replace("\n", "↵")


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature on a task's prompts.

    Attributes:
        index: its number in the dictionary.
        fires: the share of clean prompts in which it fires somewhere.
        differs: how far apart clean and corrupt prompts are in what it writes: lengths summed over positions.
        clean, corrupt: its mean activation at each position that has a name.
        examples: the clean prompts in which it fires most.
    """

    index: int
    fires: float
    differs: float
    clean: Mapping[str, float]
    corrupt: Mapping[str, float]
    examples: tuple[Example, ...]

    @property
    def place(self) -> str:
        """The position at which the two sides differ most."""
        return max(self.clean, key=lambda name: abs(self.clean[name] - self.corrupt[name]))


def doubt(name: str, explained: float, of: str) -> str:
    """A warning, where a dictionary explains little of what stands at its place."""
    if explained >= LOW:
        return ""
    return f"{name} explains only {percent(explained)} of {of}: what its features do may say little"


@dataclass(frozen=True, slots=True)
class Described:
    """A dictionary on a task.

    Attributes:
        name, form, kind, encoder: what it is, by whom.
        made_for: the model that its files name.
        reads, writes: hooks, in TransformerLens' names.
        reading: how a hook is read where its name leaves that open; empty where nothing is to be said.
        reconstruction: the share of what stands there that it explains.
        features: how many it has; `firing`: how many of them fire on these prompts.
        fire: features that fire at a position, on average.
        strongest: the features in which clean and corrupt prompts differ most.
    """

    name: str
    form: str
    kind: str
    encoder: str
    made_for: str
    about: Mapping[str, str]
    reads: str
    writes: str
    reading: str
    sha256: str
    reconstruction: float
    features: int
    firing: int
    fire: float
    strongest: tuple[Feature, ...]

    @property
    def doubt(self) -> str:
        """A warning, where it explains little."""
        return doubt("it", self.reconstruction, self.writes)


@dataclass(frozen=True, slots=True)
class Dictionaries(Shown):
    """Dictionaries on the prompts of one task."""

    model: str
    task: str
    prompts: int
    seed: int
    found: tuple[Described, ...]

    def show(self, console: Console) -> None:
        where = f"{self.task} on {self.model}, {self.prompts} prompts of seed {self.seed}"
        for number, one in enumerate(self.found):
            if number:
                console.print()
            made = f", made for {one.made_for}" if one.made_for else ""
            console.print(Text(f"{one.name}: {one.kind} ({one.form}, {one.encoder}{made})", style="bold"))
            reads = one.writes if one.reads == one.writes else f"{one.reads} to {one.writes}"
            console.print(Text(f"  at {reads}{f', {one.reading}' if one.reading else ''}"))
            explains = f"explains {percent(one.reconstruction)}; {one.firing} of {one.features} features fire"
            console.print(Text(f"  {where}: {explains}, {plain(one.fire, 1)} at a position"))
            if one.doubt:
                console.print(Text(f"  warning: {one.doubt}", style="yellow"))
            if one.strongest:
                console.print(self._table(one))

    def _table(self, one: Described) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 2))
        for name in ("feature", "differs by", "fires in", "most at", "clean", "corrupt"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("fires most at", overflow="ellipsis", no_wrap=True)
        for each in one.strongest:
            place = each.place
            sides = (plain(side[place]) for side in (each.clean, each.corrupt))
            shown = Text(str(each.examples[0]) if each.examples else "")
            table.add_row(str(each.index), plain(each.differs), percent(each.fires), place, *sides, shown)
        return table
