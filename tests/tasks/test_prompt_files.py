"""Prompt files: every way to give a position, and every way to be wrong."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitdsl.api import check_prompt_files, loads
from circuitdsl.report.report import TaskResult
from circuitdsl.report.terminal import task_line
from circuitdsl.tasks import places
from circuitdsl.tasks.dataset import Dataset, sample
from circuitdsl.tasks.from_file import PromptFileError, read_prompts
from circuitdsl.tasks.places import positions_in
from circuitdsl.tasks.records import lines_of
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Encoded, Tokens, unequal_words
from tests.conftest import ROOT, shared
from tests.drawing import examples

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


IDS = {"clean_tokens": [5, 6, 7], "corrupt_tokens": [5, 8, 7], "answer": 1, "distractor": [2, 3]}


def numbered(i: int) -> dict[str, object]:
    """One of several pairs with clean prompts of their own."""
    return IDS | {"clean_tokens": [5, i + 10, 7]}


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_csv(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return path


def reason(path: Path, tokens: Tokens | None, n_vocab: int = 50257) -> str:
    """What is said of a file that cannot be read."""
    with pytest.raises(PromptFileError) as caught:
        read_prompts(path, tokens, "mine", n_vocab=n_vocab)
    assert caught.value.status == 2
    return caught.value.message


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


@pytest.mark.parametrize(
    ("change", "says"),
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
        ({"clean_tokens": [1, True]}, "clean_tokens is not a list of token ids"),
        ({"clean_tokens": [99999999]}, "beyond the model's vocabulary of 50257"),
        ({"clean_tokens": [5, 6]}, "clean_tokens is not what the tokenizer of GPT-2 makes of 'clean'"),
        ({"clean": 5}, "'clean' is not a text: 5"),
        ({"clean": "\ud800"}, "'clean' is not a text"),
        ({"stratum": [1]}, "'stratum' is not a text: [1]"),
        ({"answer": 50257}, "answer has token 50257, beyond the model's vocabulary of 50257"),
        ({"answer": -1}, "answer -1 is neither a text nor a token id"),
        ({"answer": True}, "answer True is neither a text nor a token id"),
        ({"answer": [" Mary", 1.0]}, "answer 1.0 is neither a text nor a token id"),
        ({"answer": "\ud800"}, "is neither a text nor a token id"),
        ({"distractor": [7, 50300]}, "distractor has token 50300, beyond the model's vocabulary of 50257"),
        ({"corrupt_answer": 60000}, "corrupt_answer has token 60000, beyond the model's vocabulary of 50257"),
        ({"positions": [1]}, "'positions' is not an object"),
        ({"positions": {"S2": []}}, "position S2 is an empty list"),
        ({"positions": {"S2": {"chars": ["a", 3]}}}, "position S2 is none of: a text"),
        ({"positions": {"S2": {"chars": [1.0, 3]}}}, "position S2 is none of: a text"),
        ({"positions": {"S2": {"chars": [True, 3]}}}, "position S2 is none of: a text"),
        ({"positions": {"S2": True}}, "position S2 is none of: a text"),
        ({"positions": {"S2": ""}}, "position S2 is none of: a text"),
        ({"positions": {"S2": " John#0"}}, "position S2: ' John#0' asks for occurrence 0; they count from 1"),
        ({"positions": {"S2": " John#²"}}, "' John#²' stands 0 times in the clean prompt, not 1 (an occurrence is"),
        (
            {"positions": {"END": " store"}},
            "position END is token 7; the metric is read at END, which is the last",
        ),
        ({"positions": {"END": [0, -1]}}, "position END is token 0 and 13; the metric is read at END"),
    ],
)
def test_bad_lines_are_named(tmp_path, gpt2_tokens, change, says) -> None:
    path = write(tmp_path / "p.jsonl", GOOD, GOOD | change)
    message = reason(path, gpt2_tokens)
    assert f"{path}:2: " in message
    assert says in message


def test_a_misspelt_answer_is_named(tmp_path) -> None:
    path = write(tmp_path / "p.jsonl", IDS | {"answer": None, "answr": 1})
    assert "there is no field 'answr'; did you mean 'answer'?" in reason(path, None)
    assert len(read_prompts(write(path, IDS | {"answers": 1}), None, "mine").pairs) == 1  # a field of the author's own


def test_the_first_words_of_other_lengths_are_named() -> None:
    """Lily is one token, Sam is ` S` and `am`; the end of a text may be one token with what stands before it."""
    clean, corrupt = "Lily saw Tom.", "Sam saw Mia."
    one = Encoded((1, 2, 3, 4, 5), ((0, 4), (4, 8), (8, 10), (10, 12), (12, 13)))
    other = Encoded((6, 7, 2, 8, 9, 5), ((0, 1), (1, 3), (3, 7), (7, 9), (9, 11), (11, 12)))
    assert unequal_words(clean, corrupt, one, other) == " ('Lily' is 1 token, 'Sam' 2)"
    assert unequal_words(corrupt, clean, other, one) == " ('Sam' is 2 tokens, 'Lily' 1)"
    assert unequal_words(clean, corrupt + " So", one, other) == ""
    assert unequal_words("", "", Encoded((1, 2), ()), Encoded((1,), ())) == ""


def test_all_bad_lines_are_reported_at_once(tmp_path, gpt2_tokens) -> None:
    """However many they are, and also those beyond the number of prompts asked for."""
    path = tmp_path / "p.jsonl"
    good, bad = json.dumps(GOOD), json.dumps(GOOD | {"answer": 3.5})
    path.write_text("\n".join([good, "{nonsense", good, "[1]", "", *[bad] * 40]))
    with pytest.raises(PromptFileError) as caught:
        read_prompts(path, gpt2_tokens, "mine", limit=1)
    lines = [2, 4, *range(6, 46)]
    assert [line.split(": ")[0] for line in caught.value.message.splitlines()[1:]] == [f"{path}:{n}" for n in lines]


def test_all_reasons_of_a_line_are_given(tmp_path, pocket_tokens) -> None:
    places = {"END": 3, "io": 1, "FAR": 99, "S2": " John"}
    wrong = {"corrupt": "Zork gave it to", "distractor": [], "stratum": [1], "positions": places}
    message = reason(write(tmp_path / "p.jsonl", GOOD | wrong), pocket_tokens)
    for part in (
        "does not know 'Zork' in the corrupt prompt; ",
        "there is no distractor; ",
        "'stratum' is not a text",
        "position 'io' is not written in capitals",
        "position FAR is token 99",
        "position END is token 3",
    ):
        assert part in message
    assert "S2" not in message


@pytest.mark.parametrize(("model", "found"), [("pocket", [2, 3, 4]), ("nowhere/none", [2])])
def test_what_a_tokenizer_at_hand_finds_is_said_with_the_rest(tmp_path, model, found) -> None:
    path = write(tmp_path / "p.jsonl", GOOD, [1], GOOD | {"answer": " Zork"}, GOOD | {"answer": 578})
    text = f'circuit t\nmodel "{model}"\ntask mine = file("p.jsonl")\nexpect accuracy >= 1%\n'
    with pytest.raises(PromptFileError) as caught:
        check_prompt_files(loads(text, str(tmp_path / "t.circ")))
    assert [line.split(": ")[0] for line in caught.value.message.splitlines()[1:]] == [f"{path}:{n}" for n in found]


def test_of_very_many_bad_lines_fifty_are_named(tmp_path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("x\n" * 5000)
    lines = reason(path, None).splitlines()
    rest = f"… and 4950 more (circuitdsl tasks check --all {path} lists them)"
    assert (lines[0], lines[-1], len(lines)) == (f"5000 bad lines in {path}", rest, 52)


@pytest.mark.parametrize("name", ["postions", "Positions", "strata", "corrupt_answers"])
def test_a_misspelt_field_that_nobody_would_miss_is_named(tmp_path, name: str) -> None:
    message = reason(write(tmp_path / "p.jsonl", IDS | {name: ""}), None)
    assert f":1: there is no field '{name}'; did you mean" in message
    path = write_csv(tmp_path / "p.csv", {key: json.dumps(value) for key, value in (IDS | {name: 1}).items()})
    assert f":2: there is no field '{name}'" in reason(path, None)


def test_positions_of_a_table_are_columns(tmp_path) -> None:
    path = write_csv(tmp_path / "p.csv", {key: json.dumps(value) for key, value in IDS.items()} | {"positions": "A"})
    assert ":1: every position is a column of its own" in reason(path, None)


def test_fields_of_the_authors_own_are_left_alone(tmp_path) -> None:
    own = {"id": 7, "clean_len": 3, "position": "beside the one that counts", "source": "mine"}
    path = write(tmp_path / "p.jsonl", IDS | {"positions": {"A": 1}} | own)
    assert read_prompts(path, None, "mine").pairs[0].positions["A"] == (1,)


@pytest.mark.parametrize(
    ("change", "word", "where"),
    [
        ({"clean": "Then, Zork gave Zyx to"}, "Zork", "the clean prompt"),
        ({"corrupt": "Zork gave it to"}, "Zork", "the corrupt prompt"),
        ({"corrupt": "Mary gave\tit to"}, "\t", "the corrupt prompt"),
        ({"answer": " Zork"}, "Zork", "answer ' Zork'"),
        ({"distractor": [" John", " Zork"]}, "Zork", "distractor ' Zork'"),
        ({"corrupt_answer": " Zork"}, "Zork", "corrupt_answer ' Zork'"),
    ],
)
def test_words_that_the_tokenizer_does_not_know_are_named(tmp_path, pocket_tokens, change, word, where) -> None:
    """Two unknown words are one and the same token: the model could not tell them apart."""
    message = reason(write(tmp_path / "p.jsonl", GOOD | change), pocket_tokens)
    assert f"the tokenizer of pocket does not know {word!r} in {where}" in message


def test_the_beginning_of_a_text_may_be_written_out(tmp_path, gpt2_tokens) -> None:
    """GPT-2's unknown token is its beginning-of-sequence token, and people put it before their prompts."""
    texts = {side: f"<|endoftext|>{GOOD[side]}" for side in ("clean", "corrupt")}
    record = GOOD | texts | {"positions": {"BOS": 0, "FIRST": 1}}
    data = read_prompts(write(tmp_path / "p.jsonl", record), gpt2_tokens, "mine")
    assert data.pairs[0].clean_tokens[0] == 50256
    assert data.bos


