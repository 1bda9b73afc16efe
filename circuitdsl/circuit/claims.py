"""What a resolved spec says: plain frozen records.

Resolution (`resolve.py`) turns syntax into these; planning and measuring read nothing else. The terms
are those of the mathematical framework for transformer circuits (Elhage et al. 2021): the residual
stream is a sum of terms, a *node* writes one of them, a *receiver input* reads the sum through a norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import networkx

NodeKind = Literal["embed", "head", "mlp", "logits"]
Port = Literal["q", "k", "v", "in"]
Direction = Literal["noise", "denoise"]
#: a share of the gap, a difference in the metric's unit, or a figure that is measured as it is
Quantity = Literal["effect", "delta", "value"]


@dataclass(frozen=True, order=True, slots=True)
class Node:
    """A writer of one term of the residual stream, or `logits`, which only reads.

    `index` picks a singular component of a head's output or a neuron of an MLP; -1 means the whole node.
    """

    kind: NodeKind
    layer: int = -1
    head: int = -1
    index: int = -1

    def __str__(self) -> str:
        part = "" if self.index < 0 else f"[{self.index}]"
        match self.kind:
            case "head":
                return f"{self.layer}.{self.head}{part}"
            case "mlp":
                return f"m{self.layer}{part}"
            case _:
                return self.kind

    @property
    def is_part(self) -> bool:
        """Whether it is a singular component of a head or a neuron of an MLP."""
        return self.index >= 0

    @property
    def whole(self) -> Node:
        """The head or MLP that it is a part of, or the node itself."""
        return Node(self.kind, self.layer, self.head) if self.is_part else self

    def stage(self, parallel: bool = False) -> float:
        """Order along the residual stream: a node may only send to nodes of a later stage.

        An MLP comes after the heads of its layer, or beside them in parallel-attention models.
        """
        match self.kind:
            case "embed":
                return -1
            case "head":
                return 2 * self.layer
            case "mlp":
                return 2 * self.layer + (0 if parallel else 1)
            case _:
                return float("inf")


EMBED = Node("embed")
LOGITS = Node("logits")


@dataclass(frozen=True, order=True, slots=True)
class Input:
    """A receiver input: `q`, `k` or `v` of a head; `in` of an MLP or of the logits."""

    node: Node
    port: Port

    def __str__(self) -> str:
        return str(self.node) if self.port == "in" else f"{self.node}.{self.port}"


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """A position the task names, with an offset in tokens; `*` stands for every position."""

    name: str
    offset: int = 0

    def __str__(self) -> str:
        return self.name if not self.offset else f"{self.name}{self.offset:+d}"


EVERYWHERE = Position("*")


@dataclass(frozen=True, order=True, slots=True)
class Edge:
    """(sender, receiver input, position): the term as written there and read there."""

    sender: Node
    receiver: Input
    position: Position

    def __str__(self) -> str:
        return f"{self.sender} -> {self.receiver} at {self.position}"


@dataclass(frozen=True, order=True, slots=True)
class Site:
    """A node at one position: what a knock-out replaces."""

    node: Node
    position: Position


@dataclass(frozen=True, slots=True)
class Member:
    """One pair of a group edge: all its edges (ports and positions) are patched together."""

    sender: Node
    receiver: Node
    edges: tuple[Edge, ...]

    def __str__(self) -> str:
        ports = sorted({e.receiver.port for e in self.edges})
        places = ", ".join(dict.fromkeys(str(e.position) for e in self.edges))
        port = f".{ports[0]}" if len(ports) == 1 and ports[0] != "in" else ""
        return f"{self.sender} -> {self.receiver}{port} at {places}"


# --- what is measured -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EdgeEffect:
    """The effect of patching edges, all together (semantics: several edges at once)."""

    members: tuple[Member, ...]
    via_mlps: bool = False
    direction: Direction = "noise"

    @property
    def edges(self) -> tuple[Edge, ...]:
        return tuple(edge for member in self.members for edge in member.edges)


@dataclass(frozen=True, slots=True)
class NodeEffect:
    """The total effect of replacing nodes at their positions (knock-out, or its denoising twin)."""

    sites: tuple[Site, ...]
    ablate: Literal["corrupt", "mean", "zero"] = "corrupt"
    direction: Direction = "noise"
    label: str = ""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A metric of the unpatched model on the task's clean prompts."""

    metric: Metric


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention pattern of heads from one position to others, summed over the latter."""

    heads: tuple[Node, ...]
    source: tuple[Position, ...]
    target: tuple[Position, ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class WholeCircuit:
    """What the circuit does alone, everything outside it ablated (semantics: the circuit of a spec).

    Attributes:
        keep: whether nodes or edges are what the circuit consists of.
        ablate: what stands in for what is outside.
        positions: whether the circuit is kept at the spec's positions only, or everywhere.
        form: of faithfulness: the share of the gap, or Wang et al.'s |F(M) - F(C)|.
    """

    name: Literal["faithfulness", "incompleteness", "minimality", "sufficiency"]
    keep: Literal["nodes", "edges"] = "nodes"
    ablate: Literal["corrupt", "mean", "zero"] = "corrupt"
    positions: Literal["spec", "all"] = "spec"
    form: Literal["normalised", "wang"] = "normalised"


@dataclass(frozen=True, slots=True)
class Composition:
    """How strongly heads, or singular components of theirs, write into what others read; known from weights alone.

    The figure of several pairs together is the mean over them.
    """

    pairs: tuple[tuple[Node, Input], ...]


@dataclass(frozen=True, slots=True)
class Check:
    """What a property asks of every prompt; a strict bound (`>`, `<`) is itself outside."""

    measurement: Behaviour | Attention | Attribution
    low: float | None
    high: float | None
    strict: bool
    text: str

    def admits(self, value: float) -> bool:
        """Whether a prompt's value passes; what is not a number does not."""
        return is_between(value, self.low, self.high, self.strict)


