"""Prompt files: one prompt pair a line, as JSON Lines or CSV.

A line has `clean` and `corrupt` texts (or `clean_tokens` and `corrupt_tokens`), `answer` and `distractor` (texts, token
ids, or lists of them), `positions` and a `stratum`. In CSV every column named in capitals is a position. Every bad line
is reported, before anything runs.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from circuitdsl.errors import UserError
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.tasks.tokens import Encoded, Tokens

_SHOWN = 20


class PromptFileError(UserError):
    """A prompt file that cannot be used; the message lists its bad lines."""

    status = 2


class _BadLine(Exception):
    """Why one line cannot be used."""


def read_prompts(
    path: Path, tokens: Tokens | None, task: str, limit: int | None = None, n_vocab: int | None = None
) -> Dataset:
    """Read a prompt file for a model's tokenizer (`None` for a model without one: token ids are then needed).

    Raises:
        PromptFileError: the file cannot be read, or some of its lines cannot be used; all are named.
    """
    pairs, problems = [], []
    for number, record in _records(path):
        try:
            pairs.append(_pair(record, tokens, n_vocab))
        except _BadLine as reason:
            problems.append(f"{path}:{number}: {reason}")
        if limit and len(pairs) == limit:
            break
    if problems:
        more = f"\n… and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        lines = f"{len(problems)} bad line{'s' * (len(problems) > 1)} in {path}"
        raise PromptFileError(f"{lines}\n" + "\n".join(problems[:_SHOWN]) + more)
    if not pairs:
        raise PromptFileError(f"{path} has no prompts")
    return Dataset(task, "file", 0, bool(tokens and tokens.adds_bos), tuple(pairs))


def position_names(path: Path) -> tuple[str, ...]:
    """The positions that a prompt file defines, without a tokenizer."""
    found = (record.get("positions") for _, record in _records(path) if isinstance(record, dict))
    names = {name for positions in found if isinstance(positions, dict) for name in positions}
    return tuple(sorted(names | {"END"}))


# --- lines -----------------------------------------------------------------------------------------


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers with what stands there: an object, unless the line is bad."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise PromptFileError(f"cannot read the prompt file {path}: {reason}") from None
    yield from (_csv_records(text) if path.suffix == ".csv" else _json_records(text))


def _json_records(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, _BadLine(f"not JSON: {error}")


def _csv_records(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    for row in reader:
        cells = {key: value for key, value in row.items() if key and value not in (None, "")}
        positions = {key: _cell(value) for key, value in cells.items() if key.isupper()}
        record = {key: _cell(value) if key.endswith("_tokens") else value for key, value in cells.items()}
        yield reader.line_num, {key: v for key, v in record.items() if not key.isupper()} | {"positions": positions}


def _cell(value: str) -> Any:
    """A CSV cell: a number, a list or an object as JSON writes it, else the text itself."""
    try:
        return json.loads(value)
    except ValueError:
        return value


# --- one pair --------------------------------------------------------------------------------------


def _pair(record: Any, tokens: Tokens | None, n_vocab: int | None) -> PromptPair:
    if isinstance(record, _BadLine):
        raise record
    if not isinstance(record, dict):
        raise _BadLine("a prompt pair is a JSON object, {…}")
    clean, corrupt = (_encoded(record, side, tokens, n_vocab) for side in ("clean", "corrupt"))
    if len(clean.ids) != len(corrupt.ids):
        raise _BadLine(f"the clean prompt has {len(clean.ids)} tokens and the corrupt one {len(corrupt.ids)}")
    if clean.ids == corrupt.ids:
        raise _BadLine("the clean and the corrupt prompt are the same")
    text = record.get("clean", "")
    answers = _ids(record, "answer", text, tokens)
    distractors = _ids(record, "distractor", text, tokens)
    if shared := set(answers) & set(distractors):
        raise _BadLine(f"an answer and a distractor share their first token, {min(shared)}")
    return PromptPair(
        clean_tokens=clean.ids,
        corrupt_tokens=corrupt.ids,
        answers=answers,
        distractors=distractors,
        corrupt_answers=_ids(record, "corrupt_answer", text, tokens) if "corrupt_answer" in record else (),
        positions=_positions(record, text, clean),
        stratum=str(record.get("stratum", "")),
        clean=text,
        corrupt=record.get("corrupt", ""),
        answer_texts=_texts(record.get("answer")),
        distractor_texts=_texts(record.get("distractor")),
    )


def _encoded(record: Mapping[str, Any], side: str, tokens: Tokens | None, n_vocab: int | None) -> Encoded:
    given = record.get(f"{side}_tokens")
    if given is not None:
        if not isinstance(given, list) or not given or not all(_is_id(i) for i in given):
            raise _BadLine(f"{side}_tokens is not a list of token ids")
        if n_vocab is not None and max(given) >= n_vocab:
            raise _BadLine(f"{side}_tokens has {max(given)}, beyond the model's vocabulary of {n_vocab}")
        spans = _encode(record[side], tokens).spans if tokens and isinstance(record.get(side), str) else ()
        return Encoded(tuple(given), spans if len(spans) == len(given) else ())
    text = record.get(side)
    if not isinstance(text, str) or not text:
        raise _BadLine(f"there is no {side} prompt (a text in '{side}', or ids in '{side}_tokens')")
    if tokens is None:
        raise _BadLine(f"the model has no tokenizer, and there is no '{side}_tokens'")
    return _encode(text, tokens)


def _encode(text: str, tokens: Tokens) -> Encoded:
    return tokens.encode([text])[0]


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _ids(record: Mapping[str, Any], key: str, clean: str, tokens: Tokens | None) -> tuple[int, ...]:
    """First tokens of the answers (or distractors) as they follow the clean prompt."""
    given = record.get(key)
    listed = given if isinstance(given, list) else [given]
    if given is None or not listed:
        raise _BadLine(f"there is no {key}")
    return tuple(dict.fromkeys(_first(each, key, clean, tokens) for each in listed))


def _first(given: object, key: str, clean: str, tokens: Tokens | None) -> int:
    if _is_id(given):
        return int(given)  # type: ignore[call-overload]
    if not isinstance(given, str) or not given:
        raise _BadLine(f"{key} {given!r} is neither a text nor a token id")
    if tokens is None:
        raise _BadLine(f"the model has no tokenizer; give {key} as a token id")
    ids = tokens.continuation(clean, given) or tokens.whole(given)
    if not ids:
        raise _BadLine(f"{key} {given!r} does not follow the prompt as tokens of its own (does it lack a blank?)")
    return ids[0]


def _texts(given: object) -> tuple[str, ...]:
    return tuple(map(str, given)) if isinstance(given, list) else (str(given),)


# --- positions -------------------------------------------------------------------------------------


def _positions(record: Mapping[str, Any], text: str, clean: Encoded) -> dict[str, tuple[int, ...]]:
    given = record.get("positions", {})
    if not isinstance(given, dict):
        raise _BadLine("'positions' is not an object of names and places")
    found = {}
    for name, place in given.items():
        if not _is_position(name):
            raise _BadLine(f"position {name!r} is not written in capitals")
        places = place if isinstance(place, list) else [place]
        found[name] = tuple(sorted({_index(name, each, text, clean) for each in places}))
    return {"END": (len(clean.ids) - 1,)} | found


def _is_position(name: str) -> bool:
    return name[:1].isalpha() and name.isascii() and name == name.upper() and name.replace("_", "A").isalnum()


def _index(name: str, place: object, text: str, clean: Encoded) -> int:
    length = len(clean.ids)
    if isinstance(place, int) and not isinstance(place, bool):
        if not -length <= place < length:
            raise _BadLine(f"position {name} is token {place} of a prompt of {length} tokens")
        return place % length
    if not clean.spans:
        raise _BadLine(f"position {name}: only token indices can be used with token ids alone")
    if isinstance(place, str):
        start, end = _occurrence(name, place, text)
    elif isinstance(place, dict) and isinstance(place.get("chars"), list) and len(place["chars"]) == 2:
        start, end = place["chars"]
        if not 0 <= start < end <= len(text):
            raise _BadLine(f"position {name} is characters {start} to {end} of a prompt of {len(text)}")
    else:
        raise _BadLine(f'position {name} is none of: a text, {{"chars": [start, end]}}, a token index')
    try:
        return clean.last_token(start, end)
    except ValueError:
        raise _BadLine(f"position {name}: no token holds the character before {end}") from None


def _occurrence(name: str, place: str, text: str) -> tuple[int, int]:
    """Where a substring stands; `#2` asks for its second occurrence."""
    words, mark, number = place.rpartition("#")
    wanted, nth = (words, int(number)) if mark and number.isdigit() and words else (place, 1)
    at = -1
    for _ in range(nth):
        at = text.find(wanted, at + 1)
        if at < 0:
            times = text.count(wanted)
            raise _BadLine(f"position {name}: {wanted!r} stands {times} times in the clean prompt, not {nth}")
    return at, at + len(wanted)
