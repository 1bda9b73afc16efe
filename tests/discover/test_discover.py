"""Discovery on the pocket model: what it finds is there, and what it writes holds on fresh prompts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import Spec, load, loads
from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.compare import heads_of
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.discover.complete import completed
from circuitdsl.discover.discover import Discovery, discover, name_of, split
from circuitdsl.discover.draft import Draft, Named, _claim, named, written
from circuitdsl.discover.search import END, Found, Group, Link, Search, Sending, places, search
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.language.format import format_text
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.report.report import ClaimResult, Report
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.tasks.from_file import spread
from circuitdsl.verify.prompts import make_data, make_prompts, prompts_by_task
from circuitdsl.verify.verify import verify


def head(seed: int, task: str = "ioi", prompts: int = 256) -> list[str]:
    return ["circuit drafted", 'model "pocket"', f"task {task}(prompts = {prompts}, seed = {seed})"]


@pytest.fixture(scope="module")
def model() -> Transformer:
    return load_model("pocket", "cpu")


@pytest.fixture(scope="module")
def bench(model: Transformer) -> Prompts:
    return bench_of(model, head(1, prompts=64))


def bench_of(model: Transformer, lines: list[str]) -> Prompts:
    circuit = loads("\n".join([*lines, "expect accuracy >= 0%\n"])).circuits[0]
    return make_prompts(circuit, circuit.tasks[0], model)


@pytest.fixture(scope="module")
def found(bench: Prompts) -> Found:
    return search(bench, Search(prompts=64))


def test_every_token_is_searched_under_one_name(bench: Prompts) -> None:
    named = [str(place) for place in places(bench)]
    assert named[0] == "END"
    assert {"IO", "S1", "S2", "S1+1"} <= set(named)
    assert not {"ANSWER", "DISTRACTOR"} & set(named)  # IO, and both mentions of the subject


def test_positions_of_several_tokens_are_searched_too(model: Transformer) -> None:
    named = [str(place) for place in places(bench_of(model, head(1, "laundry_list", 32)))]
    assert {"ANSWER", "AGAIN"} & set(named) and "DISTRACTOR" not in named[:3]


def test_it_finds_the_heads_that_the_shipped_spec_names(found: Found) -> None:
    """Heads that write against the subject, found from the logits alone, with the sign that the spec gives them."""
    direct = {link.sender for s in found.sendings if s.receivers.kind == "logits" for link in s.links if link.lowers}
    assert {Node("head", 0, 3), Node("head", 0, 5), Node("head", 0, 6), Node("mlp", 1)} <= direct
    known = heads_of(load("pocket/ioi").circuits[0])
    drafted = {link.sender for s in found.sendings for link in s.links if link.sender.kind == "head"}
    assert len(known & drafted) >= 5
    assert Node("head", 3, 3) not in drafted  # idle, says the spec


def test_names_come_in_through_the_values_at_both_mentions(found: Found) -> None:
    ends = {(str(link.position), link.lowers) for s in found.sendings for link in s.links if link.port == "v"}
    assert {("IO", True), ("S2", True), ("S1", False)} <= ends


def test_every_edge_that_is_said_exists(found: Found) -> None:
    """MLPs that send to MLPs: m1 to m2 and m3, m2 to m3 alone."""
    for sending in found.sendings:
        for sender in sending.group.nodes:
            assert all(sender.stage() < receiver.stage() for receiver in sending.receivers.nodes)
    assert any(s.group.kind == s.receivers.kind == "mlp" for s in found.sendings)


@pytest.fixture(scope="module")
def draft(model: Transformer, bench: Prompts, found: Found) -> Discovery:
    """The draft of the search `found`."""
    return drafted(bench, found, lambda text: verified(loads(text), model))


def drafted(bench: Prompts, found: Found, check: Callable[[str], Report]) -> Discovery:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitdsl.discover.discover.search", lambda *_: found)
        return discover(bench, head, check, Search(prompts=64))


def test_the_draft_holds_on_fresh_prompts(model: Transformer, bench: Prompts, draft: Discovery) -> None:
    made = draft
    assert format_text(made.text) == made.text
    fresh = loads(made.text)
    assert not fresh.diagnostics
    assert fresh.circuits[0].tasks[0].seed == bench.data.seed + 2
    report = verified(fresh, model)
    assert report.exit_status() == 0, [(c.text, c.reason) for c in report.claims if c.verdict != "holds"]
    assert len(report.claims) >= 8


def test_heads_are_grouped_by_the_role_whose_checks_they_pass(draft: Discovery) -> None:
    roles = {group.role: group.nodes for group in loads(draft.text).circuits[0].groups if group.nodes[0].kind == "head"}
    assert {Node("head", 0, h) for h in (3, 5, 6)} <= set(roles["inhibition"])
    assert set(roles) <= {"inhibition", None}
    assert "expect role(inhibition)" in draft.text


@pytest.mark.long
def test_a_head_that_fails_on_other_prompts_loses_its_role(model: Transformer, bench: Prompts, found: Found) -> None:
    """It is written as any head that has none, and the role is claimed of the others."""
    lost = Node("head", 0, 5)

    def check(text: str) -> Report:
        return without_role(lost, verified(loads(text), model))

    made = drafted(bench, found, check)
    groups = {group.name: group for group in loads(made.text).circuits[0].groups}
    assert lost not in groups["inhibition"].nodes
    assert [g.role for g in groups.values() if lost in g.nodes and g.name != "inhibition"] == [None]
    assert verified(loads(made.text), model).exit_status() == 0
    assert "role" not in "".join(made.dropped)


def without_role(head: Node, report: Report) -> Report:
    """The report as if a head did not pass the checks of a role that several heads are said to have."""

    def failed(claim: ClaimResult) -> ClaimResult:
        members = tuple(replace(m, verdict="fails") if m.sender == str(head) else m for m in claim.members)
        several = claim.text.startswith("expect role(") and len({m.sender for m in members}) > 1
        return replace(claim, members=members, verdict="fails") if several and members != claim.members else claim

    return replace(report, claims=tuple(map(failed, report.claims)))


@pytest.mark.parametrize(
    ("nodes", "written_as"),
    [
        ("0.1 0.2 0.3 0.4", "four"),
        ("0.1 0.2 0.4", "four - 0.3"),
        ("0.1 0.2", "(0.1 0.2)"),
        ("0.3", "0.3"),
        ("0.1 0.2 0.3 0.4 1.1", "four + one"),
        ("0.1 0.2 1.1 2.2", "(0.1 0.2) + one + 2.2"),
    ],
)
def test_a_set_is_written_by_its_groups(nodes: str, written_as: str) -> None:
    known = [Named("four", group("0.1 0.2 0.3 0.4")), Named("one", group("1.1")), Named("far", group("2.2", "S2"))]
    assert written(group(nodes), known) == written_as


@pytest.mark.parametrize(
    ("nodes", "receives"),
    [("0.3", "0.3.v"), ("0.1 0.2", "(0.1 0.2).v"), ("0.1 0.2 1.1 1.2", "((0.1 0.2) + (1.1 1.2)).v")],
)
def test_a_set_that_receives_is_in_brackets(nodes: str, receives: str) -> None:
    known = [Named("four", group("0.1 0.2 0.3 0.4")), Named("three", group("1.1 1.2 1.3"))]
    joint = Link(Node("head", 0, 1), "v", Position("END"), -0.5, -0.6, -0.4)
    claim = _claim(Sending(group("0.1"), group(nodes), (), joint), known, 0.02)
    assert f"-> {receives} at END" in claim


def test_every_node_is_in_one_group_for_each_position() -> None:
    senders = [group("0.1 0.2 1.1"), group("0.1 0.2 0.3"), group("0.1 0.3", "S2")]
    roles = {(Node("head", 0, 1), END): "mover", (Node("head", 0, 3), END): "mover"}
    plain = {n.name: (n.group, n.role) for n in named(senders, roles)}
    assert plain == {
        "mover": (group("0.1 0.3"), "mover"),
        "end_1": (group("0.2 1.1"), None),
        "s2_1": (group("0.1 0.3", "S2"), None),
    }
    roles |= {(Node("head", 0, 1), Position("S2")): "mover"}
    assert [n.definition for n in named(senders, roles) if n.role] == [
        "heads mover_end = 0.1 0.3 at END role mover",
        "heads mover_s2 = 0.1 at S2 role mover",
    ]


def group(nodes: str, position: str = "END") -> Group:
    return Group(tuple(Node("head", *map(int, node.split("."))) for node in nodes.split()), Position(position))


def verified(spec: Spec, model: Transformer):
    circuit = spec.circuits[0]
    return verify(circuit, model, prompts_by_task(circuit, model))


def test_a_search_can_be_stopped(bench: Prompts) -> None:
    stopped = search(bench, Search(prompts=32), lambda edges, what: edges == 0)
    assert not stopped.complete
    assert {s.receivers.kind for s in stopped.sendings} == {"logits"}


def test_nothing_is_found_where_nothing_is_claimed_to_be(bench: Prompts) -> None:
    nothing = search(bench, Search(threshold=0.9, prompts=64))
    assert nothing.sendings == []


def test_a_task_that_the_model_does_not_do_is_refused(model: Transformer) -> None:
    unable = bench_of(model, [*head(0, prompts=64), "metric logprob"][:3])
    swapped = replace(unable, clean=unable.corrupt, corrupt=unable.clean)
    with pytest.raises(UserError, match="does not do this task"):
        discover(swapped, head, lambda text: verified(loads(text), model))


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


# --- how complete a draft is ------------------------------------------------------------------------


def test_a_draft_says_how_much_its_circuit_does_alone(draft: Discovery, model: Transformer) -> None:
    """On prompts that the search has not seen, and as claims that hold there."""
    assert draft.complete is not None and draft.complete.without is not None
    assert draft.complete.alone.value > 0.8
    assert f'note "on prompts held back, {draft.complete}"' in " ".join(draft.text.split())
    assert str(draft.complete) in draft.summary
    assert "fragment" not in draft.text
    (bound,) = (line for line in draft.draft.expectations if "faithfulness" in line)
    circuit = loads(draft.text.replace(bound, "expect faithfulness(ablate = mean) >= 0%")).circuits[0]
    again = verify(circuit, model, prompts_by_task(circuit, model))
    (alone,) = (claim.measured for claim in again.claims if "faithfulness" in claim.text)
    assert alone is not None and alone.value == pytest.approx(draft.complete.alone.value, abs=0.1)


def test_a_fragment_is_called_one(model: Transformer, bench: Prompts) -> None:
    """A circuit without most of what a whole one has does little alone, and no bound is claimed that it misses."""

    def check(text: str) -> Report:
        circuit = loads(text).circuits[0]
        return verify(circuit, model, prompts_by_task(circuit, model))

    mover = Named("mover", group("2.5"))
    few = Draft(tuple(head(3, prompts=64)), (mover,), ("mover -> logits at END : lowers",), ())
    made, complete = completed(few, "logit_diff", check, check)
    assert complete is not None and complete.alone.value < 0.3
    assert "of the gap in logit_diff: it is a fragment; its incompleteness is" in str(complete)
    report = check(made.text())
    assert {claim.verdict for claim in report.claims if "completeness" in claim.text} == {"holds"}
    assert all(claim.verdict == "holds" for claim in report.claims if "faithfulness" in claim.text)


def test_a_draft_without_heads_is_not_run_alone(model: Transformer) -> None:
    few = Draft(tuple(head(3)), (), ("embed -> logits at END : lowers",), ())
    assert completed(few, "logit_diff", pytest.fail, pytest.fail) == (few, None)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("ioi(corrupt = flip)", "ioi"),
        ("ioi", "ioi"),
        ('file("data/Pronouns of 2024.jsonl")', "pronouns_of_2024"),
        ('file("7 names.csv", seed = 1)', "prompts_7_names"),
        ('file("heads.jsonl")', "heads_"),
        ('file("m3.jsonl")', "m3_"),
        ('file("…")', "prompts"),
    ],
)
def test_a_circuit_is_named_after_its_task_or_its_prompts(task: str, name: str) -> None:
    assert name_of(task) == name
    assert loads(f'circuit {name}\nmodel "pocket"\ntask ioi\nexpect accuracy >= 1%\n').ok


# --- prompt files -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with an empty one in it."""
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written_prompts(path: Path, n: int) -> set[object]:
    """A prompt file of IOI, and what its prompts are measured by."""
    found = prompts_of(f'task ioi(prompts = {n}, seed = 5)\nmodel "pocket"')
    path.write_text("".join(json.dumps(pair.record()) + "\n" for pair in found))
    return {pair.measured for pair in found}


