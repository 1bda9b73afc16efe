"""Which row a box stands in: rows go up with the layers, and a sender stands under its receiver."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from circuitdsl.diagram.model import Arrow, Box

Rows = list[list[str]]


def rows(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> Rows:
    """Keys of boxes, row by row from the bottom.

    A box stands above another when all its nodes are in later layers, or when an arrow comes from the other. Where
    groups send to each other both ways, the one that lies lower on average stands lower.
    """
    upwards = sorted(boxes, key=lambda box: fmean(node.stage() for node in box.nodes))
    sends = {(arrow.sender.box, arrow.receiver.box) for arrow in arrows}
    row: dict[str, int] = {}
    for i, box in enumerate(upwards):
        under = [
            row[low.key]
            for low in upwards[:i]
            if low.layers[1] < box.layers[0] or (low.key, box.key) in sends or (box.key, low.key) in sends
        ]
        row[box.key] = max(under, default=-1) + 1
    found: Rows = [[] for _ in range(max(row.values(), default=-1) + 1)]
    for box in boxes:
        found[row[box.key]].append(box.key)
    return found


def split(found: Rows, widths: dict[str, float], gap: float, room: float) -> Rows:
    """The same rows, none wider than `room`: what does not fit goes into a row of its own above."""
    narrow: Rows = []
    for row in found:
        total = sum(widths[key] + gap for key in row) - gap
        parts = min(len(row), max(1, -int(-total // room)))
        size = -(-len(row) // parts)
        narrow += [row[i : i + size] for i in range(0, len(row), size)]
    return narrow
