"""Requests measured on runs: each is read by the function that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine import runs as engine
from circuitdsl.engine.dictionaries import settled
from circuitdsl.engine.ends import tokens_of
from circuitdsl.engine.memory import batch_rows, in_groups, in_halves, run_at_once
from circuitdsl.engine.named import function_of
from circuitdsl.engine.prompts import Array, Batch, Numbers, Prompts
from circuitdsl.engine.readers.terms import changed_by
from circuitdsl.engine.runs import Runs
from circuitdsl.engine.tally import Tally
from circuitdsl.engine.terms import Terms
from circuitdsl.engine.workers import each_group, measuring
from circuitdsl.garbage import give_back
from circuitdsl.measurements.kept import Kept
from circuitdsl.measurements.requests import Request, kept_for
from circuitdsl.models.writers import kept_if_named
from circuitdsl.verify.measure import Done, Series, of_prompts, present


@measuring()
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
    shape = len(wanted), len(indices)
    values = dict(zip(wanted, np.full(shape, np.nan), strict=True))
    changed = dict(zip(wanted, np.zeros(shape, bool), strict=True))
    read_off = [request for request in wanted if request.needs_runs]
    for of in {node.of for request in read_off for node in request.named if node.of}:
        settled(prompts, of)
    by_reader: dict[str, list[Request]] = {}
    for request in read_off:
        by_reader.setdefault(request.reader, []).append(request)
    means = any(request.uses_means for request in wanted)
    kept = kept_for(read_off, prompts.model.n_layers)

    def measure_part(places: Array, part: Array, start: int, end: int) -> None:
        places, part = places[start:end], part[start:end]
        alike = _alike(prompts, part)
        lengths = [len(prompts.pairs[part[some[0]]].clean_tokens) for some in alike]
        rows = [len(some) * length for some, length in zip(alike, lengths, strict=True)]
        most = batch_rows(prompts.model, max(lengths), prompts.max_memory)
        on_each = partial(each_group, prompts.model, rows=rows, most=most)
        batches = on_each(lambda some: Batch(prompts, _runs(prompts, part[some], kept, means), part[some]), alike)
        for reader, mine in by_reader.items():
            for some, numbers in zip(alike, _read(function_of(reader), on_each, batches, mine), strict=True):
                for request, own in numbers.items():
                    values[request][places[some]] = own.values
                    if own.changed is not None:
                        changed[request][places[some]] = own.changed
        for some, batch in zip(alike, batches, strict=True):
            for request, differs in changed_by(batch, read_off).items():
                changed[request][places[some]] = differs
            tally = prompts.tally
            tally += batch.tally
        if done:
            done(len(wanted) * len(part))

    def doing(part: Array, at: int) -> str:
        return f"running prompt {part[at] + 1}"

    found: dict[Request, Series] = {}
    for places, part in parts_of(prompts, indices, read_off) if read_off else ():
        in_halves(partial(measure_part, places, part), 0, len(part), partial(doing, part))
        give_back()
    for request in wanted:
        if request.needs_runs:
            found[request] = Series(indices, values[request], present(prompts, request, indices), changed[request])
        else:
            found[request] = of_prompts(prompts, request, indices)
    return found


def portion(prompts: Prompts, requests: Sequence[Request], indices: Array) -> tuple[Array, Array, Tally]:
    """A portion of work as it is sent back: numbers [requests, prompts], whether anything changed, the work done."""
    before = replace(prompts.tally)
    found = measure_anew(prompts, requests, indices).values()
    values, changed = (np.stack([getattr(each, name) for each in found]) for name in ("values", "changed"))
    names = [each.name for each in fields(Tally)]
    done = Tally(**{name: getattr(prompts.tally, name) - getattr(before, name) for name in names})
    return values, changed, done


def parts_of(prompts: Prompts, indices: Array, requests: Sequence[Request]) -> Iterator[tuple[Array, Array]]:
    """Prompts by length, as many at a time as memory takes for some requests: (places in `indices`, indices)."""
    kept, twice = kept_for(requests, prompts.model.n_layers), any(request.runs_twice for request in requests)
    for group in in_groups(prompts.model, _lengths(prompts, indices), prompts.max_memory, twice, kept):
        places = np.concatenate(group)
        yield places, indices[places]


def _lengths(prompts: Prompts, indices: Array) -> Array:
    return np.asarray([len(prompts.pairs[i].clean_tokens) for i in indices])


def _alike(prompts: Prompts, part: Array) -> list[Array]:
    """Places of the prompts of each length."""
    lengths = _lengths(prompts, part)
    return [np.flatnonzero(lengths == length) for length in np.unique(lengths)]


def _read(
    read: Callable[..., Any], on_each: Callable[..., Any], batches: Sequence[Batch], requests: Sequence[Request]
) -> Sequence[Mapping[Request, Numbers]]:
    """What a reader finds in each batch."""
    if getattr(read, "reads_several", False):
        found: Sequence[Mapping[Request, Numbers]] = read(batches, requests)
    else:
        found = on_each(lambda batch: read(batch, requests), batches)
    return found


def _runs(prompts: Prompts, part: Array, kept: Kept, means: bool) -> Runs:
    known = (runs for places, runs in prompts.kept if places[: len(part)] == part.tolist())
    runs = next((runs.first(len(part)) for runs in known if runs.kept.covers(kept)), None)
    if runs is None:
        pairs = [prompts.pairs[i] for i in part]
        clean, corrupt = (tokens_of(pairs, side) for side in ("clean_tokens", "corrupt_tokens"))
        runs = engine.run(prompts.model, clean, corrupt, kept=kept)
    if not means:
        return runs
    terms, stratum = mean_terms_of(prompts, runs.length, kept_if_named(kept.clean))
    return runs.with_means(terms, torch.as_tensor(stratum[part]))


def mean_terms_of(prompts: Prompts, length: int, watched: Sequence[Node] = ()) -> tuple[Terms, Array]:
    """Mean terms over all corrupt prompts of a stratum and length, and every prompt's stratum (-1: other length)."""
    made: dict[str, tuple[Terms, Array]] = prompts.once(("means", length), dict)
    if "terms" not in made or not set(watched) <= made["terms"][0].kept.keys():
        known = [pair for pair in prompts.reference if len(pair.corrupt_tokens) == length]
        names, codes = np.unique([pair.stratum for pair in known], return_inverse=True)
        tokens = tokens_of(known, "corrupt_tokens")
        at_once = run_at_once(prompts.model, length, prompts.max_memory)
        terms = engine.mean_terms(prompts.model, tokens, torch.as_tensor(codes), len(names), watched, at_once)
        number = {str(name): i for i, name in enumerate(names)}
        stratum = [number[p.stratum] if len(p.corrupt_tokens) == length else -1 for p in prompts.pairs]
        made["terms"] = terms, np.asarray(stratum)
    return made["terms"]
