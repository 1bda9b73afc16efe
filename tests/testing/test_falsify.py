"""Counterexamples are real, as simple as the task allows, and can be read back as a prompt file."""

from __future__ import annotations

import json

import pytest

from circuitdsl import cli
from circuitdsl.api import loads
from circuitdsl.errors import UserError
from circuitdsl.measurements.property import property_of
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.ioi import NAMES, TEMPLATES
from circuitdsl.tasks.registry import TASKS
from circuitdsl.testing.falsify import falsify

SPEC = """circuit t
model "pocket"
task ioi(prompts = 32)
heads suppressor = 0.3 0.5 0.6 at END
property "far behind" for 95% of prompts
  expect logit_diff > 14
property "never"
  expect logit_diff > -50
expect logit_diff >= 14
expect knockout(suppressor) : lowers
"""


def search(pocket, text: str = SPEC, line: str = "5", budget: int = 120, seed: int = 0, path: str = "t.circ"):
    (circuit,) = loads(text, path).circuits
    claim = next(claim for claim in circuit.claims if claim.answers_to(line))
    return falsify(circuit, pocket, claim, claim.tasks[0], budget, seed)


@pytest.fixture
def run(pocket, run):  # the model first: a library keeps the standard error it is loaded under
    return run


def test_what_breaks_everywhere_shrinks_to_the_first_template_and_names(pocket) -> None:
    found = search(pocket, SPEC.replace("> 14", "> 99")).found
    assert found
    words = {"A": NAMES[0], "B": NAMES[1], "S2": NAMES[1], "PLACE": "store", "OBJECT": "ring"}
    usual, swapped = TEMPLATES[0].format(**words), TEMPLATES[0].format(**words | {"S2": NAMES[0]})
    assert found.pair.clean in (usual, swapped)
    assert found.pair.stratum.endswith("-01")


def test_what_breaks_somewhere_is_found(pocket) -> None:
    found = search(pocket).found
    assert found and found.values[0] <= 14
    assert found.pair.clean.startswith("Then, ") and " ring " in found.pair.clean  # the rest is as simple as can be


def test_a_search_is_repeatable(pocket) -> None:
    first, again = search(pocket, budget=40), search(pocket, budget=40)
    assert first.tried == again.tried
    assert first.found and again.found and first.found.pair == again.found.pair


def test_nothing_is_found_where_nothing_is_wrong(pocket) -> None:
    result = search(pocket, line="7", budget=30)
    assert result.found is None
    assert 0 < result.tried <= 30


def test_expectations_of_behaviour_are_taken_prompt_by_prompt_effects_are_not(pocket) -> None:
    (circuit,) = loads(SPEC).circuits
    by_line = {claim.line: claim for claim in circuit.claims}
    assert property_of(by_line[9]) and not property_of(by_line[10])
    assert search(pocket, line="9").found
    with pytest.raises(UserError, match="not about single prompts"):
        search(pocket, line="10")


def test_attribution_has_a_value_on_every_prompt(pocket) -> None:
    found = search(pocket, SPEC + "expect attribution(suppressor) > 99\n", line="11", budget=5).found
    assert found and found.values[0] <= 99
    assert search(pocket, SPEC + "expect attribution(suppressor) > -99\n", line="11", budget=5).found is None


@pytest.mark.parametrize("task", ["greater_than", "induction", "laundry_list", "colored_objects"])
def test_every_task_can_be_searched(pocket, task: str) -> None:
    text = f'circuit t\nmodel "pocket"\ntask {task}\nmetric logit_diff\nproperty "p"\n  expect logit_diff > 99\n'
    found = search(pocket, text, budget=5).found
    assert found and found.values[0] < 99


def test_a_counterexample_is_saved_and_read_back(run, tmp_path) -> None:
    path, out = tmp_path / "t.circ", tmp_path / "broken.jsonl"
    path.write_text(SPEC)
    status, said, _ = run("falsify", str(path), "--property", "far behind", "--budget", "120", "-o", str(out))
    assert status == 1
    for says in ("not > 14", "tokens     0 Then", "positions  IO ", "allows exceptions", "the simplest found among"):
        assert says in said
    (line,) = out.read_text().splitlines()
    assert json.loads(line)["clean"] in said
    path.write_text(
        SPEC.replace("ioi(prompts = 32)", 'broken = file("broken.jsonl")').replace(" for 95% of prompts", "")
    )
    status, said, _ = run("verify", str(path), "--claim", "5")
    assert status == 1
    assert "1 of 1 prompts break it" in said
    status, said, _ = run("falsify", str(path), "--property", "5")
    assert status == 1


