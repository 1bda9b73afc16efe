"""How much is computed for verdicts: counted, as seconds depend on the machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from circuitdsl.verdict import means, ratios, weighing
from circuitdsl.verify import verify as verification

SPEC = """circuit t "a test"
model "pocket"
task ioi(corrupt = abc, prompts = 128, seed = 0)
heads suppressor = 0.3 0.5 0.6 at END
{claims}
"""
CLAIMS = """embed -> suppressor.v at S2 : effect <= -15%
embed -> suppressor.k at S2 : negligible
each suppressor -> m1 at END : effect <= -5%
suppressor -> m2 at END : lowers
suppressor -> m3 at END : lowers
each suppressor -> logits at END : effect <= -5%""".splitlines()


class Work:
    """Counts what is computed while it is in place."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.searches = self.tests = self.figures = self.looks = 0
        falls_to, tails = ratios.falls_to, means.tails
        figure_of, ruled = weighing.figure_of, verification.ruled

        def counted_search(*args: object) -> object:
            self.searches += 1
            return falls_to(*args)  # type: ignore[arg-type]

        def counted_tails(values: np.ndarray, counts: np.ndarray) -> object:
            self.tests += 1
            return tails(values, counts)

        def counted_figure(*args: object) -> object:
            self.figures += 1
            return figure_of(*args)  # type: ignore[arg-type]

        def counted_looks(evidence: Sequence[weighing.Evidence], *levels: object) -> object:
            self.looks += sum(len(part.figures) for one in evidence for part in one.parts)
            return ruled(evidence, *levels)  # type: ignore[arg-type]

        patch.setattr(ratios, "falls_to", counted_search)
        patch.setattr(means, "tails", counted_tails)
        patch.setattr(weighing, "figure_of", counted_figure)
        patch.setattr(verification, "ruled", counted_looks)


@pytest.mark.parametrize("claims", [CLAIMS[:2], CLAIMS])
def test_intervals_are_sought_together_however_many_claims_there_are(
    check, all_looks, monkeypatch, claims: list[str]
) -> None:
    """Once for each number of prompts, of the claims and of the pairs of their edges; and in few rounds."""
    work = Work(monkeypatch)
    report = check(SPEC.format(claims="\n".join(claims)))
    assert len(report.claims) == len(claims)
    lengths = {claim.measured.n for claim in report.claims}
    assert work.searches <= 2 * len(lengths)
    assert 0 < work.tests <= 12 * work.searches + 8 * work.looks


def test_every_look_is_taken_once(check, all_looks, monkeypatch) -> None:
    """What was weighed at a look is not weighed again at the next."""
    work = Work(monkeypatch)
    report = check(SPEC.format(claims="\n".join(CLAIMS)))
    assert work.figures == work.looks
    assert work.looks > len(report.claims)  # some took more than one look