# --- the order of prompts --------------------------------------------------------------------------


def test_prompts_come_in_random_order_whatever_their_order_in_the_file(tmp_path) -> None:
    """Looks at the first prompts alone must be looks at a random sample."""
    path = write(tmp_path / "p.jsonl", *(numbered(i) | {"stratum": "ab"[i >= 100]} for i in range(200)))
    strata = [pair.stratum for pair in read_prompts(path, None, "mine", limit=64).pairs]
    assert 20 <= strata.count("a") <= 44


def test_the_order_follows_the_seed_and_limits_share_their_first_prompts(tmp_path) -> None:
    path = write(tmp_path / "p.jsonl", *(numbered(i) | {"stratum": i} for i in range(50)))

    def read(**given: int) -> Dataset:
        return read_prompts(path, None, "mine", **given)

    assert read(seed=3).seed == 3
    assert read(seed=3) == read(seed=3)
    assert read(seed=3).pairs != read(seed=4).pairs
    assert read(seed=3).pairs[:20] == read(seed=3, limit=20).pairs
    assert {pair.stratum for pair in read().pairs} == {str(i) for i in range(50)}


# --- CSV and JSON as files -------------------------------------------------------------------------


def test_the_positions_of_a_file_are_read_again_when_it_has_changed(tmp_path, monkeypatch) -> None:
    opened, path = [], tmp_path / "p.jsonl"
    monkeypatch.setattr(places, "lines_of", lambda path: opened.append(path) or lines_of(path))
    assert positions_in(path) is None
    path.write_text('{"positions": {"A": 0}}\n')
    assert positions_in(path) == positions_in(path) == ("A", "END") and len(opened) == 1
    path.write_text('{"positions": {"AB": 0}}\n')
    assert positions_in(path) == ("AB", "END")
    path.write_bytes(b"\xff\xff\xff")
    assert positions_in(path) is positions_in(path) is None and len(opened) == 4


