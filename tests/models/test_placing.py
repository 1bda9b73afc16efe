"""Which part of a model lies on which GPU: by accelerate, on GPUs that are only pretended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from circuitdsl.models.errors import ModelUnavailable
from circuitdsl.models.load import load_model
from circuitdsl.models.model import device_name, map_of
from circuitdsl.models.outline import weights_by_device
from circuitdsl.models.placing import WEIGHTS, placed
from circuitdsl.models.pretrained import shapes_alone
from circuitdsl.verify import planned
from circuitdsl.verify.session import Session
from tests.models.test_load import save

BIG = 10**9


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend GPUs with so many free bytes each."""

    def pretend(*free: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(free))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda at: (free[at], free[at]))

    return pretend


def llama(layers: int, **options: object) -> object:
    from transformers import AutoConfig

    sizes = {"vocab_size": 100, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    return shapes_alone(AutoConfig.for_model("llama", num_hidden_layers=layers, **sizes, **options), torch.float32)


@pytest.mark.parametrize("word", ["balanced", "auto"])
@pytest.mark.parametrize("tied", [False, True])
def test_layers_stay_whole_and_follow_each_other(word: str, tied: bool) -> None:
    places = placed(llama(6, tie_word_embeddings=tied), torch.float32, word, {0: BIG, 1: BIG, 2: BIG})
    layers = [places[f"model.layers.{at}"] for at in range(6)]
    assert layers == sorted(layers) and set(layers) == {0, 1, 2}, "each GPU has some"
    assert not any(name.startswith("model.layers.") and name.count(".") > 2 for name in places), "none is cut"
    assert places["model.embed_tokens"] == 0 and places["model.norm"] == 2
    assert places["lm_head"] == (0 if tied else 2)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match=r"weights take 0\.0 GB, and 2 GPUs have room for 0\.0 GB") as error:
        placed(llama(6), torch.float32, "balanced", {0: 20_000, 1: 20_000})
    assert error.value.hint == "take a smaller dtype, or more GPUs"


@pytest.mark.parametrize(
    ("free", "device", "word", "message", "hint"),
    [
        (
            (),
            "auto",
            "balanced",
            "there is no CUDA device here, and a device map lays a model over several GPUs",
            "map",
        ),
        ((BIG,), "cuda", "auto", "there is one GPU here, and a device map lays a model over several GPUs", "map"),
        (
            (BIG, BIG),
            "cpu",
            "auto",
            "a device map lays a model over all GPUs, and device cpu is one device",
            "leave out",
        ),
        ((BIG, BIG), "cuda:1", "auto", "and device cuda:1 is one device", "leave out"),
        ((BIG, BIG), "auto", "sequential", "device map sequential is not known; use one of balanced, auto", ""),
        ((BIG, BIG), "cuda:balanced", None, "device cuda:balanced is not known", ""),
    ],
)
def test_where_a_map_makes_no_sense(
    gpus: Callable[..., None], free: tuple[int, ...], device: str, word: str | None, message: str, hint: str
) -> None:
    gpus(*free)
    with pytest.raises(ModelUnavailable, match=message) as error:
        load_model("pocket", device=device, device_map=word)
    assert hint in str(error.value.hint)
    with pytest.raises(ModelUnavailable, match=message), Session(device=device, device_map=word) as session:
        session.verify("pocket/ioi")


def test_a_map_stands_in_the_name_of_the_device(gpus: Callable[..., None]) -> None:
    gpus(BIG, BIG)
    assert device_name("auto", "balanced") == "cuda:balanced"
    assert [map_of(name) for name in ("cuda:balanced", "cuda:auto", "cuda:1", "cuda", "cpu")] == [
        *("balanced", "auto", "", "", "")
    ]


@pytest.mark.parametrize("tied", [False, True])
def test_bytes_by_device_are_those_of_the_files(tied: bool, gpus: Callable[..., None], tmp_path: Path) -> None:
    gpus(BIG, BIG)
    path = save("llama", tmp_path, vocab_size=200, num_hidden_layers=4, tie_word_embeddings=tied)
    found = weights_by_device(path, "auto", "balanced", "bfloat16")
    numbers = sum(weight.numel() for weight in load_model(path, "cpu").original.module.parameters())  # type: ignore[union-attr]
    assert list(found) == ["cuda:0", "cuda:1"] and sum(found.values()) == 2 * numbers
    assert min(found.values()) > numbers / 2
    gpus(int(numbers / WEIGHTS), int(2 * numbers / WEIGHTS))
    short = weights_by_device(path, "auto", "balanced", "bfloat16")
    assert short["cuda:0"] <= numbers < short["cuda:1"], "no GPU is given more than it has room for"


def test_plan_says_what_each_gpu_holds(gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(BIG, BIG)
    monkeypatch.setattr(planned, "device_named", lambda name: torch.device({"cuda": "cpu"}[name]))
    with Session(device_map="auto", cache=False) as session:
        (found,) = session.plan("pocket/ioi", prompts=8)
    assert list(found.weights_by_device) == ["cuda:0", "cuda:1"]
    assert sum(found.weights_by_device.values()) == found.weights == found.model["parameters"] * 4
    first, second = (f"{number / 1e6:,.0f} MB" for number in found.weights_by_device.values())
    assert f"  weights by device: cuda:0 {first}, cuda:1 {second}; what is measured lies" in str(found)
    assert "· cpu:auto float32" in str(found) and "by device" not in str(replace(found, weights_by_device={}))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices here")
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_a_model_on_several_gpus_gives_the_logits_of_one(kind: str, tmp_path: Path) -> None:
    from circuitdsl.models.agreement import forward

    path, tokens = save(kind, tmp_path, num_hidden_layers=4), torch.arange(8)[None]
    near, far = load_model(path, "cpu"), load_model(path, device_map="balanced")  # which checks it against accelerate's
    assert len({block.device for block in far.blocks}) > 1
    with torch.inference_mode():
        assert (forward(far, tokens.to(far.device)).cpu() - forward(near, tokens)).abs().max() < 1e-3
