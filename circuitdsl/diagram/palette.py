"""Colours, and the words a legend gives them. Colour-blind readers tell the hues apart too (after Okabe and Ito)."""

from __future__ import annotations

from circuitdsl.diagram.model import Arrow, Box, Drawing, Tone
from circuitdsl.verdicts import PASSES

INK, SOFT, FAINT, PAPER = "#1f2933", "#52606d", "#9aa5b1", "#ffffff"
BAND = "#f6f8fa"

#: of every tone, in the order of a legend: its colour, what that is called, what it means
_TONES: tuple[tuple[Tone, str, str, str], ...] = (
    ("holds", "#00875f", "green", "holds"),
    ("expected", "#3d7a9c", "steel blue", "does not hold, as expected"),
    ("fails", "#c5221f", "red", "fails"),
    ("unexpected", "#c5221f", "red", "unexpectedly holds"),
    ("undecided", "#e09600", "amber", "undecided"),
    ("error", "#7b8794", "grey", "error"),
    ("unmeasured", "#b8c1cb", "light grey", "not in the report"),
    ("q", "#0067a8", "blue", "read as query (q)"),
    ("k", "#d1570b", "orange", "read as key (k)"),
    ("v", "#00875f", "green", "read as value (v)"),
    ("several", "#a3508a", "purple", "read through several inputs"),
    ("in", "#3e4c59", "dark", "read by an MLP or the logits"),
)
TONES: dict[Tone, str] = {tone: colour for tone, colour, _, _ in _TONES}
NAMES: dict[Tone, str] = {tone: name for tone, _, name, _ in _TONES}
MEANINGS: dict[Tone, str] = {tone: meaning for tone, _, _, meaning in _TONES}
# fill and border of a group's box
_TINTS = (
    ("#e3effa", "#7fa8cf"),
    ("#fdeedd", "#d8a468"),
    ("#e2f3ea", "#78b594"),
    ("#f4e8f4", "#b98fb9"),
    ("#fdf5d3", "#c9b458"),
    ("#e0f3f5", "#72b0b8"),
    ("#fbe6e4", "#d3938d"),
    ("#ecebf9", "#9a96cc"),
)
OUTSIDE = ("#f1f2f4", "#b4bcc5")
PLAIN = ("#ffffff", "#8a96a3")


def tones(drawing: Drawing) -> list[Tone]:
    """The tones in use, in the order a legend lists them."""
    used = {arrow.tone for arrow in drawing.arrows}
    return [tone for tone in TONES if tone in used]


def tints(drawing: Drawing) -> dict[str, tuple[str, str]]:
    """Fill and border of every box: groups of one role share theirs, whatever is outside is grey."""
    roles = dict.fromkeys(_role(box) for box in drawing.boxes if box.kind == "group" and not box.outside)
    numbers = {role: number for number, role in enumerate(roles)}
    in_role = {key: _TINTS[number % len(_TINTS)] for key, number in numbers.items()}
    return {box.key: OUTSIDE if box.outside else in_role.get(_role(box), PLAIN) for box in drawing.boxes}


def _role(box: Box) -> str:
    return box.role or box.key


def colour(arrow: Arrow) -> str:
    if arrow.outside and arrow.finding is None:
        return TONES["error"]
    return TONES[arrow.tone]


def faded(colour: str, opacity: float) -> str:
    return f"{colour}{round(255 * opacity):02x}"


def opacity(arrow: Arrow) -> float:
    """What is claimed to be negligible is faint, unless that claim does not hold; so is what few resamples find."""
    if not arrow.negligible:
        return found(arrow.again)
    return 0.85 if arrow.finding and arrow.finding.verdict not in PASSES else 0.5


def found(share: float | None) -> float:
    """How opaque is what this share of resamples finds."""
    return 0.92 if share is None else 0.12 + 0.8 * share
