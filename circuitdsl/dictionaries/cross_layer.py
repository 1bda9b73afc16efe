"""Cross-layer transcoders: `W_enc_0.safetensors`, `W_dec_0.safetensors`, …; features write to all later MLPs as well.

One dictionary is made for each layer that is read. What an MLP writes is the sum over those of its own and all earlier
layers.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from circuitdsl.dictionaries.circuit_tracer import CONFIG, hooks
from circuitdsl.dictionaries.configuration import Config, yaml_file
from circuitdsl.dictionaries.record import Dictionary, DictionaryError, Encoding, Held, Hook, checked
from circuitdsl.dictionaries.tensors import Flat, stored

FORM = "cross-layer transcoder"
_ENCODER = re.compile(r"W_enc_([0-9]{1,4})\.safetensors", re.ASCII)
#: where such a transcoder sits when nothing says otherwise
_USUAL = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out"}


def read(path: Path, name: str, at: Hook | None) -> tuple[Dictionary, ...]:
    """The features of every layer, or those of one encoder's file; none where the files are others.

    Raises:
        DictionaryError: what is there cannot be read, or would be read wrongly.
    """
    folder = path if path.is_dir() else path.parent
    alone = None if path.is_dir() or path.name == CONFIG else path
    if alone and not _ENCODER.fullmatch(alone.name):
        return ()
    encoders = sorted(int(found[1]) for file in folder.iterdir() if (found := _ENCODER.fullmatch(file.name)))
    if not encoders:
        return ()
    if encoders != list(range(len(encoders))):
        raise DictionaryError(f"{folder} lacks the encoder of a layer: it has {', '.join(map(str, encoders))}")
    config = yaml_file(folder / CONFIG) if (folder / CONFIG).is_file() else Config(folder / CONFIG, {})
    config = Config(config.path, _USUAL | dict(config.values))
    own = folder / f"W_enc_{encoders[0]}.safetensors"
    layers = [layer for layer in encoders if alone is None or alone.name == f"W_enc_{layer}.safetensors"]
    base = name.rstrip("/").removesuffix(f"/{(alone or own).name}")
    return tuple(_one(config, folder, f"{base}/W_enc_{layer}.safetensors", layer, len(encoders)) for layer in layers)


def _one(config: Config, folder: Path, name: str, layer: int, many: int) -> Dictionary:
    *others, files = [
        (folder / f"W_enc_{each}.safetensors", folder / f"W_dec_{each}.safetensors") for each in range(layer + 1)
    ]
    if not files[1].is_file():
        raise DictionaryError(f"there is no {files[1].name} beside {files[0]}")
    found = stored(files[0]) | stored(files[1])
    tensors: dict[str, Held] = {key.removesuffix(f"_{layer}"): value for key, value in found.items()}
    reads, _ = hooks(config, layer)
    writes = tuple(hooks(config, each)[1] for each in range(layer, many))
    if len(writes) == 1 and "W_dec" in tensors and len(tensors["W_dec"].shape) == 3:
        tensors["W_dec"] = Flat(tensors["W_dec"])
    encoding = Encoding("jumprelu" if "threshold" in tensors else "relu", signed="threshold" in tensors)
    # what it explains depends on the features of the layers below
    known = tuple(path for path in (config.path, *files, *chain.from_iterable(others)) if path.is_file())
    of = config.word("model_name")
    return Dictionary(name, FORM, reads, writes, encoding, tensors, known, of, crossing=folder.absolute())


def below(found: Dictionary) -> tuple[Dictionary, ...]:
    """The dictionaries of the layers below of a cross-layer transcoder; none for other dictionaries.

    Raises:
        DictionaryError: they cannot be read.
    """
    if found.crossing is None:
        return ()
    return tuple(
        checked(each)
        for each in read(found.crossing, str(found.crossing), None)
        if each.reads.layer < found.reads.layer
    )
