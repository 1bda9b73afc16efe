"""Tokenizers as `transformers` reads them: from a directory, without the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from circuitdsl.models.errors import ModelUnavailable, first_line


def read_tokenizer(directory: Path) -> Any:
    """The tokenizer in a directory, or `None` where there is none."""
    names = {file.name for file in directory.iterdir()}
    with quiet_and_offline():
        from transformers import AutoTokenizer, GPT2TokenizerFast, PreTrainedTokenizerFast

        try:
            if "tokenizer_config.json" in names:
                return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
            if "tokenizer.json" in names:
                return PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
            if {"vocab.json", "merges.txt"} <= names:
                return GPT2TokenizerFast.from_pretrained(str(directory), local_files_only=True)
            if "tokenizer.model" in names:
                return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ModelUnavailable(
                f"the tokenizer in {directory} cannot be read: {first_line(error)}",
                hint="put the model's own tokenizer.json there",
            ) from None
    return None


@contextmanager
def quiet_and_offline() -> Iterator[None]:
    """No request to the hub, no progress bars and no advice on standard error."""
    from huggingface_hub import constants
    from transformers.utils import logging

    offline, verbosity, bars = constants.HF_HUB_OFFLINE, logging.get_verbosity(), logging.is_progress_bar_enabled()
    constants.HF_HUB_OFFLINE = True
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
