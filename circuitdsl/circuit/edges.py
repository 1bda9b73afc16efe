"""Edges: which pairs exist, and at which position each is read (semantics: the graph)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import cast

from circuitdsl.circuit.changes import EdgePatch, Member
from circuitdsl.circuit.expressions import Kind, evaluate
from circuitdsl.circuit.nodes import (
    EMBED,
    ERROR,
    EVERYWHERE,
    LOGITS,
    QKV,
    Ablation,
    Direction,
    Edge,
    Input,
    Node,
    Port,
    Position,
    Positions,
    is_number,
    receives,
)
from circuitdsl.circuit.overlaps import REMEDY, clash
from circuitdsl.circuit.scope import Members, Scope
from circuitdsl.circuit.vocabulary import GENERAL_POSITIONS, PORTS
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Fix, listing, suggest

MAX_PAIRS = 10_000
END = Position("END")


@dataclass(frozen=True, slots=True)
class Ends:
    """Sender and receiver of an edge as written, with their nodes."""

    edge: s.Edge
    senders: Members
    receivers: Members
    port: Port | None

    @property
    def receiver_name(self) -> str:
        """The receiver without its input."""
        receiver = self.edge.receiver
        return str(receiver.inner if isinstance(receiver, s.WithPort) else receiver)

    @property
    def name(self) -> str:
        return f"{self.edge.sender} -> {self.edge.receiver}"


def resolve_edge(
    scope: Scope,
    edge: s.Edge,
    via_mlps: bool,
    direction: Direction = "noise",
    negligible: bool = False,
    ablate: Ablation | None = None,
) -> EdgePatch | None:
    """The pairs of an edge with their inputs and positions; None where it is wrong, after a diagnostic was emitted.

    An edge that stands in many lines is worked out once, and its warnings are emitted for every line.

    Args:
        negligible: whether its effect is claimed to be, for a warning.
        ablate: what stands in for the senders' terms unless the edge says it; None where that is always the term of the
            other run.
    """
    itself = tuple((scope.itself or {}).items())  # in the checks of a role, words mean something else for every head
    key, before = (edge, via_mlps, direction, scope.itself is None, itself, negligible, ablate), len(scope.sink.found)
    if worked_out := scope.effects.get(key):
        known, warned = worked_out
        scope.sink.found.extend(replace(warning, span=edge.span) for warning in warned)
        return known
    ends, at = ends_of(scope, edge), scope.places(edge.at)
    if ends is None or at is None:
        return None
    members = _members(scope, ends, pairs_of(scope, ends), at)
    if not members:
        return None
    _warn_of_other_places(scope, ends, at, negligible)
    if edge.protocol is not None and edge.protocol.via_mlps is not None:
        via_mlps = edge.protocol.via_mlps
    if message := clash([each for member in members for each in member.edges], via_mlps=via_mlps):
        scope.sink.error("E051", message, edge.sender.span, REMEDY)
        return None
    term = _ablation(scope, edge, via_mlps, ablate)
    if term is None:
        return None
    patch = EdgePatch(members, via_mlps, direction, str(edge.sender), ends.receiver_name, term)
    warned = tuple(scope.sink.found[before:])
    if all(warning.span == edge.span for warning in warned):
        scope.effects[key] = patch, warned
    return patch


def _ablation(scope: Scope, edge: s.Edge, via_mlps: bool, ablate: Ablation | None) -> Ablation | None:
    """What stands in for the senders' terms; None after a diagnostic was emitted."""
    own = edge.protocol.ablate if edge.protocol else None
    term = cast(Ablation, own or ablate or "corrupt")
    if ablate is None and term != "corrupt":
        message = "what is put in here is the term of the other run"
        help = "leave 'ablate' out: conditions and 'denoise' exchange terms of the two runs"
    elif term != "corrupt" and via_mlps:
        message = f"an edge via MLPs is patched with corrupt terms, not with 'ablate {term}'"
        help = "write 'direct' on this line, or leave 'ablate' out"
    else:
        return term
    scope.sink.error("E077", message, (edge.protocol if own and edge.protocol else edge).span, help)
    return None


# --- sender and receiver --------------------------------------------------------------------------


