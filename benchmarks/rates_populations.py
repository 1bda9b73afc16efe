"""Samples of the effects that patching really has (`populations.py`), drawn as tasks draw prompts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitdsl.circuit.vocabulary import METRICS, Metric
from circuitdsl.measurements.requests import Figure, figure_of
from circuitdsl.verdict.means import Range, Shared

Array = NDArray[np.float64]

#: effects below this share of the gap say nothing of a bound at the effect itself
LEAST = 1e-4
#: effects of a task by one metric that are drawn, those that are known by name among them
MOST = 20
NAMED = ("embed -> 0.6.v at S2 noise", "0.3 corrupt at * noise")


def figure(metric: str) -> Figure:
    """What a metric, or the attention of heads, gives on a prompt."""
    return Figure(metric) if metric == "attention" else figure_of(Metric(metric))


@dataclass(frozen=True, eq=False)
class Population:
    """What patching does to one metric of one task, on every prompt.

    Attributes:
        members: the prompts of each stratum.
        names, d, base, shared: of each effect: its name, patched - base, the base, and which score of `g` that is.
        g: clean - corrupt.
        values: figures that are measured as they are.
        about: whether claims are made on `effects`, or on `values` and on changes that no gap is measured for.
    """

    task: str
    metric: str
    members: tuple[NDArray[np.intp], ...]
    names: tuple[str, ...]
    d: Array
    base: Array
    shared: tuple[Shared, ...]
    g: Array
    values: Array
    about: str = "effects"

    @property
    def range(self) -> Range:
        return figure(self.metric).low, figure(self.metric).high

    @property
    def span(self) -> float:
        return self.range[1] - self.range[0]

    @property
    def hits(self) -> bool:
        return figure(self.metric).hits

    @property
    def falls(self) -> bool:
        return self.metric != "attention" and METRICS[self.metric].falls

    def truth(self, y: Array) -> float:
        """The mean of strata that each count alike."""
        return float(np.mean([np.mean(y[index]) for index in self.members]))

    @cached_property
    def deltas(self) -> list[float]:
        return [self.truth(d) for d in self.d]

    @cached_property
    def gap(self) -> float:
        return self.truth(self.g)

    def effect(self, e: int) -> float:
        return self.deltas[e] / self.gap

    def draw(self, samples: int, n: int, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Prompts [samples, n] and their strata [n]: dealt to the strata in turn, in another order at every turn."""
        k = len(self.members)
        strata = np.concatenate([rng.permutation(k) for _ in range(-(-n // k))])[:n]
        prompts = np.zeros((samples, n), np.intp)
        for s, index in enumerate(self.members):
            prompts[:, strata == s] = rng.choice(index, (samples, int(np.sum(strata == s))))
        return prompts, strata

    def permuted(self, seed: int, alike: Array) -> NDArray[np.intp]:
        """Another order of all prompts that leaves each in its stratum, among those that are alike."""
        rng, order = np.random.default_rng(seed), np.arange(len(self.g))
        for index in self.members:
            for one in np.unique(alike[index]):
                group = index[alike[index] == one]
                order[group] = rng.permutation(group)
        return order


def load(folder: Path, task: str, metric: str, about: str = "effects", seed: int = 0) -> Population:
    """The population of a task by a metric, or of its heads' attention."""
    stored = np.load(folder / f"{task}.npz")
    strata = stored["strata"]
    members = tuple(np.flatnonzero(strata == s) for s in range(int(strata.max()) + 1))
    if metric == "attention":
        looked = stored["attention"].astype(float)
        kept = looked[np.ptp(looked, axis=1) > 1e-3]
        none = np.zeros((0, len(strata)))
        return Population(task, metric, members, (), none, none, (), np.ones(len(strata)), kept, about)
    clean, corrupt = (stored[f"{metric}/{name}"].astype(float) for name in ("clean", "corrupt"))
    denoise = stored["forms"] == "denoise"
    change, gap = stored[f"{metric}/change"].astype(float), clean - corrupt
    candidates = np.flatnonzero(np.abs(change.mean(1) / gap.mean()) > LEAST)
    order = np.random.default_rng(seed).permutation(candidates)
    named = np.isin(stored["names"][order], NAMED)
    chosen = [*order[named], *order[~named]][:MOST]
    base = np.where(denoise[chosen, None], corrupt, clean)
    names = tuple(map(str, stored["names"][chosen]))
    shared: tuple[Shared, ...] = tuple("second" if denoise[i] else "first" for i in chosen)
    values = [y for y in (clean, corrupt, *(base + change[chosen])[:4]) if np.ptp(y) > 1e-3]
    shown = np.clip(np.array(values), figure(metric).low, figure(metric).high)
    return Population(task, metric, members, names, change[chosen], base, shared, gap, shown, about)
