"""What can be asked of a task's prompts: one number per prompt, as frozen records that can be compared and merged.

A request says which runs it needs, which function reads its numbers (named as text: torch is imported when something is
measured), and what the numbers are called. Patches, and what may be asked of any circuit, are here; a request that
belongs to one kind of measurement is in that kind's file.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce
from itertools import groupby
from math import inf
from operator import or_
from typing import ClassVar, Literal, cast

from circuitdsl.circuit.changes import Both, EdgePatch, Intervention, Member, Patch, PathPatch, Replace
from circuitdsl.circuit.nodes import (
    EVERYWHERE,
    LOGITS,
    Ablation,
    Direction,
    Edge,
    Node,
    Position,
    Positions,
    Site,
    is_inside,
    is_number,
)
from circuitdsl.circuit.vocabulary import CHANCE, METRICS, Metric
from circuitdsl.measurements.kept import (
    Kept,
    everything,
    on_the_way,
    received,
    recomputed,
    replacing,
    through_mlps,
    values,
)

READERS = "circuitdsl.engine.readers"
#: layers and positions at which a run is changed first; what the logits read is after all layers
Entries = tuple[tuple[float, Position], ...]

#: the whole run is changed
WHOLE: Entries = ((0, EVERYWHERE),)


@dataclass(frozen=True, slots=True)
class Figure:
    """What the numbers of a request are.

    Attributes:
        name: what reasons call them.
        unit: as reports have it: `share`, `logits`, `nats`, or another.
        low, high: what they cannot leave.
        hits: whether each is 1 or 0, or a share of several such.
        scale: the metric whose gap says how large they are, where they have no two ends; `size` says it in numbers.
        of_prompts: whether prompts are drawn from the task's templates (random tokens are not).
    """

    name: str
    unit: str = "share"
    low: float = 0.0
    high: float = 1.0
    hits: bool = False
    scale: Metric | None = None
    size: float | None = None
    of_prompts: bool = True


class Request:
    """One number per prompt. What it is about is found in its fields `heads`, `nodes`, `sites`, `source` and `target`.

    Attributes:
        reader: the function that reads the numbers, "module:name". Requests of one reader are read together.
        hooks: the module, as text, of what else is known of it: `of_prompts` gives the numbers of a request that reads
            no runs of a batch, `present` the prompts that it can be read on, `trouble` and `absent` why it cannot be.
        numbers: what its numbers are, where that does not depend on a task's metric.
        on_runs: whether it reads runs of the prompts; otherwise it makes runs of its own, whose work is not counted.
        reads_attention: whether it reads attention patterns.
        effect: whether its numbers are the task's metric of a patched run, so that a difference has a gap beside it.
        ablate: what it puts in the place of terms.
        under: the patch that holds while it is measured.
    """

    __slots__ = ()

    reader: ClassVar[str] = ""
    hooks: ClassVar[str] = ""
    numbers: ClassVar[Figure | None] = None
    on_runs: ClassVar[bool] = True
    reads_attention: ClassVar[bool] = False
    effect: ClassVar[bool] = False
    ablate: Ablation = "corrupt"
    under: PatchRequest | None = None

    def figure(self, metric: Metric) -> Figure:
        """What its numbers are; `metric` is the task's."""
        return self.numbers or figure_of(metric)

    def protocol(self) -> dict[str, str]:
        """How they are measured, as reports have it."""
        return {"read": type(self).__name__.lower(), "run": "clean"}

    @property
    def own_positions(self) -> Positions:
        """The positions that it names, those of patches apart."""
        places = (site.position for site in getattr(self, "sites", ()))
        return (*getattr(self, "source", ()), *getattr(self, "target", ()), *places)

    @property
    def own_writers(self) -> tuple[Node, ...]:
        """The nodes whose terms it looks at, those of patches apart."""
        return (*getattr(self, "nodes", ()), *(site.node for site in getattr(self, "sites", ())))

    @property
    def patches(self) -> tuple[PatchRequest, ...]:
        """The patches that it makes, each alone: its own, and its condition."""
        return () if self.under is None else self.under.patches

    @property
    def changes(self) -> bool:
        """Whether it is about a run in which something is replaced or changed, and not about the model as it is."""
        return bool(self.patches)

    @property
    def scored(self) -> bool:
        """Whether it is a metric of a patched run."""
        return False

    @property
    def terms(self) -> tuple[TermRequest, ...]:
        """The terms that it replaces besides others; a patch of a single one changes that, or nothing at all.

        Besides, what neurons and features write that something is sent to: of those that are still, it says nothing.
        """
        found = [term for patch in self.patches if len(patch.writes) > 1 for term in replaced(patch)]
        return (*found, *(term for patch in self.patches for term in read_inside(patch)))

    @property
    def named(self) -> tuple[Node, ...]:
        """The nodes that it reads or replaces."""
        patched = (node for patch in self.patches for node, _ in (*patch.writes, *patch.reads))
        return (*self.own_writers, *patched)

    @property
    def positions(self) -> Positions:
        """Every position that it needs, but for `*`."""
        found = (*(place for patch in self.patches for _, place in patch.writes), *self.own_positions)
        return tuple(dict.fromkeys(position for position in found if position != EVERYWHERE))

    @property
    def needs_runs(self) -> bool:
        """Whether runs of the prompts are needed, beyond the scores of the clean and the corrupt one."""
        return self.on_runs

    @property
    def runs_twice(self) -> bool:
        """Whether runs are held a second time, swapped for denoising or as an intervention changes them."""
        return any(patch.direction == "denoise" for patch in self.patches)

    @property
    def uses_means(self) -> bool:
        """Whether its numbers depend on the means of other prompts."""
        return "mean" in (self.ablate, *(patch.ablate for patch in self.patches))

    def kept(self, n_layers: int) -> Kept:
        """What of the runs it reads. A kind that does not say it is given all of the clean run."""
        return replace(everything(n_layers, values(*self.own_writers)), corrupt=frozenset()) | self.patched(n_layers)

    def patched(self, n_layers: int) -> Kept:
        """What its patched runs take from the clean and the corrupt run."""
        return reduce(or_, (patch.takes(self.layers(n_layers), n_layers) for patch in self.patches), Kept())

    @property
    def together(self) -> Hashable:
        """Requests that are equal in this are read off the same patched runs."""
        return type(self), self.under

    @property
    def changed_run(self) -> Hashable | None:
        """Requests that are equal in this are read off the same changed run; None where runs are read as they are."""
        return (self.together, self.patches) if self.patches else None

    @property
    def enters(self) -> Entries:
        """Where its changed run begins: a layer and a position for each change (semantics §5, cheap)."""
        return tuple(entry for patch in self.patches for entry in patch.enters)

    def layers(self, n_layers: int) -> int:
        """How many layers have MLPs that matter to what is read; to attention, those below the heads."""
        heads = getattr(self, "heads", ()) if self.reads_attention else ()
        return max((head.layer for head in heads), default=n_layers)


