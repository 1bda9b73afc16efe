"""The battery of tests that every kind of measurement passes (see `circuitdsl.testing.check_measurement`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import cast

from circuitdsl.api import Spec, dumps, loads
from circuitdsl.circuit.claims import Circuit, Claim, membership
from circuitdsl.circuit.measurement import Measurement
from circuitdsl.engine.named import function_of
from circuitdsl.language.parse import parse
from circuitdsl.measurements import KINDS
from circuitdsl.measurements.kind import Kind, kind_of
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.plan import RANDOM
from circuitdsl.measurements.property import property_of
from circuitdsl.report.report import VERDICTS, ClaimResult, Report
from circuitdsl.testing.falsify import falsify
from circuitdsl.testing.mutants import mutants
from circuitdsl.verify.plan import claim_plan, shape_of
from circuitdsl.verify.session import Session

#: what stands around a kind's examples
AROUND = """\
circuit other
model "pocket"
task ioi(corrupt = abc, prompts = 64)
heads some = 0.3 0.5 at END

circuit battery
model "pocket"
task ioi(corrupt = abc, prompts = 64)
heads some = 0.3 0.5 at END
heads first = 0.0 at END
heads mover = 2.4 2.5 at END
heads induction = 1.0 at END
dictionary t1 = transcoder("pocket/transcoders/1")
"""
#: prompts that a search for a counterexample looks at here
BUDGET = 5
#: holds the embedded model, which is loaded once for all kinds
session = cache(lambda: Session(device="cpu", cache=False))


def check(kind: type[Measurement]) -> None:
    """What `circuitdsl.testing.check_measurement` does."""
    assert issubclass(kind, Kind), f"{kind.__name__} is no subclass of Kind"
    assert kind.names() or kind.statement, f"{kind.__name__} has neither a word nor a statement of its own"
    for word in kind.words:
        assert KINDS.word(word) is kind, f"the word {word} belongs to {KINDS.word(word)}: register {kind.__name__}"
    if kind.statement:
        assert kind in KINDS, f"{kind.__name__} stands in no list of kinds"
    else:
        assert kind.usage, f"{kind.__name__} does not say how it is written (`usage`)"
    assert kind.examples and kind.false_examples, f"{kind.__name__} has no examples, or no false ones"
    for line in (*kind.examples, *kind.false_examples):
        _reads(line)
    spec = _spec("\n".join(_lines(kind)))
    circuit = spec.circuit("battery")
    claims = [claim for claim in circuit.claims if claim.under is None]
    true, false = claims[: len(kind.examples)], claims[len(kind.examples) :][: len(kind.false_examples)]
    with session():
        for claim in circuit.claims:
            _plans(circuit, claim)
        _reports(kind, circuit, false, cast(Report, session().verify(spec, "battery")))
        for claim in (*true, *false) if kind.per_prompt else ():
            _falsifies(circuit, claim)
        _mutates(spec, circuit)


def _spec(text: str) -> Spec:
    return loads(f"{AROUND}{text}\n", "battery.circ")


def _lines(kind: type[Kind]) -> Iterator[str]:
    """All true and false examples; then the true ones under a condition, on a changed model, and in a property."""
    yield from (*kind.examples, *kind.false_examples)
    for number, line in enumerate(kind.examples):
        if kind.under_condition:
            yield f"when first is knocked out\n  {line}"
        if kind.under_condition and kind.not_on_changed_model is None:
            yield f"intervention change{number}\n  replace first with zero\n  {line}"
        if kind.per_prompt and "above chance" not in line:
            yield f'property "{number}"\n  {line}'


def _reads(line: str) -> None:
    """A line has no errors, means the same in the canonical layout, and brings a warning where it stands twice."""
    spec = _spec(line)
    assert spec.ok, f"{line}: {spec.problems}"
    again = loads(dumps(spec), spec.path)
    assert again == spec, f"{line}: it means something else once it is formatted"
    (claim,) = spec.circuit("battery").claims
    (same,) = again.circuit("battery").claims
    assert hash(claim) == hash(same) and claim.measurement.subject == same.measurement.subject, f"{line}: not hashable"
    twice = {found.code for found in _spec(f"{line}\n{line}").diagnostics}
    assert "W001" in twice, f"{line}: nobody is warned where it stands twice"


def _plans(circuit: Circuit, claim: Claim) -> None:
    """What a claim asks of the prompts are records that can be hashed and name a reader, a figure and positions."""
    kind = kind_of(claim)
    if kind.decided_by in ("weights", "text"):
        assert callable(function_of(kind.judge)), f"{claim.text}: {kind.judge} is no function"
        return
    if kind.decided_by == "own sample":
        assert kind.sample_size(1) > 0, f"{claim.text}: its own sample has no prompt"
        return
    nulls = Nulls.of(circuit, shape_of(session().model_of(circuit)))
    plan = claim_plan(claim, claim.tasks[0] if claim.tasks else RANDOM, nulls)
    assert plan == claim_plan(claim, plan.task, nulls), f"{claim.text}: two plans of it differ"
    places = {*claim.measurement.positions, *(claim.under.effect.positions if claim.under else ())}
    places |= set(membership(circuit).positions) if claim.measurement.of_whole else set()
    for request in plan.asked:
        assert hash(request) == hash(request) and repr(request), f"{claim.text}: {request} is not hashable"
        reader = request.reader if request.needs_runs else f"{request.hooks}:of_prompts"
        assert callable(function_of(reader)), f"{claim.text}: {reader} is no function"
        figure = request.figure(circuit.metric)
        assert figure.name and figure.low < figure.high, f"{claim.text}: its figure has no name, or no range"
        assert set(request.positions) <= places, f"{claim.text}: positions it does not name"
    protocol = kind.protocol_of(plan)
    assert protocol and all(isinstance(value, str) for value in protocol.values()), f"{claim.text}: protocol"


def _reports(kind: type[Kind], circuit: Circuit, false: Iterable[Claim], report: Report) -> None:
    """Every claim has a verdict, false ones do not hold, and the report is the same after JSON."""
    found: dict[str, list[ClaimResult]] = {}
    for result in report.claims:
        found.setdefault(result.id, []).append(result)
    for claim in circuit.claims:
        for result in found[claim.id]:
            assert result.verdict in VERDICTS and result.reason, f"{claim.text}: no verdict"
            assert result.verdict != "error" or claim.under, f"{claim.text}: {result.reason}"
            assert result.protocol, f"{claim.text}: the report does not say how it was measured"
    for claim in false:
        assert all(result.verdict != "holds" for result in found[claim.id]), f"{claim.text}: it is false, and holds"
    assert Report.from_json(report.to_json()) == report, f"{kind.__name__}: its report is another once it is JSON"


def _falsifies(circuit: Circuit, claim: Claim) -> None:
    """A claim about single prompts can be searched for a counterexample."""
    if property_of(claim) is None:
        assert not claim.tests or "chance" in claim.text, f"{claim.text}: it cannot be searched for a counterexample"
        return
    search = falsify(circuit, session().model_of(circuit), claim, claim.tasks[0], budget=BUDGET)
    assert search.tried, f"{claim.text}: no prompt was looked at"


def _mutates(spec: Spec, circuit: Circuit) -> None:
    """Every mutant is a spec, or is refused with a diagnostic."""
    file, _ = parse(spec.text, spec.path)
    model = session().model_of(circuit)
    for mutant in mutants(file, [circuit], (model.n_layers, model.n_heads), lambda place: "S2"):
        read = loads(mutant.text, spec.path)
        assert read.circuits or read.diagnostics, f"{mutant.after}: neither a spec nor refused"
