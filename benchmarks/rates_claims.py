"""Claims that lie on their bounds, or just beyond, about effects whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.rates_populations import Array, Population
from circuitdsl.circuit.criteria import Exceeds, Moves, Negligible, Signed, Stronger, Test, Within
from circuitdsl.verdict.decide import _judge
from circuitdsl.verdict.families import Levels, family_levels
from circuitdsl.verdict.means import pair
from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdict.weighing import Evidence, weigh, weigh_share

Index = NDArray[np.intp]
#: the samples of a claim on some prompts, whose strata come second
Samples = Callable[[Index, Index], list[Sample]]
WRONG = ("holds", "fails")
#: forms of claims that no gap is measured for
WITHOUT_GAP = ("falls by, rises by", "share")


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim, the verdicts on it that would be wrong, and the effect on whose true value its bound lies.

    A bound at the truth itself belongs to the claim; it counts as wrong either way, as if it lay a little beyond.
    """

    form: str
    about: str
    tests: tuple[Test, ...]
    samples: Samples
    wrong: tuple[str, ...] = WRONG
    margin: float = 0.01
    share: bool = False
    effect: int | None = None

    def weigh(self, prompts: Index, strata: Index, looks: Looks) -> Evidence:
        """What verification makes of the claim on these prompts."""
        samples = self.samples(prompts, strata)
        if self.share:
            (test,) = self.tests
            assert isinstance(test, Within)
            return weigh_share(test, samples[0].array("value") > 0, strata)
        pairs = [(test, sample) for sample in samples for test in self.tests]
        return Evidence(tuple(weigh(test, sample, margin=self.margin, looks=looks) for test, sample in pairs))


def verdicts(evidence: Sequence[Evidence | None]) -> list[str]:
    """The verdicts on the claims of a spec, without the sentences and intervals beside them; None decides nothing."""
    holds = [1.0 if e is None else e.p_holds for e in evidence]
    fails = [1.0 if e is None else e.p_fails for e in evidence]
    return [verdict(e, level) for e, level in zip(evidence, family_levels(holds, fails), strict=True)]


def verdict(evidence: Evidence | None, levels: Levels) -> str:
    """As `decide.rule` has it (tests/verdict/test_rates.py)."""
    if evidence is None:
        return "undecided"
    found = [_judge(part, levels, len(evidence.parts)).verdict for part in evidence.parts]
    return next(v for v in ("fails", "error", "undecided", "holds") if v in found)


# --- what cannot be decided ---------------------------------------------------------------------------


def ratio(p: Population, e: int, prompts: Index, strata: Index) -> Ratio:
    """Effects [..., n] as they are tested."""
    return Ratio(pair(p.d[e][prompts], p.g[prompts], strata, p.range, p.shared[e]), -1 if p.falls else 1)


def ratios(p: Population, e: int, prompts: Index, strata: Index, looks: Looks) -> list[Ratio]:
    return [ratio(p, e, prompts[:, :n], strata[:n]) for n in looks.sizes]


def at_looks(figures: Sequence[Ratio], *bounds: float) -> Array:
    """One-sided p-values [2 bounds, samples, look] for "the effect is below a bound" and "above" the bound."""
    below, above = bounds[0], bounds[-1]
    return np.stack([[f.below(below), f.above(above)] for f in figures], -1)


def hopeless(p: Population, claim: Claim, prompts: Index, strata: Index, looks: Looks) -> NDArray[np.bool_]:
    """Samples on which a claim is surely undecided, for neither side excludes the true effect at 5 %.

    It saves time. What is skipped of claims with a little room may be right; in Holm's procedure it counts for nothing.
    """
    if claim.effect is None:
        return np.zeros(len(prompts), bool)
    found = at_looks(ratios(p, claim.effect, prompts, strata, looks), p.effect(claim.effect))
    return np.asarray(2 * looks.p_value(found).min(0) > 0.05)


# --- claims ---------------------------------------------------------------------------------------------


def within(quantity: str, low: float | None, high: float | None) -> Within:
    return Within(quantity, low, high, "")  # type: ignore[arg-type]


def sample(p: Population, e: int, prompts: Index, strata: Index, other: Array | None = None) -> Sample:
    """What verification makes of an effect (verification/samples.py)."""
    rival = None if other is None else other[prompts]
    d, g = p.d[e][prompts], p.g[prompts]
    return Sample(strata, d=d, g=g, other=rival, range=p.range, falls=p.falls, shared=p.shared[e])


def moved(p: Population, d: Array, base: Array, prompts: Index, strata: Index) -> Sample:
    """A change under a condition, which no gap is compared with."""
    return Sample(strata, d=d[prompts], range=p.range, size=p.gap)


def value(p: Population, y: Array, prompts: Index, strata: Index) -> Sample:
    return Sample(strata, value=y[prompts], hits=p.hits, range=p.range, size=p.gap)


