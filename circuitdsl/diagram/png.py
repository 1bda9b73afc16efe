"""SVG → PNG, by resvg."""

from __future__ import annotations

_SCALE = 2  # pixels for each unit of the drawing


def to_png(svg: str) -> bytes:
    """The picture at twice its size. Its text is set in the fonts of the machine."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=_SCALE))
