"""The package from Python: cheap to import, frozen specs, reports that a notebook shows."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch

import circuitdsl
from circuitdsl.diagram import draw, to_html
from circuitdsl.report.github import of_reports
from circuitdsl.report.numbers import figure, interval

TEXT = """circuit a "A < B & C"
model "pocket"
task ioi(prompts = 40)
heads mover = 2.4 2.5 at END
mover -> logits at END : negligible        "<script>alert(1)</script>"
expect accuracy >= 99%
"""
LIMITED = """circuit small
model "pocket"
task ioi(prompts = 40)
heads mover = 2.4 2.5 at END
mover -> logits at END : effect in [-90%, 90%]
expect denoise(mover) : effect >= -90%
expect faithfulness(ablate = mean, keep = edges) >= -900%
expect induction_score(mover) >= 0%
intervention less
  scale mover by 0.5
  expect logit_diff >= -99
"""
DOCS = Path(__file__).parent.parent / "docs" / "api.md"


@pytest.fixture(scope="module")
def report(pocket):
    return circuitdsl.loads(TEXT).verify(pocket, cache=False)


class Checker(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag not in ("hr", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags_of(html: str) -> set[str]:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    return checker.seen


def test_importing_is_cheap() -> None:
    code = "import sys, circuitdsl; dir(circuitdsl); circuitdsl.load('pocket/ioi')\n"
    code += "print([m for m in ('torch', 'transformers', 'networkx', 'scipy', 'numpy', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_what_is_there_is_given() -> None:
    for name in circuitdsl.__all__:
        assert getattr(circuitdsl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        circuitdsl.lode  # noqa: B018


def test_specs_are_frozen_and_comparable() -> None:
    one, two = circuitdsl.loads(TEXT), circuitdsl.loads(TEXT)
    assert one == two
    assert one.circuits[0] != circuitdsl.loads(TEXT.replace("2.5", "2.6")).circuits[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.text = ""
    again = circuitdsl.loads(circuitdsl.dumps(one))
    assert circuitdsl.dumps(again) == circuitdsl.dumps(one)
    assert [c.text for c in again.circuit().claims] == [c.text for c in one.circuit().claims]


@pytest.mark.parametrize("name", ["pocket/ioi", "pocket/repair", "pocket/shared", "gpt2-small/channels"])
def test_specs_that_say_the_same_are_equal(name: str) -> None:
    spec = circuitdsl.load(name)
    spaced = spec.text.replace("circuit ", "# a comment\n\ncircuit ", 1).replace(" = ", "    = ")
    tight = re.sub(r'^([^"\n]*?) *(->|:|<=|>=) *([^"\n]*)$', r"\1\2\3", spec.text, flags=re.MULTILINE)
    same = [circuitdsl.loads(text, spec.path) for text in (spaced, tight, circuitdsl.dumps(spec))]
    assert tight != spec.text
    assert {spec, *same} == {spec}
    assert spec.circuits[0].claims == same[0].circuits[0].claims
    assert spec != circuitdsl.loads(spec.text, "elsewhere.circ")
    assert spec != spec.text
    wrong = [circuitdsl.loads(text) for text in ("circuit t\nmovr -> logits\n", "circuit t\nmovre -> logits\n")]
    assert wrong[0] != wrong[1] and wrong[0] == circuitdsl.loads(wrong[0].text)


def test_a_spec_gives_its_graph_and_its_picture() -> None:
    spec = circuitdsl.loads(TEXT)
    assert isinstance(spec.graph, networkx.MultiDiGraph)
    assert set(spec.graph.predecessors("logits")) == {"2.4", "2.5"}
    assert spec._repr_svg_().startswith("<svg") or "<svg" in spec._repr_svg_()
    assert "svg" in tags_of(spec._repr_html_())
    both = circuitdsl.loads(TEXT + TEXT.replace("circuit a", "circuit b"))
    with pytest.raises(circuitdsl.UserError, match="more than one circuit"):
        both.graph  # noqa: B018
    assert both.circuit("b").graph.name == "b"


def test_what_a_prompt_shows_is_one_line(report) -> None:
    spec = circuitdsl.load("pocket/ioi")
    assert repr(spec) == f"<Spec {spec.path}: <Circuit ioi: 6 groups, 25 claims>>"
    assert repr(circuitdsl.loads("circuit t\nmovr -> logits\n")) == "<Spec <text>: 1 errors>"
    counts = str(report).splitlines()[0]
    assert repr(report) == f"<Report: {counts}>"
    one = dataclasses.replace(report, claims=report.claims[:1] * 2)
    assert str(one).startswith(f"{report.spec.circuit} on {report.model.name}: 2 ")
    assert "2 hold\n" in str(
        dataclasses.replace(one, claims=(dataclasses.replace(one.claims[0], verdict="holds"),) * 2)
    )


def test_a_wrong_spec_says_what_is_wrong_and_is_not_run() -> None:
    wrong = circuitdsl.loads("circuit t\nmovr -> logits : <b>\n")
    assert not wrong.ok
    assert "<b>" not in wrong._repr_html_()
    with pytest.raises(circuitdsl.SpecError, match=r"<text>:2:") as caught:
        wrong.verify()
    assert caught.value.status == 2
    with pytest.raises(circuitdsl.UserError, match="nothing to verify"):
        circuitdsl.loads('circuit t\nmodel "pocket"\n').verify()
    with pytest.raises(circuitdsl.UserError, match="names no model"):
        circuitdsl.loads(TEXT.replace('model "pocket"\n', "")).verify()


def test_a_report_is_what_the_command_line_reports(report, check) -> None:
    theirs = check(TEXT)
    assert report.claims == theirs.claims
    assert report.seconds > 0


def test_a_report_shows_itself_escaped(report) -> None:
    html = report._repr_html_()
    assert {"table", "code", "b"} <= tags_of(html)
    assert "<script" not in html
    for claim in report.claims:
        assert claim.verdict in html
    assert "http" not in html


def test_every_kind_of_report_is_whole_html(report) -> None:
    odd = dataclasses.replace(
        report.claims[0], id="c99", text="a <b> & c", verdict="error", reason="x < y", measured=None, notes=("n > 1",)
    )
    several = dataclasses.replace(report, claims=(odd, *report.claims), tasks=report.tasks * 2, interrupted=True)
    html = circuitdsl.Reports((report, several))._repr_html_()
    tags_of(html)
    assert "a &lt;b&gt; &amp; c" in html and "x &lt; y" in html and "interrupted" in html


def test_several_circuits_give_several_reports(pocket) -> None:
    spec = circuitdsl.loads(TEXT + TEXT.replace("circuit a", "circuit b"))
    both = spec.verify(pocket, cache=False)
    assert [r.spec.circuit for r in both] == ["a", "b"]
    assert spec.verify(pocket, circuit="b", cache=False).spec.circuit == "b"


def test_options_reach_the_run(pocket) -> None:
    calls = []
    spec = circuitdsl.loads(TEXT)
    found = spec.verify(pocket, prompts=33, seed=5, early_stop=False, progress=lambda *work: calls.append(work))
    assert (found.tasks[0].prompts, found.tasks[0].seed, found.early_stop) == (33, 5, False)
    assert calls
    assert spec.verify(pocket, prompts=33, seed=5, early_stop=False).cached == 1


def test_little_memory_gives_the_same_numbers(pocket) -> None:
    spec = circuitdsl.loads(LIMITED)
    whole, small = (spec.verify(pocket, cache=False, memory=limit) for limit in (None, 8 * 10**6))
    values = [[claim.measured.value for claim in report.claims] for report in (whole, small)]
    assert values[1] == pytest.approx(values[0], abs=1e-5)
    with pytest.raises(circuitdsl.UserError, match="too little to measure in: one prompt of"):
        spec.verify(pocket, memory=10**6)


@pytest.mark.parametrize(
    "given",
    [
        *({"prompts": n} for n in (0, -1, 2.5, "64", True, 10**9)),
        *({"seed": n} for n in (-1, 2**32, 1.5, "1")),
        *({"memory": n} for n in ("x", "1KB", -1, 0, 1e9, True)),
        *({"device": n} for n in ("gpu", None, 5, "cpu:x")),
        *({"dtype": n} for n in ("int8", None)),
        {"circuit": "u"},
        {"progress": 5},
    ],
    ids=str,
)
def test_arguments_out_of_range_are_said(given) -> None:
    with pytest.raises(circuitdsl.UserError):
        circuitdsl.loads(TEXT).verify(**given)


def test_only_text_is_a_spec() -> None:
    with pytest.raises(circuitdsl.UserError, match="takes the text of a spec, not bytes"):
        circuitdsl.loads(b"circuit t")
    assert circuitdsl.loads(TEXT, path=Path("a.circ"), model=Path("pocket")).path == "a.circ"


def test_arguments_may_be_written_otherwise(pocket) -> None:
    spec = circuitdsl.loads(TEXT)
    whole = spec.verify(pocket, cache=False, prompts=np.int64(33), memory="200MB")
    assert whole.tasks[0].prompts == 33
    same = circuitdsl.load_model("pocket", device=torch.device("cpu"), dtype=torch.float32)
    assert (same.device, same.dtype) == (pocket.device, pocket.dtype)
    with pytest.raises(circuitdsl.UserError, match="neither a model's name nor its directory"):
        circuitdsl.load_model(5)


def test_a_model_shows_itself_in_a_line(pocket, stories) -> None:
    assert repr(pocket) == "<Transformer pocket (gpt2): 4 layers × 8 heads, d_model 128, float32 on cpu>"
    llama = circuitdsl.load_model(stories, device="cpu")
    for model in (pocket, llama):
        assert "tensor" not in repr(model.blocks[0]) and len(repr(model.blocks[0])) < 1000


def test_a_report_as_a_frame(report) -> None:
    pytest.importorskip("pandas")
    frame = report.to_frame()
    assert list(frame["id"]) == [claim.id for claim in report.claims]
    assert frame["value"][0] == report.claims[0].measured.value


def test_without_pandas_it_is_said(report, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(circuitdsl.UserError, match="needs pandas"):
        report.to_frame()


@pytest.fixture(scope="module")
def page_cache(caches) -> str:
    return next(caches)


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL))
def test_the_examples_of_the_page_run(code: str, page_cache: str, capsys, monkeypatch, tmp_path: Path) -> None:
    """One after the other, as a reader would: what one has measured, the next one finds."""
    monkeypatch.setenv("CIRCUITDSL_CACHE", page_cache)
    monkeypatch.chdir(tmp_path)  # some write files
    if "to_frame" in code:
        pytest.importorskip("pandas")
    exec(compile(code, str(DOCS), "exec"), {})
    assert capsys.readouterr().out


def test_claims_of_a_block_are_shown_with_its_header(pocket):
    text = 'circuit t\nmodel "pocket"\ntask ioi(prompts = 8)\nheads late = 3.5 at END\n'
    text += "intervention half\n  scale late by 0.5\n  expect accuracy >= 1%\n"
    report = circuitdsl.loads(text).verify(pocket)
    (claim,) = report.claims
    said = f"intervention half: expect accuracy >= 1%  {figure(claim.measured)} {interval(claim.measured)}  holds"
    assert said in str(report) and "%" in figure(claim.measured)
    assert "intervention half" in report._repr_html_()
    drawn = to_html(draw(circuitdsl.loads(text).circuit(), report))
    assert "intervention half" in drawn
    (failing,) = of_reports(
        [dataclasses.replace(report, claims=(dataclasses.replace(report.claims[0], verdict="fails"),))]
    )
    assert "intervention half: expect accuracy" in failing


# --- sessions ---------------------------------------------------------------------------------------


def test_a_session_loads_a_model_once_and_gives_back_threads(monkeypatch) -> None:
    from circuitdsl.models import record

    loaded, before, original = [], torch.get_num_threads(), record.open_model
    monkeypatch.setattr(record, "open_model", lambda *given: loaded.append(given) or original(*given))
    with circuitdsl.Session(device="cpu") as session:
        first = session.verify(circuitdsl.loads(TEXT))
        again = session.verify(circuitdsl.loads(TEXT))
        assert torch.get_num_threads() == 1
    assert (len(loaded), torch.get_num_threads()) == (1, before)
    later = circuitdsl.loads(TEXT).verify(device="cpu")
    assert (first.cached, later.cached) == (0, 1) and first.claims == again.claims == later.claims


def test_a_session_says_what_verify_says(pocket, report) -> None:
    rows = circuitdsl.PerPrompt()
    with circuitdsl.Session(pocket, cache=False) as session:
        whole = session.verify(circuitdsl.loads(TEXT), per_prompt=rows)
        assert whole.claims == report.claims
        one = session.verify(circuitdsl.loads(TEXT), claim="6", each_at=0.1, full=True, early_stop=False)
        some = [session.verify(circuitdsl.loads(TEXT), claim=names).claims for names in (["6", "c01"], 6)]
        assert [[claim.line for claim in found] for found in some] == [[whole.claims[0].line, 6], [6]]
        for names, why in (
            ("99", "there is no claim 99"),
            (["6", "99"], "there is no claim 99"),
            ("6,99", "there is no claim 99"),
            ([], "no claim is named"),
        ):
            with pytest.raises(circuitdsl.UserError, match=why):
                session.verify(circuitdsl.loads(TEXT), claim=names)
        for wrong in ({"each_at": 5}, {"generalise": "models"}):
            with pytest.raises(circuitdsl.UserError):
                session.verify(circuitdsl.loads(TEXT), **wrong)
    assert [claim.line for claim in one.claims] == [6] and one.measurements
    assert (one.level[:12], one.early_stop) == ("each at 10 %", False)
    assert {row[2] for row in rows} == {claim.line for claim in whole.claims}
    assert rows.to_csv().startswith("circuit,claim,line,")


def test_a_session_takes_specs_by_name_and_for_its_own_model(pocket) -> None:
    with circuitdsl.Session(pocket) as session:
        assert session.circuit("pocket/ioi#ioi").name == "ioi"
        assert session.spec(circuitdsl.loads(TEXT.replace('"pocket"', '"gpt2"'))).circuit().model.name == "pocket"
        with pytest.raises(circuitdsl.UserError, match="there is no circuit x"):
            session.circuit("pocket/ioi#x")
        with pytest.raises(circuitdsl.SpecError, match=r"2\.9"):
            session.spec(circuitdsl.loads(TEXT.replace('"pocket"', '"gpt2"').replace("2.4", "2.9")))


def test_results_show_themselves_and_are_plain_data() -> None:
    with circuitdsl.Session("pocket", device="cpu") as session:
        found = [
            session.channels(["2.5.q"]),
            session.compare("pocket/ioi", "pocket/shared"),
            *session.plan("pocket/ioi"),
        ]
    for each in found:
        assert json.loads(json.dumps(each.to_json()))
        assert len(str(each).splitlines()) > 5
        assert {"pre", "span"} <= tags_of(each._repr_html_())
