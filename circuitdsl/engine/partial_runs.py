"""Runs in which parts of a model are kept, left out, or kept in part; and how fast the metric grows with each share.

What the parts are, edges or nodes at positions, is for those to say who run them (`whole_runs.py`, `site_runs.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.engine import runs as engine
from circuitdsl.engine.ends import readout
from circuitdsl.engine.memory import BATCH, allowed, ran_out
from circuitdsl.engine.metrics import Scorer
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.terms import Terms
from circuitdsl.engine.workers import each, in_equal_parts, measuring, unit_rows
from circuitdsl.errors import UserError, out_of_memory
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import PromptPair

Array = np.ndarray
T = TypeVar("T")
#: residual-stream vectors that go through the model at once, where memory is not limited: fewer waste products
LEAST = 48


class Alike(Protocol):
    """Some prompts of one length; `places` says which of all they are."""

    @property
    def places(self) -> Int[Tensor, " n"]: ...

    @property
    def tokens(self) -> Int[Tensor, "n T"]: ...


G = TypeVar("G", bound=Alike)


@dataclass(eq=False)
class PartialRuns(Generic[G]):
    """Prompts on which a model is run in part.

    Attributes:
        indices: which of the prompts; one may come several times.

    Raises:
        UserError: the model lies on several devices.
    """

    prompts: Prompts
    indices: Array
    model: Transformer = field(init=False)
    _known: dict[bytes, Float[Array, " n"]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.model = self.prompts.model  # read here, where gradients through it can be taken
        if len({block.device for block in self.model.blocks}) > 1:
            raise UserError(
                f"{self.model.name} lies on several devices, on which it cannot be run in part",
                hint="leave out the device map: load it in a smaller number format, or on the CPU",
            )

    # --- what a kind of parts says of itself

    @property
    def many(self) -> int:
        raise NotImplementedError

    @cached_property
    def groups(self) -> list[G]:
        """The prompts by their length; places are those in `indices`."""
        raise NotImplementedError

    def with_part(self, kept: Bool[Array, " parts"], share: float, gradient: bool) -> tuple[Array, Array | None]:
        """The metric of each prompt with some parts kept to a share, and its sum's gradient by the share of each."""
        raise NotImplementedError

    def numbers(self, layers: int) -> int:
        """Numbers that a run holds for one residual-stream vector, while it holds so many layers."""
        raise NotImplementedError

    # --- what they have in common

    def by_length(self) -> Iterator[tuple[Int[Tensor, " n"], Int[Tensor, "n T"], list[PromptPair]]]:
        """The prompts by their length: places in `indices`, clean tokens, and the pairs themselves."""
        pairs = [self.prompts.pairs[i] for i in self.indices]
        for places, clean in engine.by_length([pair.clean_tokens for pair in pairs], lambda _: len(pairs)):
            yield places, clean, [pairs[i] for i in places]

    @cached_property
    def _scorer(self) -> Scorer:
        return self.prompts.scorer_of(self.prompts.metric)

    def score(self, end: Float[Tensor, "n 1 d"], places: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The task's metric of some residual streams at END, in float32."""
        there = torch.as_tensor(self.indices)[places]
        every = torch.arange(len(end), device=end.device)
        found = engine.read(self.model, end, every, readout(self.model, self._scorer, there.numpy()))[:, 0]
        return found[:, 0] if self._scorer.ids is None else self._scorer.score(found, there.to(found.device))

    def scored(
        self, end: Float[Tensor, "n 1 d"], places: Int[Tensor, " n"], by: Tensor | None
    ) -> tuple[Float[Tensor, " n"], Tensor | None]:
        """The metric, and its sum's gradient by something, if that is asked for."""
        found = self.score(end, places)
        return found.detach(), None if by is None else torch.autograd.grad(found.sum(), by)[0]

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The metric of the corrupt and of the clean runs, on the average."""
        corrupt, clean = (side[self.indices].mean() for side in (self.prompts.corrupt, self.prompts.clean))
        return float(corrupt), float(clean)

    @property
    def gap(self) -> float:
        return self.ends[1] - self.ends[0]

    def faithfulness(self, kept: Bool[Array, " parts"]) -> float:
        """How much of the gap is there where these parts are kept alone."""
        return float(self.scores(kept).mean() - self.ends[0]) / self.gap

    @measuring()
    def scores(self, kept: Bool[Array, " parts"]) -> Float[Array, " n"]:
        """The metric of each prompt where these parts are kept; a circuit that was run is not run again."""
        key = np.packbits(kept).tobytes()
        if key not in self._known:
            self._known[key] = self.with_part(kept, 1.0, False)[0]
        return self._known[key]

    @measuring()
    def gradient(self, kept: Bool[Array, " parts"], share: float = 1.0) -> Float[Array, " parts"]:
        """How fast the metric's mean over the prompts grows with the share to which each part is kept.

        Parts that are left out have one as well: it is that at which they would come in.

        Args:
            share: to which these parts are kept.
        """
        _, found = self.with_part(kept, share, True)
        assert found is not None
        return found / len(self.indices)

    def summed(
        self, work: Callable[[G], tuple[Tensor, Tensor | None]], gradient: bool
    ) -> tuple[Float[Array, " n"], Array | None]:
        """The metric of each prompt as some work gives it, and the sum of the gradients, each counted as three runs."""
        found, total, tally = np.empty(len(self.indices)), None, self.prompts.tally
        for part, (values, by_share) in self.each(work, gradient):
            found[part.places.numpy()] = values.double().cpu().numpy()
            tally.block_positions += (3 if gradient else 1) * part.tokens.numel() * self.model.n_layers
            if by_share is not None:
                more = by_share.double().cpu().numpy()
                total = more if total is None else total + more
        return found, total

    def each(self, work: Callable[[G], T], gradient: bool) -> Iterator[tuple[G, T]]:
        """What some work gives for as many prompts as memory takes at once, on several threads where there are."""
        parts, rows = list[G](), list[int]()
        for group in self.groups:
            n, length = group.tokens.shape
            at_once = max(1, min(self._most(gradient), unit_rows(self.model)) // length)
            for part in in_equal_parts(n, at_once):
                parts.append(group.rows(part))  # type: ignore[attr-defined]
                rows.append((3 if gradient else 1) * (part[1] - part[0]) * length)  # a gradient is two runs more
        most = self._most(gradient) if self.prompts.max_memory else 2 * max(rows)
        return zip(parts, each(self.model, partial(_outside_inference, work), parts, rows, most), strict=True)

    def _most(self, gradient: bool) -> int:
        """How many residual-stream vectors go through the model at once."""
        model = self.model
        numbers = self.numbers(model.n_layers if gradient else 1)
        found = int(allowed(model.device, self.prompts.max_memory) * BATCH) // (numbers * model.dtype.itemsize)
        return found if self.prompts.max_memory else max(LEAST, found)


def _outside_inference(work: Callable[[G], T], some: G) -> T:
    """Work that may take gradients."""
    with torch.inference_mode(False), torch.enable_grad():
        try:
            return work(some)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise ran_out(f"running a circuit alone on prompts of {some.tokens.shape[1]} tokens") from None


def copied(terms: Terms) -> Terms:
    """The same terms in tensors of their own: outside of inference, where gradients can be taken."""
    return replace(terms, kept={node: value.clone() for node, value in terms.kept.items()}, end=terms.end.clone())
