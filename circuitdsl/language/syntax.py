"""What a circuit file says, word for word: frozen nodes with the place where each was written.

`str` is the text of a node as it is canonically written, on one line. Two nodes are equal when they say the same: their
places and the blanks between their words do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from typing import Any, ClassVar, TypeVar, dataclass_transform, get_args, get_type_hints

from circuitdsl.language.diagnostics import Span, as_span
from circuitdsl.language.lexer import UNSEEN, Comment

_FIELD = re.compile(r"\{(\w+)\}")
#: the types of fields that hold no syntax
_PLAIN = frozenset(
    {
        "Span",
        "str",
        "int",
        "int | None",
        "str | None",
        "int | str | None",
        "float",
        "bool",
        "bool | None",
        "tuple[str, ...]",
    }
)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
@dataclass(frozen=True)
class Syntax:
    """Any piece of syntax. Every class below it is a frozen dataclass.

    `form` is the text of such a node, with the names of its fields in braces; a field without a value is left out.
    Statements that no fixed text describes have no form: `layout.py` knows how they are written.

    >>> from circuitdsl.language.diagnostics import START
    >>> str(Brackets(START, Sum(START, ("+", "-"), (GroupRef(START, "a"), Head(START, 0, 1)))))
    '(a - 0.1)'
    """

    form: ClassVar[str] = ""
    #: the words of the form, each in pieces: those at odd places are names of fields
    words: ClassVar[tuple[list[str], ...]] = ()
    #: the fields that hold syntax, the last one first
    inside: ClassVar[tuple[str, ...]] = ()
    span: Span = field(compare=False)

    def __init_subclass__(cls, form: str = "") -> None:
        cls.form, cls.words = form, tuple(map(_FIELD.split, form.split()))
        dataclass(frozen=True)(cls)
        cls.inside = tuple(each.name for each in reversed(fields(cls)) if each.type not in _PLAIN)

    def __str__(self) -> str:
        """The node as it is written in a spec.

        Raises:
            ValueError: a string in it holds a double quote, a line end or a control character, which no spec can hold.
        """
        if not self.form:
            raise TypeError(f"no part of a statement: {self!r}")

        return joined(*[self._word(pieces) for pieces in self.words])

    def _word(self, pieces: list[str]) -> str:
        """A word of the form with the text of its fields."""
        shown = pieces.copy()
        for place in range(1, len(pieces), 2):
            found = getattr(self, pieces[place])
            shown[place] = joined(*found) if isinstance(found, tuple) else joined(found)
        return "".join(shown)


def joined(*parts: str | Syntax | None) -> str:
    """Words and pieces of syntax with blanks between them; what is empty is left out."""
    return " ".join(word for part in parts if part is not None and (word := str(part)))


def listed(nodes: Iterable[Syntax]) -> str:
    """`a, b, c`"""
    return ", ".join(map(str, nodes))


def in_brackets(nodes: Iterable[Syntax]) -> str:
    """`(corrupt = abc, seed = 0)`, or nothing."""
    inside = listed(nodes)
    return f"({inside})" if inside else ""


class Line(Syntax):
    """A statement that is quoted in reports: `text` has it with single blanks, without its citation."""

    text: str = field(default="", compare=False, kw_only=True)


class Cited(Line):
    """A claim: it may end with its strata, a citation, and why it is expected to fail."""

    where: Where | None = field(default=None, kw_only=True)
    citation: Text | None = field(default=None, kw_only=True)
    gap: KnownGap | None = field(default=None, kw_only=True)


class Header(Line):
    """A statement with a block of others below it."""

    block: tuple[Statement, ...] = field(default=(), kw_only=True)


# --- words, numbers, options ----------------------------------------------------------------------


class Word(Syntax, form="{text}"):  # a bare word: a name where it is defined, an option's key or value
    text: str


class Text(Syntax):  # a quoted string, without its quotes
    text: str

    def __str__(self) -> str:
        if '"' in self.text or UNSEEN.search(self.text):
            raise ValueError(f"a string of a spec holds no double quote, line end or control character: {self.text!r}")
        return f'"{self.text}"'


class Where(Syntax):  # where stratum "ABBA*", "BABA-1": a star stands for any text
    strata: tuple[Text, ...]

    def __str__(self) -> str:
        return f"where stratum {listed(self.strata)}"


class KnownGap(Syntax, form="expected to fail {reason}"):
    reason: Text


class Number(Syntax, form="{text}"):  # a number with the unit it was written with; text is as it was written
    value: float
    unit: str
    """`""`, `"%"` or `"points"`"""
    text: str


Value = Word | Text | Number


class Option(Syntax, form="{key} = {value}"):
    key: Word
    value: Value


# --- nodes and sets -------------------------------------------------------------------------------


class Head(Syntax):
    """`9.9`, or its singular component `9.9[2]`. A pair, never a decimal number: `0.1` and `0.10` differ.

    `9.9[subject]` is its part along a direction.
    """

    layer: int
    head: int
    index: int | str | None = None

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}" + ("" if self.index is None else f"[{self.index}]")


class Layer(Syntax, form="{layer}.*"):  # 9.*: every head of a layer
    layer: int


class Mlp(Syntax):  # m9, its neuron m9[1024], or its part along a direction m9[subject]
    layer: int
    index: int | str | None = None

    def __str__(self) -> str:
        return f"m{self.layer}" + ("" if self.index is None else f"[{self.index}]")


class Resid(Syntax):  # resid3, the residual stream as it enters a layer, or its part resid3[subject]
    layer: int
    index: int | str | None = None

    def __str__(self) -> str:
        return f"resid{self.layer}" + ("" if self.index is None else f"[{self.index}]")


class Feature(Syntax, form="{dictionary}[{which}]"):  # t1[17], or t1[error]: what its dictionary does not explain
    dictionary: str
    which: Word


class Special(Syntax):  # embed, its part embed[subject], logits or self
    name: str
    index: int | str | None = None

    def __str__(self) -> str:
        return self.name + ("" if self.index is None else f"[{self.index}]")


class GroupRef(Syntax, form="{name}"):  # a group by its name, or `all`
    name: str


class Items(Syntax, form="{members}"):  # a plain list: 9.6 9.9
    members: tuple[Set, ...]


class Sum(Syntax):  # a + b - c, read from the left: signs[i] stands before operands[i]
    signs: tuple[str, ...]
    operands: tuple[Set, ...]

    def __str__(self) -> str:
        return " ".join(map(joined, self.signs, self.operands)).removeprefix("+ ")


class WithPort(Syntax, form="{inner}.{port}"):  # 9.9.q: an input of the nodes inside
    inner: Set
    port: Word


class Brackets(Syntax, form="({inner})"):
    inner: Set


Set = Head | Layer | Mlp | Resid | Feature | Special | GroupRef | Items | Sum | WithPort | Brackets


# --- positions and edges --------------------------------------------------------------------------


class Place(Syntax):  # a position, S1+1, or *
    name: str
    offset: int = 0

    def __str__(self) -> str:
        # small letters are refused later; until then their sign keeps the blanks without which it is no offset
        offset = f"{self.offset:+d}" if self.offset else ""
        return self.name + (offset if self.name.isupper() or not offset else f" {offset[0]} {offset[1:]}")


class At(Syntax):  # at S1, S2
    places: tuple[Place, ...]

    def __str__(self) -> str:
        return f"at {listed(self.places)}"


class Protocol(Syntax):  # via mlps or direct, ablate mean: None where it does not say
    via_mlps: bool | None
    ablate: str | None = None

    def __str__(self) -> str:
        way = {True: "via mlps", False: "direct", None: ""}[self.via_mlps]
        return joined(way, f"ablate {self.ablate}" if self.ablate else "")


class Edge(Syntax, form="{sender} -> {receiver} {at} {protocol}"):  # SENDER -> RECEIVER[.q] [at POS] [via mlps]
    sender: Set
    receiver: Set
    at: At | None = None
    protocol: Protocol | None = None


class Hop(Syntax, form="-> {receiver} {at}"):  # an arrow of a path: -> mover.q at END
    receiver: Set
    at: At | None = None


class Path(Syntax, form="path {sender} {hops}"):  # path SENDER -> NODE.v at POS -> NODE.q at POS -> logits
    sender: Set
    hops: tuple[Hop, ...]


class NodesAt(Syntax, form="{nodes} {at}"):  # resid6 at S2, as an argument; more positions are more arguments
    nodes: Set
    at: At


class PlaceArrow(Syntax, form="{source} -> {target}"):  # END -> IO
    source: Place
    target: Place


# --- relations and claims -------------------------------------------------------------------------


class Compared(Syntax, form="{relation} {bound}"):  # >= 40%
    relation: str
    bound: Number


class Between(Syntax, form="in [{low}, {high}]"):  # in [-30%, 5%]
    low: Number
    high: Number


class AboveChance(Syntax, form="above chance"):
    """`above chance`"""


class Change(Syntax):  # rises, falls, rises by >= 10 points
    direction: str
    by: Compared | None = None

    def __str__(self) -> str:
        return self.direction + (f" by {self.by}" if self.by else "")


class Agree(Syntax, form="agree"):
    """`agree`, as in `roles agree`"""


class Against(Syntax):  # > attention(negative, END -> IO) by 30 points, or by 2 times
    relation: str
    other: Measurement
    by: Number | None = None
    times: bool = False

    def __str__(self) -> str:
        return joined(self.relation, self.other, f"by {self.by}" if self.by else "", "times" if self.times else "")


Relation = Compared | Between | AboveChance | Change | Agree | Against


class PlainClaim(Syntax, form="{word}"):  # matters, negligible, lowers or raises
    word: str


class Bound(Syntax, form="{quantity} {relation}"):  # effect <= -20%, delta in [-1, 0]
    quantity: str
    relation: Relation


class Stronger(Syntax):  # stronger than 7.9 -> 9.9.q by 2 times, or than a path or a knock-out
    other: Edge | Path | Measurement
    times: Number | None = None

    def __str__(self) -> str:
        return f"stronger than {self.other}" + (f" by {self.times} times" if self.times else "")


ClaimPart = PlainClaim | Bound | Stronger
Argument = Option | Edge | NodesAt | Place | PlaceArrow | Text | Set


class Measurement(Syntax):  # attention(mover, END -> IO), or accuracy, which has no arguments
    name: Word
    arguments: tuple[Argument, ...]

    def __str__(self) -> str:
        return f"{self.name}{in_brackets(self.arguments)}"


class Composition(Syntax, form="{quantity} {kind} {relation}"):  # composition rank <= 3: what a channel claims
    quantity: Word
    kind: Word | None
    relation: Relation


# --- statements -----------------------------------------------------------------------------------


class Circuit(Syntax, form="circuit {name} {title}"):
    name: Word
    title: Text | None = None


class Info(Syntax):  # source, note or license
    kind: str
    text: Text


class Language(Syntax, form="language {version}"):
    version: int


class Model(Syntax):
    name: Text
    options: tuple[Option, ...]


class Task(Syntax):  # task NAME = GENERATOR(…); without a name of its own, name is None
    name: Word | None
    generator: Word
    arguments: tuple[Option | Value, ...]


class Metric(Syntax):
    name: Word
    arguments: tuple[Option | Value, ...]


class Margin(Syntax, form="margin {value}"):
    value: Number


class Direction(Line, form="direction {name} = {source}"):
    """`direction subject = file("subject.safetensors", tensor = "s")`"""

    name: Word
    source: Word
    arguments: tuple[Option | Value, ...]

    def __str__(self) -> str:
        return f"direction {self.name} = {self.source}{in_brackets(self.arguments)}"


class ProtocolLine(Syntax, form="edges {protocol}"):  # edges via mlps, for every edge below
    protocol: Protocol


class Dictionary(Syntax):  # dictionary NAME = transcoder("…"), or sae("…")
    name: Word
    kind: Word
    arguments: tuple[Option | Value, ...]


class Group(Syntax):
    """`heads NAME = …`; `at`, `roles` and `outside` in any order (a second one is refused later)."""

    kind: str
    name: Word
    members: Set
    at: tuple[At, ...]
    roles: tuple[Word, ...]
    outside: bool


class EdgeClaim(Cited):
    each: bool
    edge: Edge
    claim: tuple[ClaimPart, ...]
    on: Word | None


class PathClaim(Cited):
    each: bool
    path: Path
    claim: tuple[ClaimPart, ...]
    on: Word | None


class Expect(Cited):
    measurement: Measurement
    relation: Relation | None
    claim: tuple[ClaimPart, ...]
    on: Word | None


class Apart(Syntax, form="at {what} {steps}"):  # at distance 3: how far the query is behind the key
    what: Word
    steps: Number


class Channel(Cited):
    each: bool
    sender: Set
    receiver: Set
    apart: Apart | None
    claim: tuple[Composition, ...]


class Trace(Cited):
    nodes: Set
    source: tuple[Place, ...]
    target: tuple[Place, ...]
    includes: Set
    at: At | None


class Use(Syntax, form="use {path}"):
    path: Text


class SetAttention(Line, form="set {measurement} = {value}"):
    measurement: Measurement
    value: Number | Word


class Scale(Line, form="scale {nodes} by {factor}"):
    nodes: Set
    factor: Number


class Replace(Line, form="replace {nodes} with {value}"):
    nodes: Set
    value: Word


class ProjectOut(Line, form="project out {nodes}"):
    nodes: Set


# --- blocks ---------------------------------------------------------------------------------------


class WhenPatched(Header, form="when {edge} is patched"):
    edge: Edge


class WhenKnockedOut(Header, form="when {nodes} {at} is knocked out"):
    nodes: Set
    at: At | None = None


class WhenBoth(Header):  # when mover is knocked out and inhibition -> backup.q at END is patched
    conditions: tuple[WhenPatched | WhenKnockedOut, ...]

    def __str__(self) -> str:
        return "when " + " and ".join(str(each).removeprefix("when ") for each in self.conditions)


class Role(Header, form="role {name} {title}"):
    name: Word
    title: Text | None = None


class Intervention(Header, form="intervention {name} {title}"):
    name: Word
    title: Text | None = None


class Property(Header):
    title: Text
    share: Number | None = None
    of: Word | None = None
    gap: KnownGap | None = field(default=None, kw_only=True)


class Compare(Header, form="compare {first} with {second}"):
    first: Word
    second: Word


class Broken(Syntax):
    """A statement that could not be read. It was reported; what it would have defined still counts as defined."""

    keyword: str
    """The word it begins with, if that is a keyword."""
    name: str
    text: str
    block: tuple[Statement, ...] = ()


When = WhenPatched | WhenKnockedOut | WhenBoth
Block = When | Role | Intervention | Property | Compare
Verb = SetAttention | Scale | Replace | ProjectOut
Statement = (
    Circuit | Direction | Info | Language | Model | Task | Metric | Margin | ProtocolLine | Dictionary | Group
    | EdgeClaim
    | PathClaim | Expect | Channel | Trace | Use | Verb | Block | Broken
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class File:
    """A whole file: its statements in order, and its comments for a formatter."""

    path: str
    statements: tuple[Statement, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False)
    text: str = field(default="", compare=False, repr=False)


S = TypeVar("S", bound=Syntax)


def walk(node: Syntax) -> Iterator[Syntax]:
    """The node and all syntax inside it, in the order written."""
    return walk_to(node, Syntax)


def walk_to(node: Syntax, *kinds: type[S]) -> Iterator[S]:
    """All syntax of some kinds that the node is or holds, in the order written."""
    stack: list[Any] = [node]
    while stack:
        current = stack.pop()
        if isinstance(current, kinds):
            yield current
        kind: Any = type(current)
        for name in _towards(kind, kinds):
            held = getattr(current, name)
            if isinstance(held, tuple):
                stack += reversed(held)
            elif held is not None:
                stack.append(held)


def moved(node: S, rows: int) -> S:
    """The node as it stands so many lines further down."""
    line, column, end_line, end_column = node.span
    made = object.__new__(type(node))
    values = vars(made)
    values.update(vars(node), span=as_span((line + rows, column, end_line + rows, end_column)))
    for name in node.inside:
        held = values[name]
        if isinstance(held, tuple):
            values[name] = tuple([moved(each, rows) for each in held])
        elif held is not None:
            values[name] = moved(held, rows)
    return made


@lru_cache(1000)
def _towards(kind: Any, wanted: tuple[Any, ...]) -> tuple[str, ...]:
    """The fields of a kind of node in which wanted ones may stand at some depth, the last field first."""
    held = _held(kind)
    below = {name: {each for one in held[name] for each in (one, *_below(one))} for name in kind.inside}
    return tuple(name for name in kind.inside if any(issubclass(each, wanted) for each in below[name]))


@cache
def _below(kind: Any) -> frozenset[Any]:
    """The kinds of node that may stand at some depth in one of a kind."""
    found, stack = set[Any](), [kind]
    while stack:
        new = {each for held in _held(stack.pop()).values() for each in held} - found
        found |= new
        stack += new
    return frozenset(found)


@cache
def _held(kind: Any) -> dict[str, frozenset[Any]]:
    """The kinds of node that may stand in each field, by the types of the fields."""
    types = get_type_hints(kind)
    return {name: frozenset(_nodes(types[name])) for name in kind.inside}


def _nodes(given: Any) -> Iterator[type[Syntax]]:
    """The kinds of node in a type."""
    if isinstance(given, type) and issubclass(given, Syntax):
        yield given
    for each in get_args(given):
        yield from _nodes(each)
