"""Scores of edges equal those of EAP-IG's own code, as curves do; circuits go out to its files and come back."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from circuitdsl import cli
from circuitdsl.circuit.nodes import EVERYWHERE
from circuitdsl.circuit.whole_graph import WholeGraph
from circuitdsl.discover.curve import curve_of
from circuitdsl.discover.ranking import SHARES, Ranking
from circuitdsl.discover.scoring import METHODS, Asked
from circuitdsl.discover.search import END
from circuitdsl.discover.watch import Budget, Watch, budget_of
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.whole_runs import WholeRuns
from circuitdsl.errors import UserError
from circuitdsl.interop.mib import Scored, names_of, read, text_of
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.verify.prompts import scored_prompts
from circuitdsl.verify.session import Session

FIXTURE = json.loads((Path(__file__).parent.parent / "fixtures" / "eap_ig.json").read_text())
STEPS = {"attribution_ig_activations": 2}


@pytest.fixture(scope="module")
def runs() -> WholeRuns:
    """The prompts that EAP-IG's code was run on."""
    from circuitdsl.circuit.vocabulary import Metric
    from circuitdsl.models.load import load_model

    pairs = tuple(
        PromptPair(tuple(clean), tuple(corrupt), tuple(answers), tuple(others), {"END": (len(clean) - 1,)}, "")
        for clean, corrupt, answers, others in FIXTURE["prompts"]
    )
    prompts = scored_prompts(load_model("pocket", device="cpu"), Dataset("ioi", "abc", 5, False, pairs), Metric())
    return WholeRuns(prompts, np.arange(len(pairs)))


@pytest.fixture(scope="module")
def edges(runs: WholeRuns) -> list[int]:
    """The edges in EAP-IG's order."""
    names = names_of(runs.graph)
    assert set(names) == set(FIXTURE["edges"].split())
    return [names[name] for name in FIXTURE["edges"].split()]


@pytest.mark.parametrize("method", ["attribution", "attribution_ig", "attribution_ig_activations"])
def test_scores_are_those_of_eap_ig(runs: WholeRuns, edges: list[int], method: str) -> None:
    scores, _, complete = METHODS[method](Asked(runs, STEPS.get(method, 5), lambda _: True))
    wanted = np.asarray(FIXTURE["scores"][method])
    assert complete and np.abs(scores[edges] * runs.gap - wanted).max() < 1e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("method", ["attribution", "attribution_ig", "attribution_ig_activations"])
def test_curves_are_those_of_eap_ig(runs: WholeRuns, edges: list[int], method: str) -> None:
    scores, known = np.empty(len(runs.graph)), FIXTURE["curves"][method]
    scores[edges] = FIXTURE["scores"][method]
    found = curve_of(runs, Scored(runs.graph, scores, scores > np.inf))
    for steps, wanted in ((found.highest, known["highest"]), (found.largest, known["largest"])):
        ends = wanted[0], known["clean"]
        shares = [(value - ends[0]) / (ends[1] - ends[0]) for value in wanted[1:]]
        assert [step.share for step in steps] == FIXTURE["shares"][1:] == list(SHARES)
        assert [step.faithfulness.value for step in steps] == pytest.approx(shares, abs=1e-4)
    assert found.highest[-1].edges == len(runs.graph)
    assert found.cpr.low < found.cpr.value < found.cpr.high


def test_curves_of_nodes_are_those_of_eap_ig(runs: WholeRuns, tmp_path: Path) -> None:
    """Of a file that gives every edge the score 0, as one about nodes does."""
    known = FIXTURE["nodes"]
    nodes = {name: {"score": score, "in_graph": True} for name, score in known["scores"].items()}
    given = {"cfg": CFG, "nodes": nodes, "edges": {name: {"score": 0.0} for name in FIXTURE["edges"].split()}}
    (tmp_path / "nodes.json").write_text(json.dumps(given))
    found = curve_of(runs, read(tmp_path / "nodes.json", "pocket", runs.graph))
    for steps, wanted in ((found.highest, known["highest"]), (found.largest, known["largest"])):
        shares = [(value - wanted[0]) / (known["clean"] - wanted[0]) for value in wanted[1:]]
        assert [step.faithfulness.value for step in steps] == pytest.approx(shares, abs=1e-4)


