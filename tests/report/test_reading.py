"""Reports read back from their JSON: whatever is written comes back, and what is no report says where it is none."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import circuitdsl
from circuitdsl.errors import UsageError
from circuitdsl.report.report import ClaimResult, Interval, Report, Reports, as_text
from circuitdsl.verdicts import VERDICTS, Verdict
from tests.schema import schema

FIXTURES = Path(__file__).parents[1] / "fixtures"
FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4)
#: signs that the JSON spells in ASCII
REASONS = st.text("a-−%∞ [],1", max_size=12)
PLAIN: dict[Any, st.SearchStrategy] = {
    str: st.text(max_size=5),
    int: st.integers(),
    float: FINITE,
    bool: st.booleans(),
    Any: JSON,
    Verdict: st.sampled_from(VERDICTS),
    Interval: st.tuples(FINITE | st.just(-math.inf), FINITE | st.just(math.inf)),
}


def of(kind: Any) -> st.SearchStrategy:
    """Anything of a type."""
    if kind in PLAIN:
        return PLAIN[kind]
    inside = get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        parts = {f.name: REASONS if f.name == "reason" else of(hints[f.name]) for f in fields(kind)}
        return st.builds(kind, **parts)
    if get_origin(kind) in (UnionType, Union):
        return st.none() | of(inside[0])
    if get_origin(kind) is dict:
        return st.dictionaries(st.text(max_size=3), of(inside[1]), max_size=2)
    return st.lists(of(inside[0]), max_size=2).map(tuple)


REPORTS = of(Report)


@settings(max_examples=60, deadline=None)
@given(st.lists(REPORTS, min_size=1, max_size=3).map(Reports))
def test_any_reports_come_back_from_their_text(reports: Reports) -> None:
    assert Reports.from_json(as_text(reports)) == reports
    assert Report.from_json(reports[0].to_json()) == reports[0]


@pytest.mark.parametrize("name", [FIXTURES / "measured.circ", "pocket/shared"])
def test_measured_reports_come_back(pocket, name: Path | str) -> None:
    found = circuitdsl.load(name).verify(prompts=16)
    reports = Reports([found] if isinstance(found, Report) else found)
    for claim in (claim for report in reports for claim in report.claims if claim.kind == "edge" and claim.measured):
        pairs = [(member.sender, member.receiver) for member in claim.members]
        of = claim.measured.sender, claim.measured.receiver  # type: ignore[union-attr]
        assert of in pairs if len(pairs) == 1 else of in (*pairs, ("", ""))
    back = Reports.from_json(as_text(reports))
    assert back == reports
    assert as_text(back) == as_text(reports)
    for report in reports:
        jsonschema.validate(report.to_json(), schema())


def test_reports_of_earlier_versions_are_read() -> None:
    """Of all keys that are not required the default is taken."""
    needed = schema()
    claim = {"id": "c01", "line": 1, "text": "a", "kind": "edge", "task": None, "protocol": {}, "verdict": "holds"}
    claim |= {"reason": "-1%", "members": [], "null": None}
    claim["measured"] = {"name": "effect", "value": 1, "ci": None, "delta": None, "n": 3}
    model = {"name": "m", "sha256": "", "n_layers": 1, "n_heads": 1, "device": "", "dtype": "", "bos": False}
    spec = {"path": "", "circuit": "t", "sha256": ""}
    body = {"schema": 1, "circuitdsl": "0", "spec": spec, "model": model, "tasks": [], "claims": [claim]}
    body |= {"summary": {"holds": 1, "fails": 0, "undecided": 0, "error": 0}, "seconds": 1}
    jsonschema.validate(body, needed)
    report = Report.from_json(body | {"a key of a later version": 5})
    assert report.claims[0].reason == "-1%"
    assert report.claims[0].measured is not None and report.claims[0].measured.ci is None
    assert report.summary == body["summary"]


def _changed(body: dict, path: tuple, value: Any) -> dict:
    copy = inside = json.loads(json.dumps(body))
    for key in path[:-1]:
        inside = inside[key]
    if value is None:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return copy


CLAIM = ClaimResult("c01", 1, "a", "edge", None, "holds", "because")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("schema",), 2, "schema 2, this version reads schema 1"),
        (("spec",), None, 'it has no "spec"'),
        (("spec",), 3, "spec is 3, not an object"),
        (("claims", 0, "verdict"), "fine", 'claims[0].verdict is "fine", not one of "holds", "fails", '),
        (("claims", 0, "line"), "1", 'claims[0].line is "1", not a whole number'),
        (("claims", 0, "line"), True, "claims[0].line is true, not a whole number"),
        (("claims", 0, "details"), [{"name": "", "value": 0.5, "ci": [1]}], "details[0].ci is [1], not two numbers"),
        (("model", "name"), None, 'model has no "name"'),
        (("seconds",), math.inf, "seconds is Infinity, not a number"),
    ],
)
def test_what_is_no_report_says_where(path: tuple, value: Any, says: str) -> None:
    spec, model = {"path": "", "circuit": "", "sha256": ""}, {"n_layers": 1, "n_heads": 1, "bos": False}
    model |= dict.fromkeys(("name", "sha256", "device", "dtype"), "")
    body = {"schema": 1, "spec": spec, "model": model, "tasks": [], "claims": [CLAIM.to_json()], "seconds": 1.0}
    assert Report.from_json(body).claims == (CLAIM,)
    with pytest.raises(UsageError) as caught:
        Report.from_json(_changed(body, path, value))
    assert says in caught.value.message
    assert caught.value.hint == "make one with: circuitdsl verify SPEC --format json -o report.json"


@given(REPORTS)
@settings(max_examples=5, deadline=None)
def test_several_reports_are_not_one(report: Report) -> None:
    with pytest.raises(UsageError, match="these are 2 reports"):
        Report.from_json(as_text(Reports([report, replace(report, seconds=0.0)])))
