"""Families that are read one file each: a small model of each, and where transformers keeps its parts.

A family whose file is new needs one row here. The options are beside the sizes that a test gives: layers, heads, width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """A family.

    Attributes:
        options: of a small model: windows that prompts outgrow, heads that are wider than their share.
        layered: options that say something of each layer, by turns.
        layers: the module that holds the layers; the next ones stand in a layer.
        norm, mlp_norm: what heads and MLP read through; "" for nothing.
        q: the module that gives the queries, those of each head `stride` widths behind those of the one before it.
        q_norm: the norm of the queries of all heads together.
        out, post: the module that adds the heads up, and the norm that comes after it.
        times: what the terms of heads and MLPs are multiplied by.
        mlp, mlp_out: the module that reads the MLP's input, and the one that gives its term.
        final: the norm before the logits; "" where it norms something else too.
    """

    options: dict[str, Any] = field(default_factory=dict)
    layered: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    layers: str = "model.layers"
    norm: str = "input_layernorm"
    q: str = "self_attn.q_proj"
    stride: int = 1
    q_norm: str = ""
    out: str = "self_attn.o_proj"
    post: str = ""
    times: float = 1.0
    mlp_norm: str = "post_attention_layernorm"
    mlp: str = "mlp"
    mlp_out: str = "mlp"
    final: str = "model.norm"

    @property
    def experts(self) -> bool:
        """Whether layers have several MLPs."""
        return "num_experts_per_tok" in self.options

    @property
    def parallel(self) -> bool:
        """Whether heads and MLP read the same."""
        return bool(self.norm) and self.norm == self.mlp_norm

    def sized(self, layers: int) -> dict[str, Any]:
        """The options of a model of so many layers."""
        by_layer = {name: [each[i % len(each)] for i in range(layers)] for name, each in self.layered.items()}
        if "attention_types" in by_layer:  # GPT-Neo says how often a list is repeated
            by_layer["attention_types"] = [[by_layer["attention_types"], 1]]
        return self.options | by_layer


ROWS: dict[str, Row] = {
    "gpt_neo": Row(
        {"window_size": 4, "intermediate_size": 40},
        {"attention_types": ("global", "local")},
        layers="transformer.h",
        norm="ln_1",
        q="attn.attention.q_proj",
        out="attn.attention.out_proj",
        mlp_norm="ln_2",
        final="transformer.ln_f",
    ),
    "gptj": Row(
        {"rotary_dim": 4, "n_inner": 40},
        layers="transformer.h",
        norm="ln_1",
        q="attn.q_proj",
        out="attn.out_proj",
        mlp_norm="ln_1",
        final="transformer.ln_f",
    ),
    "phi": Row(
        {
            "num_key_value_heads": 1,
            "qk_layernorm": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        out="self_attn.dense",
        mlp_norm="input_layernorm",
        final="model.final_layernorm",
    ),
    "phi3": Row({"num_key_value_heads": 1, "sliding_window": 5}, q="self_attn.qkv_proj"),
    "starcoder2": Row({"num_key_value_heads": 1, "sliding_window": 5}),
    "opt": Row(
        {"ffn_dim": 40, "word_embed_proj_dim": None},
        layers="model.decoder.layers",
        norm="self_attn_layer_norm",
        out="self_attn.out_proj",
        mlp_norm="final_layer_norm",
        mlp="fc1",
        mlp_out="fc2",
        final="model.decoder.final_layer_norm",
    ),
    "olmo2": Row(
        {"num_key_value_heads": 1},
        norm="",
        q_norm="self_attn.q_norm",
        post="post_attention_layernorm",
        mlp_norm="",
        mlp_out="post_feedforward_layernorm",
    ),
    "olmo3": Row(
        {"num_key_value_heads": 1, "sliding_window": 4},
        {"layer_types": ("sliding_attention", "full_attention")},
        norm="",
        q_norm="self_attn.q_norm",
        post="post_attention_layernorm",
        mlp_norm="",
        mlp_out="post_feedforward_layernorm",
    ),
    "mixtral": Row(
        {
            "num_key_value_heads": 1,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 4,
            "head_dim": 10,
        }
    ),
    "olmoe": Row(
        {"num_experts": 6, "num_experts_per_tok": 3, "clip_qkv": 1.0, "norm_topk_prob": False},
        q_norm="self_attn.q_norm",
    ),
    "qwen3_moe": Row(
        {
            "num_key_value_heads": 1,
            "head_dim": 10,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "mlp_only_layers": [0],
        }
    ),
    "bloom": Row(
        layers="transformer.h",
        q="self_attention.query_key_value",
        stride=3,
        out="self_attention.dense",
        mlp_out="mlp.dense_4h_to_h",
        final="transformer.ln_f",
    ),
    "falcon": Row(
        {"alibi": True, "multi_query": True, "parallel_attn": False, "bias": True, "ffn_hidden_size": 40},
        layers="transformer.h",
        q="self_attention.query_key_value",
        out="self_attention.dense",
        final="transformer.ln_f",
    ),
    "olmo": Row({"num_key_value_heads": 1, "clip_qkv": 2.0}),
}

#: families without a file, which are read through a bridge of TransformerLens
BRIDGED_ROWS: dict[str, Row] = {
    "granite": Row(
        {
            "num_key_value_heads": 1,
            "attention_bias": True,
            "residual_multiplier": 0.5,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
            "logits_scaling": 2.0,
        },
        times=0.5,
    ),
    "cohere2": Row(
        {"num_key_value_heads": 1, "sliding_window": 4, "logit_scale": 0.5},
        {"layer_types": ("sliding_attention", "full_attention")},
        mlp_norm="input_layernorm",
    ),
    "exaone4": Row(
        {"num_key_value_heads": 1, "head_dim": 10, "sliding_window": 4},
        {"layer_types": ("sliding_attention", "full_attention")},
        norm="",
        post="post_attention_layernorm",
        mlp_norm="",
        mlp_out="post_feedforward_layernorm",
    ),
    "glm4": Row(
        {"num_key_value_heads": 1, "head_dim": 12, "attention_bias": True},
        post="post_self_attn_layernorm",
        mlp_out="post_mlp_layernorm",
    ),
    "stablelm": Row(
        {"num_key_value_heads": 3, "use_qkv_bias": True, "use_parallel_residual": True}, mlp_norm="input_layernorm"
    ),
    "qwen2_moe": Row(
        {
            "num_key_value_heads": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "shared_expert_intermediate_size": 20,
        }
    ),
    "smollm3": Row({"num_key_value_heads": 1, "no_rope_layer_interval": 2}),
    "nemotron": Row({"num_key_value_heads": 1, "head_dim": 12}),
    "mpt": Row(
        {"d_model": 24, "n_heads": 3, "n_layers": 3, "max_seq_len": 16, "attn_config": {"clip_qkv": 1.5}},
        layers="transformer.blocks",
        norm="norm_1",
        q="attn.Wqkv",
        out="attn.out_proj",
        mlp_norm="norm_2",
        mlp="ffn.up_proj",
        mlp_out="ffn.down_proj",
        final="transformer.norm_f",
    ),
    "gpt_bigcode": Row(
        {"multi_query": True, "n_inner": 40},
        layers="transformer.h",
        norm="ln_1",
        q="attn.c_attn",
        out="attn.c_proj",
        mlp_norm="ln_2",
        final="transformer.ln_f",
    ),
    "codegen": Row(
        {"num_attention_heads": 4, "rotary_dim": 4, "n_inner": 40},
        layers="transformer.h",
        norm="ln_1",
        q="attn.qkv_proj",
        stride=3,
        out="attn.out_proj",
        mlp_norm="ln_1",
        final="transformer.ln_f",
    ),
    "apertus": Row({"num_key_value_heads": 1}, norm="attention_layernorm", mlp_norm="feedforward_layernorm"),
    "arcee": Row({"num_key_value_heads": 1}),
    "cohere": Row({"num_key_value_heads": 1, "logit_scale": 0.5}, mlp_norm="input_layernorm"),
    "ernie4_5": Row({"num_key_value_heads": 1, "use_bias": True}),
    "ernie4_5_moe": Row({"num_key_value_heads": 1, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 20}),
    "flex_olmo": Row(
        {"num_key_value_heads": 1, "num_experts": 4, "num_experts_per_tok": 2},
        norm="",
        q_norm="self_attn.q_norm",
        post="post_attention_layernorm",
        mlp_norm="",
        mlp_out="post_feedforward_layernorm",
    ),
    "glm": Row({"num_key_value_heads": 1, "head_dim": 12, "attention_bias": True}),
    "glm4_moe": Row(
        {
            "num_key_value_heads": 1,
            "head_dim": 12,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "first_k_dense_replace": 1,
            "use_qk_norm": True,
        }
    ),
    "granitemoe": Row(
        {"num_key_value_heads": 1, "num_local_experts": 4, "num_experts_per_tok": 2, "residual_multiplier": 0.5},
        times=0.5,
        mlp="block_sparse_moe",
        mlp_out="block_sparse_moe",
    ),
    "granitemoehybrid": Row(
        {
            "num_key_value_heads": 1,
            "num_local_experts": 0,
            "shared_intermediate_size": 40,
            "position_embedding_type": "rope",
            "residual_multiplier": 0.5,
            "mamba_n_heads": 4,
            "mamba_d_head": 12,
        },
        {"layer_types": ("attention",)},
        times=0.5,
        mlp="shared_mlp",
        mlp_out="shared_mlp",
    ),
    "internlm3": Row({"num_key_value_heads": 1}),
    "iquestcoder": Row({"num_key_value_heads": 1}),
    "jais2": Row({"num_key_value_heads": 1}),
    "minimax_m2": Row(
        {"num_key_value_heads": 1, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 10},
        q_norm="self_attn.q_norm",
    ),
    "ministral3": Row({"num_key_value_heads": 1, "sliding_window": 4}),
    "nanochat": Row({"num_key_value_heads": 1}, final=""),
    "seed_oss": Row({"num_key_value_heads": 1, "head_dim": 10, "attention_bias": True}),
    "vaultgemma": Row(
        {"num_key_value_heads": 1, "head_dim": 10, "sliding_window": 4, "attn_logit_softcapping": 1.0},
        {"layer_types": ("sliding_attention", "full_attention")},
        mlp_norm="pre_feedforward_layernorm",
    ),
}
