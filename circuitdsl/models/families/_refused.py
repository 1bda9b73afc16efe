"""Families that are refused, and why, to be read after "it is a … model, which"."""

from __future__ import annotations

_NO_HEADS = "has no attention, so that there are no heads to speak of"
_SOME_LAYERS = "has layers without attention patterns, whose parts are not known"
_ENCODER = "has an encoder; only decoder-only models can be verified"
_BOTH_WAYS = "attends to later tokens too; only decoder-only models can be verified"
_LATENT = "makes the keys and values of all heads of one narrow vector, which is not known"
_SEES = "reads images or sounds beside texts; of such models the text model of Gemma 3 alone is read"
_NO_TEXT = "reads images or sounds; only language models can be verified"
_CODE = "needs code that comes with its weights, which is never run"
_AGAIN = "runs its layers more than once, so that a layer has more than one term"
_GATED = "multiplies what each head writes by a gate that other inputs open, which is not known"

#: by Hugging Face's `model_type`; whatever stands neither here nor among the others of this package is not known at all
REFUSED: dict[str, str] = {
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv"), _NO_HEADS),
    **dict.fromkeys(("bamba", "falcon_h1", "jamba", "lfm2", "lfm2_moe", "nemotron_h", "olmo_hybrid"), _SOME_LAYERS),
    **dict.fromkeys(("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"), _SOME_LAYERS),
    **dict.fromkeys(("recurrent_gemma", "zamba2"), _SOME_LAYERS),
    **dict.fromkeys(("bart", "blenderbot", "led", "longt5", "m2m_100", "marian", "mbart", "mt5", "pegasus"), _ENCODER),
    **dict.fromkeys(("switch_transformers", "t5", "t5gemma", "t5gemma2"), _ENCODER),
    **dict.fromkeys(("bert", "roberta"), _BOTH_WAYS),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "glm_moe_dsa", "youtu"), _LATENT),
    **dict.fromkeys(("audioflamingo3", "emu3", "florence2", "gemma4", "gemma4_unified", "glm4v", "glmasr"), _SEES),
    **dict.fromkeys(("idefics3", "llama4", "llava", "llava_next", "llava_onevision", "mistral3"), _SEES),
    **dict.fromkeys(("muse_glimmer", "musicflamingo", "qwen2_5_vl", "qwen2_audio", "qwen3_vl", "qwen3_vl_moe"), _SEES),
    **dict.fromkeys(("shieldgemma2",), _SEES),
    **dict.fromkeys(("audio-spectrogram-transformer", "deit", "hubert", "vit", "wav2vec2"), _NO_TEXT),
    **dict.fromkeys(("Dream", "baichuan", "bd3lm", "exaone", "gidd", "hyenadna", "internlm2", "llada"), _CODE),
    **dict.fromkeys(("llada2_moe", "openelm", "qwen", "rwkv7"), _CODE),
    **dict.fromkeys(("hrm_text", "huginn_raven", "ouro"), _AGAIN),
    **dict.fromkeys(("afmoe", "laguna"), _GATED),
    "bitnet": "norms what all heads of a layer have read together, before it is written",
    **dict.fromkeys(("deepseek_v4", "gemma3n"), "carries several residual streams side by side"),
    "gemma4_text": "multiplies its whole residual stream in every layer, which then is no sum of terms",
    "gpt_oss": "adds a learned number to every head's softmax (a sink), which is not known",
    "hunyuan_v1_dense": "norms queries and keys after positions have turned them, which is not known",
    "jetmoe": "chooses its heads anew at every token, which is not known",
    "llama4_text": "norms queries and keys after positions have turned them, which is not known",
    "modernbert-decoder": "maps its residual stream once more before the logits, which is not known",
    "openai-gpt": "norms the whole residual stream behind its heads and MLPs, which then is no sum of terms",
    "xglm": "adds positions that no weights hold, which is not known",
}
