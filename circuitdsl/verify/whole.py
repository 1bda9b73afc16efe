"""Claims about the whole circuit: weighed, and written down with the protocol that their figures depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from circuitdsl.circuit.catalogue import ModelShape
from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.criteria import Test, Within
from circuitdsl.circuit.measurements import WholeCircuit
from circuitdsl.circuit.membership import membership
from circuitdsl.engine.metrics import unit
from circuitdsl.errors import UserError
from circuitdsl.measurements.requests import Request, Subgraph, positions_of
from circuitdsl.report.numbers import percent
from circuitdsl.report.report import Detail, Measured, MeasurementResult
from circuitdsl.verdict.decide import Decision, rule
from circuitdsl.verdict.families import FAMILY
from circuitdsl.verdict.ratios import intervals
from circuitdsl.verdict.reasons import too_few
from circuitdsl.verdict.samples import Sample, effect_of
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdict.strata import SMALL
from circuitdsl.verdict.weighing import NULL_PROMPTS, Evidence, unmeasured, weigh, weigh_extreme
from circuitdsl.verify.bench import Bench, Series, measure, present
from circuitdsl.verify.kept import kept_share
from circuitdsl.verify.plan import ClaimPlan, Part, shape_of, whole_plan
from circuitdsl.verify.samples import sample_of

Found = Mapping[Request, Series]

#: prompts on which `--full` takes what needs many runs
FULL_PROMPTS = 64
#: circuits whose scores differ by less than so many roundings of the gap's square are tied
ROUNDED = 8
#: of what can be ablated; a circuit that keeps more of it is nearly the model
NEARLY_ALL = 0.9
ALL = ("faithfulness", "incompleteness", "minimality", "sufficiency")


# --- weighing ---------------------------------------------------------------------------------------


def weigh_whole(
    plan: ClaimPlan,
    bench: Bench,
    found: Found,
    looks: Looks,
    wins: np.ndarray | None,
    *,
    templates: bool = False,
) -> Evidence:
    """Weigh a claim that has rivals or is about the largest of many figures.

    Args:
        wins: whether the circuit did better than each rival on the first prompts (see `won`).
        templates: whether the verdict is about prompts from other templates; that on rivals is about circuits alone.
    """
    test = _bounds(plan.claim.tests)
    if not plan.extremes:
        return _weigh_wins(test, plan.parts[0], found, wins)
    samples = [sample_of(bench, part, found) for part in plan.parts]
    sets = [[samples[i] for i in one] for one in plan.extremes]
    return weigh_extreme(test, sets, name=_name(plan.claim.measurement), looks=looks, templates=templates)


def _bounds(tests: tuple[Test, ...]) -> Within:
    (test,) = tests
    assert isinstance(test, Within)
    return test


def _name(measurement: object) -> str:
    assert isinstance(measurement, WholeCircuit)
    return "|F(M) − F(C)|" if measurement.form == "wang" else measurement.name


def _weigh_wins(test: Within, part: Part, found: Found, wins: np.ndarray | None) -> Evidence:
    """The share of circuits of this shape that the circuit is better than, from a random sample of them.

    The rivals are independent draws, the prompts are fixed: hits and misses are binomial, and what the verdict says is
    about circuits on these prompts.
    """
    if wins is None or not len(wins):
        because = "every circuit of this shape is this one: there is none to compare it with"
        return unmeasured(test, because)
    n = min(NULL_PROMPTS, len(found[part.request].values))
    sample = Sample(np.zeros(len(wins)), value=wins, name="sufficiency", unit="percent", hits=True)
    weighed = weigh(test, sample)
    if n < SMALL:
        weighed = replace(weighed, forced="undecided", because=too_few(n, SMALL))
    return Evidence((weighed,))


def won(part: Part, bench: Bench, found: Found, indices: np.ndarray) -> np.ndarray:
    """Whether the circuit is closer to the model than each rival, by the score of Shi et al. 2024: E[(m(M) - m(C))^2].

    A tie is no win, nor is what rounding may have made of one.
    """
    clean, corrupt = bench.clean[indices], bench.corrupt[indices]
    rounding = ROUNDED * torch.finfo(bench.model.dtype).eps * float(np.mean((clean - corrupt) ** 2))

    def loss(request: Request) -> float:
        return float(np.mean((found[request].values - clean) ** 2))

    own = loss(part.request) + rounding
    return np.asarray([own < loss(rival) for rival in part.peers], bool)


# --- what the report records ------------------------------------------------------------------------


def protocol(plan: ClaimPlan) -> dict[str, str]:
    """Everything that a figure of a whole circuit depends on."""
    how, kept = plan.claim.measurement, plan.parts[0].request
    assert isinstance(how, WholeCircuit) and isinstance(kept, Subgraph)
    said: dict[str, str] = {"keep": how.keep, "ablate": how.ablate, "positions": how.positions}
    if how.name == "faithfulness":
        said["form"] = how.form
    said["mlps"] = "ablated unless kept" if kept.mlps else "live"
    if how.name in ("incompleteness", "minimality"):
        said["subsets"] = str(len(plan.parts))
    if how.name == "sufficiency":
        said |= {"circuits": str(len(plan.parts[0].peers)), "prompts": f"the first {NULL_PROMPTS}"}
    return said


def kept(plan: ClaimPlan, bench: Bench) -> dict[str, float] | None:
    """What share of the nodes (or edges) that can be ablated the circuit keeps, on all prompts with its positions."""
    if plan.circuit is None:
        return None
    here = present(bench, plan.circuit, np.arange(len(bench.pairs)))
    pairs = [bench.pairs[i] for i in np.flatnonzero(here)]
    return {plan.circuit.keep: kept_share(plan.circuit, shape_of(bench.model), pairs)} if pairs else None


def warnings(plan: ClaimPlan, shares: Mapping[str, float] | None) -> tuple[str, ...]:
    """A warning where a circuit keeps so much that a figure says little of it."""
    how, circuit = plan.claim.measurement, plan.circuit
    if not shares or circuit is None or (share := shares[circuit.keep]) <= NEARLY_ALL:
        return ()
    assert isinstance(how, WholeCircuit)
    what = "edges" if circuit.keep == "edges" else f"heads{' and MLPs' * circuit.mlps} at their positions"
    says = "nothing" if share == 1 else "little"
    return (f"the circuit keeps {percent(share)} of the model's {what}: {how.name} says {says} of it",)


def reason(plan: ClaimPlan, decision: Decision) -> str:
    """The reason of a decision; of sufficiency with what it was compared with."""
    rivals = plan.parts[0].peers
    if not rivals or decision.verdict == "error":
        return decision.reason
    beaten = "" if decision.value is None else f"closer to the model than {round(decision.value * len(rivals))} of "
    return f"{decision.reason}; {beaten}{len(rivals)} random circuits of its shape, on the first {NULL_PROMPTS} prompts"


def measured(plan: ClaimPlan, decision: Decision, found: Found, bench: Bench) -> Measured | None:
    """The figure of a decision. Median and quartiles are those over prompts, shares being of the mean gap."""
    if decision.value is None or not np.isfinite(decision.value):
        return None
    part = next((p for p in plan.parts if p.label == decision.label), plan.parts[0])
    wang = getattr(plan.claim.measurement, "form", "") == "wang"
    own = Measured(
        name=decision.name,
        value=decision.value,
        ci=decision.ci,
        ci_used=decision.ci_used,
        n=decision.n,
        unit=unit(bench.metric) if wang else "share" if part.peers else "gap",
        delta=None if part.peers else decision.delta,
        named=wang,
    )
    if part.peers:
        return replace(own, n=min(NULL_PROMPTS, len(found[part.request].values)))
    sample = sample_of(bench, part, found)
    spread = sample.array("d") if wang else sample.array("d") / float(np.mean(sample.array("g")))
    low, median, high = (float(q) for q in np.quantile(spread, (0.25, 0.5, 0.75)))
    return replace(own, median=median, iqr=(low, high))


def details(plan: ClaimPlan, found: Found, bench: Bench) -> tuple[Detail, ...]:
    """What the figure is the largest (or smallest) of: for each set of parts the one with the largest size.

    For incompleteness, which has one set, every part. None without a gap to take shares of.
    """
    if len(plan.parts) == 1 or any(request not in found for request in plan.requests):
        return ()
    samples = [sample_of(bench, part, found) for part in plan.parts]
    if samples[0].n < 2 or effect_of(samples[0]).unclear > FAMILY / 2:
        return ()
    effects = [float(np.mean(s.array("d")) / np.mean(s.array("g"))) for s in samples]
    if len(plan.extremes) == 1:
        shown = list(plan.extremes[0])
    else:
        shown = [max(one, key=lambda i: abs(effects[i])) for one in plan.extremes]
    limits = intervals([(effect_of(samples[i]), FAMILY) for i in shown])
    return tuple(Detail(plan.parts[i].label, effects[i], ci) for i, ci in zip(shown, limits, strict=True))


# --- measurements without a claim -------------------------------------------------------------------


def full(circuit: Circuit, shape: ModelShape, benches: Mapping[str, Bench]) -> tuple[MeasurementResult, ...]:
    """All measurements of the whole circuit on every task, by their default protocol; nothing is claimed of them."""
    whole = membership(circuit)
    if not whole.sites or any(site.node.index >= 0 for site in whole.sites):
        return ()
    found = []
    for task, bench in ((use.name, benches[use.name]) for use in circuit.tasks if use.name in benches):
        for name in ALL:
            quantity = "value" if name == "sufficiency" else "effect"
            claim = Claim(
                id=name,
                line=0,
                text=name,
                kind="expect",
                measurement=WholeCircuit(name),  # type: ignore[arg-type]
                tests=(Within(quantity, None, None, ""),),  # type: ignore[arg-type]
                each=False,
                margin=circuit.margin,
                tasks=(task,),
            )
            found.append(_full(whole_plan(claim, task, WholeCircuit(name), circuit, shape), bench))  # type: ignore[arg-type]
    return tuple(found)


def _full(plan: ClaimPlan, bench: Bench) -> MeasurementResult:
    name = plan.claim.id
    blank = MeasurementResult(name, plan.task, protocol(plan))
    everything = np.arange(len(bench.pairs))
    requests = {frozenset(positions_of(request)): request for request in plan.requests}.values()
    indices = np.flatnonzero(np.logical_and.reduce([present(bench, request, everything) for request in requests]))
    if not len(indices):
        return replace(blank, reason=f"no prompt of {plan.task} has all of the circuit's positions")
    indices = indices if name == "faithfulness" else indices[:FULL_PROMPTS]
    try:
        series = measure(bench, plan.requests, indices)
        wins = None
        part = plan.parts[0]
        if name == "sufficiency":
            few = indices[:NULL_PROMPTS]
            wins = won(part, bench, measure(bench, [part.request, *part.peers], few), few)
    except UserError as error:
        return replace(blank, reason=error.message)
    looks = Looks((len(indices),))
    if plan.extremes or name == "sufficiency":
        evidence = weigh_whole(plan, bench, series, looks, wins)
    else:
        test = _bounds(plan.claim.tests)
        evidence = Evidence((weigh(test, sample_of(bench, part, series), looks=looks),))
    decision = rule(evidence)
    figure = measured(plan, decision, series, bench)
    shares = kept(plan, bench)
    return replace(
        blank,
        kept=shares,
        notes=warnings(plan, shares),
        measured=figure,
        details=details(plan, series, bench),
        reason="" if figure else decision.reason,
    )
