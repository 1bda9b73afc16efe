"""How far a circuit owes itself to the prompts it was found on, and whether it is the only one (semantics §8).

Prompts are drawn again with replacement, within strata, and everything is searched again: what share of these resamples
finds a node or an edge? And a search that may not use some of its nodes, drawn so that under half of its edges are
left, says whether other circuits do as much. It tries a few times: what it does not find may be there all the same.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from circuitdsl.circuit.nodes import EMBED, LOGITS, Input, Site
from circuitdsl.discover.needed import NODES, Needed, Where, needed
from circuitdsl.discover.places import END
from circuitdsl.discover.search import Sending, again, inputs_of, siblings
from circuitdsl.engine.prompts import Prompts
from circuitdsl.report.again import Again
from circuitdsl.verdict.means import parts

Array = np.ndarray
#: searches for another circuit
TRIES = 5
#: told what is going on; says whether to go on
Tell = Callable[[str], bool]


@dataclass(frozen=True)
class Stability:
    """How often parts of a circuit are found again.

    Attributes:
        resamples: of the prompts, that were searched to the end.
        again: the shares of them that find the nodes and edges of the circuit, and other nodes.
        others: how many nodes other circuits have that are as faithful and share under half of its edges.
        tries: searches for such circuits.
    """

    resamples: int
    again: Again = field(default_factory=Again)
    others: tuple[int, ...] = ()
    tries: int = 0


def drawn(strata: Array, resamples: int) -> Iterator[Array]:
    """Bootstrap resamples of prompts, within strata."""
    generator, places = np.random.default_rng(0), parts(strata)
    for _ in range(resamples):
        yield np.sort(np.concatenate([generator.choice(here, len(here)) for here in places]))


def stability(
    prompts: Prompts,
    where: Where,
    circuit: Needed,
    sendings: Sequence[Sending],
    threshold: float,
    resamples: int,
    tell: Tell,
) -> Stability:
    """Search resamples of the prompts, and then for other circuits, until told to stop."""
    nodes = Counter(dict.fromkeys(circuit.sites, 0))
    edges = Counter({edge: 0 for one in sendings for edge in one.edges})
    done, start = 0, time.monotonic()
    for number, indices in enumerate(drawn(prompts.strata, resamples)):
        rest = (time.monotonic() - start) / max(number, 1) * (resamples + TRIES - number)
        about = f", about {rest:.0f} s to go" if number else ""

        def told(left: int, value: float, said: str = f"{number + 1} of {resamples}{about}") -> bool:
            return tell(f"resample {said}: {left} parts do {value:.0%} of the behaviour")

        found = needed(prompts, indices, replace(where, given=frozenset()), told)
        if not found.complete:
            break
        sites = found.sites | siblings(prompts, indices, found.sites, where.forbidden, threshold)
        nodes.update(sites)
        edges.update(again(prompts, indices, sendings, sites, threshold))
        done += 1
    others, tries = _others(prompts, where, circuit, tell)
    if not done:
        return Stability(0, others=others, tries=tries)
    of_nodes = {site: count / done for site, count in nodes.items()}
    return Stability(done, Again.of(of_nodes, {edge: count / done for edge, count in edges.items()}), others, tries)


def _others(prompts: Prompts, where: Where, circuit: Needed, tell: Tell) -> tuple[tuple[int, ...], int]:
    """The sizes of other circuits, and how often one was looked for."""
    found, tries, rng, all_edges = dict[frozenset[Site], int](), 0, random.Random(0), edges_of(circuit.sites)
    while tries < TRIES:
        order, left = rng.sample(sorted(circuit.sites), len(circuit.sites)), set(circuit.sites)
        while len(edges_of(left)) >= len(all_edges) / 2:
            left.remove(order.pop())

        def told(parts_left: int, value: float, number: int = tries) -> bool:
            return tell(f"another circuit, try {number + 1} of {TRIES}: {parts_left} parts do {value:.0%}")

        forbidden = where.forbidden | (circuit.sites - left)
        other = needed(
            prompts, np.arange(len(prompts.pairs)), replace(where, given=frozenset(), forbidden=forbidden), told
        )
        if not other.complete:
            break
        tries += 1
        if abs(1 - other.value) <= max(abs(1 - circuit.value), NODES):
            found[other.sites] = len(other.sites)
    return tuple(sorted(found.values())), tries


def edges_of(sites: Collection[Site]) -> frozenset[tuple[Site, Input]]:
    """The edges between nodes at places, from the embedding and to the logits: sender and receiver input."""
    senders = [*(Site(EMBED, place) for place in {site.position for site in sites}), *sites]
    found = {(sender, to) for receiver in sites for sender in senders for to in inputs_of(receiver, sender)}
    return frozenset(found) | {(site, Input(LOGITS, "in")) for site in sites if site.position == END}
