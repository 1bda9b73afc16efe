"""How numbers are written for people: percent signs, true minus signs, and as many digits as mean something."""

from __future__ import annotations

from circuitdsl.report.report import ClaimResult, Interval, Measured

_MINUS = "\N{MINUS SIGN}"


def plain(value: float, digits: int = 2) -> str:
    """A number with a true minus sign and no negative zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", _MINUS)


def percent(share: float, sign: bool = True) -> str:
    """A fraction as a percentage, with a decimal where it is small or near a whole."""
    value = 100 * share
    digits = 0 if abs(value) >= 9.95 and not 99 < abs(value) < 100 else 1
    return f"{plain(value, digits)}{' %' if sign else ''}"


def value(measured: Measured) -> str:
    """The measured figure in its unit."""
    if measured.unit in ("gap", "share"):
        return percent(measured.value)
    if measured.unit == "points":
        return f"{percent(measured.value, sign=False)} points"
    if measured.unit == "composition":
        return plain(measured.value, 3)
    return plain(measured.value)


def duration(seconds: float) -> str:
    """`4.1 s`, `12 min`, `1.5 h`"""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def figure(found: Measured | None) -> str:
    """The figure of a claim in its unit, with its name where the claim does not say it."""
    if found is None:
        return ""
    shown = f"{value(found)} {found.unit}" if found.unit in ("logits", "nats") else value(found)
    return f"{found.name} {shown}" if found.named else shown


def part(claim: ClaimResult) -> str:
    """Which part of its claim the figure is of, in short: `weakest 0.6`; empty where the claim has only one.

    Of a pair of an edge, the end is named in which the pairs differ.
    """
    found, judged = claim.measured, [m for m in claim.members if m.verdict]
    if found is None or not found.part or len(judged) == 1:
        return ""
    if not judged:  # the largest, or the smallest, of many
        return found.part
    senders, receivers = {m.sender for m in judged}, {(m.receiver, m.input) for m in judged}
    name = found.part
    if found.sender and len(receivers) == 1:
        name = found.sender
    elif found.sender and len(senders) == 1:
        port = next((m.input for m in judged if m.receiver == found.receiver), "")
        name = f"{found.receiver}.{port}" if port in ("q", "k", "v") else found.receiver
    return f"weakest {name}"


def interval(measured: Measured) -> str:
    """The plain 95 % interval, in the unit in which `value` writes the figure; empty where there is none."""
    return "" if measured.ci is None else bracket(measured.ci, measured.unit)


def bracket(ci: Interval, unit: str) -> str:
    if unit in ("gap", "share", "points"):
        low, high = (percent(limit, sign=False) for limit in ci)
    else:
        low, high = (plain(limit) for limit in ci)
    return f"[{low}, {high}]"
