"""Claims on roles: every check on every head, listed in the report."""

from __future__ import annotations

import pytest

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
    (role,) = check(HEAD.replace("64", "256") + "expect role(mover)\n", early_stop=False).claims
    failed = [m.check for m in role.members if m.verdict == "fails"]
    assert role.verdict == "fails" and failed
    assert all(name.startswith("copying") for name in failed)
    assert role.reason.startswith("copying(")


def test_a_backup_is_checked_with_the_movers_out(check) -> None:
    """3.3 does little either way, so that it is no backup: its second check fails, and only that."""
    (role,) = check(HEAD + "expect role(spare)\n", early_stop=False).claims
    small, without = role.members
    assert small.check == "knockout(3.3) : effect in [-5%, 5%]" and small.verdict == "holds"
    assert without.check == "when mover is knocked out: knockout(3.3) : lowers" and without.verdict == "fails"
    assert role.verdict == "fails"
    under = HEAD + "when mover is knocked out\n  expect knockout(3.3) : lowers\n"
    (alone,) = check(under, early_stop=False).claims
    assert without.value == pytest.approx(alone.measured.value, abs=1e-6)


def test_scores_of_roles_are_those_of_no_task(check) -> None:
    (role,) = check('circuit t\nmodel "pocket"\nheads previous_token = 1.0 at S2\nexpect role(previous_token)\n').claims
    assert role.task is None and role.verdict == "fails"
