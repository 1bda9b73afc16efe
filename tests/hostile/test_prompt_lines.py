"""Long prompt files, and lines that would take long: read as a stream, with progress, in time that grows with them."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from circuitdsl import cli
from circuitdsl.cli import terminal
from circuitdsl.tasks import from_file
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.from_file import KEPT, pairs_in, read_prompts
from circuitdsl.tasks.reading import Reading
from circuitdsl.tasks.records import BadLine, PromptFileError
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens
from tests.drawing import examples

#: lines of a long file; ten times as many with CIRCUITDSL_LONG
MANY = examples(10**5, 10**6)
IDS = {"clean_tokens": [5, 6, 7], "corrupt_tokens": [5, 8, 7], "answer": 1, "distractor": 2}


def write(path: Path, lines: Iterator[Any] | list[Any]) -> Path:
    with path.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


def numbered(count: int) -> Iterator[dict[str, Any]]:
    """Pairs of token ids, all different."""
    return (IDS | {"clean_tokens": [i, 6, 7], "stratum": "ab"[i % 2]} for i in range(10, count + 10))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write(tmp_path / "p.jsonl", numbered(MANY))


@pytest.mark.long
def test_a_long_file_is_read_as_a_stream(many: Path) -> None:
    """In 40 microseconds a line, and in memory that does not hold it: 200 bytes a line."""
    start = time.process_time()
    data = read_prompts(many, None, "ids", limit=256)
    assert time.process_time() - start < 100e-6 * MANY
    assert (len(data.pairs), data.available, data.repeats) == (256, MANY, 0)
    tracemalloc.start()
    try:
        found = Reading(many)
        with pairs_in(many, None) as each:
            for _ in zip(found.usable(each), range(30_000), strict=False):
                pass
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


def test_the_pairs_of_a_long_file_are_those_that_would_be_drawn_of_a_short_one(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path / "p.jsonl", [*numbered(300), *numbered(100)])
    whole = [read_prompts(path, None, "ids", limit=limit, seed=3) for limit in (None, 100)]
    monkeypatch.setattr("circuitdsl.tasks.from_file.KEPT", 10)
    assert KEPT > 400
    again = [read_prompts(path, None, "ids", limit=limit, seed=3) for limit in (None, 100)]
    assert again == whole and [pair.line for pair in again[1].pairs] == [pair.line for pair in whole[1].pairs]
    assert whole[1].pairs == whole[0].pairs[:100] and whole[0].repeats == 100


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path / "p.jsonl", numbered(300))
    monkeypatch.setattr("circuitdsl.tasks.from_file.KEPT", 0)

    def then(*given: Any) -> list[int]:
        write(path, [IDS] * 300)
        return list(reversed(range(300)))

    monkeypatch.setattr("circuitdsl.tasks.from_file._drawn", then)
    with pytest.raises(PromptFileError, match="has changed while it was read"):
        read_prompts(path, None, "ids", limit=20)


def test_texts_are_tokenized_as_one_by_one(tmp_path: Path, pocket_tokens: Tokens, monkeypatch) -> None:
    """Good and bad lines, with every setting of BOS."""
    texts = ("Then, Emily and Amber were working at the house. Emily decided to give a bone to", "Zork", "", "Mary ")
    others = ("Then, Amber and Emily were working at the house. Emily decided to give a bone to", "Mary", "a", "John ")
    rows = [
        {
            "clean": text,
            "corrupt": other,
            "answer": answer,
            "distractor": [" Emily", " Mary"],
            "corrupt_answer": " Mary",
        }
        for text, other in zip(texts, others, strict=True)
        for answer in (" Amber", "Amber", " Amber Emily", 5, ["", " John"])
    ]
    path = write(tmp_path / "p.jsonl", rows)

    def read(tokens: Tokens) -> list[object]:
        with pairs_in(path, tokens) as each:
            return [str(pair) if isinstance(pair, BadLine) else pair for _, pair in each]

    for bos in (None, True, False):
        found = read(Tokens(pocket_tokens.tokenizer, "pocket", bos))
        with monkeypatch.context() as patch:
            patch.setattr(Tokens, "prepare", lambda *given: None)
            assert read(Tokens(pocket_tokens.tokenizer, "pocket", bos)) == found
        assert any(not isinstance(each, str) for each in found) and any(isinstance(each, str) for each in found)


@pytest.mark.parametrize("room", [0, 1000, 2**24])
def test_lines_that_are_repeated_are_worked_out_once(tmp_path: Path, pocket_tokens: Tokens, monkeypatch, room) -> None:
    worked_out = []
    read = from_file._object_of
    monkeypatch.setattr(from_file, "_object_of", lambda record: worked_out.append(record) or read(record))
    reader = from_file._Reader
    monkeypatch.setattr(from_file, "_Reader", lambda *given: reader(*given, room=room))
    data = sample(TASKS["ioi"], pocket_tokens, 20)
    path = write(tmp_path / "p.jsonl", [pair.record() for pair in data.pairs] * 10)
    with pairs_in(path, pocket_tokens) as each:
        found = [pair for _, pair in each]
    assert found == list(data.pairs) * 10 and [pair.line for pair in found] == list(range(1, 201))
    sizes = [len(line) for line in path.read_text().splitlines()[:20]]
    kept = sum(before < room for before in accumulate(sizes[:-1], initial=0))
    assert len(worked_out) == 20 + 9 * 20 - 9 * kept


def test_how_far_a_long_file_is_read_is_shown(many: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(terminal, "EVERY", 0.05)
    assert cli.run(["tasks", "check", str(many)]) == 2  # the pocket model has fewer tokens than these lines
    out, err = capsys.readouterr()
    assert re.search(rf"reading {re.escape(str(many))}, \d+% \(\d+ s so far\)", err) and "reading" not in out
    assert len(out.splitlines()) == 54 and "lines, 568 can be used" in out


def test_all_bad_lines_are_listed_where_that_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "p.jsonl", [IDS, *[{"clean": f"\ud800{i}"} for i in range(70)]])
    command = [
        "tasks",
        "check",
        str(path),
        "--good",
        str(tmp_path / "good.jsonl"),
        "--bad",
        str(tmp_path / "bad.jsonl"),
    ]
    assert cli.run(command) == 2
    first = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in first[:50]] == [f"{path}:{i}" for i in range(2, 52)]
    assert first[50:52] == [
        f"… and 20 more (circuitdsl tasks check --all {path} lists them)",
        f"{path}: 71 lines, 1 can be used, 70 cannot",
    ]
    assert cli.run([*command, "--all"]) == 2
    every = capsys.readouterr().out.splitlines()
    assert every[:50] == first[:50] and every[70:] == first[51:]
    assert [json.loads(line) for line in (tmp_path / "good.jsonl").read_text().splitlines()] == [IDS]
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 70


#: lines of 100 kB to 1 MB, with what is said of each
COSTLY: dict[str, tuple[dict[str, Any], str]] = {
    "many answers after a long prompt": (
        {"clean": "to " * 90_000, "corrupt": "at " * 90_000, "answer": [" a"] * 60_000},
        "answer has 60000 values, too many for a prompt of 270000 characters",
    ),
    "a long place": (
        {"positions": {"A": "a" * 200_000 + "b", "B": "a#99999999"}, "clean": "a" * 300_000, "corrupt": "b" * 300_000},
        r"'a{90,198}… stands 0 times in the clean prompt, not 1; .*'a' stands 300000 times",
    ),
    "many places": (
        {"positions": {f"A{i}": 0 for i in range(50_000)}},
        "there are 50000 positions; a line may have 1000",
    ),
    "a list of places": (
        {"positions": {"A": ["to"] * 90_000}},
        "position A is a list of 90000 places; it may have 1000",
    ),
    "a long name": ({"positions": {"A" * 900_000: 0}}, r"the name of a position is too long: 'A{190,198}…$"),
    "a long index": ({"positions": {"A": int("9" * 4000)}}, r"position A is token 9{190,199}… of a prompt of 2 tokens"),
    "words of other lengths": (
        {"clean": "to " * 50_000, "corrupt": "to " * 49_999 + "tooo"},
        r"150000 tokens and the corrupt one 150001 \('to' is 2 tokens, 'tooo' 4\)",
    ),
    "many keys": ({f"answr{i}": 1 for i in range(50_000)} | {"answer": None}, "there is no field 'answr0'"),
    "a long answer": ({"answer": "to " * 60_000}, r"answer '(to ){66}t?… is 180000 tokens, 't' \+ 'o' \+ .* \+ … \("),
    "a long value": ({"stratum": ["x"] * 150_000}, r"'stratum' is not a text: \['x', ('x', )+'x'…$"),
    "a deep value": ({"stratum": json.loads("[" * 300 + "]" * 300)}, r"'stratum' is not a text: \[{199}…$"),
}  # fmt: skip


@pytest.fixture(scope="module")
def letters() -> Tokens:
    """A tokenizer of which every character is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return Tokens(PreTrainedTokenizerFast(tokenizer_object=made), "letters")


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_line_is_refused_in_seconds(name: str, tmp_path: Path, letters: Tokens) -> None:
    line, said = COSTLY[name]
    path = write(tmp_path / "p.jsonl", [{"clean": "to", "corrupt": "at", "answer": "a", "distractor": "b"} | line])
    start = time.process_time()
    with pytest.raises(PromptFileError) as caught:
        read_prompts(path, letters, "mine")
    assert time.process_time() - start < 5
    assert len(caught.value.message) < 2000
    assert re.search(said, caught.value.message), caught.value.message
