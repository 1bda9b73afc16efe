"""Discovery on the pocket model: what it finds is there, and what it writes holds on fresh prompts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from circuitdsl import cli
from circuitdsl.api import Spec, load, loads
from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.nodes import LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.discover.complete import completed
from circuitdsl.discover.discover import name_of, split
from circuitdsl.discover.discovery import ENDED, Discovery, said_of
from circuitdsl.discover.draft import Draft
from circuitdsl.discover.drafting import Check, Drafting, Search, _limited
from circuitdsl.discover.groups import Named, named, written
from circuitdsl.discover.needed import NODES, Needed, Where, alone, needed
from circuitdsl.discover.places import END, places, tokens_of, word
from circuitdsl.discover.search import Group, Sending, sendings, siblings, worth_saying
from circuitdsl.discover.stability import Stability, edges_of, stability
from circuitdsl.discover.watch import Budget, Watch
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.language.format import format_text
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.report.report import ClaimResult, Report
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.tasks.from_file import spread
from circuitdsl.verify.measure import measure
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


@pytest.fixture(scope="module")
def held(model: Transformer) -> Prompts:
    return bench_of(model, head(2, prompts=128))


def bench_of(model: Transformer, lines: list[str]) -> Prompts:
    circuit = loads("\n".join([*lines, "expect accuracy >= 0%\n"])).circuits[0]
    return make_prompts(circuit, circuit.tasks[0], model)


def verified(text: str, model: Transformer, prompts: Prompts | None = None) -> Report:
    circuit = loads(text).circuits[0]
    return verify(circuit, model, {"ioi": prompts} if prompts else prompts_by_task(circuit, model))


def drafting(bench: Prompts, held: Prompts, settings: Search | None = None, check: Check | None = None) -> Drafting:
    on_held = check or (lambda text: verified(text, bench.model, held))
    on_seen = lambda text: verified(text, bench.model, bench)  # noqa: E731
    return Drafting(
        bench, head(3, prompts=128), on_held, on_seen, Watch("searching", Budget()), settings or Search(prompts=64)
    )


# --- where it looks ---------------------------------------------------------------------------------


def test_every_token_is_searched_by_a_name_or_its_distance_from_one(bench: Prompts) -> None:
    found = places(bench)
    assert str(found[0]) == "END"
    assert {"IO", "S1", "S2", "S1+1"} <= set(map(str, found))
    assert not {"ANSWER", "DISTRACTOR"} & set(map(str, found))  # IO, and both mentions of the subject
    tokens = [frozenset().union(*(tokens_of(pair, place) for place in found)) for pair in bench.pairs]
    every = sum(len(pair.clean_tokens) for pair in bench.pairs)
    assert sum(map(len, tokens)) > 0.95 * every


def test_positions_of_several_tokens_are_searched_too(model: Transformer) -> None:
    named = [str(place) for place in places(bench_of(model, head(1, "laundry_list", 32)))]
    assert {"ANSWER", "AGAIN"} & set(named) and "DISTRACTOR" not in named[:3]


@pytest.mark.parametrize(
    ("place", "said"),
    [(("S2", 0), "s2"), (("S2", 1), "after_s2"), (("QUERY", -2), "query_minus_2")],
)
def test_a_place_in_a_name(place: tuple[str, int], said: str) -> None:
    assert word(Position(*place)) == said


# --- nodes ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def circuit(bench: Prompts) -> Needed:
    return needed(bench, np.arange(40), Where(places(bench)), lambda *_: True)


def test_few_nodes_do_the_whole_behaviour(bench: Prompts, held: Prompts, circuit: Needed) -> None:
    """The suppressors and MLPs that the shipped spec names; on other prompts as well, and as verification has it."""
    assert {Site(Node("head", 0, h), END) for h in (3, 5, 6)} <= circuit.sites
    assert len(circuit.sites) < 12
    assert circuit.value == pytest.approx(1, abs=NODES) and circuit.complete
    there = alone(held, np.arange(len(held.pairs)), circuit.sites)
    assert there == pytest.approx(1, abs=0.12)
    (request,) = [Subgraph("nodes", circuit.sites, mlps=True, ablate="mean")]
    values = measure(held, [request], np.arange(len(held.pairs)))[request].values
    assert there == pytest.approx((values - held.corrupt).mean() / (held.clean - held.corrupt).mean(), abs=1e-4)


def test_what_a_person_names_stays_and_what_is_outside_does_not_come(bench: Prompts) -> None:
    idle, needed_one = Site(Node("head", 3, 3), END), Site(Node("mlp", 2), END)
    where = Where((END,), frozenset([idle]), frozenset([needed_one]))
    found = needed(bench, np.arange(32), where, lambda *_: True)
    assert idle in found.sites and needed_one not in found.sites


@pytest.mark.long
def test_a_search_of_heads_alone_leaves_all_mlps(bench: Prompts) -> None:
    found = needed(bench, np.arange(32), Where((END,), mlps=False), lambda *_: True)
    assert {site.node.kind for site in found.sites} == {"head"}
    assert found.value == pytest.approx(1, abs=0.1)


def test_a_search_can_be_stopped(bench: Prompts) -> None:
    stopped = needed(bench, np.arange(16), Where(places(bench)), lambda left, _: left > 15)
    assert not stopped.complete and len(stopped.sites) > 6


# --- edges ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sent(bench: Prompts) -> list[Sending]:
    groups = [group("0.0 0.3 0.5 0.6"), Group((MLPS[1], MLPS[2], MLPS[3]), (END,)), group("3.3")]
    return sendings(bench, np.arange(64), groups, places(bench), 0.02)[0]


MLPS = [Node("mlp", layer) for layer in range(4)]


def group(nodes: str, *positions: str) -> Group:
    found = (Node("head", *map(int, node.split("."))) for node in nodes.split())
    return Group(tuple(found), tuple(map(Position, positions)) or (END,))


def test_names_come_in_through_the_values_at_both_mentions(sent: list[Sending]) -> None:
    ends = {(str(s.positions[0]), s.lowers) for s in sent if s.port == "v" and s.senders.kind == "embed"}
    assert {("IO", True), ("S2", True), ("S1", False)} <= ends


def test_every_edge_that_is_said_exists_and_idle_heads_send_nothing(sent: list[Sending]) -> None:
    """MLPs that send to MLPs: m1 to m2 and m3."""
    for one in sent:
        assert all(
            sender.stage() < receiver.stage() for sender in one.senders.nodes for receiver in one.receivers.nodes
        )
        assert Node("head", 3, 3) not in one.senders.nodes
    assert any(s.senders.kind == s.receivers.kind == "mlp" for s in sent)


def test_what_is_small_beside_others_is_not_written_down() -> None:
    """But for what a group does most."""
    strong, weak, only = (Sending(group(node), LAST, "in", (END,), effect) for node, effect in SENT)
    kept = worth_saying([strong, weak, only, replace(weak, receivers=group("2.2"), effect=-0.3)])
    assert [str(one.senders.nodes[0]) for one in kept] == ["0.1", "0.3", "0.2"]


LAST = Group((LOGITS,), (END,))
SENT = (("0.1", -0.5), ("0.2", 0.05), ("0.3", -0.04))


def test_heads_that_act_beside_others_are_found(bench: Prompts) -> None:
    """What one head of a group does is found from the others' readers; what is outside is not looked at."""
    deciders = frozenset(Site(node, END) for node in MLPS[1:])
    one, out = Site(Node("head", 0, 6), END), Site(Node("head", 0, 5), END)
    found = siblings(bench, np.arange(64), deciders | {one}, frozenset([out]), 0.02)
    assert Site(Node("head", 0, 3), END) in found and not {one, out} & found
    assert len(found) < 8


