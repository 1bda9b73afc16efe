"""From claims to what must be measured for each, on each of its tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.criteria import Stronger, Test
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.measurements.kind import kind_of
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.plan import RANDOM, ClaimPlan, Part
from circuitdsl.measurements.requests import patch_request
from circuitdsl.models.model import Model

if TYPE_CHECKING:
    from circuitdsl.models.parts import Transformer


def shape_of(model: Model | Transformer) -> ModelShape:
    """The size of a loaded model, or of its outline."""
    return ModelShape(model.name, model.n_layers, model.n_heads, model.parallel, model.d_head, model.d_mlp)


def plan(circuit: Circuit, shape: ModelShape) -> tuple[ClaimPlan, ...]:
    """The plans of all claims that runs decide, on all their tasks, in the spec's order."""
    nulls = Nulls.of(circuit, shape)
    return tuple(claim_plan(claim, task, nulls) for claim, task in on_runs(circuit))


def on_runs(circuit: Circuit) -> Iterator[tuple[Claim, str]]:
    """The claims that runs decide, each on all of its tasks, in the spec's order."""
    for claim in circuit.claims:
        if kind_of(claim).decided_by == "runs":
            yield from ((claim, task) for task in (claim.tasks if claim.measurement.needs_task else (RANDOM,)))


def claim_plan(claim: Claim, task: str, nulls: Nulls) -> ClaimPlan:
    found = kind_of(claim).plan(claim, task, nulls)
    if any(isinstance(test, Stronger) for part in found.parts for test in found.tests(part)):
        found = replace(found, parts=tuple(each for part in found.parts for each in _rivals(found.tests(part), part)))
    return found


def _rivals(tests: tuple[Test, ...], part: Part) -> Iterator[Part]:
    """A part for each patch that it is compared with, and one for its other tests."""
    rest = tuple(test for test in tests if not isinstance(test, Stronger))
    if rest:
        yield replace(part, tests=rest)
    for test in tests:
        if isinstance(test, Stronger):
            yield replace(part, null=(), rival=patch_request(test.patch), tests=(test,))
