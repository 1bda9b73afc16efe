"""Specs verified on samples of a population, the whole way from text to verdicts, and what came out counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from circuitdsl.api import loads
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.prompts import Prompts
from circuitdsl.models.load import load_model
from circuitdsl.report.report import Report
from circuitdsl.verify.prompts import scored_prompts
from circuitdsl.verify.session import Options
from circuitdsl.verify.verify import verify
from tests.known_answers.hand_set import save_hand_set
from tests.known_answers.hand_set_claims import DESIGNS, PROMPTS, KnownClaim, Population, spec
from tests.known_answers.hand_set_tasks import draw_indices, population, sampled


def known(kind: str, path: Path, size: int, seed: int = 0) -> Population:
    """A hand-set model, saved under `path` and loaded from there, on a population of prompts."""
    model = load_model(save_hand_set(kind, path / kind, seed), device="cpu")
    task = DESIGNS[kind].task if kind in DESIGNS else "repeated_name"
    return Population(model, population(task, size))


def sample_bench(
    whole: Population, seed: int, n: int = PROMPTS, balanced: bool = True, metric: Metric | None = None
) -> Prompts:
    """A sample of prompts, ready to be measured."""
    indices = draw_indices(len(whole.data.pairs), n, seed, balanced)
    return scored_prompts(whole.model, sampled(whole.data, indices, seed), metric or Metric())


def verified(text: str, where: Prompts, options: Options | None = None, folder: Path | None = None) -> Report:
    """The report on a spec with one task named `known`, which may lie in a folder with dictionaries."""
    found = loads(text, "<text>" if folder is None else folder / "known.circ")
    if not found.ok:
        raise ValueError("\n".join(f"{d.span.line}: {d.message}" for d in found.diagnostics) + "\n" + text)
    (circuit,) = found.circuits
    return verify(circuit, where.model, {"known": where}, options)


@dataclass
class Tally:
    """How often claims of each kind came out as each verdict, and the false ones that came out as holding."""

    verdicts: Counter[tuple[bool, str, str]] = field(default_factory=Counter)
    wrong: list[tuple[KnownClaim, str]] = field(default_factory=list)
    missed: list[tuple[KnownClaim, str]] = field(default_factory=list)

    def add(self, part: Sequence[KnownClaim], report: Report) -> bool:
        """Count the verdicts on claims in the order of their lines; whether a false one holds."""
        assert len(report.claims) == len(part), [c.text for c in report.claims]
        before = len(self.wrong)
        for claim, result in zip(part, report.claims, strict=True):
            self.verdicts[claim.true, claim.kind, result.verdict] += 1
            if (result.verdict == "holds") != claim.true:
                (self.missed if claim.true else self.wrong).append((claim, f"{result.verdict}: {result.reason}"))
        return len(self.wrong) > before

    def share(self, true: bool, kind: str | None = None) -> tuple[int, int]:
        """How many claims held, of how many."""
        counts = [(v, n) for (t, k, v), n in self.verdicts.items() if t == true and kind in (None, k)]
        return sum(n for v, n in counts if v == "holds"), sum(n for _, n in counts)

    def kinds(self, true: bool) -> list[str]:
        return sorted({k for t, k, _ in self.verdicts if t == true})


def run_specs(whole: Population, found: list[KnownClaim], seeds: Iterable[int], size: int = 20, **sampling) -> Tally:
    """Verify all claims, `size` to a spec, on one sample for each seed."""
    tally = Tally()
    for seed in seeds:
        where = sample_bench(whole, seed, **sampling)
        for start in range(0, len(found), size):
            part = found[start : start + size]
            tally.add(part, verified(spec(whole.model.name, part), where))
    return tally
