"""The patch of a claim as TransformerLens hooks, for a notebook that goes on from there.

    patched = hooks("pocket/ioi", 27, model)
    logits = patched.at_end(model.run_with_hooks(patched.tokens, fwd_hooks=patched.fwd_hooks))

`model` is a `TransformerBridge`, its weights as published (no `enable_compatibility_mode`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.changes import EdgePatch, NodePatch, Patch, PathPatch
from circuitdsl.circuit.claims import Circuit, Claim, TaskUse
from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.prompts import SIDES
from circuitdsl.errors import UsageError, UserError
from circuitdsl.interop.names import FINAL, Place, reads_at, writes_at
from circuitdsl.verify.prompts import make_data, means_over
from circuitdsl.verify.session import HOW_CLAIMS_ARE_NAMED, Session, with_overrides

if TYPE_CHECKING:
    from circuitdsl.api import Spec
    from circuitdsl.tasks.dataset import Corrupt, PromptPair

#: what `run_with_hooks` takes
Hooks = list[tuple[str, Callable[..., Any]]]
#: tensors by the name of the hook that gave them
Values = Mapping[str, Tensor]
#: some senders, each at a position
Senders = frozenset[tuple[Node, Position]]
#: prompts that run together for means
AT_ONCE = 64


class NotByHooks(UserError):
    """A patch that hooks cannot make exactly."""


@dataclass(frozen=True, eq=False)
class Patched:
    """A claim's patch on some prompts. All of them run at once: the hooks hold what belongs to each.

    Attributes:
        fwd_hooks: for `run_with_hooks` or `model.hooks`.
        tokens: the prompts to run [n, T], the clean ones (the corrupt ones where the claim denoises). Shorter prompts
            are filled on the right; nothing before sees that.
        ends: the index of END in each prompt [n].
        pairs: the prompts with their positions and answers.
    """

    fwd_hooks: Hooks
    tokens: Int[Tensor, "n T"]
    ends: Int[Tensor, " n"]
    pairs: tuple[PromptPair, ...]

    def at_end(self, values: Float[Tensor, "n T width"]) -> Float[Tensor, "n width"]:
        """What stands at END of each prompt, of logits as the model gives them."""
        return values[torch.arange(len(values), device=values.device), self.ends.to(values.device)]


def hooks(
    spec: Spec | str,
    claim: str | int,
    model: Any,
    *,
    member: str | None = None,
    task: str | None = None,
    prompts: int = 16,
    seed: int | None = None,
    circuit: str | None = None,
    session: Session | None = None,
) -> Patched:
    """The patch of a claim about an edge or a knock-out, as hooks.

    Args:
        claim: its line in the spec, or its id.
        model: a `TransformerBridge` of the spec's model. `.q`, `.k` and `.v` of heads need
            `model.set_use_split_qkv_input(True)`, edges into MLPs `model.set_use_hook_mlp_in(True)`.
        member: one pair of a group edge, as reports name it: `0.3 -> 2.4.q at END`.
        task: which task, where the claim is about several.
        prompts, seed: how many prompts of it, and their seed in place of the spec's.
        circuit: which circuit, where the spec has several.
        session: makes the prompts; by default a new one.

    Raises:
        UsageError: there is no such claim, member or task.
        NotByHooks: the claim patches nothing, or hooks cannot make its patch exactly.
        UserError: what `Session.circuit` raises, and what making prompts does.
    """
    with nullcontext(session) if session else Session() as running:
        found = with_overrides(running.circuit(spec, circuit), prompts, seed)
        stated = _claim(found, str(claim))
        patch, use = _patch(stated, member), _task(found, stated, task)
        source = running.source_of(found)
        data = make_data(found, use, source)
        more = means_over(found, use, source, data)[0]
    positions = {place: token_indices(data.pairs, [place]) for place in patch.positions}
    device = model.cfg.device
    clean, corrupt = (_filled([getattr(p, f"{side}_tokens") for p in data.pairs], device) for side in SIDES)

    def means(names: set[str]) -> Values:
        return _means(model, names, data.pairs, more(), clean.shape[1])

    made = patch_hooks(model, patch, clean, corrupt, positions, means)
    ends = torch.tensor([len(pair.clean_tokens) - 1 for pair in data.pairs])
    return Patched(made, clean if patch.direction == "noise" else corrupt, ends, data.pairs)


def _claim(circuit: Circuit, name: str) -> Claim:
    found = next((claim for claim in circuit.claims if claim.answers_to(name)), None)
    if found is None:
        lines = ", ".join(str(claim.line) for claim in circuit.claims)
        raise UsageError(f"there is no claim {name}", hint=f"{HOW_CLAIMS_ARE_NAMED}; here are lines {lines}")
    if found.under is not None:
        raise NotByHooks(f"line {found.line} is measured under a condition: hooks are made of a patch alone")
    return found


def _patch(claim: Claim, member: str | None) -> EdgePatch | NodePatch:
    patch: Patch | None = getattr(claim.measurement, "patch", None)
    if patch is None:
        raise NotByHooks(f"line {claim.line} patches nothing: {claim.text}", "name an edge or a knock-out")
    if isinstance(patch, PathPatch):
        why = f"line {claim.line} is about a path, whose middle nodes are computed apart"
        raise NotByHooks(why, "take the edge of one of its arrows")
    if isinstance(patch, NodePatch):
        if member is not None:
            raise UsageError("a knock-out has no members", hint="leave member out")
        return patch
    if patch.ablate != "corrupt":
        raise NotByHooks(f"line {claim.line} patches edges with ablate = {patch.ablate}: hooks put in corrupt terms")
    if member is None:
        if not claim.each:
            return patch
        raise UsageError(f"line {claim.line} claims something of each pair", hint=f"name one: {_listed(patch)}")
    chosen = tuple(pair for pair in patch.members if str(pair) == member)
    if not chosen:
        raise UsageError(f"line {claim.line} has no member {member}", hint=f"its members: {_listed(patch)}")
    return EdgePatch(chosen, patch.via_mlps, patch.direction)


def _listed(patch: EdgePatch) -> str:
    return "; ".join(map(str, patch.members))


def _task(circuit: Circuit, claim: Claim, name: str | None) -> TaskUse:
    uses = {use.name: use for use in circuit.tasks if use.name in claim.tasks}
    chosen = name or next(iter(uses))
    if chosen not in uses:
        raise UsageError(f"line {claim.line} is not about task {chosen}", hint=f"its tasks: {', '.join(uses)}")
    return uses[chosen]


def _filled(rows: Sequence[Sequence[int]], device: Any) -> Int[Tensor, "n T"]:
    """Prompts of any lengths, side by side: a prompt's last token is repeated."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows], device=device)


