"""Colours, and the words a legend gives them. Colour-blind readers tell the hues apart too (after Okabe and Ito)."""

from __future__ import annotations

from circuitdsl.diagram.model import Arrow, Box, Drawing, Tone

INK, SOFT, FAINT, PAPER = "#1f2933", "#52606d", "#9aa5b1", "#ffffff"
BAND = "#f6f8fa"

TONES: dict[Tone, str] = {
    "holds": "#00875f",
    "fails": "#c5221f",
    "undecided": "#e09600",
    "error": "#7b8794",
    "unmeasured": "#b8c1cb",
    "q": "#0067a8",
    "k": "#d1570b",
    "v": "#00875f",
    "several": "#a3508a",
    "in": "#3e4c59",
}
MEANINGS: dict[Tone, str] = {
    "holds": "holds",
    "fails": "fails",
    "undecided": "undecided",
    "error": "error",
    "unmeasured": "not in the report",
    "q": "read as query (q)",
    "k": "read as key (k)",
    "v": "read as value (v)",
    "several": "read through several inputs",
    "in": "read by an MLP or the logits",
}
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


def tints(drawing: Drawing) -> dict[str, tuple[str, str]]:
    """Fill and border of every box: groups of one role share theirs, whatever is outside is grey."""
    roles = dict.fromkeys(_role(box) for box in drawing.boxes if box.kind == "group" and not box.outside)
    numbers = {role: number for number, role in enumerate(roles)}
    return {box.key: _tint(box, numbers) for box in drawing.boxes}


def _tint(box: Box, numbers: dict[str, int]) -> tuple[str, str]:
    if box.outside:
        return OUTSIDE
    return _TINTS[numbers[_role(box)] % len(_TINTS)] if box.kind == "group" else PLAIN


def _role(box: Box) -> str:
    return box.role or box.key


def colour(arrow: Arrow) -> str:
    if arrow.outside and arrow.finding is None:
        return TONES["error"]
    return TONES[arrow.tone]


def opacity(arrow: Arrow) -> float:
    """What is claimed to be negligible is faint, unless that claim does not hold."""
    if not arrow.negligible:
        return 0.92
    return 0.85 if arrow.finding and arrow.finding.verdict != "holds" else 0.5
