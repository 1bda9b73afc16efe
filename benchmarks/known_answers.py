"""Whether verdicts are right where the answer is known: hand-set and random-weight models, and the tables of both.

    OMP_NUM_THREADS=1 python -m benchmarks.known_answers            # half an hour
    OMP_NUM_THREADS=1 python -m benchmarks.known_answers --quick    # some minutes

The models, their prompts, and how it is known what is true of them, are in tests/known_answers. Every spec goes the
whole way: text, resolution, patching, intervals, nulls, Holm's procedure.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from pathlib import Path

from scipy import stats

from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.report.report import ClaimResult
from circuitdsl.verify.prompts import scored_prompts
from tests.known_answers.hand_set import MODELS
from tests.known_answers.hand_set_claims import DESIGNS, PROMPTS, Population, claims, on_the_bound, spec
from tests.known_answers.hand_set_features import (
    Features,
    claims_on,
    designed,
    mistaken,
    random_subjects,
    tallied,
)
from tests.known_answers.hand_set_runs import Tally, known, run_specs, sample_bench, verified
from tests.known_answers.random_models import matters_claims, matters_spec, random_model, random_task

RANDOM_MODELS = 10


def between(hits: int, n: int) -> str:
    """A share in percent with the 95 % interval of Clopper and Pearson."""
    low = 0.0 if hits == 0 else stats.beta.ppf(0.025, hits, n - hits + 1)
    high = 1.0 if hits == n else stats.beta.ppf(0.975, hits + 1, n - hits)
    return f"{hits} of {n}: {100 * hits / n:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


def table_claims(populations: dict[str, Population], samples: int) -> None:
    """Claims that hold, by model and by what is true or false about them."""
    tallies = {}
    for kind, whole in populations.items():
        found = claims(whole, DESIGNS[kind])
        tallies[kind] = run_specs(whole, found, range(1, samples + 1))
        for claim, why in tallies[kind].wrong:
            print(f"<!-- {kind}: wrong: {claim.line}: {why} -->", flush=True)
        for claim, why in tallies[kind].missed:
            print(f"<!-- {kind}: missed: {claim.line}: {why} -->", flush=True)
    for true, title in ((True, "True claims that hold"), (False, "False claims that hold")):
        kinds = sorted({k for tally in tallies.values() for k in tally.kinds(true)})
        print(f"\n{title}, {samples} samples of {PROMPTS} prompts, 20 claims to a spec\n")
        print("| model | " + " | ".join(kinds) + " | all |\n|---|" + "---|" * (len(kinds) + 1))
        for kind, tally in tallies.items():
            cells = [_cell(*tally.share(true, k)) for k in [*kinds, None]]
            print(f"| {kind} | " + " | ".join(cells) + " |")
        hits, n = (sum(column) for column in zip(*(t.share(true) for t in tallies.values()), strict=True))
        print(f"\nAll models: {between(hits, n)}", flush=True)


def _cell(hits: int, n: int) -> str:
    return f"{hits} / {n}" if n else ""


def table_family(populations: dict[str, Population], samples: int) -> None:
    """Specs with any claim that holds though its bound is exactly the population's figure."""
    print('\nSpecs with a wrong "holds" when every claim is exactly on its bound (at most 2.5 % is meant)\n')
    print(f"| model | claims | strata | specs with a wrong holds, of {samples} |\n|---|---|---|---|")
    total = [0, 0]
    for (kind, whole), balanced in itertools.product(populations.items(), (True, False)):
        part = on_the_bound(whole, DESIGNS[kind])
        tally = Tally()
        text = spec(whole.model.name, part)
        wrong = 0
        for seed in range(samples):
            wrong += tally.add(part, verified(text, sample_bench(whole, 1000 + seed, balanced=balanced)))
        total = [total[0] + wrong, total[1] + samples]
        how = "in turn" if balanced else "by chance"
        print(f"| {kind} | {len(part)} | {how} | {between(wrong, samples)} |", flush=True)
    print(f"\nAll: {between(*total)}", flush=True)


