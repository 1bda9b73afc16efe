"""The command line as a user meets it: exit status, one clear error, whole files."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from tests.schema import schema

GOOD = 'circuit t\nmodel "pocket"\ntask ioi(prompts = 64)\nexpect accuracy >= 90%\n'


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.circ"
    path.write_text(GOOD)
    return str(path)


# --- bad input: one clear error, exit status 2 or 3 ------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file holds no statement"),
        (b"circuit t\n\x00\x01\x02", "not a text file"),
        (b"# " + b"x" * 1_100_000, "1 MB"),
        (b'circuit t\nmodel "pocket"\ntask ioi\nheads a = 9.0 at END\n', "pocket has 4 layers"),
        (b'circuit t\nmodel "gpt2"\ntask ioi\nheads a = 9.12 at END\n', "9.12 does not exist (9.0 to 9.11)"),
        (b'circuit t\nmodel "gpt2"\ntask ioi\n10.0 -> 9.9.q at END\n', "the sender is above the receiver"),
        (b'circuit t\nmodel "gpt2"\ntask ioi\nheads a = 9.9 at S3\n', "the task ioi has no position S3"),
        (b'circuit t\nmodel "gpt2"\ntask ioj\n', "did you mean 'ioi'?"),
        (b'circuit t\nmodel "gpt2"\ntask ioi\nmovr -> logits\n', "unknown group 'movr'"),
    ],
)
def test_a_wrong_spec_is_status_2(run, tmp_path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.circ"
    path.write_bytes(content)
    for verb in ("check", "verify"):
        status, _, err = run(verb, str(path))
        assert status == 2
        assert says in err
        assert str(path) in err


def test_a_missing_spec_is_named(run) -> None:
    status, _, err = run("check", "nowhere.circ")
    assert status == 2
    assert "there is no file nowhere.circ, and no shipped spec of that name\n" in err
    assert "pocket/ioi" in err
    for name, meant in (("poket/ioi", "pocket/ioi"), ("ioi", "pocket/ioi"), ("gpt2/ioi", "gpt2-small/ioi")):
        assert f"did you mean '{meant}'?" in run("verify", name)[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--model", "/nowhere"), "there is no model directory /nowhere"),
        (("--model", "{tmp}"), "has no config.json"),
        (("-o", "/nowhere/r.json"), "there is no folder /nowhere"),
    ],
)
def test_what_cannot_be_run_is_status_3(run, good, tmp_path, arguments, says: str) -> None:
    status, out, err = run("verify", good, *(a.replace("{tmp}", str(tmp_path)) for a in arguments))
    assert (status, out) == (3, "")
    assert says in err


def test_weights_that_are_not_at_hand_are_status_3(run, monkeypatch, tmp_path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    status, _, err = run("verify", "gpt2-small/ioi")
    assert status == 3
    assert "the weights of gpt2 are not at hand" in err


def test_a_model_without_a_tokenizer_is_status_3(run, good, tmp_path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50, n_positions=32)).save_pretrained(
        tmp_path / "m"
    )
    status, _, err = run("verify", good, "--model", str(tmp_path / "m"))
    assert status == 3
    assert "has no tokenizer" in err


def test_a_claim_that_is_not_there_is_status_2(run, good) -> None:
    status, out, err = run("verify", good, "--claim", "c99")
    assert (status, out) == (2, "")
    assert "there is no claim c99" in err


def test_a_prompt_file_is_read_by_check(run, tmp_path) -> None:
    path = tmp_path / "f.circ"
    path.write_text('circuit t\nmodel "pocket"\ntask mine = file("p.jsonl")\nexpect accuracy >= 90%\n')
    for content, says in (
        (None, "cannot read the prompt file"),
        ('{"clean": 1', "p.jsonl:1: not JSON"),
        ("", "no prompts"),
    ):
        if content is not None:
            (tmp_path / "p.jsonl").write_text(content)
        for verb in ("check", "verify"):
            status, _, err = run(verb, str(path))
            assert status == 2
            assert says in err


@pytest.mark.parametrize(
    "arguments", [("verify",), ("verify", "x", "--prompts", "0"), ("nonsense",), ("verify", "x", "--each-at", "7")]
)
def test_a_wrong_command_line_is_status_2(run, arguments) -> None:
    status, _, err = run(*arguments)
    assert status == 2
    assert "usage:" in err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("verfy pocket/ioi", "did you mean 'verify'?"),
        ("tasks sho ioi", "did you mean 'show'?"),
        ("verify pocket/ioi --promts 3", "there is no option --promts; did you mean '--prompts'?"),
        ("discover --task ioi --sed=1", "there is no option --sed; did you mean '--seed'?"),
        ("models pocket", "'pocket' is one argument too many"),
        ("verify pocket/ioi --device gpu", "'gpu' (choose from auto, cpu, cuda)\n"),
        ("verify pocket/ioi --device-map 2", "'2' (choose from balanced, auto)\n"),
        ("verify pocket/ioi --load-in 8bit", "weights are not loaded in 8bit: a quantised product rounds"),
        ("plan pocket/ioi --load-in 4bit", "the terms of heads and MLPs do not add up to what the model computes"),
    ],
)
def test_a_misspelt_word_is_named_under_the_usage_of_its_verb(run, line: str, says: str) -> None:
    status, out, err = run(*line.split())
    assert (status, out) == (2, "")
    assert says in err
    verb = "" if line.startswith("verfy") else line.split()[0]
    assert err.startswith(f"usage: circuitdsl {verb}")


def test_no_word_at_all_is_answered_with_the_verbs(run) -> None:
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "check every claim of a spec against the model" in err


def test_a_render_format_that_is_not_known(run, tmp_path) -> None:
    status, _, err = run("render", "gpt2-small/ioi", "-o", str(tmp_path / "x.gif"))
    assert status == 2
    assert ".svg" in err


@pytest.mark.parametrize("verb", ["check", "render", "graph", "verify", "plan"])
def test_a_model_that_is_none_is_refused_by_every_verb(run, good, tmp_path, verb: str) -> None:
    """Also by those that load no weights, and before a model of 400000 layers is made."""
    model = tmp_path / "m"
    model.mkdir()
    for content, says in (
        (None, "has no config.json"),
        ("{", "config.json"),
        ('{"model_type": "gpt2", "n_layer": 400000, "n_head": 8}', "n_layer = 400000; it is a number from 1 to 1000"),
    ):
        if content:
            (model / "config.json").write_text(content)
        status, out, err = run(verb, good, "--model", str(model))
        assert (status, out) == (3, "")
        assert says in err


def test_channels_of_a_model_that_is_not_there_speak_of_no_option(run) -> None:
    status, _, err = run("channels", "./nowhere", "--to", "2.4.q")
    assert status == 3
    assert "there is no model directory nowhere" in err and "help: name a directory" in err
    assert "--model" in run("channels", "pocket/ioi", "--model", "./nowhere", "--to", "2.4.q")[2]


# --- what works ------------------------------------------------------------------------------------


def test_check_counts_claims(run, good) -> None:
    assert run("check", good) == (0, f"{good}: t: 1 claim, no errors\n", "")


def test_json_report_fits_its_schema(run, tmp_path) -> None:
    path = tmp_path / "r.json"
    status, out, err = run("verify", "pocket/ioi", "--prompts", "64", "--format", "json", "-o", str(path))
    assert out == ""
    assert err.startswith(f"wrote {path}\nioi: 25 claims: ")
    assert status in (0, 1)
    report = json.loads(path.read_text())
    jsonschema.validate(report, schema())
    assert report["model"]["name"] == "pocket"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_the_screen_has_a_line_for_every_claim(run, good) -> None:
    status, out, _ = run("verify", good)
    assert status == 0
    assert "expect accuracy >= 90%" in out
    assert "1 claim: 1 holds" in out
    assert all(line == line.rstrip() or "holds" in line for line in out.splitlines())


def test_of_many_pairs_that_do_not_hold_the_first_are_listed(run, tmp_path) -> None:
    heads = [f"{layer}.{head}" for layer in (2, 3) for head in range(8)]
    path = tmp_path / "each.circ"
    path.write_text(GOOD + f"heads late = {' '.join(heads)} at END\neach late -> logits : effect <= -90%\n")
    status, out, _ = run("verify", str(path))
    assert status == 1
    assert len([line for line in out.splitlines() if "-> logits at END: effect" in line]) == 11
    assert "and 5 more that do not hold (verify -v lists them)" in out
    out = run("verify", str(path), "-v")[1]
    assert all(f"{head} -> logits at END: effect" in out for head in heads)


def test_one_claim_alone(run, tmp_path) -> None:
    path = tmp_path / "two.circ"
    path.write_text(GOOD + "expect logit_diff >= 1000\n")
    assert run("verify", str(path))[0] == 1
    assert run("verify", str(path), "--claim", "c01")[0] == 0
    assert run("verify", str(path), "--claim", "4")[0] == 0
    assert run("verify", str(path), "--claim", "5")[0] == 1


def test_several_claims_alone(run, tmp_path) -> None:
    path = tmp_path / "three.circ"
    path.write_text(GOOD + "expect logit_diff >= 1000\nexpect accuracy >= 50%\n")
    for named in (["--claim", "4", "--claim", "6"], ["--claim", "c01,6"], ["--claim", "4, c03"]):
        status, out, _ = run("verify", str(path), *named, "--format", "json")
        assert (status, [claim["line"] for claim in json.loads(out)["claims"]]) == (0, [4, 6])
    status, out, err = run("verify", str(path), "--claim", "4", "--claim", "44")
    assert (status, out) == (2, "") and "there is no claim 44" in err


def test_prompts_and_seed_override_the_spec(run, good) -> None:
    _, out, _ = run("verify", good, "--prompts", "40", "--seed", "9", "--format", "json")
    (task,) = json.loads(out)["tasks"]
    assert (task["prompts"], task["seed"]) == (40, 9)


def test_render_from_the_spec_and_from_a_report(run, tmp_path) -> None:
    report = tmp_path / "r.json"
    run("verify", "pocket/ioi", "--prompts", "32", "--format", "json", "-o", str(report))
    for suffix in ("svg", "html", "dot"):
        plain, coloured = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
        assert run("render", "pocket/ioi", "-o", str(plain))[0] == 0
        assert run("render", "pocket/ioi", "-o", str(coloured), "--report", str(report))[0] == 0
        assert plain.read_text() != coloured.read_text()


def test_a_report_on_something_else_is_refused(run, tmp_path, good) -> None:
    report = tmp_path / "r.json"
    run("verify", good, "--format", "json", "-o", str(report))
    status, _, err = run("render", "gpt2-small/ioi", "--report", str(report), "-o", str(tmp_path / "x.svg"))
    assert status == 2
    assert "no report on circuit ioi" in err


def test_tasks_are_listed_and_shown(run) -> None:
    status, out, _ = run("tasks")
    assert status == 0
    assert "Indirect object identification" in out and "colored_objects" in out
    status, out, _ = run("tasks", "show", "ioi")
    assert status == 0
    assert "S2=DISTRACTOR" in out and "flip" in out
    assert run("tasks", "show", "ioj")[0] == 2


def test_sampled_prompts_are_json_lines(run) -> None:
    status, out, _ = run("tasks", "sample", "ioi", "--model", "pocket", "-n", "5", "--seed", "1")
    assert status == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert len(records) == 5
    for record in records:
        assert len(record["clean_tokens"]) == len(record["corrupt_tokens"])
        assert record["clean_tokens"][record["positions"]["S2"]] == record["clean_tokens"][record["positions"]["S1"]]
    assert run("tasks", "sample", "ioi", "-n", "5", "--seed", "1")[1] == out
    assert run("tasks", "sample", "ioi", "-n", "5", "--seed", "2")[1] != out


def test_models_lists_pocket(run) -> None:
    status, out, _ = run("models")
    assert status == 0
    assert out.startswith("pocket")


def test_a_circuit_without_claims_beside_one_that_has_some(run, tmp_path, good) -> None:
    path = tmp_path / "two.circ"
    path.write_text(GOOD + "circuit silent\nheads a = 0.0 at END\n")
    status, out, _ = run("verify", str(path))
    assert status == 0
    assert "1 claim: 1 holds" in out
    silent = tmp_path / "silent.circ"
    silent.write_text('circuit silent\nmodel "pocket"\ntask ioi\nheads a = 0.0 at END\n')
    status, _, err = run("verify", str(silent))
    assert status == 3
    assert "nothing to verify" in err


def test_models_of_one_name_beside_different_specs_are_different(run, tmp_path) -> None:
    """A model directory is looked for beside its own spec."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    from circuitdsl.models.load import POCKET

    for name in ("a", "b"):
        net = tmp_path / name / "nets" / "net"
        net.mkdir(parents=True)
        for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(POCKET / file, net / file)
        (tmp_path / name / "s.circ").write_text(GOOD.replace('"pocket"', '"nets/net"'))
    weights = load_file(net / "model.safetensors")
    weights["transformer.ln_f.weight"] = torch.zeros_like(weights["transformer.ln_f.weight"])
    save_file(weights, net / "model.safetensors", metadata={"format": "pt"})
    assert run("verify", str(tmp_path / "a" / "s.circ"))[0] == 0
    beyond = tmp_path / "a" / "beyond.circ"
    beyond.write_text(GOOD.replace('"pocket"', '"../a/nets/net"') + "heads h = 4.0 at END\n")
    status, _, err = run("check", str(beyond))
    assert status == 2
    assert "4.0 does not exist" in err or "has 4 layers" in err
    status, out, _ = run("verify", str(tmp_path / "a" / "s.circ"), str(tmp_path / "b" / "s.circ"))
    assert status == 1
    assert "1 claim: 1 holds" in out and "1 claim: 1 fails" in out


