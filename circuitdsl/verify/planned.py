"""`plan`: what verifying a circuit will run, how much of that is known, and about how long it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.shapes import place_of
from circuitdsl.engine.count import calibrate
from circuitdsl.errors import UserError
from circuitdsl.models.load import device_named
from circuitdsl.models.model import Model, suitable_threads, torch_threads, use_threads
from circuitdsl.models.outline import has_outline, parameters, weights_by_device
from circuitdsl.models.parts import changed
from circuitdsl.models.record import outline_of, remembered
from circuitdsl.tasks.dataset import Dataset
from circuitdsl.verify.cache import Memory
from circuitdsl.verify.cache import memory as memory_of
from circuitdsl.verify.forecast import Forecast
from circuitdsl.verify.plan import plan as plans_of
from circuitdsl.verify.plan import shape_of
from circuitdsl.verify.prompts import make_data, means_over, tasks_in_use
from circuitdsl.verify.session import Session, with_overrides
from circuitdsl.verify.work import TaskWork, memory, seconds, work_of

if TYPE_CHECKING:
    from circuitdsl.api import Spec


def plan(
    session: Session,
    *specs: Spec | str | Path,
    prompts: int | None = None,
    seed: int | None = None,
    early_stop: bool = True,
) -> tuple[Forecast, ...]:
    """What verifying some specs runs, and about how long it takes: a forecast for each circuit that makes claims.

    No weights are loaded but those of a model that is read through a bridge, and nothing is measured: one layer of the
    model's shape is timed. What earlier runs have measured is counted where the cache remembers the model.

    Raises:
        UserError: the specs make no claim, the model's shape is not known, prompts cannot be made, or the memory is too
            little for one of them.
    """
    circuits = [circuit for spec in specs for circuit in session.spec(spec).circuits if circuit.claims]
    if not circuits:
        raise UserError("nothing to plan: the spec makes no claim that can be measured")
    return tuple(_forecast(session, with_overrides(circuit, prompts, seed), early_stop) for circuit in circuits)


def _forecast(session: Session, circuit: Circuit, early_stop: bool) -> Forecast:
    name, place, revision = place_of(circuit, session.name)
    with session.busy(f"counting {circuit.name}"):
        loaded = session.source_of(circuit) if session.own or not has_outline(place, revision) else None
        source, on_each = loaded or _remembered(session, circuit), {}
        if session.device_map is not None:
            on_each = weights_by_device(place, session.device, session.device_map, session.dtype, revision)
        device = loaded.parts.device if loaded else device_named("cuda" if on_each else session.device)
        model = loaded.parts if loaded else outline_of(source, place, session.dtype, revision)
        datasets = {use.name: make_data(circuit, use, model) for use in tasks_in_use(circuit)}
        plans = plans_of(circuit, shape_of(model))
        known = _known(session, circuit, datasets, source)
        whole = [p for p in plans if p.claim.measurement.of_whole]
        counted = partial(work_of, model=model, datasets=datasets, metric=circuit.metric, early_stop=early_stop)
        counted = partial(counted, max_memory=session.memory, device=device.type)
        work, work_of_whole = counted(plans, known=known), counted(whole) if whole else ()
        use_threads(suitable_threads(model.d_model, device.type, torch_threads()))
        machine = calibrate(model, device)
        single = machine if session.dtype == "float32" else calibrate(changed(model, torch.Tensor.float), device)
    where = device.type if session.device_map is None else f"{device.type}:{session.device_map}"
    size, shape = parameters(model), {"name": name, "n_layers": model.n_layers, "n_heads": model.n_heads}

    def time_of(tasks: Sequence[TaskWork]) -> tuple[float, float]:
        least, most = (sum(seconds(model, t, getattr(t, end), machine) for t in tasks) for end in ("least", "most"))
        return least, most

    return Forecast(
        circuit=circuit.name,
        path=circuit.path,
        model=shape | {"parameters": size, "device": where, "dtype": session.dtype},
        tasks=work,
        seconds=time_of(work),
        weights=size * torch.finfo(model.dtype).bits // 8,
        weights_by_device=on_each,
        memory=memory(work, session.memory),
        edited=time_of(work_of_whole),
        threads=torch.get_num_threads(),
        slower=machine.position / single.position,
        new_seconds=sum(seconds(model, task, task.anew, machine, weighing=0) for task in work),
        all_new=""
        if known
        else "the cache is not used"
        if session.store is None
        else "the model was not loaded before",
    )


def _known(
    session: Session, circuit: Circuit, datasets: Mapping[str, Dataset], source: Model | None
) -> dict[str, Memory]:
    """What the cache knows of each task; nothing of a model that it does not remember."""
    store, found = session.store, dict[str, Memory]()
    if store is None or source is None:
        return found
    for use in tasks_in_use(circuit):
        data = datasets[use.name]
        more, more_are = means_over(circuit, use, source, data)
        found[use.name] = memory_of(store, source, data.pairs, circuit.metric, more, more_are)
    return found


def _remembered(session: Session, circuit: Circuit) -> Model | None:
    """A model that was loaded earlier; nothing is loaded now."""
    if session.store is None or session.store.folder is None:
        return None
    name, place, revision = place_of(circuit, session.name)
    return remembered(place, session.device, session.dtype, revision, session.store.folder, name, session.device_map)
