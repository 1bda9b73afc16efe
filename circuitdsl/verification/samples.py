"""From per-prompt numbers to the paired samples that verdicts are about."""

from __future__ import annotations

import numpy as np

from circuitdsl.measure.bench import Bench, Series
from circuitdsl.measure.metrics import HITS, SHARES
from circuitdsl.measure.requests import AttentionRequest, EdgeRequest, NodeRequest, PatchRequest, Request
from circuitdsl.verdict.samples import Sample


def base(bench: Bench, request: PatchRequest) -> np.ndarray:
    """What a patched run is compared with: the clean run, or the corrupt one for denoising."""
    return bench.clean if request.direction == "noise" else bench.corrupt


def sample_of(bench: Bench, request: Request, series: Series, label: str = "") -> Sample:
    """The paired sample of a request on measured prompts, all of which have its positions."""
    index, strata = series.indices, bench.strata[series.indices]
    if isinstance(request, (EdgeRequest, NodeRequest)):
        return Sample(
            strata,
            d=series.values - base(bench, request)[index],
            g=(bench.clean - bench.corrupt)[index],
            unit="points" if bench.metric.name in SHARES else "plain",
            falls=bench.falls,
            label=label,
            step=1.0 if bench.metric.name in HITS else None,
        )
    if isinstance(request, AttentionRequest):
        return Sample(strata, value=series.values, name="attention", unit="percent", label=label, possible=(0, 1))
    share = request.metric.name in SHARES
    return Sample(
        strata,
        value=series.values,
        name=str(request.metric),
        unit="percent" if share else "plain",
        hits=request.metric.name in HITS,
        label=label,
    )
