"""Hand-set models, each made once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.known_answers.hand_set_claims import Population
from tests.known_answers.hand_set_runs import known


@pytest.fixture(scope="session")
def known_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Population]:
    """`known_model(kind, size)`: a hand-set model on a population of so many prompts."""
    return cache(lambda kind, size: known(kind, tmp_path_factory.mktemp("known"), size))
