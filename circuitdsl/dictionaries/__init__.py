"""Dictionaries of features, read without the libraries that wrote them: one file a format, and one list of them."""

from __future__ import annotations

import os
from pathlib import Path

from circuitdsl.brief import quoted
from circuitdsl.dictionaries import circuit_tracer, cross_layer, gemma_scope, saelens
from circuitdsl.dictionaries.hub import in_hub_cache
from circuitdsl.dictionaries.record import Dictionary, DictionaryError, Hook, checked
from circuitdsl.dictionaries.tensors import refuse_pickle

#: modules whose `read(path, name, at)` gives the dictionaries of a path, or none where it is of another format
FORMATS = (saelens, circuit_tracer, cross_layer, gemma_scope)
#: the folder that shipped dictionaries are named from: `pocket/transcoders/1`
SHIPPED = Path(__file__).parent.parent / "models"
#: dictionaries of a folder that a message names
_NAMED = 12


def is_shipped(name: str) -> bool:
    """Whether a name is that of a dictionary that comes with the package."""
    return name.startswith("pocket/") and ".." not in Path(name).parts and os.path.exists(SHIPPED / name)


def place_of(name: str, beside: Path | None = None) -> Path:
    """The file or directory that a dictionary's name means: a shipped one, a path, or one in the hub's cache.

    Args:
        beside: the folder of the spec that names it, in which paths may start.

    Raises:
        DictionaryError: there is none.
    """
    try:
        here = Path(name).expanduser()
        if is_shipped(name):
            return SHIPPED / name
        for path in ([beside / here] if beside else []) + [here]:
            if path.exists():
                return path
    except (OSError, ValueError, RuntimeError):
        raise DictionaryError(f"{quoted(repr(name))} is no usable path") from None
    if name.startswith((".", "/", "~", "pocket/")) or "/" not in name:
        raise DictionaryError(f"there is no dictionary {quoted(name)}", hint=f"shipped are {', '.join(shipped())}")
    return in_hub_cache(name)


def shipped() -> list[str]:
    """The names of the dictionaries that come with the package."""
    return [file.parent.relative_to(SHIPPED).as_posix() for file in sorted(SHIPPED.rglob(saelens.CONFIG))]


def read_dictionaries(name: str, at: Hook | None = None, beside: Path | None = None) -> tuple[Dictionary, ...]:
    """The dictionaries that a name means: one, or those of a set.

    Args:
        at: what it writes, where its files do not say so, or say something else.

    Raises:
        DictionaryError: there is none, or it cannot be read.
    """
    path = place_of(name, beside)
    if path.is_file():
        refuse_pickle(path)
    for form in FORMATS:
        if found := form.read(path, name, at):
            return tuple(checked(each) for each in found)
    if not path.is_dir():
        raise DictionaryError(f"{path} is no dictionary that is read", hint=_READ)
    if inside := _inside(path):
        more = f" and {len(inside) - _NAMED} more" if len(inside) > _NAMED else ""
        hint = f"name one: {', '.join(inside[:_NAMED])}{more}"
        raise DictionaryError(f"{path} holds several dictionaries", hint=hint)
    for file in sorted(path.iterdir()):
        if file.is_file():
            refuse_pickle(file)
    raise DictionaryError(f"{path} holds no dictionary that is read", hint=_READ)


#: folders in folders that are looked through for dictionaries
_DEEPEST = 2
_READ = "SAELens' cfg.json, circuit-tracer's config.yaml, W_enc_0.safetensors, and Gemma Scope's params.npz are"


def read_set(name: str) -> tuple[Dictionary, ...]:
    """The dictionaries that a name means, or those in the folders below it; raises what `read_dictionaries` raises."""
    path = place_of(name)
    inside = _inside(path) if path.is_dir() and not (path / saelens.CONFIG).exists() else []
    names = [f"{name.rstrip('/')}/{each}" for each in inside] or [name]
    return tuple(found for each in names for found in read_dictionaries(each))


def _inside(path: Path) -> list[str]:
    """The folders below one that hold a dictionary each."""
    below = (path.glob("*/" * depth + saelens.CONFIG) for depth in range(1, _DEEPEST + 1))
    return [file.parent.relative_to(path).as_posix() for files in below for file in sorted(files)]


def read_dictionary(name: str, at: Hook | None = None, beside: Path | None = None) -> Dictionary:
    """The one dictionary that a name means; raises `DictionaryError` where it means several, or none."""
    found = read_dictionaries(name, at, beside)
    if len(found) > 1:
        many = f"{name} holds a dictionary for each of {len(found)} layers"
        raise DictionaryError(many, hint=f"name one: {found[0].name}")
    return found[0]
