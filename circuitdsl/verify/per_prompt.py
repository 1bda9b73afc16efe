"""All numbers behind a report, prompt by prompt, as flat rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.plan import Base, ClaimPlan
from circuitdsl.measurements.requests import Request
from circuitdsl.verify.measure import Series
from circuitdsl.verify.samples import base_of

#: what a row holds; `value` is measured, `delta` the difference from `base`, `effect` delta over the task's mean gap
COLUMNS = (
    *("circuit", "claim", "line", "text", "task", "member", "prompt", "stratum", "clean_text"),
    *("clean", "corrupt", "value", "base", "delta", "effect", "changed", "corrupt_text", "file_line"),
)

Row = tuple[object, ...]


def rows(circuit: str, plan: ClaimPlan, series: Mapping[Request, Series], prompts: Prompts) -> Iterator[Row]:
    """A row for each part and member of a claim and each prompt that was measured for it, as `COLUMNS` names them."""
    seen = set()
    asked = [(part.label, part.request, part.base) for part in plan.parts]
    asked += [(str(m), r, "clean" if r.direction == "noise" else "corrupt") for m, r in plan.members]
    for label, request, base in asked:
        if request in series and (label, request) not in seen:
            seen.add((label, request))
            yield from _rows(circuit, plan, label, base, request, series, prompts)


def _rows(
    circuit: str,
    plan: ClaimPlan,
    label: str,
    base: Base | None,
    request: Request,
    series: Mapping[Request, Series],
    prompts: Prompts,
) -> Iterator[Row]:
    found, claim = series[request], plan.claim
    before = None if base is None else base_of(prompts, base, series, found.indices)
    gap = float(np.mean((prompts.clean - prompts.corrupt)[found.indices])) if isinstance(base, str) else 0.0
    for place, index in enumerate(found.indices):
        pair, value = prompts.pairs[index], float(found.values[place])
        delta = None if before is None else value - float(before[place])
        yield (
            circuit,
            claim.id,
            claim.line,
            claim.text,
            plan.task,
            label,
            int(index),
            pair.stratum,
            pair.clean,
            float(prompts.clean[index]),
            float(prompts.corrupt[index]),
            value,
            None if before is None else float(before[place]),
            delta,
            None if delta is None or not gap else delta / gap,
            bool(found.changed[place]),
            pair.corrupt,
            pair.line,
        )
