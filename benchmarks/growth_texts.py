"""Texts of a megabyte, broken and whole: the processor seconds of whole commands, start-up included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.growth import Case, Figure
from benchmarks.growth_verbs import process
from tests.hostile.large_texts import BROKEN, MANY, WHOLE

AIM = 2.0


def _slowest(texts: dict[str, Callable[[], str]], *verbs: str) -> Callable[[Path], list[Figure]]:
    """The text that takes longest with each verb."""

    def work(folder: Path) -> list[Figure]:
        figures = []
        for verb in verbs:
            taken = {}
            for number, (name, text) in enumerate(texts.items()):
                spec = folder / f"{number}.circ"
                spec.write_text(text())
                taken[name], _ = process(folder, *verb.split(), str(spec), worst=2)
            name = max(taken, key=taken.__getitem__)
            slowest = f", the slowest: {name!r}" if len(taken) > 1 else ""
            figures.append(Figure(f"`{verb}`{slowest}", taken[name], "CPU s", AIM))
        return figures

    return work


CASES = (
    Case("texts_broken", f"1 MB that is no spec, {len(BROKEN)} kinds", _slowest({**BROKEN}, "check", "fmt --check")),
    Case("texts_many", f"short texts that name too much, {len(MANY)} kinds", _slowest({**MANY}, "check")),
    *(
        Case(f"texts_{at}", name, _slowest({name: WHOLE[name]}, "check", "fmt --check"))
        for at, name in enumerate(WHOLE)
    ),
)
