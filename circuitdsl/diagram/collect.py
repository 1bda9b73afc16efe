"""Circuit and report → drawing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from circuitdsl.circuit.changes import EdgePatch, Member, PathPatch
from circuitdsl.circuit.claims import Circuit, Claim, Group
from circuitdsl.circuit.criteria import Negligible
from circuitdsl.circuit.nodes import Edge, Node
from circuitdsl.diagram.model import Arrow, Box, Drawing, End, Figure, Finding, Tone
from circuitdsl.dictionaries.known import name_of
from circuitdsl.report import numbers
from circuitdsl.report.again import Again
from circuitdsl.report.report import ClaimResult, Measured, MemberResult, Report, counted
from circuitdsl.verdicts import OUTCOMES, WORST_OUTCOMES, Outcome

#: tasks of one verdict whose figures a label lists; of more it gives the range
_LISTED = 2
#: pairs of nodes in one box that are drawn one by one
_FEW = 4

_Results = Mapping[str, Sequence[ClaimResult]]


def draw(circuit: Circuit, report: Report | None = None, again: Again | None = None) -> Drawing:
    """What a diagram of a circuit shows; with a report, what became of every edge as well.

    Args:
        again: in what share of resamples parts of the circuit are found.
    """
    boxes = tuple(replace(box, labels=tuple(_labels(circuit, box))) for box in _boxes(circuit))
    results: dict[str, list[ClaimResult]] = {}
    for result in report.claims if report else ():
        results.setdefault(result.id, []).append(result)
    arrows = _arrows(circuit, boxes)
    if report is not None:
        several = len({result.task for result in report.claims} - {None}) > 1
        arrows = _said_once(_with_finding(arrow, results, several) for arrow in arrows)
    if again is not None:
        boxes = tuple(replace(box, again=tuple(again.of_node(n, box.positions) for n in box.nodes)) for box in boxes)
        arrows = tuple(replace(arrow, again=again.of_edges(_edges(arrow))) for arrow in arrows)
    return Drawing(
        name=circuit.name,
        title=circuit.title or circuit.name,
        facts=_facts(circuit, report, boxes),
        sources=circuit.sources,
        boxes=boxes,
        arrows=arrows,
        claims=tuple(_claims(circuit, results)),
        reported=report is not None,
        full=_full(arrows),
    )


def _edges(arrow: Arrow) -> list[Edge]:
    """The single edges that an arrow's claims are about."""
    patches = (claim.measurement.patch for claim in arrow.claims)
    return [edge for patch in patches if isinstance(patch, EdgePatch) for edge in patch.edges]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What is drawn as arrows between two sets of nodes: an edge, or one arrow of a path (see `Arrow`)."""

    claim: Claim
    effect: EdgePatch
    path: str = ""
    step: tuple[int, int] = (1, 1)


def _drawn(circuit: Circuit) -> list[_Drawn]:
    """The claims that are arrows: edges and paths as the spec states them, not what `expect` asks about them."""
    found, named = list[_Drawn](), dict[PathPatch, str]()
    paths = {claim.measurement.patch for claim in circuit.claims if claim.kind == "path"}
    for claim in circuit.claims:
        patch = claim.measurement.patch
        if claim.kind == "edge" and isinstance(patch, EdgePatch):
            found.append(_Drawn(claim, patch))
        elif claim.kind == "path" and isinstance(patch, PathPatch):
            name = named.setdefault(patch, f"path {len(named) + 1}" if len(paths) > 1 else "path")
            steps = len(patch.arrows)
            found += [_Drawn(claim, arrow, name, (i, steps)) for i, arrow in enumerate(patch.arrows, 1)]
    return found


def _boxes(circuit: Circuit) -> tuple[Box, ...]:
    """Every group, then every node that edges name and no group holds. A node is drawn once at a position.

    Of several groups that hold it, the first draws it; those outside the circuit come last.
    """
    found: list[Box] = []
    for group in sorted(circuit.groups, key=lambda group: group.outside):
        found = _with_group(found, group)
    held = {node for box in found for node in box.nodes}
    members = [member for each in _drawn(circuit) for member in each.effect.members]
    alone = dict.fromkeys(node for m in members for node in (m.sender, m.receiver) if node not in held)
    return (*found, *(_lone_box(node, members) for node in sorted(alone, key=lambda n: (n.stage(), n.head))))


def _labels(circuit: Circuit, box: Box) -> Iterator[str]:
    """What the features of a box are called, in a group with their own names: `t1[17]: names`."""
    for node in box.nodes:
        if node.of and (words := circuit.labels.get(name_of(node.of), {}).get(node.index or 0)):
            yield f"{node}: {words}" if box.kind == "group" else words


def _with_group(found: list[Box], group: Group) -> list[Box]:
    """The boxes so far and that of a group. Nodes that an earlier box holds stay there, and it says so."""
    places = tuple(map(str, group.positions))
    left, after = list(group.nodes), []
    for box in found:
        shared = [node for node in left if node in box.nodes] if _is_at(box, places) else []
        left = [node for node in left if node not in shared]
        said = (f"{group.name}: {' '.join(map(str, shared))}",) if shared else ()
        after.append(replace(box, shared=box.shared + said))
    if left:
        after.append(Box(group.name, "group", tuple(left), places, group.role, group.outside))
    return after


def _is_at(box: Box, places: Collection[str]) -> bool:
    """Whether the nodes of a box act at some of these places."""
    return not box.positions or not places or "*" in (*places, *box.positions) or bool(set(places) & set(box.positions))


def _ends(nodes: Iterable[Node], named: str, places: Collection[str], known: Sequence[Box]) -> list[End]:
    """The boxes, and nodes in boxes, that make up a set of nodes.

    Args:
        named: how the spec calls it.
        places: where the nodes act; boxes of other places stand for them only where there is none of these.
    """
    wanted = list(dict.fromkeys(nodes))
    for box in known:
        if box.key == named and set(wanted) <= set(box.nodes):
            return [End(box.key)]
    by_home: dict[Box, list[Node]] = {}
    for node in wanted:
        homes = (box for box in known if node in box.nodes)
        home = min(homes, key=lambda box: (not _is_at(box, places), set(box.nodes) != set(wanted), box.outside))
        by_home.setdefault(home, []).append(node)
    return [_end(box, part) for box, part in by_home.items()]


def _end(box: Box, part: list[Node]) -> End:
    missing = [node for node in box.nodes if node not in part]
    if not missing:
        return End(box.key)
    if len(part) == 1:
        return End(box.key, part[0])
    word, named = ("without", missing) if len(missing) <= len(part) else ("only", part)
    return End(box.key, but=" ".join((word, *map(str, named))))


def _lone_box(node: Node, members: Iterable[Member]) -> Box:
    """A node without a group acts where it sends, or reads queries or (an MLP) its input."""
    if node.kind in ("embed", "logits"):
        return Box(str(node), node.kind, (node,))
    edges = (edge for member in members for edge in member.edges)
    acts = (e for e in edges if e.sender == node or (e.receiver.node == node and e.receiver.port in ("q", "in")))
    return Box(str(node), "node", (node,), tuple(dict.fromkeys(str(edge.position) for edge in acts)))


def _arrows(circuit: Circuit, boxes: Sequence[Box]) -> tuple[Arrow, ...]:
    """The arrows of all edges. Claims whose arrows differ in nothing share one arrow."""
    mixed = len({each.effect.via_mlps for each in _drawn(circuit) if not each.path}) > 1
    known = {box.key: box for box in boxes}
    claims: dict[Arrow, dict[Claim, None]] = {}
    for each in _drawn(circuit):
        for arrow in _arrows_of(each, known, mixed):
            claims.setdefault(arrow, {})[each.claim] = None
    return tuple(replace(arrow, claims=tuple(stated)) for arrow, stated in claims.items())


def _said_once(arrows: Iterable[Arrow]) -> tuple[Arrow, ...]:
    """Of the arrows of a joint edge, only the first shows the figure that they have together."""
    said: set[tuple[str, tuple[Claim, ...]]] = set()
    found = []
    for arrow in arrows:
        if arrow.joint and arrow.finding:
            key, note = (arrow.joint, arrow.claims), arrow.note.replace("jointly", f"jointly {arrow.joint}", 1)
            but = ", ".join(end.but for end in (arrow.sender, arrow.receiver) if end.but)
            arrow = replace(arrow, quiet=key in said, note=but if key in said else note)
            said.add(key)
        found.append(arrow)
    return tuple(found)


def _arrows_of(drawn: _Drawn, known: Mapping[str, Box], mixed: bool) -> Iterator[Arrow]:
    """The arrows of one edge: one between two groups, several where a set expression joins groups.

    They have no claims yet, so that the arrows of two claims about the same edge are equal.
    """
    claim, effect = drawn.claim, drawn.effect
    sent = {str(edge.position) for edge in effect.edges}
    read = {str(edge.position) for edge in effect.edges if edge.receiver.port in ("q", "in")}
    boxes = tuple(known.values())
    senders = _ends((m.sender for m in effect.members), effect.sender, sent, boxes)
    receivers = _ends((m.receiver for m in effect.members), effect.receiver, read, boxes)
    pairs = [
        (one, other, tuple(m for m in effect.members if _at(m.sender, one, known) and _at(m.receiver, other, known)))
        for one in senders
        for other in receivers
    ]
    pairs = [part for pair in pairs if pair[2] for part in _within(*pair)]
    joint = f"{effect.sender} \N{RIGHTWARDS ARROW} {effect.receiver}" if len(pairs) > 1 and not claim.each else ""
    negligible = any(isinstance(test, Negligible) for test in claim.tests)
    for one, other, members in pairs:
        ports = {edge.receiver.port for member in members for edge in member.edges}
        words = [f"{drawn.path}, {drawn.step[0]} of {drawn.step[1]}"] if drawn.path else []
        words += [end.but for end in (one, other) if end.but]
        words += ["each"] if claim.each else ["jointly"] if len(pairs) > 1 else []
        words += _protocol(effect, members, known[one.box], mixed)
        in_order = tuple(port for port in ("q", "k", "v", "in") if port in ports)
        tone: Tone = in_order[0] if len(in_order) == 1 else "several"
        outside = known[one.box].outside or known[other.box].outside
        yield Arrow(
            one,
            other,
            in_order,
            tone,
            ", ".join(words),
            negligible,
            outside,
            joint=joint,
            path=drawn.path,
            step=drawn.step,
        )


def _within(one: End, other: End, members: tuple[Member, ...]) -> list[tuple[End, End, tuple[Member, ...]]]:
    """An arrow between parts of one box, from node to node where these are few."""
    if one.box != other.box or not (one.but or other.but) or len(members) > _FEW:
        return [(one, other, members)]
    return [(End(one.box, m.sender), End(other.box, m.receiver), (m,)) for m in members]


def _at(node: Node, end: End, boxes: Mapping[str, Box]) -> bool:
    return node == end.node if end.node else node in boxes[end.box].nodes


def _protocol(effect: EdgePatch, members: Iterable[Member], sender: Box, mixed: bool) -> Iterator[str]:
    """What neither the boxes nor the caption show: another position, how the edge is patched."""
    places = dict.fromkeys(str(edge.position) for member in members for edge in member.edges)
    if set(places) != set(sender.positions):
        yield f"at {', '.join(places)}"
    if mixed and effect.via_mlps:
        yield "via MLPs"
    if effect.ablate == "mean":
        yield "ablate mean"
    if effect.direction == "denoise":
        yield "denoised"


def _with_finding(arrow: Arrow, results: _Results, several: bool) -> Arrow:
    said = [(claim, result) for claim in arrow.claims for result in results.get(claim.id, ())]
    if not said:
        return replace(arrow, tone="unmeasured")
    worst = min((result for _, result in said), key=_badness)
    alone = len(said) == 1
    shown = ((r.task, r.spoken, r.why or r.spoken) for _, r in said)
    reasons = (why if alone else f"{task}: {word}: {why}" for task, word, why in shown)
    figures = _figures(said, several)
    finding = Finding(worst.outcome, _shown(worst)[0], figures, tuple(reasons), worst.members)
    return replace(arrow, tone=worst.outcome, finding=finding)


def _figures(said: Sequence[tuple[Claim, ClaimResult]], several: bool) -> tuple[Figure, ...]:
    """A figure for each task, that of the worst claim; for each claim as well where claims disagree."""
    verdicts: dict[str, set[str]] = {}
    for claim, result in said:
        verdicts.setdefault(claim.id, set()).add(result.outcome)
    differ = len({frozenset(each) for each in verdicts.values()}) > 1
    worst: dict[tuple[str, str], ClaimResult] = {}
    for claim, result in said:
        key = " and ".join(map(str, claim.tests)) if differ else "", result.task or ""
        if key not in worst or _badness(result) < _badness(worst[key]):
            worst[key] = result
    alike: dict[tuple[str, Outcome], list[ClaimResult]] = {}
    for (test, _), result in worst.items():
        alike.setdefault((test, result.outcome), []).append(result)
    return tuple(
        Figure(f"{words} {test}".strip(), verdict)
        for (test, verdict), found in alike.items()
        for words in _of_tasks(found, several)
    )


def _of_tasks(results: Sequence[ClaimResult], several: bool) -> list[str]:
    """The figures of tasks with one verdict: one by one, or of many the range."""
    found = sorted((measured.value, i) for i, each in enumerate(results) if (measured := measured_in(each)))
    if len(results) <= _LISTED or len(found) < len(results):
        return [f"{each.task or '' if several else ''} {_shown(each)[1]}".strip() for each in results]
    extremes = dict.fromkeys(_shown(results[i])[1] for _, i in (found[0], found[-1]))
    return [f"{len(results)} tasks {' to '.join(extremes)}"]


def _badness(result: ClaimResult) -> int:
    return WORST_OUTCOMES.index(result.outcome)


def measured_in(result: ClaimResult) -> Measured | None:
    """The figure that decided a claim; none where it is not finite."""
    return result.measured if result.measured and math.isfinite(result.measured.value) else None


def _shown(result: ClaimResult) -> tuple[float | None, str]:
    """The normalised effect, for the width of an arrow, and the figure that its label shows."""
    measured = measured_in(result)
    if measured and measured.name == "effect":
        return measured.value, numbers.value(measured)
    effects = [member.effect for member in result.members if member.effect is not None]
    strongest = max(effects, key=abs, default=None)
    if not measured:
        return strongest, numbers.percent(strongest) if strongest is not None else ""
    if measured.unit in ("gap", "share", "points"):
        return strongest, numbers.value(measured)
    size = abs(measured.value)  # it stands alone: with its unit, and two digits that mean something
    digits = min(4, 1 - math.floor(math.log10(size))) if 0 < size < 0.1 else 2
    return strongest, f"{numbers.plain(measured.value, digits)} {measured.unit}".rstrip()


def pairs(members: Iterable[MemberResult]) -> Iterator[tuple[str, str]]:
    """The pairs of a group edge, each with its effect in words."""
    for m in members:
        if m.effect is not None:
            port = f".{m.input}" if m.input != "in" else ""
            yield f"{m.sender} -> {m.receiver}{port} at {m.position}", numbers.percent(m.effect)


def _full(arrows: Iterable[Arrow]) -> float:
    """A round effect, no smaller than any that is drawn: the one drawn at full width."""
    effects = [abs(a.finding.effect) for a in arrows if a.finding and a.finding.effect is not None]
    strongest = max((effect for effect in effects if math.isfinite(effect)), default=1.0)
    return next((full for full in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if full >= strongest), strongest)


def _claims(circuit: Circuit, results: _Results) -> Iterator[Claim | ClaimResult]:
    """Every claim of the spec on every task, then what the report has beyond them."""
    for claim in circuit.claims:
        yield from results.get(claim.id) or (claim,)
    known = {claim.id for claim in circuit.claims}
    for key, found in results.items():
        yield from found if key not in known else ()


def _facts(circuit: Circuit, report: Report | None, boxes: Sequence[Box]) -> tuple[str, ...]:
    """Model, task and protocol; with a report, what it found."""
    model = report.model.name if report else circuit.model.name if circuit.model else ""
    tasks = ", ".join(f"{t.name} ({t.corrupt})" if t.corrupt else t.name for t in circuit.tasks)
    protocols = {each.effect.via_mlps for each in _drawn(circuit) if not each.path}
    facts = [
        f"model {model}" if model else "",
        f"task {tasks}" if tasks else "",
        str(circuit.metric) if circuit.metric else "",
        _heads(boxes),
        "edges via MLPs" if protocols == {True} else "",
    ]
    if report is not None:
        found, total = Counter(claim.outcome for claim in report.claims), len(report.claims)
        counts = ", ".join(counted(found[verdict], verdict) for verdict in OUTCOMES if found[verdict])
        facts.append(f"{total} claim{'s' * (total != 1)}: {counts}" if counts else "")
        facts += ["the report is of another version of this spec"] * (not report.spec.says_what(circuit))
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
