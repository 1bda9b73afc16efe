"""What is asked of a model that another process holds: a function by its name, and what it is given.

Whoever measures on a model that is away has no tensors of it. A `Recipe` says how prompts are made, so that the process
that holds the model makes the same ones for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal
from uuid import uuid4

from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.errors import UserError
from circuitdsl.models.model import Model


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """What is asked: prompts on the model of a circuit, or this model.

    Attributes:
        of: the prompts of a `task` of the circuit, those of a task under `another` corruption, those for the
            `properties` of a task, or `random` tokens; or the `model`, without prompts.
        use: the task.
        keeps: whether runs that were made for the scores are kept.
        sha256: of the model and of the prompts as they are here, once they are made.
        key: a name of its own.
    """

    circuit: Circuit | None
    of: Literal["task", "another", "properties", "random", "model"]
    use: TaskUse | None = None
    keeps: bool = True
    sha256: bytes = b""
    key: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A function, "module:name", which is given the prompts or the model of a recipe, and more.

    Attributes:
        model: the digest of the model that is meant; empty where it is not known yet.
    """

    recipe: Recipe
    function: str
    given: tuple[Any, ...]
    model: bytes = b""


@dataclass(frozen=True, slots=True)
class Short:
    """The answer to a call for which memory ran out: why, and what to do."""

    why: str
    hint: str = ""


def answered(function: str, of: Any, *given: Any) -> Any:
    """What a function, "module:name", gives for prompts or a model."""
    from circuitdsl.models.devices import meeting  # imports torch, as the functions do

    module, _, name = function.partition(":")
    with meeting():
        return getattr(import_module(module), name)(of, *given)


def ask(source: Model, recipe: Recipe | None, function: str, here: Any, *given: Any) -> Any:
    """What a function gives for `here`, the prompts or the model; where the model is away, for those of the recipe."""
    if source.away is None:
        return answered(function, here, *given)
    assert recipe is not None, "prompts on a model that is away are made with a recipe"
    ((_, found),) = source.away([Call(recipe, function, given, source.digest)])
    if isinstance(found, Short):
        raise UserError(f"memory ran out: {found.why}", found.hint)
    return found