def ends_of(scope: Scope, edge: s.Edge, kind: Kind = "nodes") -> Ends | None:
    """Sender and receiver with their nodes; None where one of them is wrong, after a diagnostic was emitted.

    Args:
        kind: what it may join.
    """
    senders = evaluate(scope, edge.sender, kind) if _unlisted(scope, edge.sender, "") else None
    inner, port, right = _receiver(scope, edge.receiver)
    receivers = evaluate(scope, inner, "heads" if port else kind) if right else None
    if senders is None or receivers is None:
        return None
    # an edge that does not say where takes it from a control group as well where nothing else says
    homes = scope.homes if edge.at else scope.any_homes
    senders, receivers = (
        {node: at or homes.get(node) or homes.get(node.whole) for node, at in side.items()}
        for side in (senders, receivers)
    )
    ends = Ends(edge, senders, receivers, port)
    return ends if _inputs_exist(scope, ends) else None


def _unlisted(scope: Scope, node: s.Set, port: str) -> bool:
    """Whether a list stands in brackets, as it must in an edge."""
    if not isinstance(node, s.Items):
        return True
    first, *rest = (str(m.inner if isinstance(m, s.WithPort) else m) for m in node.members)
    if "." in first and rest in (["q"], ["k"], ["v"]):
        scope.sink.error("E030", f"'{first}{rest[0]}' is no node", node.span, f"write {first}.{rest[0]}")
        return False
    help = f"write ({' '.join((first, *rest))}){port}"
    scope.sink.error("E030", "in an edge a list of nodes stands in brackets", node.span, help)
    return False


def _receiver(scope: Scope, receiver: s.Set) -> tuple[s.Set, Port | None, bool]:
    """(the receiver without its input, the input, whether it is well written)."""
    if isinstance(receiver, s.Items):
        last = receiver.members[-1]
        port = f".{last.port.text}" if isinstance(last, s.WithPort) else ""
        return receiver, None, _unlisted(scope, receiver, port)
    if isinstance(receiver, s.Sum):
        *others, last = receiver.operands
        if isinstance(last, s.WithPort):
            whole = s.Sum(receiver.span, receiver.signs, (*others, last.inner))
            help = f"write ({whole}).{last.port.text}"
            scope.sink.error("E071", f"'.{last.port.text}' is the input of all receivers", last.port.span, help)
            return receiver, None, False
    if not isinstance(receiver, s.WithPort):
        return receiver, None, True
    name = receiver.port.text
    if name not in PORTS:
        known = name.lower() in PORTS or suggest(name, ("query", "key", "value"))
        meant = f".{name[0].lower()}" if known else None
        message = f"there is no input '.{name}'; heads have .q, .k and .v"
        scope.sink.error("E071", message, receiver.port.span, meant=meant)
        return receiver.inner, None, False
    return receiver.inner, name, True  # type: ignore[return-value]


def _inputs_exist(scope: Scope, ends: Ends) -> bool:
    """Only heads have q, k and v; nothing is sent to `embed`, and nothing comes from `logits`."""
    error, before, edge = scope.sink.error, len(scope.sink.found), ends.edge
    without = [str(node) for node in ends.receivers if node.kind != "head"]
    if ends.port is not None and without:
        have = "has" if len(without) == 1 else "have"
        message = f"{listing(without)} {have} no .{ends.port}: only heads have inputs .q, .k and .v"
        error("E071", message, edge.receiver.span)
    elif part := next((node for node in ends.receivers if node.is_part and not receives(node)), None):
        message = f"{part} is a part of what {part.whole} writes: it reads nothing"
        if is_number(part):
            message = f"{part} is a feature of {part.whole}, to which nothing can be sent yet"
        if part.index == ERROR:
            message = f"{part} is what the features leave of the run as it is: it reads nothing"
        whole = {"head": "the whole head: ", "mlp": "the whole MLP: "}.get(part.kind)
        help = f"the receiver is {whole}{part.whole}" if whole else None
        error("E070", message, edge.receiver.span, help)
    elif stream := next((node for node in ends.receivers if node.kind == "resid" and not node.is_part), None):
        message = f"{stream} is a sum of what is written before: it reads nothing, so nothing is sent to it"
        error("E070", message, edge.receiver.span, f"to replace what it is, write: expect knockout({stream} at …)")
    elif EMBED in ends.receivers:
        error("E070", "embed only writes: nothing is sent to it", edge.receiver.span)
    if LOGITS in ends.senders:
        error("E070", "logits only reads: it sends nothing", edge.sender.span)
    return len(scope.sink.found) == before


