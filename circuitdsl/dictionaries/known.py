"""The dictionaries that nodes name: a node carries a dictionary's name and the beginning of its hash.

Numbers are known by what nodes say. So two files of one name are two dictionaries, and a file is one wherever it lies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from circuitdsl.dictionaries.record import Dictionary, DictionaryError

#: between the name and the hash, and the characters of that
_BETWEEN, _LONG = "#", 16
#: prompts on which ways of reading a hook are compared
FEW = 32
_KNOWN: dict[str, Known] = {}


@dataclass(frozen=True, eq=False)
class Known:
    """A dictionary that nodes name, and how its hook is read (see `engine.hooks.Reading`).

    Attributes:
        place: where its files lie, for other processes; `at` is the hook that was given for it.
    """

    dictionary: Dictionary
    place: str = ""
    at: str = ""
    gained: bool = True
    centred: bool = False


def register(name: str, found: Dictionary, place: str = "", at: str = "") -> str:
    """Make a dictionary known; what nodes of it carry."""
    key = found.sha256[:_LONG]
    _KNOWN.setdefault(key, Known(found, place, at, centred=bool(found.centred)))
    return f"{name}{_BETWEEN}{key}"


def is_known(of: str) -> bool:
    """Whether the dictionary that nodes carry was made known in this process."""
    return of.rpartition(_BETWEEN)[2] in _KNOWN


def settle(of: str, gained: bool, centred: bool) -> None:
    """Say how the hook of a dictionary is read."""
    key = of.rpartition(_BETWEEN)[2]
    _KNOWN[key] = replace(known(of), gained=gained, centred=centred)


def known(of: str) -> Known:
    """The dictionary that nodes carry; raises `DictionaryError` where it was not made known in this process."""
    try:
        return _KNOWN[of.rpartition(_BETWEEN)[2]]
    except KeyError:
        raise DictionaryError(f"the dictionary {name_of(of)} is not known in this process") from None


def name_of(of: str) -> str:
    """The name that a spec gives a dictionary."""
    return of.partition(_BETWEEN)[0]
