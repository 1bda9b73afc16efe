"""Blocks: the lines indented deeper than their header. A role's block may hold `when` blocks of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Sink
from circuitdsl.language.lexer import BLOCK_HEADERS

HEADERS = (s.WhenPatched, s.WhenKnockedOut, s.Role, s.Intervention, s.Property, s.Compare)
VERBS = (s.SetAttention, s.Scale, s.Replace, s.ProjectOut)


def attach(lines: Iterable[tuple[int, s.Statement]], sink: Sink) -> tuple[s.Statement, ...]:
    """Put every line into the block it is indented under."""
    layout = _Layout(sink)
    for indent, statement in lines:
        layout.add(indent, statement)
    layout.close(0)
    return tuple(layout.statements)


def is_header(statement: s.Statement) -> TypeGuard[s.Block | s.Broken]:
    return isinstance(statement, HEADERS) or (isinstance(statement, s.Broken) and statement.keyword in BLOCK_HEADERS)


def _word(header: s.Block | s.Broken) -> str:
    """The keyword with which a block begins."""
    return header.keyword if isinstance(header, s.Broken) else header.text.split()[0]


@dataclass(slots=True)
class _Open:
    """A block being filled."""

    header: s.Block | s.Broken
    indent: int
    inside: list[s.Statement] = field(default_factory=list)

    @property
    def word(self) -> str:
        return _word(self.header)

    def takes(self, statement: s.Statement) -> bool:
        """Whether the statement may stand in this block."""
        if isinstance(statement, s.Broken | s.Expect):
            return True
        if self.word == "role":
            return is_header(statement) and _word(statement) == "when"
        return self.word == "intervention" and isinstance(statement, VERBS)


@dataclass
class _Layout:
    """The blocks being filled, outermost first, and the indentation that top-level lines have."""

    sink: Sink
    statements: list[s.Statement] = field(default_factory=list)
    open: list[_Open] = field(default_factory=list)
    #: indentation of the last top-level line, and whether a deeper line may follow it
    base: int = 0
    opens: bool = False

    def add(self, indent: int, statement: s.Statement) -> None:
        self.close(next((i for i, each in enumerate(self.open) if indent <= each.indent), len(self.open)))
        if self.open:
            if self.open[-1].takes(statement):
                self.put(indent, statement)
            else:
                self.misplaced(self.open[-1], statement)
                self.statements.append(statement)
            return
        self.check_indent(indent, statement)
        self.put(indent, statement)

    def put(self, indent: int, statement: s.Statement) -> None:
        """The statement goes into the innermost block, or opens one of its own."""
        if is_header(statement) and (not self.open or (self.open[-1].word, _word(statement)) == ("role", "when")):
            self.open.append(_Open(statement, indent))
        else:
            self.place(statement)

    def place(self, statement: s.Statement) -> None:
        (self.open[-1].inside if self.open else self.statements).append(statement)

    def close(self, keep: int) -> None:
        """End the open blocks but for the outermost `keep`."""
        while len(self.open) > keep:
            block = self.open.pop()
            inside = tuple(block.inside)
            if not inside and not isinstance(block.header, s.Broken):
                what = {"intervention": "set, scale, replace, project out or expect"}.get(block.word, "expect")
                help = f"indent its {what} lines below it"
                self.sink.error("E026", f"this {block.word} block is empty", block.header.span, help)
            self.place(replace(block.header, block=inside))

    def misplaced(self, block: _Open, statement: s.Statement) -> None:
        """Say that the statement may not stand in the block; it is read as if it stood outside."""
        allowed = {"intervention": "verbs and 'expect' lines", "role": "'expect' lines and 'when' blocks"}
        holds = allowed.get(block.word, "'expect' lines")
        message = f"a '{block.word}' block holds only {holds}"
        self.sink.error("E027", message, statement.span, "indent this line as far as the block's header")
        if not block.inside:
            block.inside.append(s.Broken(statement.span, "", "", ""))  # the block is not reported as empty as well

    def check_indent(self, indent: int, statement: s.Statement) -> None:
        """A line may be deeper than the one above only below a header or a `circuit` line."""
        if isinstance(statement, VERBS):
            verb = "project out" if isinstance(statement, s.ProjectOut) else statement.text.split()[0]
            self.sink.error("E028", f"'{verb}' stands only in an 'intervention' block", statement.span)
        elif indent > self.base and self.statements and not self.opens and not isinstance(statement, s.Info):
            help = "only the lines of a block, and those below 'circuit', are indented"
            self.sink.error("E025", "this line is indented, but the line above opens no block", statement.span, help)
        if isinstance(statement, s.Info):
            return  # `source`, `note` and `license` may be indented under their circuit, or not
        circuit = isinstance(statement, s.Circuit) or (
            isinstance(statement, s.Broken) and statement.keyword == "circuit"
        )
        self.opens = circuit
        self.base = indent
