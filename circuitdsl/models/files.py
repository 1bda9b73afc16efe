"""Which files a model is read from. The files that are hashed for the report are the very ones that are read.

They are chosen here, by their names, and lie in the model's directory itself. The small ones are read once: what is
hashed is what is used. Weights are larger than that: they are looked at before they are hashed and after they are read.
Transformers is given tensors, and a folder with copies of the configuration and of the tokenizer's files
(`ModelFiles.copied`). It finds no other file, whatever these name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from circuitdsl.circuit.shapes import CONFIG, CONFIG_BYTES, out_of_range
from circuitdsl.errors import UserError
from circuitdsl.models.errors import ModelUnavailable, UnsupportedModel, first_line
from circuitdsl.ordinary import Unreadable, opened, read_ordinary, write_whole

T = TypeVar("T")
MODEL_FILES = "a directory that holds config.json, model.safetensors and tokenizer.json"
MODEL_HINT = f"point --model at {MODEL_FILES}"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
#: files that a tokenizer is read from
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja",
)  # fmt: skip
#: bytes that are read of an index of shards, and of one of a tokenizer's files, at the most
INDEX_BYTES, TOKENIZER_BYTES = 16 * 2**20, 64 * 2**20
#: keys of config.json by which transformers reads other files, or makes other weights of those it reads
_OTHER_WEIGHTS = ("transformers_weights", "configuration_files", "quantization_config", "fusion_config")
#: keys of a configuration that name code, a kernel or a file; transformers does not see them
_IGNORED = re.compile(r"auto_map|trust_remote_code|_?(attn|experts)_implementation\w*|\w+_files?")
#: files that transformers reads in the place of `WEIGHTS`, or besides
_OTHER_FILES = re.compile(r"adapter_config\.json|shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
#: bytes of a file from which on its hash is kept
LARGE = 10**8
#: after so many nanoseconds another change of a file changes its times as well, on any file system
_TELLS = 3 * 10**9

#: of each file what changes when it is written, replaced or removed
Stamps = dict[Path, tuple[int, ...] | None]


@dataclass(frozen=True, eq=False)
class ModelFiles:
    """The files that a model is read from, as they were when this was made.

    Attributes:
        contents: of the configuration, the index of shards and the tokenizer's files, by name.
        weights: the safetensors, in the order of their names.
        before: when these were changed last.
        recently: whether that is so short ago that another change might not show.
        known: a folder in which the hashes of large files are kept, under what changes when such a file does.
    """

    directory: Path
    contents: Mapping[str, bytes]
    weights: tuple[Path, ...]
    before: Stamps
    recently: bool
    known: Path | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """What config.json says, without keys that name code, kernels or files.

        Raises:
            ModelUnavailable: there is none, it is no JSON object, or a number in it is beyond those of any model.
            UnsupportedModel: by it, transformers would load other weights than those that are hashed.
        """
        return _clean(_configuration(self.directory, self.contents))

    @property
    def n_vocab(self) -> int | None:
        """How many tokens the model has; None where its configuration does not say."""
        inner = self.config.get("text_config")
        found = [each.get("vocab_size") for each in (self.config, inner) if isinstance(each, dict)]
        return next((size for size in found if isinstance(size, int)), None)

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every file, by its name."""
        small = {name: hashlib.sha256(content).hexdigest() for name, content in self.contents.items()}
        return small | {file.name: self._sha256(file) for file in self.weights}

    def _sha256(self, file: Path) -> str:
        """SHA-256 of a file; that of a large one, which takes seconds, is worked out once."""
        seen = self.before[file]
        if self.known is None or self.recently or seen is None or seen[2] < LARGE:
            return _file_sha256(file)
        place = f"{os.path.realpath(file)} {seen}".encode(errors="surrogateescape")
        kept = self.known / hashlib.blake2b(place, digest_size=16).hexdigest()
        with suppress(Unreadable, OSError, ValueError):
            found, check = read_ordinary(kept, 200).decode().split()
            if check == _check(kept.name, found):
                return found
        found = _file_sha256(file)
        if stamps([file])[file] == seen:
            with suppress(OSError, UserError):
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_whole(kept, f"{found} {_check(kept.name, found)}\n")
        return found

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What a report says of the files: SHA-256 of the weights, the configuration and the tokenizer, "" for none."""
        kinds = {
            "sha256": [file.name for file in self.weights],
            "config_sha256": [CONFIG],
            "tokenizer_sha256": TOKENIZER,
        }
        known = self.digests
        return {
            kind: one_sha256({name: known[name] for name in names if name in known}) for kind, names in kinds.items()
        }

    def unchanged(self, read: Callable[[], T]) -> T:
        """What is read of the weights, which may be long after they were hashed.

        Raises:
            ModelUnavailable: they have changed since.
        """
        known = self.digests
        try:
            return read()
        finally:
            changed = stamps(self.weights) != self.before
            if changed or (self.recently and any(_file_sha256(file) != known[file.name] for file in self.weights)):
                raise ModelUnavailable(
                    f"the files in {self.directory} have changed since they were looked at, so that numbers would be "
                    "taken for another model's",
                    "run this again",
                ) from None

    @contextmanager
    def copied(self) -> Iterator[Path]:
        """A folder with copies of the configuration and of the tokenizer's files, for transformers to read."""
        with TemporaryDirectory(prefix="circuitdsl-") as name:
            folder = Path(name)
            for file in {CONFIG, *TOKENIZER} & set(self.contents):
                content = self.contents[file]
                if file == CONFIG:
                    content = json.dumps(self.config).encode()
                elif file == "tokenizer_config.json":
                    content = json.dumps(_clean(_object(self.directory / file, content))).encode()
                (folder / file).write_bytes(content)
            yield folder


