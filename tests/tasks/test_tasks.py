"""Every task, under GPT-2's tokenizer and the pocket model's: aligned, seeded, marked by construction."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitdsl.errors import UsageError
from circuitdsl.models.load import load_tokenizer
from circuitdsl.tasks.dataset import encode, sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.task import TaskError, WordList
from circuitdsl.tasks.tokens import Tokens
from tests.conftest import ROOT, shared
from tests.drawing import examples

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


@settings(max_examples=examples(25, 50), deadline=None)
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


@dataclass(frozen=True)
class Lacking(Tokens):
    """A tokenizer under which some words are not single tokens."""

    lacking: str = ""

    def usable(self, words: WordList) -> tuple[str, ...]:
        return tuple(word for word in super().usable(words) if not re.fullmatch(self.lacking, word))


def test_colors_whose_label_is_not_one_token_are_left_out(gpt2_tokens) -> None:
    tokens = Lacking(gpt2_tokens.tokenizer, "GPT-2", lacking="Purple|Orange")
    for pair in sample(TASKS["colored_objects"], tokens, 60).pairs:
        assert not {"purple", "orange"} & set(re.findall(r"\w+", pair.clean.lower()))


@pytest.mark.parametrize(
    ("task", "lacking", "name", "left"),
    [
        ("colored_objects", "Purple|Orange|Red", "labels", "5 of 8"),
        ("colored_objects", "Purple|Orange|red", "colors", "5 of 8"),
        ("greater_than", r"\d\d01", "years", "0 of 686"),
        ("greater_than", r"1[1-6]01|17([1-9].|0[3-9])", "years", "2 of 686"),
        ("greater_than", r"[89]\d", "two_digits", "79 of 100"),
        ("greater_than", r"\d\d", "two_digits", "0 of 100"),
    ],
)
def test_lists_whose_words_lack_partners_are_named(task, lacking, name, left, gpt2_tokens) -> None:
    """Before anything is drawn: a draw that finds no word must not go on looking for one."""
    says = f"leaves {left} words in the list '{name}' of task {task}"
    with pytest.raises(TaskError, match=says):
        sample(TASKS[task], Lacking(gpt2_tokens.tokenizer, "GPT-2", lacking=lacking), 4)


@pytest.mark.parametrize("corruption", TASKS["greater_than"].corruptions)
def test_greater_than_keeps_to_what_is_left(corruption, gpt2_tokens) -> None:
    """No century without 01, no year with nothing after it or nothing before it."""
    tokens = Lacking(gpt2_tokens.tokenizer, "GPT-2", lacking=r"1[1-5]01|0[1-3]|9[5-9]")
    pairs = sample(TASKS["greater_than"], tokens, 300, corrupt=corruption).pairs
    assert {pair.stratum for pair in pairs} == {"16", "17"}
    assert all(pair.answers and pair.distractors for pair in pairs)


def test_templates_with_words_that_the_tokenizer_does_not_know_are_named(pocket_tokens) -> None:
    tokens, task = pocket_tokens, TASKS["greater_than"]
    draft = task.draw(random.Random(0), tokens.words(task) | {"nouns": ("zork",)}, "yy01", {})
    with pytest.raises(TaskError, match="task greater_than: the tokenizer of pocket does not know 'zork' in 'The zork"):
        encode(task, tokens, [draft])


def test_the_docs_name_every_task_with_its_corruptions_and_metric() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (`.*`) \|.*\| (`\w+`).*\|$", (ROOT / "docs" / "tasks.md").read_text(), re.M)
    assert {name: (tuple(re.findall(r"\w+", corruptions)), metric) for name, corruptions, metric in rows} == {
        task.name: (tuple(task.corruptions), f"`{task.metric}`") for task in TASKS.values()
    }


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
    with pytest.raises(UsageError) as caught:
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


@pytest.mark.parametrize(("items", "strata"), [(2, {"slot-1", "slot-2"}), (3, {"slot-1", "slot-2", "slot-3"})])
def test_the_number_of_coloured_objects_is_an_option(items, strata, gpt2_tokens) -> None:
    found = sample(TASKS["colored_objects"], gpt2_tokens, 20, options={"items": items}).pairs
    assert {pair.stratum for pair in found} == strata
    for pair in found:
        assert len(pair.positions["DISTRACTOR"]) == len(pair.distractor_texts) == items - 1
        scene = pair.clean.split("\n")[-2]
        assert scene.count(" and ") == 1 and scene.count(",") == items + (items > 2) - 1


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_names_can_be_written_in_a_spec(task) -> None:
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in (task.name, *task.corruptions, *task.options))
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", name) for name in task.positions)
