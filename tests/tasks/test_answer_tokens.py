"""An answer is the one token that continues the prompt; one of several is refused, unless its first token is meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from circuitdsl.tasks.dataset import PromptPair, encode
from circuitdsl.tasks.from_file import PromptFileError, pairs_in, read_prompts
from circuitdsl.tasks.reading import Reading
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.task import Draft, TaskError
from circuitdsl.tasks.template import Marked
from circuitdsl.tasks.tokens import Tokens

PIECES = [
    "<unk>",
    "<s>",
    "▁",
    *"▁she ▁he ▁it ▁girl ▁said ▁thought ▁to she he s g irls ▁g".split(),
    *"abcdefghijklmnopqrstuvwxyz",
]
PAIR = {"clean": "she said", "corrupt": "he said", "answer": " she", "distractor": " he"}


def like_llama(bos: bool | None = None, adds: bool = False) -> Tokens:
    """A tokenizer that writes a blank as a mark before the word, and puts one before every text, as Llama's does."""
    scores = [(piece, -float(10 if len(piece.strip("▁")) < 2 else 1)) for piece in dict.fromkeys(PIECES)]
    made = Tokenizer(models.Unigram([(p, 0.0 if p == "▁" else s) for p, s in scores], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    if adds:
        made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return Tokens(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>"), "tiny", bos)


def read(tmp_path: Path, tokens: Tokens, **change: object) -> PromptPair:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(PAIR | change))
    return read_prompts(path, tokens, "mine").pairs[0]


def texts(tokens: Tokens, ids: tuple[int, ...]) -> list[str]:
    return [tokens.text_of(token) for token in ids]


def test_an_answer_of_one_token_is_that_token(tmp_path) -> None:
    tokens = like_llama()
    pair = read(tmp_path, tokens)
    assert (texts(tokens, pair.answers), texts(tokens, pair.distractors)) == ([" she"], [" he"])
    assert not pair.first


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answer": " girls"}, "answer ' girls' is 2 tokens, ' g' + 'irls' (give one that is one token, or write"),
        ({"answer": "say"}, "answer 'say' is 3 tokens, 's' + 'a' + 'y' (give one that is one token"),
        ({"answer": "it"}, "answer 'it' is 2 tokens, 'i' + 't' (with a blank before it, ' it', it is one token)"),
        ({"distractor": [" he", " girls"]}, "distractor ' girls' is 2 tokens"),
        ({"corrupt_answer": " girls"}, "corrupt_answer ' girls' is 2 tokens"),
        ({"answer_tokens": "all"}, "'answer_tokens' is \"first\" or left out, not 'all'"),
        ({"answer_tokens": [3]}, "not [3] (token ids stand in 'answer' itself)"),
        ({"answer_token": "first"}, "there is no field 'answer_token'; did you mean 'answer_tokens'?"),
        ({"clean": "he said to ", "corrupt": "she said to ", "answer": "she"}, "the prompt ends in a blank"),
    ],
)
def test_an_answer_of_several_tokens_is_refused(tmp_path, change, says) -> None:
    with pytest.raises(PromptFileError) as caught:
        read(tmp_path, like_llama(), **change)
    assert says in caught.value.message


def test_the_first_token_counts_where_that_is_said(tmp_path) -> None:
    tokens = like_llama()
    pair = read(tmp_path, tokens, answer=" girls", answer_tokens="first")
    assert texts(tokens, pair.answers) == [" g"]
    assert pair.record()["answer_tokens"] == "first"
    assert read(tmp_path, tokens, **pair.record()) == pair
    table = tmp_path / "p.csv"
    table.write_text("clean,corrupt,answer,distractor,answer_tokens\nshe said,he said, girls, he,first\n")
    assert read_prompts(table, tokens, "mine").pairs[0].answers == pair.answers


def test_an_answer_without_a_blank_never_becomes_one_with_a_blank(tmp_path) -> None:
    """By itself `she` is the token of ` she`; after token ids, or after a text that it changes, it must not be."""
    tokens = like_llama()
    ids = {side: list(tokens.encode([PAIR[side]])[0].ids) for side in ("clean", "corrupt")}
    given = {"clean": None, "corrupt": None, "clean_tokens": ids["clean"], "corrupt_tokens": ids["corrupt"]}
    assert texts(tokens, read(tmp_path, tokens, **given).answers) == [" she"]
    assert texts(tokens, read(tmp_path, tokens, **given, answer="she").answers) == ["she"]
    assert tokens.whole("she") == ()


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("written", [None, True, False])
@pytest.mark.parametrize("asked", [None, True, False])
def test_saved_prompts_read_back_whatever_was_said_of_bos(tmp_path, adds, written, asked) -> None:
    """Ids beside a text are used as they are; only a task that asks for the contrary refuses them."""
    pair = read(
        tmp_path, like_llama(written, adds), positions={"WHO": 1 if written or (written is None and adds) else 0}
    )
    begins = adds if written is None else written
    wanted = begins if asked is None else asked
    if begins == wanted:
        assert read(tmp_path, like_llama(asked, adds), **pair.record()) == pair
    else:
        with pytest.raises(PromptFileError) as caught:
            read(tmp_path, like_llama(asked, adds), **pair.record())
        assert f"makes of 'clean' with bos = {'yes' if asked else 'no'} (leave one out)" in caught.value.message


@pytest.mark.parametrize("prepared", [True, False])
def test_a_tokenizer_that_ends_its_prompts_is_refused(tmp_path, prepared) -> None:
    """END would be the token that ends a text, and what the model says after it is no answer to the prompt."""
    made = like_llama(adds=True).tokenizer
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A <unk>", special_tokens=[("<s>", 1), ("<unk>", 0)]
    )
    tokens = Tokens(made, "tiny")
    with pytest.raises(TaskError, match="the tokenizer of tiny puts '<unk>' behind a prompt") as caught:
        read(tmp_path, tokens) if prepared else tokens.encode(["she said"])
    assert caught.value.hint == "say bos = yes or bos = no in the task: it is then left out"
    assert tokens.adds_bos
    for bos, begins in ((True, ["<s>"]), (False, [])):
        ids = read(tmp_path, Tokens(made, "tiny", bos)).clean_tokens
        assert texts(tokens, ids) == [*begins, " she", " said"]


