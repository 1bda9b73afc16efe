"""Frozen records as the values of JSON, and read back from them by the types of their fields."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


@cache
def _fields(kind: type) -> tuple[str, ...]:
    """The names of a record's fields; none where it is no record."""
    return tuple(each.name for each in fields(kind)) if is_dataclass(kind) else ()


def plain(value: Any) -> Any:
    """JSON values only: records become objects, tuples lists; a number that is not finite becomes null."""
    if names := _fields(value.__class__):
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value


def read(kind: Any, value: Any, where: str = "") -> Any:
    """A value of a type, read from what `json.loads` made of it.

    A record is read field by field: a field with a default may be missing, and keys that are no fields are ignored. A
    field with `metadata={"key": …}` has the value under that key, where there is one.

    Args:
        kind: a dataclass, `X | None`, a `Literal`, a `tuple`, a `dict`, `Any`, or a plain type.
        where: what messages call the value, such as `claims[3].verdict`.

    Raises:
        ValueError: the value, or a part of it, is of another type.
    """
    origin, inside = get_origin(kind) or kind, get_args(kind)
    if is_dataclass(kind):
        return _record(kind, _checked(dict, value, where), where)
    if origin in (UnionType, Union):
        return None if value is None else read(inside[0], value, where)
    if origin is dict:
        return {key: read(inside[1], each, f"{where}.{key}") for key, each in _checked(dict, value, where).items()}
    if origin is tuple and inside[-1] is ...:
        if type(value) is list and _all_are(inside[0], value):
            return tuple(value)
        return tuple(read(inside[0], each, f"{where}[{i}]") for i, each in enumerate(_checked(list, value, where)))
    if origin is tuple:
        if len(_checked(list, value, where)) != 2:
            raise ValueError(f"{where} is {_shown(value)}, not two numbers")
        ends = zip((-math.inf, math.inf), value, strict=True)  # JSON has no infinite number: null stands for it
        return tuple(infinite if end is None else read(float, end, where) for infinite, end in ends)
    if origin is Literal:
        if value not in inside:
            raise ValueError(f"{where} is {_shown(value)}, not one of {', '.join(map(_shown, inside))}")
        return value
    return value if kind is Any else _checked(kind, value, where)


def _record(kind: Any, given: dict[str, Any], where: str) -> Any:
    found = {}
    for field in fields(kind):
        key = field.metadata.get("key")
        key = key if key in given else field.name
        if key in given:
            found[field.name] = read(_types(kind)[field.name], given[key], f"{where}.{key}".lstrip("."))
        elif field.default is field.default_factory is MISSING:
            raise ValueError(f"{where or 'it'} has no {_shown(key)}")
    return kind(**found)


def _all_are(kind: Any, values: list[Any]) -> bool:
    """Whether values are all of a plain type: many numbers are looked at faster all at once."""
    return kind in (str, int, float) and set(map(type, values)) <= {kind} and (kind is not float or _finite(values))


def _finite(values: list[float]) -> bool:
    return all(map(math.isfinite, values))


#: the types of a record's fields, by name
_types = cache(get_type_hints)
_NAMES = {
    dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number", bool: "true or false",
}  # fmt: skip


def _checked(kind: Any, value: Any, where: str) -> Any:
    """The value, where it is of a plain type; a whole number counts as a number."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError(f"{where or 'it'} is {_shown(value)}, not {_NAMES[kind]}")
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
