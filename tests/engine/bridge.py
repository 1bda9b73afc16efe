"""TransformerLens' own view of a model, for a second opinion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def bridge_of(path: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """A `TransformerBridge` around the model in a directory, its weights as published.

    It gets a tokenizer that is of no use: it alters the one it is given.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager").to(device).eval()
    return TransformerBridge.boot_transformers(
        str(path), hf_model=model, device=device, dtype=dtype, tokenizer=tokenizer
    )
