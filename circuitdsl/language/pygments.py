"""Specs in colour wherever Pygments paints: in docs, notebooks and terminals. The entry point is `circ`.

The language's own lexer cuts the text, so that both know the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from pygments.lexer import Lexer
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, Punctuation, String, Whitespace, _TokenType

from circuitdsl.language.diagnostics import Sink
from circuitdsl.language.lexer import IN_PHRASES, KEYWORDS, SOFT, STATEMENTS, logical_lines

Piece = tuple[int, _TokenType, str]

_GAP = re.compile(r"(?P<comment>#[^\r\n]*)|(?P<blank>\s+)|(?P<other>[^\s#]+)")
_TYPES = {
    "STRING": String, "INT": Number.Integer, "SCIENTIFIC": Number.Float, "MLP": Name.Builtin, "LAYER": Name.Builtin,
    "RESID": Name.Builtin,
    "POSITION": Name.Constant,
    "PORT": Name.Attribute, "ARROW": Operator, "RELATION": Operator, "EQUALS": Operator, "PLUS": Operator,
    "MINUS": Operator, "STAR": Name.Constant, "PERCENT": Number, "COLON": Punctuation, "COMMA": Punctuation,
    "LPAR": Punctuation, "RPAR": Punctuation, "LSQB": Punctuation, "RSQB": Punctuation, "ODD": Error,
}  # fmt: skip
_NODES = frozenset({"EMBED", "LOGITS", "SELF", "NONE"})
#: what a name is after these
_NAMED = {
    "CIRCUIT": Name.Namespace, "HEADS": Name.Variable, "MLPS": Name.Variable, "NODES": Name.Variable,
    "ROLE": Name.Class, "INTERVENTION": Name.Class, "TASK": Name.Class, "METRIC": Name.Class,
}  # fmt: skip
#: after these, and before a unit, `0.1` is a number and no head
_BEFORE_NUMBERS = frozenset({"RELATION", "BY", "MARGIN", "FOR"})
_UNITS = frozenset({"PERCENT", "POINTS"})


class CircLexer(Lexer):
    """Colours circuit files."""

    name = "circ"
    aliases: ClassVar = ["circ"]
    filenames: ClassVar = ["*.circ"]
    url = "https://pypi.org/project/circuitdsl/"

    def get_tokens_unprocessed(self, text: str) -> Iterator[Piece]:
        """All characters of a text in their order, each with its type."""
        end = 0
        lines, _ = logical_lines(text, Sink())
        for line in lines:
            kinds = [token.type for token in line.tokens]
            for number, token in enumerate(line.tokens):
                yield from _gap(text, end, token.start_pos or 0)
                end = token.end_pos or 0
                yield token.start_pos or 0, _type(kinds, number), text[token.start_pos : end]
        yield from _gap(text, end, len(text))


def _gap(text: str, start: int, end: int) -> Iterator[Piece]:
    """What stands between two words: blanks, comments, and what the language does not have."""
    types = {"comment": Comment.Single, "blank": Whitespace, "other": Error}
    for found in _GAP.finditer(text, start, end):
        yield found.start(), types[found.lastgroup or "other"], found[0]


def _type(kinds: list[str], number: int) -> _TokenType:
    """What a word of a statement is, by the words around it."""
    kind, before, after = kinds[number], kinds[number - 1] if number else "", (*kinds, "", "")[number + 1]
    if kind == "DECIMAL":
        value = before in _BEFORE_NUMBERS or after in _UNITS or _in_interval(kinds, number)
        signed = before in ("PLUS", "MINUS") and kinds[number - 2] in _BEFORE_NUMBERS
        return Number.Float if value or signed else Name.Builtin
    if before in ("EXPECT", "SET"):
        return Name.Function
    if kind == "NAME":
        return _NAMED.get(before, Name)
    if kind in _NODES:
        return Name.Builtin
    if kind.lower() in IN_PHRASES:
        return Keyword.Type
    if kind.lower() in SOFT:
        return Keyword
    if kind.lower() in KEYWORDS:
        return Keyword if kind.lower() in STATEMENTS else Keyword.Pseudo if kind == "POINTS" else Keyword.Type
    return _TYPES.get(kind, Name)


def _in_interval(kinds: list[str], number: int) -> bool:
    """Whether the last bracket before a word opens an interval, and is still open there."""
    for i in range(number - 1, 0, -1):
        if kinds[i] in ("LSQB", "RSQB"):
            return kinds[i] == "LSQB" and kinds[i - 1] == "IN"
    return False
