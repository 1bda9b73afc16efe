"""Which early looks at the numbers pay, planned from counted work before any number is seen.

An early look splits the prompts into smaller batches and weighs every claim once more. Where a claim is then settled,
the rest of its prompts is saved. On a small model that may cost more than it saves. Of the looks that a design may take
(`verdict.sampling`), those are taken that cost least on average, supposing that the prompts which claims need are
spread evenly over the looks. Where every claim needs all prompts, they may cost no more than `MOST` beside one look,
and `MOST_OF_LONG` where one look is long: more is saved there.

All claims of the spec are counted, whichever of them are verified, and what the cache knows is not asked. So the looks
depend on the spec, the model's size and the kind of device alone: not on the machine, and not on earlier runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np

from circuitdsl.circuit.nodes import EVERYWHERE, Position
from circuitdsl.engine.positions import places_of
from circuitdsl.measurements.plan import ClaimPlan
from circuitdsl.measurements.requests import Request
from circuitdsl.models.model import Model
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.verdict.sampling import plan_looks

if TYPE_CHECKING:
    from circuitdsl.models.parts import Transformer

Array = np.ndarray
#: the shares by which looks may make a verification longer where no claim is settled early, and which of them are long
MOST, MOST_OF_LONG, LONG = 0.05, 0.1, 10e9
#: Nominal nanoseconds of one thread of a CPU: of a batch, of each of its layers, and of each measurement on the prompts
#: of one length. Only how they compare matters.
BATCH, LAYER, MEASUREMENT = 600_000, 200_000, 130_000
#: of weighing a test once more, and of judging and describing it
WEIGHING, JUDGING = 800_000, 1_300_000
#: for each number of a model's width, at one position of a layer
NUMBER = 12


@dataclass(frozen=True)
class Device:
    """Multiplications in a nanosecond, weights read in one, and how many prompts of one length run together."""

    products: float
    weights: float
    together: int


_DEVICES = {"cpu": Device(80, 3.5, 64), "cuda": Device(8_000, 500, 1024)}


def early_looks(
    plans: Sequence[ClaimPlan],
    pairs: Sequence[PromptPair],
    model: Model | Transformer,
    device: str,
    early_stop: bool = True,
) -> tuple[int, ...]:
    """The numbers of prompts at which the claims of a task are weighed.

    Args:
        plans: of all claims of the spec on the task.
        model: only its size is looked at.
        device: `cpu` or `cuda`, or one of those.
    """
    *early, last = plan_looks(len(pairs), early_stop).sizes
    waiting = [one for one in plans if not free(one)]
    if not early or not waiting:
        return (last,)
    load = _Load(waiting, pairs, model, device_of(device))
    once = load.longest((last,))
    limit = once * (1 + (MOST_OF_LONG if once >= LONG else MOST))
    designs = ((*some, last) for k in range(len(early) + 1) for some in combinations(early, k))
    payable = (one for one in designs if load.longest(one) <= limit)
    return min(payable, key=lambda one: load.expected(one, (*early, last)))


def device_of(name: str) -> Device:
    """What is supposed of a device: `cpu` or `cuda`, or one of those."""
    return _DEVICES.get(name.partition(":")[0], _DEVICES["cpu"])


def free(plan: ClaimPlan) -> bool:
    """Whether the numbers of a claim are there on all prompts anyway, so that looking early saves nothing."""
    return not any(request.needs_runs for request in plan.asked)


class _Load:
    """The work of measuring and weighing claims, in nominal nanoseconds, look by look."""

    def __init__(
        self, plans: Sequence[ClaimPlan], pairs: Sequence[PromptPair], model: Model | Transformer, device: Device
    ) -> None:
        products = model.d_model * (4 * model.n_heads * model.d_head + 2 * model.d_mlp)
        self.together, self.lengths = device.together, np.asarray([len(pair.clean_tokens) for pair in pairs])
        self.layer = LAYER + products / device.weights
        position = NUMBER * model.d_model + products / device.products
        requests = dict.fromkeys(request for one in plans for request in one.asked if request.needs_runs)
        tests = sum(len(one.tests(part)) for one in plans for part in one.parts)
        self.each_look, self.each_part = tests * WEIGHING, len(requests) * MEASUREMENT + 2 * model.n_layers * self.layer
        blocks = np.asarray(2 * model.n_layers * self.lengths, float)  # of the clean and the corrupt run
        begin = beginnings(pairs, self.lengths)
        batches: Counter[tuple[bytes, int]] = Counter()
        for (_, first, places), count in _alike(requests).items():
            start, layers = begin(places), max(0, model.n_layers - first)
            below = max(0, layers - 1) * (self.lengths - start) + (layers > 0)
            blocks += count * np.where(start < self.lengths, below, 0)
            batches[start.tobytes(), layers] += 1
        # where batches begin, how many there are, and their layers
        self.starts = [(np.frombuffer(key, start.dtype), count, layers) for (key, layers), count in batches.items()]
        self.blocks = np.concatenate(([0.0], np.cumsum(blocks * position)))
        # the scores of all prompts, and what comes once for each claim
        self.once = float(2 * model.n_layers * self.lengths.sum() * position) + tests * JUDGING
        self._between = cache(self._of_look)

    def longest(self, looks: Sequence[int]) -> float:
        """Where every claim needs all prompts."""
        return self.once + sum(self._between(a, b) for a, b in pairwise((0, *looks)))

    def expected(self, looks: Sequence[int], needs: Sequence[int]) -> float:
        """Where as many claims need each of some numbers of prompts: they are settled at the next look."""
        still = (sum(need > a for need in needs) / len(needs) for a in (0, *looks))
        return self.once + sum(
            share * self._between(a, b) for share, (a, b) in zip(still, pairwise((0, *looks)), strict=False)
        )

    def _of_look(self, a: int, b: int) -> float:
        """Measuring all claims on the prompts from `a` on and below `b`, and weighing them."""
        part = _parts(self.lengths[a:b], self.together)
        taken = self.each_look + (part.max() + 1) * self.each_part + self.blocks[b] - self.blocks[a]
        for start, count, layers in self.starts:
            begun = start[a:b] < self.lengths[a:b]
            batches = len(np.unique(np.stack((part, start[a:b]))[:, begun], axis=1).T)
            taken += count * batches * (BATCH + layers * self.layer)
        return float(taken)


def _parts(lengths: Array, together: int) -> Array:
    """The number of the part that each prompt is measured in: one length, and no more than run together."""
    order = np.argsort(lengths, kind="stable")
    _, first, counts = np.unique(lengths[order], return_index=True, return_counts=True)
    place = np.arange(len(lengths)) - np.repeat(first, counts)
    new = (place % together) == 0
    found = np.empty(len(lengths), int)
    found[order] = np.cumsum(new) - 1
    return found


def _alike(requests: Sequence[Request] | dict[Request, None]) -> Counter[tuple[Hashable, int, frozenset[Position]]]:
    """How many changed runs begin alike: what runs together, the first layer, and the positions."""
    runs = {request.changed_run: request for request in requests if request.changed_run is not None}
    found: Counter[tuple[Hashable, int, frozenset[Position]]] = Counter()
    for request in runs.values():
        layers, places = zip(*request.enters, strict=True)
        found[request.together, min(layers), frozenset(places)] += 1
    return found


def beginnings(pairs: Sequence[PromptPair], lengths: Array) -> Callable[[frozenset[Position]], Array]:
    """Where changed runs begin in each prompt: at the first of some positions at which the two prompts can differ.

    They are token indices; the prompt's length where nothing changes.
    """
    differ = np.asarray([first_difference(pair) for pair in pairs])

    @cache
    def begin(places: frozenset[Position]) -> Array:
        if EVERYWHERE in places:
            return differ
        rows = zip(places_of(pairs, places), differ, lengths, strict=True)
        return np.asarray([min((i for i in row if i >= first), default=length) for row, first, length in rows])

    return begin


def first_difference(pair: PromptPair) -> int:
    """The first token at which a prompt differs from its partner; the prompt's length where none does."""
    both = enumerate(zip(pair.clean_tokens, pair.corrupt_tokens, strict=True))
    return next((i for i, (a, b) in both if a != b), len(pair.clean_tokens))
