"""Statements as rows of a table: the words that stand in columns when like statements follow one another."""

from __future__ import annotations

from dataclasses import dataclass

from circuitdsl.language import syntax as s
from circuitdsl.language import written as w
from circuitdsl.language.written import joined, quoted, written


@dataclass(frozen=True, slots=True)
class Row:
    """One statement, without its comment.

    Attributes:
        table: rows of the same table that follow one another share their columns.
        cells: the words in columns; a cell may be empty.
        citation: the string at its end, in its quotes.
    """

    table: str
    cells: tuple[str, ...]
    citation: str = ""

    @property
    def text(self) -> str:
        """With single blanks, without its citation."""
        return joined(*self.cells)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `gap` blanks before it; `ragged` where a cell with nothing after it may run on below it."""

    gap: int = 1
    ragged: bool = False


#: by table, its columns
TABLES: dict[str, tuple[Column, ...]] = {
    "header": (Column(0), Column(ragged=True), Column()),
    "info": (Column(0), Column()),
    "group": (Column(0), Column(), Column(), Column(6, ragged=True), Column(2)),
    "edge": (Column(0), Column(), Column(3), Column(2), Column(2), Column(2)),
    "channel": (Column(0), Column(), Column(), Column(2)),
    "expect": (Column(0), Column(), Column(2)),
}


def columns_of(table: str) -> tuple[Column, ...]:
    """The columns of a table; `expect attention` is a table of its own kind of `expect`."""
    return TABLES.get(table.partition(" ")[0], (Column(0),))


def row_of(statement: s.Statement) -> Row:
    """A statement as it is canonically written.

    Raises:
        ValueError: it could not be read when it was parsed, or holds a string that cannot be written.
    """
    match statement:
        case (
            s.Circuit(name=name, title=title) | s.Intervention(name=name, title=title) | s.Role(name=name, title=title)
        ):
            return _plain(type(statement).__name__.lower(), name.text, _optional(title))
        case s.Info(kind=kind, text=text):
            return Row("info", (kind, quoted(text)))
        case s.Group():
            return _group(statement)
        case s.EdgeClaim():
            return _edge_claim(statement)
        case s.Expect():
            return _expect(statement)
        case s.Channel(sender=sender, receiver=receiver):
            first = joined("each" if statement.each else "", written(sender))
            claimed = " and ".join(w.composition(part) for part in statement.claim)
            cells = ("channel", first, f"-> {written(receiver)}", f": {claimed}")
            return Row("channel", cells, _optional(statement.citation))
        case s.Trace():
            return _trace(statement)
        case s.Broken():
            raise ValueError(f"line {statement.span.line} could not be read: {statement.text}")
        case s.WhenPatched() | s.WhenKnockedOut() | s.Property() | s.Compare():
            return _block_header(statement)
        case s.SetAttention() | s.Scale() | s.Replace() | s.ProjectOut():
            return _verb(statement)
    return _header(statement)


def _plain(*words: str) -> Row:
    return Row("", (joined(*words),))


def _optional(text: s.Text | None) -> str:
    return quoted(text) if text else ""


def _header(statement: s.Language | s.Model | s.Task | s.Metric | s.Margin | s.ProtocolLine | s.Use) -> Row:
    match statement:
        case s.Language(version=version):
            return _plain("language", str(version))
        case s.Model(name=name, options=given):
            settings = (w.options((option,))[1:-1] for option in given)
            return Row("header", ("model", ", ".join((quoted(name), *settings))))
        case s.Task(name=name, generator=generator, arguments=arguments):
            made = generator.text + w.options(arguments)
            return Row("header", ("task", name.text, f"= {made}") if name else ("task", made))
        case s.Metric(name=name, arguments=arguments):
            return Row("header", ("metric", name.text + w.options(arguments)))
        case s.Margin(value=number):
            return Row("header", ("margin", number.text))
        case s.ProtocolLine(protocol=chosen):
            return Row("header", ("edges", w.protocol(chosen)))
    return _plain("use", quoted(statement.path))


def _group(group: s.Group) -> Row:
    roles = "  ".join(f"role {role.text}" for role in group.roles)
    more = "  ".join(part for part in (roles, "outside" if group.outside else "") if part)
    where = " ".join(w.at(one) for one in group.at)
    return Row("group", (group.kind, group.name.text, f"= {written(group.members)}", where, more))


def _edge_claim(claimed: s.EdgeClaim) -> Row:
    edge = claimed.edge
    cells = (
        joined("each" if claimed.each else "", written(edge.sender)),
        f"-> {written(edge.receiver)}",
        w.at(edge.at),
        w.protocol(edge.protocol),
        w.claim(claimed.claim),
        f"on {claimed.on.text}" if claimed.on else "",
    )
    return Row("edge", cells, _optional(claimed.citation))


def _expect(expected: s.Expect) -> Row:
    said = w.relation(expected.relation) if expected.relation else w.claim(expected.claim)
    on = f"on {expected.on.text}" if expected.on else ""
    table = f"expect {expected.measurement.name.text}"
    return Row(table, (f"expect {w.measurement(expected.measurement)}", said, on), _optional(expected.citation))


def _trace(trace: s.Trace) -> Row:
    way = f"{w.places(trace.source)} -> {w.places(trace.target)}"
    text = joined("trace", written(trace.nodes), way, "includes", written(trace.includes), w.at(trace.at))
    return Row("", (text,), _optional(trace.citation))


def _block_header(header: s.WhenPatched | s.WhenKnockedOut | s.Property | s.Compare) -> Row:
    match header:
        case s.WhenPatched(edge=patched):
            return _plain("when", w.edge(patched), "is patched")
        case s.WhenKnockedOut(nodes=nodes):
            return _plain("when", written(nodes), "is knocked out")
        case s.Property(title=title, share=share, of=of):
            some = f"for {share.text} of {of.text if of else 'prompts'}" if share else ""
            return _plain("property", quoted(title), some)
    return _plain("compare", header.first.text, "with", header.second.text)


def _verb(verb: s.Verb) -> Row:
    match verb:
        case s.SetAttention(measurement=attention, value=value):
            return _plain("set", w.measurement(attention), "=", value.text)
        case s.Scale(nodes=nodes, factor=factor):
            return _plain("scale", written(nodes), "by", factor.text)
        case s.Replace(nodes=nodes, value=word):
            return _plain("replace", written(nodes), "with", word.text)
    return _plain("project out", written(verb.nodes))
