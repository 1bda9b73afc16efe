"""Prompt files: every way to give a position, and every way to be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.from_file import PromptFileError, position_names, read_prompts
from circuitdsl.tasks.registry import TASKS
from tests.conftest import shared

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"
GOOD = {
    "clean": CLEAN,
    "corrupt": CORRUPT,
    "answer": " Mary",
    "distractor": " John",
    "positions": {"IO": " Mary", "S1": " John", "S2": " John#2", "CHARS": {"chars": [5, 9]}, "LAST": -1, "FIRST": 0},
    "stratum": "ABBA",
}


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_positions_by_substring_occurrence_characters_and_index(tmp_path, gpt2_tokens) -> None:
    (pair,) = read_prompts(write(tmp_path / "p.jsonl", GOOD), gpt2_tokens, "mine").pairs
    assert pair.positions == {
        "END": (13,),
        "IO": (1,),
        "S1": (3,),
        "S2": (9,),
        "CHARS": (1,),
        "LAST": (13,),
        "FIRST": (0,),
    }
    assert pair.stratum == "ABBA"
    assert gpt2_tokens.tokenizer.decode(pair.answers) == " Mary"


def test_position_names_need_no_tokenizer(tmp_path) -> None:
    assert position_names(write(tmp_path / "p.jsonl", GOOD)) == ("CHARS", "END", "FIRST", "IO", "LAST", "S1", "S2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"corrupt": CORRUPT + " the"}, "the clean prompt has 14 tokens and the corrupt one 15"),
        ({"corrupt": CLEAN}, "the clean and the corrupt prompt are the same"),
        ({"answer": None}, "there is no answer"),
        ({"distractor": " Mary"}, "an answer and a distractor share their first token"),
        ({"positions": {"S2": " John#3"}}, "position S2: ' John' stands 2 times in the clean prompt, not 3"),
        ({"positions": {"S2": 99}}, "position S2 is token 99 of a prompt of 14 tokens"),
        ({"positions": {"S2": {"chars": [50, 900]}}}, "position S2 is characters 50 to 900"),
        ({"positions": {"s2": 3}}, "position 's2' is not written in capitals"),
        ({"clean": ""}, "there is no clean prompt"),
        ({"clean_tokens": [1, "x"]}, "clean_tokens is not a list of token ids"),
        ({"clean_tokens": [99999999]}, "beyond the model's vocabulary of 50257"),
        ({"positions": [1]}, "'positions' is not an object"),
    ],
)
def test_bad_lines_are_named(tmp_path, gpt2_tokens, change, reason) -> None:
    path = write(tmp_path / "p.jsonl", GOOD, GOOD | change)
    with pytest.raises(PromptFileError) as caught:
        read_prompts(path, gpt2_tokens, "mine", n_vocab=50257)
    assert f"{path}:2: " in caught.value.message
    assert reason in caught.value.message
    assert caught.value.status == 2


def test_all_bad_lines_are_reported_at_once(tmp_path, gpt2_tokens) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("{nonsense\n" + json.dumps(GOOD) + "\n[1]\n" + json.dumps(GOOD | {"answer": 3.5}) + "\n")
    with pytest.raises(PromptFileError) as caught:
        read_prompts(path, gpt2_tokens, "mine")
    assert [line.split(": ")[0] for line in caught.value.message.splitlines()[1:]] == [f"{path}:{n}" for n in (1, 3, 4)]


def test_csv_has_positions_in_capital_columns(tmp_path, gpt2_tokens) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f'clean,corrupt,answer,distractor,stratum,S2,IO\n"{CLEAN}","{CORRUPT}", Mary, John,a, John#2,1\n')
    (pair,) = read_prompts(path, gpt2_tokens, "mine").pairs
    assert (pair.positions["S2"], pair.positions["IO"], pair.stratum) == ((9,), (1,), "a")


def test_token_ids_need_no_tokenizer(tmp_path) -> None:
    record = {"clean_tokens": [5, 6, 7], "corrupt_tokens": [5, 8, 7], "answer": 1, "distractor": [2, 3]}
    (pair,) = read_prompts(write(tmp_path / "p.jsonl", record | {"positions": {"S": 1}}), None, "ids").pairs
    assert pair.clean_tokens == (5, 6, 7)
    assert (pair.answers, pair.distractors, pair.positions) == ((1,), (2, 3), {"END": (2,), "S": (1,)})
    with pytest.raises(PromptFileError, match="has no tokenizer; give answer as a token id"):
        read_prompts(write(tmp_path / "q.jsonl", record | {"answer": " Mary"}), None, "ids")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_sampled_prompts_read_back_as_themselves(task, tmp_path, gpt2_tokens) -> None:
    pairs = sample(task, gpt2_tokens, 20, seed=2).pairs
    read = read_prompts(write(tmp_path / "p.jsonl", *(pair.record() for pair in pairs)), gpt2_tokens, task.name).pairs
    for ours, theirs in zip(pairs, read, strict=True):
        assert (ours.clean_tokens, ours.corrupt_tokens) == (theirs.clean_tokens, theirs.corrupt_tokens)
        assert (dict(ours.positions), ours.stratum) == (dict(theirs.positions), theirs.stratum)
        assert set(ours.answers) == set(theirs.answers) or task.name == "greater_than"


def test_the_papers_colored_objects_prompts_load_as_a_file_task(tmp_path, gpt2_tokens) -> None:
    folder = shared("colored_objects")
    clean, corrupt = (json.loads((folder / name).read_text()) for name in ("clean.json", "corrupt.json"))
    records = [
        {"clean": a, "corrupt": b, "answer": x, "distractor": y, "positions": {"ANSWER": x.lower() + " "}}
        for (a, x), (b, y) in zip(clean, corrupt, strict=True)
    ]
    for record in records:  # the answer's colour in the test scene, which the example scene does not have
        record["positions"]["ANSWER"] = record["answer"].lower()
    data = read_prompts(write(tmp_path / "co.jsonl", *records), gpt2_tokens, "colored_objects")
    assert len(data.pairs) == 1000
    for pair in data.pairs:
        assert (
            gpt2_tokens.tokenizer.decode(pair.clean_tokens[pair.positions["ANSWER"][0]]) == pair.answer_texts[0].lower()
        )
        differ = sum(a != b for a, b in zip(pair.clean_tokens, pair.corrupt_tokens, strict=True))
        assert differ == 1
