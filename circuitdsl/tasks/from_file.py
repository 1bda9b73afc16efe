"""Prompt files: one prompt pair a line, as JSON Lines or CSV.

A line has `clean` and `corrupt` texts (or `clean_tokens` and `corrupt_tokens`), `answer` and `distractor` (texts, token
ids, or lists of them). It may have a `corrupt_answer`, `positions` and a `stratum`. In CSV every column named in
capitals is a position. All bad lines are reported before anything runs.

A metric reads one token at END, so that an answer is one token. One of several tokens is a bad line, unless the line
says `"answer_tokens": "first"`: answers and distractors then count by their first token.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Generic, TypeGuard, TypeVar

from circuitdsl.language.diagnostics import did_you_mean, shorten, suggest
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.tasks.places import POSITION, positions_of
from circuitdsl.tasks.records import ANSWERS, BadLine, Line, PromptFileError, Reasons, is_integer, lines_of
from circuitdsl.tasks.tokens import Encoded, Tokens
from circuitdsl.visible import visible

T = TypeVar("T")
#: the positions of a prompt file with more bytes are not looked up before it is used
_LARGE = 64 * 2**20
#: an error names at most so many bad lines
_NAMED = 100
#: optional keys; an unknown key that resembles one, or an answer that is missing, is refused as probably misspelt
OPTIONAL = ("positions", "stratum", "corrupt_answer", "answer_tokens")
#: the only value of `answer_tokens`
FIRST = "first"
#: all keys that are read; authors may add others
KEYS = frozenset({"clean", "corrupt", "clean_tokens", "corrupt_tokens", *ANSWERS, *OPTIONAL})


@dataclass(frozen=True, slots=True)
class Checked(Generic[T]):
    """A prompt file, line by line.

    Attributes:
        good: the lines that can be used, each with what was made of it.
        bad: the others, each with all reasons against it.
    """

    path: Path
    good: tuple[tuple[Line, T], ...]
    bad: tuple[tuple[Line, str], ...]

    def problems(self, most: int | None = None) -> list[str]:
        """How many lines are bad, and each of them with its reasons; at most so many. Empty where none is bad."""
        if not self.bad:
            return []
        n, shown = len(self.bad), self.bad[:most]
        found = [f"{n} bad line{'s' * (n != 1)} in {self.path}"]
        found += [visible(f"{self.path}:{line.number}: {reason}") for line, reason in shown]
        rest = n - len(shown)
        return [*found, f"… and {rest} more (circuitdsl tasks check {self.path} lists all)"] if rest else found

    def good_records(self) -> list[Any]:
        """The lines that can be used, as lines of a prompt file."""
        return [line.value for line, _ in self.good]

    def bad_records(self) -> list[dict[str, Any]]:
        """The others, each with its `reason`; what is no object is given as the `text` of its `line`."""
        return [
            {
                **(line.value if isinstance(line.value, dict) else {"line": line.number, "text": line.text}),
                "reason": why,
            }
            for line, why in self.bad
        ]

    def refuse(self) -> Checked[T]:
        """The file itself; raises `PromptFileError` where a line is bad, or there is none."""
        if self.bad:
            raise PromptFileError("\n".join(self.problems(_NAMED)))
        if not self.good:
            raise PromptFileError(f"{self.path} has no prompts")
        return self


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
    found = [pair for _, pair in checked(path, tokens, n_vocab).refuse().good]
    random.Random(f"file/{seed}").shuffle(found)
    once: dict[Hashable, PromptPair] = {}
    for pair in found:
        once.setdefault(pair.measured if every else pair.clean_tokens, pair)
    pairs = spread(list(once.values()))
    bos = tokens is not None and all(tokens.begins(pair.clean_tokens) for pair in pairs)
    return Dataset(task, "file", seed, bos, tuple(pairs[:limit]), len(found) - len(once), len(pairs))


def spread(pairs: Sequence[PromptPair]) -> list[PromptPair]:
    """Prompts in an order in which the first k, for every k, have the strata in about the shares of the whole."""
    sizes = Counter(pair.stratum for pair in pairs)
    seen: Counter[str] = Counter()

    def place(pair: PromptPair) -> float:
        seen[pair.stratum] += 1
        return (seen[pair.stratum] - 0.5) / sizes[pair.stratum]

    return sorted(pairs, key=place)


def checked(path: Path, tokens: Tokens | None, n_vocab: int | None = None) -> Checked[PromptPair]:
    """What a model's tokenizer makes of every line of a prompt file.

    Raises:
        PromptFileError: the file cannot be read.
    """
    reader = _Reader(tokens, n_vocab)
    found = _each(path, reader.pair)
    return replace(found, good=tuple((line, replace(pair, line=line.number)) for line, pair in found.good))


def check_file(path: Path) -> Checked[None]:
    """Check what can be known of a prompt file without a model: that it exists and that its lines can be read.

    Raises:
        PromptFileError: the file cannot be read, or some of its lines can be used with no model; all are named.
    """

    def check(value: Any) -> None:
        sides = _object_of(value)
        if missing := [side for side in ("clean", "corrupt") if not {side, f"{side}_tokens"} & set(sides)]:
            raise BadLine(f"there is no {missing[0]} prompt")

    return _each(path, check).refuse()


def positions_in(path: Path) -> tuple[str, ...] | None:
    """The names of positions in a prompt file, and END; None where it cannot be read, or is large.

    `check_file` and `read_prompts` report what is wrong with the file.
    """
    found: dict[str, None] = {}
    try:
        if not path.is_file() or path.stat().st_size > _LARGE:
            return None
        for line in lines_of(path):
            given = line.value.get("positions") if isinstance(line.value, dict) else None
            if isinstance(given, dict):
                found |= dict.fromkeys(name for name in given if POSITION.fullmatch(name))
    except (PromptFileError, OSError, ValueError):
        return None
    return tuple(found | {"END": None})


def _each(path: Path, read: Callable[[Any], T]) -> Checked[T]:
    """What a function makes of the value of every line of a file, or why it raises `BadLine`."""
    good, bad = [], []
    for line in lines_of(path):
        try:
            good.append((line, read(line.value)))
        except BadLine as reason:
            bad.append((line, str(reason)))
    return Checked(path, tuple(good), tuple(bad))


def _object_of(record: Any) -> dict[str, Any]:
    """The JSON object of a line; raises `BadLine` where it holds something else, or a misspelt key."""
    if isinstance(record, BadLine):
        raise record
    if not isinstance(record, dict):
        raise BadLine("a prompt pair is a JSON object, {…}")
    for key in record:
        meant = None if key in KEYS else _meant(key)
        if meant and not record.get(meant):
            raise BadLine(f"there is no field {shorten(key)!r}{did_you_mean(meant)}")
    return record


@lru_cache(1000)
def _meant(key: str) -> str | None:
    return suggest(key, (*OPTIONAL, *ANSWERS))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes prompt pairs of records, for one model."""

    tokens: Tokens | None
    n_vocab: int | None

    def pair(self, record: Any) -> PromptPair:
        """The pair of a record; raises `BadLine` with everything that is wrong with it."""
        record, why = _object_of(record), Reasons()
        text, other, stratum = (why.unless(partial(_text, record, key)) for key in ("clean", "corrupt", "stratum"))
        clean = None if text is None else why.unless(lambda: self.prompt(record, "clean", text))
        corrupt = None if other is None else why.unless(lambda: self.prompt(record, "corrupt", other))
        answers = distractors = corrupt_answers = None
        first = bool(why.unless(partial(_by_first_token, record)))
        if text or clean:
            before = text or self.text_of(clean)
            asked = (partial(self.answers, record, key, before, first) for key in ("answer", "distractor"))
            answers, distractors = map(why.unless, asked)
        if (other or corrupt) and record.get("corrupt_answer") is not None:
            before_other = other or self.text_of(corrupt)
            corrupt_answers = why.unless(lambda: self.answers(record, "corrupt_answer", before_other, first))
        bos = self.tokens is not None and clean is not None and self.tokens.begins(clean.ids)
        positions = None if clean is None else why.unless(lambda: positions_of(record, text or "", clean, bos))
        if clean and corrupt and len(clean.ids) != len(corrupt.ids):
            counts = f"the clean prompt has {len(clean.ids)} tokens and the corrupt one {len(corrupt.ids)}"
            why.append(counts + unequal_words(text or "", other or "", clean, corrupt))
        elif clean and corrupt and clean.ids == corrupt.ids:
            why.append("the clean and the corrupt prompt are the same")
        if answers and distractors and (shared := set(answers) & set(distractors)):
            why.append(f"an answer and a distractor share their first token, {self.named(min(shared))}")
        why.refuse()
        assert clean and corrupt and answers and distractors and positions is not None
        return PromptPair(
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
            first=first,
        )

    def prompt(self, record: Mapping[str, Any], side: str, text: str) -> Encoded:
        """The token ids of one side, with their spans where there is a text."""
        key = f"{side}_tokens"
        given = record.get(key)
        if given is not None:
            if not isinstance(given, list) or not given or not all(map(_is_id, given)):
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

    def answers(self, record: Mapping[str, Any], key: str, prompt: str, first: bool) -> tuple[int, ...]:
        """The tokens of the answers or distractors, as they follow a prompt; `first`: the first of each."""
        given = record.get(key)
        listed = given if isinstance(given, list) else [given]
        if given is None or not listed:
            raise BadLine(f"there is no {key}")
        ids = tuple(dict.fromkeys(self.token(each, key, prompt, first) for each in listed))
        self.check_ids(ids, key)
        return ids

    def token(self, given: object, key: str, prompt: str, first: bool) -> int:
        if _is_id(given):
            return given
        if not isinstance(given, str) or not given or not _is_whole(given):
            raise BadLine(f"{key} {given!r} is neither a text nor a token id")
        if self.tokens is None:
            raise BadLine(f"the model has no tokenizer; give {key} as a token id")
        self.check_words(given, self.tokens.encode([given])[0], f"{key} {given!r}")
        ids = self.tokens.continuation(prompt, given) or self.tokens.whole(given)
        if not ids:
            raise BadLine(
                f"{key} {given!r} does not follow the prompt as tokens of its own ({self.mended(given, prompt)})"
            )
        if len(ids) > 1 and not first:
            split = " + ".join(map(self.named, ids))
            raise BadLine(f"{key} {given!r} is {len(ids)} tokens, {split} ({self.mended(given, prompt)})")
        return ids[0]

    def mended(self, given: str, prompt: str) -> str:
        """What to do about an answer that is not one token."""
        assert self.tokens
        if prompt[-1:].isspace():
            return "the prompt ends in a blank: take it out there, and let answers begin with it"
        blank = f" {given}"
        if not given[0].isspace() and len(self.tokens.continuation(prompt, blank)) == 1:
            return f"with a blank before it, {blank!r}, it is one token"
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

    def check_words(self, text: str, encoded: Encoded, what: str) -> None:
        if self.tokens and (word := self.tokens.unknown(text, encoded)) is not None:
            raise BadLine(f"the tokenizer of {self.tokens.name} does not know {word!r} in {what}")

    def check_ids(self, ids: tuple[int, ...] | list[int], what: str) -> None:
        if self.n_vocab is not None and max(ids, default=0) >= self.n_vocab:
            raise BadLine(f"{what} has token {max(ids)}, beyond the model's vocabulary of {self.n_vocab}")


