"""Prompt files: one prompt pair a line, as JSON Lines or CSV.

A line has `clean` and `corrupt` texts (or `clean_tokens` and `corrupt_tokens`), `answer` and `distractor` (texts, token
ids, or lists of them). It may have a `corrupt_answer`, `positions` and a `stratum`. In CSV every column named in
capitals is a position. All bad lines are reported before anything runs.

A metric reads one token at END, so that an answer is one token. One of several tokens is a bad line, unless the line
says `"answer_tokens": "first"`: answers and distractors then count by their first token.
"""

from __future__ import annotations

import random
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from circuitdsl.language.diagnostics import did_you_mean, shorten, suggest
from circuitdsl.tasks.chat import Template
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.tasks.places import positions_of
from circuitdsl.tasks.reading import Reading, each_line
from circuitdsl.tasks.records import ANSWERS, BadLine, Line, PromptFileError, Reasons, echo, is_integer, is_text
from circuitdsl.tasks.tokens import Encoded, Tokens, unequal_words

T = TypeVar("T")
#: the two prompts of a pair
SIDES = ("clean", "corrupt")
#: pairs that are kept while a file is read, where most of them are not wanted in the end
KEPT = 2**14
#: characters of lines whose pairs are kept, in case that the lines are repeated
REPEATED = 2**24
#: characters that answers and distractors of a line may follow, over all of them
FOLLOWED = 10**7
#: tokens of an answer that are named, and keys of a line that are compared with those known
TOKENS, COMPARED = 8, 100
#: optional keys; an unknown key that resembles one, or an answer that is missing, is refused as probably misspelt
OPTIONAL = ("positions", "stratum", "corrupt_answer", "answer_tokens")
#: the only value of `answer_tokens`
FIRST = "first"
#: all keys that are read; authors may add others
KEYS = frozenset({"clean", "corrupt", "clean_tokens", "corrupt_tokens", *ANSWERS, *OPTIONAL})


def read_prompts(
    path: Path,
    tokens: Tokens | None,
    task: str,
    limit: int | None = None,
    n_vocab: int | None = None,
    seed: int = 0,
    every: bool = False,
) -> Dataset:
    """Read a prompt file for a model's tokenizer (`None` for a model without one: token ids are then needed).

    The pairs are in random order, as those of a generated task are; `limit` keeps the first of them. A clean prompt
    that occurs several times counts once, with one of its partners, drawn at random: repetitions are no further
    evidence of what the model does. `every` keeps all pairs that differ in anything that is measured, for a search
    among them.

    Raises:
        PromptFileError: the file cannot be read, or some of its lines cannot be used; all are named.
    """
    template = Template(tokens) if tokens and tokens.chat else None
    found, lines, keys, strata = Reading(path), array("q"), list[bytes](), list[str]()
    kept, most, bos = dict[int, PromptPair](), limit or sys.maxsize, tokens is not None
    with _pairs(path, tokens, n_vocab, template) as each:
        for line, pair in found.usable(each):
            lines.append(line.number)
            keys.append(_key(pair, every))
            strata.append(sys.intern(pair.stratum))
            bos = bos and tokens is not None and tokens.begins(pair.clean_tokens)
            if len(kept) < max(KEPT, most):
                kept[line.number] = pair
    found.refuse()
    once = _drawn(keys, random.Random(f"file/{seed}"))
    chosen = spread(once, strata.__getitem__)[:limit]
    missing = {lines[i]: keys[i] for i in chosen if lines[i] not in kept}
    if missing:
        with _pairs(path, tokens, n_vocab, template, missing) as each:
            again = Reading(path).usable(each)
            kept |= {line.number: pair for line, pair in again if _key(pair, every) == missing[line.number]}
    if any(lines[i] not in kept for i in chosen):
        raise PromptFileError(f"the prompt file {path} has changed while it was read")
    pairs = tuple(kept[lines[i]] for i in chosen)
    return Dataset(
        task, "file", seed, bos, pairs, len(keys) - len(once), len(once), template.sha256 if template else ""
    )


def _key(pair: PromptPair, every: bool) -> bytes:
    """What tells a pair from others: a hash of its clean prompt, or of all that is measured."""
    return blake2b(repr(pair.measured if every else pair.clean_tokens).encode(), digest_size=16).digest()


