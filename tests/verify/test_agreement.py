"""A model that is not computed as its library computes it is refused before anything is measured, whatever is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import circuitdsl
from circuitdsl import cli
from circuitdsl.api import loads
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.errors import UserError
from circuitdsl.models.errors import UnsupportedModel
from circuitdsl.models.model import Model
from circuitdsl.models.original import Original
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset, sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.verify.folder import default_path
from circuitdsl.verify.prompts import prompts_by_task, random_prompts, scored_prompts
from circuitdsl.verify.store import Store
from circuitdsl.verify.verify import verify

SPEC = """circuit t
model "pocket"
task ioi(prompts = 24)
heads mover = 2.5 2.7 at END
each mover -> logits at END : lowers
property "right" for 50% of prompts
  expect logit_diff > 0
"""
pytest_plugins = ["pytester"]

REFUSED = "does not compute what transformers computes with pocket: on prompt"


@pytest.fixture(scope="module")
def wrong(pocket: Transformer) -> Transformer:
    """Heads that see 14 tokens, as a wrong reader of a configuration would have it: most prompts are longer."""
    return replace(pocket, blocks=tuple(replace(b, attn=replace(b.attn, window=14)) for b in pocket.blocks))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens the library's own model was given, at every run of it."""
    runs: list[int] = []
    true = Original.logits

    def logits(self, tokens, *rest, **more):
        runs.append(tokens.numel())
        return true(self, tokens, *rest, **more)

    monkeypatch.setattr(Original, "logits", logits)
    return runs


@pytest.fixture(scope="module")
def data(pocket_tokens) -> Dataset:
    return sample(TASKS["ioi"], pocket_tokens, 24, seed=0)


def test_what_is_right_is_measured(pocket: Transformer, data: Dataset, counted: list[int]) -> None:
    """Two prompts of each length and their partners, as many at once as are of one length."""
    scored_prompts(pocket, data, Metric())
    lengths = {len(pair.clean_tokens) for pair in data.pairs}
    assert len(counted) == len(lengths)
    assert set(counted) <= {n * length for n in (2, 4) for length in lengths}