class _Patched(Request):
    """The metric of a patched run. What is asked of it with every batch of prompts is found once."""

    reader = f"{READERS}.metric:patched"
    hooks = f"{READERS}.behaviour"
    effect = True
    scored = True
    together = (None,)

    @property
    def reads(self) -> tuple[tuple[Node, Position], ...]:
        """What reads the terms that are sent, and where."""
        return ()

    def kept(self, n_layers: int) -> Kept:
        return _kept_for_patched(self, n_layers)

    @cached_property
    def positions(self) -> Positions:
        return super().positions


@dataclass(frozen=True)
class EdgeRequest(_Patched):
    """The metric when these edges are patched, all of them in one run."""

    edges: tuple[Edge, ...]
    via_mlps: bool = False
    direction: Direction = "noise"
    ablate: Ablation = "corrupt"

    def __repr__(self) -> str:
        """The same as before `ablate` was known where it says nothing: numbers are kept under this name."""
        more = "" if self.ablate == "corrupt" else f", ablate={self.ablate!r}"
        return f"EdgeRequest(edges={self.edges!r}, via_mlps={self.via_mlps!r}, direction={self.direction!r}{more})"

    @cached_property
    def writes(self) -> tuple[tuple[Node, Position], ...]:
        """The terms that are replaced."""
        return tuple(dict.fromkeys((edge.sender, edge.position) for edge in self.edges))

    @cached_property
    def reads(self) -> tuple[tuple[Node, Position], ...]:
        return tuple(dict.fromkeys((edge.receiver.node, edge.position) for edge in self.edges))

    @property
    def enters(self) -> Entries:
        return tuple((inf if node == LOGITS else node.layer, position) for node, position in self.reads)

    @property
    def patches(self) -> tuple[PatchRequest, ...]:
        return (self,)

    def takes(self, upto: int, n_layers: int) -> Kept:
        """What runs with this patch take from others, if nothing above layer `upto` is read of them."""
        senders = tuple(dict.fromkeys(edge.sender for edge in self.edges))
        readers = frozenset(edge.receiver.node for edge in self.edges)
        found = received(readers, upto, n_layers) | replacing(senders, self.ablate)
        if self.via_mlps:
            last = max(n_layers if node == LOGITS else node.known_after for node in readers)
            found |= through_mlps(min(node.layer for node in senders), min(last, n_layers - 1))
        return found

    def protocol(self) -> dict[str, str]:
        patch = "via_mlps" if self.via_mlps else "direct"
        return {"patch": patch, "direction": self.direction, "ablate": self.ablate}