@dataclass(frozen=True, slots=True)
class Property:
    """What must be true of every prompt, all checks together: of a `share` of prompts, or (None) without exception."""

    checks: tuple[Check, ...]
    share: float | None


@dataclass(frozen=True, slots=True)
class Tracing:
    """Whether heads are among the senders of another's firings, at the end of its arrow that `side` names.

    A head fires on a prompt where it gives a token at least half of its attention (sparse attention decomposition).
    """

    head: Node
    source: tuple[Position, ...]
    target: tuple[Position, ...]
    senders: tuple[Node, ...]
    side: Literal["destination", "source"]


@dataclass(frozen=True, slots=True)
class Overlapping:
    """What two circuits share, as far as their specs say; positions apart.

    Attributes:
        what: heads, edges, or the roles of shared heads.
        sizes: how many of them each circuit has.
        jaccard: intersection over union.
        chance, p: the overlap of random heads in the same layers, and how often it is as large; None where unknown.
        agreeing: shared heads with the same role in both; `disagreeing` says which have another.
    """

    first: str
    second: str
    what: Literal["heads", "edges", "roles"]
    sizes: tuple[int, int]
    shared: int
    jaccard: float
    chance: float | None
    p: float | None
    agreeing: int
    disagreeing: tuple[str, ...]
    line: int


ScoreKind = Literal["previous_token", "duplicate_token", "induction"]


