"""Claims on whole circuits, conditions and comparisons, where it is known what must come out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.known_answers.hand_set_claims import Population
from tests.known_answers.hand_set_runs import sample_bench, verified

HEAD = """circuit known
model "{model}"
task known = file("known.jsonl", prompts = 128)
heads duplicate = 0.2 at S2
heads inhibition = 1.1 at END
heads mover = 2.3 at END
"""
BACKUP = "heads backup = 3.5 at END\n"


@pytest.fixture
def backup(known_model: Callable[[str, int], Population]) -> Population:
    return known_model("backup", 96)


def verdicts(whole: Population, *lines: str, groups: str = BACKUP) -> list[str]:
    text = HEAD.format(model=whole.model.name) + groups + "\n".join(lines) + "\n"
    report = verified(text, sample_bench(whole, 5, n=128))
    return [claim.verdict for claim in report.claims]


def test_a_backup_wakes_when_the_mover_is_out(backup: Population) -> None:
    lines = (
        "when mover is knocked out",
        "  expect attention(backup, END -> IO) rises",
        "  expect attention(backup, END -> IO) rises by >= 20 points",
        "  expect attention(backup, END -> IO) falls",
        "  expect attention(2.0, END -> IO) rises by >= 5 points",
    )
    held = verdicts(backup, *lines)
    assert held[:2] == ["holds", "holds"]
    assert "holds" not in held[2:]


def test_the_stronger_of_two_edges(backup: Population) -> None:
    lines = (
        "mover -> logits at END : stronger than 2.0 -> logits",
        "2.0 -> logits at END : stronger than mover -> logits",
    )
    held = verdicts(backup, *lines)
    assert held[0] == "holds"
    assert held[1] != "holds"


def test_faithfulness_needs_the_mover(backup: Population) -> None:
    """With all of its heads the circuit does the task; without mover and backup it does nothing."""
    whole = verdicts(backup, "expect faithfulness >= 80%", "expect faithfulness <= 50%")
    assert whole[0] == "holds"
    assert whole[1] != "holds"
    bare = HEAD.replace("heads mover = 2.3 at END\n", "").format(model=backup.model.name)
    report = verified(bare + "expect faithfulness >= 50%\nexpect faithfulness <= 20%\n", sample_bench(backup, 5, n=128))
    assert [claim.verdict for claim in report.claims] == ["fails", "holds"]


def test_a_circuit_without_its_backup_is_incomplete(backup: Population) -> None:
    """Without the mover the model has the backup still, and the circuit has nothing."""
    lines = ("expect incompleteness <= 20%", "expect incompleteness >= 25%")
    assert verdicts(backup, *lines) == ["holds", "fails"]
    assert verdicts(backup, *lines, groups="") == ["fails", "holds"]


def test_a_member_that_does_nothing_shows_in_minimality(backup: Population) -> None:
    lines = ("expect minimality >= 3%", "expect minimality <= 2.5%")
    assert verdicts(backup, *lines) == ["holds", "fails"]
    assert verdicts(backup, *lines, groups=BACKUP + "heads idle = 2.7 at END\n") == ["fails", "holds"]


def test_random_circuits_do_worse_than_the_right_one(backup: Population) -> None:
    lines = ("expect sufficiency >= 90%", "expect sufficiency <= 80%")
    assert verdicts(backup, *lines) == ["holds", "fails"]
    wrong = HEAD.replace("0.2", "0.5").replace("1.1", "1.2").replace("2.3", "2.2").format(model=backup.model.name)
    report = verified(wrong + "\n".join(lines) + "\n", sample_bench(backup, 5, n=128))
    assert report.claims[0].verdict != "holds"
