"""Whether a view of a model computes what its library computes: on random tokens, when it is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.models.devices import meeting
from circuitdsl.models.errors import UnsupportedModel
from circuitdsl.models.experts import Whole
from circuitdsl.models.original import Original
from circuitdsl.models.outline import parameters
from circuitdsl.models.parts import Block, Transformer, attend, changed

#: tokens at the start of a context and at its end whose logits are checked at load
SHORT = 12
#: tokens of the long prompt that is checked at load; where a window is longer, the prompt is longer too. It has at most
#: `LONGEST` tokens, and at most as many as these multiplications allow, but at least `LEAST`
LONG, LONGEST, MULTIPLICATIONS, LEAST = 128, 1024, 8e9, 32


def check_sum(view: Transformer, original: Original) -> None:
    """Refuse a model whose own logits are not what the terms of its residual stream add up to.

    Random tokens are run in three ways. A short prompt shows whether weights, norms and activations are read rightly.
    Another at the last positions that the model has shows its last learned positions, and rotary ones turned furthest.
    A prompt longer than every window shows what is seen through these, as far as that is cheap. What it leaves out is
    seen on a task's own prompts before they are measured (`verify.prompts.check_agreement`). In half precision each is
    computed in single precision as well (see `Original.off`).

    Raises:
        UnsupportedModel: logits differ by more than rounding does, or transformers cannot run the model.
    """
    if view.n_ctx < 1:
        raise UnsupportedModel(f"{view.name} has no positions (see its config.json)")
    generator = torch.Generator().manual_seed(0)
    short, long = min(SHORT, view.n_ctx), min(_beyond_windows(view, original), view.n_ctx)
    for rows, length, start, last in ((2, short, 0, short), (1, short, view.n_ctx - short, short), (1, long, 0, 1)):
        tokens = torch.randint(view.n_vocab, (rows, length), generator=generator).to(view.device)
        with torch.inference_mode():
            ours = forward(view, tokens, start, last)
        off = original.off(ours, tokens, start, in_single_precision(view, tokens, start, last))
        if bool((off != 0).any()):
            raise UnsupportedModel(
                f"the residual stream of {view.name} ({view.family}) is not the sum of the terms that its heads and "
                f"MLPs write: on tokens {start + 1} to {start + length} logits computed from the terms are off by "
                f"{float(off.max()):.1e} of the largest, so patching would be wrong"
            )


def _beyond_windows(view: Transformer, original: Original) -> int:
    """Tokens of a prompt that is longer than every window, the model's or ours, as far as a run of it is cheap."""
    cheap = int(MULTIPLICATIONS / parameters(view))
    windows = [*(block.attn.window or 0 for block in view.blocks), original.window]
    return max(LEAST, min(max(LONG, *(window + 4 for window in windows)), cheap, LONGEST))


@torch.inference_mode()
def in_single_precision(
    model: Transformer, tokens: Int[Tensor, "n T"], start: int = 0, last: int = 0
) -> Float[Tensor, "n last vocab"] | None:
    """What `forward` gives in single precision on the weights as they are; None where it does so anyway.

    Matrices are converted for each product, in parts (`products.linear`). Of the embeddings no more are converted than
    those of the tokens.
    """
    if model.dtype == torch.float32:
        return None
    embedded = model.W_E[tokens].flatten(0, 1).float()
    ends = changed(replace(model, blocks=(), W_E=embedded), _single)
    numbers = torch.arange(tokens.numel(), device=tokens.device).view_as(tokens)
    return forward(replace(ends, blocks=model.blocks), numbers, start, last, _block)


def _block(block: Block) -> Block:
    """A layer in single precision; what its library computes takes numbers of one format alone."""
    made: Block = changed(block, _single)
    return replace(made, mlp=changed(block.mlp, Tensor.float)) if isinstance(block.mlp, Whole) else made


def _single(weight: Tensor) -> Tensor:
    """A bias or a gain in single precision; a matrix as it is."""
    return weight.float() if weight.ndim == 1 else weight


@meeting()
def forward(
    model: Transformer,
    tokens: Int[Tensor, "n T"],
    start: int = 0,
    last: int = 0,
    used: Callable[[Block], Block] = lambda block: block,
) -> Float[Tensor, "n last vocab"]:
    """Logits of tokens, computed from the model's terms alone.

    Args:
        start: the position of the first token.
        last: the tokens at the end whose logits are wanted; 0 for all.
        used: what is run in the place of each layer.
    """
    resid = model.embed(tokens, start)
    for block, turns in zip(map(used, model.blocks), model.turns(tokens.shape[1], start), strict=True):
        resid = block.entered(resid)
        x = block.attn_norm(resid)
        q, k, v = (block.attn.project(port, x, turns).transpose(1, 2) for port in ("q", "k", "v"))
        z, _ = block.attn.written(attend(block.attn, q, k, v))
        mid = resid + block.attn.write(z)  # the sum of the heads' terms
        resid = mid + block.mlp(block.mlp_norm(resid if model.parallel else mid))
    return model.logits(resid[:, -last:])


def logits_digest(model: Transformer) -> bytes:
    """A hash of what a model computes on a few tokens: of its weights, and of what its configuration makes of them.

    Embeddings of tokens and positions that are not among these are in it by their sums.
    """
    length = min(24, model.n_ctx)
    tokens = (torch.arange(2 * length).view(2, length) % model.n_vocab).to(model.device)
    with torch.inference_mode():
        logits = forward(model, tokens)
    heads = [(b.attn.n_heads, b.attn.n_kv_heads, b.attn.scale, b.attn.window) for b in model.blocks]
    made = hashlib.blake2b(f"{model.sha256} {heads} {model.n_ctx}".encode(), digest_size=16)
    sums = [table.float().sum(-1) for table in (model.W_E, model.W_pos) if table is not None]
    for numbers in (logits, *sums):
        made.update(numbers.double().cpu().numpy().tobytes())
    return made.digest()
