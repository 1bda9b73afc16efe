"""`trace 9.9 END -> IO includes 8.6 7.9 at END`: which upstream heads made a head attend where it does.

The line says of each head that it is among the senders of 9.9 at END in at least half of the prompts on which 9.9 fires
from END to IO (sparse attention decomposition, Franco & Crovella 2410.00340). `at` names one end of the arrow; without
it the first is meant, where the head asks.
"""

from __future__ import annotations

from dataclasses import dataclass

from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.criteria import Within
from circuitdsl.circuit.expressions import evaluate
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import Node, Positions
from circuitdsl.circuit.scope import Scope, complete
from circuitdsl.circuit.traced import Side
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import listing
from circuitdsl.measurements.kind import ByLabel, Kind, Values
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.plan import ClaimPlan, Part
from circuitdsl.measurements.requests import READERS, Figure, Request
from circuitdsl.report.numbers import percent
from circuitdsl.report.report import MemberResult


@dataclass(frozen=True, slots=True)
class Tracing(Kind):
    """Whether heads are among the senders of another's firings, at the end of its arrow that `side` names.

    A head fires on a prompt where it gives a token at least half of its attention.
    """

    head: Node
    source: Positions
    target: Positions
    senders: tuple[Node, ...]
    side: Side

    statement = s.Trace
    claim_kind = "trace"
    many_figures = True
    examples = ("trace 2.5 END -> IO includes 0.6",)
    false_examples = ("trace 2.5 END -> IO includes 1.0",)

    @classmethod
    def resolve(cls, scope: Scope, trace: s.Trace) -> Expected | None:  # type: ignore[override]
        head = _head(scope, trace)
        senders = _senders(scope, trace, head)
        source, target = (complete(map(scope.position, places)) for places in (trace.source, trace.target))
        at = scope.places(trace.at)
        if head is None or senders is None or source is None or target is None or at is None:
            return None
        if at and set(at) not in (set(source), set(target)):
            message = f"a trace is looked at where its arrow begins or ends, not at {', '.join(map(str, at))}"
            help = f"write: at {', '.join(map(str, source))}, or at {', '.join(map(str, target))}"
            scope.sink.error("E114", message, trace.at.span if trace.at else trace.span, help)
            return None
        side: Side = "source" if at and set(at) != set(source) else "destination"
        return cls(head, source, target, senders, side), (Within("value", 0.5, None, ">= 50%"),)

    @property
    def positions(self) -> Positions:
        return (*self.source, *self.target)

    def plan(self, claim: Claim, task: str, nulls: Nulls) -> ClaimPlan:
        asked = (TraceRequest(self.head, self.source, self.target, sender, self.side) for sender in self.senders)
        parts = (Part(str(each.sender) if len(self.senders) > 1 else "", each) for each in asked)
        return ClaimPlan(claim, task, tuple(parts))

    def member_results(self, plan: ClaimPlan, judged: ByLabel, values: Values) -> tuple[MemberResult, ...]:
        """Each head that the trace includes, with its share of the firings."""
        found = []
        for part, sender in zip(plan.parts, self.senders, strict=True):
            n, decided = len(values.get(part.request, ())), judged.get(part.label)
            share = f"in {percent(sum(values[part.request]) / n)} of {n} firings" if n else "not measured"
            asks = self.side == "destination"
            member = MemberResult(
                sender=str(sender),
                receiver=str(self.head),
                input="q" if asks else "k",
                position=", ".join(map(str, self.source if asks else self.target)),
                effect=None,
                ci=None,
                delta=None,
                n=n,
                verdict=decided[0].verdict if decided else None,
                reason=f"{sender} {share}",
            )
            found.append(member)
        return tuple(found)


def _head(scope: Scope, trace: s.Trace) -> Node | None:
    """The one head whose attention is traced."""
    found = evaluate(scope, trace.nodes, "heads")
    if found is None:
        return None
    heads = list(found)
    if len(heads) > 1 or heads[0].kind != "head" or heads[0].index >= 0:
        message = f"a trace starts at one head, and {trace.nodes} is not one"
        scope.sink.error("E113", message, trace.nodes.span, "write a line for each head")
        return None
    if heads[0].layer == 0:
        scope.sink.error("E070", f"no head is upstream of {heads[0]}", trace.nodes.span)
        return None
    return heads[0]


def _senders(scope: Scope, trace: s.Trace, head: Node | None) -> tuple[Node, ...] | None:
    found = evaluate(scope, trace.includes, "heads")
    if found is None or head is None:
        return None
    others = [str(node) for node in found if node.kind != "head" or node.index >= 0]
    late = [str(node) for node in found if node.kind == "head" and node.layer >= head.layer]
    if others:
        scope.sink.error("E113", f"a trace includes whole heads only, not {listing(others)}", trace.includes.span)
    elif late:
        message = f"{listing(late)} {'is' if len(late) == 1 else 'are'} not upstream of {head}"
        scope.sink.error("E070", message, trace.includes.span)
    return None if others or late else tuple(found)


@dataclass(frozen=True, slots=True)
class TraceRequest(Request):
    """Whether a head is among the senders of another's firing, 1 or 0; prompts where that does not fire are left out.

    `side` is the token at which the sender writes: the firing's destination, or its source.
    """

    head: Node
    source: Positions
    target: Positions
    sender: Node
    side: Side

    hooks = f"{READERS}.trace"
    numbers = Figure("share of firings", hits=True)
    on_runs = False

    def protocol(self) -> dict[str, str]:
        return {"read": "trace", "run": "clean", "side": self.side}
