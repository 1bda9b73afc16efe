"""Writes every shipped spec with the scopes that its words must have, for vscode-tmgrammar-test.

    python expected.py FOLDER

What a word is, the language's own reader says; so the grammar is held to it, and no keyword can be forgotten.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from circuitdsl.api import shipped_specs
from circuitdsl.language import syntax as s
from circuitdsl.language.lexer import KEYWORDS
from circuitdsl.lsp.document import Document, parts_of, read
from circuitdsl.lsp.names import Name, names
from circuitdsl.lsp.pieces import Piece, cut

GRAMMAR = Path(__file__).parent.parent / "syntaxes" / "circ.tmLanguage.json"
OF_KINDS = {
    "MLP": "constant.other.node.circ", "LAYER": "constant.other.node.circ",
    "PORT": "entity.other.attribute-name.input.circ", "STRING": "string.quoted.double.circ",
    "ARROW": "keyword.operator.arrow.circ",
    "RELATION": "keyword.operator.circ", "EQUALS": "keyword.operator.circ", "PERCENT": "constant.numeric.unit.circ",
    "POSITION": "constant.other.position.circ", "SCIENTIFIC": "constant.numeric.circ",
    "INT": "constant.numeric.circ",
}  # fmt: skip
DEFINED = {
    "circuit": "entity.name.namespace.circ",
    "group": "variable.other.definition.circ", "dictionary": "variable.other.definition.circ",
    "direction": "variable.other.definition.circ",
    "task": "entity.name.type.circ", "role": "entity.name.type.circ", "intervention": "entity.name.type.circ",
}  # fmt: skip


def keyword_scopes() -> dict[str, str]:
    """The scope of each keyword, as the grammar lists them."""
    repository = json.loads(GRAMMAR.read_text(encoding="utf-8"))["repository"]
    rows = [*repository["keyword"]["patterns"], repository["node"]["patterns"][2]]
    found = {word: row["name"] for row in rows for word in row["match"].split("(")[1].split(")")[0].split("|")}
    assert set(found) == KEYWORDS, set(found) ^ KEYWORDS
    return found


def scopes(document: Document) -> Iterator[tuple[Piece, str]]:
    """The words of a spec, each with its scope."""
    words = keyword_scopes()
    parts = [part for line in document.lines for part in parts_of(line.statement)]
    heads = {part.span[:2] for part in parts if isinstance(part, s.Head)}
    numbers = {part.span[2:] for part in parts if isinstance(part, s.Number)}
    named = {name.span: name for name in names(document)}
    lines, _ = cut(document.text)
    for line in lines:
        before = ""
        for piece in line:
            name = named.get(piece.span)
            yield piece, _scope(piece, before, line, words, heads, numbers, name)
            before = piece.kind


def _scope(
    piece: Piece, before: str, line: list[Piece], words: dict[str, str], heads: set, numbers: set, name: Name | None
) -> str:
    if before in ("EXPECT", "SET") and piece == line[1]:
        return "support.function.circ"
    if piece.kind == "NAME" and before == "RELATION":  # the other figure of a comparison
        return "support.function.circ"
    if name is not None and name.defines:
        return DEFINED[name.kind]
    if before == "METRIC":
        return "entity.name.type.circ"
    at = line.index(piece)
    if piece.kind == "NAME" and [each.kind for each in line[at + 1 : at + 2]] == ["LSQB"]:
        return "constant.other.node.circ"
    if before == "LSQB" and line[at - 2].kind in ("DECIMAL", "MLP", "NAME") and piece.text not in words:
        return "constant.numeric.index.circ" if piece.kind == "INT" or piece.text == "error" else "variable.other.circ"
    if piece.text == "points" and piece.span[2:] in numbers:
        return "constant.numeric.unit.circ"
    if piece.kind == "PATH":
        return "keyword.control.circ"
    if piece.text in words:
        return words[piece.text]
    if piece.text == "all":
        return OF_KINDS["LAYER"]
    if piece.kind == "DECIMAL":
        return "constant.other.node.circ" if piece.span[:2] in heads else "constant.numeric.circ"
    return OF_KINDS.get(piece.kind, "variable.other.circ" if piece.kind == "NAME" else "")


def expectations(path: Path) -> str:
    """The text of a spec with a line of comments below every word."""
    document = read(str(path), path.read_text(encoding="utf-8"))
    below: dict[int, list[str]] = {}
    for piece, scope in scopes(document):
        row, column, _, end = piece.span
        if scope:
            below.setdefault(row, []).append(_assertion(column, end, scope))
    for comment in document.file.comments:
        end = comment.column + len(comment.text)
        below.setdefault(comment.line, []).append(_assertion(comment.column, end, "comment.line.number-sign.circ"))
    rows = [f'# SYNTAX TEST "source.circ" "{path.parent.name}/{path.stem}"']
    for number, row in enumerate(document.rows, 1):
        rows += [row, *below.get(number, ())]
    return "\n".join(rows) + "\n"


def _assertion(column: int, end: int, scope: str) -> str:
    """A scope under a word; one at the start of its line has the comment's sign above itself."""
    return f"# <{'-' * (end - 1)} {scope}" if column == 1 else f"#{' ' * (column - 2)}{'^' * (end - column)} {scope}"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for spec in sorted(shipped_specs().rglob("*.circ")):
        (folder / f"{spec.parent.name}-{spec.stem}.test.circ").write_text(expectations(spec), encoding="utf-8")
