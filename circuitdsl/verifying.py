"""A spec verified from Python: its model loaded, its prompts made, its claims checked, as the command line does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from circuitdsl.api import Spec, SpecError, check_prompt_files, loads, make_benches
from circuitdsl.circuit.claims import Circuit
from circuitdsl.errors import UsageError, UserError
from circuitdsl.limits import memory_of, prompts_of, seed_of
from circuitdsl.models.cache import Models, threads_for
from circuitdsl.models.parts import Transformer
from circuitdsl.report.report import Report, Reports, until_interrupted
from circuitdsl.verify.judged import verify_without_model
from circuitdsl.verify.store import Store, default_path
from circuitdsl.verify.verify import Options, Progress, verify, with_overrides


def verify_spec(
    spec: Spec,
    model: str | Path | Transformer | None,
    prompts: int | None,
    seed: int | None,
    device: str,
    dtype: str,
    early_stop: bool,
    cache: bool,
    memory: int | str | None,
    progress: Progress | None,
) -> Report | Reports:
    """What `Spec.verify` does; arguments, results and errors are the same."""
    prompts, seed, max_memory = prompts_of(prompts), seed_of(seed), memory_of(memory)
    if progress is not None and not callable(progress):
        raise UsageError(f"progress = {progress!r} is nothing that can be called")
    given = None if model is None else model.name if isinstance(model, Transformer) else str(model)
    if given is not None:
        names = {one.name for one in spec.circuits}
        spec = loads(spec.text, spec.path, given)
        spec = replace(spec, circuits=tuple(one for one in spec.circuits if one.name in names))
    if not spec.ok:
        raise SpecError(spec.problems)
    check_prompt_files(spec, given)
    wanted = [one for one in spec.circuits if one.claims]
    if not wanted:
        raise UserError("nothing to verify: the spec makes no claim that can be measured")
    with _threads_kept(), Store(default_path()) if cache else nullcontext() as store:
        models = Models(given, device, dtype)
        own = model if isinstance(model, Transformer) else None
        options = Options(early_stop=early_stop, max_memory=max_memory)
        reports = (
            _verified(with_overrides(one, prompts, seed), own, models, options, store, progress) for one in wanted
        )
        found = Reports(until_interrupted(reports))
    return found[0] if len(spec.circuits) == 1 else found


def _verified(
    circuit: Circuit,
    model: Transformer | None,
    models: Models,
    options: Options,
    store: Store | None,
    progress: Progress | None,
) -> Report:
    start = time.perf_counter()
    if model is None and (known := verify_without_model(circuit, partial(models.weights_of, circuit))):
        return known
    if model is None:
        model = models.of(circuit)
    else:
        torch.set_num_threads(threads_for(model.d_model, model.device.type, models.threads))
    report = verify(circuit, model, make_benches(circuit, model, store, options.max_memory), options, progress)
    return replace(report, seconds=time.perf_counter() - start)


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Leaves torch's number of threads as it was."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
