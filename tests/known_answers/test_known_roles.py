"""`expect role(...)` where it is known which heads have a role, which only look like it, and which do not even."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from circuitdsl.report.report import ClaimResult
from tests.known_answers.hand_set_claims import Population
from tests.known_answers.hand_set_runs import sample_bench, verified

HEAD = """circuit known
model "{model}"
task known = file("known.jsonl", prompts = {n})
"""
Model = Callable[[str], Population]


@pytest.fixture
def model(known_model: Callable[[str, int], Population]) -> Model:
    return lambda kind: known_model(kind, 96)


def claims(whole: Population, text: str, n: int = 64) -> tuple[ClaimResult, ...]:
    report = verified(HEAD.format(model=whole.model.name, n=n) + text, sample_bench(whole, 5, n=n))
    return report.claims


#: a model, the role, heads that have it, heads that do not
ROLES = [
    ("chain", "mover", "2.3 2.4 at END", "2.7 at END"),
    ("chain", "inhibition", "1.1 1.5 at END", "1.7 at END"),
    ("chain", "duplicate_token", "0.2 at S2", "0.3 at S2"),
    ("negative", "negative_mover", "3.2 at END", "2.3 at END"),
    ("induction", "previous_token", "0.3 at ANSWER", "0.4 at ANSWER"),
    ("induction", "induction", "2.1 2.6 at END", "2.5 at END"),
]


@pytest.mark.parametrize(("kind", "role", "right", "wrong"), ROLES, ids=lambda value: str(value))
def test_heads_have_the_role_they_were_built_for_and_others_do_not(model, kind, role, right, wrong) -> None:
    text = f"heads {role} = {right}\nheads other = {wrong} role {role}\nexpect role({role})\nexpect role(other)\n"
    has, has_not = claims(model(kind), text, 128)
    assert has.verdict == "holds", has.reason
    assert has_not.verdict == "fails", has_not.reason


def test_a_content_gatherer_looks_at_what_is_asked_about_and_is_needed(model: Model) -> None:
    """With S2 as what is asked about, the heads that look there from the end; not one that is needed at S2 itself."""
    whole = model("chain")
    pairs = tuple(replace(p, positions={**p.positions, "QUERY": p.positions["S2"]}) for p in whole.data.pairs)
    asked = Population(whole.model, replace(whole.data, pairs=pairs))
    heads = {"content_gatherer": "1.1 1.5 at END", "needed": "0.2 at S2", "idle": "1.7 at END"}
    text = "".join(f"heads {name} = {at} role content_gatherer\nexpect role({name})\n" for name, at in heads.items())
    assert [claim.verdict for claim in claims(asked, text, 128)] == ["holds", "fails", "fails"]


def test_a_decoy_looks_like_a_mover_and_moves_nothing(model: Model) -> None:
    """Its attention is right; it fails by what it writes."""
    for head in ("2.0", "3.4"):
        (decoy,) = claims(model("decoy"), f"heads decoy = {head} at END role mover\nexpect role(decoy)\n", 128)
        look, *writes = decoy.members
        assert decoy.verdict == "fails"
        assert look.check == f"attention({head}, END -> ANSWER) >= 30%" and look.verdict == "holds"
        assert [m.check.split("(")[0] for m in writes if m.verdict == "fails"][-1:] == ["copying"]
        assert decoy.reason.startswith((f"attribution({head})", f"copying({head})"))


def test_a_decoy_of_inhibition_changes_nothing_when_it_is_out(model: Model) -> None:
    (decoy,) = claims(model("decoy"), "heads decoy = 1.6 at END role inhibition\nexpect role(decoy)\n", 256)
    look, out = decoy.members
    assert (look.verdict, out.check) == ("holds", "knockout(1.6) : lowers")
    assert decoy.verdict == "fails" and decoy.reason.startswith("knockout(1.6)")


def test_a_backup_does_little_until_the_mover_is_out(model: Model) -> None:
    text = """heads mover = 2.3 at END
heads backup = 3.5 at END role backup_mover
heads noise  = 3.1 at END role backup_mover
heads worker = 2.3 at END role backup_mover
expect role(backup)
expect role(noise)
expect role(worker)
expect knockout(backup) : lowers
"""
    backup, noise, worker, lowers = claims(model("quiet backup"), text, 256)
    small, without = backup.members
    assert [backup.verdict, small.verdict, without.verdict] == ["holds"] * 3
    assert small.value is not None and abs(small.value) < 0.05
    assert without.value is not None and without.value < -0.15
    assert noise.verdict == "fails" and noise.reason.startswith("when mover is knocked out: knockout(3.1)")
    assert worker.verdict == "fails" and worker.reason.startswith("knockout(2.3) : effect in [-5%, 5%]")
    assert lowers.verdict == "fails"


def test_a_head_said_to_be_both_is_checked_for_each_as_it_is(model: Model) -> None:
    """A head in a group of negative movers and in one of movers copies as it is, or negated where that is asked."""
    text = "heads mover = 2.3 at END\nheads wrong = 2.3 at END role negative_mover\n"
    plain, negated = claims(
        model("chain"), text + "expect copying(mover) >= 80%\nexpect copying(2.3, negated) >= 20%\n"
    )
    assert plain.verdict == "holds" and plain.protocol["output"] == "as it is"
    assert negated.verdict == "fails" and negated.protocol["output"] == "negated"
