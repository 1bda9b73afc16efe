"""circuit-tracer's sets of transcoders: `config.yaml` beside `layer_0.safetensors`, `layer_1.safetensors`, …

The list `transcoders` of the configuration may name files elsewhere, a layer each: beside it, or in the hub's cache.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from circuitdsl.brief import quoted
from circuitdsl.dictionaries import gemma_scope
from circuitdsl.dictionaries.configuration import Config, yaml_file
from circuitdsl.dictionaries.hub import in_hub_cache
from circuitdsl.dictionaries.record import Dictionary, DictionaryError, Encoding, Held, Hook, hook_named
from circuitdsl.dictionaries.tensors import Same, stored

FORM, CONFIG = "circuit-tracer", "config.yaml"
_LAYER = re.compile(r"layer_([0-9]{1,4})\.safetensors", re.ASCII)


def read(path: Path, name: str, at: Hook | None) -> tuple[Dictionary, ...]:
    """The transcoders of a set, one for each layer, or that of one file; none where they are not such a set.

    Raises:
        DictionaryError: what is there cannot be read, or would be read wrongly.
    """
    folder = path if path.is_dir() else path.parent
    alone = None if path.is_dir() or path.name == CONFIG else path
    if not (folder / CONFIG).is_file() or (alone and not _LAYER.fullmatch(alone.name)):
        return ()
    config = yaml_file(folder / CONFIG)
    if config.word("model_kind") != "transcoder_set":
        return ()
    files = {layer: file for layer, file in _files(config, folder).items() if alone is None or file == alone}
    if not files:
        raise DictionaryError(f"there is no layer_0.safetensors beside {config.path}")
    named = [name if alone or len(files) == 1 else f"{name.rstrip('/')}/{file.name}" for file in files.values()]
    return tuple(_one(config, file, each, layer) for (layer, file), each in zip(files.items(), named, strict=True))


def hooks(config: Config, layer: int) -> tuple[Hook, Hook]:
    """What the transcoder of a layer reads, and what it writes there."""
    names = (config.need("feature_input_hook"), config.need("feature_output_hook"))
    reads, writes = (hook_named(f"blocks.{layer}.{hook}", str(config.path)) for hook in names)
    return reads, writes


def _files(config: Config, folder: Path) -> dict[int, Path]:
    """The file of every layer."""
    listed = config.get("transcoders")
    if listed is None:
        found = ((_LAYER.fullmatch(file.name), file) for file in folder.iterdir())
        return dict(sorted((int(layer[1]), file) for layer, file in found if layer))
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise DictionaryError(f"{config.path}: transcoders is no list of names")
    places = (in_hub_cache(each) if each.startswith("hf://") else _beside(folder, each) for each in listed)
    return dict(enumerate(places))


def _beside(folder: Path, name: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DictionaryError(f"{folder / CONFIG} names {quoted(repr(name))}, which does not lie beside it")
    return folder / name


def _one(config: Config, file: Path, name: str, layer: int) -> Dictionary:
    reads, writes = hooks(config, layer)
    if file.suffix == ".npz":
        (found,) = gemma_scope.read(file, name, writes)
        return gemma_scope.as_transcoder(found, reads, writes)
    tensors: dict[str, Held] = dict(stored(file))
    own_k = tensors.pop("k", None)
    if (threshold := tensors.pop("activation_function.threshold", None)) is not None:
        single = threshold.shape in ((), (1,)) and "b_enc" in tensors
        tensors["threshold"] = Same(threshold, tensors["b_enc"].shape[0]) if single else threshold  # type: ignore[arg-type]
    encoding = _encoding(config, "threshold" in tensors, int(own_k.read()) if own_k else None)
    return Dictionary(
        name, FORM, reads, (writes,), encoding, tensors, (config.path, file), _model(config), None, _about(config)
    )


def _encoding(config: Config, has_threshold: bool, own_k: int | None) -> Encoding:
    activation: Any = config.get("activation", default="jumprelu" if has_threshold else "relu")
    activation = "jumprelu" if activation == "jump_relu" else activation
    if activation not in ("relu", "topk", "jumprelu"):
        raise DictionaryError(f"{config.path} says activation = {quoted(repr(activation))}, which is not known")
    k = (own_k or config.number("k")) if activation == "topk" else 0
    return Encoding(activation, k, signed=activation != "relu")


def _model(config: Config) -> str:
    return config.word("model_name")


def _about(config: Config) -> dict[str, str]:
    return {"version": found} if (found := config.word("scan", "scan_name")) else {}
