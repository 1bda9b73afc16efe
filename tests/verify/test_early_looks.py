"""Early looks are taken where they pay, by counted work: they depend on the spec, the model's size and the device."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from circuitdsl.api import loads
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.verify.early_looks import early_looks, free
from circuitdsl.verify.plan import plan
from circuitdsl.verify.prompts import make_data, prompts_by_task, tasks_in_use
from circuitdsl.verify.session import Options
from circuitdsl.verify.verify import verify

HEAD = 'circuit t\nmodel "pocket"\ntask {task}\n'
IOI, YEARS = "ioi(prompts = 256)", "greater_than(prompts = 768)"
#: bounds so near that no claim is settled before the last prompt
NEAR = "".join(
    f"{a} -> {b}.{port} at END : effect <= 0.1%\n" for a in ("0.1", "0.2") for b in ("1.0", "2.1") for port in "qk"
)
DECIDED = "".join(f"{a} -> m1 at END : effect <= 60%\n" for a in ("0.1", "0.2", "0.4"))


@dataclass(frozen=True)
class Size:
    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int


POCKET, GPT2, LLAMA = Size(4, 8, 128, 16, 512), Size(12, 12, 768, 64, 3072), Size(32, 32, 4096, 128, 14336)


@pytest.fixture(scope="module")
def looks(pocket):
    """The looks at the prompts of a task of the pocket model, for a model of some size."""

    def planned(task: str, lines: str, size: Size, device: str = "cpu", early_stop: bool = True) -> tuple[int, ...]:
        circuit = loads(HEAD.format(task=task) + lines).first()
        (use,) = tasks_in_use(circuit)
        plans = plan(circuit, ModelShape("pocket", 4, 8, d_head=16, d_mlp=512))
        return early_looks(plans, make_data(circuit, use, pocket).pairs, size, device, early_stop)

    return planned


def test_a_small_model_is_looked_at_once_where_prompts_have_many_lengths(looks) -> None:
    """Six lengths: an early look would run nearly as many batches as all prompts do."""
    assert looks(IOI, NEAR, POCKET) == (256,)


def test_it_is_looked_at_early_where_they_have_one(looks) -> None:
    """The batches of 64 prompts are the same, in whichever look they run."""
    assert len(looks(YEARS, NEAR, POCKET)) > 1


@pytest.mark.parametrize("size", [GPT2, LLAMA])
def test_larger_models_are_looked_at_early(looks, size: Size) -> None:
    assert len(looks(IOI, NEAR, size)) > 1
    assert looks(IOI, NEAR, size, early_stop=False) == (256,)


def test_the_kind_of_device_counts_and_not_its_number(looks) -> None:
    assert looks(IOI, NEAR, LLAMA, "cuda:1") == looks(IOI, NEAR, LLAMA, "cuda") != looks(IOI, NEAR, POCKET, "cuda")


def test_numbers_that_are_there_anyway_are_weighed_once(check) -> None:
    text = HEAD.format(task=YEARS) + "expect accuracy >= 50%\n" + DECIDED
    circuit = loads(text).first()
    behaviour, *patches = plan(circuit, ModelShape("pocket", 4, 8, d_head=16, d_mlp=512))
    assert free(behaviour) and not any(map(free, patches))
    first, *others = check(text).claims
    assert first.measured.n == 768
    assert "look 1 of" not in first.reason
    assert all(claim.measured.n < 768 for claim in others)


def test_claims_that_need_all_prompts_take_no_more_batches_than_with_one_look(pocket) -> None:
    circuit, batches = loads(HEAD.format(task=IOI) + NEAR).first(), []
    for early in (True, False):
        by_task = prompts_by_task(circuit, pocket)
        report = verify(circuit, pocket, by_task, Options(early_stop=early))
        assert all(claim.measured.n == 256 for claim in report.claims)
        batches.append(sum(prompts.tally.batches for prompts in by_task.values()))
    assert batches[0] == batches[1]


def test_one_claim_alone_has_the_looks_that_it_has_among_all(check) -> None:
    text = HEAD.format(task=YEARS) + DECIDED + NEAR
    whole = {claim.id: claim for claim in check(text).claims}
    (alone,) = check(text, claim="c01").claims
    assert "(look 1 of " in alone.reason and alone.reason[-30:] == whole["c01"].reason[-30:]
    assert alone.measured.n == whole["c01"].measured.n


def test_what_the_cache_knows_changes_nothing(pocket) -> None:
    """With all numbers of all prompts known, the report is that of a first run."""
    spec = loads(HEAD.format(task=YEARS) + DECIDED)
    first = spec.verify(pocket)
    spec.verify(pocket, early_stop=False)
    again = spec.verify(pocket)
    assert again.cached == 1 > first.cached
    assert [(c.verdict, c.measured.n) for c in again.claims] == [(c.verdict, c.measured.n) for c in first.claims]
