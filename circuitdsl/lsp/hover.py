"""What a word means, and what was found of a claim: the text that an editor shows where the cursor rests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from circuitdsl.api import CATALOGUE
from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.roles import built_in
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.dictionaries import known as dictionaries
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Span
from circuitdsl.language.layout import row_of
from circuitdsl.lsp.document import Document, holds, parts_of
from circuitdsl.lsp.names import Name, name_at
from circuitdsl.lsp.pieces import Piece
from circuitdsl.lsp.verdicts import of_row
from circuitdsl.lsp.words import ALL_SAYS, KEYWORD_SAYS, LAYER_SAYS, measurement_says, metric_says
from circuitdsl.tasks.registry import TASKS
from circuitdsl.verify.last import LastVerdict


class Hover(NamedTuple):
    """A text in Markdown, and what it is about."""

    text: str
    span: Span


def hover(document: Document, row: int, column: int, known: Sequence[LastVerdict] = ()) -> Hover | None:
    """What is known of the word at a place, and of the claim in which it stands; None between statements.

    Args:
        known: the last verdicts on the spec's claims.
    """
    line = document.line_at(row)
    if line is None:
        return None
    touched = [piece for piece in document.pieces_of(line.statement) if holds(piece.span, row, column)]
    if not touched:
        return None
    piece = touched[-1]
    name = name_at(document, row, column)
    said = [*_of_piece(document, line.statement, piece, row, name), *of_row(document, row, known)]
    return Hover("\n\n---\n\n".join(said), piece.span) if said else None


def _of_piece(document: Document, statement: s.Statement, piece: Piece, row: int, name: Name | None) -> Iterator[str]:
    word, circuit = piece.text, document.circuit_at(row)
    before = document.rows[row - 1][: piece.span.column - 1].split()[-1:]
    measured = (part.name.span for part in parts_of(statement) if isinstance(part, s.Measurement))
    if piece.kind in ("NAME", "ROLE") and piece.span in measured:
        yield f"**{word}**: {measurement_says(word) or (metric_says(word) if word in METRICS else '')}"
    elif circuit and any(
        isinstance(part, s.Head | s.Mlp | s.Resid) and part.span[:2] == piece.span[:2] for part in parts_of(statement)
    ):
        yield from _node(document, circuit, word, row)
    elif isinstance(statement, s.Metric) and word in METRICS:
        yield f"**{word}**: {metric_says(word)}"
    elif isinstance(statement, s.Task) and word == statement.generator.text and word in CATALOGUE:
        yield _task(word)
    elif isinstance(statement, s.Task) and before == ["="]:
        shape = CATALOGUE.get(statement.generator.text)
        if shape and word in shape.corruptions:
            yield f"**{word}**: {shape.corruptions[word]}"
    elif piece.kind == "LAYER":
        yield f"**{word}**: {LAYER_SAYS.format(word[:-2])}"
    elif word == "all" and word not in document.groups_at(row):
        yield f"**all**: {ALL_SAYS}"
    elif name is not None:
        yield from _name(document, circuit, name, row)
    elif word in KEYWORD_SAYS:
        yield f"**{word}**: {KEYWORD_SAYS[word]}"


def _name(document: Document, circuit: Circuit | None, name: Name, row: int) -> Iterator[str]:
    match name.kind:
        case "group":
            written = document.groups_at(row).get(name.text)
            found = next((one for one in circuit.groups if one.name == name.text), None) if circuit else None
            if written:
                role = f", role {found.role}" if found and found.role else ""
                outside = ", not part of the circuit" if written.outside else ""
                places = f" {written.at[0]}" if written.at else ""
                nodes = " ".join(map(str, found.nodes)) if found else str(written.members)
                yield f"**{name.text}** ({written.kind}): {nodes}{places}{role}{outside}"
        case "position":
            said = {task: shape.positions.get(name.text) for task, shape in document.shapes_at(row).items()}
            lines = [f"**{name.text}** of {task}: {text}" for task, text in said.items() if text]
            if lines:
                yield "\n\n".join(lines)
        case "role":
            yield from _role(document, name.text)
        case "task":
            use = next((one for one in circuit.tasks if one.name == name.text), None) if circuit else None
            if use:
                settings = [f"corrupt = {use.corrupt}"] * bool(use.corrupt)
                settings += [f"prompts = {use.prompts}", f"seed = {use.seed}"]
                yield f"**{name.text}**: {use.generator or use.file} ({', '.join(settings)})"
        case "circuit":
            known = next((one for one in document.circuits if one.name == name.text), None)
            if known:
                yield f"**{known.name}** {known.title}: {len(known.groups)} groups, {len(known.claims)} claims"
        case "direction" | "dictionary":
            made = (line.statement for line in document.lines if isinstance(line.statement, s.Direction | s.Dictionary))
            yield from (f"**{name.text}**: `{row_of(each).text}`" for each in made if each.name.text == name.text)
            for of, *_ in circuit.dictionaries if circuit and name.kind == "dictionary" else ():
                if dictionaries.name_of(of) == name.text:
                    read = dictionaries.known(of).dictionary
                    yield f"{read.d_sae} features; it reads `{read.reads}` and writes `{read.writes[0]}`"
        case "intervention":
            yield f"**{name.text}**: {KEYWORD_SAYS['intervention']}"


def _node(document: Document, circuit: Circuit, word: str, row: int) -> Iterator[str]:
    """The model that a node is of, and the groups in which it is."""
    model = document.model_at(row)
    of = f" of {model.title}, which has {model.n_layers} layers of {model.n_heads} heads" if model else ""
    inside = [group.name for group in circuit.groups if any(str(node.whole) == word for node in group.nodes)]
    groups = f"; in {', '.join(inside)}" if inside else ""
    what = "an MLP" if word.startswith("m") else "a head"
    if word.startswith("resid"):
        layer = word.removeprefix("resid")
        last = model is not None and layer == str(model.n_layers)
        what = f"the residual stream as it enters {'the final norm' if last else f'layer {layer}'}"
    yield f"**{word}**: {what}{of}{groups}"


def _task(name: str) -> str:
    task = TASKS[name]
    corruptions = "".join(f"\n- `corrupt = {key}`: {says}" for key, says in task.corruptions.items())
    options = "".join(f"\n- `{key} = {option.default}`: {option.says}" for key, option in task.options.items())
    return f"**{name}**: {task.title} ({task.source})\n{corruptions}{options}"


def _role(document: Document, name: str) -> Iterator[str]:
    """The checks of a role, the file's own or a built-in one."""
    own = (line.statement for line in document.lines)
    written = next((role for role in own if isinstance(role, s.Role) and role.name.text == name), None)
    title = f" {written.title}" if written and written.title else ""
    checks = [str(getattr(check, "text", "")) for check in written.block] if written else []
    if written is None and name in built_in():
        checks = [(f"{when.text}: " if when else "") + check.text for check, when in built_in()[name].checks]
    if checks:
        yield f"**{name}**{title}\n" + "".join(f"\n- `{check}`" for check in checks)
