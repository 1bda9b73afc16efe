"""From per-prompt numbers to the paired samples that verdicts are about."""

from __future__ import annotations

import numpy as np

from circuitdsl.measure.bench import Bench, Series
from circuitdsl.measure.metrics import SHARES
from circuitdsl.measure.plan import AttentionRequest, EdgeRequest, NodeRequest, PatchRequest, Request
from circuitdsl.verdict.decide import Sample
from circuitdsl.verdict.words import Unit


def base(bench: Bench, request: PatchRequest) -> np.ndarray:
    """What a patched run is compared with: the clean run, or the corrupt one for denoising."""
    return bench.clean if request.direction == "noise" else bench.corrupt


def sample_of(bench: Bench, request: Request, series: Series, label: str = "") -> Sample:
    """The paired sample of a request on the prompts measured so far that have its positions."""
    keep = series.present
    index = series.indices[keep]
    strata = bench.strata[index]
    if isinstance(request, (EdgeRequest, NodeRequest)):
        return Sample(
            strata,
            d=series.values[keep] - base(bench, request)[index],
            g=(bench.clean - bench.corrupt)[index],
            unit="points" if bench.is_share else "plain",
            falls=bench.falls,
            label=label,
        )
    value = series.values[keep]
    if isinstance(request, AttentionRequest):
        return Sample(strata, value=value, name="attention", unit="percent", label=label)
    hits = request.metric.name in SHARES
    unit: Unit = "percent" if hits else "plain"
    return Sample(strata, value=value, name=str(request.metric), unit=unit, hits=hits, label=label)
