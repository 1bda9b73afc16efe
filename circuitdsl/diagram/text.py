"""How much room words take. Widths are those of DejaVu Sans, the widest of the usual sans-serif fonts."""

from __future__ import annotations

import re
import unicodedata

_EMS = {
    0.28: "ijlI'|",
    0.33: " .,:;!()[]/\\-",
    0.41: 'frt"·',
    0.52: "_*?`",
    0.54: "ckszJ",
    0.61: "abdeghnopquvxyLFETYZ",
    0.64: "0123456789$",
    0.70: "ABCDKNPRSVXU",
    0.79: "GHOQw",
    0.84: "+<>=−~#",
    0.98: "mMW%@&",
}
_EM = {char: em for em, chars in _EMS.items() for char in chars}
_BOLD = 1.1


def width(words: str, size: float, bold: bool = False) -> float:
    """Width in pixels of a line of text."""
    return size * (_BOLD if bold else 1.0) * sum(_em(char) for char in words)


def wrap(words: str, size: float, room: float, bold: bool = False) -> list[str]:
    """Break text into lines no wider than `room`: at blanks and underscores, inside a word only where it must be."""
    lines = [""]
    for piece in re.findall(r"[^\s_]*_+|\S+\s*|\s+", words):
        for part in _fitting(piece, size, room, bold):
            if lines[-1] and width((lines[-1] + part).rstrip(), size, bold) > room:
                lines.append("")
            lines[-1] += part
    return [line.strip() for line in lines if line.strip()] or [""]


def _fitting(piece: str, size: float, room: float, bold: bool) -> list[str]:
    """A piece cut into parts that each fit the room."""
    parts = [""]
    for char in piece:
        if parts[-1] and width((parts[-1] + char).rstrip(), size, bold) > room:
            parts.append("")
        parts[-1] += char
    return parts


def _em(char: str) -> float:
    if char in _EM:
        return _EM[char]
    if unicodedata.combining(char):
        return 0.0
    if unicodedata.east_asian_width(char) in "WF":
        return 1.05
    return 0.75 if ord(char) < 0x2000 else 1.0
