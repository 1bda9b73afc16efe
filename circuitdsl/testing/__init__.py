"""What specs and kinds of measurements are tested with: the pytest plugin, strategies, mutants, counterexamples."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuitdsl.circuit.measurement import Measurement


def check_measurement(kind: type[Measurement]) -> None:
    """Hold a kind of measurement to all that the phases of circuitdsl expect of one.

    Its examples are resolved, linted, formatted, planned, verified on the embedded model, put into a property and below
    conditions where it allows that, searched for counterexamples, and mutated; its false examples must not hold.

    Args:
        kind: one of ours, or one that a package registers as an entry point of `circuitdsl.measurements`.

    Raises:
        AssertionError: the kind breaks one of these promises; the message says which.
    """
    from circuitdsl.testing.battery import check

    check(kind)
