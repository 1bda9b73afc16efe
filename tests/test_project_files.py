"""Files for those who cite circuitdsl or report something: they are well formed, and ask for what helps."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))

#: the part of GitHub's form schema that these use
FORM = {
    "type": "object",
    "required": ["name", "description", "body"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 3},
        "description": {"type": "string", "minLength": 3},
        "labels": {"type": "array", "items": {"type": "string"}},
        "body": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["type", "id", "attributes"],
                "additionalProperties": False,
                "properties": {
                    "type": {"enum": ["textarea", "input", "dropdown", "markdown", "checkboxes"]},
                    "id": {"type": "string", "pattern": "^[a-z-]+$"},
                    "attributes": {"type": "object", "required": ["label"]},
                    "validations": {"type": "object"},
                },
            },
        },
    },
}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_issue_template_is_a_form(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    jsonschema.validate(form, FORM)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))


def test_bugs_and_wrong_verdicts_ask_for_the_versions() -> None:
    asking = {path.stem for path in TEMPLATES if "circuitdsl --version --verbose" in path.read_text()}
    assert asking == {"bug", "wrong-verdict"}
    assert {path.stem for path in TEMPLATES} - asking == {"feature"}


def test_the_citation_file_has_what_its_format_asks_for() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(found)
    assert "version" not in found  # it stands in circuitdsl/version.py alone
    assert found["license"] in (ROOT / "LICENSE").read_text()


def test_the_citation_file_is_valid() -> None:
    if find_spec("cffconvert") is None:
        pytest.skip("cffconvert, which has the schema, is not installed: pip install cffconvert")
    from cffconvert import Citation

    Citation((ROOT / "CITATION.cff").read_text()).validate()
