"""Whole attention patterns on a prompt, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.prompts import Array
from circuitdsl.engine.runs import one_run, patterns
from circuitdsl.measurements.kept import attention_of
from circuitdsl.models.parts import Transformer


def patterns_on(model: Transformer, tokens: Sequence[int], heads: Sequence[Node]) -> list[Float[Array, "T T"]]:
    """The pattern of each head on one prompt: from each position (axis 0) to each (axis 1)."""
    if not heads:
        return []
    row = torch.tensor([list(tokens)], device=model.device)
    cache = one_run(model, row, kept=attention_of(heads))
    return [patterns(model, cache, head)[0].float().cpu().numpy() for head in heads]
