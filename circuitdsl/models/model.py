"""A model as everything but the engine sees it: its size, its hash, its tokenizer. Its parts are read when needed.

Nothing here imports torch before it must: where every number is known from earlier, no tensor is read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitdsl.installed import version

if TYPE_CHECKING:
    from circuitdsl.models.original import Original
    from circuitdsl.models.parts import Transformer

#: models up to this width run on one thread: sharing such small matrices costs more than it saves
SMALL_WIDTH = 256
#: how a model may be laid over several GPUs
DEVICE_MAPS = ("balanced", "auto")
#: files by which a machine says that torch may find an accelerator: NVIDIA's, Windows' for Linux, AMD's
_ACCELERATORS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


@dataclass(frozen=True)
class Model:
    """What is known of a model without its tensors.

    Attributes:
        name: as the user gave it.
        sha256, config_sha256, tokenizer_sha256: of the files that it is read from; "" for none.
        n_ctx: the longest prompt, in tokens.
        device, dtype: where it runs and in which number format, as text.
        digest: a hash of what it computes: of its files, or of its logits where it comes from none.
        library: a hash of its configuration and of the library that runs it; None where no library does.
        products: what multiplies matrices on this machine.
        threads: torch's own number of threads on this machine.
        tokenizer: a Hugging Face tokenizer or what stands for it; None for a model that has none.
        read: reads its parts.
        whole: reads them as the library loads the model, which then is in memory once; None where `read` does as well.
        shapes: gives its parts without weights, where these are known without loading it.
        machine: what computes its numbers, where that is another process (`cache.machine_of`).
        away: asks the processes that hold the model, where this one does not (`engine.away`): gives answers as they
            come, each the number of a call and what its function gives, or that memory ran out. It raises what a
            function raises, and `UserError` where nobody can answer.
    """

    name: str
    sha256: str
    config_sha256: str
    tokenizer_sha256: str
    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    n_ctx: int
    n_vocab: int
    parallel: bool
    device: str
    dtype: str
    digest: bytes
    library: bytes | None
    products: str
    threads: int
    tokenizer: Any
    read: Callable[[], Transformer]
    whole: Callable[[], Transformer] | None = None
    shapes: Callable[[], Transformer] | None = None
    machine: str = ""
    away: Callable[[Sequence[Any]], Iterator[tuple[int, Any]]] | None = None

    @cached_property
    def parts(self) -> Transformer:
        """The tensors, which are read now if they were not; they run on as many threads as suit them."""
        return self._on_threads(self.read)

    @property
    def original(self) -> Original:
        """The model as its library runs it."""
        if self.whole and not self.is_read:
            self.__dict__["parts"] = self._on_threads(self.whole)
        found = self.parts.original
        assert found is not None, "asked of models alone that a library runs"
        return found

    def _on_threads(self, read: Callable[[], Transformer]) -> Transformer:
        import_module("torch")
        use_threads(self.suitable_threads)
        return self._noted(read())

    def _noted(self, parts: Transformer) -> Transformer:
        """The parts, after a note of how often they were written to."""
        from circuitdsl.models.outline import writes

        self.__dict__["writes"] = writes(parts)
        return parts

    @property
    def is_changed(self) -> bool:
        """Whether a program has written to its tensors since they were read."""
        if not self.is_read:
            return False
        from circuitdsl.models.outline import writes

        return writes(self.parts) != self.__dict__["writes"]

    @property
    def suitable_threads(self) -> int:
        """How many threads such a model runs on."""
        return suitable_threads(self.d_model, self.device, self.threads)

    @property
    def threads_in_use(self) -> int:
        """How many threads it runs on: those that are set, or those that will be when it is read."""
        return int(sys.modules["torch"].get_num_threads()) if self.is_read else self.suitable_threads

    @property
    def rounding(self) -> float:
        """The smallest number that changes 1 when it is added, in the model's number format."""
        return 2.0 ** -{"float32": 23, "float16": 10, "bfloat16": 7}[self.dtype]

    @property
    def is_read(self) -> bool:
        """Whether its tensors are in memory."""
        return "parts" in self.__dict__

    @classmethod
    def of(cls, parts: Transformer, digest: bytes | None = None, device: str = "") -> Model:
        """What is known of a model that is loaded, on one device if none is named."""
        from circuitdsl.models.agreement import logits_digest
        from circuitdsl.models.products import products_by

        made = cls(
            **{name: getattr(parts, name) for name in (*SIZES, *HASHES)},
            name=parts.name,
            device=device or str(parts.device),
            dtype=str(parts.dtype).removeprefix("torch."),
            digest=digest or logits_digest(parts),
            library=parts.original.digest if parts.original else None,
            products=products_by(parts.dtype, str(parts.device)),
            threads=torch_threads(),
            tokenizer=parts.tokenizer,
            read=lambda: parts,
        )
        made.__dict__["parts"] = made._noted(parts)
        return made


