"""The pocket model's tokenizer: one token a word, with GPT-2's convention that a word carries the blank before it."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from circuitdsl.models.pocket.mixture import END_OF_TEXT, TOKEN_PATTERN, UNKNOWN


def byte_level(piece: str) -> str:
    """A token as GPT-2's byte-level alphabet writes it."""
    return piece.replace(" ", "Ġ").replace("\n", "Ċ")


def build(vocabulary: list[str]) -> Tokenizer:
    """A word-level tokenizer of these tokens (ids: end of text, unknown, then the tokens in order)."""
    ids = {token: i for i, token in enumerate([END_OF_TEXT, UNKNOWN, *map(byte_level, vocabulary)])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(TOKEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT, UNKNOWN])
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as Hugging Face reads them."""
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": UNKNOWN,
        "model_max_length": 96,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
