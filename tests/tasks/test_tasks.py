"""Every task, under GPT-2's tokenizer and the pocket model's: aligned, seeded, marked by construction."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitdsl.models.load import load_tokenizer
from circuitdsl.tasks.dataset import encode, sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.task import TaskError
from circuitdsl.tasks.tokens import Tokens
from tests.conftest import shared

EVERY = [(task, corruption) for task in TASKS.values() for corruption in task.corruptions]
IDS = [f"{task.name}-{corruption}" for task, corruption in EVERY]


@pytest.fixture(params=["gpt2_tokens", "pocket_tokens"])
def tokens(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(("task", "corruption"), EVERY, ids=IDS)
def test_pairs_are_aligned_and_differ(task, corruption, tokens) -> None:
    data = sample(task, tokens, 60, seed=3, corrupt=corruption)
    for pair in data.pairs:
        assert len(pair.clean_tokens) == len(pair.corrupt_tokens)
        assert pair.clean_tokens != pair.corrupt_tokens
        assert pair.positions["END"] == (len(pair.clean_tokens) - 1,)
        assert not set(pair.answers) & set(pair.distractors)
        assert all(0 <= i < len(pair.clean_tokens) for index in pair.positions.values() for i in index)


@pytest.mark.parametrize(("task", "corruption"), EVERY, ids=IDS)
def test_every_declared_position_is_found_in_some_prompt(task, corruption, tokens) -> None:
    data = sample(task, tokens, 60, seed=0, corrupt=corruption)
    assert {name for pair in data.pairs for name in pair.positions} == set(task.positions)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_answer_stands_at_answer(task, gpt2_tokens) -> None:
    if "ANSWER" not in task.positions:
        pytest.skip(f"{task.name} asks for something that is not in the prompt")
    for pair in sample(task, gpt2_tokens, 50, seed=1).pairs:
        said = gpt2_tokens.tokenizer.decode([pair.clean_tokens[i] for i in pair.positions["ANSWER"]])
        assert said.lower() == pair.answer_texts[0].lower()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_same_seed_same_prompts_and_prefixes_agree(task, pocket_tokens) -> None:
    long, short = sample(task, pocket_tokens, 64, seed=5), sample(task, pocket_tokens, 20, seed=5)
    assert long.pairs[:20] == short.pairs
    assert long.sha256 == sample(task, pocket_tokens, 64, seed=5).sha256
    assert long.sha256 != sample(task, pocket_tokens, 64, seed=6).sha256


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_positions_stand_in_the_declared_order(task, tokens) -> None:
    for pair in sample(task, tokens, 100, seed=4).pairs:
        for later, earlier in task.before().items():
            for name in earlier:
                if later in pair.positions and name in pair.positions:
                    assert max(pair.positions[name]) < min(pair.positions[later]), (name, later)


@settings(max_examples=50, deadline=None)
@given(rng=st.randoms(use_true_random=False), which=st.sampled_from(EVERY))
def test_any_randomness_makes_a_valid_pair(rng: random.Random, which, pocket_tokens) -> None:
    task, corruption = which
    draft = task.draw(rng, pocket_tokens.words(task), corruption, task.settings({}))
    (pair,) = encode(task, pocket_tokens, [draft])
    assert pair.answers
    assert pair.stratum


def test_bos_is_added_only_where_asked(gpt2_tokens) -> None:
    plain = sample(TASKS["ioi"], gpt2_tokens, 4)
    with_bos = sample(TASKS["ioi"], Tokens(gpt2_tokens.tokenizer, "GPT-2", bos=True), 4)
    assert (plain.bos, with_bos.bos) == (False, True)
    for a, b in zip(plain.pairs, with_bos.pairs, strict=True):
        assert b.clean_tokens == (50256, *a.clean_tokens)
        assert b.positions["S2"][0] == a.positions["S2"][0] + 1


def test_a_list_that_runs_dry_is_named() -> None:
    tokens = Tokens(load_tokenizer(str(shared("stories260K"))), "stories260K")
    says = r"stories260K leaves \d+ of 99 words in the list 'names' of task ioi, which needs 5"
    with pytest.raises(TaskError, match=says):
        sample(TASKS["ioi"], tokens, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.corruption("abd"), "task ioi has no corruption 'abd' (it has abc, flip, s2, swap, io, s)"),
        (lambda t: t.settings({"ordre": "abba"}), "task ioi has no option 'ordre' (it has: order)"),
        (
            lambda t: t.settings({"order": "aabb"}),
            "option order of task ioi cannot be aabb (it can be mixed, abba, baba)",
        ),
    ],
)
def test_what_a_task_lacks_is_said(call, message) -> None:
    with pytest.raises(TaskError) as caught:
        call(TASKS["ioi"])
    assert caught.value.message == message


def test_greater_than_scores_all_years_on_the_right_side(gpt2_tokens) -> None:
    for pair in sample(TASKS["greater_than"], gpt2_tokens, 30).pairs:
        year = gpt2_tokens.tokenizer.decode([pair.clean_tokens[pair.positions["YY"][0]]])
        assert min(pair.answer_texts) > year >= max(pair.distractor_texts)


@pytest.mark.parametrize("items", [3, 6])
def test_laundry_list_length_is_an_option(items, gpt2_tokens) -> None:
    for pair in sample(TASKS["laundry_list"], gpt2_tokens, 20, options={"items": items}).pairs:
        assert len(pair.positions["AGAIN"]) == items - 1
        assert len(pair.positions["DISTRACTOR"]) == 2 * (items - 1)
