"""Prompts for instruct models: turns that a chat template writes down."""

from __future__ import annotations

import copy
import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from circuitdsl import Session, loads
from circuitdsl.models.load import POCKET
from circuitdsl.report.terminal import provenance
from circuitdsl.tasks.chat import Template
from circuitdsl.tasks.from_file import read_prompts
from circuitdsl.tasks.records import BadLine, PromptFileError
from circuitdsl.tasks.task import TaskError
from circuitdsl.tasks.tokens import Tokens

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m['role'] + '] ' + (m['content'] | trim) + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
ALTERNATE = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('a user speaks first') }}{% endif %}" + TEMPLATE
ASKED = "When Mary and John went to the store, {} gave a drink to"


@pytest.fixture
def tokens_with(gpt2_tokens: Tokens):
    """GPT-2's tokenizer with a chat template."""

    def make(template: str | None = TEMPLATE, bos: bool | None = None) -> Tokens:
        tokenizer = copy.deepcopy(gpt2_tokens.tokenizer)
        tokenizer.chat_template = template
        return Tokens(tokenizer, "it", bos, chat=True)

    return make


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def one(tokens: Tokens, folder: Path, **line: Any):
    """The pair of a file of one line."""
    given = {"clean": ASKED.format("John"), "corrupt": ASKED.format("Mary"), "answer": " Mary", "distractor": " John"}
    path = folder / "p.jsonl"
    path.write_text(json.dumps(given | line) + "\n")
    return read_prompts(path, tokens, "p").pairs[0]


def text_at(tokens: Tokens, pair: Any, name: str) -> list[str]:
    return [tokens.text_of(pair.clean_tokens[i]) for i in pair.positions[name]]


def test_prompts_are_what_transformers_makes_of_the_turns(tokens_with, tmp_path) -> None:
    tokens = tokens_with()
    pair = one(tokens, tmp_path, positions={"S2": " John#2", "AT": {"chars": [5, 9]}})
    asked = tokens.tokenizer.apply_chat_template(
        [user(ASKED.format("John"))], add_generation_prompt=True, return_dict=False
    )
    assert list(pair.clean_tokens) == asked
    assert text_at(tokens, pair, "END") == ["]"]
    assert text_at(tokens, pair, "S2") == [" John"]
    assert text_at(tokens, pair, "AT") == [" Mary"]
    assert pair.clean.endswith("gave a drink to [assistant]")


def test_positions_are_sought_in_what_the_turns_say(tokens_with, tmp_path) -> None:
    """Neither the template's own words nor the turns' order of characters in the prompt count."""
    tokens = tokens_with()
    turns = [user(" user Mary"), {"role": "assistant", "content": "Hello Mary"}, user("Who, user?")]
    other = [user(" user John"), *turns[1:]]
    places = {"FIRST": "user", "SECOND": "user#2", "HERE": "Mary#2", "LAST": {"chars": [27, 31]}}
    pair = one(tokens, tmp_path, clean=turns, corrupt=other, positions=places)
    found = {name: text_at(tokens, pair, name) for name in places}
    assert found == {"FIRST": [" user"], "SECOND": [" user"], "HERE": [" Mary"], "LAST": [" user"]}
    first, second = pair.positions["FIRST"][0], pair.positions["SECOND"][0]
    before = [tokens.text_of(token) for token in pair.clean_tokens[:first]]
    assert "user" in before  # the template's, which is not meant
    assert second > pair.positions["HERE"][0] > first


