"""Measuring what is not known yet: `measure` with a memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from circuitdsl.measurements.requests import Request, needs_runs
from circuitdsl.verify import bench as fresh
from circuitdsl.verify.bench import Array, Bench, Series, parts_of, present
from circuitdsl.verify.cache import Memory
from circuitdsl.verify.store import Numbers


def measure(
    bench: Bench, requests: Sequence[Request], indices: Array, done: Callable[[int], None] | None = None
) -> dict[Request, Series]:
    """Measure requests on some prompts of a bench, but for what its memory holds; what is measured is kept at once.

    Arguments and results are those of `bench.measure`. Numbers that are measured here and not known come from batches
    of what is missing, so that they are those of a run without a memory up to rounding.
    """
    memory = bench.memory
    if memory is None:
        return fresh.measure(bench, requests, indices, done)
    kept = [request for request in dict.fromkeys(requests) if needs_runs(request)]
    found = _known(bench, memory, kept, indices)
    if done and len(indices) and (count := sum(int(known.sum()) for known, _ in found.values())):
        done(count)
    for missing, wanted in _by_missing(kept, {request: known for request, (known, _) in found.items()}):
        for places, _ in parts_of(bench, indices[missing]):
            where = missing[places]
            _keep(memory, wanted, indices[where], fresh.measure(bench, wanted, indices[where]), found, where)
            if done:
                done(len(wanted) * len(where))
    rest = [request for request in dict.fromkeys(requests) if request not in found]
    others = fresh.measure(bench, rest, indices, done) if rest else {}
    return {r: found[r][1] if r in found else others[r] for r in dict.fromkeys(requests)}


def _known(
    bench: Bench, memory: Memory, requests: Sequence[Request], indices: Array
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
        found[request] = known, Series(indices, values, present(bench, request, indices), changed)
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