def _means(
    model: Any, names: set[str], pairs: Sequence[PromptPair], over: Iterable[PromptPair | Corrupt], width: int
) -> Values:
    """The means over corrupt prompts of each pair's own stratum and length, filled with zeros up to `width`."""
    same: dict[tuple[str, int], list[tuple[int, ...]]] = {}
    for prompt in over:
        same.setdefault((prompt.stratum, len(prompt.corrupt_tokens)), []).append(prompt.corrupt_tokens)
    kinds = [(pair.stratum, len(pair.corrupt_tokens)) for pair in pairs]
    mean: dict[tuple[str, int], dict[str, Tensor]] = {}
    for kind in dict.fromkeys(kinds):
        total: dict[str, Tensor] = {}
        for some in _filled(same[kind], model.cfg.device).split(AT_ONCE):
            for name, value in _values(model, names, some).items():
                total[name] = total.get(name, 0) + value.sum(0)
        mean[kind] = {name: value / len(same[kind]) for name, value in total.items()}
    found = {}
    for name in names:
        rows = [mean[kind][name] for kind in kinds]
        found[name] = rows[0].new_zeros(len(rows), width, *rows[0].shape[1:])
        for filled, row in zip(found[name], rows, strict=True):
            filled[: len(row)] = row
    return found


# --- a patch, as hooks


def patch_hooks(
    model: Any,
    patch: EdgePatch | NodePatch,
    clean: Int[Tensor, "n T"],
    corrupt: Int[Tensor, "n T"],
    positions: Mapping[Position, Int[Tensor, "n k"]],
    means: Callable[[set[str]], Values] | None = None,
) -> Hooks:
    """Hooks that make a patch in a run of the clean prompts (of the corrupt ones, where it denoises).

    Args:
        positions: token indices of each position of the patch but `*`; -1 stands for none.
        means: gives the mean activations for each prompt, by the names of their hooks.

    Raises:
        NotByHooks: hooks cannot make it exactly.
    """
    _check(model, patch)
    where = {place: _mask(place, positions, clean) for place in patch.positions}
    base, other = (clean, corrupt) if patch.direction == "noise" else (corrupt, clean)
    if isinstance(patch, EdgePatch):
        return _edge_hooks(model, patch, base, other, where)
    places = [(_write(site.node), where[site.position]) for site in patch.sites]
    names = {place.hook for place, _ in places}
    if patch.ablate == "mean" and means is None:
        raise UserError("mean ablation needs the means of activations", hint="pass means, or use hooks()")
    put: Values = {} if patch.ablate == "zero" else means(names) if patch.ablate == "mean" and means else {}
    if patch.ablate == "corrupt":
        put = _values(model, names, other)
    return [
        (name, _replacing([(place.head, mask) for place, mask in places if place.hook == name], put.get(name)))
        for name in sorted(names)
    ]


