"""SAELens' directories: `cfg.json` beside `sae_weights.safetensors`, as written before and after version 6."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from circuitdsl.brief import quoted
from circuitdsl.dictionaries.configuration import Config, json_file
from circuitdsl.dictionaries.record import Dictionary, DictionaryError, Encoding, Held, Hook, hook_named
from circuitdsl.dictionaries.tensors import PICKLES, Same, pickled, stored

FORM, CONFIG, WEIGHTS = "SAELens", "cfg.json", "sae_weights.safetensors"
Activation = Literal["relu", "jumprelu", "topk", "gated"]
#: architectures, with the activation of each; the names of transcoders end in `transcoder`
ARCHITECTURES: Mapping[str, Activation] = {
    "standard": "relu",
    "gated": "gated",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
_NORMS: Mapping[Any, Literal["none", "constant", "layer"]] = {
    "none": "none",
    False: "none",
    "constant_norm_rescale": "constant",
    "layer_norm": "layer",
}


def read(path: Path, name: str, at: Hook | None) -> tuple[Dictionary, ...]:
    """The dictionary of a directory, or of a file in one; none where they are not SAELens'.

    Args:
        at: where it sits, in place of the hook that the configuration names.

    Raises:
        DictionaryError: what is there cannot be read, or would be read wrongly.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / CONFIG).is_file() or path.suffix not in ("", ".json", ".safetensors", *PICKLES):
        return ()
    config = json_file(folder / CONFIG)
    weights = path if path.suffix == ".safetensors" and not path.is_dir() else folder / WEIGHTS
    if not weights.is_file():
        _no_weights(folder, weights)
    if path.suffix in PICKLES and not path.is_dir():
        raise pickled(path)
    architecture = _architecture(config)
    encoding = _encoding(config, architecture)
    tensors: dict[str, Held] = dict(stored(weights, turned=("W_enc",)))
    _refuse_scale(tensors, weights)
    if "topk_threshold" in tensors and "threshold" not in tensors:
        tensors["threshold"] = tensors.pop("topk_threshold")
    if "batchtopk" in architecture and "threshold" not in tensors:
        raise DictionaryError(
            f"{weights} holds no threshold, so that what fires would depend on the other prompts of a batch",
            hint="save it with SAELens' save_inference_model, which writes the threshold",
        )
    if "threshold" in tensors and "b_enc" in tensors and tensors["threshold"].shape in ((), (1,)):
        tensors["threshold"] = Same(tensors["threshold"], tensors["b_enc"].shape[0])  # type: ignore[arg-type]
    if "skip" not in architecture:
        tensors.pop("W_skip", None)
    elif "W_skip" not in tensors:
        raise DictionaryError(f"{weights} lacks the tensor W_skip, which {architecture} has")
    _check_sizes(config, tensors)
    reads, writes = _hooks(config, architecture, at)
    return (
        Dictionary(
            name,
            FORM,
            reads,
            (writes,),
            encoding,
            tensors,
            (folder / CONFIG, weights),
            config.word("model_name"),
            _centred(config),
            _about(config, architecture),
        ),
    )


def _no_weights(folder: Path, weights: Path) -> None:
    other = sorted(file for file in folder.iterdir() if file.suffix in PICKLES)
    if other:
        raise pickled(other[0])
    raise DictionaryError(f"there is no {weights.name} beside {CONFIG} in {folder}")


def _architecture(config: Config) -> str:
    """The architecture. Before version 6 it stood nowhere at first, and `topk` was an activation function."""
    version = re.match(r"([0-9]+)\.", config.word("sae_lens_version"), re.ASCII)
    old = version is None or int(version[1]) < 6
    found = config.get("architecture", default="standard") if old else config.need("architecture")
    function = config.word("activation_fn", "activation_fn_str", default="relu")
    if old and found == "standard" and function == "topk":
        found = "topk"
    elif function not in ("relu", "topk", "jumprelu"):
        raise DictionaryError(f"{config.path} says activation_fn = {quoted(repr(function))}, which is not known")
    if not isinstance(found, str) or found not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise DictionaryError(
            f"{config.path} says architecture = {quoted(repr(found))}, which is not read", hint=f"known are {known}"
        )
    return found


