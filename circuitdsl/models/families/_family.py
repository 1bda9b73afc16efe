"""What a file of this package says of a family, and the small readers that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from circuitdsl.models.experts import Experts
from circuitdsl.models.parts import Activation, Attention, Linear, Mlp, Norm, gelu_tanh

Weights = Mapping[str, Tensor]
NormReader = Callable[[Weights, str, float], Norm]


class Refusal(NamedTuple):
    """What a configuration may say that the view cannot express.

    Attributes:
        has: whether a configuration says it.
        why: what is wrong with the model then, to be read after its name.
    """

    has: Callable[[Any], Any]
    why: str


BIAS_IN_POST_NORM = Refusal(
    lambda config: config.attention_bias, "has an output bias inside its post-norm, whose share belongs to no node"
)


class Family(NamedTuple):
    """Where models of a family keep their parts.

    Attributes:
        title: how the family is called, and some of its models.
        heads, mlp: from a configuration, the weights and a layer: what is read through which norm. `heads` needs the
            attention weights alone.
        final_norm: from a configuration and the weights.
        names: of the token embeddings, the learned positions ("" for none) and the unembedding.
        writes: how the names of the tensors end with which heads and MLPs write, `{}` being the layer and `*` anything:
            of the heads' W_O, then of whatever the MLP may write with.
        rotary: from a configuration, whether positions turn queries and keys.
        refused: what is not known of the family.
        about: from a configuration and the weights, what else the view of a model has.
    """

    title: str
    heads: Callable[[Any, Weights, int], tuple[Norm, Attention]]
    mlp: Callable[[Any, Weights, int], tuple[Norm, Mlp | Experts]]
    final_norm: Callable[[Any, Weights], Norm]
    names: tuple[str, str, str]
    writes: tuple[str, ...]
    rotary: Callable[[Any], bool] = lambda config: True
    refused: tuple[Refusal, ...] = ()
    about: Callable[[Any, Weights], dict[str, Any]] = lambda config, weights: {}


#: by torch itself, without importing transformers
_PLAIN: dict[str, Activation] = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}


def activation(name: str) -> Activation:
    """The function behind Hugging Face's name for it."""
    if name in ("gelu_new", "gelu_fast", "gelu_pytorch_tanh"):
        return gelu_tanh
    if name in _PLAIN:
        return _PLAIN[name]
    from transformers.activations import ACT2FN

    return ACT2FN[name]


def linear(weights: Weights, name: str) -> Linear:
    return Linear(weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def layer_norm(weights: Weights, name: str, eps: float) -> Norm:
    return Norm("layer", weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def plain_norm(reader: Tensor, eps: float) -> Norm:
    """LayerNorm without gains and biases, as wide as the inputs of a matrix `[out, in]` that reads it."""
    return Norm("layer", reader.new_ones(reader.shape[1]), None, eps)


def no_norm(reader: Tensor) -> Norm:
    """What stands where others have a norm, as wide as the inputs of a matrix `[out, in]`."""
    return Norm("none", reader.new_ones(reader.shape[1]), None, 0.0)


def rms_norm(weights: Weights, name: str, eps: float) -> Norm:
    return Norm("rms", weights[f"{name}.weight"], None, eps)


def plain_mlp(
    layer_name: str, norm: str, up: str, down: str, act: str, eps: str
) -> Callable[[Any, Weights, int], tuple[Norm, Mlp]]:
    """Reads plain MLPs behind a LayerNorm, given what their parts are called in a layer (`{}` is its number).

    Args:
        act, eps: what the configuration calls the activation, and what is added to variances.
    """

    def read(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
        at = layer_name.format(layer)
        mlp = Mlp(linear(w, f"{at}.{up}"), linear(w, f"{at}.{down}"), activation(getattr(config, act)))
        return layer_norm(w, f"{at}.{norm}", getattr(config, eps)), mlp

    return read


def apart(each: Linear, d_head: int, turned: int) -> Linear:
    """Queries or keys with the even ones of the numbers that are turned first, then the odd ones, then the rest.

    Products of queries and keys are the same in any order. In this one a number is turned with the one that stands
    half of them further on, where a model turns neighbouring numbers.
    """
    order = torch.cat((torch.arange(0, turned, 2), torch.arange(1, turned, 2), torch.arange(turned, d_head)))

    def ordered(stored: Tensor) -> Tensor:
        return stored.unflatten(0, (-1, d_head))[:, order.to(stored.device)].flatten(0, 1)

    return Linear(ordered(each.weight), None if each.bias is None else ordered(each.bias))
