"""The tasks that come with the package, and those that installed packages add.

A package adds a task through an entry point of the group `circuitdsl.tasks`, named like the task:

    [project.entry-points."circuitdsl.tasks"]
    opposites = "my_package.tasks:OPPOSITES"

It is loaded when the task is asked for by name, or when all are listed. The tasks that ship cannot be replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from circuitdsl.installed import loaded, package_of, registered, the_entry
from circuitdsl.tasks.colored_objects import COLORED_OBJECTS
from circuitdsl.tasks.greater_than import GREATER_THAN
from circuitdsl.tasks.induction import INDUCTION
from circuitdsl.tasks.ioi import IOI
from circuitdsl.tasks.laundry_list import LAUNDRY_LIST
from circuitdsl.tasks.task import Task, TaskError
from circuitdsl.tasks.template import article

GROUP = "circuitdsl.tasks"
SHIPPED: Mapping[str, Task] = {t.name: t for t in (IOI, COLORED_OBJECTS, GREATER_THAN, INDUCTION, LAUNDRY_LIST)}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class _Tasks(Mapping[str, Task]):
    """All tasks by name; an installed one is loaded when it is looked up, which raises `TaskError` if it cannot be."""

    def __getitem__(self, name: str) -> Task:
        if name in SHIPPED:
            return SHIPPED[name]
        point = the_entry(GROUP, name, "task", TaskError) if name in self else None
        if point is None:
            raise KeyError(name)
        task, package = loaded(point, "task", TaskError), package_of(point)
        if not isinstance(task, Task):
            kind, place = article(type(task).__name__), point.value
            raise TaskError(f"the task {name} of {package}, {place}, is no circuitdsl.tasks.task.Task, but {kind}")
        if task.name != name:
            raise TaskError(f"the entry point {name} of {package} gives a task that calls itself {task.name}")
        return task

    def __iter__(self) -> Iterator[str]:
        yield from SHIPPED
        yield from (name for name in dict.fromkeys(_installed()) if name not in SHIPPED)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in SHIPPED or name in _installed()


TASKS: Mapping[str, Task] = _Tasks()


def _installed() -> list[str]:
    """The names that installed packages register, which are not loaded."""
    return [point.name for point in registered(GROUP) if _NAME.fullmatch(point.name)]
