"""Runs of a changed model: attention set by hand, writes scaled or replaced (semantics: interventions).

An intervention changes what heads and MLPs do, and everything downstream is computed from that. Scaling a singular
component of a head is a change of its weights: with `v` the direction along which the component writes, `W_O` becomes
`W_O (I + (x - 1) v v^T)`. What a head writes counts as it is read: centred under LayerNorm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitdsl.circuit.changes import Intervention, Replace, Scale, SetAttention
from circuitdsl.circuit.nodes import EMBED, Node, Position, is_inside, is_number
from circuitdsl.engine.batch_index import Where, ship
from circuitdsl.engine.experiment import PatchError, Positions, check_node
from circuitdsl.engine.passes import Edits
from circuitdsl.engine.runs import Runs, one_run, patterns, unequal
from circuitdsl.engine.terms import Cache, Rows
from circuitdsl.engine.workers import measuring
from circuitdsl.measurements.kept import everything
from circuitdsl.models.parts import Attention, attend
from circuitdsl.models.writers import along, in_whole, is_head_along, kept_if_named, term


@measuring()
def intervene(runs: Runs, intervention: Intervention, positions: Positions) -> Intervened:
    """Run the clean prompts through the changed model.

    Args:
        runs: the clean and corrupt run; with means, where the intervention replaces with them.
        positions: token indices of every position that the intervention names, except `*`.

    Raises:
        PatchError: the intervention names a node that the model lacks, or that cannot be changed so.
    """
    where = Where.of(positions, runs.n, runs.length)
    for verb in intervention.verbs:
        match verb:
            case SetAttention(heads=nodes) | Scale(nodes=nodes):
                named = nodes
            case Replace(sites=sites):
                named = tuple(site.node for site in sites)
        for node in named:
            check_node(runs.model, node)
            if isinstance(verb, SetAttention) and node.kind != "head":
                raise PatchError(f"{node} has no attention that could be set: only heads attend")
            if node.crosses:
                raise PatchError(f"{node} writes into several MLPs: interventions do not change it yet")
            if is_inside(node) and node not in runs.kept.clean:
                raise PatchError(f"the run does not hold the activation of {node}: name it among the run's neurons")
            if (node.along and isinstance(verb, Scale)) or is_inside(node):
                continue
            if node.kind not in ("head", "mlp"):
                raise PatchError(f"an intervention changes heads and MLPs; {node} is neither")
            if node.index >= 0 and (node.kind != "head" or not isinstance(verb, Scale)):
                raise PatchError(f"{node}: singular components of heads are scaled or projected out, and not replaced")
    changed = torch.zeros(runs.n, dtype=torch.bool, device=runs.model.device)
    return Intervened(runs, intervention, where, changed)


@dataclass(eq=False)
class Intervened(Edits):
    """The clean prompts as the changed model runs them.

    Attributes:
        changed: on which prompts the intervention changed what some node writes or attends to.
        cache: the changed model's activations; values of heads and MLPs are the changed ones. Where a head is changed
            along a direction, what it writes is `term_of` its value.
    """

    runs: Runs
    intervention: Intervention
    where: Where
    changed: Bool[Tensor, " n"]
    cache: Cache = field(init=False)
    #: what the heads of a layer wrote, by the layer and the rows that ran together
    _wrote: dict[tuple[int, int], Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        kept = everything(self.runs.model.n_layers, frozenset(kept_if_named(self.runs.kept.clean)))
        self.cache = one_run(self.runs.model, self.runs.clean_tokens, self, kept)
        self._wrote.clear()

    def pattern(self, head: Node) -> Float[Tensor, "n T T"]:
        """The attention pattern of a head: from each position (axis 1) to each (axis 2)."""
        return self.set_pattern(head, patterns(self.runs.model, self.cache, head), slice(None))

    def attend(self, layer: int, attn: Attention, q: Tensor, k: Tensor, v: Tensor, rows: Rows) -> Tensor:
        heads = [Node("head", layer, h) for h in range(attn.n_heads)]
        if not any(isinstance(verb, SetAttention) and set(heads) & set(verb.heads) for verb in self.intervention.verbs):
            return attend(attn, q, k, v)
        found = []
        for h, head in enumerate(heads):
            before = attn.alone(h).pattern(q[:, h] @ k[:, h // attn.group].mT)
            pattern = self._noted(before, self.set_pattern(head, before, rows), rows)
            found.append(pattern.to(v.dtype) @ v[:, h // attn.group])
        return torch.stack(found, dim=2)

    def heads(self, layer: int, z: Tensor, rows: Rows) -> Tensor:
        each = [self._written(Node("head", layer, h), z[:, :, h], rows) for h in range(z.shape[2])]
        found = self._wrote[layer, _key(rows)] = torch.stack(each, dim=2)
        return found

    def attn_out(self, layer: int, out: Tensor, rows: Rows) -> Tensor:
        before, written = out, self._wrote[layer, _key(rows)]
        for head in self._heads_along:
            if head.layer == layer:
                z = written[:, :, head.head]
                out = out + self.term_of(head, z) - term(self.runs.model, head, z)
        return self._noted(before, out, rows)

    def stream(self, layer: int, resid: Tensor, rows: Rows) -> Tensor:
        here = Node("resid", layer) if layer else EMBED
        return self._noted(resid, self._along(lambda node: node.whole == here, resid), rows)

    @property
    def _heads_along(self) -> list[Node]:
        """The heads that are changed along a direction."""
        nodes = (node for verb in self.intervention.verbs if isinstance(verb, Scale) for node in verb.nodes)
        return sorted({node.whole for node in nodes if is_head_along(node)})

    def mlp(self, layer: int, term: Tensor, rows: Rows) -> Tensor:
        return self._written(Node("mlp", layer), term, rows)

    def inside(self, whole: Tensor, parts: dict[Node, Tensor], rows: Rows) -> Tensor:
        before = whole
        for node, value in parts.items():
            old = value[..., None] if is_number(node) else value
            if (new := self._written(node, old, rows)) is not old:
                whole = whole + in_whole(self.runs.model, node, new - old)
                parts[node] = new[..., 0] if is_number(node) else new
        return self._noted(before, whole, rows)

    def set_pattern(self, head: Node, pattern: Float[Tensor, "m T T"], rows: Rows) -> Float[Tensor, "m T T"]:
        """A head's pattern with the rows that are set."""
        for verb in self.intervention.verbs:
            if isinstance(verb, SetAttention) and head in verb.heads:
                source, target = (self._mask(places)[rows] for places in (verb.source, verb.target))
                length = pattern.shape[-1]
                hidden = self.runs.model.blocks[head.layer].attn.hidden(length, length, pattern.device)
                pattern = with_mass(pattern, source, target, verb.mass, hidden)
        return pattern

    def _written(self, node: Node, value: Float[Tensor, "m T _"], rows: Rows) -> Float[Tensor, "m T _"]:
        """The value of a head or MLP after all verbs that change it, in their order."""
        before = value
        for verb in self.intervention.verbs:
            match verb:
                case Scale(nodes=nodes, factor=factor):
                    for each in nodes:
                        if each == node:
                            value = factor * value
                        elif each.whole == node and not is_head_along(each) and not is_inside(each):
                            # of a component of a head, only its part is scaled
                            value = value + (factor - 1) * in_whole(self.runs.model, each, value)
                case Replace(sites=sites, ablate=ablate):
                    for site in sites:
                        if site.node == node:
                            where = self._mask((site.position,))[rows][..., None]
                            value = torch.where(where, self.runs.substitute(ablate, node, rows), value)
        return self._noted(before, value, rows)

    def term_of(self, head: Node, z: Float[Tensor, "*rows d_head"]) -> Float[Tensor, "*rows d"]:
        """What a head writes, given its value, after the verbs that change it along a direction, in their order."""
        return self._along(lambda node: node.whole == head, term(self.runs.model, head, z))

    def term_at_end(self, node: Node) -> Float[Tensor, "n d"]:
        """What a node of the changed model writes at END.

        Raises:
            PatchError: the model has no such node, or it is a component of a head that is changed along a direction.
        """
        check_node(self.runs.model, node)
        value = self.cache.value(node)[:, -1]
        if node.kind == "attn" and any(each[:2] == ("head", node.layer) for each in self.intervention.nodes):
            raise PatchError(f"what {node} writes is not known where heads of its layer are changed")
        if node.whole not in self._heads_along:
            return term(self.runs.model, node, value)
        if node.is_part and not node.along:
            raise PatchError(
                f"{node.whole} is changed along a direction: what its component {node} writes is not known"
            )
        whole = self.term_of(node.whole, value)
        return along(node.along, whole) if node.along else whole

    def _along(self, here: Callable[[Node], bool], out: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """A term or a stream after the verbs that change it along a direction, in their order."""
        for verb in [each for each in self.intervention.verbs if isinstance(each, Scale)]:
            for node in verb.nodes:
                if node.along and here(node):
                    out = out + (verb.factor - 1) * along(node.along, out)
        return out

    def _noted(self, before: Float[Tensor, "m T _"], after: Float[Tensor, "m T _"], rows: Rows) -> Tensor:
        """`after`; the prompts on which it differs from `before` are marked in `changed`."""
        if after is not before:
            self.changed[rows] |= unequal(before, after).any(dim=1)
        return after

    def _mask(self, places: Sequence[Position]) -> Bool[Tensor, "n T"]:
        return ship(self.where.mask(frozenset(places)), self.runs.model.device)


def _key(rows: Rows) -> int:
    assert isinstance(rows, slice), "the changed model runs prompts that follow each other"
    return int(rows.start or 0)


def with_mass(
    pattern: Float[Tensor, "m T T"],
    source: Bool[Tensor, "m T"],
    target: Bool[Tensor, "m T"],
    mass: float,
    hidden: Bool[Tensor, "T T"] | None,
) -> Float[Tensor, "m T T"]:
    """Patterns whose source rows give `mass` to the targets, spread equally, and the rest in the old proportions.

    A row that sees no target keeps its pattern (`hidden` marks what rows do not see). A row that sees only targets
    sums to `mass`.
    """
    seen = target[:, None, :] & torch.ones_like(pattern[0], dtype=torch.bool)
    seen = seen if hidden is None else seen & ~hidden
    count = seen.sum(-1, keepdim=True)
    rest = pattern.masked_fill(seen, 0)
    left = rest.sum(-1, keepdim=True)
    scaled = rest * torch.where(left > 0, (1 - mass) / left.clamp_min(torch.finfo(pattern.dtype).tiny), 0)
    changed = scaled + seen * (mass / count.clamp_min(1))
    return torch.where(source[:, :, None] & (count > 0), changed, pattern)
