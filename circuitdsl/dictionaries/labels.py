"""What people call the features of a dictionary, from a file of theirs.

A file is a JSON object of numbers and words (`{"17": "names"}`), or a list of objects that have an `index` and a
`description`, as Neuronpedia hands out explanations.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from circuitdsl.brief import quoted
from circuitdsl.dictionaries.configuration import loaded
from circuitdsl.dictionaries.record import DictionaryError

#: bytes of such a file that are read at the most, and characters of a label that are kept
LARGEST, _LONGEST = 10**8, 80


def read_labels(path: Path, d_sae: int) -> dict[int, str]:
    """The labels of a file, by feature.

    Raises:
        DictionaryError: it cannot be read, or says something of what is no feature of `d_sae`.
    """
    found = _pairs(path, loaded(path, json.loads, LARGEST))
    return {_index(path, which, d_sae): _words(path, which, words) for which, words in found}


def _pairs(path: Path, found: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(found, dict):
        return found.items()
    if isinstance(found, list) and all(isinstance(each, dict) for each in found):
        return [(each.get("index"), each.get("description")) for each in found]
    hint = 'write {"17": "names"}, or [{"index": 17, "description": "names"}]'
    raise DictionaryError(f"{path} holds no labels of features", hint=hint)


def _index(path: Path, which: Any, d_sae: int) -> int:
    text = str(which)
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) < d_sae):
        raise DictionaryError(f"{path}: {quoted(repr(which))} is no feature of the dictionary, which has {d_sae}")
    return int(text)


def _words(path: Path, which: Any, words: Any) -> str:
    if not isinstance(words, str):
        raise DictionaryError(f"{path}: the label of {quoted(repr(which))} is no text")
    words = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"
