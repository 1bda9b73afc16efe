"""How fast this machine runs a model's layers, measured in a moment on one layer of that shape with made-up weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch

from circuitdsl.engine.runs import run
from circuitdsl.models.parts import Transformer

#: prompts and tokens of the runs that are timed, and seconds that each timing may take
PROMPTS, TOKENS, SECONDS = 32, 20, 0.2
#: small operations of a live pass for one of a plain run, about
MORE_CALLS = 2


@dataclass(frozen=True, slots=True)
class Machine:
    """Measured speed of a device: seconds of a layer at one position, and of a layer however little it computes."""

    position: float
    layer: float

    def seconds(self, positions: float, passes: int, layers: int) -> float:
        """An estimate for so many layers at single positions, in so many passes through all layers."""
        return positions * self.position + passes * layers * MORE_CALLS * self.layer


def calibrate(model: Transformer, device: torch.device) -> Machine:
    """Measure the machine on one layer of a model's shape and number format; the model's weights are not needed."""
    few = torch.zeros(8, model.d_model, dtype=model.dtype, device=device)
    places = None if model.W_pos is None else few.new_zeros(model.n_ctx, model.d_model)
    one = _made_up(replace(model, blocks=model.blocks[:1], W_E=few, W_U=few, W_pos=places, b_U=None), device)
    length = min(TOKENS, model.n_ctx)
    many = torch.zeros(PROMPTS, length, dtype=torch.long)
    whole = _seconds(lambda: run(one, many, many), device) / 2
    least = _seconds(lambda: run(one, many[:1, :1], many[:1, :1]), device) / 2
    return Machine(whole / (PROMPTS * length), least)


def _made_up(part: Any, device: torch.device) -> Any:
    """A part with made-up numbers in the place of its tensors."""
    if isinstance(part, torch.Tensor):
        return torch.full_like(part, 0.01, device=device)
    if isinstance(part, tuple):
        return tuple(_made_up(inner, device) for inner in part)
    if is_dataclass(part) and not isinstance(part, type):
        inside = {field.name: getattr(part, field.name) for field in fields(part) if field.init}
        return replace(part, **{k: _made_up(v, device) for k, v in inside.items() if k != "tokenizer"})
    return part


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: the median of as many as fit into a moment, the first left out."""
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 4 or time.perf_counter() - start < SECONDS:
        begin = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return sorted(times[1:])[len(times[1:]) // 2]
