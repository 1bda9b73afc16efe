"""A scene into a file: the suffix says how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from circuitdsl.diagram import png, svg
from circuitdsl.diagram.marks import Scene
from circuitdsl.errors import UsageError
from circuitdsl.report.report import write_whole

_PAINTERS: dict[str, Callable[[Scene], str | bytes]] = {".svg": svg.paint, ".png": png.paint}


def painter(path: Path) -> Callable[[Scene], str | bytes]:
    """What paints into a file of that name.

    Raises:
        UsageError: the suffix is neither .svg nor .png.
    """
    found = _PAINTERS.get(path.suffix.lower())
    if found is None:
        raise UsageError(f"cannot draw into {path}: the suffix says what to draw", hint="use .svg or .png")
    return found


def write_picture(scene: Scene, path: Path) -> None:
    """Draw into a file, whole or not at all.

    Raises:
        UsageError: the suffix is neither .svg nor .png.
        UserError: the file cannot be written; PNG without Graphviz.
    """
    write_whole(path, painter(path)(scene))
