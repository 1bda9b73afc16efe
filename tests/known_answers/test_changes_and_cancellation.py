"""Interventions with a known result, groups whose members cancel, and properties with a known share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from circuitdsl.api import loads
from circuitdsl.circuit.nodes import Node, Position, Site
from circuitdsl.engine.experiment import Experiment
from circuitdsl.report.report import Report
from circuitdsl.verify.properties import sample_name
from circuitdsl.verify.verify import verify
from tests.known_answers.hand_set_claims import Population, node
from tests.known_answers.hand_set_runs import known, sample_bench
from tests.known_answers.hand_set_tasks import draw_indices

N, SEED = 256, 5
HEAD = f"""circuit known
model "{{model}}"
task known = file("known.jsonl", prompts = {N})
heads mover = 2.3 2.4 at END
"""


STREAMS = tuple((f"resid{layer} at {at}", layer, at) for layer in (1, 2, 3) for at in ("IO", "END"))


@pytest.fixture
def chain(known_model: Callable[[str, int], Population]) -> Population:
    return known_model("chain", 96)


def run(whole: Population, text: str, own: int = 0) -> Report:
    """The report on a spec; `own` is the number of prompts that its properties get."""
    (circuit,) = loads(HEAD.format(model=whole.model.name) + text).circuits
    benches = {"known": sample_bench(whole, SEED, n=N)}
    if own:
        benches[sample_name("known")] = sample_bench(whole, SEED + 1, n=own)
    return verify(circuit, whole.model, benches)


def verdicts(whole: Population, text: str, own: int = 0) -> list[str]:
    return [claim.verdict for claim in run(whole, text, own).claims]


# --- interventions ---------------------------------------------------------------------------------


def test_movers_that_look_only_at_the_answer_do_better(chain: Population) -> None:
    text = """intervention look
  set attention(mover, END -> IO) = 100%
  expect attention(mover, END -> IO) >= 95%
  expect logit_diff rises
  expect attention(mover, END -> IO) <= 90%
  expect logit_diff falls
"""
    assert verdicts(chain, text) == ["holds", "holds", "fails", "fails"]


def test_movers_that_look_away_do_not_find_the_answer(chain: Population) -> None:
    text = """intervention away
  set attention(mover, END -> IO) = 0%
  expect attention(mover, END -> IO) <= 5%
  expect accuracy falls by >= 20 points
  expect attention(mover, END -> IO) >= 5%
  expect accuracy rises
"""
    assert verdicts(chain, text) == ["holds", "holds", "fails", "fails"]


@pytest.mark.parametrize("head", ["2.3", "1.1"])
def test_a_head_scaled_to_nothing_is_one_knocked_out_everywhere(chain: Population, head: str) -> None:
    """By brute force over the population: the same prompts, the head's term set to 0 at every position."""
    whole = Experiment(sites=frozenset({Site(node(head), Position("*"))}), ablate="zero")
    truth = chain.brute.logit_diffs(whole)[draw_indices(len(chain.data.pairs), N, SEED)]
    text = f"intervention mute\n  scale {head} by 0\n  expect logit_diff >= -100\n  expect logit_diff falls\n"
    bound, falls = run(chain, text).claims
    assert bound.measured and bound.measured.value == pytest.approx(truth[: bound.measured.n].mean(), abs=1e-4)
    assert falls.verdict == "holds"


def test_loud_movers_and_heads_without_a_part(chain: Population) -> None:
    text = """intervention loud
  scale mover by 2
  expect logit_diff rises by >= 2
  expect logit_diff falls
intervention idle
  scale 2.7 by 0
  expect logit_diff rises by >= 0.5
  expect logit_diff falls by >= 0.5
"""
    assert verdicts(chain, text) == ["holds", "fails", "fails", "fails"]


# --- the residual stream ---------------------------------------------------------------------------


