"""Models of images and texts whose text model is read alone: what images are made into is left where it lies."""

from __future__ import annotations

from typing import Any

#: by Hugging Face's `model_type` of the whole, that of its text model
TOWERS = {"gemma3": "gemma3_text"}
#: how names of the text model's tensors begin in the files of the whole, in the order in which libraries wrote them
_BEGIN = ("language_model.", "model.language_model.")


def text_config(config: Any) -> Any:
    """The configuration of the text model, where a model has more than that; its embeddings are tied where its are."""
    if config.model_type not in TOWERS:
        return config
    found = config.text_config
    found.tie_word_embeddings = config.tie_word_embeddings
    return found


def text_name(name: str) -> str | None:
    """The name of a tensor of the text model alone, given that in the whole; None for one of the rest.

    >>> text_name("language_model.model.norm.weight"), text_name("model.language_model.norm.weight")
    ('model.norm.weight', 'model.norm.weight')
    """
    if name.startswith("lm_head."):
        return name
    begin = next((each for each in _BEGIN if name.startswith(each)), None)
    if begin is None:
        return None
    own = name.removeprefix(begin)
    return own if own.startswith(("model.", "lm_head.")) else f"model.{own}"
