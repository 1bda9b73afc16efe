"""The seconds between an edit and its verdict: what is imported, and how much time the processor takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "transformer_lens", "networkx", "hypothesis", "scipy.stats", "scipy.optimize")
SPEC = Path(__file__).parent.parent / "specs" / "pocket" / "ioi.circ"
CODE = """
import json, resource, sys
from circuitdsl import cli
status = cli.run(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in {heavy} if name in sys.modules]
print(json.dumps([status, heavy, len(sys.modules), used.ru_utime + used.ru_stime]), file=sys.stderr)
"""
#: CPU seconds that a run may take here; those of an idle machine are in docs/performance.md
SLACK = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(text)` verifies in a process of its own: (exit status, heavy modules, modules, CPU seconds)."""
    folder = tmp_path_factory.mktemp("loop")

    def call(text: str, verb: str = "verify") -> tuple[int, list[str], int, float]:
        spec = folder / "ioi.circ"
        spec.write_text(text)
        env = os.environ | {"CIRCUITDSL_CACHE": str(folder / "cache")}
        code = CODE.format(heavy=HEAVY)
        made = subprocess.run([sys.executable, "-c", code, verb, str(spec)], capture_output=True, text=True, env=env)
        return tuple(json.loads(made.stderr.splitlines()[-1]))

    return call


def test_what_each_edit_imports(run) -> None:
    text = SPEC.read_text().replace("prompts = 256", "prompts = 64")
    assert "prompts = 64" in text
    _, heavy, _, seconds = run(text)
    assert heavy == ["torch"], "the pocket model comes with what transformers says of it"
    assert seconds < SLACK * 4
    _, heavy, modules, seconds = run(text)
    assert not heavy and modules < 750
    assert seconds < SLACK * 1
    _, heavy, modules, seconds = run(text.replace("logit_diff >= 12", "logit_diff >= 11"))
    assert not heavy and modules < 750
    assert seconds < SLACK * 1.5
    _, heavy, _, seconds = run(text + "\n0.1 -> logits at END : negligible\n")
    assert heavy == ["torch"]
    assert seconds < SLACK * 2.5


@pytest.mark.long
def test_scores_on_random_tokens_are_known_again(run) -> None:
    text = 'circuit t\nmodel "pocket"\nexpect induction_score(1.0) <= 90%\n'
    for also, heavy in (("", ["torch"]), ("", []), ("expect previous_token_score(1.0) <= 90%\n", ["torch"])):
        status, found, *_ = run(text + also)
        assert (status, found) == (0, heavy)


def test_pytest_on_what_is_known_imports_nothing_heavy(run, tmp_path) -> None:
    """The second run takes little more than pytest itself."""
    text = 'circuit t\nmodel "pocket"\ntask ioi(prompts = 32)\n0.6 -> logits at END : lowers\nexpect accuracy >= 90%\n'
    (tmp_path / "ioi.circ").write_text(text)
    env = os.environ | {"CIRCUITDSL_CACHE": str(tmp_path / "cache")}
    code = "import sys, pytest; status = pytest.main(['-q', '-p', 'no:xdist', 'ioi.circ']); "
    code += f"print([name for name in {HEAVY[:3]} if name in sys.modules], file=sys.stderr)"
    heavy = [
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=env).stderr
        for _ in range(2)
    ]
    assert heavy == ["['torch']\n", "[]\n"]


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        (["compare", "pocket/ioi", "pocket/colored_objects"], []),
        (["compare", "pocket/ioi", "pocket/colored_objects", "--measure", "--prompts", "32"], ["torch"]),
        (["trace", "pocket/ioi", "--head", "2.5", "--from", "END", "--to", "IO", "--prompts", "32"], ["torch"]),
    ],
)
def test_what_other_verbs_import(arguments: list[str], imported: list[str], tmp_path) -> None:
    code = CODE.format(heavy=HEAVY)
    env = os.environ | {"CIRCUITDSL_CACHE": str(tmp_path / "cache")}
    made = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=env)
    status, heavy, *_ = json.loads(made.stderr.splitlines()[-1])
    assert (status, heavy) == (0, imported)


def test_a_check_imports_little(run) -> None:
    status, heavy, modules, seconds = run(SPEC.read_text(), "check")
    assert status == 0 and not heavy and modules < 420
    assert seconds < SLACK * 0.3
