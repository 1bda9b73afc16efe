"""What pictures are made of: a few kinds of marks at their places, which every picture writer can paint."""

from __future__ import annotations

from dataclasses import dataclass

from circuitdsl.diagram import palette
from circuitdsl.diagram.geometry import Curve, Point, Rect
from circuitdsl.diagram.text import width


@dataclass(frozen=True, slots=True)
class Pen:
    """How a mark is painted: no colour, no paint."""

    fill: str = ""
    stroke: str = ""
    width: float = 1.0
    dash: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle with round corners."""

    rect: Rect
    radius: float
    pen: Pen
    node: str = ""


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line of curves, or the filled area in it."""

    curves: tuple[Curve, ...]
    pen: Pen


@dataclass(frozen=True, slots=True)
class Span:
    words: str
    size: float
    fill: str = palette.INK
    bold: bool = False
    italic: bool = False

    @property
    def width(self) -> float:
        return width(self.words, self.size, self.bold)


@dataclass(frozen=True, slots=True)
class Line:
    """Text; `y` is its centre line, `x` its left end or, centred, its middle."""

    x: float
    y: float
    spans: tuple[Span, ...]
    centred: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Marks that belong together, with what they stand for."""

    kind: str
    marks: tuple[Mark, ...]
    about: tuple[tuple[str, str], ...] = ()
    classes: str = ""
    story: str = ""
    opacity: float = 1.0
    at: Point = (0.0, 0.0)


Mark = Block | Stroke | Line | Group


@dataclass(frozen=True, slots=True)
class Scene:
    width: float
    height: float
    title: str
    description: str
    marks: tuple[Mark, ...]
