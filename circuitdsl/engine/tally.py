"""How much was recomputed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """Work done so far, to be passed to `effects`. A block-position is one layer's MLP at one position of one run.

    Attributes:
        block_positions: recomputed downstream of patches.
        flow_positions: MLPs computed for edges via MLPs.
        batches: forward passes over a batch.
    """

    block_positions: int = 0
    flow_positions: int = 0
    batches: int = 0
