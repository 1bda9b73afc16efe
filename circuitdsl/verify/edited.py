"""`edit`: an intervention of a spec, written into the weights of a new model directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.circuit.shapes import place_of
from circuitdsl.errors import UsageError
from circuitdsl.models.edit import changes, save_edited
from circuitdsl.verify.session import Session

if TYPE_CHECKING:
    from circuitdsl.api import Spec


def edit(
    session: Session,
    spec: Spec | str | Path,
    target: str | Path,
    intervention: str | None = None,
    circuit: str | None = None,
) -> str:
    """Write an intervention of a circuit into the weights of a new model directory; returns its name.

    Raises:
        UserError: there is no such intervention, it is no change of weights, the directory exists, or its folder
            does not.
    """
    wanted = session.circuit(spec, circuit)
    known = {each.name: each for each in wanted.interventions}
    if not known:
        raise UsageError(f"{wanted.name} has no intervention", hint="see docs/repair.md for how to write one")
    if (intervention is None and len(known) > 1) or intervention not in (None, *known):
        what = f"there is no intervention {intervention}" if intervention else "which intervention?"
        raise UsageError(what, hint=f"--intervention is one of {', '.join(known)}")
    change = known[intervention or next(iter(known))]
    changes(change)  # refused before anything is read
    _, place, revision = place_of(wanted, session.name)
    with session.busy(f"editing {place}"):
        save_edited(place, session.weights_of(wanted), change, Path(target), revision)
    return change.name
