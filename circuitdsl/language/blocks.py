"""Blocks: a header and the lines indented below it. A role's block may itself hold `when` blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import START, Sink
from circuitdsl.language.lexer import BLOCK_HEADERS

VERBS = (s.SetAttention, s.Scale, s.Replace, s.ProjectOut)
#: what may stand in a block, by its first word: as a message about a wrong line puts it, and one about an empty block
HOLDS = {
    "intervention": ("verbs and 'expect' lines", "set, scale, replace, project out or expect"),
    "role": ("'expect' lines and 'when' blocks", "expect"),
}
OTHERS_HOLD = ("'expect' lines", "expect")


def attach(lines: Iterable[tuple[int, s.Statement]], sink: Sink) -> tuple[s.Statement, ...]:
    """Put every line into the block under whose header it is indented."""
    layout = _Layout(sink)
    for indent, statement in lines:
        layout.add(indent, statement)
    layout.close(0)
    return tuple(layout.file.inside)


def _word(statement: s.Statement) -> str:
    """The keyword with which a block begins; empty for a statement that begins none."""
    if isinstance(statement, s.Broken):
        return statement.keyword if statement.keyword in BLOCK_HEADERS else ""
    return statement.text.split()[0] if isinstance(statement, s.Header) else ""


#: stands in a block whose only line was misplaced, so that the block is not reported as empty as well
_NOTHING = s.Broken(START, "", "", "")


@dataclass(slots=True)
class _Block:
    """A block being filled; the whole file is one without a keyword."""

    header: s.Statement = _NOTHING
    word: str = ""
    indent: int = -1
    inside: list[s.Statement] = field(default_factory=list)

    def takes(self, statement: s.Statement) -> bool:
        """Whether the statement may stand in this block."""
        if not self.word or isinstance(statement, s.Broken | s.Expect):
            return True
        if self.word == "role":
            return _word(statement) == "when"
        return self.word == "intervention" and isinstance(statement, VERBS)


class _Layout:
    """The blocks being filled, outermost first, and the indentation that top-level lines have."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.file = _Block()
        self.open = [self.file]
        #: indentation of the last top-level line, and whether a deeper line may follow it
        self.base, self.opens = 0, False

    def add(self, indent: int, statement: s.Statement) -> None:
        self.close(indent)
        block = self.open[-1]
        if not block.takes(statement):
            self.misplaced(block, statement)
            return
        if block is self.file:
            self.check_indent(indent, statement)
        word = _word(statement)
        if word and (not block.word or (block.word, word) == ("role", "when")):
            self.open.append(_Block(statement, word, indent))
        else:
            block.inside.append(statement)

    def close(self, indent: int) -> None:
        """End the open blocks to which a line with this indentation does not belong."""
        while indent <= self.open[-1].indent:
            block = self.open.pop()
            if not block.inside and not isinstance(block.header, s.Broken):
                help = f"indent its {HOLDS.get(block.word, OTHERS_HOLD)[1]} lines below it"
                self.sink.error("E026", f"this {block.word} block is empty", block.header.span, help)
            self.open[-1].inside.append(replace(block.header, block=tuple(block.inside)))  # type: ignore[arg-type]

    def misplaced(self, block: _Block, statement: s.Statement) -> None:
        """Report that the statement may not stand in the block; it is read as if it stood outside."""
        message = f"a '{block.word}' block holds only {HOLDS.get(block.word, OTHERS_HOLD)[0]}"
        self.sink.error("E027", message, statement.span, "indent this line as far as the block's header")
        if not block.inside:
            block.inside.append(replace(_NOTHING, span=statement.span))
        self.file.inside.append(statement)

    def check_indent(self, indent: int, statement: s.Statement) -> None:
        """A line may be deeper than the one above only below a header or a `circuit` line."""
        if isinstance(statement, VERBS):
            verb = "project out" if isinstance(statement, s.ProjectOut) else statement.text.split()[0]
            self.sink.error("E028", f"'{verb}' stands only in an 'intervention' block", statement.span)
        elif indent > self.base and self.file.inside and not self.opens and not isinstance(statement, s.Info):
            help = "only the lines of a block, and those below 'circuit', are indented"
            self.sink.error("E025", "this line is indented, but the line above opens no block", statement.span, help)
        if isinstance(statement, s.Info):
            return  # `source`, `note` and `license` may be indented under their circuit, or not
        broken = isinstance(statement, s.Broken) and statement.keyword == "circuit"
        self.opens = broken or isinstance(statement, s.Circuit)
        self.base = indent
