"""Families that are refused, and why, to be read after "it is a … model, which"."""

from __future__ import annotations

_NO_HEADS = "has no attention, so that there are no heads to speak of"
_SOME_LAYERS = "has layers without attention patterns, whose parts are not known"
_ENCODER = "has an encoder; only decoder-only models can be verified"
_LATENT = "makes the keys and values of all heads of one narrow vector, which is not known"

#: by Hugging Face's `model_type`; whatever stands neither here nor in a file of this package is not known at all
REFUSED: dict[str, str] = {
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv"), _NO_HEADS),
    **dict.fromkeys(("bamba", "falcon_h1", "jamba", "lfm2", "nemotron_h", "olmo_hybrid", "zamba2"), _SOME_LAYERS),
    **dict.fromkeys(("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "recurrent_gemma"), _SOME_LAYERS),
    **dict.fromkeys(("bart", "t5", "t5gemma", "mt5"), _ENCODER),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), _LATENT),
    "gemma3n": "carries several residual streams side by side",
    "gpt_oss": "adds a learned number to every head's softmax (a sink), which is not known",
}
