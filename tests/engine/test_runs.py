"""Caches, readouts and what is read of unpatched runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.engine.experiment import Experiment, PatchError, Readout, experiment_of
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import MOST_STARTS, baseline, by_length, changed, patterns, run, starts
from circuitdsl.engine.terms import Terms
from circuitdsl.measurements.requests import EdgeRequest
from circuitdsl.models.parts import PORTS, joined
from circuitdsl.models.writers import layer_of
from tests.engine import reference
from tests.engine.small_models import LENGTH, Case, make_case, neurons


def test_terms_are_those_of_brute_force(case: Case) -> None:
    for i, tokens in enumerate(case.corrupt):
        terms = reference.terms_of(case.model, tokens)
        assert torch.allclose(case.runs.corrupt.embed[i], terms[Node("embed")])
        for layer, block in enumerate(case.model.blocks):
            assert torch.allclose(case.runs.corrupt.mlp[layer][i], terms[Node("mlp", layer)], atol=1e-4)
            for head in range(case.model.n_heads):
                written = block.attn.out_head(head, case.runs.corrupt.z[layer][i, :, head])
                assert torch.allclose(written, terms[Node("head", layer, head)], atol=1e-4)


def test_the_corrupt_run_keeps_only_its_terms(gpt2: Case) -> None:
    assert not hasattr(gpt2.runs.corrupt, "k")
    assert torch.allclose(gpt2.runs.swapped().clean.end, gpt2.runs.corrupt.end, atol=1e-6)


@pytest.mark.parametrize("places", [(0, 2, LENGTH - 1), range(LENGTH + 1)], ids=["few", "many"])
def test_the_corrupt_run_begins_where_prompts_differ(case: Case, places: Sequence[int]) -> None:
    draw = torch.Generator().manual_seed(1)
    clean = torch.randint(case.model.n_vocab, (40, LENGTH), generator=draw)
    first = torch.tensor([places[i % len(places)] for i in range(40)])  # at the length itself, they do not differ
    later = torch.arange(LENGTH) >= first[:, None]
    corrupt = torch.where(later, (clean + 1) % case.model.n_vocab, clean)
    runs, whole = run(case.model, clean, corrupt, neurons(case.model)), run(case.model, corrupt, clean)
    for ours, plain in zip(terms_in(runs.corrupt), terms_in(whole.clean), strict=True):
        assert torch.allclose(ours, plain, atol=1e-4)
    for mlp, clean_mlp in zip(runs.corrupt.mlp, runs.clean.mlp, strict=True):
        assert len(places) > MOST_STARTS or torch.equal(mlp[~later], clean_mlp[~later])
    for node, activation in runs.corrupt.neurons.items():
        assert torch.allclose(activation, run(case.model, corrupt, clean, [node]).clean.neurons[node], atol=1e-4)


def terms_in(terms: Terms) -> list[torch.Tensor]:
    """All that a run has written."""
    return [terms.embed, *terms.z, *terms.mlp, terms.end]


@pytest.mark.parametrize("kinds", [1, 3, 4, 5, 30])
def test_prompts_start_together_in_a_few_parts(kinds: int) -> None:
    first = np.random.default_rng(kinds).integers(0, kinds, 100)
    parts = list(starts(first))
    assert len(parts) <= MOST_STARTS
    assert sorted(np.concatenate([rows for rows, _ in parts]).tolist()) == list(range(100))
    for rows, start in parts:
        assert start == first[rows].min()
    if len(set(first.tolist())) <= MOST_STARTS:
        assert all(len(set(first[rows].tolist())) == 1 for rows, _ in parts)


def test_a_corrupt_run_stops_where_no_term_is_taken_any_more(case: Case) -> None:
    for sender in (Node("embed"), Node("head", 0, 1), Node("mlp", 0), Node("head", 1, 2)):
        request = EdgeRequest((Edge(sender, Input(LOGITS, "in"), EVERYWHERE),))
        short = run(case.model, case.clean, case.corrupt, kept=request.kept(case.model.n_layers))
        assert list(short.corrupt.kept) == [layer_of(sender)]
        assert not len(short.corrupt.end)
        experiment = experiment_of(request)
        whole, cut = (effects(runs, [experiment], {}, case.vocabulary) for runs in (case.runs, short))
        assert torch.allclose(whole, cut, atol=1e-5)


def test_readouts_agree(case: Case) -> None:
    tokens = torch.tensor([[1, 2], [3, 4], [5, 6]])
    some = baseline(case.model, case.runs.clean, Readout(tokens))
    assert torch.allclose(some, baseline(case.model, case.runs.clean, case.vocabulary).gather(1, tokens), atol=1e-5)

    def best(logits: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        return logits.gather(1, tokens[prompt]).amax(dim=1, keepdim=True)

    experiment = Experiment(frozenset([Edge(Node("embed"), Input(LOGITS, "in"), EVERYWHERE)]))
    read = [Readout(tokens), Readout(reduce=best)]
    by_token, by_best = (effects(case.runs, [experiment], {}, readout) for readout in read)
    assert torch.allclose(by_token.amax(dim=2, keepdim=True), by_best, atol=1e-5)


def test_attention_is_that_of_the_model(case: Case) -> None:
    source, head = torch.tensor([[5, 1], [4, -1], [5, 3]]), Node("head", 1, 2)
    some, whole = (patterns(case.model, case.runs.clean, head, at) for at in (source, None))
    none = Experiment()
    slow = reference.attention(case.model, case.clean, case.corrupt, none, {}, [head])[:, 0]
    for i in range(3):
        assert torch.allclose(whole[i], slow[i], atol=1e-5)
        for row, place in enumerate(source[i]):
            assert place < 0 or torch.allclose(some[i, row], slow[i, place], atol=1e-5)


def test_changed_says_where_a_corruption_arrives(gpt2: Case) -> None:
    embed, head = Node("embed"), Node("head", 1, 0)
    assert changed(gpt2.runs, embed).tolist() == [True, True, True]
    assert changed(gpt2.runs, embed, torch.tensor([[1], [1], [2]])).tolist() == [True, True, False]
    assert changed(gpt2.runs, head, torch.tensor([[0], [5], [-1]])).tolist() == [False, True, False]


def test_prompts_are_grouped_by_length() -> None:
    prompts = [[1, 2], [3], [4, 5], [6, 7, 8]]
    groups = list(by_length(prompts, lambda length: 64))
    assert [tokens.tolist() for _, tokens in groups] == [[[3]], [[1, 2], [4, 5]], [[6, 7, 8]]]
    assert [places.tolist() for places, _ in groups] == [[1], [0, 2], [3]]
    assert [places.tolist() for places, _ in by_length(prompts, lambda length: 1)] == [[1], [0], [2], [3]]


def test_a_request_names_its_experiment() -> None:
    edge = Edge(Node("head", 0, 1), Input(Node("head", 1, 0), "q"), Position("END"))
    one, again = experiment_of(EdgeRequest((edge,))), experiment_of(EdgeRequest((edge, edge)))
    assert one == again and hash(one) == hash(again)
    assert one.positions == {Position("END")}
    assert str(one) == "0.1 -> 1.0.q at END"


TOKENS = torch.zeros(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("clean", "corrupt", "message"),
    [
        (TOKENS, TOKENS[:, :4], "as many and as long as each other"),
        (TOKENS, TOKENS[:1], "as many and as long as each other"),
        (TOKENS[:0], TOKENS[:0], "there are no clean prompts"),
        (TOKENS, TOKENS + 30, "corrupt prompt 1 holds a token"),
        (torch.zeros(1, 17, dtype=torch.long), torch.zeros(1, 17, dtype=torch.long), "17 tokens; .* up to 16"),
    ],
)
def test_prompts_that_cannot_be_run(gpt2: Case, clean: torch.Tensor, corrupt: torch.Tensor, message: str) -> None:
    with pytest.raises(PatchError, match=message):
        run(gpt2.model, clean, corrupt)


def edge(sender: Node, receiver: Node, port: str, position: str = "A") -> Experiment:
    return Experiment(frozenset([Edge(sender, Input(receiver, port), Position(position))]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (edge(Node("head", 2, 0), Node("head", 2, 1), "q"), "2.0 does not come before 2.1"),
        (edge(Node("mlp", 1), Node("head", 1, 1), "q"), "m1 does not come before 1.1"),
        (edge(Node("head", 0, 3), Node("head", 2, 1), "q"), "heads 0 to 2 in a layer, so there is no 0.3"),
        (edge(Node("head", 0, 0), Node("mlp", 4), "in"), "layers 0 to 3, so there is no m4"),
        (edge(Node("head", 0, 0), Node("mlp", 3), "q"), "m3 has no input q"),
        (edge(Node("head", 0, 0), Node("head", 1, 0), "q", "C"), "no token indices were given for position C"),
        (edge(Node("head", 0, 0), LOGITS, "in"), "logits are read at END only, and in prompt 1 A is not the last"),
        (Experiment(sites=frozenset([Site(LOGITS, EVERYWHERE)])), "logits write nothing"),
        (Experiment(sites=frozenset([Site(Node("mlp", 0), EVERYWHERE)]), ablate="mean"), "needs the means"),
    ],
)
def test_experiments_that_cannot_be_made(gpt2: Case, experiment: Experiment, message: str) -> None:
    with pytest.raises(PatchError, match=message):
        effects(gpt2.runs, [experiment], gpt2.positions, gpt2.vocabulary)


def test_a_position_beyond_the_prompt_names_the_prompt(gpt2: Case) -> None:
    beyond = {Position("A"): torch.tensor([[1], [6], [2]])}
    with pytest.raises(PatchError, match="position A is token 6 of prompt 2, which has 6 tokens"):
        effects(gpt2.runs, [edge(Node("embed"), Node("head", 0, 1), "q")], beyond, gpt2.vocabulary)


def test_heads_beside_an_mlp_do_not_send_to_it(random_model) -> None:  # type: ignore[no-untyped-def]
    case = make_case(random_model("gpt_neox"))
    beside = edge(Node("head", 1, 0), Node("mlp", 1), "in")
    with pytest.raises(PatchError, match=r"1\.0 does not come before m1"):
        effects(case.runs, [beside], case.positions, case.vocabulary)


def test_queries_keys_and_values_in_one_product(case: Case) -> None:
    """GPT-2 keeps the three weights in one tensor; the others do not."""
    block, turns = case.model.blocks[1], case.runs.clean.turns[1]
    x = block.attn_norm(case.runs.clean.resid_pre[1])
    for together in (block.attn.unturned(x), block.attn.unturned(x, of_queries=x)):
        for port, found in zip(PORTS, together, strict=True):
            torch.testing.assert_close(block.attn.turned(port, found, turns), block.attn.project(port, x, turns))
    whole = joined(block.attn.q, block.attn.k, block.attn.v)
    assert (whole is not None) == (case.model.family == "gpt2")
    if whole is not None:
        assert whole.weight.untyped_storage().data_ptr() == block.attn.q.weight.untyped_storage().data_ptr()
        assert joined(block.attn.k, block.attn.q) is None
