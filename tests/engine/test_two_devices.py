"""A model on two devices, which are only pretended, gives the numbers of one; its weights stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from circuitdsl.models import devices
from circuitdsl.models.agreement import forward
from circuitdsl.models.parts import Transformer
from tests.drawing import examples
from tests.engine.small_models import SIZES, make_case
from tests.engine.test_device import found, with_means
from tests.far_device import FAR, FARTHER, FarDevice, far_device, sent, spread


@pytest.fixture
def model(family: str, random_model: Callable[[str], Transformer]) -> Transformer:
    return random_model(family)


@pytest.fixture
def device(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarDevice]:
    """Two far devices, once the model is loaded here."""
    monkeypatch.setattr(devices, "_ORDER", {})
    with far_device(monkeypatch) as device:
        yield device


def laid_out(model: Transformer) -> Transformer:
    made = spread(model)
    devices.several([made.device, *(block.device for block in made.blocks)])
    return made


@pytest.mark.parametrize("family", examples(("gemma2",), tuple(SIZES)))
def test_two_devices_give_the_numbers_of_one(family: str, model: Transformer, device: FarDevice) -> None:
    """All that runs in batches, to the last bit. A mixture of devices is an error there, as it is on GPUs."""
    one = found(with_means(make_case(sent(model))))
    assert not device.moves
    both = laid_out(model)
    two = found(with_means(make_case(both)))
    assert all(torch.equal(here, there) for here, there in zip(one, two, strict=True))
    assert {each.device for each in (both.W_E, both.W_U)} == {FAR, FARTHER}
    weights = {each.near.untyped_storage().data_ptr() for each in tensors(both)}
    moved = {each.near.untyped_storage().data_ptr() for _, _, each in device.moves}
    assert moved and not weights & moved, "a weight was copied"


def tensors(part: object) -> list:
    """The tensors that a part of a model is made of."""
    if isinstance(part, torch.Tensor):
        return [part]
    if isinstance(part, tuple):
        return [each for one in part for each in tensors(one)]
    fields = getattr(part, "__dataclass_fields__", {})
    return [each for name in fields if name not in ("original", "tokenizer") for each in tensors(getattr(part, name))]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2", "falcon"])
def test_the_residual_stream_moves_where_a_layer_lies_elsewhere_and_nothing_else_does(
    family: str, model: Transformer, device: FarDevice
) -> None:
    model = laid_out(model)
    tokens = torch.arange(10).view(2, 5).to(FAR)
    with torch.inference_mode():
        forward(model, tokens)
    assert [(of, to, tuple(each.shape)) for of, to, each in device.moves] == [(FAR, FARTHER, (2, 5, model.d_model))]


@pytest.mark.parametrize("family", ["gpt2"])
def test_without_a_model_on_several_devices_they_do_not_meet(
    family: str, model: Transformer, device: FarDevice
) -> None:
    model = spread(model)
    with pytest.raises(AssertionError, match="mixes devices"), devices.meeting():
        model.W_E[:1] + model.W_U[:1]
    devices.several([FAR, FARTHER])
    with devices.meeting(), devices.meeting():
        here, there = torch.ones(2).to(FAR), torch.ones(2).to(FARTHER)
        assert (here + there).device == (there + here).device == FARTHER, "the device that comes last"
        here += there
        assert here.device == FAR and here[torch.arange(1).to(FARTHER)].device == FAR
        there[torch.arange(1).to(FAR)] = here[:1]
        assert there.tolist() == [2, 1] and there.device == FARTHER
        assert torch.cat([here, there]).device == FARTHER and torch.add(here, there, out=here.clone()).device == FAR
        assert torch.nn.functional.linear(there, here[None]).device == FAR, "a weight stays"
        assert here.to(there).device == FARTHER and there.to(here).device == FAR
    assert not torch.overrides._get_current_function_mode_stack(), "nothing is left behind"
