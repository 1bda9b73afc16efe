"""What a corruption leaves as it is: named beside every claim, and never the reason for which one holds.

Role flip leaves everything before S2 alone, so that it changes nothing at IO and S1.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import jsonschema
import pytest

from circuitdsl.api import load, loads
from circuitdsl.verify.prompts import prompts_by_task
from circuitdsl.verify.session import Options
from circuitdsl.verify.store import Store
from circuitdsl.verify.verify import verify
from tests.engine.small_models import save_random
from tests.schema import schema

HEAD = """circuit t
model "pocket"
task ioi(corrupt = flip, prompts = 128)
heads some = 0.3 0.5 at IO, END
"""
SAME = ": the same is written there on both prompts"
EMPTY = ", and the claim would hold without any effect of it: leave that out (try corrupt = abc)"
ONE, TWO, EMBED = (f"this corruption does not change {what} at IO" for what in ("0.3", "0.3 at IO, 0.5", "embed"))


def claims(check, *lines: str, head: str = HEAD, **options):
    report = check(head + "\n".join(lines) + "\n", **options)
    jsonschema.validate(report.to_json(), schema())
    return report.claims


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0.3 -> 2.5.v at IO, S2 : negligible", ONE),
        ("0.3 -> 2.5.v at IO, S2 : effect >= -5% and effect <= 5%", ONE),
        ("each 0.3 -> 2.5.v at IO, S2 : negligible", ONE),
        ("0.3 -> 2.5.v at IO, S2 via mlps : negligible", ONE),
        ("(0.3 + 0.5) -> 2.5.v at IO, S2 : effect <= 5%", TWO),
        ("embed -> (0.3 + 0.5).v at IO, S2 : delta <= 100", EMBED),
        ("expect knockout(some) : effect <= 300%", TWO),
        ("expect denoise(some) : effect <= 300%", TWO),
    ],
)
@pytest.mark.parametrize("early_stop", [True, False])
def test_a_bound_that_0_meets_does_not_hold_where_nothing_is_changed(check, line, reason, early_stop) -> None:
    (claim,) = claims(check, line, early_stop=early_stop)
    assert (claim.verdict, claim.reason) == ("error", reason + EMPTY)
    assert not any("does not change" in note for note in claim.notes), "it is said once"


def test_where_all_is_changed_the_same_holds(check) -> None:
    lines = ("0.3 -> 2.5.v at S2 : negligible", "expect knockout(some, ablate = zero) : effect <= 300%")
    other = claims(check, "0.3 -> 2.5.v at IO, S2 : negligible", head=HEAD.replace("flip", "abc"))
    for claim in (*claims(check, *lines), *other):
        assert (claim.verdict, claim.notes) == ("holds", ())


def test_a_claim_of_a_real_effect_is_told_what_is_unchanged(check) -> None:
    lines = (
        "embed -> (0.3 + 0.5).v at IO, S2 : lowers",
        "embed -> (0.3 + 0.5).v at IO, S2 : effect <= -20%",
        "expect knockout(some) : lowers",
        "expect knockout(some) < knockout(0.0 at END)",
    )
    found = claims(check, *lines)
    assert [claim.verdict for claim in found] == ["holds"] * 4
    assert [claim.notes[-1] for claim in found] == [EMBED + SAME, EMBED + SAME, TWO + SAME, TWO + SAME]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("embed -> (0.3 + 0.5).v at S2 : stronger than embed -> 0.0.v at IO, S2", EMBED),
        ("expect knockout(0.0 0.6 0.7 1.1 2.4 2.5 at END) < knockout(some)", TWO),
        ("expect knockout(some) > knockout(0.0 0.6 0.7 1.1 2.4 2.5 at END)", TWO),
    ],
)
def test_no_comparison_holds_by_what_is_not_changed(check, line, reason) -> None:
    (claim,) = claims(check, line)
    assert (claim.verdict, claim.reason) == ("error", reason + EMPTY)


def test_one_test_that_needs_an_effect_is_enough(check) -> None:
    line = "embed -> (0.3 + 0.5).v at IO, S2 : effect <= 50% and stronger than 0.0 -> 2.5.q at END"
    (claim,) = claims(check, line)
    assert (claim.verdict, claim.notes[0]) == ("holds", EMBED + SAME)


def test_what_fails_on_the_rest_still_fails(check) -> None:
    (claim,) = claims(check, "embed -> (0.3 + 0.5).v at IO, S2 : negligible")
    assert (claim.verdict, claim.notes) == ("fails", (EMBED + SAME,))


def test_of_each_only_the_empty_parts_are_errors(check) -> None:
    (claim,) = claims(check, "each (0.3 + 1.1) -> 2.5.v at IO, S2 : effect <= 50%")
    assert claim.verdict == "error" and claim.reason == f"0.3 -> 2.5.v at IO, S2: {ONE}{EMPTY}"
    assert [member.verdict for member in claim.members] == ["error", "error"]


def test_conditions_and_interventions_are_told_as_well(check) -> None:
    lines = (
        "when some is knocked out",
        "  expect logit_diff <= 1000",
        "  expect knockout(2.5) : effect in [-500%, 500%]",  # as before: no position of its own is unchanged
        "intervention fewer",
        "  replace some with corrupt",
        "  expect accuracy <= 100%",
    )
    found = claims(check, *lines)
    assert [claim.verdict for claim in found] == ["holds"] * 3
    assert all(TWO + SAME in claim.notes for claim in found)


def test_a_run_with_a_cache_says_the_same(pocket, tmp_path: Path) -> None:
    (circuit,) = loads(HEAD + "0.3 -> 2.5.v at IO, S2 : negligible\nexpect knockout(some) : lowers\n").circuits

    def run(store: Store | None):
        report = verify(circuit, pocket, prompts_by_task(circuit, pocket, store), Options())
        return [asdict(claim) for claim in report.claims], report.cached

    with Store(tmp_path / "numbers.sqlite") as store:
        first, _ = run(store)
    with Store(tmp_path / "numbers.sqlite") as store:
        again, cached = run(store)
    assert cached == 1
    assert first == again == run(None)[0]


def test_a_null_has_no_patches_that_change_nothing(tmp_path) -> None:
    """A window keeps the first two layers from seeing at END what was corrupted: their heads are no effects of 0."""
    sizes = {"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8}
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    model = save_random("qwen3", tmp_path, **sizes, **window)
    rng = random.Random(0)
    prompts = [[rng.randrange(2, 30) for _ in range(12)] for _ in range(64)]
    lines = [
        {"clean_tokens": each, "corrupt_tokens": [*each[:3], each[3] - 1, *each[4:]], "answer": 0, "distractor": 1}
        for each in prompts
    ]
    (tmp_path / "far.jsonl").write_text("\n".join(map(json.dumps, lines)))
    spec = tmp_path / "t.circ"
    spec.write_text(f'circuit t\nmodel "{model}"\ntask file("far.jsonl")\nmetric kl\n3.1 -> logits at END : matters\n')
    (claim,) = load(spec).verify(device="cpu").claims
    assert claim.verdict != "holds"
    assert claim.null.size == 2 * 8 - 1
