"""What heads attend to while a model is trained, so that one sees its circuits appear."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circuitdsl.models.pocket import mixture
from circuitdsl.tasks.template import Marked

if TYPE_CHECKING:
    from circuitdsl.models.pocket.train import Pocket

#: what is watched: the task, from where, to where
WATCHED = {
    "END to S2": ("ioi", "END", "S2"),
    "END to IO": ("ioi", "END", "IO"),
    "S2 to S1": ("ioi", "S2", "S1"),
    "END to what followed": ("induction", "END", "ANSWER"),
}
PROMPTS = 40
#: the share of its attention from which on a head is named
NAMED = 0.15


@torch.no_grad()
def patterns(model: Pocket, tokens: Tensor) -> Tensor:
    """Attention of every head on one prompt of `t` tokens: [layers, heads, t, t], a row for each query."""
    seen: list[Tensor] = []
    maps = [linear for block in model.layers() for linear in (block.q, block.k)]
    hooks = [linear.register_forward_hook(lambda _module, _inputs, made: seen.append(made[0])) for linear in maps]
    model(tokens[None])
    for hook in hooks:
        hook.remove()
    found = []
    for pair in zip(seen[::2], seen[1::2], strict=True):
        q, k = (each.view(len(tokens), model.recipe.heads, -1).transpose(0, 1) for each in pair)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        found.append(scores.masked_fill(later, -math.inf).softmax(-1))
    return torch.stack(found)


def _place(text: Marked, name: str) -> int:
    """The token at which a position lies; `END` is the last."""
    ends = [end for _, end in mixture.pieces(text.text)]
    return len(ends) - 1 if name == "END" else next(i for i, end in enumerate(ends) if end >= text.marks[name][0][1])


def watch(model: Pocket, ids: dict[str, int]) -> dict[str, str]:
    """The heads that attend most to what is watched, each with its mean share: `2.1 0.87, 3.0 0.40`."""
    found = {}
    for name, (task, query, key) in WATCHED.items():
        rng, total = random.Random(f"watch/{task}"), torch.zeros(model.recipe.layers, model.recipe.heads)
        for _ in range(PROMPTS):
            text = mixture.draw(task, rng, mixture.held_out).clean
            tokens = torch.tensor([ids[piece] for piece, _ in mixture.pieces(text.text)])
            total += patterns(model, tokens)[:, :, _place(text, query), _place(text, key)] / PROMPTS
        heads = [(divmod(i, model.recipe.heads), share) for i, share in enumerate(total.flatten().tolist())]
        best = sorted(((share, head) for head, share in heads if share >= NAMED), reverse=True)
        found[name] = ", ".join(f"{layer}.{head} {share:.2f}" for share, (layer, head) in best)
    return found
