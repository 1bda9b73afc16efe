"""Seconds and bytes: CPU seconds of this process, seconds on a GPU, and peaks of memory."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

R = TypeVar("R")


def clock_of(device: torch.device) -> Callable[[], float]:
    """CPU seconds of this process; on a GPU, seconds until all queued work is done."""
    if device.type == "cpu":
        return time.process_time

    def synced() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synced


def median_seconds(clock: Callable[[], float], work: Callable[[], R], times: int) -> tuple[float, R]:
    """The median of several runs of the same work, and what the last of them gave."""
    taken = []
    for _ in range(times):
        start = clock()
        out = work()
        taken.append(clock() - start)
    return statistics.median(taken), out


def peak_bytes(device: torch.device, work: Callable[[], object]) -> int:
    """How far memory rises above where it stood while some work runs; on Linux and on GPUs."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else memory that was freed, but kept, hides what the work takes
    Path("/proc/self/clear_refs").write_text("5")  # the kernel starts the peak anew
    before = _status("VmRSS")
    work()
    return max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
