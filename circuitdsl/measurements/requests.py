"""What can be asked of a task's prompts: one number per prompt, as plain data that can be compared and merged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from circuitdsl.circuit.changes import Intervention, Replace
from circuitdsl.circuit.measurements import Metric, ScoreKind
from circuitdsl.circuit.nodes import EVERYWHERE, Ablation, Direction, Edge, Node, Position, Site

ANSWER = Position("ANSWER")


@dataclass(frozen=True, slots=True)
class EdgeRequest:
    """The metric when these edges are patched, all in one live pass."""

    edges: tuple[Edge, ...]
    via_mlps: bool = False
    direction: Direction = "noise"

    @property
    def writes(self) -> tuple[tuple[Node, Position], ...]:
        """The terms that are replaced."""
        return tuple(dict.fromkeys((edge.sender, edge.position) for edge in self.edges))


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """The metric when these nodes are replaced, everything downstream live; under a condition, with it as well."""

    sites: tuple[Site, ...]
    ablate: Ablation = "corrupt"
    direction: Direction = "noise"
    under: Condition | None = None

    @property
    def writes(self) -> tuple[tuple[Node, Position], ...]:
        """The terms that are replaced."""
        return tuple((site.node, site.position) for site in self.sites)


@dataclass(frozen=True, slots=True)
class AttentionRequest:
    """Attention, summed over targets, averaged over sources and heads: of the clean run, or under a condition."""

    heads: tuple[Node, ...]
    source: tuple[Position, ...]
    target: tuple[Position, ...]
    under: Condition | None = None


@dataclass(frozen=True, slots=True)
class BehaviourRequest:
    """A metric of the clean run, or of the run under a condition."""

    metric: Metric
    under: Condition | None = None


@dataclass(frozen=True, slots=True)
class ChangedRequest:
    """What a request measures, of the model that an intervention has changed."""

    inner: AttentionRequest | BehaviourRequest | AttributionRequest
    intervention: Intervention


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """Whether a head is among the senders of another's firing, 1 or 0; prompts where that does not fire are left out.

    `side` is the token at which the sender writes: the firing's destination, or its source.
    """

    head: Node
    source: tuple[Position, ...]
    target: tuple[Position, ...]
    sender: Node
    side: Literal["destination", "source"]


@dataclass(frozen=True, slots=True)
class AttributionRequest:
    """What nodes write at END towards the answer and away from the distractor, in logits, summed over the nodes."""

    nodes: tuple[Node, ...]
    under: Condition | None = None


@dataclass(frozen=True, slots=True)
class CopyingRequest:
    """Whether what stands at ANSWER comes out of heads (or, negated, is pushed down by them); a share of the heads."""

    heads: tuple[Node, ...]
    negated: bool = False
    under: None = None


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Mean attention on repeated random tokens, averaged over heads; prompt i stands for the i-th sequence."""

    kind: ScoreKind
    heads: tuple[Node, ...]
    under: None = None


@dataclass(frozen=True, slots=True)
class TermRequest:
    """Whether what a node writes at a position is another than what a patch puts in its place, 1 or 0."""

    node: Node
    position: Position
    ablate: Ablation = "corrupt"


@dataclass(frozen=True, slots=True, repr=False)
class Subgraph:
    """What a run keeps of a model (semantics §3, faithfulness).

    Attributes:
        keep: `nodes` overwrites the term of every head at every position that is not in `sites`; `edges` patches every
            edge between heads and from heads to the logits that is not in `edges`.
        mlps: whether MLPs are ablated like heads. Under `nodes` that is every (MLP, position) not in `sites`; under
            `edges` every edge of the model not in `edges`, those of `embed` included. Without it they stay.
        ablate: what stands in for what is not kept: the term of the corrupt run, the mean in `Runs.means`, or zero.
        inverted: `sites` and `edges` are what is ablated, and everything else is kept.
    """

    keep: Literal["nodes", "edges"]
    sites: frozenset[Site] = frozenset()
    edges: frozenset[Edge] = frozenset()
    mlps: bool = False
    ablate: Ablation = "corrupt"
    inverted: bool = False

    def __repr__(self) -> str:
        """The same for equal subgraphs, in every process: what is measured of them is kept under this name."""
        return f"Subgraph{(*self.kind, sorted(self.sites), sorted(self.edges))}"

    @property
    def kind(self) -> tuple[str, bool, str, bool]:
        """Subgraphs of one kind can run together."""
        return self.keep, self.mlps, self.ablate, self.inverted

    @property
    def positions(self) -> frozenset[Position]:
        """Every position named in it."""
        return frozenset(e.position for e in self.edges) | frozenset(s.position for s in self.sites)


PatchRequest = EdgeRequest | NodeRequest
#: a patch that is made while something else is measured
Condition = PatchRequest
#: a `Subgraph` asks for the metric when that circuit runs alone
Request = (
    EdgeRequest
    | NodeRequest
    | AttentionRequest
    | BehaviourRequest
    | AttributionRequest
    | CopyingRequest
    | ScoreRequest
    | ChangedRequest
    | TraceRequest
    | TermRequest
    | Subgraph
)
Watching = TypeVar("Watching", AttentionRequest, AttributionRequest)


