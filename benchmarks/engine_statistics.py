"""What share of a verification's CPU time p-values, intervals and verdicts take, on the shipped specs of a small model.

There the share is largest: patches of a larger model cost more, and the statistics of a spec cost the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from benchmarks.engine_page import Statistics
from circuitdsl import api
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.verify import verify as verification
from circuitdsl.verify.prompts import prompts_by_task

SPECS = ("ioi", "colored_objects", "greater_than", "induction", "laundry_list", "shared")
#: everything in a verification that is neither a prompt, a run nor a patch
PARTS = ("weigh_nulls", "weigh_plan", "ruled", "on_more_prompts", "claim_results")


def measured(repeats: int) -> Iterator[Statistics]:
    """The share in each spec, of the run of median share."""
    model = load_model("pocket")
    for name in SPECS:
        yield sorted((_run(name, model) for _ in range(repeats)), key=lambda one: one.share)[repeats // 2]


def _run(name: str, model: Transformer) -> Statistics:
    (circuit,) = api.load(f"pocket/{name}").circuits
    with _timed() as spent:
        start = time.process_time()
        report = verification.verify(circuit, model, prompts_by_task(circuit, model))
        seconds = time.process_time() - start
    return Statistics(f"pocket/{name}", len(report.claims), seconds, sum(spent))


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Collects the CPU seconds of each call of the parts; none of them calls another."""
    spent: list[float] = []

    def timed(part: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return part(*given, **named)
            finally:
                spent.append(time.process_time() - start)

        return call

    with ExitStack() as stack:
        for name in PARTS:
            stack.enter_context(mock.patch.object(verification, name, timed(getattr(verification, name))))
        yield spent
