"""What stands at the hooks of dictionaries in a run of a model, read as the dictionary was trained to read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.dictionaries.record import Dictionary, DictionaryError, Hook
from circuitdsl.engine.terms import Cache
from circuitdsl.measurements.kept import Kept
from circuitdsl.models.parts import Transformer


@dataclass(frozen=True, slots=True)
class Reading:
    """How a hook is read, where its name leaves that open.

    Attributes:
        gained: an MLP's input is read behind its norm's gain and bias, not before them.
        centred: the mean over the stream's dimensions is taken out, as TransformerLens' `center_writing_weights` does.
    """

    gained: bool = True
    centred: bool = False

    def __str__(self) -> str:
        words = [] if self.gained else ["before the norm's gain"]
        return ", ".join([*words, *(["the mean over dimensions taken out"] if self.centred else [])])


USUAL = Reading()


def readings(found: Dictionary, model: Transformer) -> tuple[Reading, ...]:
    """The ways in which a dictionary may have read this model, the most usual first."""
    gains = (True, False) if found.reads.kind == "mlp_in" else (True,)
    layer_norm = model.blocks[0].attn_norm.kind == "layer"
    centring = (False, True) if layer_norm and found.reads.kind != "z" else (False,)
    if found.centred is not None:
        centring = (found.centred,)
    return tuple(Reading(gained, centred) for centred in centring for gained in gains)


def check_fits(found: Dictionary, model: Transformer) -> None:
    """Raise `DictionaryError` where a model has no such places, or they have other widths."""
    if model.parallel and found.writes[0].kind == "resid_mid":
        raise DictionaryError(
            f"{found.name} sits at {found.writes[0]}, between heads and MLP, which stand side by side in {model.name}"
        )
    for hook, width in ((found.reads, found.d_in), *((hook, found.d_out) for hook in found.writes)):
        made = f", made for {found.model}" if found.model else ""
        if hook.layer >= model.n_layers:
            last = f"{model.name} has layers 0 to {model.n_layers - 1}"
            raise DictionaryError(f"{found.name}{made} sits at {hook}, and {last}: it is not of this model")
        own = model.n_heads * model.d_head if hook.kind == "z" else model.d_model
        if width != own:
            raise DictionaryError(
                f"{found.name}{made} has {width} numbers at {hook}, and {model.name} has {own}: it is not of this model"
            )


def kept_at(hooks: Iterable[Hook], model: Transformer) -> Kept:
    """What a run keeps so that hooks can be read."""
    found = Kept()
    for kind, layer in hooks:
        nodes, own = frozenset[Node](), frozenset([layer])
        if kind in ("z", "attn_out"):
            nodes |= {Node("head", layer)}
        if kind == "mlp_out" or (kind == "resid_post" and layer == model.n_layers - 1):
            nodes |= {Node("mlp", layer)}
        if kind == "resid_post" and layer == model.n_layers - 1 and model.parallel:
            nodes |= {Node("head", layer)}
        if kind == "resid_post" and layer < model.n_layers - 1:
            found |= Kept(resid_pre=frozenset([layer + 1]))
        last = kind == "resid_post" and layer == model.n_layers - 1
        found |= Kept(nodes, mlp_in=own if kind in ("resid_mid", "mlp_in") or last else frozenset())
        found |= Kept(resid_pre=own if kind == "resid_pre" else frozenset())
    return found


def at_hook(model: Transformer, run: Cache, hook: Hook, reading: Reading = USUAL) -> Float[Tensor, "n T d"]:
    """What stands at a hook of a run that has kept it (`kept_at`), in single precision."""
    block, layer = model.blocks[hook.layer], hook.layer
    match hook.kind:
        case "resid_pre":
            found = run.resid_pre[layer]
        case "resid_post" if layer < model.n_layers - 1:
            found = run.resid_pre[layer + 1]
        case "resid_post":
            attended = block.attn.write(run.kept[Node("head", layer)]) if model.parallel else 0
            found = run.mlp_in[layer] + attended + run.kept[Node("mlp", layer)]
        case "resid_mid":
            found = run.mlp_in[layer]
        case "mlp_in" if reading.gained:
            found = block.mlp_norm(run.mlp_in[layer])
        case "mlp_in":
            plain = replace(block.mlp_norm, gain=torch.ones_like(block.mlp_norm.gain), bias=None)
            found = plain(run.mlp_in[layer])
        case "mlp_out":
            found = run.kept[Node("mlp", layer)]
        case "attn_out":
            found = block.attn.write(run.kept[Node("head", layer)])
        case "z":
            heads = run.gathered[layer] if layer in run.gathered else run.kept[Node("head", layer)]
            found = heads.flatten(-2)
    found = found.float()
    return found - found.mean(-1, keepdim=True) if reading.centred and hook.kind not in ("z", "mlp_in") else found