def files_of(directory: Path, weights: bool = True) -> ModelFiles:
    """The files of a model's directory.

    Args:
        weights: they are needed. Otherwise there may be any of them or none, and they are not looked at.

    Raises:
        ModelUnavailable: a file is missing, is no ordinary file or too large, or lies elsewhere.
        UnsupportedModel: transformers would load other weights than those that are hashed.
    """
    names = _names(directory)
    wanted = dict.fromkeys(TOKENIZER, TOKENIZER_BYTES) | {CONFIG: CONFIG_BYTES}
    if weights and WEIGHTS not in names:
        wanted[INDEX] = INDEX_BYTES
    contents = {name: _content(directory / name, limit) for name, limit in wanted.items() if name in names}
    if weights:
        _configuration(directory, contents)
        _check_weights(directory, names)
    files = _weights(directory, names, contents.get(INDEX, b"")) if weights else ()
    before = stamps(files)
    times = [max(seen[:2]) for seen in before.values() if seen]
    recently = max(times, default=0) > time.time_ns() - _TELLS
    return ModelFiles(directory, contents, files, before, recently)


def _names(directory: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))
    except OSError as error:
        raise ModelUnavailable(f"the model directory {directory} cannot be read: {error.strerror}") from None


def _configuration(directory: Path, contents: Mapping[str, bytes]) -> dict[str, Any]:
    """What config.json says, once that can be.

    A model is made before its weights are read: a typing error here could take all of the memory.
    """
    file = directory / CONFIG
    if CONFIG not in contents:
        message = f"{directory} has no {CONFIG}, so it is not a model in Hugging Face's layout"
        raise ModelUnavailable(message, MODEL_HINT)
    given = _object(file, contents[CONFIG])
    if wrong := out_of_range(given):
        raise ModelUnavailable(f"{file} {wrong}", "put the model's own config.json there")
    for key in _OTHER_WEIGHTS:
        if any(part.get(key) is not None for part in _objects(given)):
            raise UnsupportedModel(
                f"{file} has {key}, by which transformers would load other weights than those of {WEIGHTS}",
                f"save the model as it is to be measured with transformers' save_pretrained, or remove {key}",
            )
    return given


