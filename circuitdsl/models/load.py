"""Load a model with transformers and see it as terms of one residual stream.

A model is a directory in Hugging Face's layout, a name on the Hugging Face hub, or the name of one that ships with
this package (`EMBEDDED`). A directory never asks the network. Weights are read from safetensors only, and no code
that came with a model is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitdsl.brief import quoted
from circuitdsl.circuit.shapes import EMBEDDED
from circuitdsl.errors import out_of_memory
from circuitdsl.language.diagnostics import shorten
from circuitdsl.models.errors import BrokenWeights, ModelUnavailable, UnsupportedModel, first_line
from circuitdsl.models.files import INDEX, MODEL_HINT, WEIGHTS, ModelFiles, files_of, weight_files
from circuitdsl.models.model import device_name, map_of
from circuitdsl.models.pretrained import pretrained
from circuitdsl.models.tokenizers import quiet_and_offline, read_tokenizer

if TYPE_CHECKING:
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    from circuitdsl.models.parts import Rotary, Transformer

POCKET = EMBEDDED["pocket"]
DTYPES = ("float32", "bfloat16", "float16")
WANTED = ["*.json", "*.safetensors", "merges.txt", "vocab.txt", "*.model", "*.jinja"]
UNWANTED = ["*/*", "consolidated*", "training_args*"]


@dataclass(frozen=True, slots=True)
class Available:
    """A model that can be loaded without a download."""

    name: str
    path: Path
    where: str
    size: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Notes:
    """What reading a model has found out, so that it can be read again without transformers.

    Attributes:
        config: what the family asked of the configuration, as far as that has it.
        rotary: the rotary frequencies by kind of layer, with their scaling.
        weights: the parameters by their published names.
        as_read: those that are a tensor of the files as it is, with the tensor's name.
    """

    config: dict[str, Any]
    rotary: dict[str, Rotary]
    weights: dict[str, torch.Tensor]
    as_read: dict[str, str]


class Noted:
    """A configuration that notes what is asked of it."""

    def __init__(self, config: Any, notes: dict[str, Any]) -> None:
        self._config, self._notes = config, notes

    def __getattr__(self, name: str) -> Any:
        found = self._notes[name] = getattr(self._config, name)
        return found


def load_model(
    name_or_dir: str | Path | TransformerBridge,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    device_map: str | None = None,
) -> Transformer:
    """Load a model and check on random tokens that its residual stream is the sum of its terms (`agreement.check_sum`).

    Args:
        name_or_dir: `pocket` or `pocket-deep`, a directory, a name on the Hugging Face hub, or a bridge of
            TransformerLens, whose weights are shared; it stays where it is, and as it is.
        device: `auto` (a CUDA device where there is one), `cpu`, or `cuda`.
        dtype: `float32`, `bfloat16` or `float16`, or what torch calls so. TF32 is off for all of them.
        revision: a branch, tag or commit on the hub.
        device_map: `balanced` or `auto`, for a model that lies on several GPUs, some layers on each.

    Raises:
        ModelUnavailable: the weights are not at hand or cannot be read.
        UnsupportedModel: the family is not known, the sum does not give the model's own logits, or transformers would
            load other weights than those that are hashed.
        BrokenWeights: weights are missing, or not finite.
    """
    if is_bridge(name_or_dir):
        from circuitdsl.models.bridge import view_of

        return view_of(name_or_dir, str(device), dtype_name(dtype))
    files = files_of(locate(name_or_dir, revision))
    return read_whole(str(name_or_dir), files, device_name(str(device), device_map), dtype_name(dtype))[0]


def is_bridge(model: Any) -> bool:
    """Whether a program has loaded a model with TransformerLens."""
    return type(model).__module__.startswith("transformer_lens.") and hasattr(model, "original_model")


def read_whole(name: str, files: ModelFiles, device: str, dtype: str) -> tuple[Transformer, Notes | None]:
    """A model as transformers loads it, and what was found out by it; raises what `load_model` raises.

    Nothing is noted of a model that is read through a bridge: without transformers it cannot be read again.
    """
    return files.unchanged(partial(_read_whole, name, files, device, dtype))


def _read_whole(name: str, files: ModelFiles, device: str, dtype: str) -> tuple[Transformer, Notes | None]:
    import torch

    from circuitdsl.models.agreement import check_sum
    from circuitdsl.models.families import FAMILIES, read_parts, refuse
    from circuitdsl.models.original import Original

    refuse(name, files.config.get("model_type"))  # before anything is read
    exactly()
    device_map = map_of(device)
    with quiet_and_offline():
        module, as_read = pretrained(files, getattr(torch, dtype), device_map)
        module = module.eval() if device_map else module.to(device_named(device)).eval()
    weights = {key: value.detach() for key, value in module.named_parameters(remove_duplicate=False)}
    for key, value in weights.items():
        if not all_finite(value):
            raise BrokenWeights(f"the tensor {key} in {files.directory} holds NaN or infinity")
    tokenizer = read_tokenizer(files)
    with readable(name, module.config.model_type):
        original = Original.of(name, module)
        own = module.config.model_type in FAMILIES
        notes = Notes({}, rotary_of(module), weights, as_read if device == "cpu" else {}) if own else None
        if notes:
            config = Noted(module.config, notes.config)
            view = read_parts(name, config, weights, notes.rotary, tokenizer, original, files.hashes)
        else:
            from circuitdsl.models.bridge import read_through_bridge

            view = read_through_bridge(name, module, tokenizer=tokenizer, original=original, **files.hashes)
        check_sum(view, original)
    return view, notes


def all_finite(numbers: torch.Tensor) -> bool:
    """Whether none of some numbers is NaN or infinite; a sum tells, and takes a twentieth of the time."""
    return bool(numbers.sum().isfinite()) or all(bool(some.isfinite().all()) for some in numbers.split(256))


def exactly() -> None:
    """Keep CUDA from rounding the factors of products."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def readable(name: str, kind: str) -> Iterator[None]:
    """Raise `UnsupportedModel` where a model is not made as its family is."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if out_of_memory(error):
            raise
        raise UnsupportedModel(f"{name} is not made as {kind} models are known to be: {first_line(error)}") from None


def dtype_name(dtype: str) -> str:
    """`float32`, `bfloat16` or `float16`; raises `ModelUnavailable` for another number format."""
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ModelUnavailable(f"dtype {name} is not known; use one of {', '.join(DTYPES)}")
    return name


def load_tokenizer(name_or_dir: str | Path, revision: str | None = None) -> Any:
    """The Hugging Face tokenizer of a model, without its weights.

    Raises:
        ModelUnavailable: there is none.
    """
    tokenizer = read_tokenizer(files_of(locate(name_or_dir, revision, weights=False), weights=False))
    if tokenizer is None:
        raise ModelUnavailable(f"{name_or_dir} has no tokenizer (no tokenizer.json, no vocab.json and merges.txt)")
    return tokenizer


def vocabulary_size(name_or_dir: str | Path, revision: str | None = None) -> int | None:
    """How many tokens a model has, as its configuration says; None where that does not say."""
    return files_of(locate(name_or_dir, revision, weights=False), weights=False).n_vocab


def available_models() -> list[Available]:
    """What can be loaded here without a download: what comes with circuitdsl, and what the hub's cache holds."""
    embedded = [(name, path) for name, path in EMBEDDED.items() if _has_weights(path)]
    found = [Available(name, path, "with circuitdsl", _size(path)) for name, path in embedded]
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return found
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        paths = [r.snapshot_path for r in repo.revisions if _has_weights(Path(r.snapshot_path))]
        if repo.repo_type == "model" and paths:
            found.append(Available(repo.repo_id, Path(paths[0]), "in the hub's cache", _size(Path(paths[0]))))
    return found


