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
        mine = [request for request in requests if request.intervention == intervention]
        run = intervene(batch.runs, intervention, batch.places(mine))
        for request in mine:
            of_changed = function_of(request.inner.reader, "of_changed")
            found[request] = Numbers(of_changed(batch, request.inner, run), run.changed.cpu().numpy())
    return found
