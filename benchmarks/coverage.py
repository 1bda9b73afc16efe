"""How often 95 % intervals contain the truth: a seeded simulation, and the table it prints.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py            # a few minutes
    OMP_NUM_THREADS=1 python benchmarks/coverage.py --quick    # under a minute

Prompts are dealt to strata in turn. Strata have equal means, or means spread with half the standard deviation that
prompts have within (redrawn in every replicate); the truth is the mean of the strata's means in the sample's mix.
Effects within strata have standard deviation 1 and are normal, exponential (skewness 2), lognormal (sigma 0.5:
skewness 1.75; sigma 1: 6.2) or Student's t with 3 degrees of freedom (no fourth moment).
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from circuitdsl.verdict.bounded import Changes
from circuitdsl.verdict.families import FAMILY, family_levels, strictest
from circuitdsl.verdict.intervals import Mean, share
from circuitdsl.verdict.moments import mean, moments
from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verdict.sampling import Looks, plan_looks

Array = NDArray[np.float64]
KINDS = ("normal", "exponential", "lognormal 0.5", "lognormal 1", "t3")
STRATA = (1, 2, 4, 15, 30)
SIZES = (32, 64, 128, 256)
CHUNK = 2000


def draw(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> Array:
    """Effects with mean 0 and standard deviation 1."""
    if kind == "normal":
        return rng.standard_normal(shape)
    if kind == "exponential":
        return rng.exponential(size=shape) - 1
    if kind == "t3":
        return rng.standard_t(3, shape) / np.sqrt(3)
    if kind.startswith("lognormal"):
        s2 = float(kind.split()[1]) ** 2
        return (np.exp(np.sqrt(s2) * rng.standard_normal(shape)) - np.exp(s2 / 2)) / np.sqrt(np.expm1(s2) * np.exp(s2))
    raise ValueError(kind)


def samples(rng: np.random.Generator, kind: str, strata: int, n: int, unequal: float, replicates: int) -> Iterator:
    """Chunks of (effects [r, n], labels [n], true means [r, n] of each prompt's stratum)."""
    labels = np.arange(n) % strata
    for start in range(0, replicates, CHUNK):
        r = min(CHUNK, replicates - start)
        means = unequal * rng.standard_normal((r, strata))[:, labels]
        yield draw(rng, kind, (r, n)) + means, labels, means


def fixed(rng: np.random.Generator, kind: str, strata: int, n: int, unequal: float, replicates: int) -> Array:
    """Share of intervals above and below the truth."""
    missed = np.zeros(2)
    for y, labels, means in samples(rng, kind, strata, n, unequal, replicates):
        low, high = mean(y, labels).interval()
        truth = means.mean(-1)
        missed += np.count_nonzero(low > truth), np.count_nonzero(high < truth)
    return missed / replicates


def other_templates(rng: np.random.Generator, kind: str, strata: int, n: int, between: float, replicates: int) -> Array:
    """Share of intervals above and below the truth, for prompts from other templates; those here are drawn anew.

    Templates' means have standard deviation `between` and the distribution `kind`, and so have prompts within them (1).
    The second pair is that of the usual interval, which is about prompts from the same templates.
    """
    missed = np.zeros(4)
    for start in range(0, replicates, CHUNK):
        r = min(CHUNK, replicates - start)
        labels = np.arange(n) % strata
        y = between * draw(rng, kind, (r, strata))[:, labels] + draw(rng, kind, (r, n))
        by_stratum = np.stack([y[:, labels == k].mean(-1) for k in range(strata)], -1)
        for i, (low, high) in enumerate((mean(by_stratum).interval(), mean(y, labels).interval())):
            missed[2 * i : 2 * i + 2] += np.count_nonzero(low > 0), np.count_nonzero(high < 0)
    return missed / replicates


def looking(
    rng: np.random.Generator, kind: str, strata: int, looks: Looks, members: int, replicates: int, drifts: Array
) -> Array:
    """Coverage of the displayed interval when stopping at a bound at the strictest level, for each true mean."""
    level = strictest(members).holds
    covered = np.zeros(len(drifts))
    for y, labels, means in samples(rng, kind, strata, looks.sizes[-1], 0.5, replicates):
        figures = [mean(y[:, :n], labels[:n]) for n in looks.sizes]
        truths = np.stack([means[:, :n].mean(-1) for n in looks.sizes])
        for i, drift in enumerate(drifts):
            covered[i] += np.count_nonzero(_covered(figures, truths, looks, level, float(drift)))
    return covered / replicates


def _covered(figures: list[Mean], truths: Array, looks: Looks, level: float, drift: float) -> NDArray[np.bool_]:
    """Whether the interval at the look where each replicate stops holds that look's truth; the bound is at -drift."""
    hit = np.stack([_contains(figure, truth, looks) for figure, truth in zip(figures, truths, strict=True)])
    below = np.stack([figure.below(-drift) for figure in figures], -1)
    above = np.stack([figure.above(-drift) for figure in figures], -1)
    stop = np.ones(hit.shape, bool)
    for k in range(len(figures) - 1):
        p = np.minimum(looks.p_value(below[:, : k + 1]), looks.p_value(above[:, : k + 1]))
        stop[k] = 2 * p <= level
    return hit[stop.argmax(0), np.arange(hit.shape[1])]


def _contains(figure: Mean, truth: Array, looks: Looks) -> NDArray[np.bool_]:
    low, high = figure.interval(looks.display(FAMILY))
    return (low <= truth) & (truth <= high)


def ratios(rng: np.random.Generator, kind: str, n: int, replicates: int) -> Array:
    """Misses on either side of intervals for an effect of -40 %, the gap varying by prompt."""
    missed = np.zeros(2)
    for noise, labels, means in samples(rng, kind, 4, n, 0.5, replicates):
        gap = 5 + means + rng.standard_normal(noise.shape)
        d = -0.4 * gap + (noise - means)
        low, high = Ratio(moments(d, gap, strata=labels)).interval()
        missed += np.count_nonzero(low > -0.4), np.count_nonzero(high < -0.4)
    return missed / replicates


def shares(rng: np.random.Generator, p: float, n: int, replicates: int) -> Array:
    """Misses of Clopper and Pearson's interval (cautious by construction)."""
    low, high = share(rng.random((replicates, n)) < p).interval()
    return np.array([np.mean(low > p), np.mean(high < p)])


def jumps(rng: np.random.Generator, cells: dict[tuple[int, int], float], looks: Looks, replicates: int) -> Array:
    """Share of wrong "above" and "below" about an effect that is exactly on its bound, of a metric that is 0 or 1.

    `cells` are the probabilities of (change by the patch, change by the corruption) on a prompt.
    """
    pairs, chances = np.array(list(cells), float), np.array(list(cells.values()))
    bound = float(chances @ pairs[:, 0] / (chances @ pairs[:, 1]))
    steps = np.stack([rng.multinomial(n, chances, replicates) for n in np.diff([0, *looks.sizes])], 1)
    counts = np.cumsum(steps, 1)
    outcomes, which = np.unique(counts.reshape(-1, len(cells)), axis=0, return_inverse=True)
    p = np.ones((2, len(outcomes)))
    for i, row in enumerate(outcomes):
        figure = Ratio(Changes(pairs, row.astype(float), 1.0))
        side = int(row @ pairs @ (1, -bound) < 0)  # the other side's p-value is large
        p[side, i] = figure.below(bound) if side else figure.above(bound)
    p = p[:, which.reshape(counts.shape[:2])]
    return np.mean(2 * looks.p_value(p) <= FAMILY, -1)


def family(rng: np.random.Generator, kind: str, members: int, looks: Looks, replicates: int) -> Array:
    """Share of specs with a wrong "holds" when every claim is false by a hair: its mean is on the bound.

    Half the claims are bounded from above and half from below, so that skewness hurts on both sides.
    """
    wrong, total = np.zeros(2), 0
    for _ in range(replicates):
        y = draw(rng, kind, (members, looks.sizes[-1]))
        y[::2] *= -1
        labels = np.arange(looks.sizes[-1]) % 4
        figures = [mean(y[:, :n], labels[:n]) for n in looks.sizes]
        holds = np.minimum(1, 2 * looks.p_value(np.stack([f.below(0.0) for f in figures], -1)))
        fails = np.minimum(1, 2 * looks.p_value(np.stack([f.above(0.0) for f in figures], -1)))
        levels = family_levels(list(holds), list(fails))
        wrong += (
            any(p <= level.holds for p, level in zip(holds, levels, strict=True)),
            any(p <= level.fails for p, level in zip(fails, levels, strict=True)),
        )
        total += 1
    return wrong / total


# --- tables -----------------------------------------------------------------------------------------


def table_fixed(rng: np.random.Generator, replicates: int) -> None:
    print(f"\nFixed n, coverage in % (replicates {replicates}, standard error {se(replicates):.2f})\n")
    print("| strata | means | effects | " + " | ".join(f"n {n}" for n in SIZES) + " |")
    print("|---|---|---|" + "---|" * len(SIZES))
    for strata, unequal, kind in itertools.product(STRATA, (0.0, 0.5), KINDS):
        if strata == 1 and unequal:
            continue
        cells = [100 * (1 - fixed(rng, kind, strata, n, unequal, replicates).sum()) for n in SIZES]
        means = "unequal" if unequal else "equal"
        print(f"| {strata} | {means} | {kind} | " + " | ".join(f"{c:.1f}" for c in cells) + " |", flush=True)


def table_looking(rng: np.random.Generator, replicates: int) -> None:
    print(
        f"\nWith looking, unequal means, coverage in % (replicates {replicates}, standard error {se(replicates):.2f})\n"
    )
    drifts = np.array([-0.8, -0.4, -0.2, -0.1, 0.0, 0.1, 0.2, 0.4, 0.8])
    print("| N | members | strata | effects | " + " | ".join(f"mean {d:g}" for d in drifts) + " |")
    print("|---|---|---|---|" + "---|" * len(drifts))
    for n, members, strata, kind in itertools.product((256,), (1, 15), (1, 4, 15), KINDS):
        row = looking(rng, kind, strata, plan_looks(n), members, replicates, drifts)
        text = " | ".join(f"{100 * c:.1f}" for c in row)
        print(f"| {n} | {members} | {strata} | {kind} | {text} |", flush=True)


def table_others(rng: np.random.Generator, replicates: int) -> None:
    print(f"\nEffects of -40 % as ratios of means, 4 strata, coverage in % (replicates {replicates})\n")
    print("| noise | " + " | ".join(f"n {n}" for n in SIZES) + " |\n|---|" + "---|" * len(SIZES))
    for kind in KINDS:
        cells = [100 * (1 - ratios(rng, kind, n, replicates).sum()) for n in SIZES]
        print(f"| {kind} | " + " | ".join(f"{c:.1f}" for c in cells) + " |", flush=True)
    print(f"\nShares of prompts, coverage in % (replicates {replicates}; at least 95 by construction)\n")
    print("| share | " + " | ".join(f"n {n}" for n in SIZES) + " |\n|---|" + "---|" * len(SIZES))
    for p in (0.5, 0.95, 0.99):
        cells = [100 * (1 - shares(rng, p, n, replicates).sum()) for n in SIZES]
        print(f"| {p} | " + " | ".join(f"{c:.1f}" for c in cells) + " |", flush=True)


def table_templates(rng: np.random.Generator, replicates: int) -> None:
    print(f"\nOther templates, 8 prompts of each, coverage in % (replicates {replicates}, error {se(replicates):.2f})")
    print("With --generalise templates / of the usual interval, which promises nothing here.\n")
    print("| spread between templates | templates | " + " | ".join(KINDS) + " |\n|---|---|" + "---|" * len(KINDS))
    for between, strata in itertools.product((0.0, 0.5, 2.0), (4, 15, 30, 60)):
        cells = []
        for kind in KINDS:
            m = other_templates(rng, kind, strata, 8 * strata, between, replicates)
            cells.append(f"{100 * (1 - m[:2].sum()):.1f} / {100 * (1 - m[2:].sum()):.1f}")
        print(f"| {between:g} | {strata} | {' | '.join(cells)} |", flush=True)


def table_jumps(rng: np.random.Generator, replicates: int) -> None:
    print(
        f'\nAccuracy: wrong "above" / "below" in %, looks, effect on its bound (replicates {replicates}; at most 2.5)'
    )
    print(
        "The largest of: all changes for the worse, or a quarter for the better; gap one-way, or 10 % turned round.\n"
    )
    print("| prompts changed | gap | " + " | ".join(f"n {n}" for n in SIZES) + " |\n|---|---|" + "---|" * len(SIZES))
    for rate, gap in itertools.product((0.001, 0.005, 0.01, 0.02, 0.05, 0.1), (0.5, 0.75, 1.0)):
        worst = np.zeros((len(SIZES), 2))
        for better, turned in itertools.product((0.0, 0.25), (0.0, 0.1)):
            if gap + 2 * turned > 1:
                continue
            base = {1: gap + turned, 0: 1 - gap - 2 * turned, -1: turned}
            cells = {
                (d, g): base[g] * q
                for g in base
                for d, q in ((-1, rate * (1 - better)), (0, 1 - rate), (1, rate * better))
            }
            cells = {pair: q for pair, q in cells.items() if q > 0}
            rows = [100 * jumps(rng, cells, plan_looks(n), replicates) for n in SIZES]
            worst = np.maximum(worst, rows)
        text = " | ".join(f"{a:.1f} / {b:.1f}" for a, b in worst)
        print(f"| {100 * rate:g} % | {100 * gap:g} % | {text} |", flush=True)


def table_family(rng: np.random.Generator, replicates: int) -> None:
    print(f'\nSpecs with a wrong "holds" / "fails", in % (replicates {replicates}; meant: at most 2.5 each)')
    print("Every claim is false by a hair: its mean is on the bound.\n")
    print("| members | N | looks | " + " | ".join(KINDS) + " |\n|---|---|---|" + "---|" * len(KINDS))
    for members, n, early in ((1, 256, True), (20, 256, True), (20, 256, False), (20, 32, False)):
        looks = plan_looks(n, early)
        rows = [100 * family(rng, kind, members, looks, replicates) for kind in KINDS]
        cells = " | ".join(f"{a:.1f} / {b:.1f}" for a, b in rows)
        print(f"| {members} | {n} | {len(looks.sizes)} | {cells} |", flush=True)


def se(replicates: int) -> float:
    """Standard error of a coverage near 95 %, in points."""
    return float(100 * np.sqrt(0.05 * 0.95 / replicates))


TABLES = {
    "fixed": table_fixed,
    "looking": table_looking,
    "others": table_others,
    "family": table_family,
    "jumps": table_jumps,
    "templates": table_templates,
}
#: tables of slow figures
FEWER = {"family": 4000, "jumps": 4000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replicates", type=int, default=20000)
    parser.add_argument("--quick", action="store_true", help="2000 replicates")
    parser.add_argument("--only", choices=TABLES, help="one table")
    args = parser.parse_args()
    replicates = 2000 if args.quick else args.replicates
    start = time.perf_counter()
    print(f"seed {args.seed}, {replicates} replicates")
    for i, (name, table) in enumerate(TABLES.items()):
        if args.only in (None, name):
            table(np.random.default_rng([args.seed, i]), min(replicates, FEWER.get(name, replicates)))
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
