"""Products with weights, by the faster of the libraries that PyTorch has.

PyTorch gives float32 products on a CPU to MKL, which leaves the 512-bit instructions of AMD processors unused. oneDNN,
which PyTorch ships as well, uses them and is about twice as fast there. Both add up the same products in float32, in
another order. oneDNN rounds more: at 3072 inputs its error is twice that of MKL. With `PIECE` inputs at a time, the
error is about that of MKL (1.1 times), at hardly any cost. What a GELU follows is not cut up to `GELU_PIECE` inputs.
Its error is then 1.5 times that of MKL. On effects of edges, which other rounding decides, no difference could be
measured, and an MLP takes two thirds of the time.

Products in half precision are fast on processors that have instructions for them. On others they take 2.5 times as long
as in float32, and there weights are converted for each product, which costs 3 % of it. They are converted in parts that
stay in the processor's cache, so that no matrix is in memory a second time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuitdsl.models.model import processor

#: multiplications below which oneDNN's preparations for a new shape cost more than it saves
FEWEST = 2**24
#: inputs whose products oneDNN adds up at once
PIECE = 256
#: the same where a GELU follows, which oneDNN takes in the same pass over memory
GELU_PIECE = 1024
#: rows for which copying a cut weight is worth while: where it lies in pieces, oneDNN is slower by far than MKL
COPY_ROWS = 128
#: numbers of a weight that are converted at once to another number format
CONVERTED = 2**20
#: the variable by which oneDNN is told how many shapes to remember, and how many: those of a layer, on several threads
SHAPES = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32"
#: how far oneDNN may be from MKL in the product that is tried, as a share of the largest number
AGREE = 1e-5
#: instructions for products in half precision, as Linux names them
_INSTRUCTIONS = {
    torch.bfloat16: {"avx512_bf16", "amx_bf16", "bf16"},
    torch.float16: {"avx512_fp16", "amx_fp16", "asimdhp"},
}

Gelu = Literal["none", "tanh"]


def linear(
    x: Float[Tensor, "*rows in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*rows out"]:
    """`x W^T + b`, in the number format of `x`, whatever that of the weight is."""
    if _is_slow(x):
        return linear(x.float(), weight, bias).to(x.dtype)
    if weight.dtype != x.dtype:
        return in_parts(linear, x, weight, bias)
    return _in_pieces(x, weight, bias) if _large(x, weight) else F.linear(x, weight, bias)


def linear_gelu(
    x: Float[Tensor, "*rows in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None, approximate: Gelu
) -> Float[Tensor, "*rows out"]:
    """GELU of `x W^T + b`, its normal distribution exact (`none`) or by a tanh."""
    if weight.shape[1] <= GELU_PIECE and _large(x, weight):
        return _one_dnn()(x, _dense(weight), bias, "gelu", [], approximate)
    return F.gelu(linear(x, weight, bias), approximate=approximate)


def in_parts(
    product: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "*rows in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, " out"] | None = None,
) -> Float[Tensor, "*rows out"]:
    """`product(x, W) + b`, with some outputs of the weight after the other in the number format of `x`."""
    out, size = x.new_empty(*x.shape[:-1], len(weight)), max(1, CONVERTED // weight.shape[1])
    if torch.is_grad_enabled() and x.requires_grad:  # each part is read again for the gradient
        found = torch.cat([product(x, some.to(x.dtype)) for some in weight.split(size)], dim=-1)
        return found if bias is None else found + bias
    converted = torch.empty_like(weight[:size], dtype=x.dtype)  # the one memory of all parts
    for start, some in enumerate(weight.split(size)):
        at = slice(start * size, start * size + len(some))
        out[..., at] = product(x, converted[: len(some)].copy_(some))
    return out if bias is None else out.add_(bias)


def _is_slow(x: Tensor) -> bool:
    """Whether products in the number format are faster in float32."""
    return x.device.type == "cpu" and x.dtype in _INSTRUCTIONS and not has_instructions(x.dtype)


@cache
def has_instructions(dtype: torch.dtype) -> bool:
    """Whether this machine's processor multiplies in half precision, as far as that is known."""
    words = set(processor().split())
    return not words or bool(words & _INSTRUCTIONS[dtype])


def _in_pieces(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The sum of the products of `PIECE` inputs each."""
    found = _one_dnn()(x[..., :PIECE], _dense(weight[:, :PIECE]), bias, "none", [], "")
    for start in range(PIECE, weight.shape[1], PIECE):
        piece = slice(start, start + PIECE)
        found.add_(_one_dnn()(x[..., piece], _dense(weight[:, piece]), None, "none", [], ""))
    return found


def _large(x: Tensor, weight: Tensor) -> bool:
    """Whether a product is one that oneDNN does faster."""
    if x.numel() * weight.shape[0] < FEWEST or x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32:
        return False
    if not _is_dense(weight[:, :PIECE]) and x.numel() < COPY_ROWS * x.shape[-1]:
        return False
    needs_gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return not needs_gradient and prefers_one_dnn()


def _is_dense(weight: Tensor) -> bool:
    return weight.is_contiguous() or weight.T.is_contiguous()


def _dense(weight: Tensor) -> Tensor:
    """The weight in one piece, copied where it is a part of another (as GPT-2's queries, keys and values are)."""
    if _is_dense(weight):
        return weight
    return weight.T.contiguous().T if weight.stride(0) == 1 else weight.contiguous()


@cache
def prefers_one_dnn() -> bool:
    """Whether this machine is one on which oneDNN is faster than MKL, and gives the same."""
    if not (_is_amd() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")):
        return False
    try:
        with _few_shapes():
            return torch.backends.mkldnn.is_available() and _agrees()
    except (AttributeError, RuntimeError):  # PyTorch does not promise to keep this operation
        return False


@contextmanager
def _few_shapes() -> Iterator[None]:
    """Let oneDNN remember what it has made ready for few shapes, unless the user has said for how many.

    It reads that when it is first used. Batches have ever new shapes, and each would stay in memory.
    """
    given = os.environ.get(SHAPES[0])
    os.environ.setdefault(*SHAPES)
    try:
        yield
    finally:
        if given is None:
            del os.environ[SHAPES[0]]


def products_by(dtype: torch.dtype = torch.float32, device: str = "cpu") -> str:
    """What multiplies matrices on this machine."""
    name = "oneDNN" if prefers_one_dnn() else "default"
    return f"{name} in float32" if _is_slow(torch.empty(0, dtype=dtype, device=device)) else name


def _is_amd() -> bool:
    return "AuthenticAMD" in processor()


@torch.inference_mode()
def _agrees() -> bool:
    """Whether both give the same on a weight that is stored the other way round, as GPT-2's are, and cut."""
    made = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 7, 64, generator=made)[:, 2:], torch.randn(64, 96, generator=made).T[8:72]
    bias = torch.randn(64, generator=made)
    expected = F.linear(x, weight, bias)
    weight = _dense(weight)
    pairs = [(_one_dnn()(x, weight, bias, "none", [], ""), expected)]
    for approximate in ("none", "tanh"):
        pairs.append((_one_dnn()(x, weight, bias, "gelu", [], approximate), F.gelu(expected, approximate=approximate)))
    return all(float((a - b).abs().max()) <= AGREE * float(b.abs().max()) for a, b in pairs)


def _one_dnn() -> Any:
    return torch.ops.mkldnn._linear_pointwise
