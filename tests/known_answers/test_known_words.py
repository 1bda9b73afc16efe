"""Lines of the language whose verdict is known: true ones hold, false ones do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from circuitdsl.report.report import Report
from tests.known_answers.hand_set_claims import Population
from tests.known_answers.hand_set_runs import sample_bench, verified

HEAD = """circuit known
model "{model}"
task known = file("known.jsonl", prompts = 256)
heads duplicate  = 0.2       at S2
heads inhibition = 1.1 1.5   at END
heads mover      = 2.3 2.4   at END
"""


@pytest.fixture
def chain(known_model: Callable[[str, int], Population]) -> Population:
    return known_model("chain", 96)


def run(whole: Population, *lines: str, n: int = 256) -> Report:
    return verified(HEAD.format(model=whole.model.name) + "\n".join(lines) + "\n", sample_bench(whole, 5, n=n))


def verdicts(whole: Population, *lines: str) -> list[str]:
    return [claim.verdict for claim in run(whole, *lines).claims]


def test_a_known_gap_passes_until_it_holds(chain: Population) -> None:
    lines = (
        'mover -> logits at END : raises  expected to fail "movers lower it"',
        'mover -> logits at END : lowers  expected to fail "movers lower it"',
        'mover -> logits at OTHER : lowers  expected to fail "nothing is read there"',
    )
    found = run(chain, *lines[:2])
    assert [claim.outcome for claim in found.claims] == ["expected", "unexpected"]
    assert found.exit_status() == 1


def test_all_but_the_circuit_does_nothing_and_all_but_a_part_of_it_does(chain: Population) -> None:
    lines = (
        "heads rest = all - duplicate - inhibition - mover   at END  outside",
        "heads more = all - duplicate - inhibition - 2.3     at END  outside",
        "expect knockout(rest) : effect in [-15%, 15%]",
        "expect knockout(more) : effect in [-15%, 15%]",
        "2.* - mover -> logits at END : effect in [-3%, 3%]",
        "2.* -> logits at END : effect in [-3%, 3%]",
        "2.* -> logits at END : lowers",
        "each 2.* -> logits at END : lowers",
    )
    assert verdicts(chain, *lines) == ["holds", "fails", "holds", "fails", "holds", "fails"]
