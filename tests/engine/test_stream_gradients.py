"""Gradients by the residual stream are held to central differences of whole runs, on models of several families."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitdsl.circuit.nodes import LOGITS
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.passes import Edits
from circuitdsl.engine.runs import one_run
from circuitdsl.engine.stream_gradients import StreamGradients
from circuitdsl.measurements.kept import Kept
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.verify.prompts import scored_prompts

#: how far the metric of the first prompt is moved
FAR = 0.02


class Moved(Edits):
    """Something is added to the residual stream that enters a layer, at one token."""

    def __init__(self, layer: int, token: int, by: Tensor) -> None:
        self.layer, self.token, self.by = layer, token, by

    def stream(self, layer: int, resid: Tensor, rows: object) -> Tensor:
        if layer != self.layer:
            return resid
        moved = resid.clone()
        moved[:, self.token] += self.by
        return moved


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_a_gradient_is_how_fast_the_metric_of_a_run_grows(
    family: str, random_model: Callable[[str], Transformer]
) -> None:
    model, draw = random_model(family), torch.Generator().manual_seed(0)
    clean, corrupt = (torch.randint(1, model.n_vocab, (6, 5), generator=draw).tolist() for _ in range(2))
    pairs = tuple(
        PromptPair(tuple(a), tuple(b), (1,), (2,), {"END": (4,)}, "") for a, b in zip(clean, corrupt, strict=True)
    )
    prompts = scored_prompts(model, Dataset("random", "", 0, False, pairs), Metric())
    layers = range(model.n_layers + 1)
    runs, kept = StreamGradients(prompts, np.arange(6), layers=layers), Kept(frozenset([LOGITS]))
    for places, gradients in runs.found():
        tokens = torch.tensor([list(pairs[i].clean_tokens) for i in places])
        for layer in layers:
            token = 4 if layer == model.n_layers else 2
            own = gradients[layer][:, token]
            by = FAR * own[0] / own[0].square().sum()
            plus, minus = (
                runs.score(one_run(model, tokens, Moved(layer, token, sign * by), kept).end[:, None], places)
                for sign in (1, -1)
            )
            assert torch.allclose(own @ by, (plus - minus) / 2, rtol=0.05, atol=FAR / 20), layer
