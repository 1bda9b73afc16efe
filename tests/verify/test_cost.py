"""What `plan` counts is what `verify` does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from circuitdsl import cli
from circuitdsl.api import load, loads
from circuitdsl.engine import runs as runs_of
from circuitdsl.engine.count import Machine, floor_of
from circuitdsl.models.load import POCKET
from circuitdsl.models.outline import outline, parameters, products
from circuitdsl.verify import work
from circuitdsl.verify.measure import having
from circuitdsl.verify.plan import plan, shape_of
from circuitdsl.verify.prompts import make_data, prompts_by_task, tasks_in_use
from circuitdsl.verify.session import Options, Session
from circuitdsl.verify.verify import verify
from circuitdsl.verify.work import memory, work_of

MEASURED = Path(__file__).parents[1] / "fixtures" / "measured.circ"
HEAD = 'circuit t\nmodel "pocket"\n'


@pytest.fixture(scope="module")
def shape():
    return outline("pocket")


def planned(spec, shape, early_stop: bool = True, limit: int | None = None):
    (circuit,) = spec.circuits
    data = {use.name: make_data(circuit, use, shape) for use in tasks_in_use(circuit)}
    return circuit, work_of(plan(circuit, shape_of(shape)), shape, data, circuit.metric, early_stop, limit)


def measured(circuit, pocket):
    benches = prompts_by_task(circuit, pocket)
    verify(circuit, pocket, benches, Options(early_stop=False))
    return [bench.tally for bench in benches.values()]


@pytest.mark.parametrize(
    "text",
    [
        "task ioi(prompts = 40)\n0.6 -> logits at END\neach 0.6 -> 2.5.q at END : lowers\n0.6 -> 2.5.q at END",
        "task ioi(prompts = 40)\ntask flip = ioi(corrupt = flip, prompts = 33)\n0.6 -> m2 at END via mlps : lowers",
        "task ioi(prompts = 40)\nheads a = 0.6 2.5 at *\nexpect denoise(a) : effect >= 1%\nexpect knockout(a) : lowers",
        "task ioi(prompts = 40)\nheads a = 0.6 0.3 at END\nexpect faithfulness >= 0%\nexpect sufficiency >= 0%",
        "task ioi(prompts = 40)\npath 0.6 -> m1 at END -> 2.5.q at END\npath each 0.6 -> 2.5.q at END -> m3 at END",
        "task ioi(prompts = 40)\nheads a = 1.3 at PLACE\nexpect knockout(a) : matters",
        'task ioi(prompts = 40)\ndictionary t = transcoder("pocket/transcoders/1")'
        '\ndictionary r = sae("pocket/saes/resid3")'
        "\n0.6 -> t[49] at S2 : lowers\n0.6 -> (t[49] t[44]) at S2\n1.2 -> m2[3] at *\nm1 -> r[136] at END : lowers"
        "\npath 0.6 -> (t[49] t[44]) at END -> r[136] at END -> logits\n(0.6 0.7) -> (m1[3] 2.5.q) at END via mlps",
    ],
)
def test_counts_are_what_is_run(pocket, shape, text: str) -> None:
    circuit, work = planned(loads(HEAD + text), shape, early_stop=False)
    done = measured(circuit, pocket)
    assert [task.most.block_positions for task in work] == [tally.block_positions for tally in done]
    assert [task.most.flow_positions for task in work] == [tally.flow_positions for tally in done]
    assert all(task.most.block_positions > 0 for task in work)


def test_nothing_that_is_measured_is_left_out_but_what_runs_the_model_by_itself(pocket, shape) -> None:
    circuit, (task,) = planned(load(MEASURED), shape, early_stop=False)
    done, *_ = measured(circuit, pocket)
    assert (task.most.block_positions, task.most.flow_positions) == (done.block_positions, done.flow_positions)
    assert task.uncounted == 1, "the trace; scores on random tokens are no part of the task"


def test_claims_that_ask_for_the_same_are_merged(shape, all_looks) -> None:
    lines = "0.6 -> logits at END : lowers\n0.6 -> logits at END : effect <= -5%\n0.1 -> logits at END : lowers\n"
    _, (task,) = planned(loads(HEAD + "task ioi(prompts = 128)\n" + lines), shape)
    assert (task.claims, task.requests, task.experiments, task.nulls) == (3, 3, 2, 0)
    assert task.looks == (64, 128)
    assert task.least.block_positions == 0, "what goes into the logits recomputes no block"
    assert task.least.run_tokens < task.most.run_tokens


def test_a_run_that_ends_early_counts_for_its_share(shape) -> None:
    """Every prompt is scored by whole runs; a head of layer 2 is read off the clean run before its values are used."""
    limit, attention = 10**8, "expect attention(2.5, END -> IO) >= 1%\n"  # under a limit no run is kept from scoring
    circuit, (task,) = planned(loads(HEAD + "task ioi(prompts = 64)\n" + attention), shape, limit=limit)
    tokens = sum(len(pair.clean_tokens) for pair in make_data(circuit, circuit.tasks[0], shape).pairs)
    assert task.most.run_tokens == 2 * tokens + round(tokens * 7 / 12)
    edge = "0.6 -> 2.5.q at END : lowers\n"
    _, (other,) = planned(loads(HEAD + "task ioi(prompts = 64)\n" + edge), shape, limit=limit)
    assert 0 < task.held < other.held


def test_an_outline_has_the_shape_of_the_model(pocket, shape) -> None:
    assert shape.W_E.device == torch.device("meta")
    for name in ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_vocab", "n_ctx", "parallel"):
        assert getattr(shape, name) == getattr(pocket, name)
    assert products(shape.blocks[0]) == products(pocket.blocks[0]) > 0
    assert parameters(shape) > shape.n_layers * products(shape.blocks[0])


def test_planning_needs_no_weights(tmp_path, capsys, all_looks) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(POCKET / name, tmp_path)
    assert cli.run(["plan", "pocket/ioi", "--model", str(tmp_path), "--prompts", "128", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["circuit"] == "ioi"
    assert found["model"]["n_layers"] == 4
    (task,) = found["tasks"]
    assert task["claims"] == len(load("pocket/ioi").circuits[0].claims)
    assert 0 < task["least"]["block_positions"] < task["most"]["block_positions"]
    assert 0 < found["seconds"][0] < found["seconds"][1]
    assert found["weights"] > 0 and found["memory"] > 0


def test_planning_on_the_pocket_model_imports_no_more_than_torch() -> None:
    heavy = "{'torch', 'transformers', 'sympy', 'scipy.special'}"
    code = f"import sys; from circuitdsl import cli; cli.run(['plan', 'pocket/ioi']); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("{'torch'}\n")


def test_the_screen_says_that_time_is_an_estimate(capsys) -> None:
    assert cli.run(["plan", "pocket/ioi", "pocket/shared", "--prompts", "64"]) == 0
    out = capsys.readouterr().out
    assert "time, estimated" in out
    assert "laundry_list" in out


def test_a_limit_of_memory_is_planned_for(tmp_path, capsys) -> None:
    found = []
    for options in ((), ("--memory", "16MB")):
        assert cli.run(["plan", "pocket/ioi", "--format", "json", *options]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[1]["memory"] <= 16 * 10**6 < found[0]["memory"]
    most = [forecast["tasks"][0]["most"] for forecast in found]
    assert most[0]["block_positions"] == most[1]["block_positions"] and most[0]["passes"] < most[1]["passes"]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(POCKET / name, tmp_path)
    config = json.loads((POCKET / "config.json").read_text()) | {"n_layer": 24, "n_embd": 1024, "n_inner": 4096}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert cli.run(["plan", "pocket/ioi", "--model", str(tmp_path), "--memory", "16MB"]) == 3
    assert "16 MB are too little to measure in: one prompt of 20 tokens needs" in capsys.readouterr().err


def test_what_cannot_be_planned_is_said(tmp_path, capsys) -> None:
    assert cli.run(["plan", "pocket/ioi", "--model", str(tmp_path)]) == 3
    assert "config.json" in capsys.readouterr().err
    (tmp_path / "t.circ").write_text(HEAD + "task ioi\nheads a = 0.6 at END\n")
    assert cli.run(["plan", str(tmp_path / "t.circ")]) == 3
    assert "nothing to plan" in capsys.readouterr().err


def test_claims_on_weights_alone_take_no_runs(tmp_path, capsys) -> None:
    (tmp_path / "t.circ").write_text(HEAD + "channel 0.6 -> 2.5.v : composition rank <= 30\n")
    assert cli.run(["plan", str(tmp_path / "t.circ")]) == 0
    assert "nothing is run" in capsys.readouterr().out


def test_plan_says_what_is_measured_again_after_an_edit(capsys) -> None:
    """Of the time, the part of claims about the whole circuit, where there is one."""
    assert cli.run(["plan", "pocket/ioi", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["edited"][0] <= found["edited"][1] < found["seconds"][1]
    assert found["threads"] >= 1
    assert cli.run(["plan", "pocket/ioi"]) == 0
    out = capsys.readouterr().out
    assert "of that: only where other nodes or edges belong to it" in out
    assert "as busy as it was in a moment's trial" in out and "nothing as known" in out


def test_plan_says_how_fast_half_precision_is(monkeypatch, capsys) -> None:
    speed = {torch.float32: 1.0, torch.bfloat16: 1.7, torch.float16: 0.5}
    monkeypatch.setattr("circuitdsl.verify.planned.calibrate", lambda model, _: Machine(speed[model.dtype], 0.1))
    for dtype, said in (
        ("bfloat16", "bfloat16 takes 1.7 times as long as float32 here: it saves memory alone"),
        ("float16", "float16 takes 0.50 of the time of float32 here"),
        ("float32", None),
    ):
        assert cli.run(["plan", "pocket/induction", "--dtype", dtype]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert said in out if said else "float32 here" not in out


def test_plan_says_nothing_of_a_whole_circuit_where_no_claim_is_about_one(capsys, tmp_path: Path) -> None:
    path = tmp_path / "t.circ"
    path.write_text(HEAD + "task ioi(prompts = 40)\n0.6 -> logits at END : lowers\n")
    assert cli.run(["plan", str(path)]) == 0
    assert "belong to it" not in capsys.readouterr().out


EDGES = "task ioi(prompts = 64)\n0.6 -> 2.5.k at END : lowers\n0.3 -> logits at END : effect <= 50%\n"


def news(capsys, spec: Path, *options: str) -> tuple[int, int, float]:
    """(measurements, those that are new, seconds for these)"""
    capsys.readouterr()
    assert cli.run(["plan", str(spec), "--format", "json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    return found["measurements"], found["new"], found["new_seconds"]


def test_plan_says_what_a_verification_would_measure_now(tmp_path, monkeypatch, capsys) -> None:
    """Everything at first, nothing once it was measured; after an edit what the edited line asks for."""
    monkeypatch.setenv("CIRCUITDSL_CACHE", str(tmp_path / "cache"))
    spec = tmp_path / "t.circ"
    spec.write_text(HEAD + EDGES)
    every, new, time = news(capsys, spec)
    assert every == new == 2 and time > 0
    assert cli.run(["plan", str(spec)]) == 0
    assert "all 2 measurements count as new: the model was not loaded before" in capsys.readouterr().out
    cli.run(["verify", str(spec)])
    assert news(capsys, spec) == (2, 0, 0)
    assert news(capsys, spec, "--no-cache")[:2] == (2, 2)
    spec.write_text(HEAD + EDGES.replace("50%", "40%"))
    assert news(capsys, spec) == (2, 0, 0), "an edited bound"
    spec.write_text(HEAD + EDGES.replace("0.3 ->", "0.2 ->"))
    every, new, time = news(capsys, spec)
    assert (every, new) == (2, 1) and time > 0, "an edited edge"
    assert news(capsys, spec)[1] == 1, "planning measures nothing"
    spec.write_text(HEAD + EDGES.replace("logits", "m3"))
    assert news(capsys, spec, "--seed", "1")[:2] == (2, 2), "other prompts"


def test_plan_knows_the_nulls_and_whole_circuits_of_earlier_runs(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("CIRCUITDSL_CACHE", str(tmp_path / "cache"))
    spec, line = tmp_path / "t.circ", "expect faithfulness(ablate = mean) >= 0%\n"
    spec.write_text(HEAD + "task ioi(prompts = 64)\nheads a = 0.6 2.5 at END\n0.6 -> logits at END : matters\n" + line)
    every, new, _ = news(capsys, spec)
    assert every == new > 20
    cli.run(["verify", str(spec)])
    assert news(capsys, spec)[:2] == (every, 0)
    assert cli.run(["plan", str(spec)]) == 0
    assert f"all {every} measurements are known from earlier runs" in capsys.readouterr().out
    spec.write_text(spec.read_text().replace("heads a = 0.6 2.5", "heads a = 0.6 2.5 2.4"))
    assert news(capsys, spec)[1] >= 1, "another circuit"
    assert cli.run(["plan", str(spec)]) == 0
    assert "at the first look, the rest is known" in " ".join(capsys.readouterr().out.split())


def test_memory_is_that_of_the_batches_that_there_are(shape) -> None:
    """Not of the largest batch that is allowed: a few prompts take less than many, and one patch less than ten."""

    def planned_memory(prompts: int, patches: int) -> int:
        lines = "".join(f"0.{i} -> 1.0.k at S2 : lowers\n" for i in range(patches))
        _, tasks = planned(loads(HEAD + f"task ioi(prompts = {prompts})\n" + lines), shape)
        return memory(tasks)

    assert planned_memory(8, 1) < planned_memory(8, 8) < planned_memory(64, 8) < 200e6


def test_the_runs_that_are_held_are_those_that_a_verification_holds(pocket, shape, monkeypatch) -> None:
    """Runs kept from scoring are counted once, of the first task alone, and an intervention's run with them."""
    text = "task ioi(prompts = 64)\ntask flip = ioi(corrupt = flip, prompts = 40)\n0.6 -> 2.5.q at END : lowers\n"
    circuit, tasks = planned(loads(HEAD + text), shape, early_stop=False)
    benches = prompts_by_task(circuit, pocket)
    kept = [[runs for _, runs in bench.kept] for bench in benches.values()]
    assert [task.kept for task in tasks] == [sum(map(bytes_of, each)) for each in kept]
    assert tasks[0].kept > 0 == tasks[1].kept
    made: list[int] = []
    run = runs_of.run
    monkeypatch.setattr(runs_of, "run", lambda *a, **k: made.append(bytes_of(found := run(*a, **k))) or found)
    verify(circuit, pocket, benches, Options(early_stop=False))
    assert [task.held for task in tasks] == [0, sum(made)], "the first task's runs are those from scoring"
    changed = "intervention half\n  scale 0.6 by 0.5\n  expect accuracy rises\n"
    _, (other,) = planned(loads(HEAD + "task ioi(prompts = 64)\n" + changed), shape, early_stop=False)
    assert other.held > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux' /proc")