def prompts_of(lines: str, path: str = "<text>") -> tuple[PromptPair, ...]:
    spec = loads(f"circuit t\n{lines}\nexpect accuracy >= 0%\n", path, allow_outside=True)
    circuit = spec.circuits[0]
    return make_data(circuit, circuit.tasks[0], load_model("pocket", "cpu")).pairs


def drafted_from_file(
    folder: Path, n: int, seen: list[tuple[PromptPair, ...]], monkeypatch: pytest.MonkeyPatch
) -> Spec:
    """The draft of a search on a prompt file; every bench that is searched or checked on is noted."""
    from circuitdsl.discover import discover as module
    from circuitdsl.verify import verify as verification

    def searching(bench: Prompts, *rest: object) -> Found:
        seen.append(bench.pairs)
        return search(bench, *rest)  # type: ignore[arg-type]

    def verifying(circuit: Circuit, model: Transformer, benches: dict[str, Prompts]) -> Report:
        seen.extend(bench.pairs for bench in benches.values())
        return verify(circuit, model, benches)

    monkeypatch.setattr(module, "search", searching)
    monkeypatch.setattr(verification, "verify", verifying)
    written_prompts(folder / "p.jsonl", n)
    assert cli.run(["discover", "--task", "p.jsonl", "--depth", "1", "-o", "sub/d.circ"]) == 0
    return load("sub/d.circ", allow_outside=True)


