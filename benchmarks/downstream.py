"""Do the heads that a repair redirects matter as much as they change? `python -m benchmarks.downstream`.

Merullo et al. 2023 (arXiv:2310.08744, section 4) change the attention of inhibition heads, and find that the heads
which read these look elsewhere, the more so the more the path into their queries matters where the model does the task
(rank correlation 0.69). This asks it of an intervention of a spec: for every later head, how far its attention to the
answer and to the distractors moves; and how much the edge from all heads of the intervention into its query matters,
which is measured on tasks that the model does. Sizes are correlated, against shuffles of heads within layers. How far
such a correlation can get is measured as well: each figure against itself on other prompts.

With the weights of GPT-2 medium, the paper's own question:

    python -m benchmarks.downstream gpt2-medium/repair repair --changed colored_objects --works gpt2-medium/ioi:ioi
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circuitdsl.api import load
from circuitdsl.circuit.changes import Intervention, Replace, Scale, SetAttention
from circuitdsl.circuit.nodes import Edge, Input, Node, Position
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.attention import Attention
from circuitdsl.measurements.requests import ChangedRequest, EdgeRequest
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.verify.compared import rank_correlation
from circuitdsl.verify.measure import measure
from circuitdsl.verify.prompts import make_prompts
from circuitdsl.verify.session import with_overrides

END = Position("END")
TARGETS = (Position("ANSWER"), Position("DISTRACTOR"))
#: heads whose figures are shown
SHOWN = 6


@dataclass(frozen=True)
class Figure:
    """One figure of every later head, on the prompts of two seeds [heads]."""

    name: str
    values: np.ndarray
    again: np.ndarray


def intervention_of(spec: str, name: str) -> Intervention:
    (found,) = (each for each in load(spec).circuits[0].interventions if each.name == name)
    return found


def changed_heads(intervention: Intervention) -> tuple[Node, ...]:
    """The heads that an intervention changes."""
    found: set[Node] = set()
    for verb in intervention.verbs:
        match verb:
            case SetAttention(heads=heads):
                found |= set(heads)
            case Scale(nodes=nodes):
                found |= set(nodes)
            case Replace(sites=sites):
                found |= {site.node for site in sites}
    return tuple(sorted(Node("head", node.layer, node.head) for node in found if node.kind == "head"))


def bench_of(model: Transformer, spec: str, task: str, prompts: int, seed: int) -> Prompts:
    circuit = with_overrides(load(spec).circuits[0], prompts, seed)
    (use,) = (each for each in circuit.tasks if each.name == task)
    return make_prompts(circuit, use, model)


# --- what is measured of every later head ----------------------------------------------------------


def importance(bench: Prompts, senders: Sequence[Node], heads: Sequence[Node]) -> np.ndarray:
    """The effect of patching all senders into a head's query at END, as a share of the gap [heads]."""
    requests = [
        EdgeRequest(tuple(sorted(Edge(s, Input(head, "q"), END) for s in senders if s.layer < head.layer)))
        for head in heads
    ]
    found = measure(bench, requests, np.arange(len(bench.pairs)))
    gap = float((bench.clean - bench.corrupt).mean())
    return np.asarray([float((found[request].values - bench.clean).mean()) / gap for request in requests])


def attention_change(
    bench: Prompts, intervention: Intervention, target: Position, heads: Sequence[Node]
) -> tuple[np.ndarray, np.ndarray]:
    """The share of its attention that each head gives the target from END, and by how much the intervention changes
    it [heads]."""
    looks = [Attention((head,), (END,), (target,)) for head in heads]
    found = measure(
        bench, [*looks, *(ChangedRequest(look, intervention) for look in looks)], np.arange(len(bench.pairs))
    )
    before = np.asarray([found[look].values.mean() for look in looks])
    after = np.asarray([found[ChangedRequest(look, intervention)].values.mean() for look in looks])
    return before, after - before


# --- tables ----------------------------------------------------------------------------------------


def correlations(heads: Sequence[Node], importances: Sequence[Figure], changes: Sequence[Figure]) -> str:
    """A row a change, a column an importance; and how well each agrees with itself on other prompts."""
    rows = [
        f"| change of attention to | with itself | {' | '.join(f'{each.name}: rho (p)' for each in importances)} |",
        "|---" * (len(importances) + 2) + "|",
    ]
    for change in changes:
        ranks = [rank_correlation(heads, np.abs(each.values), np.abs(change.values)) for each in importances]
        cells = [f"{rank.rho:.2f} ({rank.p:.2f})" for rank in ranks]
        rows.append(f"| {change.name} | {_self(heads, change)} | {' | '.join(cells)} |")
    rows.append(f"| with itself | | {' | '.join(_self(heads, each) for each in importances)} |")
    return "\n".join(rows)


def _self(heads: Sequence[Node], figure: Figure) -> str:
    return f"{rank_correlation(heads, np.abs(figure.values), np.abs(figure.again)).rho:.2f}"


def most_important(
    heads: Sequence[Node],
    importances: Sequence[Figure],
    looks: Sequence[tuple[str, np.ndarray, np.ndarray]],
) -> str:
    """The heads whose query edges matter most on the last of the tasks: what they matter, and how they change."""
    rows = [
        f"| head | {' | '.join(each.name for each in importances)} | {' | '.join(name for name, *_ in looks)} |",
        "|---" * (len(importances) + len(looks) + 1) + "|",
    ]
    for i in np.argsort(-np.abs(importances[-1].values))[:SHOWN]:
        edges = [f"{100 * each.values[i]:+.1f} %" for each in importances]
        changes = [f"{100 * before[i]:.1f} % {100 * change[i]:+.1f}" for _, before, change in looks]
        rows.append(f"| {heads[i]} | {' | '.join([*edges, *changes])} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("spec", nargs="?", default="pocket/repair")
    parser.add_argument("intervention", nargs="?", default="both")
    parser.add_argument("--changed", nargs="+", default=["seven", "ten"], help="tasks that it repairs")
    parser.add_argument("--works", nargs="+", default=["pocket/repair:six", "pocket/ioi:ioi"], help="SPEC:TASK")
    parser.add_argument("--model", help="instead of the spec's own")
    parser.add_argument("--prompts", type=int, default=512)
    given = parser.parse_args()
    if not (name := given.model) and (used := load(given.spec).first().model):
        name = used.name
    model = load_model(name, device="cpu")
    change = intervention_of(given.spec, given.intervention)
    senders = changed_heads(change)
    later = range(senders[0].layer + 1, model.n_layers)
    heads = tuple(Node("head", layer, head) for layer in later for head in range(model.n_heads))
    heads = tuple(head for head in heads if head not in senders)
    importances = []
    for where in given.works:
        spec, _, task = where.rpartition(":")
        values = [importance(bench_of(model, spec, task, given.prompts, s), senders, heads) for s in (0, 1)]
        importances.append(Figure(f"edge, {task}", *values))
    changes, looks = [], []
    for task in given.changed:
        benches = [bench_of(model, given.spec, task, given.prompts, seed) for seed in (0, 1)]
        for target in TARGETS:
            (before, now), (_, again) = (attention_change(bench, change, target, heads) for bench in benches)
            changes.append(Figure(f"{target}, {task}", now, again))
            looks.append((changes[-1].name, before, now))
    print(f"{len(heads)} heads after {' '.join(map(str, senders))}; {given.intervention}; {given.prompts} prompts\n")
    print(correlations(heads, importances, changes))
    print()
    print(most_important(heads, importances, looks))


if __name__ == "__main__":
    main()
