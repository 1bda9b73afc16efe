"""Where the positions of a prompt file stand: substrings, characters and indices become token indices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from circuitdsl.tasks.records import BadLine, PromptFileError, Reasons, echo, is_integer, lines_of
from circuitdsl.tasks.tokens import Encoded

POSITION = re.compile(r"[A-Z][A-Z0-9_]*")
#: positions of a line, and places of a position, at the most; characters of a name
MOST, LONGEST = 1000, 100
#: the positions of a prompt file with more bytes are not looked up before it is used
_LARGE = 64 * 2**20
_NTH = re.compile(r"(.+)#([0-9]{1,9})", re.DOTALL)


def positions_in(path: Path) -> tuple[str, ...] | None:
    """The names of positions in a prompt file, and END; None where it cannot be read, or is large.

    `check_file` and `read_prompts` report what is wrong with the file. It is read again when it has changed.
    """
    try:
        now = path.stat()
        if not path.is_file() or now.st_size > _LARGE:
            return None
        return _positions_read(path, now.st_dev, now.st_ino, now.st_mtime_ns, now.st_size)
    except (PromptFileError, OSError, ValueError):
        return None


@lru_cache(64)
def _positions_read(path: Path, *_of_this_file: int) -> tuple[str, ...]:
    found: dict[str, None] = {}
    with lines_of(path) as lines:
        for line in lines:
            given = line.value.get("positions") if isinstance(line.value, dict) else None
            if isinstance(given, dict) and not given.keys() <= found.keys():
                found |= dict.fromkeys(name for name in given if POSITION.fullmatch(name))
    return tuple(found | {"END": None})


def positions_of(record: Mapping[str, Any], text: str, clean: Encoded, bos: bool) -> dict[str, tuple[int, ...]]:
    """Token indices of the positions of a record; `bos`: the first token stands before the text."""
    given = record.get("positions", {})
    if not isinstance(given, dict):
        raise BadLine("'positions' is not an object of names and places")
    if len(given) > MOST:
        raise BadLine(f"there are {len(given)} positions; a line may have {MOST}")
    if long := next((name for name in given if len(name) > LONGEST), None):
        raise BadLine(f"the name of a position is too long: {echo(long)}")
    end = (len(clean.ids) - 1,)
    if not given:
        return {"END": end}
    why = Reasons()
    found = {
        name: (place,)  # so it is in most lines
        if type(place) is int and 0 < place <= end[0] and _is_name(name)
        else why.unless(_indices, name, place, text, clean, bos)
        for name, place in given.items()
    }
    if (other := found.get("END")) and other != end:
        at = " and ".join(map(str, other))
        why.append(f"position END is token {at}; the metric is read at END, which is the last token ({end[0]})")
    why.refuse()
    return {"END": end} | {name: indices for name, indices in found.items() if indices}


@lru_cache(1000)
def _is_name(name: str) -> bool:
    return POSITION.fullmatch(name) is not None


def _indices(name: str, place: object, text: str, clean: Encoded, bos: bool) -> tuple[int, ...]:
    if not _is_name(name):
        raise BadLine(f"position {echo(name)} is not written in capitals (A to Z, 0 to 9, _)")
    if not isinstance(place, list):
        return (_index(name, place, text, clean, bos),)
    if not place:
        raise BadLine(f"position {name} is an empty list")
    if len(place) > MOST:
        raise BadLine(f"position {name} is a list of {len(place)} places; it may have {MOST}")
    return tuple(sorted({_index(name, each, text, clean, bos) for each in place}))


def _index(name: str, place: object, text: str, clean: Encoded, bos: bool) -> int:
    if is_integer(place):
        length = len(clean.ids)
        if not -length <= place < length:
            counted = "; token 0 is the beginning-of-sequence token" if bos else ""
            raise BadLine(
                f"position {name} is token {echo(place)} of a prompt of {length} tokens, 0 to {length - 1}{counted}"
            )
        if bos and place % length == 0 and name != "BOS":
            raise BadLine(
                f"position {name} is token {place}, the beginning-of-sequence token: indices count it, and the text "
                "begins at 1 (name the position BOS where it is meant)"
            )
        return place % length
    if not clean.spans:
        raise BadLine(f"position {name}: only token indices can be used with token ids alone")
    chars = place.get("chars") if isinstance(place, dict) else None
    if isinstance(place, str) and place:
        end = _end_of(name, place, text)
    elif isinstance(chars, list) and len(chars) == 2 and all(map(is_integer, chars)):
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
        raise BadLine(f"position {name}: {echo(place)} asks for occurrence 0; they count from 1")
    start, count = -1, 0
    while count < nth and (start := text.find(wanted, start + 1)) >= 0:
        count += 1
    if count < nth:
        hint = " (an occurrence is written #1, #2, …)" if "#" in wanted else ""
        raise BadLine(f"position {name}: {echo(wanted)} stands {count} times in the clean prompt, not {nth}{hint}")
    return start + len(wanted)