def test_the_model_goes_on_with_the_assistants_turn(tokens_with) -> None:
    talk = Template(tokens_with()).read([user("Who?"), {"role": "assistant", "content": "It was"}])
    assert talk.text == "<|endoftext|>[user] Who? [assistant] It was"
    assert talk.said == "Who?\nIt was"


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE.replace("{{ bos_token }}", "")])
@pytest.mark.parametrize(("bos", "count"), [(None, None), (True, 1), (False, 0)])
def test_bos_stands_there_once(template, bos, count, tokens_with, tmp_path) -> None:
    tokens = tokens_with(template, bos)
    pair = one(tokens, tmp_path)
    expected = count if count is not None else int("bos_token" in template)
    assert pair.clean_tokens.count(tokens.tokenizer.bos_token_id) == expected
    assert tokens.begins(pair.clean_tokens) == bool(expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "a prompt is the user's text, or a list of 1 to 100 turns: 3"),
        ([], "a list of 1 to 100 turns"),
        ([{"role": "user"}], 'a turn is {"role": …, "content": …}'),
        ([user("x") | {"tool": 1}], 'a turn is {"role": …, "content": …}'),
        ([user(" ")], "texts that are not empty"),
        ([user("\ud800")], "texts that are not empty"),
        ([{"role": 1, "content": "x"}], "texts that are not empty"),
        ([user("x")] * 101, "a list of 1 to 100 turns"),
        ([{"role": "system", "content": "x"}], "the chat template of it fails: a user speaks first"),
    ],
)
def test_turns_that_cannot_be_read(given, said, tokens_with) -> None:
    with pytest.raises(BadLine) as refused:
        Template(tokens_with(ALTERNATE)).read(given)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (TEMPLATE.replace("trim", "upper"), "changes the text of a turn"),
        (TEMPLATE.replace("trim", "replace('e', '')"), "changes the text of a turn"),
        (TEMPLATE.replace("in messages", "in messages[1:]"), "does not write every turn once and in order"),
        (TEMPLATE.replace("in messages", "in messages + messages"), "does not write every turn once and in order"),
        ("{% for x %}", "fails: "),
        ("{{ nothing.at.all }}", "fails: "),
    ],
)
def test_templates_that_cannot_be_used(template, said, tokens_with) -> None:
    with pytest.raises(BadLine) as refused:
        Template(tokens_with(template)).read("Where were they?")
    assert said in str(refused.value)


def test_no_template(tokens_with, tmp_path) -> None:
    with pytest.raises(TaskError) as refused:
        one(tokens_with(None), tmp_path)
    assert "has no chat template, and chat = yes asks for one" in refused.value.message


def test_bad_lines_are_named(tokens_with, tmp_path) -> None:
    with pytest.raises(PromptFileError) as refused:
        one(tokens_with(), tmp_path, positions={"X": "assistant"}, clean=[1])
    assert "p.jsonl:1: a turn is" in refused.value.message
    with pytest.raises(PromptFileError) as refused:
        one(tokens_with(), tmp_path, positions={"X": "assistant"})
    assert "'assistant' stands 0 times in the clean prompt" in refused.value.message


def test_a_spec_is_verified_on_turns(tmp_path, monkeypatch) -> None:
    """The report has the hash of the template; another template makes other prompts."""
    with (tmp_path / "t.jsonl").open("w") as file:
        for a, b in [(a, b) for a in ("Emily", "Amber", "Jacob") for b in ("Steven", "Rebecca")]:
            text = f"Then, {a} and {b} were working at the house. {{}} decided to give a bone to"
            line = {"clean": text.format(a), "corrupt": text.format(b), "answer": f" {b}", "distractor": f" {a}"}
            file.write(json.dumps(line | {"positions": {"S2": f"{a}#2"}}) + "\n")
    text = 'circuit c\nmodel "m"\ntask t = file("t.jsonl", chat = yes)\nexpect attention(3.0, END -> S2) >= 0.1%\n'
    files = ("config.json", "model.safetensors", "tokenizer.json")
    (tmp_path / "m").mkdir()
    for name in files:
        shutil.copy(POCKET / name, tmp_path / "m" / name)
    monkeypatch.chdir(tmp_path)
    tasks = []
    for template in ("{{ messages[0]['content'] }}", "{{ messages[0]['content'] }} a"):
        config = json.loads((POCKET / "tokenizer_config.json").read_text()) | {"chat_template": template}
        (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps(config))
        with Session(cache=False) as session:
            report = session.verify(loads(text, str(tmp_path / "c.circ")))
        assert f"chat template {sha256(template.encode()).hexdigest()[:12]}" in " ".join(provenance(report))
        tasks.append(report.tasks[0])
    assert tasks[0].chat_sha256 != tasks[1].chat_sha256
    assert tasks[0].sha256 != tasks[1].sha256


@pytest.mark.parametrize(("task", "code"), [('t = file("t.jsonl", chat = 3)', "E047"), ("ioi(chat = yes)", "E046")])
def test_what_a_spec_cannot_say(task, code) -> None:
    found = loads(f'circuit c\nmodel "pocket"\ntask {task}\nexpect accuracy >= 50%\n', allow_outside=True)
    assert code in [each.code for each in found.diagnostics]


def test_no_prompt_has_todays_date(tokens_with) -> None:
    """A template takes the date that it is given, or is refused."""
    dated = "{{ date_string if date_string is defined else strftime_now('%Y') }} {{ messages[0]['content'] }}"
    assert Template(tokens_with(dated)).read("hello").text == "26 Jul 2024 hello"
    with pytest.raises(TaskError, match="writes today's date"):
        Template(tokens_with("{{ strftime_now('%Y') }} {{ messages[0]['content'] }}"))
