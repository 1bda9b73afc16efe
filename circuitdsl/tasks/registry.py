"""The tasks that ship. Importing this needs neither torch nor a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping

from circuitdsl.tasks.colored_objects import COLORED_OBJECTS
from circuitdsl.tasks.greater_than import GREATER_THAN
from circuitdsl.tasks.induction import INDUCTION
from circuitdsl.tasks.ioi import IOI
from circuitdsl.tasks.laundry_list import LAUNDRY_LIST
from circuitdsl.tasks.task import Task

TASKS: Mapping[str, Task] = {t.name: t for t in (IOI, COLORED_OBJECTS, GREATER_THAN, INDUCTION, LAUNDRY_LIST)}
