"""The consoles that rich prints on: texts stand there as they are, and nothing in them is obeyed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from circuitdsl.visible import visible


class Screen(Console):
    """A console on which square brackets are no markup, and what cannot be seen in a text is spelled out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The pieces of text of anything that is printed, with their styles."""
        for piece in super().render(renderable, options):
            text, style, control = piece
            yield piece if control else Segment(visible(text, "\n"), style)

    def on_broken_pipe(self) -> None:
        """Rich would exit with 1, which says that a claim fails."""
        raise BrokenPipeError


class Spinner(Status):
    """A spinner with a line of text beside it."""

    def __init__(self, text: str, console: Console) -> None:
        super().__init__(Text(text), console=console)

    def update(self, status: RenderableType | None = None, **how: Any) -> None:
        """Show another text."""
        super().update(Text(status) if isinstance(status, str) else status, **how)
