"""What the small files of dictionaries say: JSON and YAML objects, with a sentence for every key that is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitdsl.brief import quoted
from circuitdsl.dictionaries.record import DictionaryError
from circuitdsl.ordinary import Unreadable, read_ordinary

#: bytes of such a file that are read at the most
LARGEST = 10**6
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Config:
    """A file's object. Keys are looked for in it, then in its `metadata`, where newer versions keep them."""

    path: Path
    values: Mapping[str, Any]

    def get(self, *names: str, default: Any = None) -> Any:
        """The value of the first of these keys that is there and says something."""
        inner = self.values.get("metadata")
        places = (self.values, inner if isinstance(inner, dict) else {})
        found = (place.get(name) for name in names for place in places)
        return next((value for value in found if value is not None), default)

    def need(self, *names: str) -> Any:
        """The same; raises `DictionaryError` where there is none."""
        found = self.get(*names, default=_MISSING)
        if found is _MISSING:
            raise DictionaryError(f"{self.path} has no {names[0]}, without which the dictionary cannot be used")
        return found

    def number(self, *names: str) -> int:
        """A whole number above 0."""
        found = self.need(*names)
        if type(found) is not int or found <= 0:
            raise DictionaryError(f"{self.path}: {names[0]} = {quoted(repr(found))} is no whole number above 0")
        return found

    def flag(self, name: str, default: bool) -> bool:
        found = self.get(name, default=default)
        if type(found) is not bool:
            raise DictionaryError(f"{self.path}: {name} = {quoted(repr(found))} is neither true nor false")
        return found

    def word(self, *names: str, default: str = "") -> str:
        """A text; empty where there is none."""
        found = self.get(*names, default=default)
        return found if isinstance(found, str) else default


def json_file(path: Path) -> Config:
    """A JSON object; raises `DictionaryError` where the file is none."""
    return Config(path, _object(path, json.loads))


def yaml_file(path: Path) -> Config:
    """A YAML object; raises `DictionaryError` where the file is none."""
    import yaml

    def load(text: bytes) -> Any:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error).replace("\n", " ")) from None

    return Config(path, _object(path, load))


def loaded(path: Path, load: Callable[[bytes], Any], largest: int = LARGEST) -> Any:
    """What a small file says; raises `DictionaryError` where it cannot be read."""
    try:
        return load(read_ordinary(path, largest))
    except (Unreadable, ValueError, RecursionError) as error:
        raise DictionaryError(f"{path} cannot be read: {error}") from None


def _object(path: Path, load: Callable[[bytes], Any]) -> dict[str, Any]:
    found = loaded(path, load)
    if not isinstance(found, dict):
        raise DictionaryError(f"{path} holds no object with names and values")
    return found
