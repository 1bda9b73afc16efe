"""Whatever stands in a configuration, a model is loaded and computes what transformers computes, or it is refused.

Every flag of every family is set both ways and every optional number is left out, one at a time and some together;
and what other families have is written into the configuration of one that may not know it.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from circuitdsl.engine.runs import ends
from circuitdsl.errors import UserError
from circuitdsl.models.load import load_model
from circuitdsl.models.original import TOLERANCE
from circuitdsl.models.pretrained import attention_by
from circuitdsl.models.weights import read_weights
from tests.drawing import examples
from tests.families import BRIDGED_ROWS
from tests.models.test_load import KINDS, SMALL

#: lengths of the prompts that are compared: within and beyond every window below
LENGTHS = (1, 3, 9, 24)
WIDE = SMALL | {"max_position_embeddings": 24, "vocab_size": 23}
#: what some families read, and others must not; each family gets one of the values
FOREIGN: dict[str, list[Any]] = {
    "sliding_window": [4],
    "layer_types": [["sliding_attention", "full_attention"], ["full_attention"]],
    "use_sliding_window": [True],
    "max_window_layers": [0],
    "attn_logit_softcapping": [0.5],
    "final_logit_softcapping": [0.5, 0.0],
    "query_pre_attn_scalar": [3, 0],
    "attention_bias": [True, False],
    "head_dim": [6, None],
    "num_key_value_heads": [None, 1],
    "use_parallel_residual": [False],
    "scale_attn_weights": [False],
    "scale_attn_by_inverse_layer_idx": [True],
    "tie_word_embeddings": [True, False],
    "rotary_pct": [0.5],
    "rope_scaling": [{"type": "dynamic", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0}],
    "rope_parameters": [{"full_attention": {"rope_type": "dynamic"}}, {"rope_type": "llama3", "rope_theta": 1e4}, None],
    "partial_rotary_factor": [0.5],
    "use_bidirectional_attention": [True],
    "is_causal": [False],
    "hidden_act": ["relu", "gelu", "xielu", "nothing"],
    "rms_norm_eps": [0.1],
    "max_position_embeddings": [4, 0],
    "per_layer_config": [{"0": {"sliding_window": 4}}, {"1": {"skip": ["self_attn"]}}, {"0": {"intermediate_size": 8}}],
    "attn_implementation": ["nothing"],
}
#: what a family's own options may be besides true, false and nothing
SCALED = {"rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 6}
UNUSUAL: dict[str, list[Any]] = {
    "head_dim": [6, 12],
    "sliding_window": [3],
    "window_size": [3],
    "attn_logit_softcapping": [0.7],
    "final_logit_softcapping": [1.5],
    "clip_qkv": [0.5],
    "rotary_dim": [2],
    "rotary_pct": [0.5],
    "partial_rotary_factor": [0.5],
    "rope_parameters": [
        {"rope_type": "linear", **SCALED},
        {"rope_type": "yarn", **SCALED},
        {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **SCALED},
    ],
    "tie_word_embeddings": [True, False],
}

BRIDGED = {kind: {"hidden_size": 24, "num_attention_heads": 3, **row.sized(2)} for kind, row in BRIDGED_ROWS.items()}


def save(kind: str, path: Path, options: dict[str, Any]) -> bool:
    """A random model in a directory; False where transformers makes no such model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.for_model(
            kind, **deepcopy({**WIDE, **{**KINDS, **BRIDGED}[kind], **options})
        )  # it keeps what it is given
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    except Exception:
        return False
    for weight in model.parameters():
        weight.data.normal_(0, 0.3)
    model.save_pretrained(path)
    return True