def _encoding(config: Config, architecture: str) -> Encoding:
    activation, transcoder = ARCHITECTURES[architecture], architecture.endswith("transcoder")
    norm = config.get("normalize_activations", default="none")
    if norm in ("expected_average_only_in", True):
        raise DictionaryError(
            f"{config.path}: activations were scaled by a factor that the files do not hold ({norm})",
            hint="fold it in with SAELens' fold_activation_norm_scaling_factor, and save the dictionary again",
        )
    if not isinstance(norm, str | bool) or norm not in _NORMS:
        raise DictionaryError(f"{config.path} says normalize_activations = {quoted(repr(norm))}, which is not known")
    if config.get("hook_head_index", "hook_point_head_index") is not None:
        raise DictionaryError(f"{config.path}: it reads a single head, which is not supported")
    k = 0
    if activation == "topk":
        inner = config.get("activation_fn_kwargs")
        k = inner["k"] if isinstance(inner, dict) and type(inner.get("k")) is int else config.number("k")
    subtracts = config.flag("apply_b_dec_to_input", not transcoder)
    if subtracts and transcoder:
        raise DictionaryError(f"{config.path}: apply_b_dec_to_input is no option of a transcoder")
    rescaled = config.flag("rescale_acts_by_decoder_norm", False)
    return Encoding(activation, k, False, _NORMS[norm], subtracts, rescaled and architecture in ("topk", *_OF_BATCHES))


_OF_BATCHES = ("batchtopk", "matryoshka_batchtopk")


def _refuse_scale(tensors: dict[str, Held], weights: Path) -> None:
    """Old files may hold a scale of activations, which was trained last; where it is 1, it does nothing."""
    for key in ("scaling_factor", "finetuning_scaling_factor"):
        found = tensors.pop(key, None)
        if found is not None and not bool((found.read() == 1).all()):
            raise DictionaryError(
                f"{weights} holds a {key} of its activations, which is not supported",
                hint="multiply the rows of W_dec by it, and remove it",
            )


def _check_sizes(config: Config, tensors: Mapping[str, Held]) -> None:
    """Raise where the configuration and the tensors are not of one dictionary."""
    said = {name: config.number(name) for name in ("d_in", "d_sae")}
    if "W_enc" in tensors and tensors["W_enc"].shape != (said["d_sae"], said["d_in"]):
        d_sae, d_in = (*tensors["W_enc"].shape, 0)[:2]
        raise DictionaryError(
            f"{config.path} says d_in = {said['d_in']} and d_sae = {said['d_sae']}, and W_enc is {d_in} × {d_sae}"
        )


def _hooks(config: Config, architecture: str, at: Hook | None) -> tuple[Hook, Hook]:
    """What it reads, and what it writes."""
    where = str(config.path)
    if not architecture.endswith("transcoder"):
        own = at or hook_named(config.need("hook_name", "hook_point"), where)
        if own.kind == "mlp_in":
            raise DictionaryError(f"{where}: {own} is read by an MLP and written by nothing")
        return own, own
    reads = hook_named(config.need("hook_name", "hook_point"), where)
    return reads, at or hook_named(config.need("hook_name_out", "hook_point_out"), where)


def _centred(config: Config) -> bool | None:
    kwargs = config.get("model_from_pretrained_kwargs")
    found = kwargs.get("center_writing_weights") if isinstance(kwargs, dict) else None
    return found if isinstance(found, bool) else None


def _about(config: Config, architecture: str) -> dict[str, str]:
    names = {"sae_lens_version": "version", "neuronpedia_id": "Neuronpedia", "dataset_path": "trained on"}
    return {"architecture": architecture} | {said: word for key, said in names.items() if (word := config.word(key))}
