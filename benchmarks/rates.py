"""How often verdicts are wrong, on the effects that patching really has.

    OMP_NUM_THREADS=1 python -m benchmarks.rates           # all tables
    OMP_NUM_THREADS=1 python -m benchmarks.rates --quick   # a look, in two minutes

Takes the populations of `populations.py`: per-prompt effects of the pocket model on 20 000 prompts. Samples of them go
through the verdict code itself. Most claims lie exactly on their bounds, where a verdict is wrong either way, others
just beyond; every form of claim is among them (`rates_claims.py`). A second corruption is the same code on other
numbers, and is left out, and so are claims on the largest of many figures. Specs have one claim, or twenty on the same
prompts. Printed as Markdown:

* wrong "holds" and wrong "fails": shares of specs, by metric and number of prompts, with the worst task;
* coverage of the plain 95 % interval, and of the one that is shown after stopping early;
* power: the share of claims that are decided whose bound is some share of the gap away from the truth;
* what another test would take, a betting martingale (`rates_betting.py`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rates_claims import Claim, at_looks, claims, hopeless, ratios, verdicts
from benchmarks.rates_others import margins, templates, tests_of
from benchmarks.rates_populations import Array, Population, load
from circuitdsl.verdict.sampling import Looks, plan_looks

TASKS = ("ioi", "colored_objects", "greater_than", "induction", "laundry_list")
METRICS = ("prob_diff", "accuracy", "attention", "logit_diff", "logprob", "kl")
#: what claims are made on: effects and deltas, or figures as they are and changes that no gap is measured for
ABOUT = ("effects", "values")
#: numbers of prompts, and whether they are looked at before the last
DESIGNS = ((32, True), (64, True), (128, True), (256, True), (512, True), (1024, True), (256, False))
QUICK = ((64, True), (256, True))
#: claims of a spec, and claims on a population, which are divided into specs
MANY, POOL = 20, 40
#: samples that are drawn at once
BATCH = 40
#: distances of a bound from the truth, in shares of the gap
AWAY = (0.01, 0.02, 0.05, 0.1)
HERE = Path(__file__).parent / "populations"

Row = dict[str, Any]


# --- wrong verdicts -----------------------------------------------------------------------------------


def wrong(p: Population, looks: Looks, samples: int, rng: np.random.Generator) -> Row:
    """Counts of wrong verdicts: on each claim alone, and in specs of many."""
    n = looks.sizes[-1]
    pool = claims(p, n, POOL if p.about == "effects" else MANY)
    alone = np.zeros((len(pool), 2), int)
    specs: list[tuple[bool, bool]] = []
    for _ in range(0, samples, BATCH):
        prompts, strata = p.draw(BATCH, n, rng)
        skip = np.array([hopeless(p, claim, prompts, strata, looks) for claim in pool])
        for r in range(BATCH):
            found = [None if skip[c, r] else claim.weigh(prompts[r], strata, looks) for c, claim in enumerate(pool)]
            alone += [_wrong([claim], verdicts([e])) for claim, e in zip(pool, found, strict=True)]
            order = rng.permutation(len(pool))
            for spec in (order[k : k + MANY] for k in range(0, len(pool) - MANY + 1, MANY)):
                specs.append(_wrong([pool[i] for i in spec], verdicts([found[i] for i in spec])))
    rates = alone / samples
    worst = rates.argmax(0)
    return {
        "alone": rates.mean(0).tolist(),
        "claims": samples * len(pool),
        "many": np.mean(specs, axis=0).tolist() if specs else [0.0, 0.0],
        "specs": len(specs),
        "worst": [[float(rates[c, k]), f"{pool[c].form} {pool[c].about}"] for k, c in enumerate(worst)],
        "forms": {form: rates[[c.form == form for c in pool]].max(0).tolist() for form in {c.form for c in pool}},
    }


def _wrong(pool: Sequence[Claim], found: Sequence[str]) -> tuple[bool, bool]:
    """Whether some claim holds that must not, and whether some fails that must not."""
    said = [v for claim, v in zip(pool, found, strict=True) if v in claim.wrong]
    return "holds" in said, "fails" in said


# --- coverage and power ---------------------------------------------------------------------------------


def power(p: Population, looks: Looks, samples: int, rng: np.random.Generator) -> Row:
    """How often intervals have the truth, and how often claims with some room are decided, alone and among many."""
    prompts, strata = p.draw(samples, looks.sizes[-1], rng)
    covered, stopped, decided = [], [], []
    for e in range(len(p.names)):
        true, figures = p.effect(e), ratios(p, e, prompts, strata, looks)
        at_truth = at_looks(figures, true)
        covered.append(np.mean(2 * at_truth[..., -1].min(0) > 0.05))
        for away in AWAY:
            against = at_looks(figures, true + away, true - away)
            p_values = [2 * looks.p_value(one) for one in against]
            decided.append([[np.mean(one <= level) for level in (0.05, 0.05 / MANY)] for one in p_values])
            stopped += [_covered_where_it_stops(one, at_truth, looks) for one in against]
    return {
        "coverage": float(np.mean(covered)),
        "least": float(np.min(covered)),
        "stopped": float(np.mean(stopped)),
        "stopped_least": float(np.min(stopped)),
        "power": np.reshape(decided, (-1, len(AWAY), 2, 2)).mean((0, 2)).tolist(),
    }


def _covered_where_it_stops(against: Array, at_truth: Array, looks: Looks) -> float:
    """How often the plain interval has the truth, at the look where a claim is decided (at the last otherwise)."""
    levels = np.array([looks.nominal(0.05, k) for k in range(len(looks.sizes))])
    out = 2 * against <= levels
    out[:, -1] = True
    where = out.argmax(1)
    there = at_truth[:, np.arange(len(where)), where].min(0)
    return float(np.mean(2 * there > looks.display(0.05)))


# --- all of them ------------------------------------------------------------------------------------------


def run(given: argparse.Namespace) -> list[Row]:
    """A row for every task, metric and design."""
    rows: list[Row] = []
    metrics = [(m, about) for m in given.metrics for about in ABOUT if (m, about) != ("attention", "effects")]
    cells = [(task, *metric) for task in given.tasks for metric in metrics]
    work, done, start = len(cells) * sum(_cost(n) for n, _ in given.designs), 0.0, time.perf_counter()
    for task, metric, about in cells:
        p = load(given.populations, task, metric, about)
        for n, early in given.designs:
            looks, rng = plan_looks(n, early), np.random.default_rng([given.seed, n, len(rows)])
            row: Row = {"task": task, "metric": f"{metric}, {about}", "n": n, "early": early}
            row |= wrong(p, looks, given.samples, rng)
            row |= power(p, looks, given.samples // 2, rng) if about == "effects" else {}
            rows.append(row)
            done += _cost(n)
            seconds = time.perf_counter() - start
            cell = f"{task} {metric} {about} {n}"
            print(f"<!-- {cell}: {seconds:.0f} of about {seconds * work / done:.0f} s -->", flush=True)
    return rows


def _cost(n: int) -> float:
    return 1 + n / 200


# --- tables -------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row], title: str, cell: Callable[[Sequence[Row]], str]) -> str:
    """A line for every metric, a column for every design."""
    designs = list(dict.fromkeys((row["n"], row["early"]) for row in rows))
    heads = ["metric", *(f"{n}{'' if early else ', one look'}" for n, early in designs)]
    lines = [title, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for metric in dict.fromkeys(row["metric"] for row in rows):
        of = [[r for r in rows if (r["metric"], r["n"], r["early"]) == (metric, *design)] for design in designs]
        lines.append(f"| {metric} | " + " | ".join(map(cell, of)) + " |")
    return "\n".join(lines) + "\n"


def _rate(field: str, count: str, side: int) -> Callable[[Sequence[Row]], str]:
    def cell(rows: Sequence[Row]) -> str:
        rates = [row[field][side] for row in rows if row[count]]
        if not rates:
            return ""
        top = max(rates)
        size = next(row[count] for row in rows if row[field][side] == top)
        return f"{100 * np.mean(rates):.1f} ({100 * top:.1f} ± {100 * np.sqrt(top * (1 - top) / size):.1f})"

    return cell


def _worst(side: int) -> Callable[[Sequence[Row]], str]:
    def cell(rows: Sequence[Row]) -> str:
        rate, name = max(row["worst"][side] for row in rows)
        return f"{100 * rate:.1f} {name}"

    return cell


def _coverage(mean: str, least: str) -> Callable[[Sequence[Row]], str]:
    def cell(rows: Sequence[Row]) -> str:
        rows = [row for row in rows if mean in row]
        if not rows:
            return "–"
        return f"{100 * np.mean([r[mean] for r in rows]):.1f} ({100 * min(r[least] for r in rows):.1f})"

    return cell


def _power(level: int) -> Callable[[Sequence[Row]], str]:
    def cell(rows: Sequence[Row]) -> str:
        found: NDArray[np.float64] = np.array([row["power"] for row in rows if "power" in row])
        return " ".join(f"{100 * share:.0f}" for share in found.mean(0)[:, level]) if len(found) else ""

    return cell


def tables(rows: Sequence[Row]) -> str:
    """All tables of the rows."""
    shown = "mean over tasks (worst task ± standard error), %"
    away = " / ".join(f"{100 * x:.0f}" for x in AWAY)
    parts = [
        table(rows, f'**Wrong "holds", specs of {MANY} claims**: {shown}', _rate("many", "specs", 0)),
        table(rows, f'**Wrong "fails", specs of {MANY} claims**: {shown}', _rate("many", "specs", 1)),
        table(rows, f'**Wrong "holds", one claim**: {shown}', _rate("alone", "claims", 0)),
        table(rows, f'**Wrong "fails", one claim**: {shown}', _rate("alone", "claims", 1)),
        table(rows, '**Wrong "holds", the worst claim of all**', _worst(0)),
        table(rows, '**Wrong "fails", the worst claim of all**', _worst(1)),
        table(rows, "**Coverage** of 95 % intervals at the last look: mean (least), %", _coverage("coverage", "least")),
        table(rows, "**Coverage** after stopping: mean (least), %", _coverage("stopped", "stopped_least")),
        table(rows, f"**Decided, one claim**, bounds {away} % of the gap away, %", _power(0)),
        table(rows, f"**Decided, {MANY} claims**, bounds {away} % of the gap away, %", _power(1)),
    ]
    return "\n".join(parts)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples and numbers of prompts")
    parser.add_argument("--samples", type=int, default=80, help=f"of every population, in batches of {BATCH}")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--metrics", nargs="+", default=METRICS, choices=METRICS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--populations", type=Path, default=HERE)
    parser.add_argument("--templates", action="store_true", help="only verdicts on other templates")
    parser.add_argument("--betting", action="store_true", help="only the two tests of bounded metrics")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    return parser


def main() -> None:
    """Print all tables."""
    given = arguments().parse_args()
    given.designs = QUICK if given.quick else DESIGNS
    given.samples = BATCH if given.quick else -(-given.samples // BATCH) * BATCH
    if given.templates:
        print(templates(1000, np.random.default_rng(given.seed)))
        return
    if not given.betting:
        rows = run(given)
        if given.json:
            given.json.write_text(json.dumps(rows))
        print(tables(rows))
    print(f"{margins()}\n{two_tests(given)}")


def two_tests(given: argparse.Namespace) -> str:
    """How often each of two tests excludes the true effect, of all effects on bounded metrics."""
    lines = [
        "**The true effect excluded**, mean (worst effect), %",
        "",
        "| prompts | Gaffke | betting |",
        "|---" * 3 + "|",
    ]
    cells = [load(given.populations, task, metric) for task in given.tasks for metric in ("prob_diff", "accuracy")]
    rng = np.random.default_rng(given.seed)
    for n in (64, 256, 1024):
        found = [tests_of(p, e, 100, n, rng) for p in cells for e in range(len(p.names))]
        rates = {name: 100 * np.array([one[name] for one in found]) for name in ("Gaffke", "betting")}
        lines.append(
            f"| {n} | " + " | ".join(f"{rate.mean():.1f} ({rate.max():.1f})" for rate in rates.values()) + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