def test_nodes_without_a_score_are_in_every_circuit(tmp_path: Path) -> None:
    """As in EAP-IG; nodes that a file does not name are in none, but for the embedding where it is not scored."""
    nodes = {"a0.h3": {"score": 3.0}, "m1": {"score": 1.0}, "m2": {"score": float("nan")}}
    (tmp_path / "nodes.json").write_text(json.dumps({"cfg": CFG, "nodes": nodes, "edges": {}}))
    found = read(tmp_path / "nodes.json")
    kept = [edge for edge, there in zip(found.graph.edges, found.top(1), strict=True) if there]
    assert {str(sender) for sender, _ in kept} == {"embed", "0.3", "m2"}


def test_exact_scores_are_what_single_edges_cost(runs: WholeRuns) -> None:
    """Each by a run of all other edges, of which nothing is taken out, an independent way to the same numbers."""
    few = WholeRuns(runs.prompts, np.arange(6))
    scores, *_ = METHODS["exact"](Asked(few, 1, lambda _: True))
    draw = np.random.default_rng(0)
    for edge in [int(np.abs(scores).argmax()), *draw.choice(len(scores), 5).tolist()]:
        kept = np.arange(len(scores)) != edge
        assert scores[edge] == pytest.approx(1 - few.faithfulness(kept), abs=1e-4)


def test_a_search_beats_gradients_and_stops_when_it_is_told_to(runs: WholeRuns) -> None:
    runs = WholeRuns(runs.prompts, np.arange(12))
    pruning = Ranking(runs)
    found = curve_of(runs, Scored(runs.graph, pruning.search(), np.zeros(len(runs.graph), bool)))
    scores = METHODS["attribution"](Asked(runs, 5, lambda _: True))[0]
    others = curve_of(runs, Scored(runs.graph, scores, np.zeros(len(scores), bool)))
    assert found.cpr.value > others.cpr.value and found.cmd.value < others.cmd.value
    for outer, inner in zip(pruning.chain, pruning.chain[1:], strict=False):
        assert (inner.kept <= outer.kept).all()
    stopped = Ranking(runs, lambda left, _: left > 1000)
    ranks = stopped.search()
    assert not stopped.complete and len(set(np.abs(ranks))) == len(ranks)


@pytest.mark.long
def test_edges_are_found_again_in_resamples() -> None:
    with Session("pocket") as session:
        found = session.scores("ioi", prompts=24, seed=5, resamples=2)
    assert set(np.unique(found.found)) == {0.0, 0.5, 1.0} and found.about["resamples"] == 2
    assert found.found[found.kept].mean() > 0.3 > 0.2 > found.found[~found.kept].mean()
    edges = json.loads(text_of(found))["edges"].values()
    assert [edge["found"] for edge in edges] == found.found.tolist()
    with pytest.raises(UserError, match="finds no circuit"):
        session.scores("ioi", method="exact", resamples=2)


# --- files ------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    graph = WholeGraph(2, 3, parallel=True)
    draw = np.random.default_rng(0)
    one = Scored(graph, draw.normal(size=len(graph)), draw.random(len(graph)) < 0.3, {graph.senders[1]: 0.5}, True, 8)
    (tmp_path / "one.json").write_text(text_of(one))
    found = read(tmp_path / "one.json", "it", graph)
    assert found.graph == graph and found.d_model == 8 and found.nodes == one.nodes
    assert (found.scores == one.scores).all() and (found.kept == one.kept).all()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str) -> int:
    return cli.run(line.split())