def on_effects(p: Population, e: int, n: int) -> list[Claim]:
    """Claims on one effect in every form."""
    name, effect, delta, gap = p.names[e], p.effect(e), p.deltas[e], p.gap
    size = abs(effect)
    spread = float(np.std(p.d[e] - effect * p.g)) / abs(gap) / np.sqrt(n)
    near = min(0.05 * size, spread / 2)

    permuted = _rival(p, e)

    def alone(prompts: Index, strata: Index) -> list[Sample]:
        return [sample(p, e, prompts, strata)]

    def changed(prompts: Index, strata: Index) -> list[Sample]:
        return [moved(p, p.d[e], p.base[e], prompts, strata)]

    def rival(prompts: Index, strata: Index) -> list[Sample]:
        return [sample(p, e, prompts, strata, permuted)]

    def effects(form: str, *tests: Test, wrong: tuple[str, ...] = WRONG, margin: float = 0.01) -> Claim:
        return Claim(form, name, tests, alone, wrong, margin, effect=e)

    move = Moves("falls" if delta < 0 else "rises", abs(delta), "")
    sign = Signed("lowers" if delta < 0 else "raises")
    found = [
        effects("effect <=", within("effect", None, effect)),
        effects("effect >=", within("effect", effect, None)),
        effects("effect <=, false", within("effect", None, effect - near), wrong=("holds",)),
        effects("effect <=, true", within("effect", None, effect + near), wrong=("fails",)),
        effects("negligible", Negligible(), wrong=("holds",), margin=0.999 * size),
        effects("lowers, raises", sign, margin=size),
        effects("and", within("effect", None, effect), within("effect", effect - 1.0, None)),
        Claim("delta <=", name, (within("delta", None, delta),), alone),
        Claim("delta >=", name, (within("delta", delta, None),), alone),
        Claim("falls by, rises by", name, (move,), changed),
        *_shares(p, name, p.d[e]),
    ]
    if abs(p.truth(permuted) - delta) < 1e-9:
        found.append(Claim("stronger", name, (Stronger(None, ""),), rival))  # type: ignore[arg-type]
    others = sorted((f for f in range(len(p.names)) if f != e and p.effect(f) > effect), key=p.effect)[:2]
    if others:
        bound = (within("effect", effect, None),)
        parts = [e, *others]
        found.append(Claim("each", name, bound, lambda i, s: [sample(p, f, i, s) for f in parts]))
    alike = [f for f in range(len(p.names)) if f != e and p.shared[f] == p.shared[e]]
    if stronger := [f for f in alike if 0 < delta / p.deltas[f] <= 1]:
        scaled = p.d[stronger[0]] * delta / p.deltas[stronger[0]]
        rivals = (Stronger(None, ""),)  # type: ignore[arg-type]
        found.append(Claim("stronger, scaled", name, rivals, lambda i, s: [sample(p, e, i, s, scaled)]))
    return found


def _rival(p: Population, e: int) -> Array:
    """The same change on other prompts of the same stratum; not quite the same where the metric cannot go so far."""
    d, base = p.d[e], p.base[e]
    moved = np.clip(base + d[p.permuted(e, base if p.hits else np.zeros(len(d)))], *p.range) - base
    factor = p.deltas[e] / p.truth(moved)
    return np.asarray(moved * factor if np.abs(moved * factor).max() <= p.span and abs(factor) < 1.02 else moved)


def _shares(p: Population, name: str, y: Array) -> list[Claim]:
    """That nine in ten prompts have a property, where as many have."""
    hits = (y > np.quantile(y, 0.1)).astype(float)
    true = p.truth(hits)
    test = within("value", true, None)
    one = Claim("share", name, (test,), lambda i, s: [Sample(s, value=hits[i], hits=True)], share=True)
    return [one] if 0.5 < true < 0.99 else []


def on_values(p: Population, v: int) -> list[Claim]:
    """Claims on a figure that is measured as it is."""
    y, name = p.values[v], f"value {v}"
    true = p.truth(y)

    def alone(prompts: Index, strata: Index) -> list[Sample]:
        return [value(p, y, prompts, strata)]

    found = [
        Claim("value >=", name, (within("value", true, None),), alone),
        Claim("value <=", name, (within("value", None, true),), alone),
    ]
    if p.metric == "attention":
        other = p.values[v - 1]
        by = p.truth(y - other)
        move = (Moves("falls" if by < 0 else "rises", abs(by), ""),)
        found.append(Claim("falls by, rises by", name, move, lambda i, s: [moved(p, y - other, other, i, s)]))
        found += _shares(p, name, y)
        if 0.01 < p.truth(other) < true:
            times = true / p.truth(other)
            exceeds, d = (Exceeds("delta", 0.0, None, "", True, times),), y - times * other
            more = Claim("> by times", name, exceeds, lambda i, s: [Sample(s, d=d[i], range=(0.0, times), size=p.gap)])
            found.append(more)
    return found


def claims(p: Population, n: int, most: int, seed: int = 0) -> list[Claim]:
    """Some claims on a population, on every figure and in every form; effects known by name in all forms."""
    rng = np.random.default_rng(seed)
    if p.about == "values":
        found = [claim for v in range(len(p.values)) for claim in on_values(p, v)]
        found += [claim for e in range(len(p.names)) for claim in on_effects(p, e, n) if claim.form in WITHOUT_GAP]
        return [found[i] for i in rng.permutation(len(found))][:most]
    of = [[c for c in on_effects(p, e, n) if c.form not in WITHOUT_GAP] for e in range(len(p.names))]
    chosen = list(of[0]) if p.task == "ioi" else []
    turn = int(rng.integers(100))
    while len(chosen) < most:
        here = of[turn % len(of)]
        chosen.append(here[(turn + turn // len(of)) % len(here)])
        turn += 1
    return chosen