#: what a model and its parts both say of the files that they are read from, and of their size
HASHES = ("sha256", "config_sha256", "tokenizer_sha256")
SIZES = ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_ctx", "n_vocab", "parallel")


def as_model(model: Model | Transformer) -> Model:
    """What is known of a model, loaded or not."""
    return model if isinstance(model, Model) else Model.of(model)


def device_name(device: str, device_map: str | None = None) -> str:
    """`auto`, `cpu` or `cuda` as the name of a device, without torch where that is possible.

    Args:
        device_map: one of `DEVICE_MAPS`, by which the name is `cuda:balanced` or `cuda:auto`; None for one device.

    Raises:
        ModelUnavailable: there is no such device, or there are not several.
    """
    if device_map is not None:
        import_module("circuitdsl.models.placing").gpus(device, device_map)
        return f"cuda:{device_map}"
    if "torch" not in sys.modules:
        accelerated = sys.platform != "linux" or any(Path(name).exists() for name in _ACCELERATORS)
        if device == "cpu" or (device == "auto" and (version("torch").endswith("+cpu") or not accelerated)):
            return "cpu"
    from circuitdsl.models.load import device_named

    return str(device_named(device))


def map_of(device: str) -> str:
    """Which of `DEVICE_MAPS` the name of a device holds; "" for one device."""
    word = device.partition(":")[2]
    return word if word in DEVICE_MAPS else ""


def suitable_threads(width: int, device: str, threads: int) -> int:
    """How many of torch's threads a model of a width runs on."""
    return 1 if device == "cpu" and width <= SMALL_WIDTH else threads


def use_threads(threads: int) -> None:
    """Let torch, where it is imported, run on so many threads, until `restore_threads`."""
    if torch := sys.modules.get("torch"):
        _THREADS["own"], _THREADS["set"] = torch_threads(), threads
        torch.set_num_threads(threads)


def torch_threads() -> int:
    """Torch's own number of threads, where this package has not set another."""
    import torch

    now = torch.get_num_threads()
    return _THREADS["own"] if now == _THREADS.get("set") else now


def restore_threads() -> None:
    """Give torch back its own number of threads, where another was set."""
    if _THREADS and (torch := sys.modules.get("torch")):
        torch.set_num_threads(torch_threads())
        _THREADS.clear()


def processor() -> str:
    """What Linux says of the processor; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def machine() -> str:
    """What decides how torch computes on this machine, as far as that is known without torch."""
    cpu = next((line for line in processor().splitlines() if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    settings = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
    return f"{sys.platform} {cpu} {cores} {sorted(settings.items())}"


#: how variables begin that change how torch computes
_SETTINGS = ("OMP_", "MKL_", "ONEDNN_", "DNNL_", "ATEN_", "KMP_", "GOMP_", "TORCH_", "PYTORCH_", "CUDA_")
#: the number of threads that torch had, and that this package has set
_THREADS: dict[str, int] = {}