def test_scores_become_a_spec_and_the_spec_the_same_edges(folder: Path, capsys) -> None:
    line = "discover --task ioi --method attribution_ig --prompts 32 --seed 5"
    assert run(f"{line} --scores scores.json") == 0
    assert run("import scores.json --top 40 -o draft.circ") == 0
    assert "on no way from the embedding to the logits" in capsys.readouterr().err
    assert run("export draft.circ -o out.json") == 0
    scored, out = read(folder / "scores.json"), read(folder / "out.json")
    assert (out.kept == scored.top(40, absolute=True)).all() and out.kept.any()
    assert run("import out.json --task ioi --model pocket -o again.circ") == 0
    with Session() as session:
        circuits = [session.circuit(name) for name in ("draft.circ", "again.circ")]
    first, again = (frozenset(circuit.own_edges()) for circuit in circuits)
    assert first == again and {edge.position for edge in first} == {EVERYWHERE, END}
    text = (folder / "draft.circ").read_text()
    assert text.count(": matters") < 40 and "faithfulness(keep = edges, ablate = corrupt, positions = all)" in text
    capsys.readouterr()
    assert run("score scores.json out.json --task ioi --prompts 32 --seed 7 --format json -o both.svg") == 0
    made = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in made["circuits"]] == ["scores.json", "out.json"]
    cpr = made["circuits"][0]["cpr"]
    assert cpr["interval"][0] < cpr["value"] < cpr["interval"][1] and len(made["circuits"][0]["curve"]) == len(SHARES)
    assert "scores.json" in (folder / "both.svg").read_text() and made["notes"] == []
    assert run("score scores.json --task ioi --prompts 16 --seed 5 -o curves.json --memory 100MB") == 0
    assert "scored on prompts of seed 5 too" in capsys.readouterr().out
    assert json.loads((folder / "curves.json").read_text())["circuits"][0]["name"] == "scores.json"
    assert run("score scores.json --task ioi --prompts 256 --memory 20MB") == 3
    assert "give fewer --prompts" in capsys.readouterr().err


def test_nodes_alone_are_scored_and_imported(folder: Path, capsys) -> None:
    cfg = {"n_layers": 4, "n_heads": 8, "parallel_attn_mlp": False}
    nodes = {
        "input": {"score": 9.0},
        "a0.h3": {"score": 3.0},
        "m1": {"score": -2.0},
        "a1.h1": {"score": 0.1},
        "m3": {"score": float("nan")},
    }
    (folder / "nodes.json").write_text(json.dumps({"cfg": cfg, "nodes": nodes, "edges": {}}))
    found = read(folder / "nodes.json")
    names = [f"{sender} -> {to}" for (sender, to), kept in zip(found.graph.edges, found.top(2), strict=True) if kept]
    assert "embed -> 0.3.v" in names and "0.3 -> logits" in names
    assert run("import nodes.json --threshold 1 --task ioi --model pocket -o nodes.circ") == 0
    assert " = m1 m3 " in (folder / "nodes.circ").read_text()
    assert run("import nodes.json --top 2 --task nowhere --model pocket") == 2
    assert "nowhere" in capsys.readouterr().err
    assert run("import nodes.json --top 2 --task ioi --model gpt2") == 2
    assert "gpt2 is a model of 12 layers of 12 heads" in capsys.readouterr().err
    assert run("score nodes.json --task ioi --prompts 16") == 0
    assert "CPR" in capsys.readouterr().out


