"""Claims about a changed model, from the text to the report."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitdsl.api import loads
from circuitdsl.circuit.changes import Intervention, Scale, SetAttention
from circuitdsl.models.load import POCKET
from circuitdsl.report.report import Report
from circuitdsl.verify.prompts import prompts_by_task
from circuitdsl.verify.session import Options
from circuitdsl.verify.verify import verify

HEADER = """circuit changed
model "pocket"
task ioi(prompts = 64, seed = 3)
heads suppressor = 0.3 0.5 0.6  at END
heads mover      = 2.4 2.5      at END
"""


def verified(block: str, pocket, header: str = HEADER) -> Report:
    spec = loads(header + block)
    assert spec.ok, [d.message for d in spec.diagnostics]
    (circuit,) = spec.circuits
    return verify(circuit, pocket, prompts_by_task(circuit, pocket), Options(early_stop=False))


def test_scaled_weights_give_the_same_behaviour(pocket) -> None:
    """`scale 0.3 by 0.5` is the published model with the head's output weights halved."""
    from transformers import AutoModelForCausalLM

    report = verified("intervention half\n  scale 0.3 by 0.5\n  scale m2 by 2\n  expect logit_diff >= 0\n", pocket)
    model = AutoModelForCausalLM.from_pretrained(str(POCKET), local_files_only=True)
    with torch.no_grad():
        first, width = model.transformer.h[0].attn.c_proj, pocket.d_model // pocket.n_heads
        first.weight[3 * width : 4 * width] *= 0.5
        second = model.transformer.h[2].mlp.c_proj
        second.weight *= 2
        second.bias *= 2
        spec = loads(HEADER + "expect accuracy >= 0%\n").circuits[0]
        bench = prompts_by_task(spec, pocket)["ioi"]
        wanted = []
        for pair in bench.pairs:
            logits = model(torch.tensor([pair.clean_tokens])).logits[0, -1]
            wanted.append(float(logits[list(pair.answers)].mean() - logits[list(pair.distractors)].mean()))
    (claim,) = report.claims
    assert claim.measured and claim.measured.value == pytest.approx(np.mean(wanted), abs=1e-3)
    assert claim.protocol["run"] == "changed model"
    assert claim.block == "intervention half"


def test_what_moves_is_compared_with_the_model_as_it_is(pocket) -> None:
    block = """intervention blind
  set attention(suppressor, END -> S2) = 0%
  expect attention(suppressor, END -> S2) <= 20%
  expect attention(suppressor, END -> S2) falls
  expect logit_diff falls by >= 5
  expect logit_diff rises
"""
    report = verified(block, pocket)
    first, falls, less, rises = report.claims
    assert first.measured and first.measured.value == pytest.approx(0, abs=1e-6)
    assert falls.measured and falls.measured.value < -0.5
    assert [c.verdict for c in report.claims] == ["holds", "holds", "holds", "fails"]
    assert less.measured and rises.measured and less.measured.value == rises.measured.value


@pytest.mark.parametrize(
    "verb",
    [
        "replace early with corrupt",  # role flip leaves everything before S2 alone
        "scale mover by 1",
        "set attention(mover, S1 -> S2) = 100%",  # nothing looks ahead
    ],
)
def test_an_intervention_that_changes_nothing_is_an_error(pocket, verb: str) -> None:
    """Else it would be shown that the model does without the heads, which nobody has taken out."""
    header = HEADER.replace("prompts", "corrupt = flip, prompts") + "heads early = 0.0 1.1 at S1\n"
    block = f"intervention idle\n  {verb}\n  expect accuracy >= 90%\n  expect attention(mover, END -> IO) falls\n"
    report = verified(block, pocket, header)
    assert [claim.verdict for claim in report.claims] == ["error", "error"]
    assert {claim.reason for claim in report.claims} == {"idle changes nothing of what the model does on these prompts"}


def test_it_is_said_where_an_intervention_changes_only_some_prompts(pocket) -> None:
    """An object that stands before S2 is not changed by role flip."""
    header = HEADER.replace("prompts", "corrupt = flip, prompts") + "heads some = 0.0 1.1 at OBJECT\n"
    (claim,) = verified(
        "intervention few\n  replace some with corrupt\n  expect accuracy >= 50%\n", pocket, header
    ).claims
    assert claim.verdict == "holds"
    assert any("the intervention changes something on" in note for note in claim.notes)


def test_errors_that_went_and_new_ones_are_counted(pocket) -> None:
    block = "intervention blind\n  set attention(suppressor, END -> S2) = 0%\n  expect accuracy >= 50%\n"
    (claim,) = verified(block, pocket).claims
    assert claim.measured
    wrong = round((1 - claim.measured.value) * 64)
    assert f"errors 0 of 64 before, {wrong} after: 0 went, {wrong} new" in claim.notes


def test_interventions_belong_to_the_circuit_with_or_without_expectations() -> None:
    spec = loads(HEADER + "intervention quiet\n  project out 0.3[1]\n  set attention(mover, END -> IO, S1) = 40%\n")
    assert spec.ok
    (found,) = spec.circuits[0].interventions
    assert isinstance(found, Intervention)
    scale, attention = found.verbs
    assert isinstance(scale, Scale) and scale.factor == 0 and str(scale.nodes[0]) == "0.3[1]"
    assert isinstance(attention, SetAttention) and attention.mass == 0.4
    assert [str(place) for place in attention.target] == ["IO", "S1"]


def test_attribution_of_a_changed_model(pocket) -> None:
    """What m3 writes towards the answer once 0.3 writes twice as much, against the published model with hooks."""
    from transformers import AutoModelForCausalLM

    block = "intervention twice\n  scale 0.3 by 2\n  expect attribution(m3) >= 0\n  expect attribution(0.3) rises\n"
    report = verified(block, pocket)
    spec = loads(HEADER + block).circuits[0]
    (bench,) = prompts_by_task(spec, pocket).values()
    model = AutoModelForCausalLM.from_pretrained(str(POCKET), local_files_only=True)
    seen: dict[str, torch.Tensor] = {}
    model.transformer.h[3].mlp.register_forward_hook(lambda _m, _i, out: seen.update(m3=out[0, -1]))
    model.transformer.ln_f.register_forward_hook(lambda _m, i, _o: seen.update(end=i[0][0, -1]))
    tokens = [torch.tensor([pair.clean_tokens]) for pair in bench.pairs]
    with torch.no_grad():
        scales = []
        for prompt in tokens:
            model(prompt)
            scales.append((seen["end"].var(correction=0) + model.transformer.ln_f.eps).sqrt())
        width = pocket.d_model // pocket.n_heads
        model.transformer.h[0].attn.c_proj.weight[3 * width : 4 * width] *= 2
        found = []
        for prompt, pair, scale in zip(tokens, bench.pairs, scales, strict=True):
            model(prompt)
            term = (seen["m3"] - seen["m3"].mean()) * model.transformer.ln_f.weight / scale
            unembed = model.lm_head.weight
            found.append(float(term @ (unembed[pair.answers[0]] - unembed[pair.distractors[0]])))
    writes, rises = report.claims
    assert writes.measured and writes.measured.value == pytest.approx(np.mean(found), abs=1e-3)
    assert writes.measured.name == "attribution"
    assert writes.protocol["run"] == "changed model"
    assert rises.verdict == "holds"
