"""What a model needs of a GPU: a share of one, from the memory that is counted for its cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.forecast import alike, work_of_cell
from circuitdsl.matrix.planning import session_of
from circuitdsl.matrix.worker import Settings

#: the shares of a GPU that a worker may have
SHARES = (0.125, 0.25, 0.5, 1.0)
#: bytes that CUDA takes for itself in every process, and how much more than its weights a model takes
CONTEXT, LOADED = 700_000_000, 1.1


@dataclass(frozen=True, slots=True)
class Need:
    """What a worker needs for some cells.

    Attributes:
        share: of a GPU; 0 for a worker that computes on the CPU.
        memory: bytes in which it measures beside the model; None where what is free decides.
        problem, hint: why the cells cannot be verified on this cluster, and what to do; empty where they can.
    """

    share: float = 0.0
    memory: int | None = None
    problem: str = ""
    hint: str = ""


def needs_of(
    cells: Iterable[Cell], settings: Settings, gpus: float, gpu_bytes: int
) -> Mapping[tuple[object, ...], Need]:
    """What workers need, for each kind of session.

    Args:
        gpus: how many the cluster has.
        gpu_bytes: of memory, of the smallest of them; 0 where that is not known: a worker then has one for itself.
    """
    kinds: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(session_of(cell), []).append(cell)
    on_cpu = {kind for kind, mine in kinds.items() if not gpus or mine[0].options.get("device") == "cpu"}
    return {
        kind: Need(memory=settings.memory) if kind in on_cpu else _need(mine, settings, gpu_bytes)
        for kind, mine in kinds.items()
    }


def _need(cells: Iterable[Cell], settings: Settings, gpu_bytes: int) -> Need:
    if not gpu_bytes:
        return Need(1.0, settings.memory)
    works = [work_of_cell(mine[0], settings, "cpu") for mine in alike(cells)]
    if any(work.problem for work in works):  # the worker says what is wrong
        return Need(1.0, settings.memory)
    weights = int(LOADED * max(work.weights for work in works)) + CONTEXT
    return need(works[0].model, weights, max(work.memory - work.weights for work in works), gpu_bytes, settings.memory)


def need(model: str, weights: int, measuring: int, gpu_bytes: int, limit: int | None = None) -> Need:
    """What a worker needs for a model of so many bytes, of which the cells take so many more for measuring.

    >>> need("m", 20 * 10**9, 2 * 10**9, 80 * 10**9)
    Need(share=0.5, memory=20000000000, problem='', hint='')
    """
    wanted = weights + measuring
    share = next((share for share in SHARES if wanted <= share * gpu_bytes), 0.0)
    if not share:
        sizes = f"{wanted / 1e9:,.1f} GB, and the smallest GPU of the cluster has {gpu_bytes / 1e9:,.1f} GB"
        hint = "a model is not split over GPUs: take a smaller dtype, or device = cpu"
        return Need(problem=f"{model} takes about {sizes}", hint=hint)
    if share == 1:
        return Need(1.0, limit)
    room = int(share * gpu_bytes) - weights
    return Need(share, room if limit is None else min(room, limit))
