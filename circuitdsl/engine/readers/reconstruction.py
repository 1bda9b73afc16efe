"""How much a dictionary explains, prompt by prompt. Nothing here imports torch: numbers may be known."""

from __future__ import annotations

from typing import Any

import numpy as np

from circuitdsl.engine.prompts import Array, Prompts
from circuitdsl.measurements.reconstruction import Reconstruction


def of_prompts(prompts: Prompts, request: Reconstruction, indices: Array) -> Array:
    """1 less the error of each prompt, as a share of what varies in a prompt on average."""

    def compute() -> Array:
        found: Array = prompts.ask("circuitdsl.engine.dictionaries:explained_by_prompt", request.of)
        return found

    known = prompts.cache
    made: Any = prompts.once(request, lambda: known.of_prompts(request, compute) if known else compute())
    return np.asarray(made)[indices]
