"""What a model needs of GPUs: a share of one, or several where it may be laid over them (`device_map`).

It follows from the memory that is counted for the cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.forecast import alike, work_of_cell
from circuitdsl.matrix.planning import session_of
from circuitdsl.matrix.worker import Settings
from circuitdsl.models.placing import WEIGHTS

#: the shares of a GPU that a worker may have
SHARES = (0.125, 0.25, 0.5, 1.0)
#: bytes that CUDA takes for itself in every process, and how much more than its weights a model takes
CONTEXT, LOADED = 700_000_000, 1.1


@dataclass(frozen=True, slots=True)
class Need:
    """What a worker needs for some cells.

    Attributes:
        share: of a GPU, or how many; 0 for a worker that computes on the CPU.
        memory: bytes in which it measures beside the model; None where what is free decides.
        problem, hint: why the cells cannot be verified on this cluster, and what to do; empty where they can.
    """

    share: float = 0.0
    memory: int | None = None
    problem: str = ""
    hint: str = ""


def needs_of(
    cells: Iterable[Cell], settings: Settings, gpus: float, gpu_bytes: int, together: int = 1
) -> Mapping[tuple[object, ...], Need]:
    """What workers need, for each kind of session.

    Args:
        gpus: how many the cluster has.
        gpu_bytes: of memory, of the smallest of them; 0 where that is not known: a worker then has one for itself,
            or all of a machine where its model may be laid over several.
        together: how many one machine has, at the most.
    """
    kinds: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(session_of(cell), []).append(cell)
    on_cpu = {kind for kind, mine in kinds.items() if not gpus or mine[0].options.get("device") == "cpu"}
    return {
        kind: Need(memory=settings.memory)
        if kind in on_cpu
        else _need(mine, settings, gpu_bytes, together if mine[0].options.get("device_map") else 1)
        for kind, mine in kinds.items()
    }


def _need(cells: Iterable[Cell], settings: Settings, gpu_bytes: int, together: int) -> Need:
    if not gpu_bytes:
        return Need(float(max(1, together)), settings.memory)
    works = [work_of_cell(mine[0], settings, "cpu") for mine in alike(cells)]
    if any(work.problem for work in works):  # the worker says what is wrong
        return Need(1.0, settings.memory)
    weights = int(LOADED * max(work.weights for work in works)) + CONTEXT
    measuring = max(work.memory - work.weights for work in works)
    return need(works[0].model, weights, measuring, gpu_bytes, settings.memory, together)


def need(model: str, weights: int, measuring: int, gpu_bytes: int, limit: int | None = None, together: int = 1) -> Need:
    """What a worker needs for a model of so many bytes, of which the cells take so many more for measuring.

    Args:
        together: over how many GPUs the model may be laid.

    >>> need("m", 20 * 10**9, 2 * 10**9, 80 * 10**9)
    Need(share=0.5, memory=20000000000, problem='', hint='')
    """
    wanted = weights + measuring
    share = next((share for share in SHARES if wanted <= share * gpu_bytes), 0.0)
    if not share:
        each = gpu_bytes - CONTEXT  # every GPU has what CUDA takes for itself
        share = float(max(2, ceil((weights - CONTEXT) / (WEIGHTS * each)), ceil((wanted - CONTEXT) / each)))
        if share > together:
            sizes = f"{wanted / 1e9:,.1f} GB, and the smallest GPU of the cluster has {gpu_bytes / 1e9:,.1f} GB"
            hint = "take a smaller dtype, or device = cpu"
            if together > 1:
                sizes += f"; no machine has more than {together}, and it takes {share:.0f}"
            else:
                hint = f'lay it over {share:.0f} GPUs of one machine with device_map = "balanced", {hint}'
            return Need(problem=f"{model} takes about {sizes}", hint=hint)
    if share >= 1:
        return Need(share, limit)
    room = int(share * gpu_bytes) - weights
    return Need(share, room if limit is None else min(room, limit))