def _check(model: Any, patch: EdgePatch | NodePatch) -> None:
    """Refuse a patch that hooks of this model cannot make exactly."""
    if not hasattr(model, "hook_dict") or not hasattr(model, "run_with_hooks"):
        raise UsageError(f"{type(model).__name__} is no model of TransformerLens", "pass a TransformerBridge")
    config = model.cfg
    edges = patch.edges if isinstance(patch, EdgePatch) else ()
    nodes = [e.sender for e in edges] + [s.node for s in (patch.sites if isinstance(patch, NodePatch) else ())]
    for node in (*nodes, *(edge.receiver.node for edge in edges)):
        if node.known_after >= config.n_layers or node.head >= config.n_heads:
            raise UsageError(f"this model has no {node}: it has {config.n_layers} layers of {config.n_heads} heads")
    part = next((node for node in nodes if node.is_part), None)
    if part:
        raise NotByHooks(f"{part} is a part of what {part.whole} writes: hooks take whole heads and MLPs")
    streams = [node for node in nodes if node.kind == "resid"]
    if held := next((node for node in nodes if any(stream.holds(node) for stream in streams)), None):
        raise NotByHooks(f"{held} is a term of a residual stream that is patched with it: hooks patch either")
    if streams and isinstance(patch, NodePatch) and patch.ablate == "zero":
        raise NotByHooks(f"{streams[0]} holds biases that belong to no node: a hook would set these to zero, too")
    if any(".ln1_post." in name for name in model.hook_dict):
        raise NotByHooks("this model has norms after attention and MLPs: what a head writes has no hook of its own")
    ports = {edge.receiver.port for edge in edges}
    kept = getattr(config, "n_key_value_heads", None) or config.n_heads
    if ports & {"k", "v"} and kept != config.n_heads:
        raise NotByHooks("heads of this model share keys and values: the .k and .v of one of them have no hook")
    if ports & {"q", "k", "v"} and not config.use_split_qkv_input:
        raise UserError("this model does not hook queries, keys and values", "model.set_use_split_qkv_input(True)")
    if any(edge.receiver.node.kind == "mlp" for edge in edges) and not config.use_hook_mlp_in:
        raise UserError("this model does not hook what MLPs read", "model.set_use_hook_mlp_in(True)")


def _write(node: Node) -> Place:
    place = writes_at(node)
    assert place, "the logits write nothing"
    return place


def _mask(place: Position, positions: Mapping[Position, Tensor], tokens: Tensor) -> Bool[Tensor, "n T"]:
    if place == EVERYWHERE:
        return torch.ones_like(tokens, dtype=torch.bool)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    row, column = (positions[place] >= 0).nonzero(as_tuple=True)
    mask[row, positions[place][row, column]] = True
    return mask


@torch.no_grad()
def _values(model: Any, names: Iterable[str], tokens: Tensor, fwd_hooks: Sequence[Any] = ()) -> Values:
    """What hooks of these names see in a run."""
    found: dict[str, Tensor] = {}
    keep: Hooks = [(name, _keeping(name, found)) for name in names]
    model.run_with_hooks(tokens, fwd_hooks=[*fwd_hooks, *keep])
    return found


def _keeping(name: str, found: dict[str, Tensor]) -> Callable[..., None]:
    def keep(value: Tensor, hook: Any) -> None:
        found[name] = value

    return keep


def _replacing(places: Sequence[tuple[int | None, Tensor]], put: Tensor | None) -> Callable[..., Tensor]:
    """A hook that replaces some heads (or all of a tensor) at some tokens, by zero where nothing is put."""

    def replaced(value: Tensor, hook: Any) -> Tensor:
        value = value.clone()
        new = torch.zeros_like(value) if put is None else put
        for head, mask in places:
            at = (slice(None),) * 2 + (() if head is None else (head,))
            value[at] = torch.where(mask[..., *[None] * (value[at].ndim - 2)], new[at], value[at])
        return value

    return replaced


