"""What is known of tasks and models without weights or a tokenizer: positions, and sizes.

The size of a model comes from a table of well-known models, or from the `config.json` of its directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuitdsl.brief import quoted
from circuitdsl.circuit.claims import Circuit
from circuitdsl.errors import UserError
from circuitdsl.ordinary import Unreadable, read_ordinary

#: the name of a model of any size, for which every head exists
ANY_MODEL = "*"
#: the file of a model's configuration, and how many bytes of it are read at the most
CONFIG, CONFIG_BYTES = "config.json", 10**6
#: objects in objects of a configuration at the most
DEEPEST = 20
_LAYERS, _HEADS, _WIDTH, _INNER, _PLACES = (1, 1000), (1, 4096), (1, 2**17), (1, 2**21), (1, 2**27)
#: between which numbers those of a configuration lie, for any model that there is
RANGES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("n_layer", "num_hidden_layers", "num_layers"), _LAYERS),
    **dict.fromkeys(("n_head", "num_attention_heads", "num_heads", "num_key_value_heads"), _HEADS),
    **dict.fromkeys(("n_embd", "hidden_size", "head_dim"), _WIDTH),
    **dict.fromkeys(("n_inner", "intermediate_size"), _INNER),
    **dict.fromkeys(("n_positions", "max_position_embeddings"), _PLACES),
    "vocab_size": (1, 2**22),
    "num_labels": (0, 10_000),
}
#: the models that come with circuitdsl, with their directories
EMBEDDED: Mapping[str, Path] = {
    name: Path(__file__).parent.parent / "models" / folder
    for name, folder in (("pocket", "pocket"), ("pocket-deep", "pocket_deep"))
}


@dataclass(frozen=True, slots=True)
class TaskShape:
    """The names a registered task defines; positions and corruptions with a sentence, options with their values."""

    name: str
    positions: Mapping[str, str]
    corruptions: Mapping[str, str]
    options: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict)
    #: for a position, the positions that stand strictly before it in every prompt
    before: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The size of a model: enough to know which heads and MLPs exist; its widths where they are known."""

    title: str
    n_layers: int
    n_heads: int
    parallel: bool = False
    d_head: int | None = None
    d_mlp: int | None = None
    d_model: int | None = None