# --- drafts -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def draft(bench: Prompts, held: Prompts, circuit: Needed) -> Discovery:
    """Of the nodes that the search has found already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitdsl.discover.drafting.needed", lambda *_: circuit)
        return drafting(bench, held).discover()


def test_the_draft_holds_on_fresh_prompts(model: Transformer, draft: Discovery) -> None:
    assert format_text(draft.text) == draft.text
    fresh = loads(draft.text)
    assert not fresh.diagnostics
    report = verified(draft.text, model)
    assert report.exit_status() == 0, [(c.text, c.reason) for c in report.claims if c.verdict != "holds"]
    assert len(report.claims) >= 8


def test_heads_are_grouped_by_the_role_whose_checks_they_pass(draft: Discovery) -> None:
    roles = {group.role: group.nodes for group in loads(draft.text).circuits[0].groups if group.nodes[0].kind == "head"}
    assert {Node("head", 0, h) for h in (3, 5, 6)} <= set(roles["inhibition"])
    assert set(roles) <= {"inhibition", None}
    assert "expect role(inhibition)" in draft.text


@pytest.mark.long
def test_a_head_that_fails_on_other_prompts_loses_its_role(bench: Prompts, held: Prompts) -> None:
    """It is written as any head that has none, and the role is claimed of the others."""
    lost = Node("head", 0, 5)

    def check(text: str) -> Report:
        return without_role(lost, verified(text, bench.model, held))

    made = drafting(bench, held, check=check).discover()
    groups = {group.name: group for group in loads(made.text).circuits[0].groups}
    assert lost not in groups["inhibition"].nodes
    assert [g.role for g in groups.values() if lost in g.nodes and g.name != "inhibition"] == [None]
    assert verified(made.text, bench.model).exit_status() == 0
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
        ("0.1 0.2 0.4", "(four - 0.3)"),
        ("0.1 0.2", "(0.1 0.2)"),
        ("0.3", "0.3"),
        ("1.1", "one"),
    ],
)
def test_nodes_are_written_by_their_group(nodes: str, written_as: str) -> None:
    known = [Named("four", group("0.1 0.2 0.3 0.4")), Named("one", group("1.1")), Named("far", group("2.2", "S2"))]
    assert written(group(nodes).nodes, known, (END,)) == written_as


def test_nodes_are_in_the_fewest_groups_called_after_what_they_do() -> None:
    """Of one role; that act at the same places; that look at the same one."""
    carriers = group("0.5 0.6", "S1", "S2").sites
    sites = group("0.1 0.2 0.3 1.1 1.2").sites | carriers | Group((MLPS[1], MLPS[2]), (END,)).sites
    roles = {(Node("head", 0, 1), END): "mover", (Node("head", 0, 3), END): "mover"}
    looks = {site: Position("IO") for site in group("0.2 1.1").sites}
    found = {each.name: (each.group, each.role) for each in named(sites, roles, looks, ["writer"])}
    assert found == {
        "mover": (group("0.1 0.3"), "mover"),
        "carrier": (group("0.5 0.6", "S1", "S2"), None),
        "io_reader": (group("0.2 1.1"), None),
        "writer_2": (group("1.2"), None),
        "decider": (Group((MLPS[1], MLPS[2]), (END,)), None),
    }


def test_nodes_at_nearly_the_same_places_are_one_group() -> None:
    sites = group("0.3", "S1", "S2").sites | group("0.5", "S1", "S2", "IO").sites | group("1.2", "IO", "S1+1").sites
    found = {each.name: each.group for each in named(sites, {}, {})}
    assert set(found) == {"carrier", "carrier_2"}
    assert found["carrier"].sites == group("0.3 0.5", "S1", "S2", "IO").sites
    assert found["carrier_2"].sites == group("1.2", "IO", "S1+1").sites


def test_groups_of_one_role_are_told_apart_by_their_place() -> None:
    roles = {(Node("head", 0, 1), END): "mover", (Node("head", 0, 3), Position("S2")): "mover"}
    found = named(group("0.1").sites | group("0.3", "S2").sites, roles, {})
    assert [each.definition for each in found] == [
        "heads mover_end = 0.1 at END role mover",
        "heads mover_s2 = 0.3 at S2 role mover",
    ]


def test_a_limit_keeps_the_strongest_and_what_every_group_needs(draft: Discovery) -> None:
    few = _limited(draft.draft, 5)
    limit = len(draft.draft.lines) - 2
    assert len(_limited(draft.draft, limit).lines) == limit
    assert few.names(few.lines) == {group.name for group in few.groups}
    assert len(few.lines) < len(draft.draft.lines)
    strongest = max(draft.draft.claims, key=lambda line: draft.draft.strengths[line])
    assert strongest in few.claims and any("faithfulness" in line for line in few.lines)


def test_a_task_that_the_model_does_not_do_is_refused(bench: Prompts, held: Prompts) -> None:
    swapped = replace(bench, clean=bench.corrupt, corrupt=bench.clean)
    with pytest.raises(UserError, match="does not do this task"):
        drafting(swapped, held).discover()


def test_the_command_writes_a_spec_and_replaces_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it says that the budget was up."""
    monkeypatch.setattr("circuitdsl.discover.needed.MOST", 4)
    monkeypatch.setattr("circuitdsl.discover.discover.CHECKED", 64)
    target = tmp_path / "draft.circ"
    arguments = ["discover", "--task", "ioi", "--prompts", "24", "--budget", "1e4 blocks", "-o", str(target)]
    assert cli.run(arguments) == 0
    spec = load(target)
    assert spec.ok and spec.circuits[0].name == "ioi"
    assert ENDED in spec.circuits[0].notes
    assert ENDED in capsys.readouterr().err
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