def test_indices_count_bos_and_messages_say_so(tmp_path) -> None:
    tokens = like_llama(bos=True)
    assert read(tmp_path, tokens, positions={"WHO": 1, "BOS": 0}).positions == {"END": (2,), "WHO": (1,), "BOS": (0,)}
    for place in (0, -3):
        with pytest.raises(PromptFileError) as caught:
            read(tmp_path, tokens, positions={"WHO": place})
        assert (
            f"position WHO is token {place}, the beginning-of-sequence token: indices count it" in caught.value.message
        )
    with pytest.raises(PromptFileError) as caught:
        read(tmp_path, tokens, positions={"WHO": 3})
    assert "token 3 of a prompt of 3 tokens, 0 to 2; token 0 is the beginning-of-sequence" in caught.value.message


def test_every_line_comes_with_what_was_made_of_it(tmp_path) -> None:
    path = tmp_path / "p.jsonl"
    lines = [json.dumps(PAIR), "{", json.dumps(PAIR | {"answer": " girls"}), json.dumps(PAIR)]
    path.write_text("\n".join(lines))
    found = Reading(path)
    with pairs_in(path, like_llama()) as each:
        good = [(line.number, line.text, pair.line) for line, pair in found.usable(each)]
    assert good == [(1, lines[0], 1), (4, lines[3], 4)]
    assert (found.good, found.bad) == (2, 2)
    assert [named.split(": ")[0] for named in found.named] == [f"{path}:2", f"{path}:3"]


def test_an_answer_of_several_tokens_makes_no_prompt_of_a_task() -> None:
    text = Marked("she said to", {})
    draft = Draft(text, Marked("he said to", {}), (" girls",), (" he",), "")
    with pytest.raises(TaskError, match=r"the answer ' girls' is not one token after 'to' .* but ' g' \+ 'irls'"):
        encode(TASKS["ioi"], like_llama(), [draft])


def test_long_texts_are_not_kept_together() -> None:
    tokens = like_llama()
    for word in ("she", "said"):
        tokens.prepare([f" {word}" * 2**18], [])
    assert list(tokens._known) == [" said" * 2**18]