def locate(name_or_dir: str | Path, revision: str | None = None, weights: bool = True) -> Path:
    """The directory that holds a model's files; downloads them from the hub where that is needed and possible.

    Args:
        weights: they are needed.

    Raises:
        ModelUnavailable: with what was looked for, where, and what to do.
    """
    if not isinstance(name_or_dir, str | Path):
        raise ModelUnavailable(f"{name_or_dir!r} is neither a model's name nor its directory", MODEL_HINT)
    if own := EMBEDDED.get(str(name_or_dir)):
        if weights and not _has_weights(own):
            raise ModelUnavailable(f"the model {name_or_dir} is not in this installation (looked in {own})", MODEL_HINT)
        return own
    try:
        path = Path(name_or_dir).expanduser()
        there = path.exists()
    except (OSError, ValueError, RuntimeError):
        raise ModelUnavailable(f"{shorten(str(name_or_dir), 60)!r} is no usable path", MODEL_HINT) from None
    if not there and not str(name_or_dir).startswith((".", "/", "~")):
        return _from_hub(str(name_or_dir), revision, weights)
    if not path.is_dir():
        found = f"{path} is a file; a model is a directory"
        raise ModelUnavailable(found if there else f"there is no model directory {quoted(str(path))}", MODEL_HINT)
    return path


