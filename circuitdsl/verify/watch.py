"""Verify again whenever a file changes: the model, the prompts and their runs stay in memory between the runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitdsl.api import find_spec, loads
from circuitdsl.dictionaries import place_of
from circuitdsl.dictionaries.record import DictionaryError
from circuitdsl.errors import UserError
from circuitdsl.language import syntax as s
from circuitdsl.language.parse import parse, read_source
from circuitdsl.models.files import stamps
from circuitdsl.report.diff import Diff, compare
from circuitdsl.report.report import Reports

if TYPE_CHECKING:
    from circuitdsl.verify.session import Session

#: files of one dictionary that are looked at
MOST_FILES = 1000
#: seconds between two looks at the files
PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of a watch.

    Attributes:
        reports: what was found; empty where there is trouble.
        changes: what is other than at the last run that ended; None for the first.
        trouble: why nothing could be verified.
        seconds: from the change to the verdicts.
    """

    reports: Reports
    changes: Diff | None
    trouble: UserError | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "reports": [report.to_json() for report in self.reports],
            "changes": self.changes and self.changes.to_json(),
            "trouble": self.trouble and self.trouble.message,
            "seconds": self.seconds,
        }


def watch(
    session: Session,
    specs: Sequence[str | Path],
    wait: Callable[[], object] = lambda: time.sleep(PAUSE),
    **how: Any,
) -> Iterator[Turn]:
    """Verify some specs now, and again after every change of a file that they are made of. It ends with Ctrl-C.

    A spec with errors is no end: the next change may mend it.

    Args:
        wait: called between two looks at the files.
        how: the arguments of `Session.reports`.
    """
    session.keep_prompts()
    last: Reports | None = None
    while True:
        start, files = time.perf_counter(), files_of(specs) | set(map(Path, session.prompt_files.values()))
        before = stamps(files)
        try:
            reports = Reports(session.reports(specs, **how))
        except UserError as error:
            yield Turn(Reports(()), None, error, time.perf_counter() - start)
        else:
            changes = None if last is None else compare(last, reports, edited=True)
            yield Turn(reports, changes, None, time.perf_counter() - start)
            if any(report.interrupted for report in reports):
                return
            last = reports
        while stamps(files) == before:
            wait()
        wait()  # an editor may empty a file, or take it away, before it writes it


def files_of(specs: Iterable[str | Path]) -> set[Path]:
    """The files that specs are made of: their own, those that they use, of prompts, directions and dictionaries."""
    found: set[Path] = set()
    waiting = [_path(name) for name in specs]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        text, _ = read_source(path)
        file, _ = parse(text, str(path))
        waiting += [path.parent / each.path.text for each in file.statements if isinstance(each, s.Use)]
        found |= {
            path.parent / use.file
            for one in loads(text, path, allow_outside=True).circuits
            for use in one.tasks
            if use.file
        }
        for each in file.statements:
            if isinstance(each, s.Direction | s.Dictionary):
                texts = [text.text for text in each.arguments if isinstance(text, s.Text)]
                found.update(chain.from_iterable(_tensors(text, path.parent) for text in texts))
    return found


def _tensors(name: str, folder: Path) -> Iterable[Path]:
    """The files of a direction or a dictionary, or where they would be."""
    try:
        place = place_of(name, folder)
        return islice(place.iterdir(), MOST_FILES) if place.is_dir() else (place,)
    except (OSError, ValueError, DictionaryError):
        return (folder / name,)


def _path(name: str | Path) -> Path:
    """Where a spec is, or where it would be."""
    try:
        return find_spec(str(name))
    except UserError:
        return Path(name)