def test_a_draft_of_a_prompt_file_is_checked_on_prompts_held_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[PromptPair, ...]] = []
    spec = drafted_from_file(folder, 100, seen, monkeypatch)
    searched, *asked, checked = ({pair.measured for pair in pairs} for pairs in seen)
    assert (len(searched), len(checked)) == (50, 50) and not searched & checked
    assert all(prompts in (searched, checked) for prompts in asked)
    (use,) = spec.circuits[0].tasks
    data = make_data(spec.circuits[0], use, load_model("pocket", "cpu"))
    assert {pair.measured for pair in data.pairs} == checked  # the draft asks for those that were held back
    said = "found on 50 of the 100 prompts of its file, and checked on 50 others"
    err = capsys.readouterr().err
    assert said in spec.text and said in err
    assert "run it with --allow-outside" in err
    assert spec.circuits[0].name == "p"
    assert "on prompts held back, alone this circuit recovers" in spec.text and "alone this circuit recovers" in err


@pytest.fixture(scope="module")
def of_forty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Spec, list[tuple[PromptPair, ...]]]:
    """The draft of a search on a prompt file of 40 prompts: its folder, the spec, and what was measured."""
    place, seen = tmp_path_factory.mktemp("forty"), list[tuple[PromptPair, ...]]()
    (place / "sub").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIRCUITDSL_CACHE", str(place / "cache"))
        patch.chdir(place)
        return place, drafted_from_file(place, 40, seen, patch), seen


