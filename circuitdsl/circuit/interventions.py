"""`intervention` blocks: what they change in the model."""

from __future__ import annotations

from circuitdsl.circuit.arguments import attention_arguments, sites_of
from circuitdsl.circuit.bounds import read
from circuitdsl.circuit.changes import Intervention, Replace, Scale, SetAttention, Verb
from circuitdsl.circuit.expressions import evaluate
from circuitdsl.circuit.nodes import Node
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import ABLATIONS
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import listing


def resolve_intervention(scope: Scope, block: s.Intervention) -> Intervention | None:
    """The change that a block describes; None when some verb is wrong (and said so)."""
    verbs = [line for line in block.block if isinstance(line, s.SetAttention | s.Scale | s.Replace | s.ProjectOut)]
    if block.block and not verbs and not any(isinstance(line, s.Broken) for line in block.block):
        help = "add a verb, such as: set attention(mover, END -> IO) = 100%"
        scope.sink.error("E120", f"the intervention {block.name.text} changes nothing", block.name.span, help)
        return None
    if not verbs:
        return None
    found = [_verb(scope, verb) for verb in verbs]
    known = tuple(verb for verb in found if verb is not None)
    if len(known) < len(verbs) or any(isinstance(line, s.Broken) for line in block.block):
        return None
    title = block.title.text if block.title else ""
    return Intervention(block.name.text, title, known, block.span.line)


def _verb(scope: Scope, line: s.Verb) -> Verb | None:
    match line:
        case s.SetAttention():
            return _set_attention(scope, line)
        case s.Scale(nodes=nodes, factor=factor):
            found = _writers(scope, nodes)
            value = read(scope, factor, "plain", "a factor")
            return None if found is None or value is None else Scale(found, value)
        case s.ProjectOut(nodes=nodes):
            found = _writers(scope, nodes)
            whole = [str(node) for node in found or () if node.index < 0]
            if whole:
                help = f"name one, such as {whole[0]}[0]; to silence a whole node write: replace {whole[0]} with zero"
                scope.sink.error("E121", f"{listing(whole)}: singular components are projected out", nodes.span, help)
                return None
            return None if found is None else Scale(found, 0.0)
        case s.Replace(nodes=nodes, value=value):
            return _replace(scope, nodes, value)


def _set_attention(scope: Scope, line: s.SetAttention) -> SetAttention | None:
    if line.measurement.name.text != "attention":
        message = f"only attention can be set, not {line.measurement.name.text}"
        scope.sink.error("E121", message, line.measurement.name.span, "write: set attention(mover, END -> IO) = 100%")
        return None
    found = attention_arguments(scope, line.measurement)
    mass = _mass(scope, line.value)
    if found is None or mass is None:
        return None
    heads, source, target, _ = found
    return SetAttention(heads, source, target, mass)


def _mass(scope: Scope, value: s.Number | s.Word) -> float | None:
    """`even` gives the targets everything; a share gives them that much."""
    if isinstance(value, s.Number):
        return read(scope, value, "share", "attention", 0, 1)
    if value.text == "even":
        return 1.0
    scope.sink.error("E121", f"attention is set to a share or to 'even', not '{value.text}'", value.span)
    return None


def _replace(scope: Scope, nodes: s.Set, value: s.Word) -> Replace | None:
    members = evaluate(scope, nodes)
    if value.text not in ABLATIONS:
        scope.sink.unknown("E047", "replacement", value.text, value.span, ABLATIONS)
        return None
    if members is None or not _heads_and_mlps(scope, tuple(members), nodes, components=False):
        return None
    sites = sites_of(scope, members, nodes.span)
    return None if sites is None else Replace(sites, value.text)  # type: ignore[arg-type]


def _writers(scope: Scope, nodes: s.Set) -> tuple[Node, ...] | None:
    members = evaluate(scope, nodes)
    if members is None or not _heads_and_mlps(scope, tuple(members), nodes, components=True):
        return None
    return tuple(members)


def _heads_and_mlps(scope: Scope, members: tuple[Node, ...], nodes: s.Set, components: bool) -> bool:
    others = [str(node) for node in members if node.kind not in ("head", "mlp")]
    if others:
        scope.sink.error("E121", f"interventions change heads and MLPs; {listing(others)} is neither", nodes.span)
        return False
    single = [str(node) for node in members if node.index >= 0 and (node.kind == "mlp" or not components)]
    if single:
        what = "singular components of heads are scaled or projected out, nothing else is done to a part of a node"
        scope.sink.error("E121", f"{listing(single)}: {what}", nodes.span)
    return not single
