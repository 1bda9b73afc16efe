"""Generated prompts are dealt to strata in turn, whatever the chance of each."""

from __future__ import annotations

from collections import Counter

import pytest

from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import SHIPPED
from circuitdsl.tasks.task import Task


@pytest.mark.parametrize("task", SHIPPED.values(), ids=SHIPPED)
def test_every_round_has_one_prompt_of_each_stratum(task: Task, pocket_tokens) -> None:
    strata = task.strata(pocket_tokens.words(task), task.settings({}))
    assert len(set(strata)) == len(strata) >= 2
    pairs = sample(task, pocket_tokens, 3 * len(strata), seed=5).pairs
    rounds = [pairs[i : i + len(strata)] for i in range(0, len(pairs), len(strata))]
    for dealt in rounds:
        assert Counter(pair.stratum for pair in dealt) == Counter(strata)
    assert len({tuple(pair.stratum for pair in dealt) for dealt in rounds}) > 1  # in another order each time


@pytest.mark.parametrize("task", SHIPPED.values(), ids=SHIPPED)
def test_the_first_prompts_are_the_same_for_every_number(task: Task, pocket_tokens) -> None:
    many = sample(task, pocket_tokens, 70, seed=3).pairs
    assert sample(task, pocket_tokens, 33, seed=3).pairs == many[:33]


def test_options_narrow_the_strata(pocket_tokens) -> None:
    task = SHIPPED["ioi"]
    strata = {pair.stratum for pair in sample(task, pocket_tokens, 30, options={"order": "abba"}).pairs}
    assert len(strata) == 15
    assert all(stratum.startswith("ABBA") for stratum in strata)
