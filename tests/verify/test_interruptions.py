"""Ctrl-C at any time: the report has what was measured by then, and says that it is not all."""

from __future__ import annotations

import json
from contextlib import closing
from functools import partial
from pathlib import Path

import jsonschema
import pytest

from circuitdsl import cli
from circuitdsl.api import loads
from circuitdsl.cli.terminal import console
from circuitdsl.report.github import of_reports
from circuitdsl.report.terminal import show
from circuitdsl.verify import prompts
from circuitdsl.verify import verify as verification
from circuitdsl.verify.per_prompt import PerPrompt
from circuitdsl.verify.prompts import prompts_by_task
from circuitdsl.verify.session import Options
from circuitdsl.verify.store import Store
from circuitdsl.verify.verify import verify
from tests.conftest import ROOT
from tests.schema import schema

MORE = """
heads reader = 2.4 2.5 at END role mover
each early -> m0 at S2 : lowers and effect >= -90%
expect role(reader)
expect minimality >= 1%
expect sufficiency >= 10%
circuit other
model "pocket"
heads reader = 2.4 at END
compare everything with other
  expect overlap >= 1%
"""
#: a claim of every kind
SPEC = (ROOT / "tests" / "fixtures" / "measured.circ").read_text() + MORE
SMALL = 'circuit {name}\nmodel "pocket"\ntask ioi(prompts = 40)\nexpect accuracy >= 50%\nexpect logit_diff > 0\n'


@pytest.fixture(scope="module")
def ready(pocket, tmp_path_factory):
    """A circuit and its prompts; what one test has measured, the next one finds."""
    circuit = loads(SPEC).circuits[0]
    with closing(Store(tmp_path_factory.mktemp("known") / "results.sqlite", warn=print)) as store:
        yield circuit, prompts_by_task(circuit, pocket, store)


def stopped(monkeypatch, after: int, of: object = verification, name: str = "weigh_plan") -> None:
    """Ctrl-C arrives when a function has been called so many times."""
    calls, original = iter(range(after)), getattr(of, name)

    def function(*arguments, **options):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(of, name, function)


@pytest.mark.parametrize("after", [0, 1, 11, 20, 25])
def test_claims_of_every_kind_may_be_missing(ready, pocket, monkeypatch, capsys, after: int) -> None:
    circuit, benches = ready
    kinds = {type(claim.measurement).__name__ for claim in circuit.claims}
    assert {"RoleChecks", "Tracing", "Property", "Composition", "Overlapping", "WholeCircuit"} <= kinds
    table = PerPrompt()
    stopped(monkeypatch, after)
    report = verify(circuit, pocket, benches, Options(), records=[partial(table.record, circuit.name)])
    assert report.interrupted
    assert [claim.id for claim in report.claims] == [claim.id for claim in circuit.claims]
    missing = [claim for claim in report.claims if claim.missed]
    assert len(missing) == sum(claim.kind not in ("channel", "compare") for claim in circuit.claims) - after
    assert all(claim.measured is None and claim.null is None for claim in missing)
    jsonschema.validate(report.to_json(), schema())
    assert "interrupted" in report._repr_html_()
    assert len(list(of_reports([report]))) <= 1 + len(report.claims) - len(missing)
    for verbose in (False, True):
        show(report, console(plain=True), verbose)
        out = capsys.readouterr().out
        assert f"interrupted: {len(missing)} of {len(report.claims)} claims were not measured" in out
        assert all(claim.text in out for claim in report.claims if not claim.missed)
    assert repr(report).endswith(f"{len(missing)} not measured (interrupted)>")


def test_tasks_beside_each_other_list_what_was_measured(pocket, monkeypatch, capsys) -> None:
    text = SMALL.format(name="t") + "task other = ioi(prompts = 40, seed = 5)\nheads a = 0.0 at END\n"
    circuit = loads(text + "expect knockout(a) : effect >= -90% on ioi, other\n").circuits[0]
    benches = prompts_by_task(circuit, pocket)
    stopped(monkeypatch, 1)
    report = verify(circuit, pocket, benches)
    show(report, console(plain=True))
    out = capsys.readouterr().out
    missing = sum(claim.missed for claim in report.claims)
    assert f"interrupted: {missing} of {len(report.claims)} claims × tasks were not measured" in out
    assert "not measured" not in out.split("interrupted:")[0]
    assert "knockout" not in out


# --- on the command line ---------------------------------------------------------------------------


def main(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.leave(arguments)
    said = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, said.out, said.err


@pytest.fixture
def specs(tmp_path: Path) -> list[str]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.circ").write_text(SMALL.format(name=name))
    return [str(tmp_path / "a.circ"), str(tmp_path / "b.circ")]


def test_before_anything_is_measured_one_line_says_so(specs, monkeypatch, capsys) -> None:
    stopped(monkeypatch, 0, prompts, "prompts_by_task")
    assert main(capsys, "verify", specs[0]) == (130, "", "interrupted\n")


def test_between_two_circuits_the_first_is_reported(specs, monkeypatch, capsys) -> None:
    stopped(monkeypatch, 1, prompts, "prompts_by_task")
    status, out, err = main(capsys, "verify", *specs)
    assert (status, err) == (130, "interrupted\n")
    assert "2 claims: 2 hold " in out


def test_the_line_beside_a_file_says_that_it_is_not_all(specs, monkeypatch, capsys, tmp_path) -> None:
    stopped(monkeypatch, 1)
    target = tmp_path / "r.json"
    status, out, err = main(capsys, "verify", specs[0], "-o", str(target))
    assert (status, out) == (130, "")
    assert "\na: 2 claims: 1 holds, 1 not measured (interrupted) " in err
    assert json.loads(target.read_text())["interrupted"]


def test_during_other_corruptions_the_report_stays(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "m.circ").write_text(SMALL.format(name="m") + "m3 -> logits at END : matters\n")
    stopped(monkeypatch, 1, prompts, "make_prompts")
    status, out, _ = main(capsys, "verify", str(tmp_path / "m.circ"), "--other-corruptions")
    assert status == 130
    assert "3 claims: " in out and ", interrupted " in out
