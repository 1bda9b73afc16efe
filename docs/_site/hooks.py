"""Pages of the documentation that are made from the code, so that they cannot be out of date. MkDocs calls the hooks.

The functions that write a page return its Markdown and know nothing of MkDocs.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import circuitdsl
from circuitdsl import cli
from circuitdsl.api import shipped_specs
from circuitdsl.circuit.shapes import EMBEDDED
from circuitdsl.measurements import KINDS

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
#: the embedded models, by the name of their page
CARDS = {f"{name}-model": directory for name, directory in EMBEDDED.items()}
#: where the site keeps files of the repository that pages link to
FILES = "files"
#: a link of a page in docs/ to a file beside docs/
_OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)\)")


# --- what MkDocs calls -------------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and pictures that are made here, and the files beside docs/ that pages link to."""
    from mkdocs.structure.files import File

    for path, content in {**pages(), **pictures(), **linked()}.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/ lead to the site's copy of the file. A page without neighbours has no list of them."""
    if page.parent is None:
        page.meta["hide"] = ["navigation", "toc"] if page.is_homepage else ["navigation"]
    return _inside(markdown, page.file.src_uri)


# --- the files ---------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Every page that is made here, by its path in the site."""
    return {
        "gallery.md": gallery(),
        "reference/measurements.md": measurements(),
        "reference/command-line.md": command_line(),
        "reference/python.md": python(),
        "reference/report-schema.md": report_schema(),
        "reference/diagnostics.md": (ROOT / "circuitdsl/language/codes.md").read_text(encoding="utf-8"),
        "reference/changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        **{f"reference/{page}.md": _card(page, directory) for page, directory in CARDS.items()},
    }


def _card(page: str, directory: Path) -> str:
    """A model card, whose links are those of the site."""
    text = (directory / "README.md").read_text(encoding="utf-8").replace("(curves.svg)", f"({page}-curves.svg)")
    return text.replace("(../pocket/README.md)", "(pocket-model.md)")


def pictures() -> dict[str, bytes]:
    """A picture of every shipped spec: the one in docs/, with its verdicts, where there is one, else as it is drawn.

    And those of the model cards.
    """
    drawn = {
        f"reference/{page}-curves.svg": (directory / "curves.svg").read_bytes() for page, directory in CARDS.items()
    }
    for name, path in _specs().items():
        known = DOCS / f"{name.replace('/', '-').replace('_', '-')}.svg"
        drawn[f"gallery/{name}.svg"] = known.read_bytes() if known.exists() else _drawn(path)
    return drawn