@pytest.mark.parametrize("bos", ["", ", bos = yes", ", bos = no"])
def test_a_counterexample_is_read_back_whatever_the_task_says_of_bos(run, tmp_path, bos: str) -> None:
    path, out = tmp_path / "t.circ", tmp_path / "broken.jsonl"
    path.write_text(SPEC.replace("prompts = 32", f"prompts = 32{bos}"))
    status, first, _ = run("falsify", str(path), "--property", "far behind", "--budget", "40", "-o", str(out))
    assert status == 1
    begins = json.loads(out.read_text())["clean_tokens"][0] == 0
    assert begins is (bos == ", bos = yes")
    for given in ("", bos):
        asked = f'broken = file("broken.jsonl"{given})'
        path.write_text(SPEC.replace("ioi(prompts = 32)", asked).replace(" for 95% of prompts", ""))
        assert run("check", str(path))[0] == 0
        status, again, _ = run("falsify", str(path), "--property", "5")
        assert status == 1
        tokens = [line for line in (*first.splitlines(), *again.splitlines()) if line.strip().startswith("tokens ")]
        assert len(tokens) == 2 and tokens[0] == tokens[1]


def test_one_prompt_with_other_answers_is_another_prompt(pocket, pocket_tokens, tmp_path) -> None:
    (pair,) = sample(TASKS["ioi"], pocket_tokens, 1).pairs
    right = pair.record()
    wrong = right | {"answer": right["distractor"], "distractor": right["answer"]}
    (tmp_path / "p.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in (right, wrong)))
    text = 'circuit t\nmodel "pocket"\ntask p = file("p.jsonl")\nproperty "right"\n  expect accuracy >= 100%\n'
    result = search(pocket, text, line="4", path=str(tmp_path / "t.circ"))
    assert result.tried == 2
    assert result.found and result.found.pair.answers == pair.distractors


def test_from_the_command_line(run, tmp_path) -> None:
    path = tmp_path / "t.circ"
    path.write_text(SPEC)
    status, said, _ = run("falsify", str(path), "--property", "never", "--budget", "10")
    assert status == 0
    assert "no counterexample in" in said
    status, said, _ = run("falsify", str(path), "--claim", "9", "--budget", "120")
    assert status == 1
    assert "one prompt does not refute it" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--property", "none"), 'the spec has: line 5, property "far behind" for 95% of prompts; line 7'),
        (("--claim", "99"), "named by its line in the spec"),
        (("--claim", "10"), "line 10 is not about single prompts: expect knockout(suppressor) : lowers"),
        (("--claim", "11"), "line 11 is not about single prompts: channel 0.1 -> 2.4.q"),
    ],
)
def test_what_cannot_be_searched_is_status_2(run, tmp_path, arguments, says: str) -> None:
    """A channel has no prompts at all: without a word of its own the search would pass with nothing looked at."""
    path = tmp_path / "t.circ"
    path.write_text(SPEC + "channel 0.1 -> 2.4.q : composition <= 0.9\n")
    status, said, err = run("falsify", str(path), *arguments)
    assert (status, said) == (2, "")
    assert err.startswith("error: ") and says in err


def test_a_spec_without_a_property_is_status_2(run, tmp_path) -> None:
    path = tmp_path / "t.circ"
    path.write_text("\n".join(SPEC.splitlines()[:4]) + "\nexpect accuracy >= 5%\n")
    status, _, err = run("falsify", str(path))
    assert status == 2
    assert "has no property" in err and "--claim LINE" in err


def test_the_search_leaves_nothing_in_the_folder(tmp_path, monkeypatch) -> None:
    (tmp_path / "t.circ").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    assert cli.run(["falsify", "t.circ", "--property", "never", "--budget", "1"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"t.circ"}
