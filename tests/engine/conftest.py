"""Random models of every family, loaded once, and prompts on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from circuitdsl.models.parts import Transformer
from tests.drawing import examples
from tests.engine.small_models import BRIDGED, FAMILIES, FEW, Case, make_case, save_random


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Transformer]:
    """`random_model(family)`: each is saved and loaded once."""
    from circuitdsl.models.load import load_model

    known: dict[str, Transformer] = {}

    def get(kind: str) -> Transformer:
        if kind not in known:
            known[kind] = load_model(save_random(kind, tmp_path_factory.mktemp(kind)), device="cpu")
        return known[kind]

    return get


@pytest.fixture(params=examples(FEW, (*FAMILIES, *BRIDGED)))
def case(request: pytest.FixtureRequest, random_model: Callable[[str], Transformer]) -> Case:
    """Prompts on models that differ, or on a model of every family."""
    return make_case(random_model(request.param))


@pytest.fixture(scope="session")
def gpt2(random_model: Callable[[str], Transformer]) -> Case:
    return make_case(random_model("gpt2"))
