"""From per-prompt numbers to the paired samples that verdicts are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from circuitdsl.circuit.measurements import Metric
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.measurements.requests import (
    AttentionRequest,
    AttributionRequest,
    BehaviourRequest,
    ChangedRequest,
    CopyingRequest,
    EdgeRequest,
    NodeRequest,
    Request,
    ScoreRequest,
    Subgraph,
    TraceRequest,
)
from circuitdsl.verdict.samples import Sample
from circuitdsl.verify.bench import Bench, Series, gap
from circuitdsl.verify.plan import Base, Part

Found = Mapping[Request, Series]


def sample_of(bench: Bench, part: Part, found: Found) -> Sample:
    """The sample of a part on the prompts measured so far, all of which have its positions.

    With a base it is the paired differences from it, and for patches the gap beside them.
    """
    series = found[part.request]
    plain = _plain(bench, part, series)
    if part.base is None:
        return plain
    patch = isinstance(part.request, EdgeRequest | NodeRequest | Subgraph)
    difference = (bench.clean - bench.corrupt)[series.indices] if patch else None
    base = base_of(bench, part.base, found, series.indices)
    return replace(
        plain,
        value=None,
        other=None if part.rival is None else found[part.rival].values - base,
        d=series.values - base,
        g=difference,
        unit="points" if plain.unit == "percent" else plain.unit,
        hits=False,
        falls=patch and bench.falls,
        called=part.called,
        shared="" if not isinstance(part.base, str) else "first" if part.base == "clean" else "second",
    )


def base_of(bench: Bench, base: Base, found: Found, indices: np.ndarray) -> np.ndarray:
    """What some prompts' numbers are compared with."""
    if isinstance(base, str):
        return (bench.clean if base == "clean" else bench.corrupt)[indices]
    return found[base].values


def _plain(bench: Bench, part: Part, series: Series) -> Sample:
    """The numbers as they are measured."""
    strata = bench.strata[series.indices]
    request = part.request.inner if isinstance(part.request, ChangedRequest) else part.request
    share = Sample(strata, value=series.values, unit="percent", label=part.label, range=(0.0, 1.0))
    if isinstance(request, AttentionRequest):
        return replace(share, name="attention")
    if isinstance(request, TraceRequest):
        return replace(share, name="share of firings", hits=True)
    if isinstance(request, CopyingRequest):
        return replace(share, name="copying", hits=True)
    if isinstance(request, ScoreRequest):  # sequences are drawn alike, whatever prompts they stand beside
        return replace(share, strata=np.zeros(len(strata)), name=f"{request.kind.replace('_', '-')} score")
    if isinstance(request, AttributionRequest):
        size = gap(bench, Metric())
        return Sample(strata, value=series.values, name="attribution", label=part.label, size=size)
    metric = request.metric if isinstance(request, BehaviourRequest) else bench.metric
    shape = METRICS[metric.name]
    return Sample(
        strata,
        value=series.values,
        name=str(metric),
        unit="percent" if shape.shown == "share" else "plain",
        hits=shape.hits,
        label=part.label,
        range=shape.range,
        size=None if np.all(np.isfinite(shape.range)) else gap(bench, metric),
    )
