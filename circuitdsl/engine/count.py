"""Counted work: what was recomputed, and the least that could have been."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from circuitdsl.engine.batch_index import Array, Plan, Where, all_names, plan, seen_from
from circuitdsl.engine.experiment import Experiment, Positions
from circuitdsl.models.parts import Transformer


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


def floor_block_positions(
    model: Transformer, experiment: Experiment, positions: Positions, n: int, length: int, first: Array | None = None
) -> int:
    """The fewest block-positions that an exact recomputation of an experiment needs on `n` prompts.

    Args:
        first: the first token at which each prompt differs from its partner, before which nothing changes.
    """
    return int(floor_by_prompt(model, experiment, Where.of(positions, n, length, first)).sum())


def floor_by_prompt(
    model: Transformer, experiment: Experiment, where: Where, layers: int | None = None
) -> Int[np.ndarray, " n"]:
    """The fewest block-positions that an exact recomputation of an experiment needs, prompt by prompt.

    Every MLP downstream at every position from the first patched one on, except that the entry layer's MLP runs only
    where its input changed, and the last layer's only at END, the one position that is read.

    Args:
        layers: how many layers have MLPs that matter to what is looked at; by default all.
    """
    what = plan(experiment, model)
    starts, last = where.start(what, model.n_layers), model.n_layers - 1
    upto = model.n_layers if layers is None else layers
    if what.entry >= upto:
        return np.zeros(where.n, dtype=int)
    steps = where.length - starts
    later = steps * max(0, min(upto, last) - what.entry - 1) + (1 if what.entry < last < upto else 0)
    if what.from_embed:
        first = steps if what.entry < last else np.ones(where.n, dtype=int)
    else:
        first = _entry(model, what, where)
    return np.where(starts < where.length, first + later, 0)


def _entry(model: Transformer, what: Plan, where: Where) -> Int[np.ndarray, " n"]:
    """Positions at which the entry layer's MLP reads something else."""
    reads = np.zeros((where.n, where.length), dtype=bool)
    for port, spread in (("q", False), ("k", True), ("v", True), ("in", False)):
        for senders in what.reads.get((what.entry, port), {}).values():
            if model.parallel and port != "in":
                continue
            mask = where.mask(all_names(senders), what.fixed)
            reads |= seen_from(mask, model.blocks[what.entry].attn.window) if spread else mask
    if not model.parallel:
        for names in what.sites.get((what.entry, "z"), {}).values():
            reads |= where.mask(names, what.fixed)
    return reads[:, -1].astype(int) if what.entry == model.n_layers - 1 else reads.sum(axis=1)
