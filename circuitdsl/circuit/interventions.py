"""`intervention` blocks: what they change in the model."""

from __future__ import annotations

from collections.abc import Collection

from circuitdsl.circuit.arguments import attention_arguments, sites_of
from circuitdsl.circuit.bounds import read
from circuitdsl.circuit.changes import Intervention, Replace, Scale, SetAttention, Verb
from circuitdsl.circuit.expressions import evaluate
from circuitdsl.circuit.nodes import Node, is_inside
from circuitdsl.circuit.overlaps import divided_twice
from circuitdsl.circuit.scope import Members, Scope, complete
from circuitdsl.circuit.vocabulary import ABLATIONS
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import listing


def resolve_intervention(scope: Scope, block: s.Intervention) -> Intervention | None:
    """The change that a block describes; None where some verb is wrong, after a diagnostic was emitted."""
    verbs = [line for line in block.block if isinstance(line, s.SetAttention | s.Scale | s.Replace | s.ProjectOut)]
    broken = any(isinstance(line, s.Broken) for line in block.block)
    if block.block and not verbs and not broken:
        help = "add a verb, such as: set attention(mover, END -> IO) = 100%"
        scope.sink.error("E120", f"the intervention {block.name.text} changes nothing", block.name.span, help)
    found: tuple[Verb, ...] | None = complete(_verb(scope, verb) for verb in verbs)
    if not found or broken:
        return None
    for line, verb in zip(verbs, found, strict=True):
        later = found[found.index(verb) + 1 :] if isinstance(verb, Scale) else ()
        parts = {node.whole: node for node in getattr(verb, "nodes", ()) if node.along}
        if replaced := next(
            (parts[x.node] for v in later if isinstance(v, Replace) for x in v.sites if x.node in parts), None
        ):
            message = f"{replaced.whole} is replaced afterwards, with its part {replaced}"
            scope.sink.error("E121", message, line.span, "put 'replace' first")
            return None
    change = Intervention(block.name.text, block.title.text if block.title else "", found, block.span.line)
    if shared := _shared(change.nodes):
        message = f"{shared[0]} and {shared[1]} cannot be changed in one intervention: they share what they write"
        scope.sink.error("E121", message, block.name.span, "change them in interventions of their own")
        return None
    return change


def _shared(nodes: Collection[Node]) -> tuple[Node, Node] | None:
    """A neuron or a feature, and its node or a part of that by another division: heads are one of what they write."""
    wholes = {part.whole for part in nodes if is_inside(part)}
    part = min((node for node in nodes if is_inside(node) and node.whole in nodes), default=None)
    heads = {node for node in nodes if node.kind == "head" and Node("attn", node.layer) in wholes}
    return (part, part.whole) if part else divided_twice(heads | {node for node in nodes if node.whole in wholes})


def _verb(scope: Scope, line: s.Verb) -> Verb | None:
    match line:
        case s.SetAttention(measurement=measurement, value=value):
            name, mass = measurement.name, 1.0 if value.text == "even" else None
            if name.text != "attention":
                help = "write: set attention(mover, END -> IO) = 100%"
                scope.sink.error("E121", f"only attention can be set, not {name.text}", name.span, help)
                return None
            found = attention_arguments(scope, measurement)
            if isinstance(value, s.Number):
                mass = read(scope, value, "share", "attention", 0, 1)
            elif mass is None:
                message = f"attention is set to a share or to 'even', not '{value.text}'"
                scope.sink.error("E121", message, value.span)
            return None if found is None or mass is None else SetAttention(*found, mass)
        case s.Scale(nodes=nodes, factor=factor):
            members = _changed(scope, nodes, components=True)
            by = read(scope, factor, "plain", "a factor")
            return None if members is None or by is None else Scale(tuple(members), by)
        case s.ProjectOut(nodes=nodes):
            members = _changed(scope, nodes, components=True)
            whole = [str(node) for node in members or () if not node.is_part]
            if whole:
                help = f"name one, such as {whole[0]}[0]; to silence a whole node write: replace {whole[0]} with zero"
                what = "only parts of nodes are projected out"
                scope.sink.error("E121", f"{what}, not {listing(whole)}", nodes.span, help)
                return None
            return None if members is None else Scale(tuple(members), 0.0)
        case s.Replace(nodes=nodes, value=word):
            if word.text not in ABLATIONS:
                evaluate(scope, nodes)
                scope.sink.unknown("E047", "replacement", word.text, word.span, ABLATIONS)
                return None
            members = _changed(scope, nodes, components=False)
            sites = None if members is None else sites_of(scope, members, nodes.span)
            return None if sites is None else Replace(sites, word.text)  # type: ignore[arg-type]


def _changed(scope: Scope, nodes: s.Set, components: bool) -> Members | None:
    """The nodes that a verb changes; singular components of heads and directions only where it takes `components`.

    Neurons and features have a value of their own: they are changed as whole nodes are.
    """
    members = evaluate(scope, nodes)
    plain = [node for node in members or () if not is_inside(node)]
    plain = [node for node in plain if not (components and node.along and node.kind != "logits")]
    others = [str(node) for node in plain if node.kind not in ("head", "mlp")]
    single = [str(node) for node in plain if node.is_part and not components]
    if crossing := [node for node in members or () if node.crosses]:
        message = f"{crossing[0]} writes into several MLPs: interventions do not change it yet"
    elif others:
        message = f"interventions change heads, MLPs and features; {listing(others)} is none of these"
    elif single:
        message = f"{listing(single)}: singular components and directions are scaled or projected out, and not replaced"
    else:
        return members
    scope.sink.error("E121", message, nodes.span)
    return None