def is_scored(request: Request) -> bool:
    """Whether a request is a metric of a patched run."""
    return isinstance(request, EdgeRequest | NodeRequest | BehaviourRequest) and bool(patches_of(request))


def by_condition(requests: Iterable[Watching]) -> dict[Condition | None, list[Watching]]:
    """Requests that look at one run together."""
    found: dict[Condition | None, list[Watching]] = {}
    for request in requests:
        found.setdefault(request.under, []).append(request)
    return found


def patches_of(request: Request) -> tuple[PatchRequest, ...]:
    """The patches that a request makes, each alone: its own, and its condition."""
    own: tuple[PatchRequest, ...] = ()
    if isinstance(request, ChangedRequest):
        return ()
    if isinstance(request, EdgeRequest):
        return (request,)
    if isinstance(request, TraceRequest | TermRequest | Subgraph):
        return ()
    if isinstance(request, NodeRequest):
        own = (replace(request, under=None),)
    return own if request.under is None else (*own, request.under)


def replaced(patch: PatchRequest) -> tuple[TermRequest, ...]:
    """The terms that a patch replaces."""
    ablate: Ablation = patch.ablate if isinstance(patch, NodeRequest) else "corrupt"
    return tuple(TermRequest(node, position, ablate) for node, position in patch.writes)


def terms_of(request: Request) -> tuple[TermRequest, ...]:
    """The terms that a request replaces besides others; a patch of a single one changes that, or nothing at all."""
    if isinstance(request, ChangedRequest):
        verbs = [verb for verb in request.intervention.verbs if isinstance(verb, Replace)]
        return tuple(TermRequest(s.node, s.position, verb.ablate) for verb in verbs for s in verb.sites)
    return tuple(term for patch in patches_of(request) if len(patch.writes) > 1 for term in replaced(patch))


def changes(request: Request) -> bool:
    """Whether a request is about a run in which something is replaced or changed, and not about the model as it is."""
    return isinstance(request, ChangedRequest) or bool(patches_of(request))


def needs_runs(request: Request) -> bool:
    """Whether runs of the prompts are needed, beyond the scores of the clean and the corrupt one."""
    if isinstance(request, ScoreRequest | TraceRequest):
        return False  # they make their own
    return not isinstance(request, BehaviourRequest) or request.under is not None


def holds_runs_twice(requests: Iterable[Request]) -> bool:
    """Whether runs are held a second time, swapped for denoising or as an intervention changes them."""
    return any(
        isinstance(request, ChangedRequest) or any(patch.direction == "denoise" for patch in patches_of(request))
        for request in requests
    )


def uses_means(request: Request) -> bool:
    """Whether a request's numbers depend on the means of other prompts."""
    if isinstance(request, Subgraph):
        return request.ablate == "mean"
    if isinstance(request, ChangedRequest):
        return request.intervention.means
    if isinstance(request, TermRequest):
        return request.ablate == "mean"
    return any(isinstance(patch, NodeRequest) and patch.ablate == "mean" for patch in patches_of(request))


def writers_of(request: Request) -> set[Node]:
    """The nodes whose terms a request replaces or looks at."""
    found = {node for patch in patches_of(request) for node, _ in patch.writes}
    if isinstance(request, TermRequest):
        found.add(request.node)
    if isinstance(request, Subgraph):
        found |= {site.node for site in request.sites} | {edge.sender for edge in request.edges}
    return found | set(request.nodes if isinstance(request, AttributionRequest) else ())


def corrupt_stages_of(request: Request, n_layers: int) -> int:
    """How many stages of the corrupt run a request takes terms from; a run the other way round takes all.

    The heads of a layer are one stage, its MLP the next.
    """
    if isinstance(request, Subgraph | ChangedRequest):
        return 2 * n_layers
    if any(patch.direction == "denoise" for patch in patches_of(request)):
        return 2 * n_layers
    nodes = [node for patch in patches_of(request) for node, _ in patch.writes]
    if isinstance(request, TermRequest):
        nodes.append(request.node)
    return max((2 * (node.layer + 1) - (node.kind == "head") for node in nodes), default=0)


def positions_of(request: Request) -> tuple[Position, ...]:
    """Every position that a request needs, but for `*`."""
    if isinstance(request, ChangedRequest):
        named = (*positions_of(request.inner), *request.intervention.positions)
        return tuple(dict.fromkeys(position for position in named if position != EVERYWHERE))
    found = [position for patch in patches_of(request) for _, position in patch.writes]
    if isinstance(request, AttentionRequest | TraceRequest):
        found += [*request.source, *request.target]
    if isinstance(request, Subgraph):
        found += sorted(request.positions)
    if isinstance(request, CopyingRequest):
        found.append(ANSWER)
    if isinstance(request, TermRequest):
        found.append(request.position)
    return tuple(dict.fromkeys(position for position in found if position != EVERYWHERE))
