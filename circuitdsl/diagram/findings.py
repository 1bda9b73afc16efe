"""What a report's JSON says of claims: numbers in words, a row a claim and task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from circuitdsl.circuit.claims import Circuit
from circuitdsl.diagram.model import MemberEffect, Row
from circuitdsl.errors import UserError
from circuitdsl.report import numbers
from circuitdsl.report.report import Interval, Measured
from circuitdsl.verdicts import VERDICTS, Verdict

_PERCENT = ("gap", "share", "points")


def of_claims(report: Any) -> dict[str, list[dict]]:
    """The report's claims by id, one entry a task.

    Raises:
        UserError: this is not a report.
    """
    claims = report.get("claims") if isinstance(report, dict) else None
    if not isinstance(claims, list) or not all(isinstance(c, dict) and "id" in c and "verdict" in c for c in claims):
        raise UserError("this is not a circuitdsl report", hint="make one with verify --format json -o FILE")
    found: dict[str, list[dict]] = {}
    for claim in claims:
        found.setdefault(claim["id"], []).append(claim)
    return found


def judged(entry: Mapping[str, Any]) -> bool:
    return entry["verdict"] in VERDICTS


def rows_of(circuit: Circuit, results: Mapping[str, list[dict]] | None) -> tuple[Row, ...]:
    """Every claim of the spec on every task, then what the report has beyond them."""
    rows: list[Row] = []
    for claim in circuit.claims:
        bare = Row(claim.line, claim.text, claim.kind == "edge")
        entries = (results or {}).get(claim.id, [])
        rows += [_row(entry, bare) for entry in entries] or [bare]
    known = {claim.id for claim in circuit.claims}
    for key, entries in (results or {}).items():
        if key not in known:
            rows += [_row(entry, Row(0, key, edge=False)) for entry in entries]
    return tuple(rows)


def _row(entry: dict, bare: Row) -> Row:
    measured = measured_in(entry)
    return Row(
        line=entry.get("line") or bare.line,
        text=entry.get("text") or bare.text,
        block=entry.get("block") or "",
        edge=entry["kind"] == "edge" if "kind" in entry else bare.edge,
        task=entry.get("task") or "",
        verdict=cast(Verdict, entry["verdict"]) if judged(entry) else None,
        figure=numbers.figure(measured),
        interval=numbers.interval(measured) if measured else "",
        n=str(measured.n) if measured and measured.n else "",
        reason=entry.get("reason") or "",
        members=members_of(entry),
    )


def measured_in(entry: Mapping[str, Any]) -> Measured | None:
    """The figure that decided a claim, as the record it was written from; none where there is no finite one."""
    found = entry.get("measured") or {}
    value, name = found.get("value"), found.get("name", "")
    if not isinstance(value, (int, float)):
        return None
    unit = found.get("unit") or ("gap" if name == "effect" else "")
    ci, n, named = _interval(found.get("ci")), found.get("n") or 0, found.get("named", False)
    return Measured(name, value, ci, n, unit, found.get("delta"), named=named)


def _interval(ci: Any) -> Interval | None:
    if not isinstance(ci, (list, tuple)) or len(ci) != 2 or not all(isinstance(x, (int, float)) for x in ci):
        return None
    return ci[0], ci[1]


def shown(entry: Mapping[str, Any]) -> tuple[float | None, str]:
    """The normalised effect, for the width of an arrow, and the figure that its label shows."""
    measured = measured_in(entry)
    if measured and measured.name == "effect":
        return measured.value, numbers.value(measured)
    effects = [member.effect for member in members_of(entry) if member.effect is not None]
    strongest = max(effects, key=abs, default=None)
    if measured:
        return strongest, with_unit(measured)
    return strongest, numbers.percent(strongest) if strongest is not None else ""


def with_unit(measured: Measured) -> str:
    """A figure that stands alone: with its unit, and two digits that mean something."""
    if measured.unit in _PERCENT:
        return numbers.value(measured)
    size = abs(measured.value)
    digits = min(4, 1 - math.floor(math.log10(size))) if 0 < size < 0.1 else 2
    return f"{numbers.plain(measured.value, digits)} {measured.unit}".rstrip()


def members_of(entry: Mapping[str, Any]) -> tuple[MemberEffect, ...]:
    def text(member: dict) -> str:
        port = member.get("input", "in")
        receiver = f"{member.get('receiver')}.{port}" if port != "in" else f"{member.get('receiver')}"
        return f"{member.get('sender')} -> {receiver} at {member.get('position')}"

    return tuple(MemberEffect(text(member), member.get("effect")) for member in entry.get("members") or ())