def _check_weights(directory: Path, names: frozenset[str]) -> None:
    """Raise where there are no safetensors, or others that transformers would read as well."""
    if other := min(filter(_OTHER_FILES.fullmatch, names), default=None):
        raise UnsupportedModel(
            f"{directory} holds {other}, from which transformers would take weights that stand in no hash of ours",
            f"save the whole model with transformers' save_pretrained (an adapter merged into it), or remove {other}",
        )
    if names & {WEIGHTS, INDEX}:
        return
    if pickled := min((name for name in names if name.endswith((".bin", ".pt", ".pth", ".h5"))), default=None):
        raise ModelUnavailable(
            f"{directory} has its weights in {pickled}, which can hold code; only safetensors are read",
            "convert them with transformers' save_pretrained, which writes model.safetensors",
        )
    raise ModelUnavailable(f"{directory} has no {WEIGHTS}", MODEL_HINT)


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The safetensors of a model's directory; raises `ModelUnavailable` as `files_of` does."""
    names = _names(directory)
    alone = WEIGHTS in names or INDEX not in names
    return _weights(directory, names, b"" if alone else _content(directory / INDEX, INDEX_BYTES))


def _weights(directory: Path, names: frozenset[str], content: bytes) -> tuple[Path, ...]:
    """The one file of the weights or, where there is none, the shards that the index names."""
    index = directory / INDEX
    if WEIGHTS in names:
        return (_own(directory / WEIGHTS),)
    if INDEX not in names:
        return ()
    shards = _object(index, content).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(n, str) and n for n in shards.values()):
        raise ModelUnavailable(f"{index} does not say which file holds each tensor")
    for name in sorted(set(shards.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelUnavailable(
                f"{index} names {name!r}, which is not a safetensors file in that directory itself",
                "put all shards beside the index, and name them there without a folder",
            )
    return tuple(_own(directory / name) for name in sorted(set(shards.values())))


def is_own(file: Path) -> bool:
    """Whether a file or folder lies in its directory: a link may lead to another file there.

    A link of the hub's cache may lead to the files that the cache keeps of the same model. Pipes and devices are none.
    """
    return not _elsewhere(file) and (file.is_file() or file.is_dir())


def _elsewhere(file: Path) -> Path | None:
    """The directory that a link leads to, where that is another one."""
    if not file.is_symlink():
        return None
    home, lies = file.parent.resolve(), Path(os.path.realpath(file)).parent
    of_hub = home.parent.name == "snapshots" and lies == home.parent.parent / "blobs"
    return None if lies == home or of_hub else lies


def _own(file: Path) -> Path:
    """A file, once it lies in its directory; raises `ModelUnavailable` where it does not, or is no ordinary one."""
    if lies := _elsewhere(file):
        raise ModelUnavailable(
            f"{file} is a link to a file in {lies}, which is not the model's directory",
            "copy the file itself into the model's directory",
        )
    with _reading(file), opened(file):
        return file


def _content(file: Path, limit: int) -> bytes:
    with _reading(file):
        return read_ordinary(_own(file), limit)


def _check(name: str, digest: str) -> str:
    """By which a damaged file of a digest is known."""
    return hashlib.blake2b(f"{name} {digest}".encode(), digest_size=16).hexdigest()


def _file_sha256(file: Path) -> str:
    with _reading(file), opened(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (Unreadable, OSError) as error:
        raise ModelUnavailable(f"{file} cannot be read: {first_line(error)}", MODEL_HINT) from None


def one_sha256(digests: Mapping[str, str]) -> str:
    """The digest of a single file, or that of a list of files' digests by their names; "" for none."""
    if len(digests) <= 1:
        return next(iter(digests.values()), "")
    return hashlib.sha256("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()).hexdigest()


def _object(file: Path, content: bytes) -> dict[str, Any]:
    """The JSON object in a file; raises `ModelUnavailable` where it holds something else."""
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelUnavailable(f"{file} cannot be read: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise ModelUnavailable(f"{file} is not a JSON object")
    return found


def _objects(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A JSON object, and all objects that are values in it."""
    yield given
    for each in given.values():
        if isinstance(each, dict):
            yield from _objects(each)


def _clean(given: dict[str, Any]) -> dict[str, Any]:
    """A configuration without keys that name code, kernels or files."""
    return {
        key: _clean(value) if isinstance(value, dict) and key.endswith("_config") else value
        for key, value in given.items()
        if not _IGNORED.fullmatch(key)
    }


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
