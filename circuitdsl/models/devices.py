"""One model on several devices: its layers lie on one after the other, and what is computed goes from each to the next.

A tensor stays where it was computed. In `meeting`, an operation on tensors of several devices runs on the one that is
last in the order of layers, and what it needs of the others is copied there. So the residual stream is copied where a
layer lies elsewhere than the one before. What a sender has written is copied to the layer that reads it, and indices to
where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: the devices of models that lie on several, in the order of their layers; none where no model does
_ORDER: dict[torch.device, int] = {}
#: whether this thread is in `meeting`
_INSIDE = ContextVar("_INSIDE", default=False)
#: operations whose result lies where their first argument does
_OF_FIRST = {"__getitem__", "__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ior__", "__iand__"}
#: operations that take tensors of several devices by themselves
_ACROSS = {"to", "copy_", "type_as"}


def several(devices: Iterable[torch.device]) -> None:
    """Note on which devices the layers of a model lie, in their order."""
    found = dict.fromkeys(devices)
    if len(found) > 1:
        for device in found:
            _ORDER.setdefault(device, len(_ORDER))


def beside(device: torch.device) -> tuple[torch.device, ...]:
    """A device, and those on which the rest of its model may lie."""
    return tuple(_ORDER) if device in _ORDER else (device,)


@contextmanager
def meeting() -> Iterator[None]:
    """In here tensors of several devices may meet, if there are models on several."""
    if not _ORDER or _INSIDE.get():
        yield
        return
    token = _INSIDE.set(True)
    try:
        with _Meeting():
            yield
    finally:
        _INSIDE.reset(token)


class _Meeting(TorchFunctionMode):
    """See `meeting`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        found = {each.device for each in _tensors((args, *given.values())) if each.ndim or each.device.type != "cpu"}
        if len(found) > 1 and (name := func.__name__) not in _ACROSS:
            device = _device(name, args, given, found)
            args, given = _sent(args, device), {key: _sent(value, device) for key, value in given.items()}
        return func(*args, **given)


def _device(name: str, args: tuple[Any, ...], given: dict[str, Any], found: set[torch.device]) -> torch.device:
    """Where an operation on tensors of several devices runs."""
    first: Tensor | None = given.get("out")
    if first is None and (name in _OF_FIRST or (name.endswith("_") and not name.endswith("__"))):
        first = args[0]
    if first is None and name == "linear":
        first = args[1]  # the weight
    return max(found, key=lambda device: _ORDER.get(device, -1)) if first is None else first.device


def _tensors(part: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples and lists."""
    for each in part:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, tuple | list):
            yield from _tensors(each)


def _sent(part: Any, device: torch.device) -> Any:
    """What an operation is given, on another device."""
    if isinstance(part, Tensor):
        return part if part.device == device or (not part.ndim and part.device.type == "cpu") else part.to(device)
    return type(part)(_sent(each, device) for each in part) if type(part) in (tuple, list) else part
