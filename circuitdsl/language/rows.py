"""Statements as rows of a table: the words that stand in columns when like statements follow one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from circuitdsl.language import syntax as s
from circuitdsl.language.written import in_brackets, joined, listed, written


@dataclass(frozen=True, slots=True)
class Row:
    """One statement, without its comment.

    Attributes:
        table: rows of the same table that follow one another share their columns.
        cells: the words in columns; a cell may be empty.
        citation: the string at its end, in its quotes.
        of: what the table is of, where there are several of a kind: `expect attention` rows share no columns with
            `expect accuracy` rows.
    """

    table: str
    cells: tuple[str, ...]
    citation: str = ""
    of: str = ""

    @property
    def text(self) -> str:
        """With single blanks, without its citation."""
        return joined(*self.cells)

    @property
    def columns(self) -> tuple[Column, ...]:
        return TABLES.get(self.table, (Column(0),))


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


def row_of(statement: s.Statement) -> Row:
    """A statement as it is canonically written.

    Raises:
        ValueError: it could not be read when it was parsed, or holds a string that cannot be written.
    """
    match statement:
        case s.Info(kind=kind, text=text):
            return Row("info", (kind, written(text)))
        case s.Language(version=version):
            return Row("", (f"language {version}",))
        case s.Model(name=path, options=options):
            return Row("header", ("model", listed((path, *options))))
        case s.Task(name=name, generator=generator, arguments=arguments):
            made = generator.text + in_brackets(arguments)
            return Row("header", ("task", name.text, f"= {made}") if name else ("task", made))
        case s.Metric(name=name, arguments=arguments):
            return Row("header", ("metric", name.text + in_brackets(arguments)))
        case s.Margin() | s.ProtocolLine():
            return Row("header", tuple(written(statement).split(" ", 1)))
        case s.Group(kind=kind, name=name, members=members, at=places, roles=roles, outside=outside):
            more = "  ".join((*(f"role {role.text}" for role in roles), *["outside"] * outside))
            return Row("group", (kind, name.text, f"= {written(members)}", joined(*places), more))
        case s.EdgeClaim(each=each, edge=edge, claim=claim, on=on, citation=citation):
            first = joined("each" if each else "", edge.sender)
            rest = f"-> {written(edge.receiver)}", written(edge.at), written(edge.protocol)
            return Row("edge", (first, *rest, _claim(claim), _on(on)), written(citation))
        case s.Expect(measurement=measurement, relation=relation, claim=claim, on=on, citation=citation):
            cells = (f"expect {written(measurement)}", written(relation) or _claim(claim), _on(on))
            return Row("expect", cells, written(citation), measurement.name.text)
        case s.Channel(each=each, sender=sender, receiver=receiver, claim=claim, citation=citation):
            first = joined("each" if each else "", sender)
            return Row("channel", ("channel", first, f"-> {written(receiver)}", _claim(claim)), written(citation))
        case s.Trace(nodes=nodes, source=source, target=target, includes=includes, at=at, citation=citation):
            way = f"{listed(source)} -> {listed(target)}"
            return Row("", (joined("trace", nodes, way, "includes", includes, at),), written(citation))
        case s.Property(title=title, share=share, of=of):
            return Row("", (joined("property", title, *(("for", share, "of", of or "prompts") if share else ())),))
        case s.Broken(span=span, text=text):
            raise ValueError(f"line {span.line} could not be read: {text}")
    return Row("", (written(statement),))


def _claim(parts: Sequence[s.Syntax]) -> str:
    """`: lowers and effect <= -20%`, or nothing."""
    return f": {' and '.join(map(written, parts))}" if parts else ""


def _on(task: s.Word | None) -> str:
    return f"on {task.text}" if task else ""