def table_random(path: Path, number: int) -> None:
    """`matters` claims on random edges, groups and knock-outs of models with random weights."""
    size = 20
    found: list[ClaimResult] = []
    for i in range(number // size):
        if i % max(1, number // size // RANDOM_MODELS) == 0:
            model = random_model(path, i)
            lines = matters_claims(i)
        text = matters_spec(model, lines, size, 128)
        found += verified(text, scored_prompts(model, random_task(model, 128, i), Metric())).claims
    print(f"\nClaims that random parts of {RANDOM_MODELS} random-weight models matter (128 prompts, 20 to a spec)\n")
    print("| claims about | hold | fail | undecided, null too small | undecided otherwise |\n|---|---|---|---|---|")
    for name, part in (
        ("one sender", [c for c in found if not _is_group(c.text)]),
        ("groups", [c for c in found if _is_group(c.text)]),
        ("all", found),
    ):
        small = sum(c.verdict == "undecided" and c.null is not None and c.null.size < 19 for c in part)
        count = {v: sum(c.verdict == v for c in part) for v in ("holds", "fails", "undecided")}
        cells = [between(count["holds"], len(part)), count["fails"], small, count["undecided"] - small]
        print(f"| {name} | " + " | ".join(map(str, cells)) + " |", flush=True)


def _is_group(text: str) -> bool:
    """Whether a claim of `random_models.py` is about several senders or nodes."""
    return "g_" in text or ("out_" in text and "out_1_" not in text)


def table_features(path: Path, population: int, samples: int, number: int) -> None:
    """Claims about features whose meaning is a fact, and false ones about random features."""
    whole, draw = Features(path, population), random.Random(0)
    true = tallied(whole, claims_on(whole, designed(whole)), range(1, samples + 1))
    subjects = list(random_subjects(whole, number, draw))
    false = [claim for claim in claims_on(whole, subjects) if not claim.true]
    tally = tallied(whole, [*false, *mistaken(whole, subjects, draw)], range(1, samples + 1))
    for claim, why in (*true.wrong, *true.missed, *tally.wrong):
        print(f"<!-- {claim.line}: {why} -->", flush=True)
    print(f"\nClaims about known features, {samples} samples of {PROMPTS} prompts, 30 claims to a spec\n")
    print("| claims | hold |\n|---|---|")
    for name, found, is_true in (("true", true, True), ("false, of the same features", true, False)):
        print(f"| {name} | {between(*found.share(is_true))} |")
    for kind in tally.kinds(False):
        print(f"| false, of {number} random subjects: {kind} | {between(*tally.share(False, kind))} |")
    print(f"\nFalse ones: {between(*(a + b for a, b in zip(true.share(False), tally.share(False), strict=True)))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one sample for each model, 200 random claims")
    parser.add_argument("--only", choices=("claims", "family", "random", "features"), help="one table")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--population", type=int, default=1024, help="prompts over which figures are true")
    parser.add_argument("--samples", type=int, default=4, help="samples on which each claim is verified")
    parser.add_argument("--families", type=int, default=100, help="samples on which the claims on bounds are verified")
    parser.add_argument("--random", type=int, default=1000, help="claims about random-weight models")
    parser.add_argument(
        "--subjects", type=int, default=200, help="random features, readers and positions to be wrong about"
    )
    args = parser.parse_args()
    if args.quick:
        args.population, args.samples, args.families, args.random, args.subjects = 256, 1, 10, 200, 20
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        if args.only not in ("random", "features"):
            populations = {kind: known(kind, path, args.population) for kind in args.models}
        if args.only in (None, "claims"):
            table_claims(populations, args.samples)
        if args.only in (None, "family"):
            table_family(populations, args.families)
        if args.only in (None, "random"):
            table_random(path, args.random)
        if args.only in (None, "features"):
            table_features(path, args.population, args.samples, args.subjects)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
