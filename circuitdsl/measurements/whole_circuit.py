"""`expect faithfulness(keep = edges) >= 80%`: what the circuit does alone, everything outside it ablated.

Definitions of Wang et al. 2022 (section 4), on the figures that semantics §3 gives: with C the circuit, M the model and
F the metric's mean over prompts,

* faithfulness compares F(C) with F(M);
* incompleteness compares F(C without K) with F(M without K), for sets K of the circuit's nodes: every group, and random
  ones, each node being in with probability one half;
* minimality asks of each node v for the K that lets it show most: F(C without K and v) against F(C without K). K runs
  over the empty set and every group (without v): Wang et al. take v's own class for most heads, and for backups the
  heads that they stand in for, which are groups too;
* sufficiency compares the circuit with random ones of the same shape (Shi et al. 2024; `peers.py`).
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

from circuitdsl.circuit.arguments import options_of
from circuitdsl.circuit.bounds import delta_unit, within
from circuitdsl.circuit.claims import Claim, Membership, membership
from circuitdsl.circuit.criteria import NULL_PROMPTS, Quantity, Within
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import EVERYWHERE, Ablation, Node, Site
from circuitdsl.circuit.overlaps import divided_twice
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import ABLATIONS
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kind import Kind
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.peers import Peers
from circuitdsl.measurements.plan import ClaimPlan, Part
from circuitdsl.measurements.requests import Subgraph


@dataclass(frozen=True, slots=True)
class WholeCircuit(Kind):
    """What the circuit does alone (semantics: the circuit of a spec).

    Attributes:
        keep: whether nodes or edges are what the circuit consists of.
        ablate: what stands in for what is outside.
        positions_kept: whether the circuit is kept at the spec's positions only, or everywhere.
        form: of faithfulness: the share of the gap, or Wang et al.'s |F(M) - F(C)|.
    """

    name: str
    keep: Literal["nodes", "edges"] = "nodes"
    ablate: Ablation = "corrupt"
    positions_kept: Literal["spec", "all"] = "spec"
    form: Literal["normalised", "wang"] = "normalised"

    words = ("faithfulness", "incompleteness", "minimality", "sufficiency")
    usage = (
        "`faithfulness` | (circuit alone − corrupt) / (clean − corrupt) | a share, may pass 100 %",
        "`incompleteness`"
        " | the largest difference between circuit and model when the same parts are removed from both"
        " | a share of the gap",
        "`minimality`"
        " | what the least needed member changes, given the best choice of others removed"
        " | a share of the gap",
        "`sufficiency` | the share of random circuits of the same shape that are further from the model | a share",
    )
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "keep": ("nodes", "edges"),
        "ablate": ABLATIONS,
        "positions": ("spec", "all"),
        "form": ("normalised", "wang"),
    }
    examples = ("expect faithfulness >= -100%",)
    false_examples = ("expect faithfulness >= 300%",)
    of_whole = True
    not_compared = "it is a figure of the whole circuit, of which a spec has one; give it a bound"
    instead_of_chance: ClassVar = {
        "sufficiency": "it is the share of random circuits that do worse: write sufficiency >= 95%",
        "faithfulness": "random circuits of its shape are what sufficiency compares with: write sufficiency >= 95%",
    }

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        name = expect.measurement.name.text
        measurement = _with_options(scope, expect.measurement, cls(name))
        if expect.claim or expect.relation is None:
            where = expect.claim[0].span.to(expect.claim[-1].span) if expect.claim else expect.measurement.span
            message = f"{name} is a number of the whole circuit: it takes a relation, not a claim about an effect"
            scope.sink.error("E083", message, where, f"write: expect {name} >= …")
            return None
        test = None if measurement is None else _test(scope, expect.relation, measurement)
        return None if measurement is None or test is None else (measurement, (test,))

    @classmethod
    def besides(cls) -> tuple[Expected, ...]:
        """All of them, by their default protocol."""
        figures: dict[str, Quantity] = {"sufficiency": "value"}
        return tuple((cls(name), (Within(figures.get(name, "effect"), None, None, ""),)) for name in cls.words)

    def lacks(self, whole: Membership) -> str:
        nodes = [*(site.node for site in whole.sites), *(edge.sender for edge in whole.edges)]
        if crossing := sorted(node for node in nodes if node.crosses):
            return f"the circuit holds {crossing[0]}, which writes into several MLPs: it is not kept alone yet"
        if twice := divided_twice(nodes):
            return f"the circuit holds {twice[0]} and {twice[1]}, which share what they write: it would count twice"
        if self.keep == "edges":
            return "" if whole.edges else "the circuit has no edge: no line claims one that is not negligible"
        return "" if whole.sites else "the circuit has no heads: no group is part of it, and no edge is claimed"

    def kept(self, whole: Membership) -> Subgraph:
        """The circuit alone, by its protocol."""
        return alone(whole, self.keep, self.ablate, everywhere=self.positions_kept == "all")

    def takes(self, whole: Membership) -> Hashable:
        kept = self.kept(whole)
        of_groups = self.name in ("incompleteness", "minimality")
        return kept, tuple(groups(whole, kept).items()) if of_groups else ()

    def plan(self, claim: Claim, task: str, nulls: Nulls) -> ClaimPlan:
        whole = membership(nulls.circuit)
        kept = self.kept(whole)
        called = "|F(M) − F(C)|" if self.form == "wang" else self.name
        made = partial(ClaimPlan, claim, task, circuit=kept, called=called)
        match self.name:
            case "faithfulness" if self.form == "normalised":
                return made((Part("", kept, "corrupt", called=self.name),))
            case "faithfulness":
                return made((Part("", kept, "clean"),), extremes=((0,),))
            case "sufficiency":
                return made((Part("", kept, peers=Peers(kept, nulls.shape)),))
            case "incompleteness":
                sets = subsets(whole, kept)
                parts = [Part(f"without {k}", without(kept, k_), without(kept, k_, True)) for k, k_ in sets.items()]
                return made(tuple(parts), extremes=(tuple(range(len(parts))),))
        parts, extremes = [], []
        for node in members(kept):
            known = contexts(node, groups(whole, kept))
            extremes.append(tuple(range(len(parts), len(parts) + len(known))))
            for name, nodes in known.items():
                label = f"{node}" + (f" once {name} is out" if name else "")
                parts.append(Part(label, without(kept, nodes | {node}), without(kept, nodes)))
        return made(tuple(parts), extremes=tuple(extremes))

    def protocol_of(self, plan: ClaimPlan) -> dict[str, str]:
        """Everything that a figure of a whole circuit depends on."""
        kept, peers = plan.parts[0].request, plan.parts[0].peers
        assert isinstance(kept, Subgraph)
        said: dict[str, str] = {"keep": self.keep, "ablate": self.ablate, "positions": self.positions_kept}
        if self.name == "faithfulness":
            said["form"] = self.form
        said["mlps"] = "ablated unless kept" if kept.mlps else "live"
        if self.name in ("incompleteness", "minimality"):
            said["subsets"] = str(len(plan.parts))
        if peers is not None:
            said |= {"circuits": str(len(peers)), "prompts": f"the first {NULL_PROMPTS}"}
        return said


def _with_options(scope: Scope, written: s.Measurement, found: WholeCircuit) -> WholeCircuit | None:
    options = [argument for argument in written.arguments if isinstance(argument, s.Option)]
    others = [argument for argument in written.arguments if not isinstance(argument, s.Option)]
    for argument in others:
        message = f"{found.name} is said of the whole circuit, and takes options only"
        scope.sink.error("E084", message, argument.span, f"write: {found.name}(keep = edges)")
    known = {key: values for key, values in found.options.items() if key != "form" or found.name == "faithfulness"}
    given = options_of(scope, written, options, known)
    if others or given is None:
        return None
    fields = {"positions_kept" if key == "positions" else key: value for key, value in given.items()}
    return replace(found, **fields)  # type: ignore[arg-type]


def _test(scope: Scope, relation: s.Relation, measurement: WholeCircuit) -> Within | None:
    """Bounds in the unit that the figure has: a share of the gap, a share of circuits, or the metric's own."""
    name = measurement.name
    if name == "sufficiency":
        return within(scope, relation, "share", "value", name, 0, 1)
    if measurement.form == "wang":
        return within(scope, relation, delta_unit(scope), "delta", f"{name}(form = wang)", 0)
    found = within(scope, relation, "effect", "effect", name, None if name == "faithfulness" else 0)
    # the bounds are on a figure of its own name
    return replace(found, text=found.text.removeprefix("effect ")) if found else found


