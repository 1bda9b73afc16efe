"""GPT-J: heads and MLP beside each other behind one norm; rotary positions that turn neighbouring numbers."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from circuitdsl.models.families._family import Family, Weights, apart, layer_norm, linear, plain_mlp
from circuitdsl.models.parts import Attention, Norm, Rotary


@cache
def _rotary(turned: int, device: torch.device) -> Rotary:
    """The frequencies, which no configuration changes; made once for all layers."""
    return Rotary(1.0 / 10000 ** (torch.arange(0, turned, 2, device=device) / turned))


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    at = f"transformer.h.{layer}"
    n_heads, turned = config.num_attention_heads, config.rotary_dim
    d_head = config.hidden_size // n_heads
    q, k, v, o = (linear(w, f"{at}.attn.{x}_proj") for x in ("q", "k", "v", "out"))
    q, k = apart(q, d_head, turned), apart(k, d_head, turned)
    rotary = _rotary(turned, q.weight.device)
    attn = Attention(q, k, v, o, n_heads, n_heads, d_head, d_head**-0.5, rotary=rotary)
    return layer_norm(w, f"{at}.ln_1", config.layer_norm_epsilon), attn


FAMILIES = {
    "gptj": Family(
        "GPT-J",
        _heads,
        plain_mlp("transformer.h.{}", "ln_1", "mlp.fc_in", "mlp.fc_out", "activation_function", "layer_norm_epsilon"),
        lambda config, w: layer_norm(w, "transformer.ln_f", config.layer_norm_epsilon),
        ("transformer.wte", "", "lm_head"),
        ("h.{}.attn.out_proj.weight", "h.{}.mlp.fc_out.*"),
        about=lambda config, w: {"parallel": True},
    )
}