@pytest.mark.parametrize("case", ["pocket_ioi", pytest.param("pocket_repair", marks=pytest.mark.long)])
def test_what_is_said_of_memory_is_within_a_fifth_of_what_is_measured(case: str, tmp_path: Path) -> None:
    """The resident memory of a process above a loaded model, at its peak, while claims are measured and weighed."""
    code = "import sys; from pathlib import Path; from benchmarks.growth_memory import measured\n"
    code += "print([figure.value for figure in measured(sys.argv[1], Path(sys.argv[2]))])"
    command = [sys.executable, "-c", code, case, str(tmp_path)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=alone, cwd=Path(__file__).parents[2])
    planned, peak, apart = json.loads(done.stdout.splitlines()[-1])
    assert apart <= 1.2, f"planned {planned:.0f} MB, measured {peak:.0f} MB"


def bytes_of(runs: runs_of.Runs) -> int:
    """Of all tensors of some runs, but for the ends, which are the scores' own."""
    parts = (getattr(each, f.name) for each in (runs.clean, runs.corrupt) for f in fields(each) if f.name != "turns")
    tensors = (t for part in parts for t in (part.values() if isinstance(part, dict) else [part]))
    return sum({t.data_ptr(): t.numel() * t.itemsize for t in tensors if t.ndim > 2}.values())


