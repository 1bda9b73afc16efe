"""The numbers behind a report, prompt by prompt, as flat rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from circuitdsl.measurements.plan import Part, patched
from circuitdsl.report.comma import comma_separated
from circuitdsl.verdict.decide import Decision
from circuitdsl.verify.figures import figures_of, part_of
from circuitdsl.verify.samples import Collected

#: what a row holds. The mean of `figure` over the rows of a claim is the figure in its report; `value` is measured,
#: `delta` its difference from `base`, and `effect` that over the mean gap of the rows
COLUMNS = (
    *("circuit", "claim", "line", "text", "task", "row", "member", "prompt", "stratum", "clean_text"),
    *("clean", "corrupt", "value", "base", "delta", "effect", "figure", "changed", "corrupt_text", "file_line"),
)


class PerPrompt(list[tuple[object, ...]]):
    """The rows of a run, as `COLUMNS` names them; `Session.verify(spec, per_prompt=rows)` adds to them.

    There is one row for each claim, task and prompt, of the part that the report's figure is of (`row` is `figure`).

    Args:
        pairs: add rows for the claim's other parts (`part`), and for the pairs of an edge that were patched alone
            beside a joint patch (`pair`).
    """

    def __init__(self, pairs: bool = False) -> None:
        super().__init__()
        self.pairs = pairs

    def record(self, circuit: str, own: Collected, decision: Decision) -> None:
        """Add the rows of a claim on a task, as far as it was measured."""
        shown = part_of(own, decision)
        self._add(circuit, own, "figure", shown, decision)
        if self.pairs:
            parts = {each.label: each for each in decision.parts}
            for part in own.plan.parts:
                if part is not shown:
                    self._add(circuit, own, "part", part, parts.get(part.label))
            known = {part.request for part in own.plan.parts}
            for member, request in own.plan.members:
                if request not in known:
                    self._add(circuit, own, "pair", patched(str(member), request), None)

    def _add(self, circuit: str, own: Collected, kind: str, part: Part, decision: Decision | None) -> None:
        if any(request not in own.series for request in part.requests):
            return
        prompts, claim, found = own.prompts, own.plan.claim, own.series[part.request]
        sample, figures = own.sample(part), figures_of(own, decision) if decision else None
        empty = [None] * sample.n
        change = None if sample.d is None else np.asarray(sample.d, float)
        effect = None if change is None or sample.g is None else change / np.mean(sample.array("g"))
        figure = figures.values if figures else effect if kind == "pair" else None
        if figures and figures.unit == "gap":  # of a claim about the size of an effect, it has no sign
            effect = figures.values
        base = None if change is None else found.values - change
        columns = [empty if y is None else np.asarray(y, float).tolist() for y in (base, change, effect, figure)]
        head = (circuit, claim.id, claim.line, claim.text, own.plan.task, kind, part.label)
        for place, (index, *numbers) in enumerate(zip(found.indices, *columns, strict=True)):
            pair = prompts.pairs[index]
            scores = float(prompts.clean[index]), float(prompts.corrupt[index]), float(found.values[place])
            changed = bool(found.changed[place])
            row = int(index), pair.stratum, pair.clean, *scores, *numbers, changed, pair.corrupt, pair.line
            self.append((*head, *row))

    def to_csv(self) -> str:
        """The rows as comma-separated lines under a line of headings.

        A text that a spreadsheet would run as a formula has an apostrophe before it.
        """
        return comma_separated([COLUMNS, *self])

    def to_frame(self) -> Any:
        """The rows as a pandas data frame; raises `UserError` where pandas is not installed."""
        from circuitdsl.report.notebook import frame

        return frame(list(self), list(COLUMNS))
