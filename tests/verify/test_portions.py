"""How much work is cut, and that it makes no difference to a number who measures it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuitdsl.engine.away import Call, Recipe, Short, answered
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.measurements.requests import Request
from circuitdsl.models.model import Model
from circuitdsl.verify import measure as measuring
from circuitdsl.verify.plan import plan, shape_of
from circuitdsl.verify.portions import Sizes, TooMuch, cutting, portions
from circuitdsl.verify.prompts import made_by
from circuitdsl.verify.session import Session

SPEC = """circuit c
model "pocket"
task ioi(prompts = 96)
heads early = 0.3 0.5 0.6 at END
heads late  = 2.4 2.5 at END
each early -> logits at END : matters
each early -> late.q at END : effect <= 50%
late -> logits at END via mlps : effect <= 50%
expect knockout(early) : effect <= 90%
expect denoise(late) : effect >= 1%
expect attention(early, END -> S2) >= 10%
expect attribution(late) >= -90
expect faithfulness >= 5%
expect logit_diff >= 3
"""
#: nominal seconds of a portion: some tens of them in what `SPEC` asks
LITTLE = 2e-4


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session("pocket", cache=False) as made:
        yield made


@pytest.fixture(scope="module")
def prompts(session: Session) -> Prompts:
    return session.prompts_by_task(session.circuit(spec(session)))["ioi"]


def spec(session: Session) -> Any:
    from circuitdsl.api import loads

    return loads(SPEC, "c.circ", session.name)


@pytest.fixture(scope="module")
def requests(session: Session, prompts: Prompts) -> list[Request]:
    plans = plan(session.circuit(spec(session)), shape_of(prompts.source))
    every = (request for one in plans for request in (*one.asked, *one.null_requests))
    return list(dict.fromkeys(request for request in every if request.needs_runs))


def cut(prompts: Prompts, requests: Sequence[Request], indices: np.ndarray) -> list[Any]:
    return portions(prompts.pairs, requests, indices, prompts.source, "cpu")


def test_every_request_is_in_a_portion_once_on_every_prompt(prompts: Prompts, requests: list[Request]) -> None:
    indices = np.arange(10, 90)
    with cutting(Sizes(LITTLE, 0)):
        found = cut(prompts, requests, indices)
    assert len(found) > 10
    pairs = [(request, place) for one in found for request in one.requests for place in one.places.tolist()]
    assert len(pairs) == len(set(pairs)) == len(requests) * len(indices)
    assert len({len(one.places) for one in found}) > 1 and max(len(one.places) for one in found) <= 128


def test_little_work_is_not_cut(prompts: Prompts, requests: list[Request]) -> None:
    (whole,) = cut(prompts, requests, np.arange(96))
    assert list(whole.requests) == requests and whole.places.tolist() == list(range(96))


def test_a_changed_run_is_not_made_twice(prompts: Prompts, requests: list[Request]) -> None:
    """Requests that are read off one changed run are measured together, however little is to be done at once."""
    with cutting(Sizes(1e-9, 0)):
        found = cut(prompts, requests, np.arange(64))
    runs = [{r.changed_run for r in one.requests} for one in found]
    assert all(len(one) == 1 for one in runs) and len({run for (run,) in runs}) == len(runs)


def test_it_does_not_depend_on_the_order_of_prompts_or_on_those_that_are_not_asked(
    prompts: Prompts, requests: list[Request]
) -> None:
    with cutting(Sizes(LITTLE, 0)):
        here = cut(prompts, requests, np.arange(64))
        there = portions(prompts.pairs[:64], requests, np.arange(64), prompts.source, "cpu")
    assert [(a.requests, a.places.tolist()) for a in here] == [(b.requests, b.places.tolist()) for b in there]


def test_more_than_is_wanted_here_is_refused(prompts: Prompts, requests: list[Request]) -> None:
    with cutting(Sizes(LITTLE, 0, most=3)), pytest.raises(TooMuch):
        measuring.measure(prompts, requests, np.arange(64))
    with cutting(Sizes(LITTLE, 0, most=3)):
        measuring.measure(prompts, requests[:2], np.arange(8))


# --- where the model is away ----------------------------------------------------------------------


class Elsewhere:
    """Answers calls as another process does, which makes its own prompts, in an order of its own.

    Attributes:
        refuses: whether memory runs out on a call.
    """

    def __init__(self, model: Model, refuses: Any = lambda call: False) -> None:
        self.model, self.refuses, self.made, self.calls = model, refuses, dict[str, Prompts](), list[Call]()

    def __call__(self, calls: Sequence[Call]) -> Iterator[tuple[int, Any]]:
        self.calls += calls
        for number, call in reversed(list(enumerate(calls))):
            if self.refuses(call):
                yield number, Short("the worker was ended", "add memory")
                continue
            if call.recipe.of == "model":
                yield number, answered(call.function, self.model, *call.given)
                continue
            if call.recipe.key not in self.made:
                self.made[call.recipe.key] = made_by(call.recipe, self.model)
            yield number, answered(call.function, self.made[call.recipe.key], *call.given)


def without_tensors(model: Model, away: Elsewhere) -> Model:
    def read() -> Any:
        raise AssertionError("the model is away, and somebody reads it here")

    return replace(model, away=away, read=read, whole=None)


@pytest.fixture
def far(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Session, Elsewhere]]:
    """A session whose model is away, and what answers for it."""
    model = session.source_of(session.circuit(spec(session)))
    elsewhere = Elsewhere(model)
    with Session("pocket", cache=False) as made:
        monkeypatch.setattr(made, "source_of", lambda circuit: without_tensors(model, elsewhere))
        yield made, elsewhere


EXTRA = """
property "never far off" for 99% of prompts
    expect logit_diff > -5
