"""The page in a real browser: what it shows and does, who can use it, and that a stranger's report does nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from rich.console import Console

import circuitdsl
from circuitdsl.report.formats import View
from circuitdsl.report.page.build import page as page_text
from circuitdsl.report.report import Report
from circuitdsl.viewing import pictures
from tests.drawing import examples
from tests.report.browser import Noise, chromium
from tests.report.large import large
from tests.report.test_page import HOSTILE
from tests.report.test_reading import REPORTS

PLAIN = View(partial(Console, width=100))


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture
def tab(browser) -> Iterator[Any]:
    """An empty tab whose page must be quiet."""
    tab = browser.new_page()
    noise = Noise(tab)
    yield tab
    tab.close()
    assert noise.heard == []


@pytest.fixture(scope="module")
def ioi(pocket, tmp_path_factory) -> str:
    """The address of the page of a report with a diagram."""
    spec = circuitdsl.load("pocket/ioi")
    report = spec.verify(prompts=64, behind="circuitdsl verify pocket/ioi")
    return written(tmp_path_factory.mktemp("ioi"), report, pictures([spec]))


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> str:
    """The address of a page of 12 claims on 3 tasks, without a diagram."""
    return written(tmp_path_factory.mktemp("several"), large(12, 3, 40))


def written(folder: Path, report: Report, picture: Any = None) -> str:
    path = folder / "page.html"
    path.write_text(page_text([report], View(PLAIN.console, picture=picture)))
    return path.as_uri()


def shown(tab: Any) -> list[str]:
    """The lines of the claims that are shown."""
    return tab.eval_on_selector_all(".claim:not([hidden]) .head .number", "all => all.map(each => each.textContent)")


# --- claims and diagram


def test_an_arrow_lights_its_line_and_a_line_its_arrow(tab, ioi: str) -> None:
    tab.goto(ioi)
    tab.wait_for_selector(".strip")
    assert tab.text_content("h1") == "Indirect object identification, pocket"
    assert len(shown(tab)) == 25
    arrow = tab.locator('.edge[data-edge="0.6 -> logits"]')
    arrow.dispatch_event("pointerenter")
    assert tab.text_content(".claim.lit .number") == "28"
    assert "0.6 -> logits" in tab.text_content(".peek")
    arrow.dispatch_event("pointerleave")
    assert tab.locator(".claim.lit").count() == 0
    arrow.dispatch_event("click")
    assert tab.text_content(".claim.open .number") == "28"
    assert tab.locator(".edge.on").count() == 1 and arrow.get_attribute("class").endswith(" on")
    tab.locator(".head", has_text="decider -> logits").last.click()
    assert tab.text_content(".claim.open .number") == "31"
    assert (
        tab.get_attribute(".edge.on", "data-edge") == tab.get_attribute(".label.on", "data-edge") == "decider -> logits"
    )
    assert tab.locator(".label.on").count() == 1
    tab.locator('.box[data-box="mover"]').dispatch_event("click")
    assert shown(tab) == ["21", "40"]


def test_every_strip_has_its_interval_bound_and_prompts(tab, ioi: str) -> None:
    tab.goto(ioi)
    claim = tab.locator(".claim").first
    claim.locator(".strip").wait_for()
    for part in (".counts", ".ci:not(.used)", ".mean", ".zero", ".allowed", ".bound"):
        assert claim.locator(f".strip {part}").count() == 1, part
    assert claim.locator(".strip").get_attribute("aria-label").startswith("prompt by prompt: \u2212")


def test_an_open_claim_shows_prompts_null_and_patterns(tab, ioi: str) -> None:
    tab.goto(f"{ioi}#open=c10")
    assert tab.locator(".swarm .dot").count() == 64
    assert tab.locator(".random").count() == 22 and tab.locator(".ours").count() == 1
    lowest, highest = (tab.locator(".end").nth(place) for place in (0, 3))
    first = tab.text_content(".prompt-head")
    assert first.startswith(lowest.text_content())
    assert {"S1 DISTRACTOR", "IO ANSWER", "END"} <= set(tab.locator(".tokens b").all_text_contents())
    highest.click()
    assert tab.text_content(".prompt-head").startswith(highest.text_content())
    assert tab.locator(".tokens .changed").count() > 0
    tab.locator(".dot").nth(7).dispatch_event("click", {"bubbles": True})
    assert "prompt 8 " in tab.text_content(".prompt-head")
    tab.locator(".elsewhere button").first.click()
    assert tab.locator(".patterns select").input_value() == "0.6"
    cell = tab.locator(".cell").last
    cell.dispatch_event("pointerover", {"bubbles": True})
    assert " to " in tab.text_content(".pattern figcaption")


# --- filters, order, keys


def test_filters_search_and_order(tab, several: str) -> None:
    tab.goto(several)
    tab.wait_for_selector(".claim:nth-child(12) .strip")
    assert len(shown(tab)) == 12 and tab.locator(".result").count() == 36
    tab.click(".chip.fails")
    visible = tab.locator(".result:not([hidden])")
    assert 0 < visible.count() < 36
    assert set(visible.locator(".verdict").all_text_contents()) == {"fails"}
    tab.select_option("select[aria-label=task]", "task1")
    assert set(visible.locator(".task").all_text_contents()) == {"task1"}
    assert f"{len(shown(tab))} of 12 claims" == tab.text_content(".count")
    tab.reload()
    assert set(visible.locator(".task").all_text_contents()) == {"task1"}
    tab.keyboard.press("Escape")
    assert len(shown(tab)) == 12
    tab.select_option("select[aria-label=order]", "worst")
    tab.locator(".claim").first.locator(".fails").first.wait_for()
    tab.select_option("select[aria-label=order]", "spec")
    assert shown(tab) == [str(line) for line in range(60, 72)]
    tab.fill("input[type=search]", "g1 -> nothing")
    assert shown(tab) == [] and tab.is_visible(".none")
    tab.fill("input[type=search]", "62")
    assert shown(tab) == ["62"]


def test_what_a_filter_leaves_is_on_the_screen(tab, several: str) -> None:
    tab.set_viewport_size({"width": 1440, "height": 300})
    tab.goto(several)
    tab.evaluate("scrollTo(0, document.body.scrollHeight)")
    tab.fill("input[type=search]", "62")
    place = tab.locator(".claim:not([hidden])").bounding_box()
    assert place and 0 < place["y"] < 300 - place["height"]


def test_an_open_claim_fits_on_a_phone(tab, ioi: str) -> None:
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.goto(ioi)
    tab.locator(".head", has_text="each embed").click()
    assert tab.locator(".forest li").count() == 3
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_keys_go_through_claims_and_prompts(tab, several: str) -> None:
    tab.goto(several)
    focused = "document.activeElement.querySelector('.number')?.textContent"
    for key, line in (("j", "60"), ("j", "61"), ("ArrowDown", "62"), ("k", "61")):
        tab.keyboard.press(key)
        assert tab.evaluate(focused) == line
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")
    assert tab.text_content(".claim.open .number") == "61"
    before = tab.text_content(".prompt-head")
    tab.keyboard.press("ArrowRight")
    assert tab.text_content(".prompt-head") != before
    tab.keyboard.press("ArrowLeft")
    assert tab.text_content(".prompt-head") == before
    tab.locator(".tasks button").nth(2).click()
    assert tab.text_content(".result.on .task") == "task2"
    tab.keyboard.press("Escape")
    assert tab.locator(".claim.open").count() == 0 and tab.evaluate(focused) == "61"
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.type") == "search"
    tab.keyboard.type("j62")
    assert shown(tab) == []
    tab.keyboard.press("Escape")
    tab.keyboard.press("Escape")
    assert len(shown(tab)) == 12
    tab.keyboard.press("?")
    assert tab.is_visible("dialog")


def test_dark_is_as_the_system_says_until_somebody_says_otherwise(tab, several: str) -> None:
    ground = "getComputedStyle(document.getElementById('circuitdsl')).backgroundColor"
    tab.emulate_media(color_scheme="light")
    tab.goto(several)
    light = tab.evaluate(ground)
    tab.emulate_media(color_scheme="dark")
    dark = tab.evaluate(ground)
    assert light != dark
    tab.click("[aria-label='light or dark']")
    assert tab.evaluate(ground) == light
    tab.reload()
    assert tab.evaluate(ground) == light
    tab.emulate_media(color_scheme="dark", media="print")
    assert tab.evaluate("getComputedStyle(document.getElementById('circuitdsl')).colorScheme") == "light"
    assert not tab.is_visible(".controls")


@pytest.mark.skipif(find_spec("axe_playwright_python") is None, reason="needs axe: pip install axe-playwright-python")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(browser, ioi: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    tab = browser.new_page()
    tab.emulate_media(color_scheme=scheme)
    tab.goto(f"{ioi}#open=c20")
    tab.locator(".elsewhere button").first.click()
    found = Axe().run(tab)
    said = [f"{each['id']}: {node['html'][:120]}" for each in found.response["violations"] for node in each["nodes"]]
    assert not said
    tab.close()


# --- strangers, size, notebooks


def test_a_hostile_report_is_shown_as_text(tab, tmp_path: Path) -> None:
    inside = '<script>alert(4)</script><g onclick="alert(5)" class="edge" data-claims="c000"><path d="M0 0L9 9"/></g>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(3)">{inside}</svg>'
    tab.goto(written(tmp_path, large(3, 2, 8, text=HOSTILE), lambda _: svg))
    tab.locator(".head").first.click()
    tab.locator(".tasks button").nth(1).click()
    shown_in = ".head code, .reason, .prompt-head, .tokens b, footer, .task, .model, .block, .notes"
    for selector in shown_in.split(", "):
        assert "onerror=alert(2)" in "".join(tab.locator(selector).all_text_contents()), selector
    assert tab.locator("img, iframe, body script:not([type]) ~ script").count() == 0
    assert tab.locator(".diagram script, .diagram [onclick], .diagram [onload]").count() == 0


@settings(
    max_examples=examples(15, 300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.generate],
)
@given(REPORTS)
def test_whatever_a_report_holds_is_shown(tab, tmp_path: Path, report: Report) -> None:
    tab.goto(written(tmp_path, report))
    tab.goto(f"{tab.url.split('#')[0]}#own=1")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator(".claim").count() == len({claim.id for claim in report.reached})
    tab.evaluate("document.querySelectorAll('.claim .head').forEach((each) => each.click())")


def test_the_page_can_reach_nothing(browser, several: str) -> None:
    tab = browser.new_page()
    tab.goto(several)
    markup = '<img src=x onerror="window.ran = 1"><svg onload="window.ran = 1">'
    tab.evaluate("text => document.body.insertAdjacentHTML('beforeend', text)", markup)
    tab.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert tab.evaluate("fetch('https://example.org/').then(() => 'reached', () => 'refused')") == "refused"
    assert tab.evaluate("new Promise(done => setTimeout(() => done(window.ran ?? 'nothing'), 100))") == "nothing"
    tab.close()


def test_of_a_large_report_only_what_is_seen_is_drawn(tab, tmp_path: Path) -> None:
    tab.goto(written(tmp_path, large(500, 8, 64)))
    assert len(shown(tab)) == 500
    tab.wait_for_selector(".strip")
    assert 0 < tab.locator(".strip").count() < 400
    tab.evaluate("document.querySelectorAll('.claim')[400].scrollIntoView()")
    tab.wait_for_selector(".claim:nth-child(401) .strip")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator(".strip").count() == 4000


#: gives a widget's module the cell and the model that a notebook would give it
_IN_A_CELL = """async ([source, data]) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const changes = [];
  window.model = { get: () => data, on: (_, does) => changes.push(does) };
  window.model.changed = (now) => { data = now; changes.forEach((each) => each()); };
  await module.default.render({ model: window.model, el: document.getElementById("cell") });
}"""


def test_a_widget_draws_itself_in_a_cell(tab) -> None:
    pytest.importorskip("anywidget", reason="needs anywidget: pip install 'circuitdsl[notebook]'")
    found = circuitdsl.view(large(5, 2, 16))
    tab.set_content('<div id="cell"></div>')
    tab.add_style_tag(content=found._css)
    tab.evaluate(_IN_A_CELL, [found._esm, found.data])
    assert len(shown(tab)) == 5
    tab.locator(".head").nth(1).click()
    assert tab.locator(".dot").count() == 16
    tab.evaluate("data => model.changed(data)", circuitdsl.view(large(3, 1, 16)).data)
    assert len(shown(tab)) == 3


def test_a_widget_draws_its_diagram_when_its_cell_is_shown(tab) -> None:
    """Notebooks keep cells that are not on the screen out of the page."""
    pytest.importorskip("anywidget", reason="needs anywidget: pip install 'circuitdsl[notebook]'")
    found = circuitdsl.view(circuitdsl.load("pocket/ioi").verify(prompts=8))
    tab.set_content('<div id="cell" hidden></div>')
    tab.add_style_tag(content=found._css)
    tab.evaluate(_IN_A_CELL, [found._esm, found.data])
    tab.eval_on_selector("#cell", "cell => { cell.hidden = false; }")
    tab.wait_for_function("document.querySelector('.diagram svg').clientWidth > 300")


def test_a_widget_follows_its_notebook_into_the_dark(tab) -> None:
    pytest.importorskip("anywidget", reason="needs anywidget: pip install 'circuitdsl[notebook]'")
    found = circuitdsl.view(large(2, 1, 8))
    tab.set_content('<style>.night { background: #111 }</style><div id="cell"></div>')
    tab.evaluate(_IN_A_CELL, [found._esm, found.data])
    colours = "getComputedStyle(document.querySelector('.cdsl')).colorScheme"
    assert tab.evaluate(colours) != "dark"
    tab.evaluate("document.body.className = 'night'")
    tab.wait_for_function(f"{colours} === 'dark'")


def test_a_live_page_follows(browser, monkeypatch) -> None:
    from circuitdsl.cli.live import Live
    from circuitdsl.report.report import Reports

    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    live, tab = Live(), browser.new_page()
    live.show(Reports([large(2, 1, 8)]))
    tab.goto(f"{live.address}#sort=worst")
    assert len(shown(tab)) == 2
    tab.wait_for_timeout(300)  # it has asked once
    live.show(Reports([large(4, 1, 8)]))
    tab.wait_for_selector(".claim:nth-child(4)")
    assert tab.input_value("select[aria-label=order]") == "worst"
    tab.close()


def test_data_of_the_page_is_what_was_written(tab, several: str) -> None:
    tab.goto(several)
    data = json.loads(tab.text_content("#data"))["reports"][0]
    assert [claim["text"] for claim in data["claims"]] == tab.locator(".head code").all_text_contents()