@dataclass(frozen=True, slots=True)
class Attribution:
    """Direct logit attribution: what nodes write at END towards the answer and away from the distractor."""

    nodes: tuple[Node, ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Copying:
    """How often heads map the answer's token onto its own logit (`negated`: onto the negative of it)."""

    heads: tuple[Node, ...]
    negated: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class HeadScore:
    """What heads attend to on repeated random tokens; it needs no task."""

    kind: ScoreKind
    heads: tuple[Node, ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class RoleCheck:
    """One check of a role on one head."""

    node: Node
    text: str
    measurement: Measurement
    tests: tuple[Test, ...]
    under: Condition | None = None


@dataclass(frozen=True, slots=True)
class RoleChecks:
    """Every check of a role on every head of a group; each must hold."""

    role: str
    checks: tuple[RoleCheck, ...]
    overrides: bool = False
    """whether the file's own checks take the place of a built-in role's"""


Measurement = (
    EdgeEffect
    | NodeEffect
    | Attribution
    | Copying
    | HeadScore
    | Behaviour
    | Attention
    | WholeCircuit
    | Composition
    | Tracing
    | Property
    | Overlapping
    | RoleChecks
)


# --- what changes a model -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetAttention:
    """From the source positions the heads give `mass` to the targets, spread equally; the rest is scaled to fit."""

    heads: tuple[Node, ...]
    source: tuple[Position, ...]
    target: tuple[Position, ...]
    mass: float


@dataclass(frozen=True, slots=True)
class Scale:
    """What nodes (or singular components of heads) write is multiplied, at every position; 0 projects it out."""

    nodes: tuple[Node, ...]
    factor: float


@dataclass(frozen=True, slots=True)
class Replace:
    """What nodes write at their positions is replaced, as in a knock-out."""

    sites: tuple[Site, ...]
    ablate: Literal["corrupt", "mean", "zero"]


Verb = SetAttention | Scale | Replace


@dataclass(frozen=True, slots=True)
class Intervention:
    """A change of the model: its verbs, applied in their order."""

    name: str
    title: str
    verbs: tuple[Verb, ...]
    line: int = 0

    @property
    def positions(self) -> tuple[Position, ...]:
        """Every position that its verbs name, each once."""
        found: list[Position] = []
        for verb in self.verbs:
            match verb:
                case SetAttention(source=source, target=target):
                    found += [*source, *target]
                case Replace(sites=sites):
                    found += [site.position for site in sites]
        return tuple(dict.fromkeys(found))

    @property
    def means(self) -> bool:
        """Whether some node is replaced by its mean."""
        return any(isinstance(verb, Replace) and verb.ablate == "mean" for verb in self.verbs)


# --- what is claimed of it ------------------------------------------------------------------------


def is_between(value: float, low: float | None, high: float | None, strict: bool) -> bool:
    """Whether a number is within bounds, which are open where they are None; what is not a number is not."""
    if strict:
        return value == value and (low is None or value > low) and (high is None or value < high)
    return value == value and (low is None or value >= low) and (high is None or value <= high)


@dataclass(frozen=True, slots=True)
class Matters:
    """Beyond the margin, and rarer than matched random edges."""

    def __str__(self) -> str:
        return "matters"


@dataclass(frozen=True, slots=True)
class Negligible:
    """The effect lies inside plus or minus the margin (an equivalence test)."""

    def __str__(self) -> str:
        return "negligible"


@dataclass(frozen=True, slots=True)
class Signed:
    """Patching lowers or raises the metric by more than the margin."""

    direction: Literal["lowers", "raises"]

    def __str__(self) -> str:
        return self.direction


@dataclass(frozen=True, slots=True)
class Within:
    """Bounds on a quantity: `effect` (share of the gap), `delta` (metric's unit), `value` (measured as it is).

    Bounds are in plain fractions (0.95 for 95 %); `None` where a side is open. `strict` bounds (`>`, `<`) are outside
    the region: a figure that is 0 on every prompt is not `> 0`.
    """

    quantity: Quantity
    low: float | None
    high: float | None
    text: str
    strict: bool = False

    def admits(self, value: float) -> bool:
        """Whether a figure without sampling error is within the bounds."""
        return is_between(value, self.low, self.high, self.strict)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Composed:
    """A bound on a channel: on its rank among all upstream senders, on its z score, or on the composition itself.

    `strict` bounds are outside the region; nothing else would keep rank 3 from being `< 3`.
    """

    figure: Literal["rank", "z", "composition"]
    low: float | None
    high: float | None
    strict: bool
    text: str

    def admits(self, value: float) -> bool:
        """Whether a figure is within the bounds."""
        return is_between(value, self.low, self.high, self.strict)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Stronger:
    """The change of the metric is larger in size than that of other edges, patched in the same direction."""

    effect: EdgeEffect
    name: str

    def __str__(self) -> str:
        return f"stronger than {self.name}"


@dataclass(frozen=True, slots=True)
class Moves:
    """Under a condition the figure rises or falls against the unpatched run, by at least `by` (0: at all)."""

    direction: Literal["rises", "falls"]
    by: float
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ComposedAboveChance:
    """Composition above the 95th percentile of all upstream senders."""

    def __str__(self) -> str:
        return "composition above chance"


ChannelTest = Composed | ComposedAboveChance


@dataclass(frozen=True, slots=True)
class Beyond:
    """A quantity at least as large as a bound, signs aside; asked of single figures by bounds on a largest one."""

    quantity: Quantity
    bound: float
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class AboveChance:
    """More than by chance: two circuits share more heads than random ones in the same layers do, or the model is right
    more often than guesses among a prompt's answers and distractors (`argmax`: in the whole vocabulary) are."""

    def __str__(self) -> str:
        return "above chance"


@dataclass(frozen=True, slots=True)
class RolesAgree:
    """Shared heads play the same role in both circuits."""

    def __str__(self) -> str:
        return "agree"


Test = Matters | Negligible | Signed | Within | Beyond | Stronger | Moves | ChannelTest | AboveChance | RolesAgree


@dataclass(frozen=True, slots=True)
class Condition:
    """What holds while a claim is measured: `when EDGE is patched`, `when GROUP is knocked out`, an intervention."""

    effect: EdgeEffect | NodeEffect | Intervention
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of the spec that can hold or fail, on every task in `tasks`; channels need none."""

    id: str
    line: int
    text: str
    kind: Literal["edge", "expect", "channel", "trace", "property", "compare"]
    measurement: Measurement
    tests: tuple[Test, ...]
    each: bool
    margin: float
    tasks: tuple[str, ...]
    citation: str | None = None
    under: Condition | None = None

    def answers_to(self, name: str) -> bool:
        """Whether a claim is meant by this: its id, or its line in the spec."""
        return name in (self.id, str(self.line))


# --- the circuit ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Metric:
    """`logit_diff`, `prob_diff`, `logprob`, `accuracy` or `kl`, with its options as written."""

    name: str = "logit_diff"
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(k if v == "" else f"{k} = {v}" for k, v in self.options)
        return f"{self.name}({inside})" if inside else self.name


@dataclass(frozen=True, slots=True)
class TaskUse:
    """A task as the spec asks for it. `generator` names a registered task; `file` a prompt file."""

    name: str
    generator: str | None
    file: str | None = None
    corrupt: str | None = None
    prompts: int = 256
    seed: int = 0
    bos: bool | None = None
    options: tuple[tuple[str, str | int], ...] = ()
    line: int = 0


@dataclass(frozen=True, slots=True)
class ModelUse:
    name: str
    revision: str | None = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    nodes: tuple[Node, ...]
    positions: tuple[Position, ...]
    role: str | None
    outside: bool
    line: int
    #: every member at each of its positions, `*` where nothing says
    sites: tuple[Site, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Circuit:
    """A resolved circuit: everything the verifier does follows from this record."""

    name: str
    title: str
    model: ModelUse | None
    tasks: tuple[TaskUse, ...]
    metric: Metric
    groups: tuple[Group, ...]
    claims: tuple[Claim, ...]
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    license: str | None = None
    margin: float = 0.01
    interventions: tuple[Intervention, ...] = ()
    path: str = ""
    sha256: str = field(default="", compare=False)

    def __repr__(self) -> str:
        """One line: the fields are every head and every claim."""
        return f"<Circuit {self.name}: {len(self.groups)} groups, {len(self.claims)} claims>"

    @property
    def graph(self) -> networkx.MultiDiGraph:
        """The circuit as a networkx graph (see `circuit/graph.py` for its attributes)."""
        from .graph import graph

        return graph(self)

    def own_edges(self) -> Iterator[Edge]:
        """The edges of the circuit: those of every edge claim that is not `negligible`."""
        for claim, member in self.edges():
            if claim.kind == "edge" and not any(isinstance(test, Negligible) for test in claim.tests):
                yield from member.edges

    def edges(self) -> Iterator[tuple[Claim, Member]]:
        """Every claimed pair with the claim that states it."""
        for claim in self.claims:
            if isinstance(claim.measurement, EdgeEffect):
                for member in claim.measurement.members:
                    yield claim, member