def _drawn(keys: Sequence[bytes], rng: random.Random) -> list[int]:
    """The places of keys in random order, of equal ones the first."""
    order = list(range(len(keys)))
    rng.shuffle(order)
    first: dict[bytes, int] = {}
    for i in order:
        first.setdefault(keys[i], i)
    return list(first.values())


def spread(some: Sequence[T], stratum: Callable[[T], str]) -> list[T]:
    """Prompts in an order in which the first k, for every k, have the strata in about the shares of the whole."""
    sizes = Counter(map(stratum, some))
    seen: Counter[str] = Counter()

    def place(one: T) -> float:
        name = stratum(one)
        seen[name] += 1
        return (seen[name] - 0.5) / sizes[name]

    return sorted(some, key=place)


def pairs_in(
    path: Path, tokens: Tokens | None, n_vocab: int | None = None
) -> AbstractContextManager[Iterator[tuple[Line, PromptPair | BadLine]]]:
    """What a model's tokenizer makes of every line of a prompt file.

    Raises:
        PromptFileError: the file cannot be read.
        TaskError: a chat template is asked for, and the tokenizer has none.
    """
    return _pairs(path, tokens, n_vocab, Template(tokens) if tokens and tokens.chat else None)


def _pairs(
    path: Path,
    tokens: Tokens | None,
    n_vocab: int | None,
    template: Template | None,
    only: Container[int] | None = None,
) -> AbstractContextManager[Iterator[tuple[Line, PromptPair | BadLine]]]:
    reader = _Reader(tokens, n_vocab, template)
    return each_line(path, reader.pair, reader.prepare, only)


def check_file(path: Path) -> int:
    """How many prompts a file has, of which all is checked that can be known without a model.

    Raises:
        PromptFileError: the file cannot be read, or some of its lines can be used with no model; all are named.
    """

    def check(line: Line) -> None:
        sides = _object_of(line.value)
        if missing := [side for side in ("clean", "corrupt") if not (side in sides or f"{side}_tokens" in sides)]:
            raise BadLine(f"there is no {missing[0]} prompt")

    found = Reading(path)
    with each_line(path, check) as each:
        for _ in found.usable(each):
            pass
    found.refuse()
    return found.good


def _object_of(record: Any) -> dict[str, Any]:
    """The JSON object of a line; raises `BadLine` where it holds something else, or a misspelt key."""
    if isinstance(record, BadLine):
        raise record
    if not isinstance(record, dict):
        raise BadLine("a prompt pair is a JSON object, {…}")
    for key in () if record.keys() <= KEYS else islice(record, COMPARED):
        meant = None if key in KEYS else _meant(key)
        if meant and not record.get(meant):
            raise BadLine(f"there is no field {shorten(key)!r}{did_you_mean(meant)}")
    return record


@lru_cache(1000)
def _meant(key: str) -> str | None:
    return suggest(key, (*OPTIONAL, *ANSWERS))


