"""Which part of a model lies on which GPU, where one does not hold it: `--device-map`, by accelerate's functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from circuitdsl.models.errors import ModelUnavailable
from circuitdsl.models.model import DEVICE_MAPS

if TYPE_CHECKING:
    import torch

#: the share of a GPU's free memory that weights may take; the rest is for measuring
WEIGHTS = 0.85


def gpus(device: str, device_map: str) -> dict[int, int]:
    """The GPUs that a model may be laid over, and the bytes of its weights that each may take.

    Raises:
        ModelUnavailable: the word for the map is not known, one device is named, or there are not several GPUs.
    """
    if device_map not in DEVICE_MAPS:
        raise ModelUnavailable(f"device map {device_map} is not known; use one of {', '.join(DEVICE_MAPS)}")
    if device not in ("auto", "cuda"):
        raise ModelUnavailable(
            f"a device map lays a model over all GPUs, and device {device} is one device",
            "leave out --device, or leave out --device-map",
        )
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        found = "one GPU" if count else "no CUDA device"
        raise ModelUnavailable(
            f"there is {found} here, and a device map lays a model over several GPUs", "leave out --device-map"
        )
    return {at: int(torch.cuda.mem_get_info(at)[0] * WEIGHTS) for at in range(count)}


def placed(outline: Any, dtype: torch.dtype, device_map: str, room: Mapping[int, int]) -> dict[str, int]:
    """The GPU of each part of a model by its name; layers stay whole, and follow each other.

    Args:
        outline: the model on the `meta` device.
        device_map: `balanced`, or `auto`, which is accelerate's choice: balanced as well.
        room: bytes of weights that each GPU may take.

    Raises:
        ModelUnavailable: the GPUs do not hold it together.
    """
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    outline.tie_weights()
    whole = list(outline._no_split_modules or ())
    balanced = get_balanced_memory(outline, dict(room), whole, dtype)
    found: dict[str, int] = dict(infer_auto_device_map(outline, balanced, whole, dtype))
    if not set(found.values()) <= set(room):
        size = sum({id(each): each.numel() for each in outline.parameters()}.values()) * dtype.itemsize
        raise ModelUnavailable(
            f"the model's weights take {size / 1e9:,.1f} GB, and {len(room)} GPUs have room for "
            f"{sum(room.values()) / 1e9:,.1f} GB of them in whole layers",
            "take a smaller dtype, or more GPUs",
        )
    return found


def bytes_by_device(outline: Any, dtype: torch.dtype, places: Mapping[str, int]) -> dict[int, int]:
    """Bytes of weights on each GPU; a tensor that serves twice (tied embeddings) counts once."""
    found: Counter[int] = Counter(dict.fromkeys(sorted(set(places.values())), 0))
    for name, weight in outline.named_parameters():
        part = max((each for each in places if f"{name}.".startswith(f"{each}.") or not each), key=len)
        found[places[part]] += weight.numel() * dtype.itemsize
    return dict(found)