def test_levels_and_looks_are_options(run, good) -> None:
    for options in (("--each-at", "5%"), ("--no-early-stop",), ("-v",), ("--allow-undecided",)):
        status, out, _ = run("verify", good, *options)
        assert status == 0
        assert "holds" in out
    assert "accuracy 100" in run("verify", good, "-v")[1].split("expect accuracy")[1]


def test_several_circuits_make_a_list_of_reports(run, tmp_path) -> None:
    path = tmp_path / "two.circ"
    path.write_text(GOOD + GOOD.replace("circuit t", "circuit u"))
    _, out, _ = run("verify", str(path), "--format", "json")
    reports = json.loads(out)
    assert [report["spec"]["circuit"] for report in reports] == ["t", "u"]
    for report in reports:
        jsonschema.validate(report, schema())


def test_ctrl_c_ends_the_circuit_and_those_after_it(run, tmp_path, monkeypatch) -> None:
    from circuitdsl.api import load
    from circuitdsl.verify import verify as verification

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(verification, "measure", interrupted)
    path = tmp_path / "two.circ"
    path.write_text(GOOD + 'circuit u\nmodel "pocket"\ntask ioi(prompts = 64)\nexpect logit_diff > 0\n')
    status, out, _ = run("verify", str(path), "--no-cache", "--other-corruptions", "--format", "json")
    assert status == 130
    report = json.loads(out)
    assert (report["spec"]["circuit"], report["interrupted"]) == ("t", True)
    assert [report.spec.circuit for report in load(path).verify(cache=False)] == ["t"]