def test_csv_has_positions_in_capital_columns(tmp_path, gpt2_tokens) -> None:
    path = tmp_path / "p.CSV"
    path.write_text(f'clean,corrupt,answer,distractor,stratum,S2,IO\n"{CLEAN}","{CORRUPT}", Mary, John,a, John#2,1\n')
    (pair,) = read_prompts(path, gpt2_tokens, "mine").pairs
    assert (pair.positions["S2"], pair.positions["IO"], pair.stratum) == ((9,), (1,), "a")


ROW = {"clean": CLEAN, "corrupt": CORRUPT, "answer": " Mary", "distractor": " John"}


def test_csv_lists_of_answers_are_written_as_json(tmp_path, gpt2_tokens) -> None:
    row = ROW | {"answer": '[" Mary", " Paul"]', "distractor": "[1757]"}
    (pair,) = read_prompts(write_csv(tmp_path / "p.csv", row), gpt2_tokens, "mine").pairs
    assert gpt2_tokens.tokenizer.decode(pair.answers) == " Mary Paul"
    assert pair.distractors == (1757,)
    message = reason(write_csv(tmp_path / "q.csv", ROW | {"answer": "[Mary"}), gpt2_tokens)
    assert "answer '[Mary' begins with [ and is not a list as JSON writes it" in message


