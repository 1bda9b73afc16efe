"""Claims on roles: every check on every head, listed in the report."""

from __future__ import annotations

import pytest

from circuitdsl.verify import verify as verification

HEAD = """circuit t "a test"
model "pocket"
task ioi(corrupt = abc, prompts = 64, seed = 4)
heads mover = 2.4 2.5  at END
heads spare = 3.3      at END  role backup_mover
"""


def test_a_role_holds_where_every_check_does(check) -> None:
    own = "role mover\n  expect attention(self, END -> IO) >= 10%\n  expect attribution(self) > 0\n"
    report = check(HEAD + own + "expect role(mover)\nexpect attribution(2.5) > 0\n", early_stop=False)
    role, alone = report.claims
    assert role.verdict == "holds"
    assert [(m.sender, m.verdict) for m in role.members] == [("2.4", "holds"), ("2.5", "holds")] * 2
    assert role.members[3].check == "attribution(2.5) > 0"
    assert role.members[3].value == pytest.approx(alone.measured.value)
    assert role.notes == ("the file's own checks of the role mover, not the built-in ones",)


def test_one_check_that_fails_is_named(check) -> None:
    (role,) = check(HEAD.replace("64", "512") + "expect role(mover)\n", early_stop=False).claims
    failed = [m.check for m in role.members if m.verdict == "fails"]
    assert role.verdict == "fails" and failed
    assert all(name.startswith("copying") for name in failed)
    assert role.reason.startswith("copying(")


def test_a_backup_is_checked_with_the_movers_out(check) -> None:
    """3.3 does little either way, so that it is no backup: its second check fails, and only that."""
    head = HEAD.replace("64", "256")
    (role,) = check(head + "expect role(spare)\n", early_stop=False).claims
    small, without = role.members
    assert small.check == "knockout(3.3) : effect in [-5%, 5%]" and small.verdict == "holds"
    assert without.check == "when mover is knocked out: knockout(3.3) : lowers" and without.verdict == "fails"
    assert role.verdict == "fails"
    under = head + "when mover is knocked out\n  expect knockout(3.3) : lowers\n"
    (alone,) = check(under, early_stop=False).claims
    assert without.value == pytest.approx(alone.measured.value, abs=1e-6)


def test_scores_of_roles_are_those_of_no_task(check) -> None:
    (role,) = check('circuit t\nmodel "pocket"\nheads previous_token = 1.0 at S2\nexpect role(previous_token)\n').claims
    assert role.task is None and role.verdict == "fails"


def test_the_conditions_of_a_role_are_those_of_each_head(check) -> None:
    """`self` is another head in every check: so is what is patched, and what is measured."""
    own = "role quiet\n  when self -> logits at END is patched\n    expect logit_diff falls\n"
    own += "  when mover is knocked out\n    expect knockout(self) : lowers\n"
    groups = "heads few = 0.3 3.3 at END  role quiet\n"
    alone = "".join(f"when {h} -> logits at END is patched\n  expect logit_diff falls\n" for h in ("0.3", "3.3"))
    role, *single = check(HEAD + groups + own + "expect role(few)\n" + alone, early_stop=False).claims
    patched = [m for m in role.members if "patched" in m.check]
    assert [m.check for m in patched] == [
        f"when {h} -> logits at END is patched: logit_diff falls" for h in ("0.3", "3.3")
    ]
    assert [m.value for m in patched] == [pytest.approx(claim.measured.value) for claim in single]
    assert patched[0].value != pytest.approx(patched[1].value, abs=0.1)
    assert [m.check for m in role.members if m not in patched] == [
        f"when mover is knocked out: knockout({h}) : lowers" for h in ("0.3", "3.3")
    ]


def test_a_role_that_was_not_measured_is_an_error_without_checks(check, monkeypatch) -> None:
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(verification, "measure", interrupted)
    report = check(HEAD + "expect role(mover)\n")
    (role,) = report.claims
    assert (report.interrupted, role.verdict, role.members) == (True, "error", ())
