"""Which heads and MLPs a behaviour needs, and where: the smallest circuit of nodes at places that does all of it.

Everything outside is ablated to its mean, which is how a draft says what its circuit does alone. First whole places
are left out, then nodes at those that are left (`pruning.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool

from circuitdsl.circuit.nodes import EVERYWHERE, Node, Position, Site
from circuitdsl.discover.pruning import Progress, Pruning
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.site_runs import ALWAYS, SiteRuns
from circuitdsl.verify.anew import mean_terms_of

Array = np.ndarray
#: how far from the whole behaviour a circuit may be once places are chosen, and at the end
PLACES, NODES = 0.03, 0.05
#: nodes that a search gives which was stopped: those that do most
MOST = 32


@dataclass(frozen=True, slots=True)
class Needed:
    """A circuit, how much of the behaviour it does, and whether the search for it came to its end.

    Where it was stopped, these are the nodes that do most, and the value is of the circuit that they were taken from.
    """

    sites: frozenset[Site]
    value: float
    complete: bool


@dataclass(frozen=True, slots=True)
class Where:
    """What a search of nodes may choose from.

    Attributes:
        places: where.
        given: nodes that the circuit has, whatever the search finds.
        forbidden: nodes that it has not.
        mlps: whether MLPs are searched; otherwise all of them stay.
    """

    places: tuple[Position, ...]
    given: frozenset[Site] = frozenset()
    forbidden: frozenset[Site] = frozenset()
    mlps: bool = True

    def sites(self, layers: int, heads: int) -> Iterator[Site]:
        """The nodes to choose from, by place."""
        for place in self.places:
            for layer in range(layers):
                nodes = [Node("head", layer, head) for head in range(heads)]
                for node in (*nodes, Node("mlp", layer)) if self.mlps else nodes:
                    if (site := Site(node, place)) not in self.given and site not in self.forbidden:
                        yield site


def needed(prompts: Prompts, indices: Array, where: Where, progress: Progress) -> Needed:
    """The smallest circuit that is found on some prompts; one may come several times."""
    model = prompts.model
    stay = () if where.mlps else [Site(Node("mlp", layer), EVERYWHERE) for layer in range(model.n_layers)]
    fixed = (*sorted(where.given), *stay)
    sites, runs = list(where.sites(model.n_layers, model.n_heads)), partial(_runs, prompts, indices, fixed)
    numbers = {place: i for i, place in enumerate(dict.fromkeys(site.position for site in sites))}
    by_place = Pruning(runs(sites, [numbers[site.position] for site in sites]), progress)
    few = by_place.smallest(PLACES)
    sites = [site for site in sites if few.kept[numbers[site.position]]]
    by_node = Pruning(runs(sites, range(len(sites))), progress, by_place.goal, by_place.complete)
    found = by_node.smallest(NODES)
    kept = found.kept.nonzero()[0]
    if not by_node.complete:
        kept = kept[np.argsort(-np.abs(found.gains[kept]), kind="stable")[:MOST]]
    return Needed(where.given | {sites[i] for i in kept}, found.value, by_node.complete)


def alone(prompts: Prompts, indices: Array, circuit: Collection[Site]) -> float:
    """How much of the behaviour some nodes do alone."""
    sites = sorted(circuit)
    every: Bool[Array, " sites"] = np.ones(len(sites), bool)
    return _runs(prompts, indices, (), sites, range(len(sites))).faithfulness(every)


def _runs(
    prompts: Prompts, indices: Array, fixed: Sequence[Site], sites: Sequence[Site], units: Sequence[int]
) -> SiteRuns:
    numbers = np.asarray([*units, *[ALWAYS] * len(fixed)], int)
    return SiteRuns(prompts, indices, (*sites, *fixed), numbers, means=partial(mean_terms_of, prompts))
