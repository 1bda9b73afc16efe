"""Counted work: what was recomputed, and the least that could have been."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circuitdsl.models.parts import Transformer
from circuitdsl.patching.patch import Experiment, Positions
from circuitdsl.patching.tables import Plan, Where, all_names, plan


@dataclass
class Tally:
    """Work done so far, to be passed to `effects`. A block-position is one layer's MLP at one position of one run.

    Attributes:
        block_positions: recomputed downstream of patches.
        flow_positions: MLPs computed for edges via MLPs.
        experiments: distinct experiments run.
        batches: live passes.
    """

    block_positions: int = 0
    flow_positions: int = 0
    experiments: int = 0
    batches: int = 0


def floor_block_positions(model: Transformer, experiment: Experiment, positions: Positions, n: int, length: int) -> int:
    """The fewest block-positions that an exact recomputation of an experiment needs on `n` prompts.

    Every MLP downstream at every position from the first patched one on, except that the entry layer's MLP runs only
    where its input changed, and the last layer's only at END, the one position that is read.
    """
    what, where = plan(experiment, model), Where.of(positions, n, length)
    starts = where.start(what, model.n_layers)
    if what.entry == model.n_layers:
        return 0
    total = 0
    for row, start in enumerate(starts):
        if start < length:
            later = [_steps(model, layer, length, int(start)) for layer in range(what.entry, model.n_layers)]
            total += sum(later) if what.from_embed else _entry(model, what, where, row) + sum(later[1:])
    return total


def _steps(model: Transformer, layer: int, length: int, start: int) -> int:
    return 1 if layer == model.n_layers - 1 else length - start


def _entry(model: Transformer, what: Plan, where: Where, row: int) -> int:
    """Positions at which the entry layer's MLP reads something else."""
    reads = np.zeros(where.length, dtype=bool)
    for port, spread in (("q", False), ("k", True), ("v", True), ("in", False)):
        for senders in what.reads.get((what.entry, port), {}).values():
            if model.parallel and port != "in":
                continue
            mask = where.mask(all_names(senders))[row]
            reads |= np.logical_or.accumulate(mask) if spread else mask
    if not model.parallel:
        for names in what.sites.get((what.entry, "z"), {}).values():
            reads |= where.mask(names)[row]
    return int(reads[-1] if what.entry == model.n_layers - 1 else reads.sum())