CFG = {"n_layers": 4, "n_heads": 8}
WRONG = {
    "no JSON": ("{", "no JSON"),
    "a list": ("[]", "needs `cfg`, `nodes` and `edges`"),
    "no size": ({"cfg": {}, "nodes": {}, "edges": {}}, "`cfg` needs `n_layers` and `n_heads`"),
    "another size": (
        {"cfg": {"n_layers": 5, "n_heads": 8}, "nodes": {}, "edges": {"m0->m4": {"score": 1}}},
        "5 layers of 8 heads, and pocket is a model of 4 layers of 8 heads",
    ),
    "parallel": (
        {"cfg": {**CFG, "parallel_attn_mlp": True}, "nodes": {}, "edges": {"m0->m1": {"score": 1}}},
        "side by side with its MLPs, and pocket is a model of 4 layers of 8 heads",
    ),
    "parallel in words": (
        {"cfg": {**CFG, "parallel_attn_mlp": "yes"}, "nodes": {}, "edges": {"m0->m1": {"score": 1}}},
        "`parallel_attn_mlp` is true or false, not 'yes'",
    ),
    "an edge": ({"cfg": CFG, "nodes": {}, "edges": {"m1->m0": {"score": 1}}}, "there is no edge m1->m0"),
    "a node": ({"cfg": CFG, "nodes": {"a9.h9": {}}, "edges": {}}, "there is no node a9.h9"),
    "no number": (
        {"cfg": CFG, "nodes": {}, "edges": {"m0->m1": {"score": float("nan")}}},
        "the score of m0->m1 is nan; a score is a finite number",
    ),
    "nothing": ({"cfg": CFG, "nodes": {}, "edges": {}}, "neither edges nor nodes have a score"),
    "zeros": (
        {"cfg": CFG, "nodes": {}, "edges": {"m0->m1": {"score": 0}}},
        "every score is 0, so that none comes first",
    ),
    "no scores": ({"cfg": CFG, "nodes": {}, "edges": {"m0->m1": {"in_graph": True}}}, "none comes first"),
    "a pickle": (b"PK\x03\x04 and so on", "which may run a program when it is read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_cannot_be_used_are_refused_in_a_sentence(folder: Path, capsys, name: str) -> None:
    given, why = WRONG[name]
    content = given if isinstance(given, bytes) else (given if isinstance(given, str) else json.dumps(given)).encode()
    (folder / "wrong.json").write_bytes(content)
    assert run("score wrong.json --task ioi --prompts 16") in (2, 3)
    said = capsys.readouterr().err
    assert why in said and "Traceback" not in said and said.startswith("error: wrong.json: ")


def test_words_that_do_not_exist_and_tasks_that_are_not_done(folder: Path, capsys) -> None:
    assert run("discover --task ioi --scores x.json --method magic") == 2
    assert "there are hybrid, exact, attribution" in capsys.readouterr().err
    assert run("score nowhere.json --task ioi") == 2
    (folder / "small.json").write_text(json.dumps({"cfg": CFG, "nodes": {}, "edges": {"m0->m1": {"in_graph": True}}}))
    assert run("import small.json --task ioi --model pocket") == 3
    assert "no edge of the file is in the graph" in capsys.readouterr().err
    assert run("import small.json --model pocket") == 3
    assert "does not say of which task it is" in capsys.readouterr().err
    assert run("score small.json --task ioi --metric loss") == 2
    assert "help: known: accuracy, kl" in capsys.readouterr().err
    assert run("score small.json --task ioi --prompts 1") == 3
    assert "it takes more than 1 prompt to tell the gap" in capsys.readouterr().err


def test_a_task_that_the_model_does_not_do_is_refused(runs: WholeRuns) -> None:
    from circuitdsl.discover.asked import refuse_undone

    prompts = runs.prompts
    undone = Prompts(prompts.source, prompts.data, prompts.metric, prompts.corrupt, prompts.corrupt, prompts.ends)
    with pytest.raises(UserError, match="does not do this task"):
        refuse_undone(undone)


# --- options that means nothing, and budgets ---------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--scores s.json --method exact --steps 3", "steps means nothing to the method exact"),
        ("--scores s.json --method attribution --budget 5s", "budget means nothing to the method attribution"),
        (
            "--scores s.json --method attribution_ig --resamples 3",
            "resamples means nothing to the method attribution_ig",
        ),
        ("--scores s.json --threshold 5%", "--threshold goes with a draft, not --scores"),
        ("--scores s.json --claims 5", "--claims goes with a draft, not --scores"),
        ("--method exact", "--method goes with --scores FILE"),
        ("--steps 3", "--steps goes with --scores FILE"),
        ("--found f.json", "--found is about resamples of the prompts"),
        ("--budget 0s", "0s is no budget"),
        ("--budget 5parsecs", "5parsecs is no budget"),
        ("--metric accuracy", "accuracy is 0 or 1: it has no gradients"),
        ("--from pocket/ioi", "--task TASK, or --from SPEC (not both)"),
    ],
)
def test_an_option_that_means_nothing_is_an_error(
    arguments: str, why: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(SystemExit):
        assert cli.run(["discover", "--task", "ioi", *arguments.split()]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        ("90", Budget(90)),
        ("90s", Budget(90)),
        ("5m", Budget(300)),
        (60, Budget(60)),
        ("2e6 blocks", Budget(blocks=2e6)),
        ("2e6 block-positions", Budget(blocks=2e6)),
        (None, Budget()),
    ],
)
def test_a_budget_is_a_time_or_an_amount_of_work(given: object, budget: Budget) -> None:
    assert budget_of(given) == budget  # type: ignore[arg-type]


def test_work_is_counted_against_a_budget(runs: WholeRuns) -> None:
    few, watch = WholeRuns(runs.prompts, np.arange(4)), Watch("searching", Budget(blocks=200))
    watch.counts(runs.prompts.tally)
    assert watch.tell("nothing yet")
    few.gradient(np.ones(len(few.graph), bool))
    assert not watch.tell("a gradient") and watch.ended
