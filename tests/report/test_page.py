"""The page of a report: its data, that it is whole and lets nothing else run, and how it is found and served."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import urllib.error
import urllib.request
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import circuitdsl
from circuitdsl import cli
from circuitdsl.cli.view import show
from circuitdsl.errors import UserError
from circuitdsl.report.formats import View
from circuitdsl.report.page.build import SCRIPTS, as_json, page
from circuitdsl.report.page.data import DIGITS, of_report, packed
from circuitdsl.report.report import Report, Reports, as_text
from circuitdsl.viewing import at_hand, page_of, pictures, view
from circuitdsl.visible import visible
from tests.drawing import examples
from tests.report.large import large, spec_of
from tests.report.test_reading import REPORTS
from tests.schema import schema

FIXTURES = Path(__file__).parents[1] / "fixtures"
VIEW = View(partial(Console, width=100))
HOSTILE = """</script><script>alert(1)</script><img src=x onerror=alert(2)>"'&\u2028 __proto__ %%data%%"""


@pytest.fixture(scope="module")
def measured(pocket) -> Report:
    """A report on claims of many kinds, with everything behind it."""
    return circuitdsl.load("pocket/ioi").verify(prompts=64, behind="circuitdsl verify pocket/ioi")


# --- what is behind a report


def test_figures_are_means_of_the_numbers_behind_them_and_lie_in_their_bounds_where_claims_hold(measured) -> None:
    behind = {each.claim: each for each in measured.behind.numbers}
    assert {claim.id for claim in measured.claims} == set(behind)
    for claim in measured.claims:
        found = behind[claim.id]
        assert np.mean(found.values) == pytest.approx(claim.measured.value, abs=1e-4)
        assert (len(found.values), found.unit) == (claim.measured.n, claim.measured.unit)
        inside = any(low <= claim.measured.value <= high for low, high in found.holds_in)
        assert inside or claim.verdict != "holds", claim.text


def test_bounds_of_several_tests_are_where_all_of_them_hold(measured) -> None:
    (both,) = (claim for claim in measured.claims if "matters and" in claim.text)
    found = next(each for each in measured.behind.numbers if each.claim == both.id)
    assert found.holds_in == ((-math.inf, -0.017),)


def test_a_null_stands_beside_the_effect_on_the_same_prompts(measured) -> None:
    compared = [claim for claim in measured.claims if claim.null]
    behind = {each.claim: each for each in measured.behind.numbers}
    for claim in compared:
        found = behind[claim.id]
        assert len(found.null) == claim.null.size
        assert np.mean(np.abs(found.null) < abs(found.among_null)) == pytest.approx(claim.null.percentile)
    assert compared


def test_patterns_are_those_that_attention_claims_read(measured) -> None:
    (claim,) = (claim for claim in measured.claims if "attention(mover" in claim.text)
    found = next(each for each in measured.behind.numbers if each.claim == claim.id)
    assert found.heads == ("2.4", "2.5")
    by_prompt: dict[int, list[tuple[tuple[float, ...], ...]]] = {}
    for each in measured.behind.patterns:
        assert all(sum(row) == pytest.approx(1, abs=0.02) for row in each.rows)
        if each.head in found.heads:
            by_prompt.setdefault(each.prompt, []).append(each.rows)
    assert len(by_prompt) == 8
    for index, patterns in by_prompt.items():
        (end,), (target,) = (measured.behind.prompts["ioi"][index].positions[name] for name in ("END", "IO"))
        seen = np.mean([rows[end][target] for rows in patterns])
        assert seen == pytest.approx(found.values[found.prompts.index(index)], abs=2e-3)


def test_a_report_has_them_only_where_asked_and_gets_them_back_from_json(measured) -> None:
    bare = replace(measured, behind=None)
    assert "behind" not in bare.to_json()
    text = as_text(Reports([measured]))
    assert Reports.from_json(text) == (measured,)
    assert text.count("\n") == 1 < as_text(Reports([bare])).count("\n")
    jsonschema.validate(json.loads(text), schema())


@pytest.mark.parametrize("spec", [FIXTURES / "measured.circ", "pocket/repair"])
def test_every_kind_of_claim_has_a_page(pocket, spec: Path | str) -> None:
    found = circuitdsl.load(spec).verify(prompts=16, behind=True)
    reports = Reports([found] if isinstance(found, Report) else found)
    for report, data in zip(reports, [of_report(report) for report in reports], strict=True):
        assert len(data["results"]) == len(report.claims)
        assert [claim["id"] for claim in data["claims"]] == list(dict.fromkeys(c.id for c in report.claims))
    assert page(reports).count("</script>") == 2


