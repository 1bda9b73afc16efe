"""From a text to a file of syntax nodes, and what is wrong with it.

Each logical line is parsed alone, so that all broken ones are found at once. Blocks are then made by
indentation. A statement that cannot be read becomes `Broken`, which still defines its name: one mistake
is reported once, not again at every use.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from circuitdsl.brief import quoted
from circuitdsl.language import syntax as s
from circuitdsl.language.automaton import Automaton, Stuck
from circuitdsl.language.builder import Builder
from circuitdsl.language.diagnostics import START, Diagnostic, Sink, Span, lines_of, ordered, suggest
from circuitdsl.language.lexer import (
    BLOCK_HEADERS,
    KEYWORDS,
    MAX_MISTAKES,
    STATEMENTS,
    LogicalLine,
    Token,
    logical_lines,
    text_of,
)
from circuitdsl.language.syntax_errors import MEANT, explain
from circuitdsl.language.tables import parser
from circuitdsl.ordinary import Unreadable, read_named

#: the statements of which a file has only some: each of them is looked at together with all of another kind
MOST: dict[type[s.Syntax], int] = dict.fromkeys((s.Circuit, s.Task, s.Use, s.Compare), 100)
MOST |= dict.fromkeys((s.Info, s.Model, s.Metric, s.Margin, s.ProtocolLine, s.Role), 1000)


@cache
def automaton() -> Automaton:
    """The parser of one statement; it is made once."""
    return Automaton(parser(Builder()))


#: statements as they were read, with what is wrong with each, by the column and the text of their lines
Read = dict[tuple[int, bool, str], tuple[s.Statement, list[Diagnostic]]]


def parse(text: str, path: str = "", before: Read | None = None) -> tuple[s.File, tuple[Diagnostic, ...]]:
    """Parse a whole file. The file holds every statement, broken ones included; none where it has far too many.

    Args:
        before: what an earlier call has read of the same file, so that only lines that changed are read. Afterwards it
            holds what this call has read.
    """
    sink = Sink()
    text = "\n".join(lines_of(text.removeprefix("\ufeff")))
    lines, comments = logical_lines(text, sink)
    now = Read()
    statements, kinds = [], Counter[type[s.Syntax]]()
    for line in lines if not sink.stopped else ():
        node = _statement(line, sink) if before is None else _known(line, text, sink, before, now)
        statements.append((line.indent, node))
        kinds[type(node)] += 1
        if len(sink.found) > MAX_MISTAKES:
            sink.stop(f"the file has more than {MAX_MISTAKES:,} mistakes", line.span)
        elif kinds[type(node)] > (most := MOST.get(type(node), len(lines))):
            sink.stop(f"the file has more than {most:,} lines like this", line.span)
        if sink.stopped:
            break
    if sink.stopped:  # what follows from a part of the file alone may be wrong
        return s.File(path, (), (), text), ordered(sink.found)
    if before is not None:
        before.clear()
        before.update(now)
    refused = [node.name for _, node in statements if isinstance(node, s.Group) and is_reserved(node.name.text)]
    if not statements and not sink.found:
        sink.error("E004", "the file holds no statement", START, 'a spec begins with a line such as: circuit ioi "…"')
    file = s.File(path, attach(statements, sink), tuple(comments), text)
    return file, ordered(_without_echoes(sink.found, lines, refused))


def _known(line: LogicalLine, text: str, sink: Sink, before: Read, now: Read) -> s.Statement:
    """The statement of a line; it is parsed if it was not read before, there or further up or down."""
    first, last = line.tokens[0], line.tokens[-1]
    key = (first.span.column, line.broken, text[first.start_pos : last.end_pos])
    read = before.get(key)
    rows = first.span.line - read[0].span.line if read else 0
    if read is None or (rows and read[1]):  # what is wrong may name other lines
        inner = Sink()
        read = _statement(line, inner), inner.found
    elif rows:
        read = s.moved(read[0], rows), []
    now[key] = read
    sink.found.extend(read[1])
    return read[0]


def expected_after(terminals: Sequence[str]) -> frozenset[str]:
    """The terminals that may follow the first ones of a statement; none where no statement begins with these."""
    return automaton().after(terminals)


def with_line(file: s.File, text: str, line: int) -> tuple[s.File, s.Statement, tuple[Diagnostic, ...]]:
    """The file of a text that says something else in one statement, which alone is read; and that statement.

    Args:
        file: what the text was before, without errors. Its comments stay as they were.
        line: a line of the statement, which stands in the same lines as before.
    """
    sink, found = Sink(), list[s.Statement]()

    def changed(old: s.Statement) -> s.Statement:
        if isinstance(old, s.Block):
            return replace(old, block=tuple(map(changed, old.block)))
        first, last = old.span.line, old.span.end_line
        if not first <= line <= last:
            return old
        (own,), _ = logical_lines("\n" * (first - 1) + "\n".join(text.split("\n")[first - 1 : last]), sink)
        found.append(_statement(own, sink))
        return found[0]

    statements = tuple(map(changed, file.statements))
    return replace(file, statements=statements, text=text), found[0], ordered(sink.found)


def _without_echoes(found: list[Diagnostic], lines: list[LogicalLine], refused: list[s.Word]) -> list[Diagnostic]:
    """A group with a reserved name is refused where it is defined, and not again wherever it is used."""
    if not refused:
        return found
    names, defined = {name.text for name in refused}, {name.span.line for name in refused}
    using = [line.span for line in lines if names & {str(token) for token in line.tokens}]
    echoes = {n for span in using for n in range(span.line, span.end_line + 1)} - defined
    return [d for d in found if not (d.span.line in echoes and d.code in _ECHOED)]


#: the errors that a line may have because it uses a refused name
_ECHOED = frozenset({"E020", "E021", "E022", "E029"})


def _statement(line: LogicalLine, sink: Sink) -> s.Statement:
    """One logical line as a statement."""
    if line.broken:
        return _broken(line)
    node: Any = automaton().parse(line.tokens)
    if isinstance(node, Stuck):
        sink.found.append(explain(line.tokens, node.place, automaton().expected(node.states)))
        return _broken(line)
    if not _signs_apart(line.tokens, sink):
        return _broken(line)
    _check_zeros(node, line.tokens, sink)
    _check_name(node, sink)
    if isinstance(node, s.Line):
        object.__setattr__(node, "text", _text(line.tokens))  # nobody else has the node yet
    return node


def _text(tokens: list[Token]) -> str:
    """The statement with single blanks, without its citation and without why it is expected to fail."""
    if len(tokens) > 4 and tokens[-4].type == "EXPECTED":
        tokens = tokens[:-4]
    names_stratum = len(tokens) > 2 and tokens[-2].type in ("STRATUM", "COMMA")
    if tokens[-1].type == "STRING" and tokens[0].type not in _TITLED and not names_stratum:
        tokens = tokens[:-1]
    return text_of(tokens)


#: the first token of statements whose last string is a title, and those that define a name
_TITLED = frozenset({"PROPERTY", "ROLE", "INTERVENTION"})
_NAMED = frozenset({"direction", "circuit", "task", "heads", "mlps", "nodes", "role", "intervention"})


def _broken(line: LogicalLine) -> s.Broken:
    """What a statement that could not be read would have defined."""
    words = [str(token) for token in line.tokens[:3]] + ["", "", ""]
    keyword, name = words[0], ""
    if keyword not in KEYWORDS and keyword.isidentifier():
        if words[1] == "=":  # `mover = 9.9`
            return s.Broken(line.span, "heads", keyword, _text(line.tokens))
        keyword = MEANT.get(keyword) or suggest(keyword, STATEMENTS) or ""
    if keyword in _NAMED:
        name = words[1] if words[1].isidentifier() else ""
    return s.Broken(line.span, keyword if keyword in KEYWORDS else "", name, _text(line.tokens))


# --- what the grammar lets pass -------------------------------------------------------------------

_SUM = frozenset({"PLUS", "MINUS"})
_OPERAND_END = frozenset({"NAME", "DECIMAL", "LAYER", "MLP", "RESID", "RPAR", "RSQB", "EMBED", "LOGITS", "PORT"})
_PADDED_HEAD = re.compile(r"0[0-9]+\.|[0-9]+\.0[0-9]|(?:m|resid)0[0-9]")


def _signs_apart(tokens: list[Token], sink: Sink) -> bool:
    """Whether there are blanks around the signs between sets. `9.6-9.9` is not a range, and is reported."""
    apart = True
    for before, sign, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if sign.type not in _SUM or before.type not in _OPERAND_END:
            continue
        if before.end_pos == sign.start_pos or sign.end_pos == after.start_pos:
            span = before.span.to(after.span)
            heads = before.type == after.type == "DECIMAL"
            help = "there are no ranges: list every head, or a layer of them: 9.*" if heads and sign == "-" else None
            sink.error("E024", f"write blanks around '{sign}': {before} {sign} {after}", span, help)
            apart = False
    return apart


def _check_zeros(node: s.Syntax, tokens: list[Token], sink: Sink) -> None:
    """Report nodes that are written with leading zeros, such as `09.9`."""
    suspects = {t.span: t for t in tokens if t.type in ("DECIMAL", "LAYER", "MLP", "RESID") and _PADDED_HEAD.match(t)}
    if not suspects:
        return
    for part in s.walk_to(node, s.Head, s.Layer, s.Mlp, s.Resid):
        if part.span in suspects:
            name = str(replace(part, index=None) if isinstance(part, s.Head | s.Mlp) else part)
            sink.error("E023", f"'{suspects[part.span]}' has a leading zero", part.span, meant=name)


_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _check_name(node: s.Syntax, sink: Sink) -> None:
    """Report a name that may not be defined."""
    match node:
        case s.Circuit(name=name) | s.Dictionary(name=name) | s.Direction(name=name) | s.Group(name=name):
            what = type(node).__name__.lower()
        case s.Role(name=name) | s.Intervention(name=name):
            what = type(node).__name__.lower()
        case s.Task(name=s.Word() as name):
            what = "task"
        case _:
            return
    if is_reserved(name.text):
        sink.error("E021", f"'{name.text}' is reserved and cannot name a {what}", name.span, f"try '{name.text}_'")
    elif not _NAME.fullmatch(name.text):
        lower = name.text.lower().strip("_")
        meant = lower if _NAME.fullmatch(lower) and lower not in KEYWORDS else None
        sink.error("E022", f"a {what}'s name is written in small letters, digits and '_'", name.span, meant=meant)


def is_reserved(name: str) -> bool:
    """Whether a word means something in the language, so that nothing can be named by it."""
    return name in KEYWORDS or re.fullmatch(r"(?:m|resid)[0-9]+", name) is not None


# --- blocks ---------------------------------------------------------------------------------------


VERBS = (s.SetAttention, s.Scale, s.Replace, s.ProjectOut)
#: what may stand in a block besides 'expect' lines, by its first word; and all that may, as a message about a wrong
#: line puts it, and one about an empty block
HOLDS: dict[str, tuple[tuple[type[s.Syntax], ...], str, str]] = {
    "intervention": (VERBS, "verbs and 'expect' lines", "set, scale, replace, project out or expect"),
    "role": ((s.WhenPatched, s.WhenKnockedOut, s.WhenBoth), "'expect' lines and 'when' blocks", "expect"),
}
OTHERS_HOLD = ((), "'expect' lines", "expect")


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

    @property
    def holds(self) -> tuple[tuple[type[s.Syntax], ...], str, str]:
        return HOLDS.get(self.word, OTHERS_HOLD)


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
        if block.word and not isinstance(statement, (s.Broken, s.Expect, *block.holds[0])):
            # it is read as if it stood outside
            message = f"a '{block.word}' block holds only {block.holds[1]}"
            self.sink.error("E027", message, statement.span, "indent this line as far as the block's header")
            if not block.inside:
                block.inside.append(replace(_NOTHING, span=statement.span))
            self.file.inside.append(statement)
            return
        for tail in (getattr(statement, "where", None), getattr(statement, "gap", None)):
            if tail and any(each.word in ("role", "property") for each in self.open):
                what = "asked on some strata" if isinstance(tail, s.Where) else "expected to fail"
                message = f"what a role or a property asks for is no claim: it is not {what} by itself"
                help = "write it at the end of the claim: of the 'expect role(…)' or the 'property' line"
                self.sink.error("E033", message, tail.span, help)
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
                help = f"indent its {block.holds[2]} lines below it"
                self.sink.error("E026", f"this {block.word} block is empty", block.header.span, help)
            self.open[-1].inside.append(replace(block.header, block=tuple(block.inside)))  # type: ignore[arg-type]

    def check_indent(self, indent: int, statement: s.Statement) -> None:
        """A line may be deeper than the one above only below a header or a `circuit` line."""
        if isinstance(statement, s.Info):
            return  # `source`, `note` and `license` may be indented under their circuit, or not
        if isinstance(statement, VERBS):
            verb = "project out" if isinstance(statement, s.ProjectOut) else statement.text.split()[0]
            self.sink.error("E028", f"'{verb}' stands only in an 'intervention' block", statement.span)
        elif indent > self.base and self.file.inside and not self.opens:
            help = "only the lines of a block, and those below 'circuit', are indented"
            self.sink.error("E025", "this line is indented, but the line above opens no block", statement.span, help)
        broken = isinstance(statement, s.Broken) and statement.keyword == "circuit"
        self.opens = broken or isinstance(statement, s.Circuit)
        self.base = indent


# --- files, of which every failure becomes a diagnostic --------------------------------------------

MAX_BYTES = 1_000_000


def read_source(path: str | Path) -> tuple[str, tuple[Diagnostic, ...]]:
    """The text of a file; an empty text and the reason where it cannot be read."""
    path = Path(path)
    name = quoted(str(path))
    try:
        if path.is_dir():
            return _refused("E001", f"{name} is a directory, not a circuit file")
        if not path.exists():
            return _refused("E001", f"there is no file {name}")
        return decode(read_named(path, MAX_BYTES))
    except (OSError, ValueError, Unreadable) as error:
        reason = getattr(error, "strerror", None) or error
        return _refused("E001", f"{name} cannot be read: {reason}")


def decode(data: bytes) -> tuple[str, tuple[Diagnostic, ...]]:
    """Bytes to text: UTF-8 without NUL bytes, with or without a byte-order mark, not too many."""
    if len(data) > MAX_BYTES:
        return _refused("E003", "the file is larger than 1 MB; a circuit file is text of a few kilobytes")
    nul = data.find(b"\0")
    if nul >= 0:
        return _refused("E002", f"not a text file: byte {nul + 1} is NUL", _place(data, nul))
    try:
        return data.decode("utf-8-sig"), ()
    except UnicodeDecodeError as error:
        at = min(error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0), len(data) - 1)
        message = f"not UTF-8 text: byte {at + 1} is 0x{data[at]:02x}"
        return _refused("E002", message, _place(data, at))


def _place(data: bytes, offset: int) -> Span:
    """Line and column of a byte."""
    before = data[:offset].replace(b"\r\n", b"\n")
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
    return Span(line, column, line, column + 1)


def _refused(code: str, message: str, span: Span = START) -> tuple[str, tuple[Diagnostic, ...]]:
    return "", (Diagnostic(code, "error", message, span),)
