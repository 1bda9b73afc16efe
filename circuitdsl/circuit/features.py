"""Features of a dictionary as nodes: parts of what their dictionary writes."""

from __future__ import annotations

from circuitdsl.circuit.nodes import ERROR, Node
from circuitdsl.dictionaries.known import known, register
from circuitdsl.dictionaries.record import Dictionary, DictionaryError


def whole_of(found: Dictionary) -> Node:
    """What the features of a dictionary are parts of: an MLP, or a residual stream.

    Raises:
        DictionaryError: features at its place cannot be patched.
    """
    hook, reads = found.writes[0], found.reads
    if len(found.writes) > 1:
        raise DictionaryError(f"{found.name} is a cross-layer transcoder, whose features write into several MLPs")
    if hook.kind == "mlp_out" and reads.kind in ("mlp_in", "mlp_out") and reads.layer == hook.layer:
        return Node("mlp", hook.layer)
    streams = {"resid_pre": hook.layer, "resid_post": hook.layer + 1}
    if reads == hook and streams.get(hook.kind, 0) > 0:
        return Node("resid", streams[hook.kind])
    between = f"{reads} to {hook}" if found.is_transcoder else str(hook)
    raise DictionaryError(
        f"{found.name} sits at {between}, where features cannot be patched yet",
        hint="nodes are features of hook_mlp_out, of what an MLP reads behind its norm, and of hook_resid_pre or _post",
    )


def feature(name: str, found: Dictionary, index: int) -> Node:
    """A feature of a dictionary, or with `ERROR` what its features leave; raises what `whole_of` raises."""
    if index != ERROR:
        found.check_feature(index)
    return whole_of(found)._replace(index=index, of=register(name, found))


def dictionary_of(node: Node) -> Dictionary:
    """The dictionary that a feature is one of."""
    return known(node.of).dictionary
