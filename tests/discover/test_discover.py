"""Discovery on the pocket model: what it finds is there, and what it writes holds on fresh prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import Spec, load, loads, make_bench, make_benches
from circuitdsl.circuit.claims import Node, Position
from circuitdsl.circuit.compare import heads_of
from circuitdsl.discover.discover import discover
from circuitdsl.discover.places import places
from circuitdsl.discover.search import Found, Search, search
from circuitdsl.errors import UserError
from circuitdsl.language.format import format_text
from circuitdsl.measure.bench import Bench
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.verification.verify import verify


def head(seed: int, task: str = "ioi", prompts: int = 256) -> list[str]:
    return ["circuit drafted", 'model "pocket"', f"task {task}(prompts = {prompts}, seed = {seed})"]


@pytest.fixture(scope="module")
def model() -> Transformer:
    return load_model("pocket", "cpu")


@pytest.fixture(scope="module")
def bench(model: Transformer) -> Bench:
    return bench_of(model, head(1, prompts=64))


def bench_of(model: Transformer, lines: list[str]) -> Bench:
    circuit = loads("\n".join([*lines, "expect accuracy >= 0%\n"])).circuits[0]
    return make_bench(circuit, circuit.tasks[0], model)


@pytest.fixture(scope="module")
def found(bench: Bench) -> Found:
    return search(bench, Search(prompts=64))


def test_every_token_is_searched_under_one_name(bench: Bench) -> None:
    named = [str(place) for place in places(bench)]
    assert named[0] == "END"
    assert {"IO", "S1", "S2", "S1+1"} <= set(named)
    assert not {"ANSWER", "DISTRACTOR"} & set(named)  # IO, and both mentions of the subject


def test_positions_of_several_tokens_are_searched_too(model: Transformer) -> None:
    named = [str(place) for place in places(bench_of(model, head(1, "laundry_list", 32)))]
    assert {"ANSWER", "AGAIN"} & set(named) and "DISTRACTOR" not in named[:3]


def test_it_finds_the_heads_that_the_shipped_spec_names(found: Found) -> None:
    """Heads that write against the subject, found from the logits alone, with the sign that the spec gives them."""
    direct = {link.sender for s in found.sendings if s.receivers.name == "logits" for link in s.links if link.lowers}
    assert {Node("head", 0, 3), Node("head", 0, 5), Node("head", 0, 6), Node("mlp", 1)} <= direct
    known = heads_of(load("pocket/ioi").circuits[0])
    drafted = {node for group in found.groups for node in group.nodes if node.kind == "head"}
    assert len(known & drafted) >= 5
    assert Node("head", 3, 3) not in drafted  # idle, says the spec


def test_names_come_in_through_the_values_at_both_mentions(found: Found) -> None:
    ends = {(str(link.position), link.lowers) for s in found.sendings for link in s.links if link.port == "v"}
    assert {("IO", True), ("S2", True), ("S1", False)} <= ends


def test_the_draft_holds_on_fresh_prompts(model: Transformer, bench: Bench) -> None:
    def check(text: str, seed: int):
        return verified(loads(text), model)

    made = discover(bench, head, Search(prompts=64), check)
    assert format_text(made.text) == made.text
    fresh = loads(made.text)
    assert fresh.ok and {d.code for d in fresh.diagnostics} <= {"W070"}
    assert fresh.circuits[0].tasks[0].seed == bench.data.seed + 2
    report = verified(fresh, model)
    assert report.exit_status() == 0, [(c.text, c.reason) for c in report.claims if c.verdict != "holds"]
    assert len(report.claims) >= 8


def verified(spec: Spec, model: Transformer):
    circuit = spec.circuits[0]
    return verify(circuit, model, make_benches(circuit, model))


def test_a_search_can_be_stopped(bench: Bench) -> None:
    stopped = search(bench, Search(prompts=32), lambda edges, what: edges == 0)
    assert not stopped.complete
    assert {s.receivers.name for s in stopped.sendings} == {"logits"}


def test_nothing_is_found_where_nothing_is_claimed_to_be(bench: Bench) -> None:
    nothing = search(bench, Search(threshold=0.9, prompts=64))
    assert nothing.sendings == []


def test_a_task_that_the_model_does_not_do_is_refused(model: Transformer) -> None:
    unable = bench_of(model, [*head(0, prompts=64), "metric logprob"][:3])
    swapped = replace(unable, clean=unable.corrupt, corrupt=unable.clean)
    with pytest.raises(UserError, match="does not do this task"):
        discover(swapped, head)


def test_the_command_writes_a_spec_and_replaces_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "draft.circ"
    arguments = ["discover", "--task", "ioi", "--prompts", "32", "--depth", "1", "-o", str(target)]
    assert cli.run(arguments) == 0
    spec = load(target)
    assert spec.ok and spec.circuits[0].name == "ioi"
    assert Position("END") in spec.circuits[0].groups[0].positions
    assert cli.run(arguments) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "why"),
    [("iio", "unknown task"), ("ioi(corrupt = nothing)", "unknown corruption"), ("ioi(x", "")],
)
def test_a_wrong_task_is_said(task: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["discover", "--task", task]) == 2
    assert why in capsys.readouterr().err