@pytest.mark.parametrize("content", ["{", '{"spec": 5}', "[1, 2]", '{"spec": {"circuit": "ioi"}}', None])
def test_a_report_that_is_none_is_refused(run, tmp_path, content: str | None) -> None:
    """By whatever reads reports, with the same words."""
    report, picture = tmp_path / "r.json", tmp_path / "x.svg"
    if content is not None:
        report.write_text(content)
    said = run("diff", str(report), str(report))
    assert said[0] == 2
    assert f"error: {'cannot read the report ' if content is None else ''}{report}" in said[2]
    assert run("render", "pocket/ioi", "--report", str(report), "-o", str(picture)) == said
    assert not picture.exists()


def test_a_report_of_another_schema_is_not_drawn(run, tmp_path) -> None:
    report, picture = tmp_path / "r.json", tmp_path / "x.svg"
    assert run("verify", "pocket/ioi", "--prompts", "32", "--claim", "c22", "-o", str(report))[0] in (0, 1)
    report.write_text(json.dumps(json.loads(report.read_text()) | {"schema": 99}))
    status, _, err = run("render", "pocket/ioi", "--report", str(report), "-o", str(picture))
    assert status == 2
    assert "schema 99, this version reads schema 1" in err
    assert not picture.exists()


def test_output_onto_a_folder_is_refused_before_anything_runs(run, good, tmp_path) -> None:
    status, _, err = run("verify", good, "-o", str(tmp_path))
    assert status == 3
    assert "it is a folder" in err
    assert [p.name for p in tmp_path.iterdir()] == ["good.circ"]


