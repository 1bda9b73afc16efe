"""Small random models of every family, loaded the way a user's model is, and prompts to patch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.engine.experiment import Positions, Readout
from circuitdsl.engine.runs import Runs, run
from circuitdsl.models.parts import Transformer
from tests.families import BRIDGED_ROWS, ROWS

#: heads that are wider than their share, a window that every prompt outgrows, and caps that bite
GEMMA = {
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "hidden_size": 24,
    "head_dim": 10,
}
POST_NORM = GEMMA | {
    "query_pre_attn_scalar": 12,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    "sliding_window": 4,
    "final_logit_softcapping": 5.0,
}
SIZES = {
    "gpt2": {"n_layer": 4, "n_head": 3, "n_embd": 24, "n_positions": 16},
    "llama": {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 24},
    "gpt_neox": {"num_hidden_layers": 3, "num_attention_heads": 3, "hidden_size": 24, "rotary_pct": 0.5},
    "qwen3": {
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 24,
        "head_dim": 8,
    },
    "gemma": GEMMA,
    "gemma2": POST_NORM | {"attn_logit_softcapping": 1.5},
    "gemma3_text": POST_NORM,
}
#: families with a row of their own
MORE = {"num_hidden_layers": 3, "num_attention_heads": 3, "hidden_size": 24}
SIZES |= {kind: MORE | row.sized(3) for kind, row in ROWS.items()}
FAMILIES = tuple(SIZES)
SIZES |= {kind: MORE | row.sized(3) for kind, row in BRIDGED_ROWS.items()}
#: those that differ in more than where they keep their parts
FEW = tuple(kind for kind in FAMILIES if kind not in ROWS or kind in ("olmo2", "bloom", "mixtral"))
#: some that are read through a bridge: by a factor, with experts, turned otherwise, with what is added for distances
BRIDGED = ("granite", "qwen2_moe", "glm4", "mpt")
#: those whose MLPs are never computed through few directions (`engine.narrow`)
NEVER_NARROW = (
    *("gpt_neox", "gemma2", "gemma3_text"),
    *(kind for kind, row in ROWS.items() if row.parallel or row.post or row.experts),
)
#: those whose neurons can be named
NUMBERED = tuple(kind for kind in FAMILIES if kind not in ROWS or not ROWS[kind].experts)
PROMPTS, LENGTH, VOCAB = 3, 6, 30
#: the neurons of each MLP whose activations are kept
NEURONS = (0, 7)


@dataclass(frozen=True)
class Case:
    """A model with prompt pairs; A and B mean different tokens in different prompts, and B is missing from one."""

    model: Transformer
    clean: Tensor
    corrupt: Tensor
    runs: Runs
    positions: Positions

    @property
    def vocabulary(self) -> Readout:
        """All logits at END."""
        return Readout(reduce=lambda logits, prompt: logits)

    def on(self, rows: list[int]) -> Case:
        """The same with some of the prompts, in another order."""
        clean, corrupt = self.clean[rows], self.corrupt[rows]
        positions = {name: index[rows] for name, index in self.positions.items()}
        return replace(
            self,
            clean=clean,
            corrupt=corrupt,
            runs=run(self.model, clean, corrupt, only_named(self.model)),
            positions=positions,
        )


def save_random(kind: str, path: Path, **options: int) -> Path:
    """A random model whose weights are large enough for attention and MLPs to be far from linear."""
    from transformers import AutoConfig, AutoModelForCausalLM

    rest = {} if kind == "gpt2" else {"intermediate_size": 40, "max_position_embeddings": 16}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    config = AutoConfig.for_model(kind, **{"vocab_size": VOCAB, **special, **rest, **SIZES[kind], **options})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:  # norms, biases
                weight.add_(torch.randn_like(weight) * 0.2)
            else:
                weight.normal_(0, 1.0 if "emb" in name or "wte" in name else 0.4)
    model.save_pretrained(path)
    return path


def make_case(model: Transformer, seed: int = 0, length: int = LENGTH) -> Case:
    """Prompts that differ from their partners at a token or two."""
    draw = torch.Generator().manual_seed(seed)
    clean = torch.randint(model.n_vocab, (PROMPTS, length), generator=draw)
    corrupt = clean.clone()
    corrupt[:, 1] = torch.randint(model.n_vocab, (PROMPTS,), generator=draw)
    corrupt[0, 3] = (clean[0, 3] + 1) % model.n_vocab
    positions = {
        Position("A"): torch.tensor([[1], [3], [2]]),
        Position("B"): torch.tensor([[4, 2], [3, -1], [-1, -1]]),
        Position("END"): torch.full((PROMPTS, 1), length - 1),
    }
    return Case(model, clean, corrupt, run(model, clean, corrupt, only_named(model)), positions)


def only_named(model: Transformer) -> list[Node]:
    """What runs keep only where it is named."""
    return [*neurons(model), *streams(model)]


def streams(model: Transformer) -> list[Node]:
    """The residual stream as it enters every layer but the first, and the final norm."""
    return [Node("resid", layer + 1) for layer in range(model.n_layers)]


def neurons(model: Transformer) -> list[Node]:
    """Two neurons of every MLP; mixtures of experts have none."""
    layers = [layer for layer, block in enumerate(model.blocks) if block.mlp.neurons]
    return [Node("mlp", layer, index=i) for layer in layers for i in NEURONS]
