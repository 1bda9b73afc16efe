"""Products with weights are the same whichever library does them."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitdsl.models import products
from circuitdsl.models.products import linear, linear_gelu, prefers_one_dnn, products_by


@pytest.fixture
def one_dnn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Products of any size go to oneDNN; the shapes of their inputs, as they come."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch was built without oneDNN")
    seen: list[tuple[int, ...]] = []
    real = products._one_dnn()

    def counted(x: Tensor, weight: Tensor, *rest: object) -> Tensor:
        assert weight.is_contiguous() or weight.T.is_contiguous(), "oneDNN is very slow on weights in pieces"
        seen.append(tuple(x.shape))
        return real(x, weight, *rest)

    monkeypatch.setattr(products, "FEWEST", 0)
    monkeypatch.setattr(products, "COPY_ROWS", 0)
    monkeypatch.setattr(products, "prefers_one_dnn", lambda: True)
    monkeypatch.setattr(products, "_one_dnn", lambda: counted)
    return seen


def inputs(kind: str) -> Tensor:
    x = torch.randn(5, 9, 4, 48, generator=torch.Generator().manual_seed(1))
    return {
        "whole": x,
        "last positions": x[:, 3:],
        "every other": x[:, ::2],
        "repeated": x[:1].expand(5, -1, -1, -1),
        "turned": x[0, 0].T.contiguous().T,
        "one row": x[0, 0, 0],
        "no row": x[:0],
    }[kind]


@pytest.mark.parametrize("kind", ["whole", "last positions", "every other", "repeated", "turned", "one row", "no row"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_by_either(one_dnn: list[tuple[int, ...]], kind: str, bias: bool) -> None:
    x, made = inputs(kind), torch.Generator().manual_seed(2)
    stored = torch.randn(48, 160, generator=made)
    add = torch.randn(160, generator=made)
    # as GPT-2 stores its weights; a head's rows of them; the usual way round; a head's columns
    for weight, b in ((stored.T, add), (stored.T[32:64], add[32:64]), (stored.T.contiguous(), add)):
        b = b if bias else None
        expected = F.linear(x, weight, b)
        torch.testing.assert_close(linear(x, weight, b), expected, rtol=1e-5, atol=1e-4)
        for how in ("none", "tanh"):
            wanted = F.gelu(expected, approximate=how)
            torch.testing.assert_close(linear_gelu(x, weight, b, how), wanted, rtol=1e-5, atol=1e-4)
    columns = stored[:, 16:64]
    torch.testing.assert_close(linear(x, columns), F.linear(x, columns), rtol=1e-5, atol=1e-4)
    assert one_dnn == [tuple(x.shape)] * 10


def test_a_gelu_follows_in_the_same_call(one_dnn: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(4, 1100), torch.randn(6, 1100) / 1100**0.5
    for inputs, calls in ((1024, 1), (1025, 5)):
        made = linear_gelu(x[:, :inputs], weight[:, :inputs], None, "tanh")
        torch.testing.assert_close(made, F.gelu(x[:, :inputs] @ weight[:, :inputs].T, approximate="tanh"))
        assert len(one_dnn) == calls
        one_dnn.clear()


def test_the_two_gelus_differ(one_dnn: list[tuple[int, ...]]) -> None:
    x = torch.linspace(-4, 4, 81)[:, None]
    exact, tanh = (linear_gelu(x, torch.ones(1, 1), None, how) for how in ("none", "tanh"))
    assert (exact - tanh).abs().max() > 1e-4
    assert one_dnn


def test_gradients_and_other_numbers_are_left_to_torch(one_dnn: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(4, 8), torch.randn(6, 8, requires_grad=True)
    linear(x, weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(6, 8))
    linear(x.bfloat16(), weight.detach().bfloat16())
    linear(x.double(), weight.detach().double())
    assert not one_dnn


@pytest.mark.parametrize("given", [None, "7"])
def test_one_dnn_is_told_at_its_first_use_how_many_shapes_to_remember(
    monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    name, own = products.SHAPES
    monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(name, given)
    told: list[str | None] = []
    monkeypatch.setattr(products, "_is_amd", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(products, "_agrees", lambda: bool(told.append(os.environ.get(name))))
    prefers_one_dnn.cache_clear()
    try:
        prefers_one_dnn()
    finally:
        prefers_one_dnn.cache_clear()
    assert told == [given or own] and os.environ.get(name) == given


def test_one_dnn_is_not_used_where_it_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_is_amd", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(products, "_one_dnn", lambda: lambda x, weight, bias, *_: F.linear(x, weight, bias) * 1.001)
    prefers_one_dnn.cache_clear()
    try:
        assert not prefers_one_dnn()
    finally:
        prefers_one_dnn.cache_clear()


@pytest.mark.skipif(not prefers_one_dnn(), reason="this machine's products go to MKL")
@pytest.mark.parametrize("inputs", [768, 3072])
@pytest.mark.parametrize("transposed", [False, True])
def test_rounding_errors_are_no_larger_than_mkls(inputs: int, transposed: bool) -> None:
    """Exactness is judged in float32: a faster product must not be a coarser one."""
    made = torch.Generator().manual_seed(0)
    x = torch.randn(640, inputs, generator=made)
    weight = torch.randn(768, inputs, generator=made) / inputs**0.5
    weight = weight.T.contiguous().T if transposed else weight
    exact = x.double() @ weight.T.double()
    with torch.inference_mode():
        errors = [float((made - exact).square().mean().sqrt()) for made in (linear(x, weight), x @ weight.T)]
    assert errors[0] <= 1.25 * errors[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_multiplied_in_float32_where_that_is_faster(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias = (torch.randn(size).to(dtype) for size in ((3, 40), (20, 40), (20,)))
    seen: list[torch.dtype] = []
    true = torch.nn.functional.linear

    def counted(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(x.dtype)
        return true(x, *rest)

    monkeypatch.setattr(products.F, "linear", counted)
    monkeypatch.setattr(products, "prefers_one_dnn", lambda: False)
    for instructions, by in (("flags : avx2", torch.float32), ("flags : avx512_bf16 avx512_fp16", dtype), ("", dtype)):
        monkeypatch.setattr(products, "processor", lambda instructions=instructions: instructions)
        products.has_instructions.cache_clear()
        found = linear(x, weight, bias)
        assert (found.dtype, seen.pop()) == (dtype, by)
        assert torch.allclose(found.float(), true(x.float(), weight.float(), bias.float()), atol=0.1)
        assert products_by(dtype).endswith(" in float32") == (by == torch.float32)
    products.has_instructions.cache_clear()
