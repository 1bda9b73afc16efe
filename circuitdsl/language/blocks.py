"""Blocks: the lines indented deeper than their header."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from . import syntax as s
from .diagnostics import Sink
from .lexer import BLOCK_HEADERS

HEADERS = (s.WhenPatched, s.WhenKnockedOut, s.Role, s.Intervention, s.Property, s.Compare)
VERBS = (s.SetAttention, s.Scale, s.Replace, s.ProjectOut)


def attach(lines: Iterable[tuple[int, s.Statement]], sink: Sink) -> tuple[s.Statement, ...]:
    """Put every line into the block it is indented under."""
    layout = _Layout(sink)
    for indent, statement in lines:
        layout.add(indent, statement)
    layout.close()
    return tuple(layout.statements)


def is_header(statement: s.Statement) -> TypeGuard[s.Block | s.Broken]:
    return isinstance(statement, HEADERS) or (isinstance(statement, s.Broken) and statement.keyword in BLOCK_HEADERS)


@dataclass
class _Layout:
    """The block being filled, and the indentation that top-level lines have."""

    sink: Sink
    statements: list[s.Statement] = field(default_factory=list)
    header: s.Block | s.Broken | None = None
    header_indent: int = 0
    inside: list[s.Statement] = field(default_factory=list)
    #: indentation of the last top-level line, and whether a deeper line may follow it
    base: int = 0
    opens: bool = False

    def add(self, indent: int, statement: s.Statement) -> None:
        if self.header is not None and indent > self.header_indent:
            if self.belongs(statement):
                self.inside.append(statement)
                return
        else:
            self.close()
            self.check_indent(indent, statement)
        if is_header(statement) and self.header is None:
            self.header, self.header_indent = statement, indent
        else:
            self.statements.append(statement)

    def close(self) -> None:
        """End the open block."""
        if self.header is None:
            return
        header, block = self.header, tuple(self.inside)
        if not block and not isinstance(header, s.Broken):
            word = header.text.split()[0]
            what = "set, scale, replace, project out or expect" if word == "intervention" else "expect"
            self.sink.error("E026", f"this {word} block is empty", header.span, f"indent its {what} lines below it")
        self.statements.append(replace(header, block=block))
        self.header = None
        self.inside = []

    def belongs(self, statement: s.Statement) -> bool:
        """Whether the statement may stand in the open block; if not, it is said, and it stands outside."""
        if isinstance(statement, s.Broken | s.Expect):
            return True
        header = self.header
        verb = isinstance(statement, VERBS)
        if verb and isinstance(header, s.Intervention):
            return True
        word = header.keyword if isinstance(header, s.Broken) else header.text.split()[0]  # type: ignore[union-attr]
        if word == "intervention" and verb:
            return True
        allowed = "verbs and 'expect' lines" if word == "intervention" else "'expect' lines"
        message = f"a '{word}' block holds only {allowed}"
        self.sink.error("E027", message, statement.span, "indent this line as far as the block's header")
        if not self.inside:
            self.inside.append(s.Broken(statement.span, "", "", ""))  # the block is not reported as empty as well
        return False

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
