"""Parts of a page between two comments, each written by a program: `<!-- NAME -->` … `<!-- end of NAME -->`."""

from __future__ import annotations

import re
from pathlib import Path

from circuitdsl.ordinary import write_whole


def write_part(page: Path, name: str, text: str) -> None:
    """Put a text into its part of a page, and leave the rest as it is.

    Raises:
        ValueError: the page has no such part, or has it twice.
    """
    part = re.compile(rf"(<!-- {name} -->\n).*?(\n?<!-- end of {name} -->)", re.DOTALL)
    new, count = part.subn(lambda found: f"{found[1]}\n{text.strip()}\n{found[2]}", page.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{page} has {count} parts <!-- {name} --> … <!-- end of {name} -->, not one")
    write_whole(page, new)
