"""What is read of a model that an intervention has changed. It is run once for all requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circuitdsl.engine.intervene import intervene
from circuitdsl.engine.named import function_of
from circuitdsl.engine.prompts import Batch, Numbers
from circuitdsl.measurements.requests import ChangedRequest, Request


def read(batch: Batch, requests: Sequence[ChangedRequest]) -> Mapping[Request, Numbers]:
    """The numbers of each request, and on which prompts the intervention changes anything."""
    found: dict[Request, Numbers] = {}
    for intervention in dict.fromkeys(request.intervention for request in requests):
        found |= _of_one(batch, [request for request in requests if request.intervention == intervention])
    return found


def _of_one(batch: Batch, requests: Sequence[ChangedRequest]) -> Mapping[Request, Numbers]:
    """The same of one intervention, whose run is freed before the next."""
    run = intervene(batch.runs, requests[0].intervention, batch.places(requests))
    readers = ((request, function_of(request.inner.reader, "of_changed")) for request in requests)
    return {one: Numbers(read_off(batch, one.inner, run), run.changed.cpu().numpy()) for one, read_off in readers}
