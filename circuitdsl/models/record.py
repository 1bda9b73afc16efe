"""What is remembered of a model that was loaded and checked once, so that it opens without transformers.

Importing transformers takes seconds. What it says of a model is small: the configuration with the defaults of its
family, the rotary frequencies, the tokenizer as it was set up, and that the model computes what our view of it does.
A record keeps that in one file beside the cached numbers. It is found under a hash of everything that it depends on:
the model's files, the number format, the versions of the libraries, our code and the machine.

A model that comes with the package ships with such a record, and with logits that transformers computed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from hashlib import blake2b, sha256
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from circuitdsl.circuit.shapes import EMBEDDED
from circuitdsl.errors import UserError
from circuitdsl.installed import version
from circuitdsl.models.files import TOKENIZER_BYTES, ModelFiles, files_of, one_sha256, weight_files
from circuitdsl.models.load import (
    Notes,
    dtype_name,
    exactly,
    locate,
    read_whole,
    readable,
)
from circuitdsl.models.model import SIZES, Model, device_name, machine, map_of, torch_threads
from circuitdsl.models.pretrained import stored_tensors
from circuitdsl.models.tokenizers import KnownTokenizer, TokenizerNotes, notes_of
from circuitdsl.ordinary import Unreadable, read_ordinary, write_whole
from circuitdsl.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

    from circuitdsl.models.original import Original
    from circuitdsl.models.parts import Rotary, Transformer

#: in the directory of a model that comes with the package: its record, and logits as transformers computes them
SHIPPED, LOGITS = "record", "record/logits.safetensors"
#: folders of the package whose code makes numbers; tasks draw the prompts that means are taken over
_CODE = ("engine", "measurements", "models", "tasks", "verify")
#: bytes of a record, at the most; the tokenizer's text is most of them
RECORD_BYTES = 2 * TOKENIZER_BYTES
#: numbers of a weight that are compared at once with those in its file
AT_ONCE = 2**22
_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


@dataclass(frozen=True)
class Record:
    """What is remembered of a model. All of it is text and numbers.

    Attributes:
        sizes: what `Model` says of its size.
        config: what the family asks of the configuration, as far as that has it.
        rotary: rotary frequencies by kind of layer, with their scaling.
        tensors: the name that each parameter has in the files of the weights.
        tokenizer: None for a model without one.
        digest, library: as `Model` has them.
        products: as `Model` has them, of the machine that made the record.
        threads: torch's own number of threads there; 0 where it is not known.
        window: as `Original` has it.
    """

    sizes: dict[str, Any]
    config: dict[str, Any]
    rotary: dict[str, tuple[list[float], float]]
    tensors: dict[str, str]
    tokenizer: TokenizerNotes | None
    digest: str
    library: str
    products: str
    threads: int
    window: int


def open_model(
    name_or_dir: str | Path,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    folder: Path | None = None,
    name: str = "",
    device_map: str | None = None,
) -> Model:
    """A model that was loaded and checked, now or earlier.

    Args:
        folder: where records are kept; None keeps none.
        name: what it is called, where that is not its place.
        device_map: as `load_model` has it.

    Raises:
        UserError: what `load_model` raises.
    """
    name, files = name or str(name_or_dir), _knowing(files_of(locate(name_or_dir, revision)), folder)
    own = "torch" not in sys.modules  # a program that has imported torch may have set its number of threads
    where, kind = device_name(str(device), device_map), dtype_name(dtype)
    file = _record_of(files, where, kind, folder)
    if file and (known := _read(file)):
        if own and not known.threads:
            known = replace(known, threads=torch_threads())
            _keep(file, known)
        return _recalled(name, files, where, kind, known)
    if _has_logits(files, kind) and not map_of(where) and (shipped := _read(shipped_for(files))):
        view = files.unchanged(partial(_view, name, files, where, kind, shipped))
        import_module("circuitdsl.models.agreement").check_sum(view, view.original)
        made = Model.of(view, _hash(files, kind))
        record: Record | None = replace(shipped, products=made.products, digest=made.digest.hex())
    else:
        view, notes = read_whole(name, files, where, kind)
        made = Model.of(view, _hash(files, kind), where if map_of(where) else "")
        record = files.unchanged(partial(record_of, made, notes, files)) if file and notes else None
    if file and record:
        _keep(file, replace(record, threads=made.threads if own else 0))
    return made


def remembered(
    name_or_dir: str | Path,
    device: str,
    dtype: str,
    revision: str | None,
    folder: Path,
    name: str,
    device_map: str | None = None,
) -> Model | None:
    """The model that `open_model` gives, where that has a record of it; nothing is loaded, and no weights are fetched.

    Raises:
        UserError: there is no such model, device or number format.
    """
    directory = locate(name_or_dir, revision, weights=False)
    if not (folder / "models").is_dir() or not weight_files(directory):
        return None
    where, kind, files = device_name(str(device), device_map), dtype_name(dtype), _knowing(files_of(directory), folder)
    file = _record_of(files, where, kind, folder)
    known = _read(file) if file else None
    return _recalled(name, files, where, kind, known) if known else None


def outline_of(source: Model | None, name_or_dir: str | Path, dtype: str, revision: str | None) -> Transformer:
    """What `outline.outline` gives, without transformers of a model that ships with a record, or is remembered.

    Args:
        source: the model, if it is remembered.

    Raises:
        UserError: what `outline.outline` raises.
    """
    if source and source.shapes:
        return source.shapes()
    if (place := locate(name_or_dir, revision, weights=False)) in EMBEDDED.values():
        files = files_of(place)
        if shipped := _read(shipped_for(files)):
            return _shapes(str(name_or_dir), files, dtype_name(dtype), shipped)
    from circuitdsl.models.outline import outline

    return outline(name_or_dir, dtype, revision)


def _knowing(files: ModelFiles, folder: Path | None) -> ModelFiles:
    """Files whose hashes are kept beside the records."""
    return replace(files, known=folder and folder / "weights")


def _record_of(files: ModelFiles, device: str, dtype: str, folder: Path | None) -> Path | None:
    return folder / "models" / f"{_hash(files, device, dtype, machine()).hex()}.json" if folder else None


def record_of(model: Model, notes: Notes, files: ModelFiles) -> Record | None:
    """What to remember of a model; None where it could not be read again without transformers."""
    tensors, original = _tensors(notes, files), model.parts.original
    tokenizer = None if model.tokenizer is None else notes_of(model.tokenizer, files)
    if tensors is None or original is None or json.loads(json.dumps(notes.config)) != notes.config:
        return None
    if model.tokenizer is not None and tokenizer is None:
        return None
    return Record(
        sizes={name: getattr(model, name) for name in SIZES},
        config=notes.config,
        rotary={kind: (each.inv_freq.tolist(), each.scaling) for kind, each in notes.rotary.items()},
        tensors=tensors,
        tokenizer=tokenizer,
        digest=model.digest.hex(),
        library=original.digest.hex(),
        products=model.products,
        threads=0,
        window=original.window,
    )


# --- reading without transformers ------------------------------------------------------------------


def _recalled(name: str, files: ModelFiles, device: str, dtype: str, record: Record) -> Model:
    """A model whose tensors are read when they are needed."""
    view, whole = partial(_view, name, files, device, dtype, record), lambda: read_whole(name, files, device, dtype)[0]
    return Model(
        **record.sizes,
        **cast("dict[str, Any]", files.hashes),
        name=name,
        device=device,
        dtype=dtype,
        digest=bytes.fromhex(record.digest),
        library=bytes.fromhex(record.library),
        products=record.products,
        threads=torch_threads() if "torch" in sys.modules else record.threads,
        tokenizer=_tokenizer(files, record),
        # of a model over several GPUs, transformers works out what lies where
        read=whole if map_of(device) else partial(files.unchanged, view),
        whole=None if _has_logits(files, dtype) else whole,
        shapes=partial(_shapes, name, files, dtype, record),
    )


def _has_logits(files: ModelFiles, dtype: str) -> bool:
    """Whether the model's own logits ship with it."""
    return files.directory in EMBEDDED.values() and dtype == "float32"


