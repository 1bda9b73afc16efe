"""Pretended accelerators: their tensors say that they are elsewhere, and behave like CUDA's where that can go wrong.

Numbers lie on the CPU, so that results can be compared. What CUDA refuses is refused: to mix tensors of two devices.
What makes the host wait for CUDA is noted: to read a value back, to make a shape from values, to copy from memory that
is not pinned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from circuitdsl.models.parts import Transformer

#: devices without hardware that PyTorch lets tensors name
FAR, FARTHER = torch.device("meta"), torch.device("meta:1")
#: operations whose result, or its shape, the host must know
ASKING = {
    "_local_scalar_dense",
    "nonzero",
    "is_nonzero",
    "equal",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
}
#: operations that take indices from the host as well
INDEXED = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}

P = TypeVar("P")


class FarTensor(Tensor):
    """A tensor over there."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor, device: torch.device = FAR) -> FarTensor:
        with torch.inference_mode(False):
            made = Tensor._make_wrapper_subclass(
                cls, near.shape, strides=near.stride(), dtype=near.dtype, device=device
            )
        made.near = near
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a far tensor outside of its device")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"far {self.near!r}"


class FarDevice(TorchDispatchMode):
    """In here there are far devices.

    Attributes:
        waits: operations that made the host wait, since `waits` was last emptied.
        ran: how many operations ran there.
        moves: the tensors that were copied from one far device to another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.ran = 0
        self.moves: list[tuple[torch.device, torch.device, Tensor]] = []
        self.pinned: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        with self:  # inference mode hands over operations that are made of others
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        given = [x for x in _leaves((args, tuple(kwargs.values()))) if isinstance(x, Tensor)]
        far = [x for x in given if isinstance(x, FarTensor)]
        name = func._schema.name.removeprefix("aten::")
        wanted = kwargs.get("device")
        if wanted is not None and torch.device(wanted).type == FAR.type:
            kwargs["device"] = torch.device("cpu")
        elif not far and name not in ("_to_copy", "copy_"):
            return func(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            return self._copied(name, func, args, kwargs, wanted)
        self._check_devices(name, args, given)
        self.ran += 1
        if name in ASKING or self._has_mask(name, given) or func is torch.ops.aten.repeat_interleave.Tensor:
            self.waits.append(str(func))
        found = func(*_near(args), **{key: _near(value) for key, value in kwargs.items()})
        known = {id(x.near): x for x in far}  # what is changed in place stays the tensor that it was
        return _far(found, known, torch.device(wanted) if wanted is not None else far[0].device)

    def _copied(self, name: str, func: Any, args: Any, kwargs: Any, wanted: Any) -> Any:
        """A copy between devices, or on one of them."""
        source, into = (args[0], wanted) if name == "_to_copy" else (args[1], args[0].device)
        was_far, there = isinstance(source, FarTensor), source.device if into is None else torch.device(into)
        is_far = there.type == FAR.type
        if was_far and is_far and source.device != there:
            self.moves.append((source.device, there, source))
        blocking = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2])) or id(source) not in self.pinned
        if was_far != is_far and (was_far or blocking):
            self.waits.append(f"{func} {'from' if was_far else 'to'} the device")
        found = func(*_near(args), **kwargs)
        if name == "copy_":
            return args[0]
        return FarTensor(found, there) if is_far else found

    def _check_devices(self, name: str, args: Any, given: list[Tensor]) -> None:
        """All tensors are far, but for single numbers, and for indices, which are then copied."""
        indices = [x for x in args[1] if x is not None] if name in INDEXED and isinstance(args[0], FarTensor) else []
        if any(not isinstance(x, FarTensor) for x in indices):
            self.waits.append(f"{name} by an index that is not on the device")
        near = [x for x in given if x.ndim and not isinstance(x, FarTensor) and not any(x is i for i in indices)]
        if near or len({x.device for x in given if isinstance(x, FarTensor)}) > 1:
            shapes = [(str(x.device), tuple(x.shape)) for x in given]
            raise AssertionError(f"{name} mixes devices: {shapes}")

    @staticmethod
    def _has_mask(name: str, given: list[Tensor]) -> bool:
        """Whether something is indexed by a mask, which has to be counted first."""
        return name.startswith(("index", "_index")) and any(x.dtype in (torch.bool, torch.uint8) for x in given[1:])


def _leaves(x: Any) -> Iterator[Any]:
    """What stands in tuples and lists."""
    if isinstance(x, tuple | list):
        for part in x:
            yield from _leaves(part)
    else:
        yield x


def _near(x: Any) -> Any:
    """The tensors here, of those over there."""
    if isinstance(x, tuple | list):
        return type(x)(map(_near, x))
    return x.near if isinstance(x, FarTensor) else x


def _far(x: Any, known: dict[int, FarTensor], device: torch.device) -> Any:
    """Tensors over there, with these here; those that are known are not made anew."""
    if isinstance(x, tuple | list):
        return type(x)(_far(part, known, device) for part in x)
    if not isinstance(x, Tensor):
        return x
    return known[id(x)] if id(x) in known else FarTensor(x, device)


@contextmanager
def far_device(monkeypatch: Any) -> Iterator[FarDevice]:
    """A far device, and memory that can be pinned for it."""
    device = FarDevice()

    def pin(tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        device.pinned.add(id(copy))
        kept.append(copy)  # an identity is not used twice
        return copy

    kept: list[Tensor] = []
    with monkeypatch.context() as patch, device:
        patch.setattr(Tensor, "pin_memory", pin)
        yield device


def sent(part: P, device: torch.device = FAR) -> P:
    """A record with all its tensors on a far device."""
    if isinstance(part, Tensor):
        return FarTensor(part, device)  # type: ignore[return-value]
    if isinstance(part, tuple):
        return tuple(sent(each, device) for each in part)  # type: ignore[return-value]
    if is_dataclass(part) and not isinstance(part, type):
        inside = {field.name: getattr(part, field.name) for field in fields(part) if field.init}
        # the library's own model knows of no far device
        kept = {"tokenizer": inside.get("tokenizer"), "original": None}
        return replace(part, **{k: kept[k] if k in kept else sent(v, device) for k, v in inside.items()})  # type: ignore
    return part


def spread(model: Transformer) -> Transformer:
    """A model with the first half of its layers on one far device, and the rest on another."""
    half = -(-model.n_layers // 2)
    first, rest = sent(replace(model, blocks=model.blocks[:half])), sent(model, FARTHER)
    last = {"final_norm": rest.final_norm, "W_U": rest.W_U, "b_U": rest.b_U}
    return replace(first, blocks=(*first.blocks, *rest.blocks[half:]), **last)  # type: ignore[arg-type]
