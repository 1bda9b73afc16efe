"""Which parts do the pocket model's tasks share? `python -m benchmarks.reuse [--prompts 128]`.

Two answers for every pair of tasks: how many heads their shipped circuits have in common, against random sets with as
many heads in each layer (Merullo et al. 2023, arXiv:2310.08744, section 4); and whether the heads that matter for one
task matter for the other, whatever was written down: Spearman's rank correlation of the total effects of all heads,
against shuffles within layers. A profile is one of a task under a corruption, so all of a task's corruptions are tried,
but for those that leave the metric where it was. p values are given as they are; in bold, those below 5 % when all of
their table count (Holm). One table says how far a correlation can get: a task against itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from circuitdsl.api import CATALOGUE, load, loads
from circuitdsl.circuit.compare import compare
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.verify.compared import Profile, correlation, profile
from circuitdsl.verify.prompts import prompts_by_task

CIRCUITS = ("ioi", "laundry_list", "induction", "colored_objects", "greater_than")
METRICS = {"greater_than": "prob_diff"}
RARE = 0.05
#: a gap this many standard errors above 0 is one
CLEAR = 5.0


def measured(model: Transformer, task: str, corruption: str, prompts: int, seed: int = 0) -> Profile | None:
    """The importance of every head on a task under one of its corruptions; None where there is no gap to speak of."""
    text = (
        f'circuit all\nmodel "{model.name}"\ntask {task}(corrupt = {corruption}, prompts = {prompts}, seed = {seed})\n'
        f"metric {METRICS.get(task, 'logit_diff')}\nexpect accuracy >= 0%\n"
    )
    (bench,) = prompts_by_task(loads(text).circuits[0], model).values()
    gap = bench.clean - bench.corrupt
    if gap.mean() < CLEAR * gap.std(ddof=1) / np.sqrt(len(gap)):
        return None
    return profile(bench, task, prompts)


def holm(ps: Sequence[float]) -> list[bool]:
    """Which of several p values are below 5 % for the family (Holm's procedure)."""
    order = np.argsort(ps)
    kept = [False] * len(ps)
    for rank, i in enumerate(order):
        if ps[i] > RARE / (len(ps) - rank):
            break
        kept[i] = True
    return kept


def pairs_table(model: Transformer, found: dict[str, dict[str, Profile]]) -> str:
    """A row a pair: overlap of heads and of edges against chance, and the correlation of importance."""
    pairs = list(combinations(CIRCUITS, 2))
    circuits = {name: load(f"pocket/{name}").circuits[0] for name in CIRCUITS}
    overlaps = [compare(circuits[a], circuits[b], model.n_heads) for a, b in pairs]
    firsts = {name: next(iter(profiles.values())) for name, profiles in found.items()}
    ranks = [correlation(firsts[a], firsts[b]) for a, b in pairs]
    chances = [each.chance.p if each.chance else 1.0 for each in overlaps]
    named, used = holm(chances), holm([each.p for each in ranks])
    rows = [
        "| pair | heads | shared | Jaccard | by chance | p | edges, Jaccard | rank correlation | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for i, (a, b) in enumerate(pairs):
        heads, chance, rank = overlaps[i].heads, overlaps[i].chance, ranks[i]
        assert chance is not None
        rows.append(
            f"| {a}, {b} | {len(heads.first)}, {len(heads.second)} | {len(heads.shared)} | {heads.jaccard:.0%} "
            f"| {chance.expected:.1f} ({chance.jaccard:.0%}) | {_p(chance.p, named[i])} "
            f"| {overlaps[i].edges.jaccard:.0%} | {rank.rho:.2f} | {_p(rank.p, used[i])} |"
        )
    return "\n".join(rows)


def _p(p: float, kept: bool) -> str:
    return f"**{p:.4f}**" if kept else f"{p:.4f}"


def corruptions_table(found: dict[str, dict[str, Profile]]) -> str:
    """A row a pair: the correlations under all their corruptions, and those that are clear when all of them count."""
    pairs = list(combinations(CIRCUITS, 2))
    cells = [(a, b, x, y) for a, b in pairs for x in found[a] for y in found[b]]
    ranks = {(a, b, x, y): correlation(found[a][x], found[b][y]) for a, b, x, y in cells}
    clear = dict(zip(cells, holm([ranks[cell].p for cell in cells]), strict=True))
    rows = [f"| pair | corruptions tried, {len(cells)} in all | lowest | highest | clear |", "|---|---|---|---|---|"]
    for a, b in pairs:
        here = [cell for cell in cells if cell[:2] == (a, b)]
        rhos = [ranks[cell].rho for cell in here]
        kept = [f"{x} and {y}: {ranks[a, b, x, y].rho:.2f}" for _, _, x, y in here if clear[a, b, x, y]]
        rows.append(f"| {a}, {b} | {len(here)} | {min(rhos):.2f} | {max(rhos):.2f} | {', '.join(kept) or '–'} |")
    return "\n".join(rows)


def ceiling_table(model: Transformer, found: dict[str, dict[str, Profile]], prompts: int) -> str:
    """How well a task's profile correlates with itself: on other prompts, and under its other corruptions."""
    rows = ["| task | other prompts | other corruptions |", "|---|---|---|"]
    for name, profiles in found.items():
        corruption, one = next(iter(profiles.items()))
        again = measured(model, name, corruption, prompts, seed=1)
        assert again is not None, "there was a gap on the first prompts"
        others = [f"{correlation(one, each).rho:.2f} ({key})" for key, each in list(profiles.items())[1:]]
        rows.append(f"| {name} ({corruption}) | {correlation(one, again).rho:.2f} | {', '.join(others)} |")
    return "\n".join(rows)


def strongest(found: dict[str, dict[str, Profile]], count: int = 6) -> str:
    """The heads with the largest effects on each task."""
    rows = []
    for name, profiles in found.items():
        one = next(iter(profiles.values()))
        top = sorted(zip(one.heads, one.effects, strict=True), key=lambda pair: -abs(pair[1]))[:count]
        rows.append(f"{name}: " + ", ".join(f"{head} {100 * effect:.0f} %" for head, effect in top))
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=128)
    given = parser.parse_args()
    model = load_model("pocket", device="cpu")
    found: dict[str, dict[str, Profile]] = {}
    for name in CIRCUITS:
        first = load(f"pocket/{name}").circuits[0].tasks[0].corrupt
        corruptions = sorted(CATALOGUE[name].corruptions, key=lambda each: each != first)
        profiles = {each: measured(model, name, each, given.prompts) for each in corruptions}
        found[name] = {each: one for each, one in profiles.items() if one is not None}
        print(f"{name}: left out for want of a gap: {', '.join(set(profiles) - set(found[name])) or 'none'}")
    print()
    print(pairs_table(model, found))
    print()
    print(corruptions_table(found))
    print()
    print(ceiling_table(model, found, given.prompts))
    print()
    print(strongest(found))


if __name__ == "__main__":
    main()
