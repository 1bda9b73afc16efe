"""`check` reads the prompt files of a spec, with the model's tokenizer where that is at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.cli.files import json_lines
from circuitdsl.errors import UserError

SPEC = 'circuit t\nmodel "{}"\ntask mine = file("p.jsonl"{})\nexpect accuracy >= 90%\n'
PAIR = {
    "clean": "Mary and John gave it to",
    "corrupt": "Amy and John gave it to",
    "answer": " Mary",
    "distractor": " John",
}


@pytest.fixture
def check(tmp_path: Path, capsys):
    """`check(lines, model)`: exit status, output and errors of `check` on a spec with a prompt file."""

    def run(lines: list[dict], model: str = "pocket", options: str = "", *more: str) -> tuple[int, str, str]:
        (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
        (tmp_path / "t.circ").write_text(SPEC.format(model, options))
        status = cli.run(["check", str(tmp_path / "t.circ"), *more])
        return status, *capsys.readouterr()

    return run


def test_what_only_a_tokenizer_finds_is_found(check) -> None:
    status, out, err = check([PAIR, PAIR | {"answer": " Zork"}, PAIR | {"positions": {"A": 90}}])
    assert (status, out) == (2, "")
    assert "2 bad lines" in err and "p.jsonl:2: the tokenizer of pocket does not know 'Zork'" in err
    assert "p.jsonl:3: position A is token 90" in err


def test_the_tokens_that_are_scored_are_shown(check) -> None:
    status, out, _ = check([PAIR])
    assert status == 0
    assert out.endswith("1 claim, no errors\n  p.jsonl: 1 prompt, answer tokens ' Mary' against ' John'\n")


def test_what_cannot_be_checked_without_a_tokenizer_is_said(check) -> None:
    bad = PAIR | {"answer": " Zork"}
    status, out, _ = check([PAIR, bad], "nowhere/none")
    assert status == 0
    assert "p.jsonl: 2 prompts; not checked: their tokens, as the model's tokenizer is not at hand" in out
    status, _, err = check([PAIR, bad], "nowhere/none", "", "--model", "pocket")
    assert status == 2 and "does not know 'Zork'" in err


def test_the_task_says_whether_there_is_bos(check) -> None:
    first = PAIR | {"positions": {"FIRST": 0}}
    assert check([first], "pocket", ", bos = no")[0] == 0
    status, _, err = check([first], "pocket", ", bos = yes")
    assert status == 2 and "indices count it" in err


def test_a_model_without_a_tokenizer_takes_token_ids(check, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    shape = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 50}
    (tmp_path / "model" / "config.json").write_text(json.dumps(shape))
    ids = {"clean_tokens": [1, 2], "corrupt_tokens": [3, 2], "answer": 4, "distractor": 5}
    status, out, _ = check([ids], str(tmp_path / "model"))
    assert status == 0 and "1 prompt, answer tokens 4 against 5" in out
    status, _, err = check([ids | {"answer": 50}, PAIR], str(tmp_path / "model"))
    assert status == 2 and "beyond the model's vocabulary of 50" in err and "the model has no tokenizer" in err


def test_a_spec_without_a_prompt_file_imports_nothing_heavy() -> None:
    code = "import sys; from circuitdsl import cli; assert cli.run(['check', 'pocket/ioi']) == 0; "
    code += "print([name for name in ('torch', 'transformers', 'tokenizers', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_file_of_lines_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "good.jsonl"
    with pytest.raises(BrokenPipeError), json_lines(target) as add:
        add({"a": 1})
        raise BrokenPipeError  # nobody reads what is printed meanwhile, which is no fault of this file
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="cannot write /dev/full: No space left"), json_lines(Path("/dev/full")) as add:
        add({"a": 1})
    with json_lines(target) as add:
        add({"a": 1})
        add({"a": 2})
    assert target.read_text() == '{"a": 1}\n{"a": 2}\n' and list(tmp_path.iterdir()) == [target]
