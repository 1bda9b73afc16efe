"""From a text to a file of syntax nodes, and what is wrong with it.

Each logical line is parsed alone, so that all broken ones are found at once. Blocks are then made by
indentation. A statement that cannot be read becomes `Broken`, which still defines its name: one mistake
is reported once, not again at every use.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, UnexpectedToken
from lark.lexer import Lexer

from circuitdsl.language import syntax as s
from circuitdsl.language.blocks import attach
from circuitdsl.language.builder import Builder
from circuitdsl.language.diagnostics import START, Diagnostic, Sink, did_you_mean, ordered, suggest
from circuitdsl.language.lexer import KEYWORDS, STATEMENTS, LogicalLine, logical_lines, span_of, text_of
from circuitdsl.language.syntax_errors import explain
from circuitdsl.language.wording import MEANT

GRAMMAR = Path(__file__).with_name("grammar.lark")
logging.getLogger("lark").setLevel(logging.CRITICAL)


class _Tokens(Lexer):
    """Hands Lark the tokens that `lexer.py` made."""

    def __init__(self, conf: Any) -> None:
        pass

    def lex(self, tokens: list[Token]) -> Iterator[Token]:  # type: ignore[override]
        return iter(tokens)


@cache
def grammar() -> Lark:
    """The parser of one statement; building its tables takes about 0.1 s, so it is built once."""
    return Lark(
        GRAMMAR.read_text(encoding="utf-8"),
        parser="lalr",
        start="line",
        lexer=_Tokens,
        transformer=Builder(),
        keep_all_tokens=True,
        maybe_placeholders=False,
    )


def parse(text: str, path: str = "") -> tuple[s.File, tuple[Diagnostic, ...]]:
    """Parse a whole file. The file holds every statement, broken ones included."""
    sink = Sink()
    text = text.removeprefix("\ufeff")
    lines, comments = logical_lines(text, sink)
    statements = [(line.indent, _statement(line, sink)) for line in lines]
    refused = [node.name for _, node in statements if isinstance(node, s.Group) and _is_reserved(node.name.text)]
    if not statements and not sink.found:
        sink.error("E004", "the file holds no statement", START, 'a spec begins with a line such as: circuit ioi "…"')
    file = s.File(path, attach(statements, sink), tuple(comments), text)
    return file, ordered(_without_echoes(sink.found, lines, refused))


def _without_echoes(found: list[Diagnostic], lines: list[LogicalLine], refused: list[s.Word]) -> list[Diagnostic]:
    """A group with a reserved name is refused where it is defined, and not again wherever it is used."""
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
    try:
        node: Any = grammar().parse(line.tokens)
    except UnexpectedToken as error:
        sink.found.append(explain(error, line.tokens))
        return _broken(line)
    if not _signs_apart(line.tokens, sink):
        return _broken(line)
    _check_zeros(node, line.tokens, sink)
    _check_name(node, sink)
    if isinstance(node, s.Line):
        node = replace(node, text=_text(line.tokens))
    return node


def _text(tokens: list[Token]) -> str:
    """The statement with single blanks, without its citation."""
    if tokens[-1].type == "STRING" and tokens[0].type not in _TITLED:
        tokens = tokens[:-1]
    return text_of(tokens)


#: the first token of statements whose last string is a title, and those that define a name
_TITLED = frozenset({"PROPERTY", "ROLE", "INTERVENTION"})
_NAMED = frozenset({"circuit", "task", "heads", "mlps", "nodes", "role", "intervention"})


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

_OPERAND_END = frozenset({"NAME", "DECIMAL", "MLP", "RPAR", "RSQB", "EMBED", "LOGITS", "PORT"})
_PADDED_HEAD = re.compile(r"0[0-9]+\.|[0-9]+\.0[0-9]|m0[0-9]")


def _signs_apart(tokens: list[Token], sink: Sink) -> bool:
    """Whether there are blanks around the signs between sets. `9.6-9.9` is not a range, and is reported."""
    apart = True
    for before, sign, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if sign.type not in ("PLUS", "MINUS") or before.type not in _OPERAND_END:
            continue
        if before.end_pos == sign.start_pos or sign.end_pos == after.start_pos:
            span = span_of(before).to(span_of(after))
            heads = before.type == after.type == "DECIMAL"
            help = "there are no ranges: list every head" if heads and sign == "-" else None
            sink.error("E024", f"write blanks around '{sign}': {before} {sign} {after}", span, help)
            apart = False
    return apart


def _check_zeros(node: s.Syntax, tokens: list[Token], sink: Sink) -> None:
    """Report heads and MLPs that are written with leading zeros, such as `09.9`."""
    suspects = {span_of(t): t for t in tokens if t.type in ("DECIMAL", "MLP") and _PADDED_HEAD.match(t)}
    if not suspects:
        return
    for part in s.walk(node):
        if isinstance(part, s.Head | s.Mlp) and part.span in suspects:
            name = f"{part.layer}.{part.head}" if isinstance(part, s.Head) else f"m{part.layer}"
            message = f"'{suspects[part.span]}' has a leading zero; did you mean '{name}'?"
            sink.error("E023", message, part.span)


_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _check_name(node: s.Syntax, sink: Sink) -> None:
    """Report a name that may not be defined."""
    match node:
        case s.Circuit(name=name) | s.Group(name=name) | s.Role(name=name) | s.Intervention(name=name):
            what = type(node).__name__.lower()
        case s.Task(name=s.Word() as name):
            what = "task"
        case _:
            return
    if _is_reserved(name.text):
        sink.error("E021", f"'{name.text}' is reserved and cannot name a {what}", name.span, f"try '{name.text}_'")
    elif not _NAME.fullmatch(name.text):
        lower = name.text.lower().strip("_")
        guess = did_you_mean(lower if _NAME.fullmatch(lower) and lower not in KEYWORDS else None)
        sink.error("E022", f"a {what}'s name is written in small letters, digits and '_'{guess}", name.span)


def _is_reserved(name: str) -> bool:
    return name in KEYWORDS or re.fullmatch(r"m[0-9]+", name) is not None