@dataclass(slots=True)
class _Reader:
    """Makes prompt pairs of the lines of a file, for one model.

    Attributes:
        known: the pairs of the first good lines with texts, by the text of the line: many files repeat their lines.
        room: characters of lines that may still be added to them.
    """

    tokens: Tokens | None
    n_vocab: int | None
    template: Template | None = None
    known: dict[str, PromptPair] = field(default_factory=dict)
    room: int = REPEATED

    def prepare(self, lines: Sequence[Line]) -> None:
        """Tokenize the texts of some lines at once."""
        texts, followed = list[str](), list[tuple[str, str]]()
        for line in lines if self.tokens else ():
            record = line.value
            if not isinstance(record, dict) or line.text in self.known:
                continue
            read = {side: Reasons().unless(self.text, record, side) for side in SIDES if side in record}
            sides = {side: text for side, text in read.items() if text}
            texts += sides.values()
            for key, side in ANSWERS.items():
                given = record.get(key)
                if not isinstance(given, (str, list)):
                    continue
                given = [each for each in _listed(given) if is_text(each)]
                texts += given
                if side in sides and len(given) * len(sides[side]) <= FOLLOWED:
                    followed += [(sides[side], each) for each in given]
        if self.tokens:
            self.tokens.prepare(texts, followed)

    def pair(self, line: Line) -> PromptPair:
        """The pair of a line; raises `BadLine` with everything that is wrong with it."""
        if (known := self.known.get(line.text)) is not None:
            return replace(known, line=line.number)
        record, why = _object_of(line.value), Reasons()
        text, other = [why.unless(self.text, record, side) if side in record else "" for side in SIDES]
        stratum = why.unless(_text, record, "stratum") if "stratum" in record else ""
        clean = None if text is None else why.unless(self.prompt, record, "clean", text)
        corrupt = None if other is None else why.unless(self.prompt, record, "corrupt", other)
        answers = distractors = corrupt_answers = None
        first = "answer_tokens" in record and bool(why.unless(_by_first_token, record))
        if text or clean:
            answers = why.unless(self.answers, record, "answer", text, clean, first)
            distractors = why.unless(self.answers, record, "distractor", text, clean, first)
        if (other or corrupt) and record.get("corrupt_answer") is not None:
            corrupt_answers = why.unless(self.answers, record, "corrupt_answer", other, corrupt, first)
        bos = self.tokens is not None and clean is not None and self.tokens.begins(clean.ids)
        talk = self.template.read(record["clean"]) if self.template and text else None
        said, seen = (talk.said, talk.within(clean)) if talk and clean else (text or "", clean)
        positions = None if seen is None else why.unless(positions_of, record, said, seen, bos)
        if clean and corrupt and len(clean.ids) != len(corrupt.ids):
            counts = f"the clean prompt has {len(clean.ids)} tokens and the corrupt one {len(corrupt.ids)}"
            why.append(counts + unequal_words(text or "", other or "", clean, corrupt))
        elif clean and corrupt and clean.ids == corrupt.ids:
            why.append("the clean and the corrupt prompt are the same")
        if answers and distractors and not set(answers).isdisjoint(distractors):
            shared = min(set(answers) & set(distractors))
            why.append(f"an answer and a distractor share their first token, {self.named(shared)}")
        why.refuse()
        assert clean and corrupt and answers and distractors and positions is not None
        pair = PromptPair(
            clean_tokens=clean.ids,
            corrupt_tokens=corrupt.ids,
            answers=answers,
            distractors=distractors,
            corrupt_answers=corrupt_answers or (),
            positions=positions,
            stratum=stratum or "",
            clean=text or "",
            corrupt=other or "",
            answer_texts=_texts(record.get("answer")),
            distractor_texts=_texts(record.get("distractor")),
            corrupt_answer_texts=_texts(record.get("corrupt_answer")),
            line=line.number,
            first=first,
        )
        if text and self.room > 0:
            self.room -= len(line.text)
            self.known[line.text] = pair
        return pair

    def text(self, record: Mapping[str, Any], side: str) -> str:
        """The text of a prompt; empty where there is none."""
        given = record[side]
        return _text(record, side) if self.template is None or not given else self.template.read(given).text

    def prompt(self, record: Mapping[str, Any], side: str, text: str) -> Encoded:
        """The token ids of one side, with their spans where there is a text."""
        key = f"{side}_tokens"
        given = record.get(key)
        if given is not None:
            if not isinstance(given, list) or not given or not _are_ids(given):
                raise BadLine(f"{key} is not a list of token ids")
            self.check_ids(given, key)
        if text and self.tokens:
            encoded = self.tokens.encode_as(text, given)
            if given is not None and encoded.ids != tuple(given):
                raise BadLine(
                    f"{key} is not what the tokenizer of {self.tokens.name} makes of '{side}'{self.tokens.forced} "
                    "(leave one out)"
                )
            self.check_words(text, encoded, f"the {side} prompt")
            self.check_ids(encoded.ids, f"the {side} prompt")
            return encoded
        if given is None and text:
            raise BadLine(f"the model has no tokenizer, and there is no '{key}'")
        if given is None:
            raise BadLine(f"there is no {side} prompt (a text in '{side}', or ids in '{key}')")
        return Encoded(tuple(given), ())

    def answers(
        self, record: Mapping[str, Any], key: str, text: str | None, prompt: Encoded | None, first: bool
    ) -> tuple[int, ...]:
        """The tokens of the answers or distractors, as they follow a prompt; `first`: the first of each."""
        listed = _listed(record.get(key))
        if not listed:
            raise BadLine(f"there is no {key}")
        by_id = _are_ids(listed)
        before = text if text or by_id or all(map(is_integer, listed)) else self.text_of(prompt)
        if len(listed) * len(before or "") > FOLLOWED:
            raise BadLine(f"{key} has {len(listed)} values, too many for a prompt of {len(before or '')} characters")
        scored = listed if by_id else [self.token(each, key, before or "", first) for each in listed]
        ids = tuple(dict.fromkeys(scored))
        self.check_ids(ids, key)
        return ids

    def token(self, given: object, key: str, prompt: str, first: bool) -> int:
        if is_integer(given) and given >= 0:
            return given
        if not is_text(given):
            raise BadLine(f"{key} {echo(given)} is neither a text nor a token id")
        if self.tokens is None:
            raise BadLine(f"the model has no tokenizer; give {key} as a token id")
        self.check_words(given, self.tokens.encode_one(given), key, given)
        ids = self.tokens.continuation(prompt, given) or self.tokens.whole(given)
        if len(ids) == 1 or (ids and first):
            return ids[0]
        said = f"{key} {echo(given)}"
        if not ids:
            raise BadLine(f"{said} does not follow the prompt as tokens of its own ({self.mended(given, prompt)})")
        split = " + ".join(map(self.named, ids[:TOKENS])) + " + …" * (len(ids) > TOKENS)
        raise BadLine(f"{said} is {len(ids)} tokens, {split} ({self.mended(given, prompt)})")

    def mended(self, given: str, prompt: str) -> str:
        """What to do about an answer that is not one token."""
        assert self.tokens
        if prompt[-1:].isspace():
            return "the prompt ends in a blank: take it out there, and let answers begin with it"
        blank = f" {given}"
        if not given[0].isspace() and len(self.tokens.continuation(prompt, blank)) == 1:
            return f"with a blank before it, {echo(blank)}, it is one token"
        return f'give one that is one token, or write "answer_tokens": "{FIRST}" on the line to score first tokens'

    def named(self, token: int) -> str:
        """A token as it is named to the author: its text, or its id where there is no tokenizer."""
        return repr(self.tokens.text_of(token)) if self.tokens else str(token)

    def text_of(self, prompt: Encoded | None) -> str:
        """The text of token ids that have none beside them; empty where the tokenizer makes other ids of it."""
        if self.tokens is None or prompt is None:
            return ""
        text: str = self.tokens.tokenizer.decode(prompt.ids, skip_special_tokens=True)
        return text if self.tokens.encode_as(text, prompt.ids).ids == prompt.ids else ""

    def check_words(self, text: str, encoded: Encoded, what: str, *said: str) -> None:
        if self.tokens and (word := self.tokens.unknown(text, encoded)) is not None:
            where = " ".join([what, *map(echo, said)])
            raise BadLine(f"the tokenizer of {self.tokens.name} does not know {echo(word)} in {where}")

    def check_ids(self, ids: tuple[int, ...] | list[int], what: str) -> None:
        if self.n_vocab is not None and ids and max(ids) >= self.n_vocab:
            raise BadLine(f"{what} has token {echo(max(ids))}, beyond the model's vocabulary of {self.n_vocab}")