@pytest.mark.parametrize("side", ["clean", "corrupt"])
def test_either_side_is_looked_at(
    pocket: Transformer, data: Dataset, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Original.off

    def off(self, ours, tokens, start=0, exact=None):
        found = true(self, ours, tokens, start, exact)
        mine = [list(getattr(pair, f"{side}_tokens")) for pair in data.pairs]
        return found + torch.tensor([float(row in mine) for row in tokens.tolist()])

    monkeypatch.setattr(Original, "off", off)
    with pytest.raises(UnsupportedModel, match=r"on prompt \d+ \('.*'\) or its partner, logits at END are off by"):
        scored_prompts(pocket, data, Metric())


def test_the_longest_prompt_decides(pocket: Transformer, pocket_tokens) -> None:
    pairs = sorted(sample(TASKS["ioi"], pocket_tokens, 60, seed=0).pairs, key=lambda pair: len(pair.clean_tokens))
    longest = len(pairs[-1].clean_tokens)
    assert len(pairs[0].clean_tokens) < longest
    blocks = tuple(replace(b, attn=replace(b.attn, window=longest - 1)) for b in pocket.blocks)
    wrong, shorter = replace(pocket, blocks=blocks), [p for p in pairs if len(p.clean_tokens) < longest]
    scored_prompts(wrong, Dataset("ioi", "abc", 0, False, tuple(shorter)), Metric())
    with pytest.raises(UnsupportedModel, match=f"prompt {len(shorter) + 1} "):
        scored_prompts(wrong, Dataset("ioi", "abc", 0, False, tuple(pairs)), Metric())


def test_random_tokens_too(wrong: Transformer) -> None:
    with pytest.raises(UnsupportedModel, match=REFUSED):
        random_prompts(wrong)


def test_a_model_like_no_other_is_measured(wrong: Transformer, data: Dataset) -> None:
    scored_prompts(replace(wrong, original=None), data, Metric())


# --- whatever is asked ------------------------------------------------------------------------------

COMMANDS = [
    "verify {spec}",
    "verify {spec} --no-cache",
    "discover --task ioi --prompts 24",
    "mutate {spec}",
    "falsify {spec} --property right",
    "trace {spec} --head 2.5 --from END --to IO",
    "compare {spec} {spec} --measure",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_it(command: str, wrong: Transformer, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("circuitdsl.models.record.open_model", lambda *_: Model.of(wrong))
    spec = tmp_path / "t.circ"
    spec.write_text(SPEC)
    assert cli.run(command.format(spec=spec).split()) == 3
    out, err = capsys.readouterr()
    assert REFUSED in err and "Traceback" not in out + err


def test_python_refuses_it(wrong: Transformer) -> None:
    for cache in (True, False):
        with pytest.raises(circuitdsl.UserError, match=REFUSED):
            loads(SPEC).verify(wrong, cache=cache)


def test_the_plugin_refuses_it(wrong: Transformer, pytester: pytest.Pytester, monkeypatch) -> None:
    monkeypatch.setattr("circuitdsl.models.record.open_model", lambda *_: Model.of(wrong))
    (pytester.path / "t.circ").write_text(SPEC)
    result = pytester.runpytest_inprocess("-p", "no:circuitdsl", "-p", "circuitdsl.testing.plugin")
    assert REFUSED in result.stdout.str() and "passed" not in result.stdout.str()


# --- what is remembered -----------------------------------------------------------------------------


def benches(model: Transformer, text: str = SPEC, cache: bool = True) -> None:
    (circuit,) = loads(text).circuits
    with Store(default_path(), warn=lambda _: None) as store:
        prompts_by_task(circuit, model, store if cache else None)


def test_agreement_costs_once(pocket: Transformer, counted: list[int]) -> None:
    benches(pocket)
    assert counted
    counted.clear()
    benches(pocket)
    benches(pocket, SPEC.replace("task ioi", "metric prob_diff\ntask ioi"))  # the same logits
    assert not counted


@pytest.mark.parametrize("what", ["prompts", "weights", "configuration", "version", "no cache"])
def test_it_is_not_taken_for_another(what: str, pocket: Transformer, counted: list[int]) -> None:
    benches(pocket)
    counted.clear()
    text, model = SPEC, pocket
    match what:
        case "prompts":
            text = SPEC.replace("prompts = 24", "prompts = 24, seed = 7")
        case "weights":
            model = replace(pocket, sha256="other")
        case "configuration" | "version":
            other = Original.of("pocket", pocket.original.module)
            other.digest = b"other"
            model = replace(pocket, original=other)
    benches(model, text, cache=what != "no cache")
    assert counted


def test_disagreement_is_remembered_as_well(wrong: Transformer, counted: list[int]) -> None:
    runs = 0
    for _ in range(2):
        with pytest.raises(UnsupportedModel, match=REFUSED):
            benches(wrong)
        runs = runs or len(counted)
    assert len(counted) == runs > 0


@pytest.mark.parametrize("trouble", ["damaged", "a folder", "read-only"])
def test_a_cache_that_cannot_be_used_is_not_in_the_way(trouble: str, pocket: Transformer, counted: list[int]) -> None:
    path = default_path()
    benches(pocket)
    counted.clear()
    if trouble == "read-only":
        path.chmod(0o400)
        path.parent.chmod(0o500)
    else:
        path.unlink()
        path.mkdir() if trouble == "a folder" else path.write_bytes(b"no database" * 100)
    try:
        benches(pocket)
        benches(pocket)
    finally:
        path.parent.chmod(0o700)
    assert counted or trouble == "read-only"


def test_no_number_depends_on_it(pocket: Transformer) -> None:
    (circuit,) = loads(SPEC).circuits
    models = (pocket, replace(pocket, original=None))
    with_it, without = (verify(circuit, model, prompts_by_task(circuit, model)) for model in models)
    assert with_it.claims == without.claims and with_it.tasks == without.tasks


@torch.no_grad()
def with_offset(directory: Path, offset: float) -> str:
    """A GPT-2 of one layer that copies the token at A. All logits have an offset in common, and prompts are alike."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 30, "n_layer": 1, "n_head": 1, "n_embd": 64, "n_inner": 8, "n_positions": 8}
    model = GPT2LMHeadModel(GPT2Config(**sizes, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0))
    for parameter in model.parameters():
        parameter.zero_()
    body, block = model.transformer, model.transformer.h[0]
    for norm in (block.ln_1, block.ln_2, body.ln_f):
        norm.weight.fill_(1)
    body.wte.weight[:, :30] = 3 * torch.eye(30)
    body.wpe.weight[:, 30:38] = 3 * torch.eye(8)
    block.attn.c_attn.weight[35, 0] = block.attn.c_attn.weight[31, 64] = 10.0
    block.attn.c_attn.weight[:30, 129:159] = torch.eye(30)
    block.attn.c_proj.weight[1:31, :30] = torch.eye(30)
    body.ln_f.bias[60] = offset
    model.lm_head.weight[:, :30] = 20 * torch.eye(30)
    model.lm_head.weight[:, 60] = 1.0
    model.save_pretrained(directory)
    return str(directory)


@pytest.mark.parametrize(("offset", "dtype"), [(500.0, "bfloat16"), (3000.0, "float16"), (500.0, "float32")])
def test_what_is_rounded_alike_on_all_prompts_is_refused(tmp_path: Path, offset: float, dtype: str) -> None:
    """Logits of 500 in steps of 2: an effect of 1 % of the gap is 0 or 2 % on every prompt, without any spread."""
    rows = [
        {"clean_tokens": [a, b, 2, 3, 4, 29], "corrupt_tokens": [a, b + 10, 2, 3, 4, 29], "answer": b,
         "distractor": 25, "positions": {"A": 1}}
        for a in range(5, 8) for b in range(8, 14)
    ]  # fmt: skip
    prompts = tmp_path / "alike.jsonl"
    prompts.write_text("\n".join(map(json.dumps, rows)))
    text = f'circuit t\ntask file("{prompts}")\nexpect logit_diff >= 1\n'
    spec = loads(text, model=with_offset(tmp_path / "model", offset), allow_outside=True)
    if dtype != "float32":
        with pytest.raises(UserError, match=rf"where {dtype} has steps of .* rounded alike"):
            spec.verify(dtype=dtype, cache=False)
    else:
        assert not isinstance(report := spec.verify(dtype=dtype, cache=False), tuple)
        assert report.claims[0].verdict == "holds"
