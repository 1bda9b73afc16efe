"""Files that a spec names: they lie in its own folder or below, so that a stranger's spec opens nothing else."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from circuitdsl.brief import quoted


def leaves(written: str, folder: Path, root: Path) -> str | None:
    """Why a path, as a file in `folder` names it, is not in `root` or below; None where it is."""
    name = quoted(written)
    if PurePosixPath(written).is_absolute() or PureWindowsPath(written).drive or written.startswith(("\\", "~")):
        return f"{name} is an absolute path"
    if ".." in PurePosixPath(written.replace("\\", "/")).parts:
        return f"{name} leads out of the folder"
    return None if real(folder / written).is_relative_to(real(root)) else f"{name} leads out of the spec's own folder"


def real(path: Path) -> Path:
    """Links followed; a path that cannot be looked up stays as it is."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()
