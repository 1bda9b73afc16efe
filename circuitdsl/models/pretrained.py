"""What transformers makes of a model's files: its configuration, and the model itself.

It is given a configuration and tensors. It opens no file of a model by itself, but for copies of the small ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from circuitdsl.models.errors import BrokenWeights, ModelUnavailable, first_line, refusing
from circuitdsl.models.files import ModelFiles
from circuitdsl.models.placing import gpus, placed
from circuitdsl.models.tokenizers import quiet_and_offline
from circuitdsl.models.towers import TOWERS, text_config, text_name

if TYPE_CHECKING:
    import torch

#: number formats of weights, as safetensors call them
FLOATS = ("F64", "F32", "F16", "BF16")
#: weights that a model may have beyond twice those of its files, before it is refused without being made
SLACK = 10**7


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A tensor in a file. `stored[...]` reads it.

    Attributes:
        file: what `safe_open` has opened.
        key: the tensor's name there.
        name: its name in the model that it is read for.
        read: notes which memory a tensor was read into, with its name. A reference to the memory keeps its place from
            being given away again, so that none is mistaken for another.
    """

    file: Any
    key: str
    name: str
    read: dict[Any, str] | None = None

    def get_shape(self) -> list[int]:
        return list(self.file.get_slice(self.key).get_shape())

    def get_dtype(self) -> str:
        return str(self.file.get_slice(self.key).get_dtype())

    def __getitem__(self, everything: EllipsisType) -> torch.Tensor:
        from torch.multiprocessing.reductions import StorageWeakRef

        found: torch.Tensor = self.file.get_tensor(self.key)  # of a slice, safetensors makes a copy
        if self.read is not None:
            self.read[StorageWeakRef(found.untyped_storage())] = self.name
        return found


def pretrained(files: ModelFiles, dtype: torch.dtype, device_map: str = "") -> tuple[Any, dict[str, str]]:
    """A model with its weights, as transformers makes it of the tensors in the files.

    Each tensor is read into memory once. Which parameters are tensors as they were read is given besides: a
    parameter's name, and the tensor's in the files.

    Args:
        device_map: how it is laid over several GPUs (`placing`); "" for the CPU.

    Raises:
        ModelUnavailable: the files are no safetensors.
        UnsupportedModel: transformers cannot make it.
        BrokenWeights: the weights are not those of the configuration.
    """
    directory, config, tensors = files.directory, configuration(files), stored_tensors(files)
    with refusing(f"transformers cannot load the model in {directory}"):
        outline, read = shapes_alone(config, dtype), dict[Any, str]()
        _check_tensors(directory, outline, tensors)
        model, info = type(outline).from_pretrained(
            None,
            config=outline.config,
            state_dict={name: replace(stored, read=read) for name, stored in tensors.items()},
            dtype=dtype,
            output_loading_info=True,
            attn_implementation=attention_by(outline.config),
            device_map=placed(outline, dtype, device_map, gpus("cuda", device_map)) if device_map else None,
            ignore_mismatched_sizes=True,  # which is an error below, in our words
        )
    if info["mismatched_keys"]:
        key, *shapes = min(info["mismatched_keys"])
        has, wants = (" × ".join(map(str, shape)) for shape in shapes)
        raise BrokenWeights(f"the weights in {directory} do not fit its config.json: {key} is {has}, not {wants}")
    missing = sorted(info["missing_keys"])
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BrokenWeights(f"the weights in {directory} lack {missing[0]}{more}; the model would be part random")
    refuse_more_layers(directory, sorted(info["unexpected_keys"]), model.config)
    _refuse_left_out(directory, sorted(info["unexpected_keys"]), tensors)
    _refuse_other_unembedding(directory, model)
    return model, _as_read(model, tensors, read)


def _refuse_other_unembedding(directory: Path, model: Any) -> None:
    """Raise `BrokenWeights` where the configuration ties the unembedding to the embedding, and the files hold another.

    Some versions of transformers take the one, some the other.
    """
    ends = [part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part is not None]
    if not getattr(model.config, "tie_word_embeddings", False) or len({end.data_ptr() for end in ends}) < 2:
        return
    if not bool((ends[0] == ends[1].to(ends[0].device)).all()):
        raise BrokenWeights(
            f"config.json in {directory} ties the unembedding to the embedding, and the weights hold another one",
            "where the model has an unembedding of its own, write tie_word_embeddings as false",
        )


def _as_read(model: Any, tensors: Mapping[str, Any], read: Mapping[Any, str]) -> dict[str, str]:
    """The parameters that lie in the memory which a tensor was read into, with the tensor's name."""
    from torch.multiprocessing.reductions import StorageWeakRef

    found = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        stored, whole = read.get(StorageWeakRef(value.untyped_storage())), value.untyped_storage().nbytes()
        if stored and value.is_contiguous() and value.nbytes == whole and [*value.shape] == tensors[stored].get_shape():
            found[name] = stored
    return found