#: name on the hub without its owner: (title, layers, heads, parallel attention, d_head, d_mlp)
_SIZES: dict[str, tuple[str, int, int, bool, int, int]] = {
    "gpt2": ("GPT-2 small", 12, 12, False, 64, 3072),
    "gpt2-small": ("GPT-2 small", 12, 12, False, 64, 3072),
    "gpt2-medium": ("GPT-2 medium", 24, 16, False, 64, 4096),
    "gpt2-large": ("GPT-2 large", 36, 20, False, 64, 5120),
    "gpt2-xl": ("GPT-2 XL", 48, 25, False, 64, 6400),
    "distilgpt2": ("DistilGPT-2", 6, 12, False, 64, 3072),
    "gpt-j-6b": ("GPT-J 6B", 28, 16, True, 256, 16384),
    "gpt-neo-125m": ("GPT-Neo 125M", 12, 12, False, 64, 3072),
    "gpt-neo-1.3b": ("GPT-Neo 1.3B", 24, 16, False, 128, 8192),
    "gpt-neo-2.7b": ("GPT-Neo 2.7B", 32, 20, False, 128, 10240),
    "pythia-14m": ("Pythia 14M", 6, 4, True, 32, 512),
    "pythia-31m": ("Pythia 31M", 6, 8, True, 32, 1024),
    "pythia-70m": ("Pythia 70M", 6, 8, True, 64, 2048),
    "pythia-160m": ("Pythia 160M", 12, 12, True, 64, 3072),
    "pythia-410m": ("Pythia 410M", 24, 16, True, 64, 4096),
    "pythia-1b": ("Pythia 1B", 16, 8, True, 256, 8192),
    "pythia-1.4b": ("Pythia 1.4B", 24, 16, True, 128, 8192),
    "pythia-2.8b": ("Pythia 2.8B", 32, 32, True, 80, 10240),
    "pythia-6.9b": ("Pythia 6.9B", 32, 32, True, 128, 16384),
    "pythia-12b": ("Pythia 12B", 36, 40, True, 128, 20480),
    "llama-2-7b-hf": ("Llama 2 7B", 32, 32, False, 128, 11008),
    "llama-2-13b-hf": ("Llama 2 13B", 40, 40, False, 128, 13824),
    "meta-llama-3-8b": ("Llama 3 8B", 32, 32, False, 128, 14336),
    "llama-3.1-8b": ("Llama 3.1 8B", 32, 32, False, 128, 14336),
    "llama-3.2-1b": ("Llama 3.2 1B", 16, 32, False, 64, 8192),
    "llama-3.2-3b": ("Llama 3.2 3B", 28, 24, False, 128, 8192),
    "mistral-7b-v0.1": ("Mistral 7B", 32, 32, False, 128, 14336),
    "qwen2.5-0.5b": ("Qwen2.5 0.5B", 24, 14, False, 64, 4864),
    "qwen2.5-1.5b": ("Qwen2.5 1.5B", 28, 12, False, 128, 8960),
    "qwen2.5-3b": ("Qwen2.5 3B", 36, 16, False, 128, 11008),
    "qwen2.5-7b": ("Qwen2.5 7B", 28, 28, False, 128, 18944),
    "qwen3-0.6b": ("Qwen3 0.6B", 28, 16, False, 128, 3072),
    "qwen3-1.7b": ("Qwen3 1.7B", 28, 16, False, 128, 6144),
    "gemma-2b": ("Gemma 2B", 18, 8, False, 256, 16384),
    "gemma-7b": ("Gemma 7B", 28, 16, False, 256, 24576),
    "gemma-2-2b": ("Gemma 2 2B", 26, 8, False, 256, 9216),
    "gemma-2-9b": ("Gemma 2 9B", 42, 16, False, 256, 14336),
    "gemma-3-1b-pt": ("Gemma 3 1B", 26, 4, False, 256, 6912),
}
#: the models whose size is known, by the name that a spec gives them, with their titles
MODELS: Mapping[str, str] = dict.fromkeys(EMBEDDED, "a model that comes with circuitdsl") | {
    name: title for name, (title, *_) in _SIZES.items()
}
_OWNERS = frozenset({"openai-community", "distilbert", "eleutherai", "meta-llama", "mistralai", "qwen", "google"})
_TUNED = ("-deduped", "-instruct", "-chat-hf", "-it")


def shape_of(name: str) -> tuple[ModelShape | None, str | None]:
    """(the shape, or None where it is not known without loading; what is wrong with the directory, or None).

    A directory is one as `models.load` sees it: a path that exists from here, or that is written as a path.
    """
    if own := EMBEDDED.get(name):
        return read_directory(own, name) if (own / "config.json").is_file() else (None, None)
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            return read_directory(path, name)
        if path.exists():
            return None, f"{name} is a file; a model is a directory"
    except (OSError, ValueError, RuntimeError):
        return None, f"'{name[:60]}' is no usable path"
    if name.startswith((".", "/", "~")):
        return None, f"there is no model directory {quoted(name)}"
    return well_known(name), None


