"""What is changed while something is measured: a patch, a knock-out, or the model itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from circuitdsl.circuit.nodes import Ablation, Node, Position, Site

if TYPE_CHECKING:
    from circuitdsl.circuit.measurements import EdgeEffect, NodeEffect


@dataclass(frozen=True, slots=True)
class SetAttention:
    """From the source positions the heads give `mass` to the targets, spread equally; the rest is scaled to fit."""

    heads: tuple[Node, ...]
    source: tuple[Position, ...]
    target: tuple[Position, ...]
    mass: float


@dataclass(frozen=True, slots=True)
class Scale:
    """What nodes (or singular components of heads) write is multiplied, at every position; 0 projects it out."""

    nodes: tuple[Node, ...]
    factor: float


@dataclass(frozen=True, slots=True)
class Replace:
    """What nodes write at their positions is replaced, as in a knock-out."""

    sites: tuple[Site, ...]
    ablate: Ablation


Verb = SetAttention | Scale | Replace


@dataclass(frozen=True, slots=True)
class Intervention:
    """A change of the model: its verbs, applied in their order."""

    name: str
    title: str
    verbs: tuple[Verb, ...]
    line: int = field(default=0, compare=False)

    @property
    def positions(self) -> tuple[Position, ...]:
        """Every position that its verbs name, each once."""
        found: list[Position] = []
        for verb in self.verbs:
            match verb:
                case SetAttention(source=source, target=target):
                    found += [*source, *target]
                case Replace(sites=sites):
                    found += [site.position for site in sites]
        return tuple(dict.fromkeys(found))

    @property
    def means(self) -> bool:
        """Whether some node is replaced by its mean."""
        return any(isinstance(verb, Replace) and verb.ablate == "mean" for verb in self.verbs)


@dataclass(frozen=True, slots=True)
class Condition:
    """What holds while a claim is measured: `when EDGE is patched`, `when GROUP is knocked out`, an intervention."""

    effect: EdgeEffect | NodeEffect | Intervention
    line: int = field(compare=False)
    text: str