def refuse_more_layers(directory: Path, unexpected: list[str], config: Any) -> None:
    """Raise `BrokenWeights` where the files hold layers that the configuration leaves out.

    A layer's number is the first in a name; others count experts.
    """
    layers = int(config.num_hidden_layers)
    for key in unexpected:
        numbers = [int(part) for part in key.split(".") if part.isdigit()]
        if numbers and numbers[0] >= layers:
            raise BrokenWeights(
                f"config.json in {directory} gives the model {layers} layers, and the weights have more: {key}"
            )


def _refuse_left_out(directory: Path, unexpected: list[str], tensors: Mapping[str, Any]) -> None:
    """Raise `BrokenWeights` where a layer in the files has maps or norms that the configuration leaves out.

    Files may hold other tensors that no model needs, such as masks: those are no `weight`, and no bias of one.
    """
    for key in unexpected:
        whole, _, kind = key.rpartition(".")
        map_of = f".{whole}.weight"
        used = kind == "weight" or (kind == "bias" and any(map_of.endswith(f".{name}") for name in tensors))
        if used and any(part.isdigit() for part in whole.split(".")):
            raise BrokenWeights(
                f"the weights in {directory} hold {key}, which its config.json leaves out",
                "put the model's own config.json beside its weights",
            )


def stored_tensors(files: ModelFiles) -> dict[str, Stored]:
    """The tensors of a model by their names in its files, each read when it is indexed by `...`.

    Of a model of images and texts they are those of its text model, by their names in that.

    They are read into memory of their own: a map of the file would change with the file.

    Raises:
        ModelUnavailable: the files are no safetensors.
        BrokenWeights: two of them hold the same tensor.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, Stored] = {}
    for file in files.weights:
        try:
            held = safe_open(str(file), "pt", backend="pread")
        except (OSError, SafetensorError) as error:
            raise ModelUnavailable(f"{file} cannot be read: {first_line(error)}") from None
        if twice := min(found.keys() & held.keys(), default=None):
            raise BrokenWeights(
                f"the tensor {twice} stands in {file.name}, and in another of the shards in {files.directory}",
                "save the model anew with transformers' save_pretrained",
            )
        found |= {key: Stored(held, key, key) for key in held.keys()}  # noqa: SIM118 - it is no mapping
    if files.config.get("model_type") in TOWERS:
        return {own: replace(tensor, name=own) for key, tensor in found.items() if (own := text_name(key))}
    return found


def attention_by(config: Any) -> str:
    """Which code of transformers computes attention: the plain one, where that is right.

    In Falcon with ALiBi it adds the bias twice (transformers 5.23), which the usual one (`sdpa`) does not.
    """
    return "sdpa" if config.model_type == "falcon" and config.alibi else "eager"


def shapes_alone(config: Any, dtype: torch.dtype) -> Any:
    """A model of a configuration whose tensors have no numbers, on the `meta` device."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention_by(config), trust_remote_code=False
        )


def _check_tensors(directory: Path, model: Any, tensors: Mapping[str, Any]) -> None:
    """Refuse weights that are no floating-point numbers, and a model that is far larger than its weights.

    Tensors that the files lack would be made before anyone could say that they are missing.
    """
    wanted = dict(model.named_parameters())
    for name, stored in tensors.items():
        if any(f".{key}".endswith(f".{name}") for key in wanted):
            refuse_whole_numbers(directory, name, stored)
    numbers = sum(math.prod(stored.get_shape()) for stored in tensors.values())
    if (expected := sum(each.numel() for each in wanted.values())) > 2 * numbers + SLACK:
        raise BrokenWeights(
            f"config.json in {directory} makes a model of {expected:.1e} weights, and the files hold {numbers:.1e}",
            "put the model's own config.json beside its weights",
        )


def refuse_whole_numbers(directory: Path, name: str, stored: Any) -> None:
    """Raise `BrokenWeights` where a stored tensor holds truth values, whole numbers, or numbers that need a scale."""
    if stored.get_dtype() not in FLOATS:
        raise BrokenWeights(
            f"the tensor {name} in {directory} holds {stored.get_dtype()}, not numbers as they are",
            f"save the weights as one of {', '.join(FLOATS)}",
        )


def configuration(files: ModelFiles) -> Any:
    """A model's configuration, with the defaults of its family; of a model of images and texts that of its text model.

    Raises:
        UnsupportedModel: transformers does not know it.
    """
    files.config  # noqa: B018 - what is wrong with it is said in our words
    with quiet_and_offline(), files.copied() as folder:
        from transformers import AutoConfig

        with refusing(f"transformers cannot read the configuration in {files.directory}", folder):
            found = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    found = text_config(found)
    found.return_dict, found.output_attentions, found.output_hidden_states = True, False, False
    return found
