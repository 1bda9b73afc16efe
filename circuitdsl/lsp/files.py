"""The other files that a spec has to do with: those that it uses, those that use it, and its prompt files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from circuitdsl.circuit.paths import leaves, real
from circuitdsl.language import syntax as s
from circuitdsl.language.parse import read_source
from circuitdsl.lsp.document import Document, read

#: specs that are looked through for those that use one
_MOST = 1000
#: gives the document of a spec: an editor's, where it is open
Open = Callable[[Path], Document]


def from_disk(path: Path) -> Document:
    """A spec as it is saved; an empty one where it cannot be read."""
    return read(str(path), read_source(path)[0])


def used(document: Document, opened: Open) -> Iterator[Document]:
    """The files that a spec uses, and those that these use, each once."""
    root = Path(document.path).parent
    seen, waiting = {real(Path(document.path))}, [document]
    while waiting:
        each = waiting.pop()
        uses = (line.statement.path.text for line in each.lines if isinstance(line.statement, s.Use))
        for written in uses:
            path = real(Path(each.path).parent / written)
            if path not in seen and leaves(written, Path(each.path).parent, root) is None and path.is_file():
                seen.add(path)
                found = opened(path)
                waiting.append(found)
                yield found


def users(document: Document, folders: Iterable[Path], opened: Open) -> Iterator[Document]:
    """The specs in some folders that use a file; a used file stands in the folder of its user, or below."""
    own = real(Path(document.path))
    paths = dict.fromkeys(real(path) for folder in folders for path in _specs(folder))
    for path in paths:
        if path != own and own.is_relative_to(path.parent):
            other = opened(path)
            if any(real(Path(each.path)) == own for each in used(other, opened)):
                yield other


def prompt_file(document: Document, task: s.Task) -> Path | None:
    """The prompt file of a task line, where it lies in the spec's folder or below."""
    written = next((entry.text for entry in task.arguments if isinstance(entry, s.Text)), None)
    folder = Path(document.path).parent
    if task.generator.text != "file" or written is None or leaves(written, folder, folder):
        return None
    return folder / written


def _specs(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from islice(folder.rglob("*.circ"), _MOST)