def linked() -> dict[str, str]:
    """The shipped specs, and what pages link to outside docs/."""
    texts = [page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")]
    paths = {target for text in texts for target in _OUTSIDE.findall(text)}
    paths |= {f"specs/{name}.circ" for name in _specs()} | {"circuitdsl/report/schema.json"}
    return {f"{FILES}/{path}": (ROOT / path).read_text(encoding="utf-8") for path in sorted(paths)}


def _inside(markdown: str, page: str) -> str:
    return markdown if "/" in page else _OUTSIDE.sub(rf"]({FILES}/\1)", markdown)


def _specs() -> dict[str, Path]:
    """`pocket/ioi` and all other shipped specs; those of the embedded models first."""
    found = sorted(shipped_specs().rglob("*.circ"), key=lambda path: (path.parent.name not in EMBEDDED, path))
    return {f"{path.parent.name}/{path.stem}": path for path in found}


def _drawn(path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "circuit.svg"
        spec = circuitdsl.load(path)
        circuitdsl.render(spec, picture, circuit=spec.circuits[0].name)
        return picture.read_bytes()


# --- the pages ---------------------------------------------------------------------------------------


def gallery() -> str:
    """All shipped specs, each with its picture and its text."""
    parts = [
        "# Circuits that ship\n\n"
        "These specs come with the package. `circuitdsl verify NAME` verifies one. Green arrows hold. Where arrows "
        "have no colours, the picture shows what the spec says, and not what was measured. The specs of GPT-2 state "
        "published claims: of these we have verified only `gpt2-small/channels`.\n"
    ]
    for name, path in _specs().items():
        spec, text = circuitdsl.load(path), path.read_text(encoding="utf-8")
        title = spec.circuits[0].title or spec.circuits[0].name
        indented = "".join(f"    {line}" for line in text.splitlines(keepends=True))
        parts.append(
            f"## {name}\n\n{title} · [the spec as a file]({FILES}/specs/{name}.circ)\n\n"
            f"[![The circuit of {name}](gallery/{name}.svg)](gallery/{name}.svg)\n\n"
            f'??? note "The spec"\n\n    ```circ\n{indented}    ```\n'
        )
    return "\n".join(parts)


def measurements() -> str:
    """Every kind of measurement in the order of `KINDS`: its words, what it is, how it is written, examples."""
    parts = [
        "# Measurements\n\nWhat a line of a spec can be about. [The language](../language.md) puts them together.\n"
    ]
    for kind in KINDS:
        source = (inspect.getdoc(inspect.getmodule(kind)) or "").split("\n\n")[0].replace("\n", " ")
        title = ", ".join(f"`{word}`" for word in kind.words) or _spaced(kind.__name__)
        rows = "".join(f"| {row} |\n" for row in kind.usage)
        table = f"| measurement | of | takes |\n|---|---|---|\n{rows}\n" if rows else ""
        examples = "\n".join(kind.examples)
        parts.append(f"## {title}\n\n{source}\n\n{table}```circ\n{examples}\n```\n")
    return "\n".join(parts)


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()


def command_line() -> str:
    """Every verb with its usage and its arguments, as the parser has them."""
    parser = cli.command_line()
    parts = [f"# Command line\n\n{parser.description}\n\nThe {parser.epilog}.\n"]
    for verb in _verbs(parser):
        parts.append(_verb(verb, 2))
        parts += [_verb(inner, 3) for inner in _verbs(verb)]
    return "\n".join(parts)


def _verbs(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def _verb(parser: argparse.ArgumentParser, level: int) -> str:
    formatter = argparse.HelpFormatter(parser.prog, width=90)
    formatter.add_usage(parser.usage, parser._actions, [], prefix="")
    rows = [_argument(action) for action in parser._actions if action.help is not argparse.SUPPRESS]
    title = parser.prog.partition(" ")[2]
    said = "\n\n".join(text for text in (parser.description, parser.epilog) if text)
    usage = formatter.format_help().strip()
    table = "| argument | |\n|---|---|\n" + "".join(rows)
    return f"{'#' * level} {title}\n\n{said}\n\n```text\n{usage}\n```\n\n{table}"


def _argument(action: argparse.Action) -> str:
    values = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.metavar or action.dest.upper()
    if action.option_strings:
        shown = ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {values}")
    else:
        shown = str(action.metavar or action.dest)
    said = (action.help or "").replace("%%", "%")
    return f"| `{_cell(shown)}` | {_cell(said)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def python() -> str:
    """The public names of the package; mkdocstrings fills in their docstrings."""
    parts = ["# Python, name by name\n\n[From Python](../api.md) shows them at work.\n"]
    parts += [f"::: {home}.{name}\n" for name, home in sorted(circuitdsl._HOMES.items())]
    parts.append("## More methods of a Session\n\nThese are functions. A session gives their first argument.\n")
    parts += [
        f"::: {verb.module}.{verb.function}\n    options: {{heading: {name}, toc_label: {name}, heading_level: 3}}\n"
        for name, verb in vars(circuitdsl.Session).items()
        if hasattr(verb, "function")
    ]
    return "\n".join(parts)


def report_schema() -> str:
    """The fields of the JSON report, from its schema."""
    schema = json.loads((ROOT / "circuitdsl/report/schema.json").read_text(encoding="utf-8"))
    rows = "".join(f"| `{_cell(path)}` | {_cell(kind)} | {_cell(said)} |\n" for path, kind, said in _fields(schema, ""))
    return (
        "# The JSON report\n\n`circuitdsl verify SPEC -o report.json` writes it. "
        f"{schema['description']} [The schema as a file](../{FILES}/circuitdsl/report/schema.json)\n\n"
        f"| field | type | |\n|---|---|---|\n{rows}"
    )


def _fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, _type(field), field.get("description", "")
        yield from _fields(field, here)
        for inner in (field, *field.get("anyOf", ()), *field.get("oneOf", ())):
            if inner is not field:
                yield from _fields(inner, here)
            if isinstance(items := inner.get("items"), dict):
                yield from _fields(items, f"{here}[]")


def _type(field: dict[str, Any]) -> str:
    if "enum" in field or "const" in field:
        return " or ".join(json.dumps(value) for value in field.get("enum", [field.get("const")]))
    choices = field.get("anyOf", field.get("oneOf"))
    if choices:
        return " or ".join(_type(choice) for choice in choices)
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    kinds = field.get("type", "any")
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