def judge(path: Path) -> str:
    """`loaded` where a model computes what transformers computes, else the sentence by which it was refused."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with suppress(UserError):
        read_weights(path)
    try:
        model = load_model(path, device="cpu")
    except UserError as refused:
        assert "\n" not in refused.message
        return refused.message
    by = attention_by(AutoConfig.from_pretrained(path))
    theirs = AutoModelForCausalLM.from_pretrained(path, attn_implementation=by, return_dict=True).eval()
    generator = torch.Generator().manual_seed(1)
    for length in LENGTHS:
        if length <= model.n_ctx:
            tokens = torch.randint(model.n_vocab, (2, length), generator=generator)
            with torch.inference_mode():
                wanted = theirs(tokens, use_cache=False).logits[:, -1]
                found = model.logits(ends(model, tokens))
            assert (found - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    return "loaded"


def own(kind: str) -> dict[str, list[Any]]:
    """Every flag of a family's configuration both ways, None for numbers that can be left out, and what is unusual.

    Flags that all families have are looked at with one of them.
    """
    from transformers import AutoConfig, PreTrainedConfig

    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    found: dict[str, list[Any]] = {}
    for field in dataclasses.fields(AutoConfig.for_model(kind)):
        kinds = set(re.findall(r"\w+", str(field.type)))
        values: list[Any] = [True, False] if "bool" in kinds else []
        if "None" in kinds and kinds & {"int", "float", "bool"}:
            values.append(None)
        if field.name in UNUSUAL:
            found[field.name] = [*values, *UNUSUAL[field.name]]
        elif values and (kind == "llama" or field.name not in common):
            found[field.name] = values
    if "rope_parameters" in found:  # most of these families read it, whether or not it is an option of theirs
        found["head_dim"] = UNUSUAL["head_dim"]
    return found


@pytest.mark.parametrize("kind", examples([*KINDS][::3], [*KINDS]))
def test_a_familys_own_flags(kind: str, tmp_path: Path) -> None:
    flags, drawn = own(kind), random.Random(0)
    options = [{name: value} for name, values in flags.items() for value in values]
    share = examples(3, 1)  # by default every third flag, from another one on in each family
    options = options[list(KINDS).index(kind) % share :: share]
    options += [{name: drawn.choice(values) for name, values in flags.items()} for _ in range(4)]
    places = [tmp_path / str(i) for i, each in enumerate(options) if save(kind, tmp_path / str(i), each)]
    assert [judge(place) for place in places].count("loaded") > examples(1, len(flags))


@pytest.mark.long
@pytest.mark.parametrize("kind", sorted(BRIDGED.keys() - {"mpt"}))  # that calls the longest prompt otherwise
def test_a_bridged_familys_own_flags(kind: str, tmp_path: Path) -> None:
    flags = own(kind)
    options = [{name: value} for name, values in flags.items() for value in values]
    places = [tmp_path / str(i) for i, each in enumerate(options) if save(kind, tmp_path / str(i), each)]
    assert [judge(place) for place in places].count("loaded") > len(options) / 2


@pytest.mark.parametrize("kind", examples([*KINDS][1::3], [*KINDS]))
def test_what_other_families_have(kind: str, tmp_path: Path) -> None:
    assert save(kind, tmp_path, {})
    config = json.loads((tmp_path / "config.json").read_text())
    verdicts = []
    place = list(KINDS).index(kind)
    share = examples(3, 1)  # by default every third name: the families together are given all of them
    for name, values in list(FOREIGN.items())[place % share :: share]:
        value = values[place % len(values)]
        (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
        verdicts.append(judge(tmp_path))
    assert verdicts.count("loaded") >= 10 // share


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama", "gemma"])
@pytest.mark.parametrize(
    "options",
    [
        {"sliding_window": 3},
        {"sliding_window": 3, "use_sliding_window": True, "max_window_layers": 0},
        {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]},
    ],
)
def test_families_without_windows_have_none(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    assert save(kind, tmp_path, {})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | options))
    assert judge(tmp_path) == "loaded"
    assert {block.attn.window for block in load_model(tmp_path, "cpu").blocks} == {None}


@pytest.mark.parametrize(
    ("kind", "options", "windows"),
    [
        ("mistral", {"sliding_window": 3}, [3, 3]),
        ("mistral", {"sliding_window": None}, [None, None]),
        ("qwen2", {"sliding_window": 3, "use_sliding_window": True, "max_window_layers": 1}, [None, 3]),
        ("qwen3", {"sliding_window": 3, "max_window_layers": 0}, [None, None]),
        ("gemma2", {"sliding_window": 3}, [3, None]),
        ("gemma3_text", {"sliding_window": 3, "sliding_window_pattern": 2}, [3, None]),
    ],
)
def test_families_with_windows_have_theirs(
    kind: str, options: dict[str, Any], windows: list[int | None], tmp_path: Path
) -> None:
    assert save(kind, tmp_path, options)
    assert judge(tmp_path) == "loaded"
    assert [block.attn.window for block in load_model(tmp_path, "cpu").blocks] == windows


def test_gpt_neox_without_biases(tmp_path: Path) -> None:
    assert save("gpt_neox", tmp_path, {"attention_bias": False})
    assert judge(tmp_path) == "loaded"
    assert load_model(tmp_path, "cpu").blocks[0].attn.q.bias is None
