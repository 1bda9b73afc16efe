"""What testing specs by mutants takes: `python -m benchmarks.mutants [SPEC …]`, for docs/testing.md.

A row a circuit: mutants killed of those that could be, and CPU seconds of this process on one thread, with an empty
cache, without loading the model. By default the specs of the pocket model.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence

import torch

from circuitdsl.testing.mutate import Mutation
from circuitdsl.verify.session import Session

SPECS = ("ioi", "colored_objects", "greater_than", "induction", "laundry_list", "shared", "repair", "paths")


def measured(spec: str) -> tuple[tuple[Mutation, ...], float]:
    """The mutants of a spec, and CPU seconds; nothing is known from earlier runs."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CIRCUITDSL_CACHE"] = folder
        with Session() as session:
            for circuit in session.spec(spec).circuits:
                session.model_of(circuit)
            torch.set_num_threads(1)
            start = time.process_time()
            found = session.mutate(spec)
            return found, time.process_time() - start


def main(specs: Sequence[str]) -> None:
    print("| spec | killed | CPU seconds |\n|---|---|---|")
    for spec in specs:
        found, seconds = measured(spec)
        killed, judged = sum(len(one.of("killed")) for one in found), sum(one.judged for one in found)
        print(f"| `{spec}` | {killed} of {judged} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:] or [f"pocket/{name}" for name in SPECS])
