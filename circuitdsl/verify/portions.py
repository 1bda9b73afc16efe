"""Much work in portions: some requests on some prompts, cut by what there is to do.

A portion is measured in one piece, by this process or by another. Portions depend on the requests, the prompts, the
model's size and the kind of its device, and never on who measures them or on how many do. So numbers are equal, bit for
bit, whether one process measures the portions one after the other or the workers of a cluster do, in any order. A
portion runs its prompts once more, which must not count beside what it measures: little work is not cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from circuitdsl.circuit.nodes import Position
from circuitdsl.measurements.requests import Request
from circuitdsl.models.model import Model
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.verify.early_looks import beginnings, device_of

if TYPE_CHECKING:
    from circuitdsl.models.parts import Transformer

Array = np.ndarray
#: nominal seconds that a portion takes, of one thread of a CPU or of a GPU, which a CPU takes three times as long for
SECONDS = 10.0
#: how many times the unpatched runs of its prompts a portion measures, at the least
RUNS = 16


class TooMuch(Exception):
    """There are more portions than are to be measured here."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large portions are.

    Attributes:
        seconds: nominal ones of a portion.
        runs: how many times the unpatched runs of its prompts it measures, at the least.
        most: portions of one look that are measured here; more raise `TooMuch`. None: any number.
    """

    seconds: float = SECONDS
    runs: float = RUNS
    most: int | None = None


USUAL = Sizes()
_SIZES = ContextVar("_SIZES", default=USUAL)


@contextmanager
def cutting(how: Sizes) -> Iterator[None]:
    """Cut work into portions of these sizes, in this thread."""
    token = _SIZES.set(how)
    try:
        yield
    finally:
        _SIZES.reset(token)


@dataclass(frozen=True, slots=True, eq=False)
class Portion:
    """Requests that are measured together; `places` are those of their prompts among the prompts that were asked."""

    requests: tuple[Request, ...]
    places: Array

    @property
    def size(self) -> int:
        """How many numbers it gives."""
        return len(self.requests) * len(self.places)

    def halves(self) -> tuple[Portion, Portion]:
        """It in two, by its prompts; by its requests where it has one prompt."""
        if (n := len(self.places)) > 1:
            return replace(self, places=self.places[: n // 2]), replace(self, places=self.places[n // 2 :])
        middle = len(self.requests) // 2
        return replace(self, requests=self.requests[:middle]), replace(self, requests=self.requests[middle:])


def portions(
    pairs: Sequence[PromptPair], requests: Sequence[Request], indices: Array, model: Model | Transformer, device: str
) -> list[Portion]:
    """Some requests on some prompts, in portions: each request on each prompt once.

    Prompts are taken by their lengths, as many as run together. Requests that share a changed run stay together, and
    those whose runs begin at one layer stand beside each other: they run in one batch.

    Args:
        pairs: all prompts of the task; `indices` are those that are asked.
        model: only its size is looked at.
        device: `cpu` or `cuda`, or one of those.

    Raises:
        TooMuch: there are more of them than are to be measured here.
    """
    kind, how = device_of(device), _SIZES.get()
    lengths = np.asarray([len(pairs[i].clean_tokens) for i in indices])
    layer = model.d_model * (4 * model.n_heads * model.d_head + 2 * model.d_mlp)
    least = how.seconds * 1e9 * kind.products / layer  # in layers at one position

    def size(places: Array) -> float:
        return max(least, how.runs * 2 * model.n_layers * int(lengths[places].sum()))

    whole = [Portion(tuple(requests), np.arange(len(indices)))]
    if len(requests) * (model.n_layers + 1) * int(lengths.sum()) <= size(whole[0].places):
        return whole
    work = _work(pairs, requests, indices, model.n_layers)
    if work.sum() <= size(whole[0].places):
        return whole
    order = _together(requests, model.n_layers)
    found = [
        Portion(tuple(requests[i] for i in some), places)
        for places in _in_turn(lengths, work.sum(0), kind.together, least)
        for some in _alike(order, work[:, places].sum(1), size(places))
    ]
    if how.most is not None and len(found) > how.most:
        raise TooMuch
    return found


def _work(pairs: Sequence[PromptPair], requests: Sequence[Request], indices: Array, n_layers: int) -> Array:
    """Layers at one position that changed runs compute [requests, prompts]; requests that read a run as it is have 0.

    A run is followed from the first layer and position that it changes; what the logits read counts as a layer.
    """
    mine = [pairs[i] for i in indices]
    lengths = np.asarray([len(pair.clean_tokens) for pair in mine])
    begin, known = beginnings(mine, lengths), dict[tuple[int, frozenset[Position]], Array]()
    rows = []
    for request in requests:
        if request.changed_run is None:
            rows.append(np.zeros(len(mine)))
            continue
        layers, places = zip(*request.enters, strict=True)
        key = int(min(n_layers, *layers)), frozenset(places)
        if key not in known:
            known[key] = (n_layers - key[0]) * np.maximum(0, lengths - begin(key[1])) + 1.0
        rows.append(known[key])
    return np.stack(rows)


def _in_turn(lengths: Array, work: Array, together: int, size: float) -> Iterator[Array]:
    """Places of prompts of one length, or of several lengths where few run together or little is to do."""
    waiting, room = list[Array](), 0.0
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        for start in range(0, len(places), together):
            some = places[start : start + together]
            if waiting and sum(map(len, waiting)) + len(some) > together and room + work[some].sum() > size:
                yield np.sort(np.concatenate(waiting))
                waiting, room = [], 0.0
            waiting.append(some)
            room += float(work[some].sum())
    yield np.sort(np.concatenate(waiting))


def _together(requests: Sequence[Request], n_layers: int) -> list[list[int]]:
    """Places of requests that share a changed run, in the order in which these begin."""
    groups: dict[object, list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(request.changed_run, []).append(place)

    def begins(group: list[int]) -> tuple[object, ...]:
        request = requests[group[0]]
        layers, places = zip(*request.enters, strict=True) if request.changed_run is not None else ((-1,), ())
        direction = next((patch.direction for patch in request.patches), "")
        return request.reader, direction, min(n_layers, *layers), sorted(map(str, places)), group[0]

    return sorted(groups.values(), key=begins)


def _alike(groups: Sequence[Sequence[int]], work: Array, size: float) -> Iterator[list[int]]:
    """Requests in runs of about equal work, of at most a size where one group is no larger; groups stay whole."""
    each = np.asarray([work[list(group)].sum() for group in groups])
    ends = np.cumsum(each)
    count = max(1, int(np.ceil(ends[-1] / size)))
    number = np.minimum(count - 1, ((ends - each / 2) / max(ends[-1], 1) * count).astype(int))
    for one in np.unique(number):
        yield [place for i in np.flatnonzero(number == one).tolist() for place in groups[i]]
