"""Entropy and activation against the model as its own library runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from circuitdsl.circuit.nodes import Node, Position, Site
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.activation import Activation
from circuitdsl.measurements.entropy import Entropy
from circuitdsl.models.load import POCKET
from circuitdsl.models.parts import Transformer
from circuitdsl.report.report import Report
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.measure import measure
from circuitdsl.verify.prompts import scored_prompts

END, S1 = Position("END"), Position("S1")
COUNT = 6


@pytest.fixture(scope="module")
def prompts(pocket: Transformer, pocket_tokens: Tokens) -> Prompts:
    return scored_prompts(pocket, sample(TASKS["ioi"], pocket_tokens, COUNT, 0), Metric())


@pytest.fixture(scope="module")
def module() -> Any:
    return AutoModelForCausalLM.from_pretrained(POCKET, attn_implementation="eager").eval()


def test_entropy_is_that_of_the_library_s_attention(prompts: Prompts, module: Any) -> None:
    heads = (Node("head", 1, 6), Node("head", 3, 2))
    found = measure(prompts, [Entropy(heads, (END, S1))], np.arange(COUNT))
    (series,) = found.values()
    for pair, value in zip(prompts.pairs, series.values, strict=True):
        with torch.no_grad():
            attentions = module(torch.tensor([pair.clean_tokens]), output_attentions=True).attentions
        at = sorted({i for position in (END, S1) for i in indices_of(pair, position)})
        rows = [attentions[head.layer][0, head.head, i].double() for head in heads for i in at]
        by_hand = np.mean([float(-(row[row > 0] * row[row > 0].log()).sum()) for row in rows])
        assert value == pytest.approx(by_hand, abs=1e-5)


def test_activation_is_that_of_the_library_s_mlp(prompts: Prompts, module: Any) -> None:
    sites = (Site(Node("mlp", 1, index=17), END), Site(Node("mlp", 2, index=3), S1))
    (series,) = measure(prompts, [Activation(sites)], np.arange(COUNT)).values()
    inputs: dict[int, torch.Tensor] = {}
    for layer, block in enumerate(module.transformer.h):
        block.mlp.c_proj.register_forward_pre_hook(lambda _, args, layer=layer: inputs.update({layer: args[0]}))
    for pair, value in zip(prompts.pairs, series.values, strict=True):
        with torch.no_grad():
            module(torch.tensor([pair.clean_tokens]))
        by_hand = np.mean(
            [float(inputs[s.node.layer][0, indices_of(pair, s.position), s.node.index].mean()) for s in sites]
        )
        assert value == pytest.approx(by_hand, abs=1e-5)


def test_a_head_that_looks_at_one_token_has_no_entropy(check: Callable[..., Report]) -> None:
    """`set attention(…) = 100%` to one position leaves nothing to be uncertain of."""
    report = check(
        """circuit c
model "pocket"
task ioi(prompts = 64)
intervention narrow "all attention goes to one name"
  set attention(2.4, END -> IO) = 100%
  expect entropy(2.4, END) <= 0.1
  expect entropy(2.4, END) falls
"""
    )
    assert [claim.verdict for claim in report.claims] == ["holds", "holds"]
