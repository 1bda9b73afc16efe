"""From per-prompt numbers to the paired samples that verdicts are about."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from circuitdsl.measure.bench import Bench, Series
from circuitdsl.measure.metrics import HITS, POSSIBLE, SHARES
from circuitdsl.measure.plan import Base, Part
from circuitdsl.measure.requests import (
    AttentionRequest,
    AttributionRequest,
    BehaviourRequest,
    ChangedRequest,
    CopyingRequest,
    EdgeRequest,
    NodeRequest,
    Request,
    ScoreRequest,
    TraceRequest,
)
from circuitdsl.patching.subgraph import Subgraph
from circuitdsl.verdict.samples import Sample

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
    gap = (bench.clean - bench.corrupt)[series.indices] if patch else None
    rival = None
    if part.rival is not None:
        rival = found[part.rival].values - base_of(bench, part.base, found, series.indices)
    return Sample(
        plain.strata,
        other=rival,
        d=series.values - base_of(bench, part.base, found, series.indices),
        g=gap,
        name=plain.name,
        unit="points" if plain.unit == "percent" else plain.unit,
        falls=gap is not None and bench.falls,
        label=part.label,
        step=1.0 if plain.hits else None,
        called=part.called,
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
    if isinstance(request, AttentionRequest):
        return Sample(strata, value=series.values, name="attention", unit="percent", label=part.label, possible=(0, 1))
    if isinstance(request, TraceRequest):
        return Sample(strata, value=series.values, name="share of firings", unit="percent", hits=True, label=part.label)
    if isinstance(request, AttributionRequest):
        return Sample(strata, value=series.values, name="attribution", label=part.label)
    if isinstance(part.request, CopyingRequest):
        return Sample(strata, value=series.values, name="copying", unit="percent", label=part.label, hits=True)
    if isinstance(part.request, ScoreRequest):
        name = f"{part.request.kind.replace('_', '-')} score"
        one = np.zeros(len(series.values))  # sequences are drawn alike, whatever prompts they stand beside
        return Sample(one, value=series.values, name=name, unit="percent", label=part.label, possible=(0, 1))
    metric = request.metric if isinstance(request, BehaviourRequest) else bench.metric
    return Sample(
        strata,
        value=series.values,
        name=str(metric),
        unit="percent" if metric.name in SHARES else "plain",
        hits=metric.name in HITS,
        label=part.label,
        possible=POSSIBLE.get(metric.name),
    )