def _view(name: str, files: ModelFiles, device: str, dtype: str, record: Record) -> Transformer:
    """The view of a model, read from its files."""
    import torch
    from safetensors.torch import load_file

    from circuitdsl.models.original import Original
    from circuitdsl.models.parts import Rotary

    exactly()
    held, kind = stored_tensors(files), getattr(torch, dtype)
    ready = {stored: held[stored][...].to(device, kind) for stored in set(record.tensors.values())}
    rotary = {
        which: Rotary(torch.tensor(numbers, dtype=torch.float32, device=device), scaling)
        for which, (numbers, scaling) in record.rotary.items()
    }

    def whole() -> Any:
        found = read_whole(name, files, device, dtype)[0].original
        assert found is not None
        return found.module

    known = load_file(files.directory / LOGITS, backend="pread") if _has_logits(files, dtype) else {}
    original = Original(name, whole, bytes.fromhex(record.library), kind, record.window, known)
    return _read_parts(name, files, record, ready, rotary, original)


def _shapes(name: str, files: ModelFiles, dtype: str, record: Record) -> Transformer:
    """The view of a model without its weights: its tensors lie on the `meta` device."""
    import torch

    held, kind = stored_tensors(files), getattr(torch, dtype)
    names = set(record.tensors.values())
    empty = {name: torch.empty(held[name].get_shape(), dtype=kind, device="meta") for name in names}
    return _read_parts(name, files, record, empty, {})


