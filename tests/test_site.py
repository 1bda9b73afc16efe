"""The documentation as a site: commands print what pages show, pages made from the code are whole, the site builds."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

import circuitdsl
from circuitdsl import cli
from circuitdsl.api import shipped_specs
from circuitdsl.measurements import KINDS
from tests.report.browser import chromium
from tests.site_scripts import CONSOLE, HOOKS, ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
WITH_COMMANDS = [page for page in PAGES if "```console\n" in page.read_text(encoding="utf-8")]
NOTEBOOKS = sorted((DOCS / "examples").glob("*.ipynb"))


#: what the page of the command line says of each verb
VERBS = dict(re.findall(r"^##+ (.*?)\n(.*?)(?=^##|\Z)", HOOKS.command_line(), re.MULTILINE | re.DOTALL))


# --- what pages show ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def means_over_few_prompts() -> None:
    """Pages show what users get: means are over all prompts."""


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_commands_print_what_the_page_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    shown = page.read_text(encoding="utf-8")
    assert CONSOLE.shown_again(shown) == shown
    for picture in tmp_path.glob("*.svg"):
        assert picture.read_bytes() == (DOCS / "examples" / picture.name).read_bytes()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_that_a_page_names_have_the_options_that_it_names(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fenced = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    code = "\n".join([*fenced.findall(text), *re.findall(r"`([^`\n]+)`", fenced.sub("", text))])
    for verb, rest in re.findall(
        r"^(?:\$ |.*run: )?circuitdsl ([a-z]+(?: (?:show|check|sample)\b)?)(.*)", code, re.MULTILINE
    ):
        said = set(re.findall(r"(?<=[ \[`(|])--[a-z][a-z-]+", VERBS[verb]))
        assert set(re.findall(r"(?<= )--[a-z][a-z-]+", rest)) <= said, f"{verb}{rest}"


def test_the_pages_with_commands_are_those() -> None:
    assert [page.stem for page in WITH_COMMANDS] == ["README", "how-to", "index", "matrix", "own-model", "tutorial"]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("a\nb\n", "a\nc\n"), ("a\n", "a\nb\n"), ("a\n…\nd\n", "a\nb\nc\n"), ("n 64   fails\n", "n 64   holds\n")],
)
def test_other_output_is_noticed(shown: str, printed: str) -> None:
    assert not CONSOLE.same(shown, printed)


def test_times_and_lines_left_out_are_no_difference() -> None:
    shown, printed = "hold   0.4 s\n…\nend\n", "hold   12.1 s, 7 % of the numbers known from earlier runs\nb\nc\nend\n"
    assert CONSOLE.same(shown, printed)


def test_the_landing_page_shows_the_example() -> None:
    example = (DOCS / "examples" / "ioi-short.circ").read_text(encoding="utf-8")
    assert f"```circ\n{example}```" in (DOCS / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_holds_no_outputs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for cell in cells:
        assert cell["outputs"] == []
        exec("".join(cell["source"]), names)
    assert "holds" in capsys.readouterr().out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_jupyter(path: Path) -> None:
    pytest.importorskip("nbmake", reason="needs nbmake, beside ipykernel: pip install nbmake ipykernel")
    _run("pytest", "--nbmake", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", str(path))


# --- pages made from the code ------------------------------------------------------------------------


def test_the_gallery_has_every_spec_that_ships() -> None:
    page, pictures = HOOKS.gallery(), HOOKS.pictures()
    for path in shipped_specs().rglob("*.circ"):
        name = f"{path.parent.name}/{path.stem}"
        assert f"\n## {name}\n" in page
        assert f"](gallery/{name}.svg)" in page
        assert pictures[f"gallery/{name}.svg"].startswith(b"<svg ")


def test_the_command_line_page_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"verify", "tasks show", "lsp"} <= set(VERBS)
    for verb, section in VERBS.items():
        with pytest.raises(SystemExit):
            cli.run([*verb.split(), "--help"])
        options = set(re.findall(r"^  (?:-\w(?: \w+)?, )?(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
        assert "--help" in options
        assert {option for option in options if not re.search(rf"\| `[^`]*{option}\b", section)} == set()


def test_the_measurement_page_has_every_kind_with_its_examples() -> None:
    page = HOOKS.measurements()
    for kind in KINDS:
        assert all(f"`{word}`" in page for word in kind.words)
        assert all(example in page for example in kind.examples)


def test_the_python_page_has_every_public_name() -> None:
    names, verbs = HOOKS.python().split("## More methods")
    assert re.findall(r"heading: (\w+)", verbs)[:3] == ["prompts", "plan", "compare"]
    named = re.findall(r"^::: .*\.(\w+)$", names, re.MULTILINE)
    assert sorted(named) == sorted(set(circuitdsl.__all__) - {"__version__"})


def test_the_schema_page_has_the_fields_of_a_report() -> None:
    page = HOOKS.report_schema()
    for field in ("model.sha256", "claims[].verdict", "tasks[].prompts", "summary"):
        assert f"| `{field}` |" in page


# --- the site ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    for module in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(module, reason="needs Material for MkDocs and mkdocstrings: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    _run("mkdocs", "build", "--strict", "--site-dir", str(folder))
    return folder


def test_the_site_has_the_pages_with_colours_and_pictures(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<span class="k\w*">heads</span>', index), "specs have no colours: is circuitdsl installed?"
    assert (site / "examples" / "ioi-short.svg").exists()
    assert not list(site.rglob("*.py"))
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert "Check every claim of a spec against the model." in python
    for path in HOOKS.pages():
        assert (site / path).with_suffix(".html").exists()


def test_lists_and_tables_are_seen_as_such(site: Path) -> None:
    """Markdown in Python needs an empty line before them where others do not."""
    for page in site.rglob("*.html"):
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert re.findall(r"\n- .*|<p>\|.*|```.*", text) == [], page.name


def test_what_pages_link_to_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        for target in re.findall(r"(?:src|href)=[\"']?([^\"'#?> ]+)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:|/", target):
                assert (page.parent / unquote(target)).exists(), f"{page.name} links to {target}"


def test_no_page_asks_another_server(site: Path) -> None:
    fetched = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^\"' >]*")
    for page in site.rglob("*.html"):
        assert fetched.findall(page.read_text(encoding="utf-8")) == []
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")) == []


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where a server of our own shows the site."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_browser_asks_no_other_server_and_finds_words(address: str, tmp_path: Path) -> None:
    with chromium(tmp_path) as context:
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: asked.append(str(error)))
        page.goto(f"{address}/tutorial.html")
        page.get_by_role("textbox", name="Search").fill("negligible")
        page.locator(".md-search-result__item").first.wait_for()
        assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def _run(*command: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