@dataclass(frozen=True)
class PathRequest(_Patched):
    """The metric when a change goes along a whole path, and along nothing else (semantics §8).

    Attributes:
        arrows: the edges of each arrow, those of one arrow together; senders are the readers of the arrow before.
    """

    arrows: tuple[tuple[Edge, ...], ...]
    direction: ClassVar[Direction] = "noise"

    @cached_property
    def writes(self) -> tuple[tuple[Node, Position], ...]:
        """The terms that are replaced: those of the first senders."""
        return tuple(dict.fromkeys((edge.sender, edge.position) for edge in self.arrows[0]))

    @cached_property
    def reads(self) -> tuple[tuple[Node, Position], ...]:
        return tuple(dict.fromkeys((edge.receiver.node, edge.position) for arrow in self.arrows for edge in arrow))

    @property
    def last(self) -> EdgeRequest:
        """The last arrow, behind which all is live."""
        return EdgeRequest(self.arrows[-1])

    @property
    def enters(self) -> Entries:
        return self.last.enters

    @property
    def own_positions(self) -> Positions:
        return tuple(edge.position for arrow in self.arrows for edge in arrow)

    @property
    def terms(self) -> tuple[TermRequest, ...]:
        return (*replaced(self), *read_inside(self))  # a change of a single one may be lost on the way

    @property
    def patches(self) -> tuple[PatchRequest, ...]:
        return (self,)

    def takes(self, upto: int, n_layers: int) -> Kept:
        """What runs with this patch take from others, if nothing above layer `upto` is read of them."""
        between = frozenset(edge.receiver.node for arrow in self.arrows[:-1] for edge in arrow)
        first = replacing(tuple(dict.fromkeys(edge.sender for edge in self.arrows[0])))
        readers = frozenset(edge.receiver.node for edge in self.arrows[-1])
        return received(readers, upto, n_layers) | first | on_the_way(between)

    def protocol(self) -> dict[str, str]:
        return {"patch": "path", "direction": self.direction, "ablate": "corrupt"}


@dataclass(frozen=True)
class NodeRequest(_Patched):
    """The metric when these nodes are replaced and all that follows is computed anew; under a condition, with both."""

    sites: tuple[Site, ...]
    ablate: Ablation = "corrupt"
    direction: Direction = "noise"
    under: PatchRequest | None = None

    @cached_property
    def writes(self) -> tuple[tuple[Node, Position], ...]:
        """The terms that are replaced."""
        return tuple((site.node, site.position) for site in self.sites)

    @property
    def enters(self) -> Entries:
        return (*((node.layer, position) for node, position in self.writes), *(self.under.enters if self.under else ()))

    @property
    def patches(self) -> tuple[PatchRequest, ...]:
        return (self,) if self.under is None else (replace(self, under=None), *self.under.patches)

    def takes(self, upto: int, n_layers: int) -> Kept:
        """What runs with this patch take from others, if nothing above layer `upto` is read of them."""
        nodes = tuple(dict.fromkeys(site.node for site in self.sites))
        return recomputed(min(node.known_after for node in nodes), upto, n_layers) | replacing(nodes, self.ablate)

    def protocol(self) -> dict[str, str]:
        return {"patch": "node", "direction": self.direction, "ablate": self.ablate, "at": _places(self.sites)}


def _places(sites: tuple[Site, ...]) -> str:
    """`END`; where nodes differ, `2.2 2.5 at *, m1 at END`"""
    nodes: dict[str, list[str]] = {}
    for node, own in groupby(sorted(sites), lambda site: site.node):
        nodes.setdefault(" and ".join(str(site.position) for site in own), []).append(str(node))
    return next(iter(nodes)) if len(nodes) == 1 else ", ".join(f"{' '.join(n)} at {at}" for at, n in nodes.items())


@lru_cache(maxsize=2**14)
def _kept_for_patched(request: _Patched, n_layers: int) -> Kept:
    """What a request for a patched run reads of others; asked for with every batch of prompts."""
    return Kept(clean=frozenset([LOGITS])) | request.patched(n_layers)


def kept_for(requests: Iterable[Request], n_layers: int) -> Kept:
    """What some requests read of the runs of a batch, together."""
    return reduce(or_, {request.kept(n_layers) for request in requests if request.needs_runs}, Kept())


@dataclass(frozen=True, slots=True)
class TermRequest(Request):
    """Whether what a node writes at a position is another than what a patch puts in its place, 1 or 0."""

    node: Node
    position: Position
    ablate: Ablation = "corrupt"

    reader = f"{READERS}.terms:read"

    @property
    def own_positions(self) -> Positions:
        return (self.position,)

    def kept(self, n_layers: int) -> Kept:
        return replacing((self.node,), self.ablate)


