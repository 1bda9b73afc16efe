"""Before anything is measured: the engine's logits of some prompts are those of the model as its library runs it.

A model is checked when it is loaded, on random tokens (`load.check_sum`). The numbers are about a task's own prompts,
the longest among them: these decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from circuitdsl.engine.memory import out_of_memory, ran_out
from circuitdsl.errors import UserError
from circuitdsl.models.errors import UnsupportedModel
from circuitdsl.models.original import Original
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.verify.cache import Memory

#: prompts of each length that are compared, and tokens that the library runs at once
FEW, TOKENS = 2, 512
#: prompts that tell how much prompts differ
SPREAD = 64
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
    original, groups = model.original, list(_few(pairs))
    if original is None:
        return
    places = [i for group in groups for i in group]

    def found() -> np.ndarray:
        return np.concatenate([_off(original, [pairs[i] for i in group], both(group)) for group in groups])

    def both(group: list[int]) -> Tensor:
        return torch.cat([logits(side, group) for side in SIDES])

    off = known.of_model(original.digest, [pairs[i] for i in places], found) if known else found()
    for i in np.flatnonzero(off != 0)[:1]:
        pair = pairs[places[i]]
        raise UnsupportedModel(
            f"the engine does not compute what transformers computes with {model.name}: on prompt {places[i] + 1} "
            f"({pair.clean!r}) or its partner, logits at END are off by {off[i]:.1e} of the largest, so no number "
            "would be true of the model",
            "measure another model, and report this one with its config.json",
        )


def check_rounding(
    model: Transformer, pairs: Sequence[PromptPair], logits: Callable[[str, Sequence[int]], Tensor]
) -> None:
    """In half precision, prompts must differ by more than one step of the number format at the size of the logits.

    Rounding averages out over prompts that differ. Where they do not, every prompt is rounded alike, and an effect may
    be off by a whole step on all of them, with no spread to show it.

    Raises:
        UserError: they do not.
    """
    if model.dtype == torch.float32:
        return
    few = range(min(len(pairs), SPREAD))
    rows = logits("clean", few)
    answers = (rows - rows.mean(-1, keepdim=True))[few, [pairs[i].answers[0] for i in few]]
    largest = float(rows.abs().max())
    step = torch.finfo(model.dtype).eps * largest
    if len(few) > 1 and float(answers.std()) < step:
        name = str(model.dtype).removeprefix("torch.")
        raise UserError(
            f"logits at END are as large as {largest:.0f}, where {name} has steps of {step:.2g}, and these prompts "
            "differ by less: what is rounded alike on all of them does not average out",
            hint="use --dtype float32",
        )


def _off(original: Original, pairs: Sequence[PromptPair], ours: Tensor) -> np.ndarray:
    """How far logits of prompts of one length, or those of their partners, are from the model's own."""
    tokens = [getattr(pair, f"{side}_tokens") for side in SIDES for pair in pairs]
    try:
        found = original.off(ours[:, None], torch.tensor(tokens, device=original.module.device))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise ran_out(f"running the prompt {pairs[0].clean!r}") from None
    return found.view(len(SIDES), -1).amax(0).double().cpu().numpy()


def _few(pairs: Sequence[PromptPair]) -> Iterator[list[int]]:
    """Places of the first prompts of each length, no more together than run at once."""
    lengths = np.asarray([len(pair.clean_tokens) for pair in pairs])
    for length in np.unique(lengths):
        few = np.flatnonzero(lengths == length)[:FEW].tolist()
        size = max(1, TOKENS // (len(SIDES) * max(1, int(length))))
        yield from (few[start : start + size] for start in range(0, len(few), size))
