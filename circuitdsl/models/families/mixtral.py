"""Mixtral: a Mistral with a mixture of experts in every layer."""

from __future__ import annotations

from functools import partial

from circuitdsl.models.families._experts import WRITES, experts
from circuitdsl.models.families.llama import LLAMA, everywhere, heads

FAMILIES = {
    "mixtral": LLAMA._replace(
        title="Mixtral",
        heads=partial(heads, window=everywhere),
        mlp=experts,
        writes=(LLAMA.writes[0], *WRITES),
    )
}
