"""Models as TransformerLens holds them: a bridge that a program has loaded, or one around a Hugging Face model.

A `TransformerBridge` calls the parts of every architecture alike: `blocks[i].attn.q`, `ln1`, `mlp` and so on. Families
without a reader of their own are read by these names (`models.readings`).
"""

from __future__ import annotations

from typing import Any

import torch

from circuitdsl.models.agreement import SHORT, check_sum
from circuitdsl.models.errors import ModelUnavailable, UnsupportedModel, refusing
from circuitdsl.models.families import BRIDGED, FAMILIES, read_parts, refuse
from circuitdsl.models.load import dtype_name, exactly, load_tokenizer, readable, rotary_of
from circuitdsl.models.original import Original
from circuitdsl.models.parts import Transformer
from circuitdsl.models.readings import FITS, read_bridge, twin_of, unwrapped
from circuitdsl.models.tokenizers import quiet_and_offline


def read_through_bridge(name: str, module: Any, **about: Any) -> Transformer:
    """The view of a Hugging Face model, by the names in a bridge around a twin of it that shares its weights.

    Args:
        about: what else the view has: its tokenizer, its original, the hashes of its files.

    Raises:
        UnsupportedModel: TransformerLens cannot make the bridge, or some part computes what is not known.
    """
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    with refusing(f"TransformerLens cannot make a bridge of {name}"):
        bridge = build_bridge_from_module(twin_of(module), type(module).__name__, hf_config=module.config).eval()
    return read_bridge(name, bridge, rotary_of(module), **about)


def view_of(bridge: Any, device: str = "auto", dtype: str = "float32") -> Transformer:
    """The view of the model in a `TransformerBridge` that a program has loaded. It shares the weights.

    Args:
        device, dtype: where the bridge must lie and in which number format; the defaults ask for nothing.

    Raises:
        UnsupportedModel: the bridge is elsewhere or in another format, its family is not known, or it computes
            something else than its terms add up to: it has hooks, or its weights were processed.
        ModelUnavailable: its number format is not known.
    """
    module, name = bridge.original_model, str(bridge.cfg.model_name)
    kind = getattr(getattr(module, "config", None), "model_type", None)
    refuse(name, kind)
    if kind not in {**FAMILIES, **BRIDGED}:
        raise UnsupportedModel(f"the bridge of {name} holds something else than a language model of transformers")
    named = dict(module.named_parameters(remove_duplicate=False))
    devices = sorted({str(each.device) for each in named.values()})
    if len(devices) > 1 or devices == ["meta"]:
        raise UnsupportedModel(f"the bridge of {name} lies on {' and '.join(devices)}; load it on one device")
    for what, has, wanted, usual in (
        ("is on", devices[0], device, "auto"),
        ("is in", dtype_name(str(module.dtype)), dtype, "float32"),
    ):
        if wanted not in (usual, has, has.removesuffix(":0")):
            raise UnsupportedModel(f"the bridge of {name} {what} {has}, not {wanted}", "a bridge stays as it is")
    exactly()
    plain = unwrapped(module)
    about = {"tokenizer": tokenizer_of(bridge), "original": Original.of(name, plain)}
    tokens = torch.arange(SHORT, device=module.device)[None] % bridge.cfg.d_vocab
    with quiet_and_offline(), readable(name, kind):
        with torch.inference_mode():
            has, wants = (each(input_ids=tokens, use_cache=False).logits.float() for each in (module, plain))
        if not float((has - wants).abs().max()) <= FITS[module.dtype] * float(wants.abs().max()):
            raise UnsupportedModel(
                f"the bridge of {name} computes something else than transformers does on its weights",
                "a bridge is taken as it was booted: without hooks, without enable_compatibility_mode()",
            )
        if kind in FAMILIES:
            weights = {key.replace("._original_component", ""): each.detach() for key, each in named.items()}
            view = read_parts(name, module.config, weights, rotary_of(module), **about)
        else:
            view = read_bridge(name, bridge, rotary_of(module), **about)
        check_sum(view, about["original"])
    return view


def tokenizer_of(bridge: Any) -> Any:
    """The tokenizer of a bridge as its files have it, where they are at hand.

    TransformerLens lets every tokenizer begin texts with a token for that, whether or not the model was trained so.
    """
    place = str(getattr(bridge.tokenizer, "name_or_path", ""))
    try:
        return load_tokenizer(place) if place else bridge.tokenizer
    except ModelUnavailable:
        return bridge.tokenizer