@settings(max_examples=examples(40, 400), deadline=None)
@given(st.lists(REPORTS, max_size=2).map(Reports))
def test_whatever_a_report_holds_has_a_page(reports: Reports) -> None:
    found = json.loads(parts(page(Reports.from_json(as_text(reports)) if reports else reports)).texts["script"][0])
    assert len(found["reports"]) == len(reports)


# --- the page


class _Parts(HTMLParser):
    """The attributes of all elements, and the texts of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in self.texts:
            self.texts[self.inside][-1] += data


def parts(text: str) -> _Parts:
    found = _Parts()
    found.feed(text)
    return found


def test_a_page_lets_its_own_script_and_style_run_and_nothing_else() -> None:
    found = parts(page([large(3, 2, 8)], VIEW))
    (policy,) = (about["content"] for tag, about in found.found if about.get("http-equiv"))
    data, script = found.texts["script"]
    (style,) = found.texts["style"]
    for kind, text in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'") and "connect" not in policy and "unsafe" not in policy
    assert len(json.loads(data)["reports"][0]["claims"]) == 3
    assert not [
        about for _, about in found.found if about.keys() & {"src", "style"} or any(k.startswith("on") for k in about)
    ]
    assert [about["href"] for _, about in found.found if "href" in about] == ["data:,"]
    assert set(re.findall(r"https?://[^\"\s\\]+", script + style)) == {"http://www.w3.org/2000/svg"}


def test_nothing_in_a_report_becomes_markup() -> None:
    report = large(2, 2, 8, text=HOSTILE)
    text = page(Reports.from_json(as_text(Reports([report]))), replace(VIEW, picture=lambda _: HOSTILE))
    assert {tag for tag, _ in parts(text).found} == {
        *("html", "head", "meta", "title", "link", "style", "body", "div", "noscript", "script"),
    }
    assert "<" not in parts(text).texts["script"][0]
    assert json.loads(parts(text).texts["script"][0])["reports"][0]["claims"][0]["text"].endswith(visible(HOSTILE))


def test_json_for_scripts_reads_back() -> None:
    given = {"a": [HOSTILE, "\ud800", 1.5, None], "__proto__": "<!--"}
    read = json.loads(as_json(given))
    assert not set("<>&\u2028") & set(as_json(given))
    assert read == given | {"a": [visible(HOSTILE), "\\ud800", 1.5, None]}


def test_numbers_are_packed_to_a_part_in_4095() -> None:
    given = np.random.default_rng(0).normal(size=500)
    low, high, text = packed(given)
    read = [64 * DIGITS.index(a) + DIGITS.index(b) for a, b in zip(text[::2], text[1::2], strict=True)]
    np.testing.assert_allclose(low + (high - low) * np.asarray(read) / 4095, given, atol=(high - low) / 8000)
    assert packed([0.5])[2] == "AA"


def test_a_large_page_is_small_enough() -> None:
    assert len(page([large(500, 8, 256)], VIEW)) < 10_000_000


def test_scripts_are_one_text_in_the_package() -> None:
    folder = Path(circuitdsl.__file__).parent / "report" / "page"
    assert {path.name for path in folder.glob("*.js")} == set(SCRIPTS)


# --- where the circuit is found


def test_a_circuit_is_drawn_where_its_spec_says_what_it_said(tmp_path: Path) -> None:
    path = tmp_path / "large.circ"
    path.write_text(spec_of(4))
    (circuit,) = circuitdsl.load(path).circuits
    spec = replace(large(4, 1, 8).spec, path="large.circ", sha256=circuit.sha256, meaning=circuit.meaning)
    reports = Reports([replace(large(4, 1, 8), spec=spec)])
    assert "<svg" in pictures(at_hand(reports, tmp_path))(reports[0])
    assert "svg xmlns" in page_of(reports, folder=tmp_path)
    path.write_text(spec_of(3))
    assert not list(at_hand(reports, tmp_path))
    assert pictures([circuitdsl.load(path)])(reports[0]) == ""


@pytest.mark.parametrize("name", ["/dev/zero", "/etc/hostname", "a\0b.circ", "x" * 9999 + ".circ", "", "/tmp"])
def test_a_report_of_a_stranger_opens_no_other_file(name: str, tmp_path: Path) -> None:
    report = large(1, 1, 8)
    reports = Reports([replace(report, spec=replace(report.spec, path=name))])
    assert not list(at_hand(reports, tmp_path))
    assert "</html>" in page_of(reports, folder=tmp_path)


def test_view_writes_the_page_and_prints_its_path(tmp_path: Path, capsys, monkeypatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    report, target = tmp_path / "r.json", tmp_path / "r.html"
    report.write_text(as_text(Reports([large(2, 1, 8)])))
    monkeypatch.setenv("DISPLAY", ":9")
    assert cli.run(["view", str(report), "-o", str(target)]) == 0
    assert opened == [target.as_uri()] and capsys.readouterr().out == f"{target}\n"
    assert cli.run(["view", str(report), "--no-browser"]) == 0
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    assert cli.run(["view", str(report), "-o", str(target)]) == 0
    found = Path(capsys.readouterr().out.split()[0])
    assert len(opened) == 1 and found.read_text() == target.read_text()
    found.unlink()
    report.write_text("{}")
    assert cli.run(["view", str(report)]) == 2
    assert "is not a report" in capsys.readouterr().err


def test_verify_keeps_numbers_where_a_page_wants_them(pocket, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["verify", "pocket/ioi", "--claim", "28", "--prompts", "32"]
    assert cli.run([*common, "-o", "r.json"]) == 0
    assert Reports.from_json(Path("r.json").read_text())[0].behind is None
    assert cli.run([*common, "-o", "r.json", "--with-prompts"]) == 0
    (report,) = Reports.from_json(Path("r.json").read_text())
    assert report.behind.command == "circuitdsl verify pocket/ioi --claim 28 --prompts 32 -o r.json --with-prompts"
    assert cli.run([*common, "-o", "r.html"]) == 0
    data = json.loads(parts(Path("r.html").read_text()).texts["script"][0])["reports"][0]
    assert data["results"][0]["behind"]["heads"] == ["0.6"] and "<svg" in data["svg"]


def test_verify_opens_the_page_and_has_no_numbers_for_a_screen(pocket, tmp_path: Path, capsys, monkeypatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":9")
    common = ["verify", "pocket/ioi", "--claim", "28", "--prompts", "32"]
    assert cli.run([*common, "--view", "--allow-undecided"]) == 0
    path = Path(capsys.readouterr().out.splitlines()[-1])
    assert opened == [path.as_uri()] and "svg xmlns" in path.read_text()
    path.unlink()
    assert cli.run([*common, "--with-prompts"]) == 2
    assert "-o FILE.json" in capsys.readouterr().err


def test_a_live_page_is_for_this_machine_and_whoever_knows_its_address(capsys, monkeypatch) -> None:
    from circuitdsl.cli.live import Live

    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    live, reports = Live(), Reports([large(1, 1, 8)])
    live.show(reports)
    assert capsys.readouterr().out == f"{live.address}\n"
    assert "connect-src 'self'" in _read(live.address) and ' data-live="1"' in _read(live.address)
    assert _read(f"{live.address}version") == "1"
    live.show(reports)
    assert _read(f"{live.address}version") == "2" and ' data-live="2"' in _read(live.address)
    root = f"http://{live.host}/"
    for address, host in ((root, live.host), (f"{root}version", live.host), (live.address, "example.org")):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            _read(address, host)


def test_a_page_that_cannot_be_written_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (os.open("/dev/full", os.O_WRONLY), "/dev/full"))
    with pytest.raises(UserError, match="No space left"):
        show("a page", None, browser=False)


def _read(address: str, host: str | None = None) -> str:
    asked = urllib.request.Request(address, headers={"Host": host} if host else {})
    with urllib.request.urlopen(asked, timeout=10) as found:
        return str(found.read().decode())


# --- notebooks


def test_a_notebook_has_the_same_view_or_the_table(monkeypatch) -> None:
    report = large(2, 1, 8)
    pytest.importorskip("anywidget", reason="needs anywidget: pip install 'circuitdsl[notebook]'")
    found = view(report)
    assert json.loads(found.data)["reports"][0]["name"] == "large"
    assert "export default" in found._esm and ".cdsl" in found._css
    monkeypatch.setitem(__import__("sys").modules, "circuitdsl.report.page.widget", None)
    assert view(report) is report
