"""Places and texts as the protocol has them: rows from 0, columns in the units that the client counts in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lsprotocol import types

from circuitdsl.language.diagnostics import Diagnostic, Fix, Span, lines_of
from circuitdsl.lsp.legend import MARK, TYPES

if TYPE_CHECKING:
    from circuitdsl.lsp.colours import Coloured
    from circuitdsl.lsp.outline import Entry

Kind = types.SymbolKind
_SYMBOLS: Mapping[str, types.SymbolKind] = {
    "circuit": Kind.Namespace, "group": Kind.Variable, "task": Kind.Class, "role": Kind.Interface,
    "intervention": Kind.Event, "property": Kind.Property, "condition": Kind.Event, "comparison": Kind.Operator,
    "claim": Kind.Boolean,
}  # fmt: skip
Completion = types.CompletionItemKind
COMPLETIONS: Mapping[str, types.CompletionItemKind] = {
    "keyword": Completion.Keyword, "group": Completion.Variable, "node": Completion.Unit,
    "position": Completion.EnumMember, "task": Completion.Class, "role": Completion.Interface,
    "measurement": Completion.Function, "metric": Completion.Function, "option": Completion.Property,
    "value": Completion.Value, "file": Completion.File,
}  # fmt: skip
_SEVERITIES = {"error": types.DiagnosticSeverity.Error, "warning": types.DiagnosticSeverity.Warning}
#: a warning about something that is never used, which editors show faded
_UNUSED = frozenset({"W003"})


class Converter:
    """Converts places of one text.

    Args:
        text: as the client has it.
        encoding: in which units the client counts columns: `utf-8`, `utf-16` or `utf-32`.
    """

    def __init__(self, text: str, encoding: str) -> None:
        self.mark = MARK * text.startswith(MARK)
        self.rows = lines_of(text)
        self.encoding = encoding

    def position(self, row: int, column: int) -> types.Position:
        """A place in the protocol's units."""
        if row > len(self.rows):
            return types.Position(len(self.rows) - 1, self._units(self.rows[-1]))
        return types.Position(row - 1, self._units(self.rows[row - 1][: self._shift(row) + column - 1]))

    def range(self, span: Span) -> types.Range:
        """A span in the protocol's units."""
        return types.Range(self.position(span.line, span.column), self.position(span.end_line, span.end_column))

    def place(self, position: types.Position) -> tuple[int, int]:
        """The row and column of a place that the client names, which may lie behind the end of its row."""
        row = min(position.line, len(self.rows) - 1) + 1
        text, units, column = self.rows[row - 1], 0, 0
        while column < len(text) and units < position.character:
            units += self._units(text[column])
            column += 1
        return row, max(column - self._shift(row), 0) + 1

    def _shift(self, row: int) -> int:
        """Characters that the text has there before its first column."""
        return len(self.mark) if row == 1 else 0

    def _units(self, text: str) -> int:
        if self.encoding == "utf-32" or text.isascii():
            return len(text)
        if self.encoding == "utf-8":
            return len(text.encode("utf-8", "replace"))
        return len(text) + sum(ord(character) > 0xFFFF for character in text)

    # --- whole answers

    def diagnostic(self, found: Diagnostic) -> types.Diagnostic:
        """A diagnostic with its notes and its help as further lines of the message."""
        more = [*(f"note: {note}" for note in found.notes), *([f"help: {found.help}"] if found.help else [])]
        return types.Diagnostic(
            range=self.range(found.span),
            message="\n".join([found.message, *more]),
            severity=_SEVERITIES[found.severity],
            code=found.code,
            source="circuitdsl",
            tags=[types.DiagnosticTag.Unnecessary] if found.code in _UNUSED else None,
        )

    def edits(self, fixes: Iterable[Fix]) -> list[types.TextEdit]:
        return [types.TextEdit(self.range(fix.span), fix.text) for fix in fixes]

    def symbols(self, entries: Iterable[Entry]) -> list[types.DocumentSymbol]:
        return [
            types.DocumentSymbol(
                name=entry.name,
                detail=entry.detail,
                kind=_SYMBOLS[entry.sort],
                range=self.range(entry.span),
                selection_range=self.range(entry.name_span),
                children=self.symbols(entry.inside),
            )
            for entry in entries
        ]

    def tokens(self, found: Sequence[Coloured]) -> types.SemanticTokens:
        """Coloured stretches, five numbers each: rows and columns from the one before, length, type, modifiers."""
        data: list[int] = []
        before = types.Position(0, 0)
        for each in found:
            span = self.range(each.span)
            rows = span.start.line - before.line
            columns = span.start.character - (0 if rows else before.character)
            length = span.end.character - span.start.character
            data += [rows, columns, length, TYPES.index(each.type), int(each.defines)]
            before = span.start
        return types.SemanticTokens(data)


def uri_of(path: str) -> str:
    """The address of a file."""
    return Path(path).absolute().as_uri()
