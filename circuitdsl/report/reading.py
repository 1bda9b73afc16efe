"""Frozen records as the values of JSON, and read back from them by the types of their fields."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

#: what is a value of JSON as it stands; most values are
_PLAIN = frozenset((str, int, bool, type(None)))


@cache
def _fields(kind: type) -> tuple[str, ...]:
    """The names of a record's fields; none where it is no record."""
    return tuple(each.name for each in fields(kind)) if is_dataclass(kind) else ()


def plain(value: Any) -> Any:
    """JSON values only: records become objects, tuples lists; a number that is not finite becomes null."""
    if value.__class__ in _PLAIN:
        return value
    if names := _fields(value.__class__):
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value


def read(kind: Any, value: Any) -> Any:
    """A value of a type, read from what `json.loads` made of it.

    A record is read field by field: a field with a default may be missing, and keys that are no fields are ignored. A
    field with `metadata={"key": …}` has the value under that key, where there is one.

    Args:
        kind: a dataclass, `X | None`, a `Literal`, a `tuple`, a `dict`, `Any`, or a plain type.

    Raises:
        ValueError: the value, or a part of it, is of another type; the message names the part: `claims[3].verdict`.
    """
    try:
        return _reader(kind)(value)
    except _Wrong as wrong:
        raise ValueError(f"{wrong.place.lstrip('.') or 'it'} {wrong.said}") from None


class _Wrong(Exception):
    """What is wrong with a part of a value, and where in the value that part is."""

    def __init__(self, said: str, place: str = "") -> None:
        self.said, self.place = said, place

    def inside(self, place: str) -> _Wrong:
        """The same of a value of which this one is a part."""
        return _Wrong(self.said, f"{place}{self.place}")


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What reads values of a type; it is made once, since results of a matrix have millions of them."""
    origin, inside = get_origin(kind) or kind, get_args(kind)
    if is_dataclass(kind):
        return partial(_record, kind, _parts(kind))
    if origin in (UnionType, Union):
        return partial(_optional, _reader(inside[0]))
    if origin is dict:
        return partial(_dict, _reader(inside[1]))
    if origin is tuple and inside[-1] is ...:
        return partial(_tuple, inside[0], _reader(inside[0]))
    if origin is tuple:
        return _interval
    if origin is Literal:
        return partial(_one_of, inside)
    return _as_it_is if kind is Any else partial(_checked, kind)


def _as_it_is(value: Any) -> Any:
    return value


def _optional(reader: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else reader(value)


def _one_of(words: tuple[Any, ...], value: Any) -> Any:
    if value not in words:
        raise _Wrong(f"is {_shown(value)}, not one of {', '.join(map(_shown, words))}")
    return words[words.index(value)]


def _dict(reader: Callable[[Any], Any], value: Any) -> dict[str, Any]:
    found = {}
    for key, each in _checked(dict, value).items():
        try:
            found[key] = reader(each)
        except _Wrong as wrong:
            raise wrong.inside(f".{key}") from None
    return found


def _tuple(kind: Any, reader: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    if type(value) is list and _all_are(kind, value):
        return tuple(value)
    found = []
    for at, each in enumerate(_checked(list, value)):
        try:
            found.append(reader(each))
        except _Wrong as wrong:
            raise wrong.inside(f"[{at}]") from None
    return tuple(found)


def _interval(value: Any) -> tuple[float, ...]:
    if len(_checked(list, value)) != 2:
        raise _Wrong(f"is {_shown(value)}, not two numbers")
    ends = zip((-math.inf, math.inf), value, strict=True)  # JSON has no infinite number: null stands for it
    return tuple(infinite if end is None else _checked(float, end) for infinite, end in ends)


class _Part(NamedTuple):
    """A field of a record, and how it is read."""

    name: str
    key: str
    needed: bool
    reader: Callable[[Any], Any]


def _parts(kind: Any) -> tuple[_Part, ...]:
    types = get_type_hints(kind)
    return tuple(
        _Part(
            field.name,
            field.metadata.get("key", field.name),
            field.default is field.default_factory is MISSING,
            _reader(types[field.name]),
        )
        for field in fields(kind)
    )


def _record(kind: Any, parts: tuple[_Part, ...], value: Any) -> Any:
    given, found, key = _checked(dict, value), {}, ""
    try:
        for name, key, needed, reader in parts:
            if key not in given:
                key = name
            if key in given:
                found[name] = reader(given[key])
            elif needed:
                break
        else:
            return kind(**found)
    except _Wrong as wrong:
        raise wrong.inside(f".{key}") from None
    raise _Wrong(f"has no {_shown(key)}")


def _all_are(kind: Any, values: list[Any]) -> bool:
    """Whether values are all of a plain type: many numbers are looked at faster all at once."""
    return kind in (str, int, float) and set(map(type, values)) <= {kind} and (kind is not float or _finite(values))


def _finite(values: list[float]) -> bool:
    return all(map(math.isfinite, values))


_NAMES = {
    dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number", bool: "true or false",
}  # fmt: skip


def _checked(kind: Any, value: Any) -> Any:
    """The value, where it is of a plain type; a whole number counts as a number."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise _Wrong(f"is {_shown(value)}, not {_NAMES[kind]}")
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
