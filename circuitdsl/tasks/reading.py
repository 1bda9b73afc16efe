"""A prompt file that is read line by line: what is good of it passes through, what is bad is counted and named."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from circuitdsl.garbage import rarely_collected
from circuitdsl.tasks.records import BadLine, Line, PromptFileError, lines_of
from circuitdsl.visible import visible

T = TypeVar("T")
#: so many bad lines of a file are named, and the others counted
NAMED = 50
#: lines whose texts are tokenized at once, and characters of them, about
LINES, CHARACTERS = 2048, 2**20


@dataclass(slots=True)
class Reading:
    """What was found in a prompt file so far; the lines themselves are not kept.

    Attributes:
        good, bad: how many lines can be used, and how many cannot.
        named: the first bad lines, each with its place and all reasons against it.
    """

    path: Path
    good: int = 0
    bad: int = 0
    named: list[str] = field(default_factory=list)

    def note(self, line: Line, found: object) -> bool:
        """Count a line, and what was made of it; whether it is good."""
        if not isinstance(found, BadLine):
            self.good += 1
            return True
        self.bad += 1
        if len(self.named) < NAMED:
            self.named.append(self.place(line, found))
        return False

    def usable(self, each: Iterable[tuple[Line, T | BadLine]]) -> Iterator[tuple[Line, T]]:
        """The good lines, each with what was made of it; all are counted."""
        for line, found in each:
            if self.note(line, found) and not isinstance(found, BadLine):
                yield line, found

    def place(self, line: Line, reason: BadLine) -> str:
        """A bad line as it is named."""
        return visible(f"{self.path}:{line.number}: {reason}")

    def rest(self) -> list[str]:
        """That there are more bad lines than are named; empty where there are not."""
        more = self.bad - len(self.named)
        return [f"… and {more} more (circuitdsl tasks check --all {self.path} lists them)"] if more else []

    def refuse(self) -> None:
        """Raise `PromptFileError` where a line is bad, or there is none."""
        if self.bad:
            head = f"{self.bad} bad line{'s' * (self.bad != 1)} in {self.path}"
            raise PromptFileError("\n".join([head, *self.named, *self.rest()]))
        if not self.good:
            raise PromptFileError(f"{self.path} has no prompts")


def as_bad(line: Line, reason: BadLine) -> dict[str, Any]:
    """A bad line with its `reason`; what is no object is given as the `text` of its `line`."""
    given = line.value if isinstance(line.value, dict) else {"line": line.number, "text": line.text}
    return {**given, "reason": str(reason)}


@contextmanager
def each_line(
    path: Path,
    read: Callable[[Line], T],
    prepare: Callable[[list[Line]], None] = lambda lines: None,
    only: Container[int] | None = None,
) -> Iterator[Iterator[tuple[Line, T | BadLine]]]:
    """What a function makes of every line of a file, or why it raises `BadLine`.

    Args:
        prepare: called with the next few lines before they are read.
        only: the numbers of the lines that are wanted.

    Raises:
        PromptFileError: the file cannot be read.
    """

    def found(lines: Iterator[Line]) -> Iterator[tuple[Line, T | BadLine]]:
        for batch in _batches(lines):
            prepare(batch)
            for line in batch:
                try:
                    made: T | BadLine = line.value if isinstance(line.value, BadLine) else read(line)
                except BadLine as reason:
                    made = reason
                yield line, made

    with rarely_collected(), lines_of(path, only) as lines:
        yield found(lines)


def _batches(lines: Iterator[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line.text)
        if len(batch) == LINES or size > CHARACTERS:
            yield batch
            batch, size = [], 0
    yield batch
