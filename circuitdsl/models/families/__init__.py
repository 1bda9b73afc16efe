"""The families that are known, one file each: where a family keeps its parts, under Hugging Face's names for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import torch

from circuitdsl.models.devices import several
from circuitdsl.models.errors import UnsupportedModel
from circuitdsl.models.families._bridged import BRIDGED
from circuitdsl.models.families._family import Family, Weights
from circuitdsl.models.families._refused import REFUSED
from circuitdsl.models.original import Original
from circuitdsl.models.parts import Block, Rotary, Transformer
from circuitdsl.models.towers import TOWERS

#: by Hugging Face's `model_type`: what each file of this package gives as its `FAMILIES`
FAMILIES: dict[str, Family] = {
    kind: family
    for file in iter_modules(__path__, f"{__name__}.")
    if not file.name.startswith(f"{__name__}._")
    for kind, family in import_module(file.name).FAMILIES.items()
}


def refuse(name: str, kind: Any) -> None:
    """Raise `UnsupportedModel` where a family (a `model_type`) is not known, or known not to be expressible."""
    if isinstance(kind, str) and kind in REFUSED:
        raise UnsupportedModel(f"{name} is a {kind} model, which {REFUSED[kind]}")
    if isinstance(kind, str) and kind not in {**FAMILIES, **BRIDGED, **TOWERS}:
        raise UnsupportedModel(
            f"{name} is a {kind} model, which is not known",
            "circuitdsl models --families lists the families that are known",
        )


def refuse_changing(name: str, config: Any, rotary: Mapping[str, Rotary]) -> None:
    """Raise `UnsupportedModel` where rotary frequencies change with the prompt's length."""
    given = (getattr(config, "rope_parameters", None) if rotary else None) or {}
    kinds = [each.get("rope_type", "default") for each in (given, *given.values()) if isinstance(each, dict)]
    if changing := [kind for kind in kinds if kind in ("dynamic", "longrope")]:  # they would make cached keys wrong
        raise UnsupportedModel(
            f"{name} scales its rotary positions with the prompt's length ({changing[0]}), which is not known"
        )


def rotary_by_layer(name: str, config: Any, rotary: Mapping[str, Rotary]) -> list[Rotary | None]:
    """How positions turn queries and keys in each layer, by `rotary` as `read_parts` has it.

    Raises:
        UnsupportedModel: the frequencies change with the prompt's length.
    """
    refuse_changing(name, config, rotary)
    layers = range(config.num_hidden_layers)
    return [rotary["" if "" in rotary else config.layer_types[layer]] if rotary else None for layer in layers]


def read_parts(
    name: str,
    config: Any,
    weights: Weights,
    rotary: Mapping[str, Rotary],
    tokenizer: Any = None,
    original: Original | None = None,
    hashes: Mapping[str, Any] | None = None,
) -> Transformer:
    """The view of a Hugging Face model.

    Args:
        config: its configuration, of one of `FAMILIES`.
        weights: its parameters under their published names.
        rotary: its rotary frequencies by kind of layer (see `config.layer_types`), or under "" those of all layers.
        original: the model itself.
        hashes: of the files that it is read from, as `ModelFiles.hashes` has them.

    Raises:
        UnsupportedModel: the model uses something that the view cannot express.
    """
    family = FAMILIES[config.model_type]
    for refusal in family.refused:
        if refusal.has(config):
            raise UnsupportedModel(f"{name} {refusal.why}")
    embed, positions, unembed = family.names
    blocks, there = [], dict[tuple[Rotary, torch.device], Rotary]()  # where a model lies on several devices
    turned = rotary if family.rotary(config) else {}  # Falcon has frequencies that it does not use, where it has ALiBi
    for layer, turning in enumerate(rotary_by_layer(name, config, turned)):
        norm, attn = family.heads(config, weights, layer)
        if turning:
            place = turning, attn.o.weight.device
            there[place] = there.get(place) or replace(turning, inv_freq=turning.inv_freq.to(place[1]))
            attn = replace(attn, rotary=there[place])
        blocks.append(Block(norm, attn, *family.mlp(config, weights, layer)))
    if not blocks:
        raise UnsupportedModel(f"{name} has no layers (see its config.json)")
    several([weights[f"{embed}.weight"].device, *(block.device for block in blocks)])
    about = {
        "parallel": False,
        "n_ctx": getattr(config, "max_position_embeddings", 0),
        "W_pos": weights[f"{positions}.weight"] if positions else None,
        "b_U": weights.get(f"{unembed}.bias"),
        **family.about(config, weights),
    }
    return Transformer(
        name=name,
        family=config.model_type,
        blocks=tuple(blocks),
        final_norm=family.final_norm(config, weights),
        W_E=weights[f"{embed}.weight"],
        W_U=weights[f"{unembed}.weight" if f"{unembed}.weight" in weights else "lm_head.weight"],
        tokenizer=tokenizer,
        original=original,
        **(hashes or {}),
        **about,
    )
