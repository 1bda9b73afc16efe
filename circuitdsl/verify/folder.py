"""Where what was measured is kept."""

from __future__ import annotations

import os
from pathlib import Path

from circuitdsl.errors import UserError

#: the layout of the file of numbers; a file of another layout is another file
LAYOUT = 2


def default_path() -> Path:
    """The user's cache: `results-2.sqlite` in `CIRCUITDSL_CACHE`, or where the system keeps such things.

    Raises:
        UserError: that variable names the home of nobody.
    """
    import platformdirs

    folder = os.environ.get("CIRCUITDSL_CACHE") or platformdirs.user_cache_dir("circuitdsl", appauthor=False)
    try:
        return Path(folder).expanduser() / f"results-{LAYOUT}.sqlite"
    except RuntimeError:
        raise UserError(f"CIRCUITDSL_CACHE is {folder}, and there is no such user", "name another folder") from None
