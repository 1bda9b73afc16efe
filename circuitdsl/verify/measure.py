"""Requests in, one number per prompt out: each request is read by the function that it names.

`measure` asks the cache first, and keeps at once what it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine import runs as engine
from circuitdsl.engine.memory import in_halves, in_parts, run_at_once
from circuitdsl.engine.named import function_of, optional
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.prompts import Array, Batch, Prompts, tokens_of
from circuitdsl.engine.readers.terms import changed_by
from circuitdsl.engine.runs import Runs, Terms
from circuitdsl.measurements.requests import Request
from circuitdsl.models.writers import neurons
from circuitdsl.tasks.dataset import Dataset
from circuitdsl.verify.cache import Memory

Done = Callable[[int], None]


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
        """On some of the prompts."""
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
    own = optional(request.reader, "present")
    return there & own(data, request, indices) if own else there


def having(data: Prompts | Dataset, requests: Iterable[Request]) -> Array:
    """The prompts on which all positions of some requests exist, in order [prompts]."""
    everything = np.arange(len(data.pairs))
    distinct = {(frozenset(request.positions), request.reader): request for request in requests}.values()
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
    hooks = ((optional(request.reader, "trouble" if len(indices) else "absent"), request) for request in requests)
    why = next((said for hook, request in hooks if hook and (said := str(hook(prompts, request)))), "")
    places = dict.fromkeys(str(place) for request in requests for place in request.positions)
    return why if why or len(indices) else f"no prompt of {task} has all of its positions: {', '.join(places)}"


# --- measuring -------------------------------------------------------------------------------------


def measure_anew(
    prompts: Prompts, requests: Sequence[Request], indices: Array, done: Done | None = None
) -> dict[Request, Series]:
    """Measure requests on some prompts, whatever the cache knows.

    Args:
        requests: what to measure; equal requests are measured once.
        indices: which prompts, in the order in which the results come.
        done: called with the number of (request, prompt) pairs just measured.
    """
    wanted = list(dict.fromkeys(requests))
    values = {request: np.full(len(indices), np.nan) for request in wanted}
    changed = {request: np.zeros(len(indices), bool) for request in wanted}
    read_off = [request for request in wanted if request.needs_runs]
    by_reader: dict[str, list[Request]] = {}
    for request in read_off:
        by_reader.setdefault(request.reader, []).append(request)
    means, twice = (any(getattr(r, name) for r in wanted) for name in ("uses_means", "runs_twice"))
    watched = neurons(node for request in wanted for node in request.writers)
    stages = max((request.corrupt_stages(prompts.model.n_layers) for request in wanted), default=0)

    def measure_part(places: Array, part: Array, start: int, end: int) -> None:
        places, part = places[start:end], part[start:end]
        batch = Batch(prompts, _runs(prompts, part, means, watched, stages), part)
        for reader, mine in by_reader.items():
            for request, numbers in function_of(reader)(batch, mine).items():
                values[request][places] = numbers.values
                if numbers.changed is not None:
                    changed[request][places] = numbers.changed
        for request, differs in changed_by(batch, read_off).items():
            changed[request][places] = differs
        if done:
            done(len(wanted) * len(part))

    def doing(part: Array, at: int) -> str:
        return f"running prompt {part[at] + 1}"

    for places, part in parts_of(prompts, indices, twice) if read_off else ():
        in_halves(partial(measure_part, places, part), 0, len(part), partial(doing, part))
    for request in wanted:
        if not request.needs_runs:
            values[request] = function_of(request.reader, "of_prompts")(prompts, request, indices)
    return {r: Series(indices, values[r], present(prompts, r, indices), changed[r]) for r in wanted}


def parts_of(prompts: Prompts, indices: Array, twice: bool = False) -> Iterator[tuple[Array, Array]]:
    """Prompts of one length, as many at a time as memory takes: (places in `indices`, indices)."""
    lengths = np.asarray([len(prompts.pairs[i].clean_tokens) for i in indices])
    for places in in_parts(prompts.model, lengths, prompts.max_memory, twice):
        yield places, indices[places]


def _runs(prompts: Prompts, part: Array, means: bool, watched: Sequence[Node], corrupt_stages: int) -> Runs:
    known = (runs.first(len(part)) for places, runs in prompts.kept if places[: len(part)] == part.tolist())
    runs = None if watched else next(known, None)
    if runs is None:
        pairs = [prompts.pairs[i] for i in part]
        clean, corrupt = (tokens_of(pairs, side) for side in ("clean_tokens", "corrupt_tokens"))
        runs = engine.run(prompts.model, clean, corrupt, watched, corrupt_stages)
    if not means:
        return runs
    terms, stratum = _mean_terms(prompts, runs.length, watched)
    return runs.with_means(terms, torch.as_tensor(stratum[part]))


def _mean_terms(prompts: Prompts, length: int, watched: Sequence[Node]) -> tuple[Terms, Array]:
    """Mean terms over all corrupt prompts of a stratum and length, and every prompt's stratum (-1: other length)."""
    made: dict[str, tuple[Terms, Array]] = prompts.once(("means", length), dict)
    if "terms" not in made or not set(watched) <= made["terms"][0].neurons.keys():
        known = [pair for pair in prompts.reference if len(pair.corrupt_tokens) == length]
        names, codes = np.unique([pair.stratum for pair in known], return_inverse=True)
        tokens = tokens_of(known, "corrupt_tokens")
        at_once = run_at_once(prompts.model, length, prompts.max_memory)
        terms = engine.mean_terms(prompts.model, tokens, torch.as_tensor(codes), len(names), watched, at_once)
        number = {str(name): i for i, name in enumerate(names)}
        stratum = [number[p.stratum] if len(p.corrupt_tokens) == length else -1 for p in prompts.pairs]
        made["terms"] = terms, np.asarray(stratum)
    return made["terms"]


# --- what is known already -------------------------------------------------------------------------


def measure(
    prompts: Prompts, requests: Sequence[Request], indices: Array, done: Done | None = None
) -> dict[Request, Series]:
    """Measure requests on some prompts, but for what the cache knows; what is measured is kept at once.

    Arguments and results are those of `measure_anew`. Numbers that are measured here and not known come from batches
    of what is missing, so that they are those of a run without a cache up to rounding.
    """
    memory, wanted = prompts.cache, list(dict.fromkeys(requests))
    if not isinstance(memory, Memory):
        return measure_anew(prompts, wanted, indices, done)
    found: dict[Request, Series] = {}
    missing: dict[Request, Array] = {}
    for request, values, changed, known in memory.read([request for request in wanted if request.needs_runs], indices):
        found[request] = Series(indices, values, present(prompts, request, indices), changed)
        missing[request] = np.flatnonzero(~known)
    if done and len(indices) and (count := sum(len(indices) - len(places) for places in missing.values())):
        done(count)
    for lacking, asked in by_prompts((places, [request]) for request, places in missing.items()):
        for places, part in parts_of(prompts, indices[lacking]):
            fresh = measure_anew(prompts, asked, part)
            where = lacking[places]
            for request, series in fresh.items():
                found[request].values[where], found[request].changed[where] = series.values, series.changed
            memory.write({request: (series.values, series.changed) for request, series in fresh.items()}, part)
            if done:
                done(len(asked) * len(part))
    if rest := [request for request in wanted if not request.needs_runs]:
        found |= measure_anew(prompts, rest, indices, done)
    return {request: found[request] for request in wanted}
