"""From per-prompt numbers to the paired samples that verdicts are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.scores import gap
from circuitdsl.measurements.plan import Base, Part
from circuitdsl.measurements.requests import Request
from circuitdsl.verdict.samples import Sample
from circuitdsl.verify.measure import Series

Found = Mapping[Request, Series]


def sample_of(prompts: Prompts, part: Part, found: Found) -> Sample:
    """The sample of a part on the prompts measured so far, all of which have its positions.

    With a base it is the paired differences from it, and for patches the gap beside them.
    """
    series, request = found[part.request], part.request
    figure = request.figure(prompts.metric)
    strata = prompts.strata[series.indices]
    plain = Sample(
        strata if figure.of_prompts else np.zeros(len(strata)),
        value=series.values,
        name=figure.name,
        unit="percent" if figure.unit == "share" else "plain",
        hits=figure.hits,
        label=part.label,
        range=(figure.low, figure.high),
        size=gap(prompts, figure.scale) if figure.scale else figure.size,
    )
    if part.base is None:
        return plain
    base = base_of(prompts, part.base, found, series.indices)
    return replace(
        plain,
        value=None,
        other=None if part.rival is None else found[part.rival].values - base,
        d=series.values - base,
        g=(prompts.clean - prompts.corrupt)[series.indices] if request.effect else None,
        unit="points" if plain.unit == "percent" else plain.unit,
        hits=False,
        falls=request.effect and prompts.falls,
        called=part.called,
        shared="" if not isinstance(part.base, str) else "first" if part.base == "clean" else "second",
    )


def base_of(prompts: Prompts, base: Base, found: Found, indices: np.ndarray) -> np.ndarray:
    """What some prompts' numbers are compared with."""
    if isinstance(base, str):
        return (prompts.clean if base == "clean" else prompts.corrupt)[indices]
    return found[base].values