def _text(record: Mapping[str, Any], key: str) -> str:
    """A text of a record; empty where there is none."""
    given = record.get(key)
    if given is None:
        return ""
    if key == "stratum" and is_integer(given):
        return str(given)
    if given != "" and not is_text(given):
        raise BadLine(f"'{key}' is not a text: {echo(given)}")
    return given


def _by_first_token(record: Mapping[str, Any]) -> bool:
    """Whether answers and distractors count by their first token."""
    given = record.get("answer_tokens")
    if given not in (None, "", FIRST):
        said = f"'answer_tokens' is \"{FIRST}\" or left out, not {echo(given)}"
        raise BadLine(f"{said} (token ids stand in 'answer' itself)")
    return bool(given)


def _are_ids(given: list[Any]) -> TypeGuard[list[int]]:
    """Whether some values, as JSON has them, are all token ids."""
    return set(map(type, given)) == {int} and min(given) >= 0


def _listed(given: object) -> list[Any]:
    """Answers as a list; empty where there are none."""
    return given if isinstance(given, list) else [] if given is None else [given]


def _texts(given: object) -> tuple[str, ...]:
    """Answers as texts; empty where some are token ids."""
    listed = _listed(given)
    return tuple(listed) if all(isinstance(each, str) for each in listed) else ()
