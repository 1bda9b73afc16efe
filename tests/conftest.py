"""What tests share: where real data may lie, and the models that ship."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drawing import examples

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models here are too small to share: waiting costs more

#: a library that was first imported in a test writes its warnings to that test's standard error, which is closed later
logging.raiseExceptions = False

collect_ignore = ["fixtures"]  # specs that are wrong on purpose

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"


def shared(name: str) -> Path:
    """A folder of real data beside the checkout; the test is skipped where it is missing."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"real data not at hand: {path}")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes a minute or more runs where that is asked for."""
    if not os.environ.get("CIRCUITDSL_LONG"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes a minute or more: run with CIRCUITDSL_LONG=1"))


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    """Folders for caches, one after the other; none is made before something is kept in it."""
    return map(str, map(tmp_path_factory.mktemp("caches").joinpath, map(str, itertools.count())))


@pytest.fixture(autouse=True)
def cache_of_its_own(caches, monkeypatch):
    """No test reads what another (or the user) has measured."""
    monkeypatch.setenv("CIRCUITDSL_CACHE", next(caches))


@pytest.fixture(autouse=True)
def means_over_few_prompts(monkeypatch):
    """Means are taken over fewer prompts than users get. Tests whose verdicts need all of them override this."""
    if loaded := sys.modules.get("circuitdsl.verify.prompts"):
        monkeypatch.setattr(loaded, "MEAN_PROMPTS", examples(300, loaded.MEAN_PROMPTS))


@pytest.fixture
def all_looks(monkeypatch):
    """Every look that a design may take is taken, whatever it costs."""
    from circuitdsl.verdict.sampling import plan_looks

    def taken(plans, pairs, model, device, early_stop=True):
        return plan_looks(len(pairs), early_stop).sizes

    for module in ("verify", "work"):
        monkeypatch.setattr(f"circuitdsl.verify.{module}.early_looks", taken)


@pytest.fixture(scope="session")
def gpt2_tokens():
    from circuitdsl.models.load import load_tokenizer
    from circuitdsl.tasks.tokens import Tokens

    return Tokens(load_tokenizer(str(shared("gpt2-tokenizer"))), "GPT-2")


@pytest.fixture(scope="session")
def pocket_tokens():
    from circuitdsl.models.load import load_tokenizer
    from circuitdsl.tasks.tokens import Tokens

    return Tokens(load_tokenizer("pocket"), "pocket")


@pytest.fixture(scope="session")
def gpt2_attention() -> Path:
    """The attention of GPT-2 small as published: no MLPs, no embedding of tokens."""
    return shared("gpt2-small-attention")


@pytest.fixture(scope="session")
def stories() -> Path:
    """A small public model of the Llama architecture."""
    return shared("stories260K")


@pytest.fixture(scope="session")
def pocket():
    from circuitdsl.models.load import load_model

    return load_model("pocket", device="cpu")


@pytest.fixture
def check(pocket):
    """Verify a spec given as text on the pocket model; `check(text)` returns the report."""
    from circuitdsl.api import loads
    from circuitdsl.verify.prompts import prompts_by_task
    from circuitdsl.verify.session import Options
    from circuitdsl.verify.verify import verify

    def run(text: str, **options):
        spec = loads(text, allow_outside=True)
        assert spec.ok, [d.message for d in spec.diagnostics]
        (circuit,) = spec.circuits
        return verify(circuit, pocket, prompts_by_task(circuit, pocket), Options(**options))

    return run


@pytest.fixture
def run(capsys) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (status, standard output, standard error)."""
    from circuitdsl import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            status = cli.run(arguments)
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return call
