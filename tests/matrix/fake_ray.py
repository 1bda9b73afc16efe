"""What of Ray the executor uses, in this process: an actor does what it is asked when somebody waits for it.

Messages go through pickle, as between processes, so that nothing is shared by accident.
"""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class RayError(Exception):
    """As Ray's."""


class OutOfMemoryError(RayError):
    """As Ray's, of a worker that the memory monitor has ended."""


exceptions = types.SimpleNamespace(RayError=RayError, OutOfMemoryError=OutOfMemoryError)


class Asked:
    """What was asked of an actor, and what came of it."""

    def __init__(self, actor: Actor, name: str, given: tuple[Any, ...]) -> None:
        self.actor, self.name, self.given = actor, name, pickle.dumps(given)
        self.found: Any = None
        self.error: Exception | None = None
        self.done = False

    def do(self) -> None:
        """Do it now."""
        self.done = True
        given = pickle.loads(self.given)
        try:
            if self.actor.ended:
                raise RayError("the actor died")
            self.actor.ray.before(self.actor, self.name, given)
            self.found = pickle.dumps(getattr(self.actor.own, self.name)(*given))
        except RayError as error:
            self.error, self.actor.ended = error, True


class Actor:
    """An actor on one of the machines."""

    def __init__(self, ray: FakeRay, cls: type, options: Mapping[str, Any], given: tuple[Any, ...]) -> None:
        self.ray, self.options, self.ended = ray, dict(options), False
        self.own = cls(*pickle.loads(pickle.dumps(given)))

    def __getattr__(self, name: str) -> Any:
        def remote(*given: Any) -> Asked:
            return Asked(self, name, given)

        return types.SimpleNamespace(remote=remote, options=lambda **_: types.SimpleNamespace(remote=remote))


class FakeRay:
    """A cluster of one machine.

    Attributes:
        before: called with (actor, method, arguments) before anything is done; may raise `RayError`.
        gpus_taken: what actors had of the GPUs whenever one was started.
    """

    def __init__(self, before: Callable[[Actor, str, tuple[Any, ...]], None] = lambda *_: None, **has: float) -> None:
        self.exceptions, self.before = exceptions, before
        self.has: dict[str, float] = {"CPU": 3.0, **has}
        self.actors: list[Actor] = []
        self.gpus_taken: list[float] = []

    def cluster_resources(self) -> dict[str, float]:
        return self.has

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": "here", "Resources": self.has}]

    def get_runtime_context(self) -> Any:
        return types.SimpleNamespace(get_node_id=lambda: "here")

    def remote(self, **options: Any) -> Callable[[type], Any]:
        def made(cls: type) -> Any:
            def remote(*given: Any) -> Actor:
                self.actors.append(Actor(self, cls, options, given))
                taken = [each.options.get("num_gpus", 0) for each in self.actors if not each.ended]
                self.gpus_taken.append(sum(taken))
                assert self.gpus_taken[-1] <= self.has.get("GPU", 0), "more of the GPUs was asked for than there is"
                return self.actors[-1]

            return types.SimpleNamespace(remote=remote)

        return made

    def kill(self, actor: Actor) -> None:
        actor.ended = True

    def wait(self, asked: Sequence[Asked], num_returns: int = 1, timeout: float | None = None) -> Any:
        for one in asked:
            if not one.done:
                one.do()
            return [one], [each for each in asked if each is not one]
        return [], []

    def get(self, one: Asked) -> Any:
        if one.error:
            raise one.error
        return pickle.loads(one.found)
