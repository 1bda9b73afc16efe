"""How much work patching is: what was recomputed, the least that is possible, and the speed of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.batch_index import Plan, Where, all_names, seen_from
from circuitdsl.engine.runs import run
from circuitdsl.models.parts import Transformer, changed

#: prompts and tokens of the runs that are timed, and seconds that each timing may take
PROMPTS, TOKENS, SECONDS = 32, 20, 0.05
#: a pass over a batch makes about so many times the tensor operations of a plain run
MORE_CALLS = 2


def floor_of(model: Transformer, what: Plan, where: Where, layers: int | None = None) -> Int[np.ndarray, " n"]:
    """The fewest block-positions that an exact recomputation of an experiment needs, prompt by prompt.

    Every MLP downstream at every position from the first patched one on, except that the entry layer's MLP runs only
    where its input changed, and the last layer's only at END, the one position that is read.

    Args:
        layers: how many layers have MLPs that affect what is read; by default all.
    """
    starts, last = where.start(what, model.n_layers), model.n_layers - 1
    upto = model.n_layers if layers is None else layers
    if what.entry >= upto:
        return np.zeros(where.n, dtype=int)
    later = (where.length - starts) * max(0, min(upto, last) - what.entry - 1) + int(what.entry < last < upto)
    reads = np.zeros((where.n, where.length), dtype=bool)  # where the entry layer's MLP reads something else
    inside = np.zeros_like(reads, dtype=int)  # and once more for parts of it that read other things
    for senders in set(what.reads.get((what.entry, "mlp"), {}).values()):
        inside += where.mask(all_names(senders), what.fixed)
    for port, spread in (("q", False), ("k", True), ("v", True), ("mid", False), ("in", False)):
        for senders in what.reads.get((what.entry, port), {}).values():
            if port == "in" or not model.parallel:
                mask = where.mask(all_names(senders), what.fixed)
                reads |= seen_from(mask, model.blocks[what.entry].attn.window) if spread else mask
    if not model.parallel:
        for kind in ("head", "attn", "mid"):
            for names in what.sites.get(Node(kind, what.entry), {}).values():
                reads |= where.mask(names, what.fixed)
    inside += reads
    first = inside[:, -1] if what.entry == last else inside.sum(axis=1)
    return np.where(starts < where.length, first + later, 0)


@dataclass(frozen=True, slots=True)
class Machine:
    """Measured speed of a device: seconds of a layer for each position, and the least that a call of it takes."""

    position: float
    layer: float

    def seconds(self, positions: float, passes: int, layers: int) -> float:
        """An estimate for so many layers at single positions, in so many passes through all layers."""
        return positions * self.position + passes * layers * MORE_CALLS * self.layer


def calibrate(model: Transformer, device: torch.device) -> Machine:
    """Measure the machine on one layer of a model's shape and number format; the model's weights are not needed."""
    few = torch.zeros(8, model.d_model, dtype=model.dtype, device=device)
    places = None if model.W_pos is None else few.new_zeros(model.n_ctx, model.d_model)
    one = replace(model, blocks=model.blocks[:1], W_E=few, W_U=few, W_pos=places, b_U=None)
    one = changed(one, partial(_filled, device=device))
    length = min(TOKENS, model.n_ctx)
    many = torch.zeros(PROMPTS, length, dtype=torch.long)
    whole = _seconds(lambda: run(one, many, many), device) / 2
    least = _seconds(lambda: run(one, many[:1, :1], many[:1, :1]), device) / 2
    return Machine(whole / (PROMPTS * length), least)


def _filled(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the same shape, number format and order of axes; `full_like` of one on `meta` imports sympy."""
    turned = tensor.ndim == 2 and tensor.stride(0) < tensor.stride(1)
    made = torch.full(tensor.shape[::-1] if turned else tensor.shape, 0.01, dtype=tensor.dtype, device=device)
    return made.T if turned else made


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: the median over `SECONDS` of repeated calls, without the first."""
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 4 or time.perf_counter() - start < SECONDS:
        begin = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return sorted(times[1:])[len(times[1:]) // 2]
