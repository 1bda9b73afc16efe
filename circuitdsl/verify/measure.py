"""Requests in, one number per prompt out: each request is read by the function that it names.

`measure` asks the cache first, and keeps at once what it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine import runs as engine
from circuitdsl.engine.memory import in_halves, in_parts, run_at_once
from circuitdsl.engine.named import function_of, optional
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.prompts import Array, Batch, Prompts
from circuitdsl.engine.prompts import Numbers as Read
from circuitdsl.engine.readers.terms import changed_by
from circuitdsl.engine.runs import Runs, Terms
from circuitdsl.engine.scores import tokens_of
from circuitdsl.measurements.requests import Request
from circuitdsl.models.writers import neurons
from circuitdsl.tasks.dataset import Dataset
from circuitdsl.verify.cache import Memory
from circuitdsl.verify.store import Numbers

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
        return Series(
            np.concatenate([self.indices, more.indices]),
            np.concatenate([self.values, more.values]),
            np.concatenate([self.present, more.present]),
            np.concatenate([self.changed, more.changed]),
        )

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


def trouble(prompts: Prompts, request: Request, missing: bool) -> str:
    """Why a request cannot be read on these prompts, or is on none of them; empty where nothing is wrong."""
    why = optional(request.reader, "absent" if missing else "trouble")
    return str(why(prompts, request)) if why else ""


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
    means, twice = (any(getattr(r, name) for r in wanted) for name in ("uses_means", "runs_twice"))
    watched = neurons(node for request in wanted for node in request.writers)
    stages = max((request.corrupt_stages(prompts.model.n_layers) for request in wanted), default=0)

    def measure_part(places: Array, part: Array) -> None:
        batch = Batch(prompts, _runs(prompts, part, means, watched, stages), part)
        for request, numbers in _read(batch, read_off):
            values[request][places] = numbers.values
            if numbers.changed is not None:
                changed[request][places] = numbers.changed
        for request, differs in changed_by(batch, read_off).items():
            changed[request][places] = differs
        if done:
            done(len(wanted) * len(part))

    for places, part in parts_of(prompts, indices, twice) if read_off else ():
        _in_memory(measure_part, places, part)
    for request in wanted:
        if not request.needs_runs:
            values[request] = function_of(request.reader, "of_prompts")(prompts, request, indices)
    return {r: Series(indices, values[r], present(prompts, r, indices), changed[r]) for r in wanted}


def _read(batch: Batch, requests: Sequence[Request]) -> Iterator[tuple[Request, Read]]:
    """Everything that is read off the runs, the requests of one reader together."""
    by_reader: dict[str, list[Request]] = {}
    for request in requests:
        by_reader.setdefault(request.reader, []).append(request)
    for reader, mine in by_reader.items():
        yield from function_of(reader)(batch, mine).items()


def _in_memory(work: Callable[[Array, Array], None], places: Array, part: Array) -> None:
    """Do some work on prompts, or on one half of them after the other where memory runs out."""
    in_halves(
        lambda start, end: work(places[start:end], part[start:end]),
        0,
        len(part),
        lambda i: f"running prompt {part[i] + 1}",
    )


def parts_of(prompts: Prompts, indices: Array, twice: bool = False) -> Iterator[tuple[Array, Array]]:
    """Prompts of one length, as many at a time as memory takes: (places in `indices`, indices)."""
    lengths = np.asarray([len(prompts.pairs[i].clean_tokens) for i in indices])
    for places in in_parts(prompts.model, lengths, prompts.max_memory, twice):
        yield places, indices[places]


def _runs(prompts: Prompts, part: Array, means: bool, watched: Sequence[Node], corrupt_stages: int) -> Runs:
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
    known = prompts.cache
    if not isinstance(known, Memory):
        return measure_anew(prompts, requests, indices, done)
    kept = [request for request in dict.fromkeys(requests) if request.needs_runs]
    found = _known(prompts, known, kept, indices)
    if done and len(indices) and (count := sum(int(there.sum()) for there, _ in found.values())):
        done(count)
    for missing, wanted in _by_missing(kept, {request: there for request, (there, _) in found.items()}):
        for places, _ in parts_of(prompts, indices[missing]):
            where = missing[places]
            _keep(known, wanted, indices[where], measure_anew(prompts, wanted, indices[where]), found, where)
            if done:
                done(len(wanted) * len(where))
    rest = [request for request in dict.fromkeys(requests) if request not in found]
    others = measure_anew(prompts, rest, indices, done) if rest else {}
    return {r: found[r][1] if r in found else others[r] for r in dict.fromkeys(requests)}


def _known(
    prompts: Prompts, memory: Memory, requests: Sequence[Request], indices: Array
) -> dict[Request, tuple[Array, Series]]:
    """For each request, on which of the prompts it is known, and its numbers there."""
    stored = memory.store.read([memory.name(request) for request in requests])
    found = {}
    for request in requests:
        numbers = stored.get(memory.name(request), {})
        rows = [numbers.get(prompt) for prompt in memory.prompts(request, indices)]
        known = np.asarray([row is not None for row in rows], bool)
        values = np.asarray([np.nan if row is None else row[0] for row in rows], float)
        changed = np.asarray([row is not None and row[1] for row in rows], bool)
        found[request] = known, Series(indices, values, present(prompts, request, indices), changed)
        memory.asked += sum(row is None or row[2] for row in rows)
        memory.found += sum(row is not None and row[2] for row in rows)
    return found


def _by_missing(requests: Sequence[Request], known: dict[Request, Array]) -> list[tuple[Array, list[Request]]]:
    """Requests that lack the same prompts, together: (places of these prompts, requests)."""
    groups: dict[bytes, tuple[Array, list[Request]]] = {}
    for request in requests:
        missing = np.flatnonzero(~known[request])
        if len(missing):
            groups.setdefault(missing.tobytes(), (missing, []))[1].append(request)
    return list(groups.values())


def _keep(
    memory: Memory,
    requests: Sequence[Request],
    indices: Array,
    measured: dict[Request, Series],
    found: dict[Request, tuple[Array, Series]],
    places: Array,
) -> None:
    """Put what was measured into the results, and into the store."""
    for request in requests:
        series = found[request][1]
        series.values[places], series.changed[places] = measured[request].values, measured[request].changed
    names = {memory.name(r): Numbers(measured[r].values, measured[r].changed) for r in requests}
    memory.store.write(names, {memory.name(r): memory.prompts(r, indices) for r in requests})
