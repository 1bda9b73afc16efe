"""Circuit and report → drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from circuitdsl.circuit.changes import EdgePatch, Member
from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.criteria import Negligible
from circuitdsl.diagram import ends as ends_of
from circuitdsl.diagram.findings import judged, measured_in, members_of, of_claims, rows_of, shown
from circuitdsl.diagram.model import Arrow, Box, Drawing, End, Figure, Finding, Said, Tone
from circuitdsl.report.report import counted
from circuitdsl.verdicts import VERDICTS, WORST_FIRST, Verdict

_PORTS = ("q", "k", "v", "in")
#: tasks of one verdict whose figures a label lists; of more it gives the range
_LISTED = 2
#: pairs of nodes in one box that are drawn one by one
_FEW = 4


def draw(circuit: Circuit, report: dict | None = None) -> Drawing:
    """What a diagram of a circuit shows; with a report (its JSON), what became of every edge as well."""
    boxes = ends_of.boxes(circuit)
    results = None if report is None else of_claims(report)
    arrows = _arrows(circuit, boxes, results)
    return Drawing(
        name=circuit.name,
        title=circuit.title or circuit.name,
        facts=_facts(circuit, report, boxes),
        sources=circuit.sources,
        boxes=boxes,
        arrows=arrows,
        rows=rows_of(circuit, results),
        reported=report is not None,
        full=_full(arrows),
    )


# --- arrows -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """What makes two claims the same arrow."""

    sender: End
    receiver: End
    ports: tuple[str, ...]
    note: str
    negligible: bool
    joint: str


def _arrows(circuit: Circuit, boxes: Sequence[Box], results: Mapping[str, list[dict]] | None) -> tuple[Arrow, ...]:
    protocols = {effect.via_mlps for _, effect in ends_of.drawn(circuit)}
    claims: dict[_Line, list[Claim]] = {}
    for claim, effect in ends_of.drawn(circuit):
        for line in _lines(claim, effect, boxes, mixed=len(protocols) > 1):
            same = claims.setdefault(line, [])
            if claim not in same:
                same.append(claim)
    outside = {box.key for box in boxes if box.outside}
    arrows = []
    for index, (line, stated) in enumerate(claims.items()):
        arrow = Arrow(
            key=f"e{index}",
            sender=line.sender,
            receiver=line.receiver,
            ports=line.ports,
            tone=_port_tone(line.ports),
            note=line.note,
            negligible=line.negligible,
            outside=line.sender.box in outside or line.receiver.box in outside,
            claims=tuple(
                Said(claim.id, claim.line, claim.text, " and ".join(map(str, claim.tests))) for claim in stated
            ),
            joint=line.joint,
        )
        arrows.append(arrow if results is None else _with_finding(arrow, results))
    return tuple(_said_once(arrows))


def _said_once(arrows: Iterable[Arrow]) -> Iterator[Arrow]:
    """Arrows of which the first of each joint edge alone says the figure that all of them have together."""
    said: set[tuple[str, tuple[Said, ...]]] = set()
    for arrow in arrows:
        if not arrow.joint or arrow.finding is None:
            yield arrow
        elif (arrow.joint, arrow.claims) in said:
            yield replace(arrow, quiet=True, note=", ".join(_parts(arrow.sender, arrow.receiver)))
        else:
            said.add((arrow.joint, arrow.claims))
            yield replace(arrow, note=arrow.note.replace("jointly", f"jointly {arrow.joint}", 1))


def _lines(claim: Claim, effect: EdgePatch, boxes: Sequence[Box], mixed: bool) -> list[_Line]:
    """The arrows of one claim: one between two groups, several where a set expression joins groups."""
    sender, receiver = ends_of.sides(claim.text)
    known = {box.key: box for box in boxes}
    edges = [edge for member in effect.members for edge in member.edges]
    sent = {str(edge.position) for edge in edges}
    read = {str(edge.position) for edge in edges if edge.receiver.port in ("q", "in")}
    pairs = [
        (one, other, tuple(m for m in effect.members if _at(m.sender, one, known) and _at(m.receiver, other, known)))
        for one in ends_of.ends((m.sender for m in effect.members), sender, sent, boxes)
        for other in ends_of.ends((m.receiver for m in effect.members), receiver, read, boxes)
    ]
    pairs = [part for pair in pairs if pair[2] for part in _within(*pair)]
    joint = f"{sender} \N{RIGHTWARDS ARROW} {receiver}" if len(pairs) > 1 and not claim.each else ""
    return [
        _Line(
            one,
            other,
            tuple(port for port in _PORTS if any(e.receiver.port == port for m in members for e in m.edges)),
            _note(claim, effect, members, known[one.box], (one, other), mixed, joint=len(pairs) > 1),
            any(isinstance(test, Negligible) for test in claim.tests),
            joint,
        )
        for one, other, members in pairs
    ]


def _within(one: End, other: End, members: tuple[Member, ...]) -> list[tuple[End, End, tuple[Member, ...]]]:
    """An arrow between parts of one box, from node to node where these are few."""
    if one.box != other.box or not (one.but or other.but) or len(members) > _FEW:
        return [(one, other, members)]
    return [(End(one.box, m.sender), End(other.box, m.receiver), (m,)) for m in members]


def _at(node: Any, end: End, boxes: Mapping[str, Box]) -> bool:
    return node == end.node if end.node else node in boxes[end.box].nodes


def _note(
    claim: Claim,
    effect: EdgePatch,
    members: Iterable[Member],
    sender: Box,
    joined: tuple[End, End],
    mixed: bool,
    joint: bool,
) -> str:
    """What the arrow alone does not show: part of a group, another position, the protocol."""
    places = list(dict.fromkeys(str(edge.position) for member in members for edge in member.edges))
    words = _parts(*joined)
    if claim.each:
        words.append("each")
    elif joint:
        words.append("jointly")
    if set(places) != set(sender.positions):
        words.append(f"at {', '.join(places)}")
    if mixed and effect.via_mlps:
        words.append("via MLPs")
    if effect.direction == "denoise":
        words.append("denoised")
    return ", ".join(words)


def _parts(*joined: End) -> list[str]:
    """Which parts of boxes are meant."""
    return [end.but for end in joined if end.but]


def _port_tone(ports: tuple[str, ...]) -> Tone:
    return cast(Tone, ports[0]) if len(ports) == 1 else "several"


# --- the report -------------------------------------------------------------------------------------


def _with_finding(arrow: Arrow, results: Mapping[str, list[dict]]) -> Arrow:
    said = [(claim, entry) for claim in arrow.claims for entry in results.get(claim.id, ()) if judged(entry)]
    entries = [entry for _, entry in said]
    if not entries:
        return replace(arrow, tone="unmeasured")
    worst = min(entries, key=_badness)
    verdict = cast(Verdict, worst["verdict"])
    reasons = tuple(_reason(entry, alone=len(entries) == 1) for entry in entries)
    tasks = {entry.get("task") for of_claim in results.values() for entry in of_claim} - {None}
    figures = _figures(said, several=len(tasks) > 1)
    return replace(arrow, tone=verdict, finding=Finding(verdict, shown(worst)[0], figures, reasons, members_of(worst)))


def _figures(said: Sequence[tuple[Said, dict]], several: bool) -> tuple[Figure, ...]:
    """A figure for each task, that of the worst claim; for each claim as well where claims disagree."""
    verdicts = {claim: frozenset(entry["verdict"] for one, entry in said if one == claim) for claim, _ in said}
    differ = len(set(verdicts.values())) > 1
    worst: dict[tuple[str, str], dict] = {}
    for claim, entry in said:
        key = claim.test if differ else "", entry.get("task") or ""
        if key not in worst or _badness(entry) < _badness(worst[key]):
            worst[key] = entry
    alike: dict[tuple[str, Verdict], list[dict]] = {}
    for (test, _), entry in worst.items():
        alike.setdefault((test, entry["verdict"]), []).append(entry)
    return tuple(
        Figure(_joined(words, test), verdict)
        for (test, verdict), entries in alike.items()
        for words in _of_tasks(entries, several)
    )


def _of_tasks(entries: Sequence[dict], several: bool) -> list[str]:
    """The figures of tasks with one verdict: one by one, or of many the range."""
    found = sorted((measured.value, i) for i, entry in enumerate(entries) if (measured := measured_in(entry)))
    if len(entries) <= _LISTED or len(found) < len(entries):
        return [_joined((entry.get("task") or "") if several else "", shown(entry)[1]) for entry in entries]
    ends = dict.fromkeys(shown(entries[i])[1] for _, i in (found[0], found[-1]))
    return [f"{len(entries)} tasks {' to '.join(ends)}"]


def _badness(entry: dict) -> int:
    return WORST_FIRST.index(entry["verdict"])


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _reason(entry: dict, alone: bool) -> str:
    reason = entry.get("reason") or entry["verdict"]
    return reason if alone else f"{entry.get('task', '?')}: {entry['verdict']}: {reason}"


def _full(arrows: Iterable[Arrow]) -> float:
    """A round effect, no smaller than any that is drawn: the one drawn at full width."""
    effects = [abs(a.finding.effect) for a in arrows if a.finding and a.finding.effect is not None]
    strongest = max((effect for effect in effects if math.isfinite(effect)), default=1.0)
    return next((full for full in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if full >= strongest), strongest)


# --- the caption ------------------------------------------------------------------------------------


def _facts(circuit: Circuit, report: dict | None, boxes: Sequence[Box]) -> tuple[str, ...]:
    """Model, task and protocol; with a report, what it found."""
    model = (report or {}).get("model", {}).get("name") or (circuit.model.name if circuit.model else "")
    tasks = ", ".join(f"{t.name} ({t.corrupt})" if t.corrupt else t.name for t in circuit.tasks)
    protocols = {effect.via_mlps for _, effect in ends_of.drawn(circuit)}
    facts = [
        f"model {model}" if model else "",
        f"task {tasks}" if tasks else "",
        str(circuit.metric) if circuit.metric else "",
        _heads(boxes),
        "edges via MLPs" if protocols == {True} else "",
    ]
    if report is not None:
        facts += [_counts(report), _staleness(circuit, report)]
    return tuple(fact for fact in facts if fact)


def _heads(boxes: Sequence[Box]) -> str:
    """How many heads there are, those outside the circuit apart."""
    inside, outside = (
        {node for box in boxes if box.outside is apart for node in box.nodes if node.kind == "head"}
        for apart in (False, True)
    )
    outside -= inside
    if not (inside or outside):
        return ""
    heads = f"{len(inside)} head{'s' * (len(inside) != 1)}"
    return f"{heads}, {len(outside)} outside" if outside else heads


def _counts(report: dict) -> str:
    counts: dict[str, int] = {}
    for claim in report["claims"]:
        counts[claim["verdict"]] = counts.get(claim["verdict"], 0) + 1
    parts = [counted(counts[verdict], verdict) for verdict in VERDICTS if verdict in counts]
    total = len(report["claims"])
    return f"{total} claim{'s' * (total != 1)}: {', '.join(parts)}" if parts else ""


def _staleness(circuit: Circuit, report: dict) -> str:
    theirs = report.get("spec", {}).get("sha256")
    return (
        "the report is of another version of this spec"
        if theirs and circuit.sha256 and theirs != circuit.sha256
        else ""
    )
