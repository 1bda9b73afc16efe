"""A model's weights are in memory once, whatever is done with them while it is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from circuitdsl.models import products, record
from circuitdsl.models.agreement import check_sum, in_single_precision
from circuitdsl.models.load import all_finite, load_model
from circuitdsl.models.original import Original
from circuitdsl.models.record import open_model
from tests.models.test_load import save

#: the vocabulary is what is large in these models
VOCAB, WIDTH = 3000, 64


class Largest(TorchDispatchMode):
    """The most numbers of a tensor that was made and filled in here."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor)}
        made = isinstance(found, Tensor) and found.untyped_storage().data_ptr() not in given
        if made and "empty" not in func._schema.name:  # of such, only what is filled is in memory
            self.numbers = max(self.numbers, found.numel())
        return found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_the_check_in_half_precision_converts_no_large_matrix_whole(
    kind: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "CONVERTED", 2**10)
    path = save(kind, tmp_path, vocab_size=VOCAB, hidden_size=WIDTH, tie_word_embeddings=tied)
    model = load_model(path, device="cpu", dtype="bfloat16")
    found, true = Largest(), Original.logits
    seen = []

    def logits(self: Original, *given: Any, **how: Any) -> Tensor:
        seen.append(how.get("exactly"))
        return true(self, *given, **how)

    monkeypatch.setattr(Original, "logits", logits)
    assert model.original is not None
    with found:
        check_sum(model, model.original)
    assert any(seen), "nothing was computed in single precision"
    rows = 12 * 2  # whose logits are compared
    assert rows * VOCAB <= found.numbers < 2 * rows * VOCAB, "the largest are logits"
    assert 2 * rows < WIDTH, "which are smaller than the table"


def test_products_in_another_number_format_are_those_of_a_converted_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    made = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=made) for shape in ((3, 5, 8), (7, 8), (7,)))
    weight, bias = weight.bfloat16(), bias.bfloat16()
    expected = torch.nn.functional.linear(x, weight.float(), bias.float())
    assert torch.equal(products.linear(x, weight, bias), expected)
    for size in (1, 16, 24):
        monkeypatch.setattr(products, "CONVERTED", size)
        assert torch.allclose(products.linear(x, weight, bias), expected, atol=1e-6)


def test_logits_in_single_precision_are_those_of_converted_weights(tmp_path: Path) -> None:
    for kind in ("gpt2", "gemma2", "mixtral"):
        path = save(kind, tmp_path / kind)
        half = load_model(path, device="cpu", dtype="bfloat16")
        assert half.original is not None
        tokens = torch.arange(8)[None]
        exact = in_single_precision(half, tokens)
        theirs = half.original.logits(tokens, 0, 8, exactly=True)
        whole = half.original.module.float()(tokens).logits
        assert exact is not None and torch.allclose(exact, whole, atol=1e-4)
        assert torch.allclose(theirs, whole, atol=1e-5)


def test_weights_that_are_as_they_were_read_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save("llama", tmp_path / "model", dtype=torch.bfloat16)
    monkeypatch.setattr(record, "_same", lambda *_: pytest.fail("a tensor is read and compared once more"))
    open_model(path, "cpu", "bfloat16", folder=tmp_path / "cache")
    known = open_model(path, "cpu", "bfloat16", folder=tmp_path / "cache")
    assert not known.is_read
    whole = load_model(path, "cpu", "bfloat16")
    assert torch.equal(known.parts.blocks[1].mlp.down.weight, whole.blocks[1].mlp.down.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_found_by_their_sum(number: float) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        large = torch.full((600, 3), torch.finfo(dtype).max, dtype=dtype)
        assert all_finite(large), "finite numbers whose sum is not"
        large[599, 1] = number
        assert not all_finite(large)
        assert not all_finite(torch.tensor([1.0, number, -number], dtype=dtype))


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux")
def test_loading_takes_hardly_more_memory_than_the_weights() -> None:
    code = (
        "import tempfile, torch; from functools import partial; from pathlib import Path\n"
        "from benchmarks.growth_big import big_llama, bytes_of\n"
        "from benchmarks.engine_meter import peak_bytes\n"
        "from circuitdsl.models.load import POCKET, load_model\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    place = big_llama(Path(folder), '100m'); load_model(POCKET, 'cpu', 'bfloat16')\n"
        "    peak = peak_bytes(torch.device('cpu'), partial(load_model, place, 'cpu', 'bfloat16'))\n"
        "    print(peak - bytes_of(place))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 90e6, "beside 198 MB of weights: of libraries, and of the check"