RANDOM_SUBSETS = 10

Nodes = frozenset[Node]


def alone(whole: Membership, keep: Literal["nodes", "edges"], ablate: Ablation, everywhere: bool) -> Subgraph:
    """The circuit with everything outside it ablated; at its own positions, or at all."""
    sites, edges = whole.sites, whole.edges
    if everywhere:
        sites = frozenset(Site(site.node, EVERYWHERE) for site in sites)
        edges = frozenset(edge._replace(position=EVERYWHERE) for edge in edges)
    if keep == "nodes":
        return Subgraph("nodes", sites=sites, mlps=whole.mlps, ablate=ablate)
    return Subgraph("edges", edges=edges, mlps=whole.mlps, ablate=ablate)


def without(circuit: Subgraph, nodes: Nodes, of_model: bool = False) -> Subgraph:
    """The circuit less some of its nodes, or the edges at them; or the whole model less the same."""
    sites = frozenset(site for site in circuit.sites if (site.node in nodes) == of_model)
    ends = ((edge, (edge.sender, edge.sender.whole, edge.receiver.node)) for edge in circuit.edges)
    edges = frozenset(edge for edge, touched in ends if nodes.isdisjoint(touched) != of_model)
    return replace(circuit, inverted=of_model, sites=sites, edges=edges)


