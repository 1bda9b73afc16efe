"""The names that may be written in a spec: those of its groups, tasks and roles, of its model, and of the language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

from circuitdsl.api import CATALOGUE
from circuitdsl.circuit.paths import leaves
from circuitdsl.circuit.shapes import MODELS
from circuitdsl.circuit.vocabulary import FILE_OPTIONS, METRICS, ROLES, TASK_OPTIONS, behaviours
from circuitdsl.dictionaries import shipped
from circuitdsl.language import syntax as s
from circuitdsl.language.layout import row_of
from circuitdsl.language.parse import read_source
from circuitdsl.lsp.document import Document
from circuitdsl.lsp.pieces import Piece
from circuitdsl.lsp.words import ALL_SAYS, KEYWORD_SAYS, LAYER_SAYS, measurement_says, metric_says
from circuitdsl.measurements import KINDS

Defined = TypeVar("Defined", s.Direction, s.Dictionary)
Sort = Literal[
    "keyword", "group", "node", "position", "task", "role", "measurement", "metric", "option", "value", "file"
]

#: more heads than this are offered layer by layer, once a layer and a dot are typed
_MANY_HEADS = 400
_FILES = 500


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that may be written.

    Attributes:
        text: what is put in the place of the `start`-th to the last character before the cursor.
        says: what it means, in a sentence.
    """

    text: str
    sort: Sort
    start: int
    says: str = ""


@dataclass(frozen=True)
class Place:
    """Where something is to be written: the pieces of its statement so far, and what is allowed next."""

    document: Document
    row: int
    pieces: list[Piece]
    allowed: frozenset[str]
    prefix: str
    indented: bool

    @cached_property
    def kinds(self) -> list[str]:
        return [piece.kind for piece in self.pieces]

    @property
    def first(self) -> str:
        return self.kinds[0] if self.pieces else ""

    @property
    def before(self) -> str:
        return self.kinds[-1] if self.pieces else ""

    @cached_property
    def open(self) -> int | None:
        """Which token opens the innermost bracket that is open."""
        found: list[int] = []
        for i, kind in enumerate(self.kinds):
            if kind in ("LPAR", "LSQB"):
                found.append(i)
            elif kind in ("RPAR", "RSQB") and found:
                found.pop()
        return found[-1] if found else None

    @cached_property
    def headers(self) -> tuple[s.Statement, ...]:
        """The headers of the blocks in which a line stands that begins below the last statement above."""
        above = [line for line in self.document.lines if line.statement.span.line < self.row]
        if not above or not self.indented:
            return ()
        last = above[-1]
        return (*last.headers, *([last.statement] if isinstance(last.statement, s.Block) else []))

    @property
    def owner(self) -> str:
        """The word before the open bracket: a measurement, a task or a metric."""
        return self.pieces[self.open - 1].text if self.open else ""


# --- names that the spec has ----------------------------------------------------------------------


def groups(place: Place) -> Iterator[Offer]:
    if any(isinstance(header, s.Role) for header in place.headers):
        yield Offer("self", "node", 0, KEYWORD_SAYS["self"])
    for name, group in place.document.groups_at(place.row).items():
        if group.span.line != place.row:
            places = f" {group.at[0]}" if group.at else ""
            yield Offer(name, "group", 0, f"{group.kind}: {group.members}{places}")


def nodes(place: Place) -> Iterator[Offer]:
    yield Offer("all", "node", 0, ALL_SAYS)
    if place.first != "MLPS":
        if place.first not in ("HEADS", "CHANNEL", "TRACE"):
            yield from (Offer(word, "node", 0, KEYWORD_SAYS[word]) for word in ("embed", "logits"))
        yield from heads(place)
    model = place.document.model_at(place.row)
    if model and place.first not in ("HEADS", "CHANNEL", "TRACE"):
        says = f"an MLP of {model.title}"
        yield from (Offer(f"m{layer}", "node", 0, says) for layer in range(model.n_layers))
        if place.first != "MLPS":
            says = "the residual stream as it enters that layer; the last one enters the final norm"
            yield from (Offer(f"resid{layer}", "node", 0, says) for layer in range(model.n_layers + 1))


def directions(place: Place) -> Iterator[Offer]:
    """What may stand in the brackets behind a node: directions; behind a dictionary, what its features leave."""
    if place.kinds[-2] == "NAME":
        yield Offer("error", "node", 0, "what the features of the dictionary leave")
        return
    for each in _defined(place, s.Direction):
        yield Offer(each.name.text, "node", 0, row_of(each).text)


def dictionaries(place: Place) -> Iterator[Offer]:
    yield from (Offer(each.name.text, "node", 0, row_of(each).text) for each in _defined(place, s.Dictionary))


def _defined(place: Place, kind: type[Defined]) -> Iterator[Defined]:
    """The lines of a kind."""
    return (line.statement for line in place.document.lines if isinstance(line.statement, kind))


def heads(place: Place, layer: int | None = None) -> Iterator[Offer]:
    """The heads that the model has, of one layer or of all."""
    model = place.document.model_at(place.row)
    if model is None or (layer is None and model.n_layers * model.n_heads > _MANY_HEADS):
        return
    for i in range(model.n_layers) if layer is None else [layer] if layer < model.n_layers else []:
        yield Offer(f"{i}.*", "node", 0, LAYER_SAYS.format(i))
        yield from (Offer(f"{i}.{head}", "node", 0, f"a head of {model.title}") for head in range(model.n_heads))