def unequal_words(text: str, other: str, clean: Encoded, corrupt: Encoded) -> str:
    """The first words that differ in their number of tokens: ` (Mia is 2 tokens, Tom 1)`; empty where none are found.

    They are the n-th word of either text, so that texts of different numbers of words have none.
    """
    sides = [[(word[0], word.span()) for word in re.finditer(r"\S+", each)] for each in (text, other)]
    if len(sides[0]) != len(sides[1]) or not (clean.spans and corrupt.spans):
        return ""
    for (word, place), (partner, there) in zip(*sides, strict=True):
        n, m = _tokens_in(clean, *place), _tokens_in(corrupt, *there)
        if n != m:
            return f" ({shorten(word)!r} is {n} token{'s' * (n != 1)}, {shorten(partner)!r} {m})"
    return ""


def _tokens_in(prompt: Encoded, start: int, end: int) -> int:
    """How many tokens end within some characters of a prompt."""
    return sum(start < last <= end for _, last in prompt.spans)


def _text(record: Mapping[str, Any], key: str) -> str:
    """A text of a record; empty where there is none."""
    given = record.get(key)
    if given is None:
        return ""
    if key == "stratum" and is_integer(given):
        return str(given)
    if not isinstance(given, str) or not _is_whole(given):
        raise BadLine(f"'{key}' is not a text: {given!r}")
    return given


def _by_first_token(record: Mapping[str, Any]) -> bool:
    """Whether answers and distractors count by their first token."""
    given = record.get("answer_tokens")
    if given not in (None, "", FIRST):
        raise BadLine(f"'answer_tokens' is \"{FIRST}\" or left out, not {given!r} (token ids stand in 'answer' itself)")
    return bool(given)


def _is_whole(text: str) -> bool:
    r"""Whether a text has no lone surrogates, which JSON can write (`"\ud800"`)."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _is_id(value: object) -> TypeGuard[int]:
    return is_integer(value) and value >= 0


def _texts(given: object) -> tuple[str, ...]:
    """Answers as texts; empty where some are token ids."""
    listed = given if isinstance(given, list) else [given]
    texts = tuple(each for each in listed if isinstance(each, str))
    return texts if len(texts) == len(listed) else ()
