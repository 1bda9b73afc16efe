"""Results that show themselves: on a terminal through rich, in a notebook as HTML."""

from __future__ import annotations

from dataclasses import asdict
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class Shown:
    """A result whose `show` prints it on a rich console. `rich.print`, `str` and notebooks show it the same way."""

    __slots__ = ()

    def show(self, console: Console) -> None:
        """Print the result on a console."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """The record as plain values; fractions are fractions."""
        return asdict(self)  # type: ignore[call-overload]

    def __rich__(self) -> Text:
        from rich.text import Text

        from circuitdsl.report.screen import Screen

        screen = Screen(file=StringIO(), force_terminal=True, width=120)
        with screen.capture() as capture:
            self.show(screen)
        return Text.from_ansi(capture.get())

    def __str__(self) -> str:
        return self.__rich__().plain

    def _repr_html_(self) -> str:
        from circuitdsl.report.screen import Screen

        screen = Screen(file=StringIO(), record=True, width=120)
        self.show(screen)
        return screen.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