trace 2.5 END -> IO includes 0.1 0.6 at IO
expect induction_score(2.4) >= 0%
channel 0.3 -> 2.5.v : composition z >= -9
"""


def body(report: Any) -> dict[str, Any]:
    found: dict[str, Any] = report.to_json()
    for name in ("seconds", "threads", "cached"):
        found.pop(name, None)
    return found


@pytest.mark.long
@pytest.mark.parametrize("seconds", [20.0, LITTLE])
def test_a_report_on_a_model_that_is_away_is_that_of_one_process(
    session: Session, far: tuple[Session, Elsewhere], seconds: float
) -> None:
    from circuitdsl.api import loads

    text = loads(SPEC + EXTRA, "c.circ", "pocket")
    there, elsewhere = far
    with cutting(Sizes(seconds, 0)):
        here = body(session.verify(text, other_corruptions=True))
        assert body(there.verify(text, other_corruptions=True)) == here
    measured = [call for call in elsewhere.calls if call.function.endswith(":portion")]
    assert len(measured) > (20 if seconds == LITTLE else 1)


def test_numbers_of_a_model_that_is_away_are_those_of_one_process(prompts: Prompts, requests: list[Request]) -> None:
    elsewhere = Elsewhere(prompts.source)
    away = replace(prompts, source=without_tensors(prompts.source, elsewhere))
    with cutting(Sizes(LITTLE, 0)):
        here, there = (measuring.measure(each, requests[:60], np.arange(48)) for each in (prompts, away))
    assert len(elsewhere.calls) > 5
    for request, series in here.items():
        assert (there[request].values == series.values).all() and (there[request].changed == series.changed).all()


def test_what_is_too_much_is_asked_for_in_halves(session: Session, prompts: Prompts, requests: list[Request]) -> None:
    elsewhere = Elsewhere(prompts.source, lambda call: len(call.given[0]) * len(call.given[1]) > 200)
    away = replace(prompts, source=without_tensors(prompts.source, elsewhere))
    here, there = (measuring.measure(each, requests[:40], np.arange(32)) for each in (prompts, away))
    for request in requests[:40]:
        np.testing.assert_allclose(there[request].values, here[request].values, atol=2e-5)
        assert (there[request].changed == here[request].changed).all()


def test_memory_that_is_too_little_for_one_number_is_said(prompts: Prompts, requests: list[Request]) -> None:
    elsewhere = Elsewhere(prompts.source, lambda call: True)
    away = replace(prompts, source=without_tensors(prompts.source, elsewhere))
    with pytest.raises(UserError, match=r"memory ran out measuring one patch on one prompt of .* the worker was ended"):
        measuring.measure(away, requests, np.arange(64))
    assert len(elsewhere.calls) < 30  # halves of halves, and not all of them


def test_a_recipe_is_of_prompts_of_its_own(prompts: Prompts) -> None:
    assert isinstance(prompts.recipe, Recipe) and prompts.recipe.of == "task"
    assert replace(prompts.recipe, keeps=False).key == prompts.recipe.key


def test_prompts_that_are_others_elsewhere_are_refused(tmp_path: Path, prompts: Prompts) -> None:
    """A worker reads a prompt file again: what it measures on is what the run was planned on, or nothing."""
    from circuitdsl.api import loads

    file, words = tmp_path / "p.jsonl", prompts.source.tokenizer.decode
    lines = []
    for pair in prompts.pairs[:4]:
        sides = {"clean": words(pair.clean_tokens), "corrupt": words(pair.corrupt_tokens)}
        lines.append(json.dumps(sides | {"answer": words(pair.answers[:1]), "distractor": words(pair.distractors[:1])}))
    file.write_text("\n".join(lines))
    text = 'circuit c\nmodel "pocket"\ntask mine = file("p.jsonl")\nexpect logit_diff >= -99\n'
    with Session("pocket", cache=False) as session:
        circuit = session.circuit(loads(text, str(tmp_path / "c.circ"), session.name))
        recipe = session.prompts_by_task(circuit)["mine"].recipe
        assert recipe is not None and len(made_by(recipe, session.source_of(circuit)).pairs) == 4
        file.write_text("\n".join(lines[1:]))
        with pytest.raises(UserError, match="a worker has other prompts"):
            made_by(recipe, session.source_of(circuit))
