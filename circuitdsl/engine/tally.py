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

    def __iadd__(self, more: Tally) -> Tally:
        """Add the work of another tally."""
        self.block_positions += more.block_positions
        self.flow_positions += more.flow_positions
        self.batches += more.batches
        return self