PatchRequest = EdgeRequest | PathRequest | NodeRequest


def replaced(patch: PatchRequest) -> tuple[TermRequest, ...]:
    return tuple(TermRequest(node, position, patch.ablate) for node, position in patch.writes)


def read_inside(patch: PatchRequest) -> tuple[TermRequest, ...]:
    """What the neurons and features write that a patch sends something to."""
    return tuple(TermRequest(node, position) for node, position in patch.reads if is_number(node))


def patch_request(patch: Patch | Both) -> PatchRequest:
    """A patch of the spec as what is asked of the prompts."""
    if isinstance(patch, Both):
        return replace(cast(NodeRequest, patch_request(patch.nodes)), under=patch_request(patch.edges))
    if isinstance(patch, EdgePatch):
        return edge_request(patch.members, patch)
    if isinstance(patch, PathPatch):
        return path_request(arrow.members for arrow in patch.arrows)
    return NodeRequest(tuple(sorted(set(patch.sites))), patch.ablate, patch.direction)


def path_request(arrows: Iterable[Iterable[Member]]) -> PathRequest:
    """A change that goes along all members of each arrow."""
    edges = ({edge for member in members for edge in member.edges} for members in arrows)
    return PathRequest(tuple(tuple(sorted(each)) for each in edges))


def edge_request(members: tuple[Member, ...], patch: EdgePatch) -> EdgeRequest:
    """All edges of some members as one patch."""
    edges = tuple(sorted({edge for member in members for edge in member.edges}))
    return EdgeRequest(edges, patch.via_mlps, patch.direction, patch.ablate)


@dataclass(frozen=True, slots=True)
class ChangedRequest(Request):
    """What a request measures, of the model that an intervention has changed."""

    inner: Request
    intervention: Intervention

    reader = f"{READERS}.changed_model:read"
    changes = True
    runs_twice = True
    enters = WHOLE

    @property
    def changed_run(self) -> Hashable:
        return self.intervention

    def figure(self, metric: Metric) -> Figure:
        return self.inner.figure(metric)

    def protocol(self) -> dict[str, str]:
        return self.inner.protocol()

    @property
    def own_positions(self) -> Positions:
        return (*self.inner.positions, *self.intervention.positions)

    @property
    def terms(self) -> tuple[TermRequest, ...]:
        verbs = [verb for verb in self.intervention.verbs if isinstance(verb, Replace)]
        return tuple(TermRequest(s.node, s.position, verb.ablate) for verb in verbs for s in verb.sites)

    @property
    def uses_means(self) -> bool:
        return self.intervention.means

    @property
    def own_writers(self) -> tuple[Node, ...]:
        return (*self.inner.own_writers, *sorted(self.intervention.nodes))

    def kept(self, n_layers: int) -> Kept:
        other = (replacing((term.node,), term.ablate) for term in self.terms)
        parts = Kept(values(*filter(is_inside, self.intervention.nodes)))
        return reduce(or_, other, self.inner.kept(n_layers) | parts)


@dataclass(frozen=True, slots=True, repr=False)
class Subgraph(Request):
    """The metric when a run keeps only some of a model (semantics §3, faithfulness).

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

    reader = f"{READERS}.metric:alone"
    hooks = f"{READERS}.behaviour"
    effect = True
    enters = WHOLE

    @property
    def changed_run(self) -> Hashable:
        return self

    def __repr__(self) -> str:
        """The same for equal subgraphs, in every process: what is measured of them is kept under this name."""
        return f"Subgraph{(*self.kind, sorted(map(repr, self.sites)), sorted(map(repr, self.edges)))}"

    @property
    def kind(self) -> tuple[str, bool, str, bool]:
        """Subgraphs of one kind can run together."""
        return self.keep, self.mlps, self.ablate, self.inverted

    @property
    def own_positions(self) -> Positions:
        return _places_of(self.sites, self.edges)

    @property
    def own_writers(self) -> tuple[Node, ...]:
        return tuple({site.node for site in self.sites} | {edge.sender for edge in self.edges})

    def kept(self, n_layers: int) -> Kept:
        return everything(n_layers, values(*self.own_writers))


@lru_cache(maxsize=2**14)
def _places_of(sites: frozenset[Site], edges: frozenset[Edge]) -> Positions:
    """Where some nodes and edges are; asked for with every step of a measurement."""
    return tuple(sorted({site.position for site in sites} | {edge.position for edge in edges}))


def figure_of(metric: Metric) -> Figure:
    shape = METRICS[metric.name.removeprefix(CHANCE)]
    scale = metric if inf in shape.range or -inf in shape.range else None
    return Figure(str(metric), shape.shown, *shape.range, shape.hits, scale)
