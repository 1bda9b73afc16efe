"""How many prompts and rows are held at once, given the memory that is free or that the user allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from circuitdsl.circuit.nodes import Node, is_number
from circuitdsl.errors import UserError, out_of_memory
from circuitdsl.measurements.kept import Kept, everything
from circuitdsl.models.devices import beside
from circuitdsl.models.parts import Transformer

#: bytes that caches and a batch may take together on a CPU, and the share of what is free that they may take
CPU_BYTES, CPU_SHARE, GPU_SHARE = 480 * 2**20, 0.5, 0.8
#: the share of a limit that is planned for: allocators keep more than is asked of them
LIMIT_SHARE = 0.75
#: of these bytes, the shares of the caches and of a batch; the rest is for temporary tensors
CACHES, BATCH = 0.45, 0.4
#: the most prompts whose runs are cached together, by kind of device
MOST_PROMPTS = {"cpu": 64, "cuda": 1024}
#: prompts that go through the model at once, and tokens, by kind of device
CHUNK, TOKENS = 64, {"cpu": 1024, "cuda": 65536}
#: rows whose logits over the whole vocabulary are held at once, copies of them, and threads that hold some
VOCAB_ROWS, VOCAB_COPIES, VOCAB_THREADS = 128, 3, 2
#: positions from which on attention makes no matrix of all scores
LONG = 32


class OutOfMemory(UserError):
    """Memory ran out, or what is allowed is too little for a single prompt."""


def allowed(device: torch.device, max_memory: int | None = None) -> int:
    """Bytes that caches and a batch may take together, beside the model; most of `max_memory` where that is given.

    What is free is rounded down to a power of two. Small changes of it then give the same batches, and so the same
    numbers to the last bit.
    """
    if max_memory is not None:
        return int(max_memory * LIMIT_SHARE)
    if device.type == "cuda":
        return _power_of_two(min(map(_free_on_gpu, beside(device))) * GPU_SHARE)
    return min(CPU_BYTES, _power_of_two(_free_on_host() * CPU_SHARE)) if device.type == "cpu" else CPU_BYTES


def _free_on_gpu(device: torch.device) -> int:
    """Free bytes, and those that torch keeps there without using them."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def _power_of_two(number: float) -> int:
    """The largest that is not above a number."""
    return 1 << max(0, int(number).bit_length() - 1)


def _free_on_host() -> int:
    """Free bytes of the system; a large number where it does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 2**40


def batch_rows(model: Transformer, length: int, max_memory: int | None = None, held: int = 0) -> int:
    """How many residual-stream vectors a batch may hold at once; those of one run of `length` tokens at the least.

    Args:
        held: numbers beside each vector that are kept to the end of the run.
    """
    return max(length, int(allowed(model.device, max_memory) * BATCH) // _row_bytes(model, length, held))


def batch_bytes(model: Transformer, length: int, rows: int, held: int = 0, max_memory: int | None = None) -> int:
    """Bytes of a batch of residual-stream vectors, or of as many of them as are held at once."""
    return min(rows, batch_rows(model, length, max_memory, held)) * _row_bytes(model, length, held)


def _row_bytes(model: Transformer, length: int, held: int) -> int:
    return _numbers(model, 4 * length, held) * model.dtype.itemsize


def _numbers(model: Transformer, of_attention: float, held: int = 0) -> int:
    """Numbers that go with one residual-stream vector, where attention needs so many for each head."""
    heads = model.n_heads * (6 * model.d_head + of_attention)
    inside = max(block.mlp.width for block in model.blocks)
    return int(8 * model.d_model + 3 * inside + heads + held)


def patched_bytes(model: Transformer, length: int, steps: int) -> int:
    """Bytes of one residual-stream vector of a batch of runs that are recomputed at their last `steps` positions.

    Where these are many, attention holds no scores (see `LONG`), but the keys and values of each run.
    """
    scores = steps < LONG or model.blocks[0].attn.softcap is not None
    return _numbers(model, 4 * length if scores else 2 * model.d_head * length / steps) * model.dtype.itemsize


def all_terms(model: Transformer) -> int:
    """Numbers in the terms of all nodes at one position, a head's as its `z`."""
    return model.n_layers * (model.n_heads * model.d_head + model.d_model) + model.d_model


def vocabulary_rows(model: Transformer, max_memory: int | None = None) -> int:
    """How many rows of logits over the whole vocabulary may be held at once."""
    if max_memory is None:
        return VOCAB_ROWS
    rest = allowed(model.device, max_memory) * (1 - CACHES - BATCH)
    return max(1, min(VOCAB_ROWS, int(rest / (VOCAB_THREADS * VOCAB_COPIES * 4 * model.n_vocab))))


def refuse_too_little(model: Transformer, length: int, max_memory: int | None) -> None:
    """Raise `OutOfMemory` where a limit has no room for one prompt.

    That is room for its runs twice, as denoising and interventions hold them, and for one run of a circuit whose edges
    are kept, which holds all terms.
    """
    run = length * _row_bytes(model, length, all_terms(model))
    least = ceil(max(2 * prompt_bytes(model, length) / CACHES, run / BATCH) / LIMIT_SHARE)
    if max_memory is not None and max_memory < least:
        raise OutOfMemory(
            f"{max_memory / 1e6:.0f} MB are too little to measure in: one prompt of {length} tokens needs "
            f"{ceil(least / 1e6)} MB on {model.name}",
            hint=f"allow {ceil(least / 1e6)}MB or more, or take a smaller dtype",
        )


