"""The generators against the papers' own prompts."""

from __future__ import annotations

import json
import re

from circuitdsl.tasks import colored_objects as co
from circuitdsl.tasks import ioi
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.template import fill
from tests.conftest import shared


def test_ioi_vocabulary_is_single_tokens_of_gpt2(gpt2_tokens) -> None:
    """Wang et al. 2022, appendix E: every word drawn is one token; their code has 99 names, 8 places, 8 objects."""
    words = gpt2_tokens.words(TASKS["ioi"])
    assert (len(words["names"]), len(words["places"]), len(words["objects"])) == (99, 8, 8)


def test_ioi_prompts_have_the_papers_form(gpt2_tokens) -> None:
    """Figure 14: fifteen templates in two orders; lengths of 14 to 20 tokens; S twice, IO once."""
    data = sample(TASKS["ioi"], gpt2_tokens, 600)
    assert len({pair.stratum for pair in data.pairs}) == 30
    assert "Then, {A} and {B} went to the {PLACE}. {S2} gave a {OBJECT} to" in ioi.TEMPLATES
    for pair in data.pairs:
        at = {name: pair.clean_tokens[pair.positions[name][0]] for name in ("IO", "S1", "S2")}
        assert at["S1"] == at["S2"] == pair.distractors[0]
        assert at["IO"] == pair.answers[0]
        assert pair.clean_tokens.count(at["IO"]) == 1
        assert (pair.positions["IO"] < pair.positions["S1"]) == pair.stratum.startswith("ABBA")
        assert pair.clean.endswith(" to")


def test_ioi_corruptions_change_what_they_say(gpt2_tokens) -> None:
    changes = {
        "abc": {"IO", "S1", "S2"},
        "flip": {"S2"},
        "s2": {"S2"},
        "swap": {"IO", "S1"},
        "io": {"IO"},
        "s": {"S1", "S2"},
    }
    for corruption, names in changes.items():
        for pair in sample(TASKS["ioi"], gpt2_tokens, 40, corrupt=corruption).pairs:
            differ = {i for i, (a, b) in enumerate(zip(pair.clean_tokens, pair.corrupt_tokens, strict=True)) if a != b}
            assert differ == {pair.positions[name][0] for name in names}
            if corruption == "abc":
                assert len({pair.corrupt_tokens[i] for i in differ}) == 3
            if corruption == "flip":
                assert pair.corrupt_tokens[pair.positions["S2"][0]] == pair.answers[0]


def test_colored_objects_makes_the_papers_prompts() -> None:
    """All 1000 prompts of Merullo et al. have this template and these words; the partner asks about another object."""
    folder = shared("colored_objects")
    clean = json.loads((folder / "clean.json").read_text())
    corrupt = json.loads((folder / "corrupt.json").read_text())
    pattern = _pattern()
    surfaces, starts, colors, objects = set(), set(), set(), set()
    for (text, answer), (other, other_answer) in zip(clean, corrupt, strict=True):
        found, partner = pattern.fullmatch(text), pattern.fullmatch(other)
        assert found and partner, text
        scene = {found[f"OBJECT{i}"]: found[f"COLOR{i}"] for i in (1, 2, 3)}
        example = {found[f"EXAMPLE_OBJECT{i}"]: found[f"EXAMPLE_COLOR{i}"] for i in (1, 2, 3)}
        assert answer == " " + scene[found["QUERY"]].capitalize()
        assert found["LABEL"] == example[found["EXAMPLE_QUERY"]].capitalize()
        assert not set(scene) & set(example) and not set(scene.values()) & set(example.values())
        differ = {name for name in found.groupdict() if found[name] != partner[name]}
        assert differ == {"QUERY"} and other_answer == " " + scene[partner["QUERY"]].capitalize() != answer
        surfaces |= {found["SURFACE"], found["EXAMPLE_SURFACE"]}
        starts |= {found["START"], found["EXAMPLE_START"]}
        colors |= set(scene.values())
        objects |= set(scene)
    assert (surfaces, starts) == (set(co.SURFACES), set(co.STARTS))
    assert (colors, objects) == (set(co.COLORS), set(co.OBJECTS))


TEMPLATE = co._EXAMPLE + co._shot(3)


def _pattern() -> re.Pattern[str]:
    """The generator's own template as a regular expression."""
    seen: set[str] = set()

    def group(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>an?)" if "ARTICLE" in name else f"(?P<{name}>[A-Za-z ]+?)"

    escaped = re.escape(TEMPLATE).replace(r"\{", "{").replace(r"\}", "}").replace(r"\_", "_")
    return re.compile(re.sub(r"\{(\w+)\}", group, escaped))


def test_colored_objects_prompt_equals_one_of_the_papers() -> None:
    """The template filled with a paper prompt's words gives that prompt, letter by letter."""
    text, _ = json.loads((shared("colored_objects") / "clean.json").read_text())[0]
    found = _pattern().fullmatch(text)
    assert found is not None
    assert fill(TEMPLATE, found.groupdict()).text == text