def members(circuit: Subgraph) -> tuple[Node, ...]:
    """The heads and MLPs of a circuit."""
    ends = (node for edge in circuit.edges for node in (edge.sender, edge.receiver.node))
    found = {site.node for site in circuit.sites} | {node for node in ends if node.kind in ("head", "mlp")}
    return tuple(sorted(found))


def groups(whole: Membership, circuit: Subgraph) -> dict[str, Nodes]:
    """The groups by name, as far as they are part of the circuit; each set of nodes once."""
    inside = frozenset(members(circuit))
    found: dict[Nodes, str] = {}
    for name, sites in whole.groups.items():
        nodes = frozenset(site.node for site in sites) & inside
        if nodes:
            found.setdefault(nodes, name)
    return {name: nodes for nodes, name in found.items()}


def subsets(whole: Membership, circuit: Subgraph) -> dict[str, Nodes]:
    """What incompleteness takes out: the groups, then random subsets; always the same ones for a circuit."""
    found = groups(whole, circuit)
    nodes = members(circuit)
    rng, most = random.Random(" ".join(map(str, nodes))), len(found) + RANDOM_SUBSETS
    for _ in range(10 * RANDOM_SUBSETS):
        drawn = frozenset(node for node in nodes if rng.random() < 0.5)
        if drawn and drawn not in found.values():
            found[" ".join(map(str, sorted(drawn)))] = drawn
        if len(found) == most:
            break
    return found


def contexts(node: Node, sets: Mapping[str, Nodes]) -> dict[str, Nodes]:
    """What is taken out before a node is, for minimality: nothing, and every group without the node."""
    found: dict[Nodes, str] = {frozenset(): ""}
    for name, nodes in sets.items():
        found.setdefault(nodes - {node}, f"{name} without {node}" if node in nodes else name)
    return {name: nodes for nodes, name in found.items()}