def test_a_residual_stream_is_all_that_was_written_before(chain: Population) -> None:
    """By brute force over the population; at END the last stream is all that the logits read."""
    sites = {name: frozenset({Site(Node("resid", layer), Position(at))}) for name, layer, at in STREAMS}
    text = "".join(f"expect knockout(resid{layer} at {at}) : delta <= 100\n" for _, layer, at in STREAMS)
    text += "expect knockout(resid4 at END) : effect in [-102%, -98%]\nexpect knockout(resid4 at END) : raises\n"
    text += "expect knockout(resid2 at IO) : lowers\nexpect knockout(resid3 at IO) : negligible\n"
    text += "expect knockout(resid3 at IO) : lowers\nexpect knockout(resid1 at IO) : negligible\n"
    text += "resid2 -> mover.v at IO : lowers\nresid2 -> mover.v at IO : raises\nresid2 -> mover.v at IO : matters\n"
    report, picked = run(chain, text), draw_indices(len(chain.data.pairs), N, SEED)
    for (name, _, _), claim in zip(STREAMS, report.claims, strict=False):
        truth = (chain.brute.logit_diffs(Experiment(sites=sites[name])) - chain.clean)[picked]
        assert claim.measured and claim.measured.delta == pytest.approx(truth[: claim.measured.n].mean(), abs=1e-4)
    found = [claim.verdict for claim in report.claims[len(STREAMS) :]]
    assert found == ["holds", "fails", "holds", "holds", "fails", "fails", "holds", "fails", "holds"]


def test_a_direction_is_what_is_exchanged(chain: Population, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the mover writes towards one answer and away from another is all that it does for these two."""
    monkeypatch.chdir(tmp_path)
    answers = sorted({pair.answers[0] for pair in chain.data.pairs})
    towards = chain.model.W_U[answers[0]] - chain.model.W_U[answers[1]]
    across = torch.nn.functional.normalize(torch.ones(chain.model.d_model), dim=0)  # no head of these models writes it
    save_file({"t": towards.contiguous(), "a": across}, "u.safetensors")
    text = """direction towards = file("u.safetensors", tensor = "t")
direction across = file("u.safetensors", tensor = "a")
expect knockout(2.3[towards] at END) : delta <= 100
expect knockout(2.3[towards] at END) : delta >= 100
expect knockout(2.3[towards] at END) : lowers
expect knockout(2.3[towards] at END) : raises
2.3[towards] -> logits at END : lowers
expect knockout(2.3[across] at END) : negligible
expect knockout(2.3[across] at END) : lowers
"""
    report, picked = run(chain, text), draw_indices(len(chain.data.pairs), N, SEED)
    (site,) = loads(HEAD.format(model=chain.model.name) + text).circuits[0].claims[0].measurement.patch.sites
    truth = (chain.brute.logit_diffs(Experiment(sites=frozenset([site]))) - chain.clean)[picked]
    first = report.claims[0].measured
    assert first and first.delta == pytest.approx(truth[: first.n].mean(), abs=1e-4) and abs(truth.mean()) > 1e-3
    held = ["holds", "fails", "holds", "fails", "holds", "error", "error"]  # the last two have nothing to patch
    assert [claim.verdict for claim in report.claims] == held


# --- groups whose members cancel -------------------------------------------------------------------


def test_a_group_whose_members_cancel_does_nothing_and_each_member_does(tmp_path) -> None:
    """2.5 and 2.6 read the same and write the opposite: a joint claim is about what they do together."""
    text = """heads first = 2.3 at END
heads pair  = 2.5 2.6 at END
first -> logits : matters
pair -> logits : negligible
pair -> logits : matters
pair -> logits : lowers
each pair -> logits : matters
each pair -> logits : negligible
each pair -> logits : lowers
2.5 -> logits at END : lowers
2.6 -> logits at END : raises
expect knockout(pair) : negligible
expect knockout(pair) : matters
"""
    report = run(known("cancelling", tmp_path, 96), text)
    held = ["holds", "holds", "fails", "fails", "holds", "fails", "fails", "holds", "holds", "holds", "fails"]
    assert [claim.verdict for claim in report.claims] == held
    joint = report.claims[1]
    assert [np.sign(member.effect) for member in joint.members] == [-1, 1]  # beside the joint verdict


# --- properties ------------------------------------------------------------------------------------


def test_properties_hold_for_the_share_that_has_them(chain: Population) -> None:
    """The share of the population is known; claims lie well below it or above it."""
    middle = float(np.median(chain.clean))
    assert (chain.clean > middle).mean() == 0.5
    text = "".join(
        f'property "p{i}" for {share}% of prompts\n  expect logit_diff > {bound:.6f}\n'
        for i, (share, bound) in enumerate(((35, middle), (65, middle), (35, middle + 100)))
    )
    text += f'property "always"\n  expect logit_diff > {chain.clean.min() - 0.01:.6f}\n'
    text += f'property "never"\n  expect logit_diff > {middle:.6f}\n'
    assert verdicts(chain, text, own=500) == ["holds", "fails", "fails", "holds", "fails"]
