"""How much is held at once: prompts in a cache and rows in a batch, by what is free or by what the user allows."""

from __future__ import annotations

from pathlib import Path

import torch

from circuitdsl.models.parts import Transformer

#: bytes that caches and a batch may take together on a CPU, and the share of what is free that they may take
CPU_BYTES, CPU_SHARE, GPU_SHARE = 480 * 2**20, 0.5, 0.8
#: of these bytes, the share of the caches and that of a batch; the rest is for what comes and goes
CACHES, BATCH = 0.45, 0.4
#: the most prompts whose runs are cached together, by kind of device
MOST_PROMPTS = {"cpu": 64, "cuda": 1024}


def allowed(device: torch.device, max_memory: int | None = None) -> int:
    """Bytes that caches and a batch may take together, beside the model; `max_memory` overrides the default."""
    if max_memory is not None:
        return max_memory
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int((free + unused) * GPU_SHARE)
    return min(CPU_BYTES, int(_free_on_host() * CPU_SHARE)) if device.type == "cpu" else CPU_BYTES


def _free_on_host() -> int:
    """Bytes that the system could give; on systems that do not say, plenty."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 2**40


def batch_rows(model: Transformer, length: int, max_memory: int | None = None) -> int:
    """How many residual-stream vectors a batch may hold at once."""
    size = torch.finfo(model.dtype).bits // 8
    heads = model.n_heads * (6 * model.d_head + 4 * length)
    per_row = size * (8 * model.d_model + 3 * model.d_mlp + heads)
    return max(64, int(allowed(model.device, max_memory) * BATCH) // per_row)


def prompt_bytes(model: Transformer, length: int) -> int:
    """Bytes of one prompt's clean run and of its partner's terms, as they are cached."""
    size = torch.finfo(model.dtype).bits // 8
    attn = model.blocks[0].attn
    terms = model.n_heads * model.d_head + model.d_model
    residuals = model.d_model * (1 if model.parallel else 2)
    heads = model.n_heads * (1 if attn.post is None else 2)  # under a post-norm `z` is kept before and after it
    projected = (heads + 2 * attn.n_kv_heads) * model.d_head
    return size * length * (model.n_layers * (2 * terms + residuals + projected) + 2 * model.d_model)


def prompts_at_once(model: Transformer, length: int, max_memory: int | None = None, both_ways: bool = False) -> int:
    """How many prompts are cached together.

    Args:
        both_ways: denoising is measured as well, which holds the runs a second time, swapped.
    """
    budget = allowed(model.device, max_memory) * CACHES
    fit = int(budget // (prompt_bytes(model, length) * (2 if both_ways else 1)))
    return max(1, min(fit, MOST_PROMPTS.get(model.device.type, 64)))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