def test_long_csv_fields_are_read(tmp_path, gpt2_tokens) -> None:
    usual = csv.field_size_limit()
    path = write_csv(tmp_path / "p.csv", ROW | {"comment": "x" * (usual + 1)})
    assert len(read_prompts(path, gpt2_tokens, "mine").pairs) == 1
    assert csv.field_size_limit() == usual


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("clean,answer\n\nWhen Mary, John,x\n", 3, "3 cells under 2 columns (a text with a comma needs quotes)"),
        ("clean,answer\nx\n", 2, "1 cells under 2 columns"),
        ('clean,answer\n"x,y\nz,w\n', 2, "not CSV: unexpected end of data"),
        ('clean,answer\n"x\ny"z,w\n', 2, "not CSV: ',' expected after '\"'"),
        ("clean,answer,answer\n", 1, "two columns are named answer"),
    ],
)
def test_what_is_not_a_table_is_named(tmp_path, gpt2_tokens, text, line, says) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    assert f"{path}:{line}: {says}" in reason(path, gpt2_tokens)


def test_only_line_ends_end_lines(tmp_path, gpt2_tokens) -> None:
    """JSON allows U+2028 and U+0085 inside strings."""
    path = tmp_path / "p.jsonl"
    texts = ("a\u2028b", "a\x85b")
    lines = [json.dumps(numbered(i) | {"stratum": text}, ensure_ascii=False) for i, text in enumerate(texts)]
    path.write_bytes("\r\n".join([*lines, ""]).encode())
    assert {p.stratum for p in read_prompts(path, gpt2_tokens, "mine").pairs} == {"a\u2028b", "a\x85b"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "cannot read the prompt file {path}: No such file or directory"),
        (b"\xff\xfe", "cannot read the prompt file {path}: it is not UTF-8 text"),
        (b"\n", "{path} has no prompts"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path, gpt2_tokens, data, says) -> None:
    path = tmp_path / "p.jsonl"
    if data is not None:
        path.write_bytes(data)
    assert reason(path, gpt2_tokens) == says.format(path=path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 60000) | st.floats() | st.text(max_size=6) | st.just(" Mary"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just("chars"), inner, max_size=3)
    ),
    max_leaves=6,
)
CHANGES = st.dictionaries(
    st.sampled_from([*GOOD, "corrupt_answer", "clean_tokens", "corrupt_tokens"]), JSON, max_size=4
) | st.fixed_dictionaries({"positions": st.dictionaries(st.sampled_from(["S1", "END", "x"]), JSON)})


@pytest.fixture(scope="module")
def any_file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("any") / "p.jsonl"


@settings(max_examples=examples(100, 300), deadline=None)
@given(change=CHANGES, with_tokenizer=st.booleans())
def test_any_line_is_read_or_named(change, with_tokenizer, any_file, gpt2_tokens) -> None:
    tokens = gpt2_tokens if with_tokenizer else None
    try:
        data = read_prompts(write(any_file, GOOD | change), tokens, "mine", n_vocab=50257)
    except PromptFileError as error:
        assert f"{any_file}:1: " in error.message
    else:
        assert read_prompts(write(any_file, data.pairs[0].record()), tokens, "mine") == data


# --- token ids -------------------------------------------------------------------------------------


def test_token_ids_need_no_tokenizer(tmp_path) -> None:
    (pair,) = read_prompts(write(tmp_path / "p.jsonl", IDS | {"positions": {"S": 1}}), None, "ids").pairs
    assert pair.clean_tokens == (5, 6, 7)
    assert (pair.answers, pair.distractors, pair.positions) == ((1,), (2, 3), {"END": (2,), "S": (1,)})
    message = reason(write(tmp_path / "q.jsonl", IDS | {"answer": " Mary"}), None)
    assert "has no tokenizer; give answer as a token id" in message


def test_token_ids_may_go_with_answers_that_are_one_token(tmp_path, gpt2_tokens) -> None:
    path = write(tmp_path / "p.jsonl", IDS | {"clean": None, "answer": " Mary"})
    (pair,) = read_prompts(path, gpt2_tokens, "ids").pairs
    assert gpt2_tokens.tokenizer.decode(pair.answers) == " Mary"
    message = reason(write(tmp_path / "q.jsonl", IDS | {"clean": None, "answer": " Mary John"}), gpt2_tokens)
    assert "answer ' Mary John' is 2 tokens, ' Mary' + ' John' (give one that is one token" in message


# --- there and back --------------------------------------------------------------------------------

EVERY = [(task, corruption) for task in TASKS.values() for corruption in task.corruptions]


