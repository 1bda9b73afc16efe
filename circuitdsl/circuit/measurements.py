"""What can be measured of a circuit, as plain records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from circuitdsl.circuit.changes import Condition
from circuitdsl.circuit.criteria import Test, is_between
from circuitdsl.circuit.nodes import Ablation, Direction, Edge, Input, Node, Position, Site


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


@dataclass(frozen=True, slots=True)
class EdgeEffect:
    """The effect of patching edges, all together (semantics: several edges at once).

    `sender` and `receiver` are the two ends as the claim writes them, the receiver without its input.
    """

    members: tuple[Member, ...]
    via_mlps: bool = False
    direction: Direction = "noise"
    sender: str = field(default="", compare=False, repr=False)
    receiver: str = field(default="", compare=False, repr=False)

    @property
    def edges(self) -> tuple[Edge, ...]:
        return tuple(edge for member in self.members for edge in member.edges)


@dataclass(frozen=True, slots=True)
class NodeEffect:
    """The total effect of replacing nodes at their positions (knock-out, or its denoising twin)."""

    sites: tuple[Site, ...]
    ablate: Ablation = "corrupt"
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
    ablate: Ablation = "corrupt"
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
    line: int = field(compare=False)


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


@dataclass(frozen=True, slots=True)
class Metric:
    """`logit_diff`, `prob_diff`, `logprob`, `accuracy` or `kl`, with its options as written."""

    name: str = "logit_diff"
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(k if v == "" else f"{k} = {v}" for k, v in self.options)
        return f"{self.name}({inside})" if inside else self.name
