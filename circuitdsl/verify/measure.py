"""Requests in, one number per prompt out. The cache is asked first; what is measured is kept within seconds.

What measures, and imports torch, is `verify.anew`. It is imported when something is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from circuitdsl.engine.away import Call, Short
from circuitdsl.engine.named import function_of, optional
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.prompts import Array, Prompts
from circuitdsl.errors import UserError
from circuitdsl.measurements.requests import Request
from circuitdsl.tasks.dataset import Dataset
from circuitdsl.verify.cache import Memory
from circuitdsl.verify.portions import Portion, portions

Done = Callable[[int], None]
#: seconds between two times at which numbers are written to the cache
PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Series:
    """One request's numbers on some prompts.

    Attributes:
        indices: which prompts of the dataset, in order.
        values: the number on each.
        present: whether the prompt has all positions asked for; where it has not, the value means nothing.
        changed: whether the patch puts in anything other than what stood there.
    """

    indices: Array
    values: Array
    present: Array
    changed: Array

    def extended(self, more: Series) -> Series:
        """These prompts and then those."""
        fields = ("indices", "values", "present", "changed")
        return Series(*(np.concatenate([getattr(self, name), getattr(more, name)]) for name in fields))

    def only(self, keep: Array) -> Series:
        return Series(self.indices[keep], self.values[keep], self.present[keep], self.changed[keep])


# --- positions -------------------------------------------------------------------------------------


def present(data: Prompts | Dataset, request: Request, indices: Array) -> Array:
    """On which of some prompts all positions of a request exist, and there is something to read."""
    wanted = request.positions

    def everywhere() -> Array:
        return np.asarray([all(indices_of(pair, p) for p in wanted) for pair in data.pairs], bool)

    if not isinstance(data, Prompts):
        return everywhere()[indices]
    there = data.once(wanted, everywhere)[indices]
    own = optional(request.hooks, "present")
    return there & own(data, request, indices) if own else there


def having(data: Prompts | Dataset, requests: Iterable[Request]) -> Array:
    """The prompts on which all positions of some requests exist, in order [prompts]."""
    everything = np.arange(len(data.pairs))
    distinct = {(frozenset(request.positions), request.hooks): request for request in requests}.values()
    return np.flatnonzero(np.logical_and.reduce([present(data, request, everything) for request in distinct]))


def by_prompts(asked: Iterable[tuple[Array, Iterable[Request]]]) -> list[tuple[Array, list[Request]]]:
    """Requests grouped by the prompts that they are asked of: (prompts, requests). Those asked of none are left out."""
    groups: dict[bytes, tuple[Array, dict[Request, None]]] = {}
    for indices, requests in asked:
        if len(indices) and (wanted := dict.fromkeys(requests)):
            groups.setdefault(indices.tobytes(), (indices, {}))[1].update(wanted)
    return [(indices, list(wanted)) for indices, wanted in groups.values()]


def trouble(prompts: Prompts, task: str, requests: Sequence[Request], indices: Array) -> str:
    """Why requests cannot be read on those prompts of a task that have their positions; empty where they can."""
    hooks = ((optional(request.hooks, "trouble" if len(indices) else "absent"), request) for request in requests)
    why = next((said for hook, request in hooks if hook and (said := str(hook(prompts, request)))), "")
    places = dict.fromkeys(str(place) for request in requests for place in request.positions)
    return why if why or len(indices) else f"no prompt of {task} has all of its positions: {', '.join(places)}"


# --- what is known already -------------------------------------------------------------------------


def of_prompts(prompts: Prompts, request: Request, indices: Array) -> Series:
    """The numbers of a request that reads no runs of its own batch."""
    values = function_of(request.hooks, "of_prompts")(prompts, request, indices)
    return Series(indices, values, present(prompts, request, indices), np.zeros(len(indices), bool))


def anew() -> Any:
    """What measures; it imports torch."""
    return import_module("circuitdsl.verify.anew")


@contextmanager
def _kept(
    memory: Memory | None, found: Mapping[Request, Series]
) -> Iterator[Callable[[Sequence[Request], Array], None]]:
    """Gives what is called with requests, and with the places in `found` at which they were just measured.

    Their numbers are written together, `PAUSE` later at the most or when measuring ends: a row for each batch of
    prompts would have to be joined to the others later.
    """
    waiting, last = dict[int, tuple[Sequence[Request], list[Array]]](), time.monotonic()

    def write() -> None:
        while waiting:
            _, (asked, several) = waiting.popitem()
            places = np.concatenate(several)
            numbers = {request: (found[request].values[places], found[request].changed[places]) for request in asked}
            if memory:
                memory.write(numbers, found[asked[0]].indices[places])

    def keep(asked: Sequence[Request], places: Array) -> None:
        nonlocal last
        waiting.setdefault(id(asked), (asked, []))[1].append(places)
        if time.monotonic() - last > PAUSE:
            write()
            last = time.monotonic()

    try:
        yield keep
    finally:
        write()


def measure(
    prompts: Prompts, requests: Sequence[Request], indices: Array, done: Done | None = None
) -> dict[Request, Series]:
    """Measure requests on some prompts, but for what the cache knows; what is measured is kept within seconds.

    Arguments and results are those of `measure_anew`. Numbers that are measured here and not known come from batches
    of what is missing, so that they are those of a run without a cache up to rounding. Much work is cut into portions,
    which are measured here one after the other, or where the model is.
    """
    memory, wanted = prompts.cache if isinstance(prompts.cache, Memory) else None, list(dict.fromkeys(requests))
    found: dict[Request, Series] = {}
    missing: dict[Request, Array] = {}
    for request, values, changed, known in _known(memory, [each for each in wanted if each.needs_runs], indices):
        found[request] = Series(indices, values, present(prompts, request, indices), changed)
        missing[request] = np.flatnonzero(~known)
    if done and len(indices) and (count := sum(len(indices) - len(places) for places in missing.values())):
        done(count)
    for lacking, asked in by_prompts((places, [request]) for request, places in missing.items()):
        mine = indices[lacking]
        cut = portions(prompts.pairs, asked, mine, prompts.source, prompts.source.device)
        with _kept(memory, found) as keep:
            for some, places, values, changed in (_elsewhere if prompts.source.away else _here)(prompts, cut, mine):
                where = lacking[places]
                for request, row, differs in zip(some, values, changed, strict=True):
                    found[request].values[where], found[request].changed[where] = row, differs
                keep(some, where)
                if done:
                    done(len(some) * len(where))
    for request in wanted:
        if not request.needs_runs:
            found[request] = of_prompts(prompts, request, indices)
            if done:
                done(len(indices))
    return {request: found[request] for request in wanted}


def _known(
    memory: Memory | None, requests: Sequence[Request], indices: Array
) -> Iterator[tuple[Request, Array, Array, Array]]:
    """What `Memory.read` gives; without a memory, nothing is known."""
    if memory:
        return memory.read(requests, indices)
    n = len(indices)
    return ((request, np.full(n, np.nan), np.zeros(n, bool), np.zeros(n, bool)) for request in requests)


#: requests, the places of prompts among those that were asked, and for each the numbers and whether anything changed
_Measured = tuple[tuple[Request, ...], Array, Array, Array]


def _here(prompts: Prompts, cut: Sequence[Portion], indices: Array) -> Iterator[_Measured]:
    """Portions measured in this process, as much of each at a time as memory takes."""
    for portion in cut:
        for places, part in anew().parts_of(prompts, indices[portion.places], portion.requests):
            found = anew().measure_anew(prompts, portion.requests, part).values()
            values, changed = (np.stack([getattr(each, name) for each in found]) for name in ("values", "changed"))
            yield portion.requests, portion.places[places], values, changed


def _elsewhere(prompts: Prompts, cut: Sequence[Portion], indices: Array) -> Iterator[_Measured]:
    """Portions as they come from where the model is. What was too much for the memory there is asked for in halves.

    Raises:
        UserError: one request on one prompt was too much.
    """
    assert prompts.recipe is not None and prompts.source.away is not None
    function, short = "circuitdsl.verify.anew:portion", list[Portion]()
    calls = [
        Call(prompts.recipe, function, (each.requests, indices[each.places]), prompts.source.digest) for each in cut
    ]
    for number, answer in prompts.source.away(calls):
        one = cut[number]
        if isinstance(answer, Short):
            if one.size == 1:
                what = f"measuring one patch on one prompt of {len(prompts.pairs[indices[one.places[0]]].clean_tokens)}"
                raise UserError(f"memory ran out {what} tokens: {answer.why}", answer.hint)
            short += one.halves()
            continue
        values, changed, tally = answer
        total = prompts.tally
        total += tally
        yield one.requests, one.places, values, changed
    for some in (short[:1], short[1:]) if short else ():  # one half shows whether that is little enough
        yield from _elsewhere(prompts, some, indices)