def _from_hub(name: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    def snapshot(local: bool) -> Path:
        patterns = WANTED if weights else [p for p in WANTED if p != "*.safetensors"]
        return Path(
            snapshot_download(
                name, revision=revision, local_files_only=local, allow_patterns=patterns, ignore_patterns=UNWANTED
            )
        )

    try:
        cached = snapshot(local=True)
        if not weights or (cached / WEIGHTS).is_file() or (cached / INDEX).is_file():
            return cached
    except HFValidationError:
        message = f"{quoted(repr(name))} is neither a directory nor a name on the Hugging Face hub"
        raise ModelUnavailable(message, MODEL_HINT) from None
    except LocalEntryNotFoundError:
        pass
    looked = f"the weights of {name} are not at hand: they are not in the hub's cache ({constants.HF_HUB_CACHE})"
    if constants.HF_HUB_OFFLINE:
        raise ModelUnavailable(f"{looked}, and HF_HUB_OFFLINE is set", MODEL_HINT)
    try:
        HfApi().model_info(name, revision=revision, timeout=10)  # snapshot_download would retry for a minute
        return snapshot(local=False)
    except RepositoryNotFoundError:
        raise ModelUnavailable(f"the Hugging Face hub has no model {name} that is open to you", MODEL_HINT) from None
    except Exception as error:  # the hub's client lets the errors of its HTTP library through
        raise ModelUnavailable(f"{looked}, and the hub cannot be reached ({first_line(error)})", MODEL_HINT) from None


def _has_weights(path: Path) -> bool:
    try:
        return (path / "config.json").is_file() and bool(weight_files(path))
    except (OSError, ModelUnavailable):
        return False


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in weight_files(path) if file.exists())


def rotary_of(model: Any) -> dict[str, Rotary]:
    """Rotary frequencies by kind of layer, under "" where there is one kind."""
    from circuitdsl.models.parts import Rotary

    found = {}
    for module in model.modules():
        for name, frequencies in module.named_buffers(recurse=False):
            if name.endswith("inv_freq") and not name.endswith("original_inv_freq"):
                kind = name.removesuffix("inv_freq")
                scaling = getattr(module, f"{kind}attention_scaling", 1.0)
                found[kind.rstrip("_")] = Rotary(frequencies, float(scaling))
    return found


def device_named(device: str | torch.device) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device; raises `ModelUnavailable` where it is not there."""
    name = str(device)
    if not re.fullmatch(r"auto|(cpu|cuda)(:[0-9]{1,3})?", name, re.ASCII):
        raise ModelUnavailable(f"device {name} is not known; use auto, cpu or cuda")
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnavailable("there is no CUDA device here", "use --device cpu")
    return torch.device(name)