# --- pairs ----------------------------------------------------------------------------------------


def pairs_of(scope: Scope, ends: Ends) -> list[tuple[Node, Node]]:
    """The pairs whose sender is strictly earlier; a warning lists those that are left out."""
    count = len(ends.senders) * len(ends.receivers)
    if count > MAX_PAIRS:
        message = f"{ends.name} joins {count} pairs; at most {MAX_PAIRS} can be checked"
        scope.sink.error("E075", message, ends.edge.span)
        return []
    if not scope.affords(3 * count, ends.edge.span):
        return []
    parallel = scope.model is not None and scope.model.parallel
    pairs: list[tuple[Node, Node]] = []
    missing: list[tuple[Node, Node]] = []
    for a, b in product(ends.senders, ends.receivers):
        (pairs if a.stage(parallel) < b.stage(parallel) else missing).append((a, b))
    if not pairs:
        help = "what is sent goes up: a sender must be earlier than its receiver"
        scope.sink.error("E070", _why_none(ends, missing, parallel), ends.edge.span, help)
    elif missing:
        names = listing(f"{a} -> {b}" for a, b in missing)
        message = f"{len(missing)} of {count} pairs cannot exist and are left out: {names}"
        scope.sink.warning("W070", message, ends.edge.span, "a sender must be earlier than its receiver")
    return pairs


def _why_none(ends: Ends, missing: list[tuple[Node, Node]], parallel: bool) -> str:
    if len(missing) > 1:
        return f"{ends.name}: no sender is below a receiver"
    (a, b) = missing[0]
    if a == b:
        return f"{ends.name}: a node does not read what it writes"
    if a.kind == "resid":
        most = Node("resid", b.layer) if b.layer else EMBED
        return f"{ends.name}: {a} holds what layer {a.known_after} writes; of the streams, {b} reads {most} at the most"
    if a.layer == b.layer and a.stage(parallel) == b.stage(parallel):
        beside = "" if a.kind == b.kind else ", where attention and MLP stand side by side"
        return f"{ends.name}: sender and receiver are in the same layer{beside}"
    return f"{ends.name}: the sender is above the receiver"


# --- positions ------------------------------------------------------------------------------------


def _members(scope: Scope, ends: Ends, pairs: Iterable[tuple[Node, Node]], at: Positions) -> tuple[Member, ...] | None:
    """Every pair with its edges; the first pair that has no position is reported for all."""
    members = []
    for a, b in pairs:
        ports: tuple[Port, ...] = (ends.port,) if ends.port else QKV if b.kind == "head" else ("in",)
        positions = _positions(scope, ends, a, b, at)
        if not positions or not scope.affords(8 * len(ports) * len(positions), ends.edge.span):
            return None
        members.append(Member(a, b, tuple(Edge(a, Input(b, port), p) for port in ports for p in positions)))
    _warn_of_later_keys(scope, ends, members)
    return tuple(members)


def _positions(scope: Scope, ends: Ends, a: Node, b: Node, at: Positions) -> Positions | None:
    """Where an edge lives: at the positions of its line, else where the sender acts, else where the receiver reads.

    It is None where there is no such position, after a diagnostic was emitted.
    """
    writes = at or ends.senders[a] or ()
    # a key's position, or all three inputs, are not tied to where the receiver acts
    free = ends.port in ("k", "v") or (ends.port is None and b.kind == "head")
    reads = () if free else (END,) if b == LOGITS else ends.receivers[b] or ()
    if not writes and not reads:
        help = "add 'at POS' to this line, or to the sender's group"
        if ends.port in ("k", "v"):
            help += f"; for .{ends.port} it is where the key stands, not where the receiver acts"
        message = f"{ends.name} has no position: nothing says where {ends.edge.sender} acts"
        scope.sink.error("E072", message, ends.edge.span, help)
        return None
    if not writes or not reads or EVERYWHERE in reads:
        return writes or reads
    if EVERYWHERE in writes:
        return reads if b == LOGITS or not at else writes
    if not scope.affords(len(writes) * len(reads), ends.edge.span):
        return None
    met = tuple(p for p in writes if any(may_be_one(p, r) for r in reads))
    if met and not (at and len(met) < len(at)):
        return met
    _report_mismatch(scope, ends, b, reads, tuple(p for p in writes if p not in met))
    return None