@pytest.mark.parametrize(
    "line",
    [
        "verify pocket/ioi --per-prompt {}/p.csv",
        "plan pocket/ioi -o {}/p.json",
        "discover --task ioi -o {}/p.circ",
        "falsify pocket/ioi --claim 38 -o {}/p.jsonl",
        "channels pocket --to 2.4.q -o {}/p.svg",
        "trace pocket/ioi --head 2.5 --from END --to IO -o {}/p.svg",
        "compare pocket/ioi pocket/induction -o {}/p.svg",
        "graph pocket/ioi -o {}/p.json",
        "tasks sample ioi -o {}/p.jsonl",
        "edit pocket/repair --intervention push -o {}/p",
    ],
)
def test_output_that_cannot_be_written_is_refused_before_anything_runs(run, tmp_path, monkeypatch, line: str) -> None:
    import os

    monkeypatch.setattr("circuitdsl.models.record.open_model", None)  # nothing is loaded, let alone measured
    status, out, err = run(*line.format(tmp_path / "nowhere").split())
    assert (status, out) == (3, "")
    assert "there is no folder" in err and "nowhere" in err
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user who may not write there
    status, out, err = run(*line.format(tmp_path).split())
    assert (status, out) == (3, "")
    assert f"the folder {tmp_path} may not be written to" in err