def at_hand(name: str, revision: str | None = None) -> ModelShape | None:
    """The shape of a model of the hub whose configuration was downloaded earlier; nothing is downloaded now."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, CONFIG, revision=revision)
    except (HFValidationError, OSError, ValueError):
        return None
    return read_directory(Path(found).parent, name)[0] if isinstance(found, str) else None


def large_enough(heads: Iterable[tuple[int, int]]) -> ModelShape:
    """A model of no size in particular, which has some heads (layer, head) and more."""
    layers, numbers = zip(*heads, (0, 0), strict=True)
    return ModelShape("any model", max(layers) + 2, max(numbers) + 2)


def near(name: str, spec: str) -> str:
    """A model directory as a spec names it: beside the spec, where there is one, else as it is written."""
    beside = Path(spec).parent / name
    try:
        return str(beside) if "/" in name and beside.is_dir() else name
    except (OSError, ValueError):
        return name


def place_of(circuit: Circuit | None, override: str | None) -> tuple[str, str, str | None]:
    """The name of the model that a circuit is verified on, where to load it from, and its revision.

    Raises:
        UserError: the circuit names none, and none is given.
    """
    if override:
        return override, override, None
    if circuit is None:
        raise UserError("no model is named", hint="name one, or a spec that does")
    if circuit.model is None:
        raise UserError(f"circuit {circuit.name} names no model", hint='add a line `model "…"`, or give --model')
    return circuit.model.name, near(circuit.model.name, circuit.path), circuit.model.revision


def well_known(name: str) -> ModelShape | None:
    """The shape of a model in the table, with or without its owner's name before it."""
    owner, _, base = name.lower().rpartition("/")
    if owner and owner not in _OWNERS:
        return None
    found = next((_SIZES[name] for end in ("", *_TUNED) if (name := base.removesuffix(end)) in _SIZES), None)
    return None if found is None else ModelShape(*found)


def read_directory(path: Path, title: str) -> tuple[ModelShape | None, str | None]:
    """The shape that a directory's `config.json` gives."""
    file = path / CONFIG
    if not os.path.lexists(file):
        return None, f"{path} has no {CONFIG}, so it is not a model in Hugging Face's layout"
    try:
        config = json.loads(read_ordinary(file, CONFIG_BYTES))
    except Unreadable as reason:
        return None, f"{file} cannot be read: {reason}"
    except (ValueError, RecursionError):
        return None, f"{file} is not JSON"
    if wrong := out_of_range(config):
        return None, f"{file} {wrong}"
    layers = _number(config, "n_layer", "num_hidden_layers", "num_layers")
    heads = _number(config, "n_head", "num_attention_heads", "num_heads")
    if layers is None or heads is None:
        return None, f"{file} does not give the numbers of layers and heads"
    width = _number(config, "n_embd", "hidden_size")
    d_head = _number(config, "head_dim") or (width // heads if width else None)
    # GPT-2 may leave out the width of its MLPs, which is four times its own
    gpt2 = isinstance(config, dict) and config.get("model_type") == "gpt2" and _number(config, "n_embd")
    d_mlp = _number(config, "n_inner", "intermediate_size") or (4 * gpt2 if gpt2 else None)
    if _number(config, "num_experts", "num_local_experts"):
        d_mlp = None  # layers differ: the neurons of plain MLPs can be named, those of experts cannot
    return ModelShape(title, layers, heads, _parallel(config), d_head, d_mlp, width), None


def out_of_range(config: Any) -> str | None:
    """What a configuration says that is true of no model, to be read after its file's name; None where all can be."""
    parts = [config]
    for _ in range(DEEPEST):
        for part in parts:
            for key, value in part.items() if isinstance(part, dict) else ():
                low, high = RANGES.get(key, (0, 0))
                if key in RANGES and isinstance(value, int | float) and not low <= value <= high:
                    return f"has {key} = {str(value)[:40]}; it is a number from {low} to {high}"
        parts = [each for part in parts for each in _inside(part)]
    return f"has objects in objects, more than {DEEPEST} deep" if parts else None


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _number(config: Any, *keys: str) -> int | None:
    """The first of the keys that holds a positive number; text models inside larger ones are looked into."""
    if not isinstance(config, dict):
        return None
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return _number(config.get("text_config"), *keys)


def _parallel(config: dict[str, Any]) -> bool:
    """Whether attention and MLP of a layer stand beside each other."""
    kind = config.get("model_type")
    if kind == "gpt_neox":
        return bool(config.get("use_parallel_residual", True))
    if kind == "falcon":
        return bool(config.get("parallel_attn", True) or config.get("new_decoder_architecture", False))
    return kind in ("gptj", "phi", "codegen", "cohere", "cohere2")