def test_too_few_prompts_are_not_split_and_the_draft_says_so(of_forty) -> None:
    _, spec, seen = of_forty
    assert len({frozenset(pair.measured for pair in pairs) for pairs in seen}) == 1
    assert "found on 40 prompts and checked on the same" in spec.text
    assert "on the prompts on which it was found, alone this circuit recovers" in spec.text


def test_halves_have_the_strata_in_their_shares(folder: Path) -> None:
    pairs = prompts_of('task ioi(prompts = 90, seed = 5)\nmodel "pocket"')
    strata = [replace(pair, stratum="few" if i < 30 else "many") for i, pair in enumerate(pairs)]
    whole = Dataset("t", "file", 0, False, tuple(spread(strata, lambda pair: pair.stratum)))
    assert Counter(pair.stratum for pair in split(whole, prompts=96, most=256)[0].pairs) == {"few": 15, "many": 30}
    searched, held, _ = split(whole, prompts=20, most=30)
    assert held == 30
    assert len(searched.pairs) == 20


def test_a_draft_names_its_prompt_file_from_where_it_lies(of_forty, monkeypatch: pytest.MonkeyPatch) -> None:
    place, spec, _ = of_forty
    monkeypatch.chdir(place)
    assert spec.circuits[0].tasks[0].file == "../p.jsonl"
    assert spec.ok and len(prompts_of('task file("../p.jsonl")\nmodel "pocket"', "sub/d.circ")) == 40


def test_a_missing_prompt_file_is_said_before_the_model_is_loaded(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["discover", "--model", "no-such-model", "--task", 'file("p.jsonl")']) == 2
    assert "cannot read the prompt file p.jsonl" in capsys.readouterr().err