def refuse_more(model: Transformer, lengths: Sequence[int], max_memory: int | None) -> None:
    """Raise `OutOfMemory` where a limit has no room for all terms of the clean and corrupt runs of these prompts."""
    needed = ceil(2 * sum(lengths) * all_terms(model) * model.dtype.itemsize / CACHES / LIMIT_SHARE)
    if max_memory is not None and max_memory < needed:
        raise OutOfMemory(
            f"{max_memory / 1e6:.0f} MB are too little for circuits of the whole graph of {model.name}: all terms of "
            f"{len(lengths)} prompts are held, which takes {ceil(needed / 1e6)} MB",
            hint=f"allow {ceil(needed / 1e6)}MB or more, or give fewer --prompts",
        )


def kept_bytes(device: torch.device, max_memory: int | None = None) -> int:
    """Bytes of runs that are kept once the prompts of a task are scored; none where memory is limited."""
    return 0 if max_memory is not None else int(allowed(device) * CACHES / 2)


def prompt_bytes(model: Transformer, length: int, kept: Kept | None = None) -> int:
    """Bytes of what is kept of one prompt's clean run and of its partner's terms; by default of everything."""
    kept, attn = kept or everything(model.n_layers), model.blocks[0].attn
    heads, keys = model.n_heads * model.d_head, attn.n_kv_heads * model.d_head
    clean, corrupt = (_values(model, nodes) for nodes in (kept.clean, kept.corrupt))
    gathered = 0 if attn.post is None else heads * sum(node.kind == "head" for node in kept.clean)
    inputs = len(kept.resid_pre | kept.mlp_in if model.parallel else kept.resid_pre) * model.d_model
    inputs += 0 if model.parallel else len(kept.mlp_in) * model.d_model
    projected = len(kept.q) * heads + (len(kept.k) + len(kept.v)) * keys
    return model.dtype.itemsize * length * (clean + corrupt + gathered + inputs + projected)


def _values(model: Transformer, nodes: Iterable[Node]) -> int:
    """Numbers at one position in the values of nodes."""
    one = {"head": model.n_heads * model.d_head, "logits": 0}
    return sum(1 if is_number(node) else one.get(node.kind, model.d_model) for node in nodes)


def prompts_at_once(
    model: Transformer, length: int, max_memory: int | None = None, twice: bool = False, kept: Kept | None = None
) -> int:
    """How many prompts are cached together; one at the least.

    Args:
        twice: their runs are held a second time, swapped for denoising or changed by an intervention.
        kept: what is cached of them; by default everything.
    """
    budget = allowed(model.device, max_memory) * CACHES
    fit = int(budget // max(1, prompt_bytes(model, length, kept) * (2 if twice else 1)))
    return max(1, min(fit, MOST_PROMPTS.get(model.device.type, 64)))


def in_parts(
    model: Transformer,
    lengths: Int[np.ndarray, " n"],
    max_memory: int | None = None,
    twice: bool = False,
    kept: Kept | None = None,
) -> Iterator[Int[np.ndarray, " m"]]:
    """Places of prompts of one length, as many at a time as are cached together; arguments as in `prompts_at_once`."""
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        size = prompts_at_once(model, int(length), max_memory, twice, kept)
        for start in range(0, len(places), size):
            yield places[start : start + size]


def in_groups(
    model: Transformer,
    lengths: Int[np.ndarray, " n"],
    max_memory: int | None = None,
    twice: bool = False,
    kept: Kept | None = None,
) -> Iterator[list[Int[np.ndarray, " m"]]]:
    """Parts, as of `in_parts`, that are cached beside each other."""
    group, room = list[Int[np.ndarray, " m"]](), 1.0
    for part in in_parts(model, lengths, max_memory, twice, kept):
        share = len(part) / prompts_at_once(model, int(lengths[part[0]]), max_memory, twice, kept)
        if group and share > room:
            yield group
            group, room = [], 1.0
        group.append(part)
        room -= share
    if group:
        yield group


def together(device: torch.device, length: int) -> int:
    """How many prompts go through the model at once."""
    return max(1, min(CHUNK, TOKENS.get(device.type, CHUNK * length) // length))


def run_at_once(model: Transformer, length: int, max_memory: int | None = None) -> int:
    """How many prompts run together where little of each is kept."""
    return CHUNK if max_memory is None else min(CHUNK, prompts_at_once(model, length, max_memory))


def in_halves(work: Callable[[int, int], None], start: int, end: int, doing: Callable[[int], str]) -> None:
    """Do some work on items `start` to `end`, or on one half of them after the other where memory runs out.

    Args:
        work: takes the first item and the last + 1.
        doing: describes the work on an item, for the message.

    Raises:
        OutOfMemory: memory ran out on one item alone.
    """
    try:
        return work(start, end)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if end - start == 1:
            raise ran_out(doing(start)) from None
    middle = (start + end) // 2
    in_halves(work, start, middle, doing)
    return in_halves(work, middle, end, doing)


def ran_out(doing: str) -> OutOfMemory:
    """The error of some work for which memory ran out."""
    return OutOfMemory(f"memory ran out {doing}", hint="give it more memory, or take a smaller dtype")
