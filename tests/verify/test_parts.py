"""A claim of several parts names the one that its figure is of; a mean that hides something says so."""

from __future__ import annotations

from functools import partial

import jsonschema
import pytest
from rich.console import Console

from circuitdsl.report.formats import FORMATS, View
from circuitdsl.report.report import Report, Reports
from tests.schema import schema

SPEC = """circuit t
model "pocket"
task ioi(prompts = 256)
heads sup = 0.3 0.5 0.6 at END
each sup -> logits at END : effect <= -5%
each sup -> 2.4.q at END : effect in [-50%, 50%]
sup -> logits at END : lowers and delta <= -1
expect incompleteness <= 90%
"""


def shown(report: Report, verbose: bool = False, name: str = "text") -> str:
    """The report in one of the formats, on a screen that is wide enough."""
    view = View(partial(Console, width=160, no_color=True, color_system=None), verbose)
    return FORMATS[name].reports(Reports([report]), view)


@pytest.fixture
def found(pocket, all_looks) -> list[Report]:
    from circuitdsl.api import loads

    return [loads(SPEC).verify(pocket, cache=False, early_stop=early) for early in (True, False)]


def test_the_same_part_is_named_with_and_without_early_stopping(found: list[Report]) -> None:
    early, whole = ([claim.measured for claim in report.claims] for report in found)
    assert early[0] and whole[0] and early[0].n < whole[0].n == 256
    assert early[0].part == whole[0].part
    members = {f"{m.sender} -> {m.receiver} at {m.position}": m.effect for m in found[1].claims[0].members}
    assert whole[0].value == pytest.approx(max(value for value in members.values() if value is not None))
    assert whole[0].part == f"{whole[0].sender} -> logits at END" and whole[0].part in members


def test_screens_pages_and_json_name_it(found: list[Report]) -> None:
    report = found[0]
    lines = shown(report).splitlines()
    sender = report.claims[0].measured.sender  # type: ignore[union-attr]
    assert any("each sup -> logits" in line and f"3 of 3, weakest {sender}" in line for line in lines)
    assert any("incompleteness" in line and "without " in line for line in lines)
    assert any("lowers and delta" in line and "  delta −" in line for line in lines)  # which of two figures it is
    assert f"3 of 3, weakest {sender}" in shown(report, name="html")
    body = report.to_json()
    jsonschema.validate(body, schema())
    assert body["claims"][0]["measured"]["part"] == f"{sender} -> logits at END"
    assert Report.from_json(body) == report


def test_all_parts_are_listed_with_their_figures_by_v(found: list[Report]) -> None:
    text = shown(found[0], verbose=True)
    for head in ("0.3", "0.5", "0.6"):
        assert f"{head} -> logits at END: effect −" in text and f"{head} -> 2.4.q at END: effect" in text
    assert "        lowers: −" in text and "        delta <= -1: −" in text and text.count(", holds\n") == 2


def test_a_stratum_that_carries_an_effect_is_named_without_v(check) -> None:
    report = check("""circuit t
model "pocket"
task recolored = colored_objects(corrupt = colors, prompts = 96)
heads colour = 0.5 at QUERY-10, QUERY-5, QUERY-2
heads matcher = 1.0 1.1 1.2 1.3 1.4 1.5 1.7 at QUERY
colour -> matcher.v at QUERY-10 : effect <= -5%
colour -> matcher.v : lowers
""")
    one, all_of_it = report.claims
    assert one.verdict == "holds"
    (note,) = one.notes
    assert note.startswith("without the ") and "prompts of the stratum slot-1 it is" in note
    assert note.endswith("above −5 %")
    assert not all_of_it.notes
    assert note in shown(report) and note in shown(report, name="html")
