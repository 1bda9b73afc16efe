"""Before anything is measured: the engine's logits of some prompts are those of the model as its library runs it.

A model is checked when it is loaded, on random tokens (`load.check_sum`). The numbers are about a task's own prompts,
the longest among them: these decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from circuitdsl.measure.memory import Memory
from circuitdsl.models.errors import UnsupportedModel
from circuitdsl.models.original import Original
from circuitdsl.models.parts import Transformer
from circuitdsl.patching.memory import out_of_memory, ran_out
from circuitdsl.tasks.dataset import PromptPair

#: prompts of each length that are compared, and tokens that the library runs at once
FEW, TOKENS = 2, 512
SIDES = ("clean", "corrupt")


def check_agreement(
    model: Transformer,
    pairs: Sequence[PromptPair],
    logits: Callable[[str, Sequence[int]], Tensor],
    known: Memory | None = None,
) -> None:
    """Compare the logits at END of a few prompts of each length, and of their partners, with the model's own.

    Args:
        logits: gives the engine's [n, vocab], of one side of the prompts at some places.
        known: what a store knows; what is found is kept there.

    Raises:
        UnsupportedModel: they differ by more than rounding does.
        OutOfMemory: memory ran out on a single prompt.
    """
    original, places = model.original, list(_few(pairs))
    if original is None:
        return

    def found() -> np.ndarray:
        off = np.zeros(len(places))
        for at in _parts(pairs, places):
            here = [places[i] for i in at]
            ours = torch.cat([logits(side, here) for side in SIDES])
            off[at] = _off(original, [pairs[i] for i in here], ours).amax(0)
        return off

    off = known.of_model(original.digest, [pairs[i] for i in places], found) if known else found()
    for i in np.flatnonzero(off != 0)[:1]:
        pair = pairs[places[i]]
        raise UnsupportedModel(
            f"the engine does not compute what transformers computes with {model.name}: on prompt {places[i] + 1} "
            f"({pair.clean!r}) or its partner, logits at END are off by {off[i]:.1e} of the largest, so no number "
            "would be true of the model",
            "measure another model, and report this one with its config.json",
        )


def _off(original: Original, pairs: Sequence[PromptPair], ours: Tensor) -> Tensor:
    """How far logits of prompts of one length and of their partners are from the model's own [2, n]."""
    tokens = [getattr(pair, f"{side}_tokens") for side in SIDES for pair in pairs]
    try:
        found = original.off(ours[:, None], torch.tensor(tokens, device=original.module.device))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise ran_out(f"running the prompt {pairs[0].clean!r}") from None
    return found.view(len(SIDES), -1).cpu()


def _few(pairs: Sequence[PromptPair]) -> Iterator[int]:
    """Places of the first prompts of each length."""
    lengths = np.asarray([len(pair.clean_tokens) for pair in pairs])
    for length in np.unique(lengths):
        yield from np.flatnonzero(lengths == length)[:FEW].tolist()


def _parts(pairs: Sequence[PromptPair], places: Sequence[int]) -> Iterator[list[int]]:
    """Indices of places whose prompts are of one length, no more than run at once."""
    lengths = [len(pairs[i].clean_tokens) for i in places]
    for length in dict.fromkeys(lengths):
        same = [i for i, each in enumerate(lengths) if each == length]
        size = max(1, TOKENS // (len(SIDES) * max(1, length)))
        yield from (same[start : start + size] for start in range(0, len(same), size))
