"""What each word of a spec is, for an editor's colours: more than its letters say, as names are looked up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Span
from circuitdsl.language.lexer import IN_PHRASES, KEYWORDS, SOFT
from circuitdsl.lsp.document import Document, parts_of
from circuitdsl.lsp.names import names
from circuitdsl.lsp.pieces import Piece, cut

#: what names are, in the words of the protocol
_OF_NAMES = {
    "circuit": "namespace", "group": "variable", "task": "class", "position": "enumMember", "role": "class",
    "intervention": "class", "direction": "variable", "dictionary": "variable", "option": "keyword",
}  # fmt: skip
_OF_TOKENS = {
    "STRING": "string", "INT": "number", "SCIENTIFIC": "number", "PERCENT": "number", "MLP": "variable",
    "LAYER": "variable", "RESID": "variable", "ARROW": "operator", "RELATION": "operator", "EQUALS": "operator",
    "PLUS": "operator",
    "MINUS": "operator", "STAR": "enumMember", "PORT": "function",
}  # fmt: skip


class Coloured(NamedTuple):
    """A stretch of one row, its type, and whether a name is defined there."""

    span: Span
    type: str
    defines: bool = False


def colours(document: Document) -> list[Coloured]:
    """All coloured stretches in their order; none overlaps another."""
    found = {span: each for each in _of_tokens(document) if (span := each.span)}
    for name in names(document):
        found[name.span] = Coloured(name.span, _OF_NAMES[name.kind], name.defines)
    for comment in document.file.comments:
        span = Span(comment.line, comment.column, comment.line, comment.column + len(comment.text))
        found[span] = Coloured(span, "comment")
    end, kept = (0, 0), []
    for each in sorted(found.values()):
        if each.span[:2] >= end and each.span.line == each.span.end_line and each.span.end_column > each.span.column:
            kept.append(each)
            end = each.span[2:]
    return kept


def _of_tokens(document: Document) -> Iterator[Coloured]:
    heads = {
        piece.span[:2] for line in document.lines for piece in parts_of(line.statement) if isinstance(piece, s.Head)
    }
    measured = {
        piece.name.span
        for line in document.lines
        for piece in parts_of(line.statement)
        if isinstance(piece, s.Measurement)
    }
    lines, _ = cut(document.text)
    for piece in (piece for line in lines for piece in line):
        type_ = "function" if piece.span in measured else _type(piece, piece.span[:2] in heads)
        if type_:
            yield Coloured(piece.span, type_)


def _type(piece: Piece, head: bool) -> str:
    if piece.kind == "DECIMAL":
        return "variable" if head else "number"
    keyword = piece.text in KEYWORDS or piece.kind.lower() in IN_PHRASES | SOFT.keys()
    return "keyword" if keyword else _OF_TOKENS.get(piece.kind, "")