def _edge_hooks(model: Any, patch: EdgePatch, base: Tensor, other: Tensor, where: Mapping[Position, Tensor]) -> Hooks:
    """Each receiver input reads, for each of its senders, the term of the other run in place of the present one."""
    inputs: dict[Input, Senders] = {}
    for edge in patch.edges:
        inputs[edge.receiver] = inputs.get(edge.receiver, frozenset()) | {(edge.sender, edge.position)}
    names = sorted({_write(edge.sender).hook for edge in patch.edges})
    there, now = _values(model, names, other), dict[str, Tensor]()
    through = _through_mlps(model, patch.edges, inputs, base, there, where) if patch.via_mlps else {}
    made: Hooks = [(name, _keeping(name, now)) for name in names]

    def reading(head: int | None, senders: Mapping[Node, Tensor], more: Tensor | None) -> Callable[..., Tensor]:
        def patched(value: Tensor, hook: Any) -> Tensor:
            value = value.clone()
            read = value if head is None else value[:, :, head]
            for node, mask in senders.items():
                read += mask[..., None] * (_term(model, node, there) - _term(model, node, now))
            if more is not None:
                read += more
            return value

        return patched

    for read, pairs in inputs.items():
        place = reads_at(read)
        made.append((place.hook, reading(place.head, _masks(pairs, where), through.get(read))))
    return made


def _masks(pairs: Senders, where: Mapping[Position, Tensor]) -> dict[Node, Tensor]:
    """At which tokens each sender is patched."""
    masks: dict[Node, Tensor] = {}
    for node, place in sorted(pairs):
        masks[node] = masks[node] | where[place] if node in masks else where[place]
    return masks


def _term(model: Any, node: Node, values: Values) -> Float[Tensor, "n T d"]:
    """What a node writes into the residual stream, as far as it depends on the prompt: without the output bias."""
    value = values[_write(node).hook]
    return value[:, :, node.head] @ model.blocks[node.layer].attn.W_O[node.head] if node.kind == "head" else value


def _through_mlps(
    model: Any,
    edges: Sequence[Edge],
    inputs: Mapping[Input, Senders],
    base: Tensor,
    there: Values,
    where: Mapping[Position, Tensor],
) -> dict[Input, Float[Tensor, "n T d"]]:
    """What MLPs add to the change that each input sees, while attention stays as it is (semantics: via mlps).

    MLPs that are receivers stay as they are at the tokens of their edges.
    """
    layers = range(model.cfg.n_layers)
    parallel = bool(getattr(model.cfg, "parallel_attn_mlp", False))
    heads = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    mlps = [f"blocks.{layer}.hook_mlp_out" for layer in layers]
    streams = {read: _stream(read.node, parallel) for read in inputs}
    writes = {_write(edge.sender).hook for edge in edges}
    clean = _values(model, {*heads, *mlps, *streams.values(), *writes}, base)
    held = _masks(frozenset((e.receiver.node, e.position) for e in edges if e.receiver.node.kind == "mlp"), where)
    stay: Hooks = [(name, _replacing([(None, torch.ones_like(base, dtype=torch.bool))], clean[name])) for name in heads]
    stay += [(_write(node).hook, _replacing([(None, mask)], clean[_write(node).hook])) for node, mask in held.items()]
    found = {}
    for pairs in set(inputs.values()):
        senders = _masks(pairs, where)
        sent: Hooks = [
            (place.hook, _replacing([(place.head, mask)], there[place.hook]))
            for place, mask in ((_write(node), mask) for node, mask in senders.items())
        ]
        readers = [read for read, own in inputs.items() if own == pairs]
        frozen = _values(model, {streams[read] for read in readers}, base, [*stay, *sent])
        direct = sum(m[..., None] * (_term(model, n, there) - _term(model, n, clean)) for n, m in senders.items())
        for read in readers:
            found[read] = frozen[streams[read]] - clean[streams[read]] - direct
    return found


def _stream(node: Node, parallel: bool) -> str:
    """The residual stream that a node reads."""
    if node == LOGITS:
        return FINAL
    return f"blocks.{node.layer}.hook_resid_{'mid' if node.kind == 'mlp' and not parallel else 'pre'}"
