"""Tokenizers as `transformers` reads them, without the network and without other files than the model's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from circuitdsl.errors import out_of_memory
from circuitdsl.models.errors import ModelUnavailable, first_line
from circuitdsl.models.files import TOKENIZER, ModelFiles


def read_tokenizer(files: ModelFiles) -> Any:
    """The tokenizer of a model, or `None` where there is none.

    Raises:
        ModelUnavailable: it cannot be read, or has no tokens.
    """
    if not set(TOKENIZER) & set(files.contents):
        return None
    with quiet_and_offline(), files.copied() as folder:
        try:
            found = _read(folder, set(files.contents))
            if found is None or len(found):
                return found
            said = "it has no tokens"
        except Exception as error:  # the tokenizers library raises bare Exception
            if out_of_memory(error):
                raise
            said = first_line(error).replace(str(folder), str(files.directory))
    raise ModelUnavailable(
        f"the tokenizer in {files.directory} cannot be read: {said}", hint="put the model's own tokenizer.json there"
    )


def _read(folder: Path, names: set[str]) -> Any:
    from transformers import AutoTokenizer, GPT2TokenizerFast, PreTrainedTokenizerFast

    if "tokenizer_config.json" not in names:
        if "tokenizer.json" in names:
            return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        if {"vocab.json", "merges.txt"} <= names:
            return GPT2TokenizerFast.from_pretrained(str(folder), local_files_only=True)
        if "tokenizer.model" not in names:
            return None
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


@dataclass(frozen=True)
class TokenizerNotes:
    """What is remembered of a tokenizer that transformers has set up.

    Attributes:
        text: the tokenizer as the library `tokenizers` writes it; empty where it is `tokenizer.json` as it stands.
    """

    text: str
    bos_token: str | None
    bos_token_id: int | None
    unk_token_id: int | None
    all_special_ids: list[int]


def notes_of(tokenizer: Any, files: ModelFiles) -> TokenizerNotes | None:
    """What to remember of a tokenizer; None of one for which the library `tokenizers` does not do all of the work."""
    from tokenizers import Tokenizer

    if isinstance(tokenizer, KnownTokenizer):
        return tokenizer.notes
    beyond = ("clean_up_tokenization_spaces", "split_special_tokens")  # what transformers does besides
    if not getattr(tokenizer, "is_fast", False) or any(getattr(tokenizer, name, False) for name in beyond):
        return None
    text, own = tokenizer.backend_tokenizer.to_str(), files.contents.get("tokenizer.json")
    if own and Tokenizer.from_buffer(own).to_str() == text:
        text = ""
    special = [int(each) for each in tokenizer.all_special_ids]
    return TokenizerNotes(text, tokenizer.bos_token, tokenizer.bos_token_id, tokenizer.unk_token_id, special)


class KnownTokenizer:
    """A Hugging Face fast tokenizer without transformers, as far as tasks ask; for the rest that one is loaded.

    Args:
        files: whose tokenizer it is.
    """

    is_fast = True

    def __init__(self, notes: TokenizerNotes, files: ModelFiles) -> None:
        self.notes, self._files = notes, files
        self.bos_token, self.bos_token_id, self.unk_token_id = notes.bos_token, notes.bos_token_id, notes.unk_token_id
        self.all_special_ids = notes.all_special_ids

    @cached_property
    def backend_tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        known = self.notes.text
        made = Tokenizer.from_str(known) if known else Tokenizer.from_buffer(self._files.contents["tokenizer.json"])
        made.no_truncation()
        made.no_padding()
        return made

    def __call__(
        self,
        text: str | Sequence[str],
        add_special_tokens: bool = True,
        return_offsets_mapping: bool = False,
        return_attention_mask: bool = False,
    ) -> dict[str, Any]:
        """The token ids of texts, and with `return_offsets_mapping` the span of characters of each."""
        if isinstance(text, str):
            given = self([text], add_special_tokens, return_offsets_mapping, return_attention_mask)
            return {name: rows[0] for name, rows in given.items()}
        rows = self.backend_tokenizer.encode_batch(list(text), add_special_tokens=add_special_tokens)
        found = {"input_ids": [row.ids for row in rows]}
        if return_offsets_mapping:
            found["offset_mapping"] = [row.offsets for row in rows]
        if return_attention_mask:
            found["attention_mask"] = [row.attention_mask for row in rows]
        return found

    def num_special_tokens_to_add(self) -> int:
        """How many tokens `add_special_tokens` adds to a text."""
        return int(self.backend_tokenizer.num_special_tokens_to_add(False))

    def convert_ids_to_tokens(self, token: int) -> str | None:
        """A token as the vocabulary has it; None of an id that it does not have."""
        found: str | None = self.backend_tokenizer.id_to_token(token)
        return found

    def decode(
        self, ids: Sequence[int] | int, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """The text of token ids."""
        if clean_up_tokenization_spaces:
            return str(self._loaded.decode(ids, skip_special_tokens, clean_up_tokenization_spaces=True))
        return str(self.backend_tokenizer.decode([ids] if isinstance(ids, int) else list(ids), skip_special_tokens))

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size())

    @cached_property
    def _loaded(self) -> Any:
        return read_tokenizer(self._files)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loaded, name)


@contextmanager
def quiet_and_offline() -> Iterator[None]:
    """No request to the hub, no progress bars, no advice and no warnings on standard error."""
    from huggingface_hub import constants
    from transformers.utils import logging

    offline, verbosity, bars = constants.HF_HUB_OFFLINE, logging.get_verbosity(), logging.is_progress_bar_enabled()
    constants.HF_HUB_OFFLINE = True
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
