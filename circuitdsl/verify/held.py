"""What runs of the prompts of a task take of memory, known from shapes alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from circuitdsl.circuit.nodes import Position
from circuitdsl.engine.ends import scoring_runs
from circuitdsl.engine.memory import batch_rows, in_groups, kept_bytes, patched_bytes, prompt_bytes, together
from circuitdsl.engine.workers import rows_together, unit_rows
from circuitdsl.measurements.kept import Kept, everything
from circuitdsl.measurements.requests import ChangedRequest, Request, kept_for
from circuitdsl.models.parts import AT_ONCE, Transformer
from circuitdsl.models.products import FEWEST, prefers_one_dnn
from circuitdsl.tasks.dataset import Dataset
from circuitdsl.verify.measure import having

#: bytes that stay where oneDNN has made products ready for a new number of prompts of some length: for them, for their
#: partners, and for what is patched in them
SHAPE = 4_000_000


@dataclass(frozen=True)
class PlannedPrompts:
    """The prompts of one task on a model, and the memory that they may take.

    Attributes:
        model: only its shape is looked at.
        device: where it would run, `cpu` or `cuda`.
        reads: what all claims read of the runs.
        keeps: whether runs are kept from scoring on.
    """

    model: Transformer
    data: Dataset
    max_memory: int | None
    device: str
    reads: Kept
    keeps: bool = True
    _having: dict[frozenset[Position], np.ndarray] = field(default_factory=dict, repr=False)

    def having(self, requests: Iterable[Request]) -> np.ndarray:
        """The prompts on which all positions of some requests exist, in order; looked for once for equal positions."""
        requests = tuple(requests)
        wanted = frozenset(position for request in requests for position in request.positions)
        if wanted not in self._having:
            self._having[wanted] = having(self.data, requests)
        return self._having[wanted]

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """The tokens of some prompts."""
        return np.asarray([len(self.data.pairs[i].clean_tokens) for i in indices])

    def groups(self, indices: np.ndarray, kept: Kept, twice: bool = False) -> list[list[np.ndarray]]:
        """Prompts of one length beside those of others, as many as are measured at once where so much is kept."""
        groups = in_groups(self.model, self.lengths(indices), self.max_memory, twice, kept)
        return [[indices[places] for places in group] for group in groups]

    @cached_property
    def scoring(self) -> list[tuple[list[int], Kept, int]]:
        """The prompts that run together for their scores, what is kept of them, and its bytes."""
        room = kept_bytes(torch.device(self.device), self.max_memory) if self.keeps else 0
        runs = scoring_runs(self.model, self.data.pairs, self.max_memory, room, lambda: self.reads)
        return [(places.tolist(), kept, size) for places, _, kept, size in runs]

    @property
    def kept(self) -> int:
        """Bytes of the runs that are kept from scoring on."""
        return sum(size for _, _, size in self.scoring)

    def held(self, requests: Sequence[Request], indices: np.ndarray) -> int:
        """Bytes of the runs that one call of `measure` holds at once, beside those that are kept from scoring on."""
        kept, twice = kept_for(requests, self.model.n_layers), any(request.runs_twice for request in requests)
        changed = any(isinstance(request, ChangedRequest) for request in requests)
        swapped = any(patch.direction == "denoise" for request in requests for patch in request.patches)
        other = replace(everything(self.model.n_layers), corrupt=frozenset())

        def of_prompt(part: np.ndarray) -> int:
            length = int(self.lengths(part[:1])[0])
            runs = prompt_bytes(self.model, length, kept) * (swapped + (not self._is_kept(part, kept)))
            return runs + changed * prompt_bytes(self.model, length, other)

        groups = self.groups(indices, kept, twice)
        return max((sum(len(part) * of_prompt(part) for part in group) for group in groups), default=0)

    def _is_kept(self, part: np.ndarray, kept: Kept) -> bool:
        known = (has for places, has, size in self.scoring if size and places[: len(part)] == part.tolist())
        return any(has.covers(kept) for has in known)

    def _at_once(self, part: np.ndarray) -> tuple[int, int]:
        """How many prompts of one length go through the model at once, and that length."""
        length = int(self.lengths(part[:1])[0])
        unit = max(1, unit_rows(self.model, self.device) // length)
        return min(len(part), together(torch.device(self.device), length), unit), length

    def run_bytes(self, part: np.ndarray) -> int:
        """Bytes of what the clean and corrupt runs of prompts of one length hold on their way, beside what is kept."""
        n, length = self._at_once(part)
        return 2 * (n * length * patched_bytes(self.model, length, length) - self._never_there(n * length))

    def _never_there(self, rows: int, threads: int = 1) -> int:
        """Bytes inside MLPs that are not there at one time: on a CPU they take some rows after the others."""
        inside = 3 * rows * max(block.mlp.width for block in self.model.blocks)
        there = 3 * AT_ONCE * threads if self.device == "cpu" else inside
        return max(0, inside - there) * self.model.dtype.itemsize

    def patched_bytes(self, length: int, batches: Sequence[tuple[int, int]]) -> int:
        """Bytes of what is computed at once of some batches of patched runs: a unit of work on each thread.

        Args:
            length: of the longest prompt.
            batches: of each its runs, and the positions at which they are recomputed.
        """
        rows, longest = [runs * steps for runs, steps in batches], max((steps for _, steps in batches), default=1)
        plain = patched_bytes(self.model, 0, 1)
        attention = (patched_bytes(self.model, length, steps) - plain for _, steps in batches)
        most = batch_rows(self.model, length, self.max_memory)
        unit = max(longest, min(most, rows_together(self.model, self.device)))
        units = max(1, min(torch.get_num_threads(), most // unit))
        there = min(sum(rows), units * unit)
        largest = max((min(n, unit) * each for n, each in zip(rows, attention, strict=True)), default=0)
        return there * plain + units * largest - self._never_there(there, units)  # batches attend one after the other

    def leftover(self, calls: Iterable[tuple[np.ndarray, Sequence[Request]]]) -> int:
        """Bytes that stay where products are made ready for the prompts of some calls of `measure`, or for scoring."""
        model, layers = self.model, self.model.n_layers
        if self.device != "cpu" or model.dtype != torch.float32 or not prefers_one_dnn():
            return 0
        groups = (group for indices, asked in calls for group in self.groups(indices, kept_for(asked, layers)))
        parts = [*(part for group in groups for part in group), *(np.asarray(places) for places, *_ in self.scoring)]
        large = (part for part in parts if np.prod(self._at_once(part)) * model.d_model * model.d_mlp >= FEWEST)
        return SHAPE * len({(len(part), self._at_once(part)[1]) for part in large})
