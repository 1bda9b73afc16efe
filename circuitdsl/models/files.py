"""Which files a model's weights are in. The files that are hashed for the report are the very ones that are loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from circuitdsl.circuit.shapes import MOST_LAYERS, too_deep
from circuitdsl.models.errors import ModelUnavailable, UnsupportedModel, first_line

MODEL_FILES = "a directory that holds config.json, model.safetensors and tokenizer.json"
MODEL_HINT = f"point --model at {MODEL_FILES}"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
#: keys of config.json by which transformers reads other files, or makes other weights of those it reads
_OTHER_WEIGHTS = ("transformers_weights", "configuration_files", "quantization_config", "fusion_config")
#: files that transformers reads in the place of `WEIGHTS`, or besides
_OTHER_FILES = re.compile(r"adapter_config\.json|shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")

#: of each file what changes when it is written, replaced or removed
Stamps = dict[Path, tuple[int, ...] | None]


def check_files(directory: Path) -> None:
    """Check that the weights in a directory can be read, and that no other weights than these would be loaded.

    Raises:
        ModelUnavailable: a file is missing or does not say what it should, or weights lie elsewhere.
        UnsupportedModel: transformers would load other weights than those that are hashed.
    """
    try:
        names = sorted(file.name for file in directory.iterdir())
    except OSError as error:
        raise ModelUnavailable(f"the model directory {directory} cannot be read: {error.strerror}") from None
    if other := next(filter(_OTHER_FILES.fullmatch, names), None):
        raise UnsupportedModel(
            f"{directory} holds {other}, from which transformers would take weights that stand in no hash of ours",
            f"save the whole model with transformers' save_pretrained (an adapter merged into it), or remove {other}",
        )
    check_configuration(directory)
    if weight_files(directory):
        return
    if pickled := next((name for name in names if name.endswith((".bin", ".pt", ".pth", ".h5"))), None):
        raise ModelUnavailable(
            f"{directory} has its weights in {pickled}, which can hold code; only safetensors are read",
            "convert them with transformers' save_pretrained, which writes model.safetensors",
        )
    raise ModelUnavailable(f"{directory} has no {WEIGHTS}", MODEL_HINT)


def check_configuration(directory: Path) -> None:
    """Check what of a configuration decides which files are read, and how much memory they take.

    A model is made before its weights are read: a typing error here could take all of the memory.

    Raises:
        ModelUnavailable: there is no configuration, or it has more layers than any model has.
        UnsupportedModel: by it, transformers would load other weights than those that are hashed.
    """
    config = directory / "config.json"
    if not config.is_file():
        message = f"{directory} has no config.json, so it is not a model in Hugging Face's layout"
        raise ModelUnavailable(message, MODEL_HINT)
    given = read_json(config)
    for key in ("num_hidden_layers", "n_layer"):
        if isinstance(given.get(key), int) and given[key] > MOST_LAYERS:
            raise ModelUnavailable(too_deep(config, given[key]))
    for key in _OTHER_WEIGHTS:
        if given.get(key) is not None:
            raise UnsupportedModel(
                f"{config} has {key}, by which transformers would load other weights than those of {WEIGHTS}",
                f"save the model as it is to be measured with transformers' save_pretrained, or remove {key}",
            )


def weight_files(directory: Path) -> list[Path]:
    """The safetensors of a model's directory: one file or, where there is none, the shards that the index names.

    Raises:
        ModelUnavailable: the index is broken, or names a file outside the directory.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    index = directory / INDEX
    if not index.is_file():
        return []
    shards = read_json(index).get("weight_map", {})
    if not isinstance(shards, dict) or not all(isinstance(name, str) and name for name in shards.values()):
        raise ModelUnavailable(f"{index} does not say which file holds each tensor")
    return [_shard(index, name) for name in sorted(set(shards.values()))]


def _shard(index: Path, name: str) -> Path:
    """A file that an index names: one in the directory itself, or in the hub's cache of files that it links to."""
    file, home = index.parent / name, index.parent.resolve()
    plain = Path(name).name == name and name.endswith(".safetensors")
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not plain or (file.is_symlink() and file.resolve().parent not in homes):
        raise ModelUnavailable(
            f"{index} names {name!r}, which is not a safetensors file in that directory itself",
            "put all shards beside the index, and name them there without a folder",
        )
    return file


def weights_sha256(directory: Path) -> str:
    """SHA-256 of the weights: of `model.safetensors`, or of the list of its shards' own digests."""
    return one_sha256({file.name: file_sha256(file) for file in weight_files(directory)})


def file_sha256(file: Path) -> str:
    """SHA-256 of what a file holds; raises `ModelUnavailable` where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailable(f"{file} cannot be read: {error.strerror}", MODEL_HINT) from None


def one_sha256(digests: Mapping[str, str]) -> str:
    """The digest of a single file, or that of a list of files' digests by their names."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()).hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object in a file.

    Raises:
        ModelUnavailable: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnavailable(f"{file} cannot be read: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise ModelUnavailable(f"{file} is not a JSON object")
    return content


def stamps(files: Iterable[Path]) -> Stamps:
    """When each file was changed last, its size, and which file it is; None for one that is not there."""
    found: Stamps = {}
    for path in files:
        try:
            seen = path.stat()
            found[path] = seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino
        except OSError:
            found[path] = None
    return found