def test_patches_at_the_same_places_are_counted_once(shape, monkeypatch) -> None:
    """Whoever sends: a null of 40 edges takes as many steps of counting as one edge."""
    counted: list[object] = []

    def noted(model, what, *rest):  # type: ignore[no-untyped-def]
        counted.append(what.shape)
        return floor_of(model, what, *rest)

    monkeypatch.setattr(work, "floor_of", noted)
    _, (task,) = planned(loads(HEAD + "task ioi(prompts = 40)\n0.6 -> 2.5.q at END\n"), shape)
    assert task.nulls == 40
    lengths = task.tokens[1] - task.tokens[0] + 1
    assert len(set(counted)) == 1, "the receiver and its layer are the same for all"
    assert len(counted) <= 2 * lengths, "once for the null and once for the look, for prompts of each length"
    assert task.least.block_positions > 0


def test_prompts_with_equal_positions_are_looked_for_once(shape, monkeypatch) -> None:
    """However many claims name them: of 20,000 claims, that was most of the time of a plan."""
    found: list[object] = []
    monkeypatch.setattr("circuitdsl.verify.held.having", lambda *given: found.append(given) or having(*given))
    lines = "".join(f"0.{i} -> 2.5.q at {at} : lowers\n" for i in range(8) for at in ("END", "S2"))
    _, (task,) = planned(loads(HEAD + "task ioi(prompts = 40)\n" + lines), shape)
    assert task.claims == 16 and len(found) == 2


def test_a_plan_of_a_session_that_keeps_nothing_on_disk_reads_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of a watch without a cache are in memory: there is no folder beside them."""
    monkeypatch.setattr("circuitdsl.verify.planned.remembered", lambda *_: pytest.fail("a record is looked for"))
    spec = loads(HEAD + "task ioi(prompts = 32)\n0.6 -> logits at END\n")
    with Session(device="cpu", cache=False) as session:
        session.keep_prompts()
        (forecast,) = session.plan(spec)
    assert forecast.all_new == "the model was not loaded before"