def may_be_one(a: Position, b: Position) -> bool:
    """Whether two positions can be one token: ANSWER, say, may stand where the task's IO does."""
    names = {a.name, b.name}
    return a == b or ("END" not in names and not names.isdisjoint(GENERAL_POSITIONS))


def _report_mismatch(scope: Scope, ends: Ends, receiver: Node, reads: Positions, writes: Positions) -> None:
    """An input is read elsewhere than the sender writes."""
    here, there = (", ".join(map(str, places)) for places in (reads, writes))
    edge, query = ends.edge, ends.port == "q"
    fixes = tuple(Fix(edge.receiver.port.span, port) for port in (".k", ".v")) if query else ()  # type: ignore[union-attr]
    what = "logits are" if receiver == LOGITS else f"the {'query' if query else 'input'} of {ends.receiver_name} is"
    hint = f"; did you mean {' or '.join(fix.text for fix in fixes)}?" if fixes else ""
    if edge.at is not None:
        span, there = edge.at.span, f"not at {there}"
    else:
        span = (edge.receiver if isinstance(edge.receiver, s.WithPort) else edge).span
        there = f"the sender writes at {there}"
    scope.sink.error("E073", f"{what} read at {here}, {there}{hint}", span, fixes=fixes)


def _warn_of_later_keys(scope: Scope, ends: Ends, members: Iterable[Member]) -> None:
    """A head cannot read keys and values that stand after the position at which it acts."""
    for member in members if ends.port in ("k", "v") else ():
        acts = ends.receivers[member.receiver] or ()
        for edge in member.edges:
            if acts and all(is_before(scope, place, edge.position) for place in acts):
                where = ", ".join(map(str, acts))
                message = f"{member.receiver} acts at {where}, before {edge.position}: it cannot read there"
                scope.sink.warning("W071", message, ends.edge.span)
                return


def _warn_of_other_places(scope: Scope, ends: Ends, at: Positions, negligible: bool) -> None:
    """A line says where an edge is, and it is nowhere that a group of its senders acts.

    A head that other groups have at that place acts there, too. Heads that the line names itself may act anywhere.
    """
    named = (part.name for part in s.walk(ends.edge.sender) if isinstance(part, s.GroupRef))
    for name in dict.fromkeys(named) if at and scope.itself is None else ():
        group = scope.groups.get(name) or {}
        nodes = [node for node in ends.senders if node in group]
        acts = {place for node in nodes for place in group[node] or (EVERYWHERE,)}
        places = _elsewhere(at, acts)
        if places:
            places = _elsewhere(places, set().union(*(scope.places_of.get(node, ()) for node in nodes)))
        if not places or not nodes:
            continue
        here, there = listing(map(str, sorted(acts))), listing(map(str, places))
        message = f"{name} acts at {here}, but this edge is patched at {there}"
        if negligible:
            message += f": 'negligible' there says nothing of what {name} does"
        help = (
            f"an edge without 'at' is where its sender acts; to try {there}, list the nodes, or a group of them there"
        )
        scope.sink.warning("W074", message, ends.edge.span, help)


def _elsewhere(at: Iterable[Position], acts: Collection[Position]) -> tuple[Position, ...]:
    """The positions that are surely none of those at which something acts."""
    known = EVERYWHERE not in acts
    return tuple(p for p in at if known and p != EVERYWHERE and not any(may_be_one(p, place) for place in acts))


def is_before(scope: Scope, early: Position, late: Position) -> bool:
    """Whether one position stands strictly before the other in every prompt of the tasks that have both."""
    if early.offset or late.offset:
        return False
    able = [task.name for task in scope.tasks if scope.defines(task.name, early) and scope.defines(task.name, late)]
    shapes = [scope.shapes.get(name) for name in able]
    return bool(shapes) and all(shape and early.name in shape.before.get(late.name, ()) for shape in shapes)
