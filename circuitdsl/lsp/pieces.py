"""A text as words and signs, statement by statement, whether or not it can be parsed."""

from __future__ import annotations

from typing import NamedTuple

from circuitdsl.language.diagnostics import Sink, Span
from circuitdsl.language.lexer import Comment, logical_lines


class Piece(NamedTuple):
    """A word or sign with its terminal."""

    kind: str
    text: str
    span: Span


def cut(text: str) -> tuple[list[list[Piece]], list[Comment]]:
    """The pieces of each statement, and all comments."""
    lines, comments = logical_lines(text, Sink())
    return [[Piece(token.type, str(token), token.span) for token in line.tokens] for line in lines], comments