@pytest.mark.parametrize(
    "line",
    [
        "channels pocket --to 2.4.q -o x.gif",
        "trace pocket/ioi --head 2.5 --from END --to IO -o x.gif",
        "compare pocket/ioi pocket/induction -o x",
        "graph pocket/ioi -o x.gif",
    ],
)
def test_a_suffix_that_says_nothing_is_refused_before_anything_runs(run, tmp_path, monkeypatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*line.split())
    assert (status, out) == (2, "")
    assert "x" in err and (".svg" in err or ".dot" in err)
    assert not list(tmp_path.iterdir())


def test_output_may_be_standard_output(good) -> None:
    """`/dev/stdout` leads to a pipe by a link that names no file."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "circuitdsl", "graph", good, "-o", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["graph"]["name"] == "t"


def test_a_spec_that_cannot_run_does_not_lose_the_others(run, good, tmp_path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    other = tmp_path / "other.circ"
    other.write_text(GOOD.replace('"pocket"', '"gpt2-xl"'))
    report = tmp_path / "r.json"
    status, _, err = run("verify", good, str(other), "-o", str(report))
    assert status == 3
    assert "the weights of gpt2-xl are not at hand" in err
    assert json.loads(report.read_text())["summary"]["holds"] == 1


def test_output_follows_links_and_leaves_pipes_pipes(run, good, tmp_path) -> None:
    import os
    import stat
    import threading

    target, link, pipe = tmp_path / "target.txt", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(target)
    assert run("verify", good, "-o", str(link))[0] == 0
    assert link.is_symlink() and "1 holds" in target.read_text()
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert run("verify", good, "-o", str(pipe))[0] == 0
    reader.join(timeout=20)
    assert "1 holds" in read[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_terminals_without_unicode_and_full_disks() -> None:
    import os
    import subprocess
    import sys

    command = [sys.executable, "-m", "circuitdsl", "tasks", "show", "ioi"]
    plain = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, check=False)
    assert plain.returncode == 0 and b"Traceback" not in plain.stderr
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert "cannot write the output" in done.stderr and "Traceback" not in done.stderr


def test_signs_that_ascii_lacks_are_spelled() -> None:
    """A minus that is lost, or a question mark in its place, would turn a figure round."""
    import os
    import subprocess
    import sys

    from circuitdsl.cli.terminal import PLAIN

    assert "−24 %  [−27, −22] · 4 × 8 … é".encode("ascii", PLAIN) == b"-24 %  [-27, -22] | 4 x 8 ... ?"
    command = [sys.executable, "-m", "circuitdsl", "tasks", "show", "greater_than"]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"1498 -> 1401" in done.stdout


@pytest.mark.parametrize("verb", ["tasks", "models"])
def test_a_reader_that_has_gone_is_no_claim_that_fails(verb: str) -> None:
    """The status is 3 whether rich prints or we do; 1 would say that a claim fails."""
    import os
    import subprocess
    import sys

    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "circuitdsl", verb], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (3, b"")


def test_closed_output_is_no_failure(good) -> None:
    import subprocess
    import sys

    command = f'exec "{sys.executable}" -m circuitdsl check "$0" >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, good], check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "x" * 5000),
        ("verify", "pocket/ioi", "--seed", "-1"),
        ("verify", "pocket/ioi", "--prompts", "99999999999"),
        ("verify", "pocket/ioi", "--each-at", "1e-300"),
        ("verify", "pocket/ioi", "--claim", ""),
        ("tasks", "sample", "ioi", "-n", "²"),
    ],
)
def test_values_out_of_reason_are_status_2(run, arguments) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err


def test_a_deeply_nested_report_is_refused(run, tmp_path) -> None:
    report = tmp_path / "deep.json"
    report.write_text("[" * 100_000)
    assert run("render", "pocket/ioi", "--report", str(report), "-o", str(tmp_path / "x.svg"))[0] == 2


def test_a_line_names_one_claim_of_several_circuits(run, tmp_path) -> None:
    """Ids begin anew in every circuit; a line stands once in a file."""
    path = tmp_path / "two.circ"
    path.write_text(GOOD + 'circuit u\nmodel "pocket"\ntask ioi(prompts = 64)\nexpect logit_diff >= 1000\n')
    status, out, _ = run("verify", str(path), "--claim", "8", "--format", "json")
    assert status == 1
    report = json.loads(out)
    assert (report["spec"]["circuit"], [c["line"] for c in report["claims"]]) == ("u", [8])
