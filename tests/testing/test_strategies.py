"""The strategies that users draw from, used as their page shows."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuitdsl.language.format import dumps
from circuitdsl.models.load import load_tokenizer
from circuitdsl.tasks.registry import TASKS
from circuitdsl.testing.strategies import prompt_pairs, small_models, specs
from tests.drawing import examples

POCKET = load_tokenizer("pocket")


@given(st.sampled_from(sorted(TASKS)).flatmap(lambda task: prompt_pairs(task, POCKET)))
@settings(deadline=None, max_examples=examples(25, 50))
def test_pairs_align(pair) -> None:
    assert len(pair.clean_tokens) == len(pair.corrupt_tokens)
    assert pair.clean_tokens != pair.corrupt_tokens
    assert all(0 <= i < len(pair.clean_tokens) for index in pair.positions.values() for i in index)
    assert not set(pair.answers) & set(pair.distractors)


@given(prompt_pairs("ioi", POCKET, corrupt="flip", order="abba"))
@settings(deadline=None, max_examples=20)
def test_corruption_and_options_are_the_tasks_own(pair) -> None:
    assert pair.stratum.startswith("ABBA")
    assert pair.corrupt_answers == pair.distractors


@given(small_models(layers=2, heads=3))
@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))
def test_small_models_load(model) -> None:
    assert 1 <= model.n_layers <= 2
    assert 1 <= model.n_heads <= 3


@given(specs())
@settings(deadline=None, max_examples=examples(8, 50))
def test_specs_are_grammatical(file) -> None:
    from circuitdsl.language.parse import parse

    _, found = parse(dumps(file), "drawn.circ")
    assert not found