def _read_parts(
    name: str,
    files: ModelFiles,
    record: Record,
    stored: Mapping[str, Tensor],
    rotary: Mapping[str, Rotary],
    original: Original | None = None,
) -> Transformer:
    """The view of a model of a record, from its tensors by the names that they have in its files."""
    from circuitdsl.models.families import read_parts

    named, config = {key: stored[own] for key, own in record.tensors.items()}, SimpleNamespace(**record.config)
    with readable(name, record.config["model_type"]):
        return read_parts(name, config, named, rotary, _tokenizer(files, record), original, files.hashes)


def _tokenizer(files: ModelFiles, record: Record) -> Any:
    return record.tokenizer and KnownTokenizer(record.tokenizer, files)


def _tensors(notes: Notes, files: ModelFiles) -> dict[str, str] | None:
    """The name that each parameter has in the files; None where one does not stand there as it is."""
    held, found = stored_tensors(files), dict(notes.as_read)
    for key, value in notes.weights.items():
        if key in found:
            continue
        alike = [stored for stored, tensor in held.items() if tensor.get_shape() == list(value.shape)]
        ends = [stored for stored in alike if f".{key}".endswith(f".{stored}") or stored.endswith(f".{key}")]
        same = (s for s in (*ends, *(s for s in alike if s not in ends)) if _same(held[s][...], value))
        if (stored := next(same, None)) is None:
            return None
        found[key] = stored
    return found


def _same(stored: Any, value: Any) -> bool:
    """Whether a stored tensor holds the numbers of a weight; they are compared a part at a time."""
    parts = zip(stored.flatten().split(AT_ONCE), value.flatten().split(AT_ONCE), strict=True)
    return all(bool((one.to(other.device, other.dtype) == other).all()) for one, other in parts)


# --- where a record is -----------------------------------------------------------------------------


def shipped_for(files: ModelFiles) -> Path:
    """Where the record is that ships with these files."""
    return files.directory / SHIPPED / f"{one_sha256(files.digests)}.json"


def _hash(files: ModelFiles, *more: str) -> bytes:
    """What a record depends on."""
    text = json.dumps([sorted(files.digests.items()), more, [version(name) for name in _LIBRARIES]])
    return blake2b(text.encode() + code_digest(), digest_size=16).digest()


@cache
def code_digest() -> bytes:
    """A hash of the code that makes numbers."""
    root = Path(__file__).parent.parent
    files = sorted(file for folder in _CODE for file in (root / folder).rglob("*.py"))
    made = sha256(__version__.encode())
    for file in files:
        made.update(file.read_bytes())
    return made.digest()


def _read(file: Path) -> Record | None:
    """A record; None where there is none, or not as it was written there."""
    try:
        given = json.loads(read_ordinary(file, RECORD_BYTES).decode("utf-8"))
        if given.pop("sum") != _sum(file, given):
            return None
        tokenizer = given.pop("tokenizer")
        return Record(**given, tokenizer=tokenizer and TokenizerNotes(**tokenizer))
    except (Unreadable, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def text_of(file: Path, record: Record) -> str:
    """A record as it is written in a file, with a checksum of it and of the file's name."""
    given = json.loads(json.dumps(asdict(record)))
    return json.dumps({"sum": _sum(file, given), **given}, indent=1) + "\n"


def _sum(file: Path, given: Mapping[str, Any]) -> str:
    text = f"{file.name}\n{json.dumps(given, sort_keys=True)}"
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _keep(file: Path, record: Record) -> None:
    """Write a record, whole or not at all. One that cannot be written is made again next time."""
    with suppress(OSError, UserError):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file() or not file.exists():
            write_whole(file, text_of(file, record))