def test_a_model_without_heads_is_no_mistake_of_the_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba", "num_hidden_layers": 2}')
    assert cli.run(["discover", "--task", "ioi", "--model", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "a model without them (Mamba, RWKV)" in err and "write the task" not in err


# --- how complete a draft is ------------------------------------------------------------------------


def test_a_draft_says_how_much_its_circuit_does_alone(draft: Discovery, model: Transformer) -> None:
    """On prompts that the search has not seen, and as claims that hold there."""
    assert draft.complete is not None and draft.complete.without is not None
    assert draft.complete.alone.value > 0.9
    assert f'note "on prompts held back, {draft.complete}"' in " ".join(draft.text.split())
    assert str(draft.complete) in draft.summary
    assert "fragment" not in draft.text
    (bound,) = (line for line in draft.draft.expectations if "faithfulness" in line)
    only = draft.draft.without({*draft.draft.lines} - {bound}).text()
    (alone,) = (claim.measured for claim in verified(only, model).claims)
    assert alone is not None and alone.value == pytest.approx(draft.complete.alone.value, abs=0.15)  # of other means


def test_a_fragment_is_called_one(model: Transformer) -> None:
    """A circuit without most of what a whole one has does little alone, and no bound is claimed that it misses."""
    mover = Named("mover", group("2.5"))
    few = Draft(tuple(head(3, prompts=64)), (mover,), ("mover -> logits at END : lowers",), ())
    made, complete = completed(
        few, "logit_diff", lambda text: verified(text, model), lambda text: verified(text, model)
    )
    assert complete is not None and complete.alone.value < 0.3
    assert "of the gap in logit_diff: it is a fragment; its incompleteness is" in str(complete)
    report = verified(made.text(), model)
    assert not any("completeness" in claim.text for claim in report.claims)  # no bound on so much says anything
    assert all(claim.verdict == "holds" for claim in report.claims if "faithfulness" in claim.text)


def test_a_draft_without_heads_is_not_run_alone(model: Transformer) -> None:
    few = Draft(tuple(head(3)), (), ("embed -> logits at END : lowers",), ())
    assert completed(few, "logit_diff", pytest.fail, pytest.fail) == (few, None)


# --- stability --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steady(model: Transformer, circuit: Needed, sent: list[Sending]) -> Stability:
    few = bench_of(model, head(1, prompts=24))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitdsl.discover.stability.TRIES", 1)
        return stability(few, Where((END,)), circuit, sent, 0.02, 1, lambda _: True)


@pytest.mark.long
def test_what_a_circuit_cannot_do_without_is_found_again(steady: Stability) -> None:
    assert steady.resamples == 1 and steady.tries == 1
    assert all(steady.again.of_node(Node("head", 0, h), [END]) == 1 for h in (3, 5, 6))
    assert steady.again.of_node(Node("head", 3, 3), [END]) is None
    assert steady.again.of_edges([Edge(Node("head", 0, 6), Input(LOGITS, "in"), END)]) == 1
    assert steady.others == ()  # nothing else reads the names


def test_a_copy_of_a_circuit_is_another_circuit(bench: Prompts, circuit: Needed, sent: list[Sending]) -> None:
    """Where every search succeeds, each circuit that it finds is counted once, and all of it is found again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitdsl.discover.stability.needed", lambda *_: Needed(circuit.sites, 1.0, True))
        found = stability(bench, Where((END,)), circuit, sent, 0.02, 1, lambda _: True)
    assert found.others == (len(circuit.sites),) and found.tries == 5
    assert "1 other circuit as faithful, with under half of its edges, was found" in " ".join(said_of(found))
    assert all(found.again.of_node(site.node, [site.position]) == 1 for site in circuit.sites)
    assert found.again.of_edges([Edge(Node("head", 0, 6), Input(LOGITS, "in"), END)]) == 1
    assert found.again.of_node(Node("head", 3, 3), [END]) is None


def test_stopped_resamples_are_not_counted(bench: Prompts, circuit: Needed) -> None:
    found = stability(bench, Where((END,)), circuit, [], 0.02, 3, lambda _: False)
    assert found == Stability(0)


def test_edges_of_a_circuit_are_those_that_exist() -> None:
    sites = group("0.1").sites | group("1.1").sites | {Site(MLPS[0], Position("S2"))}
    of_heads = {("0.1", "q"), ("0.1", "k"), ("0.1", "v"), ("m0", "k"), ("m0", "v"), ("embed", "q")}
    found = edges_of(sites)
    assert {(str(s.node), to.port) for s, to in found if to.node == Node("head", 1, 1)} >= of_heads
    assert {str(s.node) for s, to in found if to.node == LOGITS} == {"0.1", "1.1"}
    assert {str(s.node) for s, to in found if to.node == MLPS[0]} == {"embed"}


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
    """The draft of a search on a prompt file; the prompts of everything that is searched or checked are noted."""
    from circuitdsl.discover import drafting as module
    from circuitdsl.verify import verify as verification

    def searching(bench: Prompts, *rest: object) -> Needed:
        seen.append(bench.pairs)
        return Needed(group("0.3 0.5 0.6").sites, 1.0, True)

    def verifying(circuit: Circuit, model: Transformer, benches: dict[str, Prompts]) -> Report:
        seen.extend(bench.pairs for bench in benches.values())
        return verify(circuit, model, benches)

    monkeypatch.setattr(module, "needed", searching)
    monkeypatch.setattr(verification, "verify", verifying)
    written_prompts(folder / "p.jsonl", n)
    assert cli.run(["discover", "--task", "p.jsonl", "-o", "sub/d.circ"]) == 0
    return load("sub/d.circ", allow_outside=True)


def test_a_draft_of_a_prompt_file_is_checked_on_prompts_held_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[PromptPair, ...]] = []
    spec = drafted_from_file(folder, 64, seen, monkeypatch)
    searched, *asked, checked = ({pair.measured for pair in pairs} for pairs in seen)
    assert (len(searched), len(checked)) == (32, 32) and not searched & checked
    assert all(prompts in (searched, checked) for prompts in asked)
    (use,) = spec.circuits[0].tasks
    assert use.file == "../p.jsonl"  # as it is called from where the draft lies
    data = make_data(spec.circuits[0], use, load_model("pocket", "cpu"))
    assert {pair.measured for pair in data.pairs} == checked  # the draft asks for those that were held back
    said = "found on 32 of the 64 prompts of its file, and checked on 32 others"
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


@pytest.mark.long
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
    few, none, notes = split(replace(whole, pairs=whole.pairs[:40]), prompts=96)
    assert (len(few.pairs), none) == (40, 0) and "checked on the same: its file has 40, too few to split" in notes[0]


def test_a_missing_prompt_file_is_said_before_the_model_is_loaded(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["discover", "--model", "no-such-model", "--task", 'file("p.jsonl")']) == 2
    assert "cannot read the prompt file p.jsonl" in capsys.readouterr().err
