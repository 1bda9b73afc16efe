"""Prompt files: one prompt pair a line, as JSON Lines or CSV.

A line has `clean` and `corrupt` texts (or `clean_tokens` and `corrupt_tokens`), `answer` and `distractor` (texts, token
ids, or lists of them). It may have a `corrupt_answer`, `positions` and a `stratum`. In CSV every column named in
capitals is a position. All bad lines are reported before anything runs.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from circuitdsl.errors import UserError
from circuitdsl.language.diagnostics import did_you_mean, shorten, suggest
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.tasks.tokens import Encoded, Tokens

T = TypeVar("T")
_POSITION = re.compile(r"[A-Z][A-Z0-9_]*")
_NTH = re.compile(r"(.+)#([0-9]{1,9})", re.DOTALL)
#: the positions of a prompt file with more bytes are not looked up before it is used
_LARGE = 64 * 2**20
#: an error names at most so many bad lines
_NAMED = 100
#: keys whose value may be a list
ANSWERS = ("answer", "distractor", "corrupt_answer")
#: optional keys; an unknown key that resembles one is refused, as it is probably misspelt
OPTIONAL = ("positions", "stratum", "corrupt_answer")
#: all keys that are read; authors may add others
KEYS = frozenset({"clean", "corrupt", "clean_tokens", "corrupt_tokens", *ANSWERS, *OPTIONAL})


class PromptFileError(UserError):
    """A prompt file that cannot be used; the message lists its bad lines."""

    status = 2


class BadLine(Exception):
    """Why one line cannot be used."""


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
    reader = _Reader(tokens, n_vocab)
    found = [replace(pair, line=number) for number, pair in _each(path, reader.pair)]
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


def check_file(path: Path) -> None:
    """Check what can be known of a prompt file without a model: that it exists and that its lines can be read.

    Raises:
        PromptFileError: the file cannot be read, or some of its lines can be used with no model; all are named.
    """

    def check(record: Any) -> None:
        sides = _object_of(record)
        if missing := [side for side in ("clean", "corrupt") if not {side, f"{side}_tokens"} & set(sides)]:
            raise BadLine(f"there is no {missing[0]} prompt")

    _each(path, check)


def positions_in(path: Path) -> tuple[str, ...] | None:
    """The names of positions in a prompt file, and END; None where it cannot be read, or is large.

    `check_file` and `read_prompts` report what is wrong with the file.
    """
    found: dict[str, None] = {}
    try:
        if not path.is_file() or path.stat().st_size > _LARGE:
            return None
        for _, record in _records(path):
            given = record.get("positions") if isinstance(record, dict) else None
            if isinstance(given, dict):
                found |= dict.fromkeys(name for name in given if _POSITION.fullmatch(name))
    except (PromptFileError, OSError, ValueError):
        return None
    return tuple(found | {"END": None})


def _each(path: Path, read: Callable[[Any], T]) -> list[tuple[int, T]]:
    """Read every line of a file; each result comes with the number of its line.

    Raises:
        PromptFileError: a file with bad lines, or with no line at all.
    """
    found, problems = [], []
    for number, record in _records(path):
        try:
            found.append((number, read(record)))
        except BadLine as reason:
            problems.append(f"{path}:{number}: {reason}")
    if problems:
        plural = "s" if len(problems) > 1 else ""
        more = [f"… and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
        raise PromptFileError("\n".join([f"{len(problems)} bad line{plural} in {path}", *problems[:_NAMED], *more]))
    if not found:
        raise PromptFileError(f"{path} has no prompts")
    return found


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """The number of each line, and its JSON value or a `BadLine` that says why there is none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PromptFileError(f"cannot read the prompt file {path}: it is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PromptFileError(f"cannot read the prompt file {path}: {reason}") from None
    if path.suffix.lower() == ".csv":
        yield from _csv_records(text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line.removesuffix("\r"))
            except (ValueError, RecursionError) as error:
                yield number, BadLine(f"not JSON: {error}")


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
    return suggest(key, OPTIONAL)


def _csv_records(text: str) -> list[tuple[int, Any]]:
    """The rows that are not empty, each with the line on which it begins; the first names the columns."""
    found: list[tuple[int, Any]] = []
    columns: list[str] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    usual = csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    try:
        while True:
            number = reader.line_num + 1
            try:
                row = next(reader)
            except csv.Error as error:
                found.append((number, BadLine(f"not CSV: {error}")))
                continue
            if any(row) and columns:
                found.append((number, _record(columns, row)))
            elif any(row):
                columns = [name.strip() for name in row]
                if twice := [name for name in columns if name and columns.count(name) > 1]:
                    found.append((number, BadLine(f"two columns are named {twice[0]}")))
                if "positions" in columns:
                    found.append((number, BadLine("every position is a column of its own, named in capitals")))
    except StopIteration:
        return found
    finally:
        csv.field_size_limit(usual)


def _record(columns: Sequence[str], row: Sequence[str]) -> dict[str, Any] | BadLine:
    """A CSV row as the object that a line of JSON would be."""
    if len(row) != len(columns):
        hint = " (a text with a comma needs quotes)" if len(row) > len(columns) else ""
        return BadLine(f"{len(row)} cells under {len(columns)} columns{hint}")
    record: dict[str, Any] = {}
    positions: dict[str, Any] = {}
    for key, cell in zip(columns, row, strict=True):
        if not key or not cell:
            continue
        if key.isupper():
            positions[key] = _cell(cell)
        elif key.endswith("_tokens"):
            record[key] = _cell(cell)
        elif key in ANSWERS and cell.startswith("["):
            record[key] = _cell(cell)
            if not isinstance(record[key], list):
                return BadLine(f"{key} {cell!r} begins with [ and is not a list as JSON writes it")
        else:
            record[key] = cell
    return record | {"positions": positions}


def _cell(cell: str) -> Any:
    """A CSV cell: a number, a list or an object as JSON writes it, else the text itself."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


class _Reasons(list[str]):
    """The reasons why one line cannot be used."""

    def unless(self, make: Callable[[], T]) -> T | None:
        """What `make` returns; where it raises `BadLine`, None, and the reason is added."""
        try:
            return make()
        except BadLine as reason:
            self.append(str(reason))
            return None

    def refuse(self) -> None:
        """Raise `BadLine` with all reasons, if there are any."""
        if self:
            raise BadLine("; ".join(self))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes prompt pairs of records, for one model."""

    tokens: Tokens | None
    n_vocab: int | None

    def pair(self, record: Any) -> PromptPair:
        """The pair of a record; raises `BadLine` with everything that is wrong with it."""
        record, why = _object_of(record), _Reasons()
        text, other, stratum = (why.unless(partial(_text, record, key)) for key in ("clean", "corrupt", "stratum"))
        clean = None if text is None else why.unless(lambda: self.prompt(record, "clean", text))
        corrupt = None if other is None else why.unless(lambda: self.prompt(record, "corrupt", other))
        answers = distractors = corrupt_answers = None
        if text or clean:
            asked = (partial(self.answers, record, key, text or "") for key in ("answer", "distractor"))
            answers, distractors = map(why.unless, asked)
        if (other or corrupt) and record.get("corrupt_answer") is not None:
            corrupt_answers = why.unless(lambda: self.answers(record, "corrupt_answer", other or ""))
        positions = None if clean is None else why.unless(lambda: _positions(record, text or "", clean))
        if clean and corrupt and len(clean.ids) != len(corrupt.ids):
            why.append(f"the clean prompt has {len(clean.ids)} tokens and the corrupt one {len(corrupt.ids)}")
        elif clean and corrupt and clean.ids == corrupt.ids:
            why.append("the clean and the corrupt prompt are the same")
        if answers and distractors and (shared := set(answers) & set(distractors)):
            why.append(f"an answer and a distractor share their first token, {min(shared)}")
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
            (encoded,) = self.tokens.encode([text])
            if given is not None and encoded.ids != tuple(given):
                raise BadLine(
                    f"{key} is not what the tokenizer of {self.tokens.name} makes of '{side}' (leave one out)"
                )
            self.check_words(text, encoded, f"the {side} prompt")
            self.check_ids(encoded.ids, f"the {side} prompt")
            return encoded
        if given is None and text:
            raise BadLine(f"the model has no tokenizer, and there is no '{key}'")
        if given is None:
            raise BadLine(f"there is no {side} prompt (a text in '{side}', or ids in '{key}')")
        return Encoded(tuple(given), ())

    def answers(self, record: Mapping[str, Any], key: str, prompt: str) -> tuple[int, ...]:
        """The first tokens of the answers or distractors, as they follow a prompt."""
        given = record.get(key)
        listed = given if isinstance(given, list) else [given]
        if given is None or not listed:
            raise BadLine(f"there is no {key}")
        ids = tuple(dict.fromkeys(self.first(each, key, prompt) for each in listed))
        self.check_ids(ids, key)
        return ids

    def first(self, given: object, key: str, prompt: str) -> int:
        if _is_id(given):
            return given
        if not isinstance(given, str) or not given or not _is_whole(given):
            raise BadLine(f"{key} {given!r} is neither a text nor a token id")
        if self.tokens is None:
            raise BadLine(f"the model has no tokenizer; give {key} as a token id")
        self.check_words(given, self.tokens.encode([given])[0], f"{key} {given!r}")
        ids = (prompt and self.tokens.continuation(prompt, given)) or self.tokens.whole(given)
        if not ids:
            if not prompt:
                raise BadLine(f"{key} {given!r} is not one token, and the prompt has no text that it could follow")
            raise BadLine(f"{key} {given!r} does not follow the prompt as tokens of its own (does it lack a blank?)")
        return ids[0]

    def check_words(self, text: str, encoded: Encoded, what: str) -> None:
        if self.tokens and (word := self.tokens.unknown(text, encoded)) is not None:
            raise BadLine(f"the tokenizer of {self.tokens.name} does not know {word!r} in {what}")

    def check_ids(self, ids: tuple[int, ...] | list[int], what: str) -> None:
        if self.n_vocab is not None and max(ids, default=0) >= self.n_vocab:
            raise BadLine(f"{what} has token {max(ids)}, beyond the model's vocabulary of {self.n_vocab}")


def _text(record: Mapping[str, Any], key: str) -> str:
    """A text of a record; empty where there is none."""
    given = record.get(key)
    if given is None:
        return ""
    if key == "stratum" and _is_integer(given):
        return str(given)
    if not isinstance(given, str) or not _is_whole(given):
        raise BadLine(f"'{key}' is not a text: {given!r}")
    return given


def _is_whole(text: str) -> bool:
    r"""Whether a text has no lone surrogates, which JSON can write (`"\ud800"`)."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_id(value: object) -> TypeGuard[int]:
    return _is_integer(value) and value >= 0


def _texts(given: object) -> tuple[str, ...]:
    """Answers as texts; empty where some are token ids."""
    listed = given if isinstance(given, list) else [given]
    texts = tuple(each for each in listed if isinstance(each, str))
    return texts if len(texts) == len(listed) else ()


def _positions(record: Mapping[str, Any], text: str, clean: Encoded) -> dict[str, tuple[int, ...]]:
    given = record.get("positions", {})
    if not isinstance(given, dict):
        raise BadLine("'positions' is not an object of names and places")
    end = (len(clean.ids) - 1,)
    why = _Reasons()
    found = {name: why.unless(partial(_indices, name, place, text, clean)) for name, place in given.items()}
    if (other := found.get("END")) and other != end:
        at = " and ".join(map(str, other))
        why.append(f"position END is token {at}; the metric is read at END, which is the last token ({end[0]})")
    why.refuse()
    return {"END": end} | {name: indices for name, indices in found.items() if indices}


def _indices(name: str, place: object, text: str, clean: Encoded) -> tuple[int, ...]:
    if not _POSITION.fullmatch(name):
        raise BadLine(f"position {name!r} is not written in capitals (A to Z, 0 to 9, _)")
    places = place if isinstance(place, list) else [place]
    if not places:
        raise BadLine(f"position {name} is an empty list")
    return tuple(sorted({_index(name, each, text, clean) for each in places}))


def _index(name: str, place: object, text: str, clean: Encoded) -> int:
    if _is_integer(place):
        length = len(clean.ids)
        if not -length <= place < length:
            raise BadLine(f"position {name} is token {place} of a prompt of {length} tokens")
        return place % length
    if not clean.spans:
        raise BadLine(f"position {name}: only token indices can be used with token ids alone")
    chars = place.get("chars") if isinstance(place, dict) else None
    if isinstance(place, str) and place:
        end = _end_of(name, place, text)
    elif isinstance(chars, list) and len(chars) == 2 and all(map(_is_integer, chars)):
        start, end = chars
        if not 0 <= start < end <= len(text):
            raise BadLine(f"position {name} is characters {start} to {end} of a prompt of {len(text)}")
    else:
        raise BadLine(f'position {name} is none of: a text, {{"chars": [start, end]}}, a token index')
    try:
        return clean.token_before(end)
    except ValueError:
        raise BadLine(f"position {name}: no token holds the character before {end}") from None


def _end_of(name: str, place: str, text: str) -> int:
    """Where a substring ends in a text; `#2` asks for its second occurrence."""
    found = _NTH.fullmatch(place)
    wanted, nth = (found[1], int(found[2])) if found else (place, 1)
    if nth == 0:
        raise BadLine(f"position {name}: {place!r} asks for occurrence 0; they count from 1")
    starts = [match.start() for match in re.finditer(f"(?={re.escape(wanted)})", text)]
    if nth > len(starts):
        hint = " (an occurrence is written #1, #2, …)" if "#" in wanted else ""
        raise BadLine(f"position {name}: {wanted!r} stands {len(starts)} times in the clean prompt, not {nth}{hint}")
    return starts[nth - 1] + len(wanted)
