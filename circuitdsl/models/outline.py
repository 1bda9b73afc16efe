"""A model's parts without its weights: every shape is there, and no number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from circuitdsl.models.errors import UnsupportedModel, refusing
from circuitdsl.models.experts import Experts, Whole
from circuitdsl.models.families import BRIDGED, read_parts, refuse
from circuitdsl.models.files import ModelFiles, files_of
from circuitdsl.models.load import locate, readable
from circuitdsl.models.parts import Linear, Transformer
from circuitdsl.models.placing import bytes_by_device, gpus, placed
from circuitdsl.models.pretrained import configuration, shapes_alone
from circuitdsl.models.tokenizers import quiet_and_offline, read_tokenizer


def outline(name_or_dir: str | Path, dtype: str = "float32", revision: str | None = None) -> Transformer:
    """A model as its `config.json` describes it, with its tokenizer; its tensors lie on the `meta` device.

    Raises:
        ModelUnavailable: the configuration or the tokenizer is not at hand.
        UnsupportedModel: the family is not known, or has no reader of its own (see `has_outline`).
    """
    files = files_of(locate(name_or_dir, revision, weights=False), weights=False)
    refuse(str(name_or_dir), files.config.get("model_type"))
    config, model = _shapes(files, dtype)
    if config.model_type in BRIDGED:
        raise UnsupportedModel(f"{name_or_dir} is read through a bridge, for which it must be loaded")
    once = {id(value): value.detach() for value in model.parameters()}
    weights = {name: once[id(value)] for name, value in model.named_parameters(remove_duplicate=False)}
    name = str(name_or_dir)
    with readable(name, config.model_type):
        return read_parts(name, config, weights, {}, read_tokenizer(files))


def weights_by_device(
    name_or_dir: str | Path, device: str, device_map: str, dtype: str, revision: str | None = None
) -> dict[str, int]:
    """Bytes of a model's weights on each GPU that it is laid over; raises what `placing` raises."""
    _, model = _shapes(files_of(locate(name_or_dir, revision, weights=False), weights=False), dtype)
    kind = getattr(torch, dtype)
    places = placed(model, kind, device_map, gpus(device, device_map))
    return {f"cuda:{at}": size for at, size in bytes_by_device(model, kind, places).items()}


def _shapes(files: ModelFiles, dtype: str) -> tuple[Any, Any]:
    """The configuration, and the model of transformers without numbers."""
    config = configuration(files)
    with quiet_and_offline(), refusing(f"transformers cannot make the model in {files.directory}"):
        return config, shapes_alone(config, getattr(torch, dtype))


def has_outline(name_or_dir: str | Path, revision: str | None = None) -> bool:
    """Whether a model can be read without its weights: others are read by what their parts compute."""
    files = files_of(locate(name_or_dir, revision, weights=False), weights=False)
    return files.config.get("model_type") not in BRIDGED


def parameters(model: Transformer) -> int:
    """How many numbers a model's parts hold; a tensor that serves twice (tied embeddings) counts once."""
    tensors = (part for part in _parts(model) if isinstance(part, torch.Tensor))
    return sum({id(each) if each.is_meta else each.data_ptr(): each.numel() for each in tensors}.values())


def writes(model: Transformer) -> int:
    """How often the tensors of a model's parts were written to, as torch counts it; not so in inference mode."""
    tensors = (part for part in _parts(model) if isinstance(part, torch.Tensor))
    return sum(each._version for each in tensors if not each.is_inference())


def products(part: Any) -> int:
    """Multiplications that all linear maps of a part take at one position."""
    if isinstance(part, Linear):
        return part.weight.numel()
    if isinstance(part, Experts):
        return products(part.router) + part.chosen * products(part.experts[0])
    if isinstance(part, Whole):
        return part.products
    return sum(map(products, _inside(part)))


def _parts(part: Any) -> Iterator[Any]:
    """A part of a model and all that it is made of."""
    yield part
    for each in _inside(part):
        yield from _parts(each)


def _inside(part: Any) -> list[Any]:
    """What a part of a model is made of; of other things, what is in them."""
    if is_dataclass(part):
        return [getattr(part, field.name) for field in fields(part)]
    return list(part) if isinstance(part, list | tuple) else []