@pytest.mark.parametrize(("task", "corruption"), EVERY, ids=[f"{task.name}-{corruption}" for task, corruption in EVERY])
@pytest.mark.parametrize("which", ["gpt2_tokens", "pocket_tokens"])
def test_sampled_prompts_read_back_as_themselves(task, corruption, which, tmp_path, request) -> None:
    """Answers, distractors and corrupt answers too, as the same ids in the same order."""
    tokens = request.getfixturevalue(which)
    data = sample(task, tokens, 20, seed=2, corrupt=corruption)
    path = write(tmp_path / "p.jsonl", *(pair.record() for pair in data.pairs))
    read = read_prompts(path, tokens, task.name, seed=2)
    assert sorted(read.pairs, key=repr) == sorted(data.pairs, key=repr)
    assert read.pairs == read_prompts(path, tokens, task.name, seed=2).pairs
    assert read.sha256 == replace(data, pairs=read.pairs).sha256


def test_every_beginning_has_the_strata_in_the_shares_of_the_file(tmp_path) -> None:
    """Intervals take the shares of strata as they are: they must not depend on where the file is cut."""
    rows = [IDS | {"clean_tokens": [5, i, 7], "stratum": "few" if i % 4 == 0 else "many"} for i in range(10, 90)]
    for limit in (8, 20, 40, 80):
        read = read_prompts(write(tmp_path / "p.jsonl", *rows), None, "ids", limit=limit)
        assert sum(pair.stratum == "few" for pair in read.pairs) == limit // 4


def test_a_clean_prompt_that_is_repeated_counts_once(tmp_path) -> None:
    """More partners or answers of one prompt must not make intervals narrower; which of them it is, the seed draws."""
    partners = [IDS | {"corrupt_tokens": [5, i, 7]} for i in range(20, 40)]
    path = write(tmp_path / "p.jsonl", IDS, IDS, IDS | {"answer": 4}, *partners, IDS | {"clean_tokens": [5, 9, 7]})
    read = [read_prompts(path, None, "ids", seed=seed) for seed in range(6)]
    assert {len(one.pairs) for one in read} == {2}
    assert {one.repeats for one in read} == {2 + len(partners)}
    assert len({pair.corrupt_tokens for one in read for pair in one.pairs}) > 3
    shown = task_line(TaskResult("ids", "file", 2, 0, "", "logit_diff", 1.0, -1.0, 1.0, repeats=22))
    assert "2 prompts, seed 0, 22 lines left out whose clean prompt stands in another" in shown.plain


def test_token_ids_read_back_as_themselves(tmp_path) -> None:
    data = read_prompts(write(tmp_path / "p.jsonl", IDS | {"corrupt_answer": 9}), None, "ids")
    assert data.pairs[0].corrupt_answers == (9,)
    assert read_prompts(write(tmp_path / "q.jsonl", data.pairs[0].record()), None, "ids") == data


@pytest.mark.parametrize("field", ["answers", "distractors", "corrupt_answers"])
def test_the_hash_covers_what_is_scored(field, gpt2_tokens) -> None:
    data = sample(TASKS["ioi"], gpt2_tokens, 2)
    changed = replace(data.pairs[0], **{field: (7,)})
    assert replace(data, pairs=(changed, data.pairs[1])).sha256 != data.sha256


def test_the_papers_colored_objects_prompts_load_as_a_file_task(tmp_path, gpt2_tokens) -> None:
    folder = shared("colored_objects")
    clean, corrupt = (json.loads((folder / name).read_text()) for name in ("clean.json", "corrupt.json"))
    records = [  # the answer's colour stands in the second scene alone
        {"clean": a, "corrupt": b, "answer": x, "distractor": y, "positions": {"ANSWER": x.lower()}}
        for (a, x), (b, y) in zip(clean, corrupt, strict=True)
    ]
    data = read_prompts(write(tmp_path / "co.jsonl", *records), gpt2_tokens, "colored_objects")
    assert len(data.pairs) == 1000
    for pair in data.pairs:
        (answer,) = pair.positions["ANSWER"]
        assert gpt2_tokens.tokenizer.decode(pair.clean_tokens[answer]) == pair.answer_texts[0].lower()
        assert sum(a != b for a, b in zip(pair.clean_tokens, pair.corrupt_tokens, strict=True)) == 1


def test_the_example_of_the_docs_is_a_prompt_file(tmp_path, gpt2_tokens) -> None:
    example = (ROOT / "docs" / "tasks.md").read_text().split("```json\n")[1].split("```")[0]
    path = tmp_path / "p.jsonl"
    path.write_text(example.replace("\n", ""))
    (pair,) = read_prompts(path, gpt2_tokens, "mine").pairs
    assert (pair.positions["S1"], pair.positions["S2"]) == ((3,), (9,))