def positions(place: Place) -> Iterator[Offer]:
    shapes = place.document.shapes_at(place.row)
    for shape in shapes.values():
        yield from (Offer(name, "position", 0, says) for name, says in shape.positions.items())


def tasks(place: Place) -> Iterator[Offer]:
    circuit = place.document.circuit_at(place.row)
    for use in circuit.tasks if circuit else ():
        yield Offer(use.name, "task", 0, f"the task {use.generator or use.file} in line {use.line}")


def roles(place: Place) -> Iterator[Offer]:
    own = (line.statement for line in place.document.lines)
    titles = {role.name.text: role.title.text if role.title else "" for role in own if isinstance(role, s.Role)}
    yield from (Offer(name, "role", 0, says) for name, says in titles.items())
    yield from (Offer(name, "role", 0, "a built-in role") for name in ROLES)
    yield Offer("none", "role", 0, "the group has no role, whatever its name")


def circuits(place: Place) -> Iterator[Offer]:
    yield from (Offer(one.name, "value", 0, one.title) for one in place.document.circuits)
    for line in place.document.lines:
        if isinstance(line.statement, s.Use):
            text = _beside(place.document, line.statement.path.text)
            yield from (Offer(name, "value", 0, "of a used file") for name in re.findall(r"(?m)^circuit\s+(\w+)", text))


def _beside(document: Document, name: str) -> str:
    folder = Path(document.path).parent
    return "" if leaves(name, folder, folder) else read_source(folder / name)[0]


# --- names that the language has ------------------------------------------------------------------


def generators(place: Place) -> Iterator[Offer]:
    yield from (Offer(name, "task", 0, "a task that comes with circuitdsl, or with a package") for name in CATALOGUE)
    if place.before == "EQUALS":
        yield Offer("file", "task", 0, 'prompts of your own: file("prompts.jsonl")')


def task_options(place: Place) -> Iterator[Offer]:
    shape = CATALOGUE.get(place.owner)
    own = dict(shape.options) if shape else {}
    if place.before != "EQUALS":
        keys = (*TASK_OPTIONS, *own) if shape else FILE_OPTIONS
        yield from (Offer(f"{key} = ", "option", 0) for key in keys)
        return
    key = place.pieces[-2].text
    if key == "corrupt" and shape:
        yield from (Offer(name, "value", 0, says) for name, says in shape.corruptions.items())
    values = ("yes", "no") if key in ("bos", "chat") else own.get(key, ())
    yield from (Offer(str(value), "value", 0) for value in values)


def metrics(place: Place) -> Iterator[Offer]:
    yield from (Offer(name, "metric", 0, metric_says(name)) for name in METRICS)


def metric_options(place: Place) -> Iterator[Offer]:
    options = METRICS[place.owner].options if place.owner in METRICS else {}
    if place.before == "EQUALS":
        yield from (Offer(value, "value", 0) for value in options.get(place.pieces[-2].text, ()))
        return
    yield from (Offer(f"{key} = " if values else key, "option", 0) for key, values in options.items())


def measurements(place: Place) -> Iterator[Offer]:
    words = list(dict.fromkeys(chain(behaviours(), KINDS.words))) if place.first == "EXPECT" else ["attention"]
    says = (measurement_says(word) or metric_says(word) for word in words)
    yield from (Offer(word, "measurement", 0, said) for word, said in zip(words, says, strict=True))


def options(place: Place) -> Iterator[Offer]:
    kind = KINDS.word(place.owner)
    own = dict(METRICS[place.owner].options) if place.owner in METRICS else {}
    for key, values in (own | dict(kind.options) if kind else own).items():
        yield Offer(f"{key} = " if values else key, "option", 0, " | ".join(values))


def option_values(place: Place) -> Iterator[Offer]:
    kind, key = KINDS.word(place.owner), place.pieces[-2].text
    own = METRICS[place.owner].options.get(key, ()) if place.owner in METRICS else ()
    values = (kind.options.get(key, ()) if kind else ()) or own
    yield from (Offer(value, "value", 0) for value in values)


# --- inside strings -------------------------------------------------------------------------------


def strings(document: Document, pieces: list[Piece], start: int) -> Iterator[Offer]:
    """What a string may hold: a model, or a file that lies in the spec's folder or below."""
    kinds = [piece.kind for piece in pieces]
    if kinds == ["MODEL"]:
        yield from (Offer(name, "value", start, says) for name, says in MODELS.items())
    elif kinds == ["USE"]:
        yield from _files(document, start, (".circ",))
    elif kinds[:1] == ["TASK"] and [piece.text for piece in pieces[-2:]] == ["file", "("]:
        yield from _files(document, start, (".jsonl", ".csv"))
    elif kinds[:1] == ["DIRECTION"] and kinds[-1:] == ["LPAR"]:
        yield from _files(document, start, (".safetensors",))
    elif kinds[:1] == ["DICTIONARY"] and kinds[-1:] == ["LPAR"]:
        yield from (Offer(name, "value", start, "comes with circuitdsl") for name in shipped())
        yield from _files(document, start, (".safetensors",))


def _files(document: Document, start: int, endings: tuple[str, ...]) -> Iterator[Offer]:
    own = Path(document.path)
    try:
        beside = [each for each in sorted(own.parent.iterdir())[:_FILES] if each.suffix in endings and each != own]
    except OSError:
        return
    yield from (Offer(each.name, "file", start) for each in beside)
