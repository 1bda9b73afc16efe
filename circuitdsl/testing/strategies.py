"""Hypothesis strategies for users' own tests: prompts of a task, whole specs, small models.

    from hypothesis import given
    from circuitdsl.testing.strategies import prompt_pairs

    @given(prompt_pairs("ioi", tokenizer))
    def test_pairs_align(pair):
        assert len(pair.clean_tokens) == len(pair.corrupt_tokens)

Prompts shrink to the simplest their task can make: the first template, the first names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from circuitdsl.errors import UsageError
from circuitdsl.tasks.dataset import PromptPair, encode
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.task import Draft, Options, Task
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.testing.spec_trees import specs

if TYPE_CHECKING:
    from circuitdsl.models.parts import Transformer

__all__ = ["drafts", "prompt_pairs", "small_models", "specs"]


def drafts(
    task: Task, tokens: Tokens, corrupt: str | None = None, options: Options | None = None
) -> SearchStrategy[Draft]:
    """Every prompt pair that a task can make with a tokenizer's words, as text."""
    corruption, given = task.corruption(corrupt), task.settings(options or {})
    words = tokens.words(task)
    randoms = st.randoms(use_true_random=False, note_method_calls=False)
    return randoms.map(lambda rng: task.draw(rng, words, corruption, given))


def prompt_pairs(
    task: str, tokenizer: Any, corrupt: str | None = None, bos: bool | None = None, **options: str | int
) -> SearchStrategy[PromptPair]:
    """Every aligned prompt pair of a registered task, as token ids.

    Args:
        task: its name, such as `ioi`.
        tokenizer: a Hugging Face fast tokenizer.
        corrupt: a corruption of the task; its first by default.
        bos: whether prompts begin with the beginning-of-sequence token; by default as the tokenizer has it.
        options: the task's own options.

    Raises:
        UsageError: an unknown task, corruption or option.
        TaskError: the tokenizer leaves a word list too short.
    """
    if task not in TASKS:
        raise UsageError(f"there is no task {task}", hint=f"tasks: {', '.join(TASKS)}")
    chosen, tokens = TASKS[task], Tokens(tokenizer, bos=bos)
    return drafts(chosen, tokens, corrupt, options).map(lambda draft: encode(chosen, tokens, [draft])[0])


# --- small models ---------------------------------------------------------------------------------

HEAD_WIDTH = 8
FAMILIES = ("gpt2", "gpt_neox", "llama")


def small_models(
    layers: int = 3, heads: int = 4, vocabulary: int = 40, families: tuple[str, ...] = FAMILIES
) -> SearchStrategy[Transformer]:
    """Random models of up to so many layers and heads a layer, without a tokenizer, loaded as a user's are.

    Loading takes a tenth of a second or more: give tests that draw them `@settings(deadline=None, max_examples=…)`.
    """
    sizes = st.tuples(st.sampled_from(families), st.integers(1, layers), st.integers(1, heads), st.integers(0, 2**16))
    return sizes.map(lambda drawn: _random_model(*drawn, vocabulary))


def _random_model(family: str, layers: int, heads: int, seed: int, vocabulary: int) -> Transformer:
    """A model whose weights are large enough for attention and MLPs to be far from linear."""
    import tempfile

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from circuitdsl.models.load import load_model

    width = heads * HEAD_WIDTH
    sizes = (
        {"n_layer": layers, "n_head": heads, "n_embd": width, "n_positions": 64}
        if family == "gpt2"
        else {
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "max_position_embeddings": 64,
        }
    )
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=vocabulary, **special, **sizes))
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=drawn)
            weight.copy_(weight + 0.2 * noise if weight.ndim == 1 else 0.4 * noise)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        return load_model(directory, device="cpu")
