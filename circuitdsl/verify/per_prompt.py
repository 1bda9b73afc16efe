"""All numbers behind a report, prompt by prompt, as flat rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.measurements.plan import Base, ClaimPlan
from circuitdsl.measurements.requests import Request
from circuitdsl.verify.measure import Series
from circuitdsl.verify.samples import base_of

#: what a row holds; `value` is measured, `delta` the difference from `base`, `effect` delta over the task's mean gap
COLUMNS = (
    *("circuit", "claim", "line", "text", "task", "member", "prompt", "stratum", "clean_text"),
    *("clean", "corrupt", "value", "base", "delta", "effect", "changed", "corrupt_text", "file_line"),
)


class PerPrompt(list[tuple[object, ...]]):
    """The rows of a run, as `COLUMNS` names them; `Session.verify(spec, per_prompt=rows)` adds to them."""

    def record(self, circuit: str, plan: ClaimPlan, series: Mapping[Request, Series], prompts: Prompts) -> None:
        """Add a row for each part and member of a claim and each prompt that was measured for it."""
        seen = set()
        asked: list[tuple[str, Request, Base | None]] = [(part.label, part.request, part.base) for part in plan.parts]
        asked += [(str(m), r, "clean" if r.direction == "noise" else "corrupt") for m, r in plan.members]
        for label, request, base in asked:
            if request in series and (label, request) not in seen:
                seen.add((label, request))
                found, claim = series[request], plan.claim
                head = (circuit, claim.id, claim.line, claim.text, plan.task, label)
                before = None if base is None else base_of(prompts, base, series, found.indices)
                gap = float(np.mean((prompts.clean - prompts.corrupt)[found.indices])) if isinstance(base, str) else 0.0
                for place, index in enumerate(found.indices):
                    pair, value = prompts.pairs[index], float(found.values[place])
                    start = None if before is None else float(before[place])
                    delta = None if start is None else value - start
                    effect = None if delta is None or not gap else delta / gap
                    numbers = (float(prompts.clean[index]), float(prompts.corrupt[index]), value, start, delta, effect)
                    changed = bool(found.changed[place])
                    own = int(index), pair.stratum, pair.clean, *numbers, changed, pair.corrupt, pair.line
                    self.append((*head, *own))

    def to_csv(self) -> str:
        """The rows as comma-separated lines under a line of headings."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([COLUMNS, *self])
        return out.getvalue()

    def to_frame(self) -> Any:
        """The rows as a pandas data frame; raises `UserError` where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UserError("to_frame needs pandas, which is not installed", hint="pip install pandas") from None
        return pandas.DataFrame(list(self), columns=list(COLUMNS))
