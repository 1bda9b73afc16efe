"""Each family's reader, wrong in one place: the model is refused. What a family may say and is not known is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from circuitdsl import cli
from circuitdsl.errors import UserError
from circuitdsl.models.agreement import forward
from circuitdsl.models.errors import UnsupportedModel
from circuitdsl.models.families import BRIDGED, FAMILIES, REFUSED
from circuitdsl.models.load import load_model, vocabulary_size
from circuitdsl.models.outline import outline
from circuitdsl.models.parts import Attention, Linear
from circuitdsl.models.towers import TOWERS
from circuitdsl.models.weights import read_weights
from tests.models.test_load import KINDS, SMALL, edit_config, save

#: what is particular to a family, read otherwise
HEADS: dict[str, Callable[[Attention], Attention]] = {
    "gpt2": lambda attn: replace(attn, scale=1.0),
    "gpt_neox": lambda attn: replace(attn, k=attn.q),
    "llama": lambda attn: replace(attn, scale=1.0),
    "mistral": lambda attn: replace(attn, window=None),
    "qwen2": lambda attn: replace(attn, q=Linear(attn.q.weight)),
    "qwen3": lambda attn: replace(attn, q_norm=None),
    "gemma": lambda attn: replace(attn, scale=1.0),
    "gemma2": lambda attn: replace(attn, softcap=None),
    "gemma3_text": lambda attn: replace(attn, k_norm=attn.q_norm),
    "gpt_neo": lambda attn: replace(attn, scale=attn.d_head**-0.5),
    "gptj": lambda attn: replace(attn, q=as_stored(attn.q, attn.d_head)),
    "phi": lambda attn: replace(attn, k_norm=attn.q_norm),
    "phi3": lambda attn: replace(attn, window=None),
    "starcoder2": lambda attn: replace(attn, window=attn.window + 1),  # type: ignore[operator]
    "opt": lambda attn: replace(attn, q=Linear(attn.q.weight)),
    "olmo": lambda attn: replace(attn, clip=None),
    "olmo2": lambda attn: replace(attn, q_norm=replace(attn.q_norm, gain=attn.q_norm.gain.flip(0))),
    "olmo3": lambda attn: replace(attn, window=None),
    "mixtral": lambda attn: replace(attn, window=None),
    "olmoe": lambda attn: replace(attn, clip=None),
    "qwen3_moe": lambda attn: replace(attn, q_norm=attn.k_norm),
    "bloom": lambda attn: replace(attn, distances=replace(attn.distances, slopes=attn.distances.slopes[::-1])),
    "falcon": lambda attn: replace(attn, distances=replace(attn.distances, scale=2 * attn.distances.scale)),
}
MLPS: dict[str, Callable[[Any], Any]] = {
    "gpt2": lambda mlp: replace(mlp, act=F.relu),
    "llama": lambda mlp: replace(mlp, up=mlp.gate, gate=mlp.up),
    "gemma2": lambda mlp: replace(mlp, post=None),
    "mixtral": lambda mlp: replace(mlp, to_one=False),
    "olmoe": lambda mlp: replace(mlp, chosen=2),
    "olmo2": lambda mlp: replace(mlp, post=None),
    "phi3": lambda mlp: replace(mlp, up=mlp.gate, gate=mlp.up),
    "opt": lambda mlp: replace(mlp, act=F.gelu),
}
ABOUT: dict[str, dict[str, Any]] = {
    "gpt_neox": {"parallel": False},
    "gemma": {"embed_scale": 1.0},
    "gemma2": {"softcap": None},
    "bloom": {"embed_norm": None},
    "falcon": {"parallel": True},
    "gptj": {"parallel": False},
    "phi": {"b_U": None},
    "opt": {"W_pos": None},
}
EMPTY = torch.tensor(-1e4)
CASES = [
    (kind, field, change)
    for field, changes in (("heads", HEADS), ("mlp", MLPS), ("about", ABOUT))
    for kind, change in changes.items()
]


def as_stored(each: Linear, d_head: int) -> Linear:
    """Rows that were exchanged within a head, two of them back."""
    weight = each.weight.clone()
    weight[[1, 2]] = weight[[2, 1]]
    return Linear(weight)


def test_every_family_is_tested_and_a_reader_of_it_broken() -> None:
    assert set(KINDS) == set(FAMILIES) == set(HEADS)


def test_every_family_stands_in_the_table_and_in_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "--families"]) == 0
    listed = capsys.readouterr().out
    table = (Path(__file__).parents[2] / "docs" / "own-model.md").read_text()
    for kind in (*FAMILIES, *TOWERS, *BRIDGED):
        assert f"`{kind}`" in table and re.search(rf"^  {kind} ", listed.split("refused:")[0], re.MULTILINE)
    for kind, why in REFUSED.items():
        assert re.search(rf"^  {kind} +it {re.escape(why)}$", listed.split("refused:")[1], re.MULTILINE)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_family_that_is_known_to_be_out_of_reach_is_refused_before_anything_is_read(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    for read in (load_model, read_weights, outline):
        with pytest.raises(UnsupportedModel, match=rf"is a {kind} model, which {re.escape(REFUSED[kind])}$"):
            read(tmp_path)


@pytest.mark.parametrize(("kind", "field", "change"), CASES, ids=[f"{kind}-{field}" for kind, field, _ in CASES])
def test_a_reader_that_is_wrong_in_one_place_is_refused(
    kind: str, field: str, change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, true = save(kind, tmp_path), FAMILIES[kind]

    def wrong(*args: Any) -> Any:
        found = getattr(true, field)(*args)
        return found | change if field == "about" else (found[0], change(found[1]))

    load_model(path, device="cpu")
    monkeypatch.setitem(FAMILIES, kind, true._replace(**{field: wrong}))
    with pytest.raises(UnsupportedModel, match="is not the sum of the terms"):
        load_model(path, device="cpu")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("opt", {"do_layer_norm_before": False}, "which then is no sum of terms"),
        ("opt", {"word_embed_proj_dim": 8}, "maps its embeddings to another width"),
        ("olmo2", {"attention_bias": True}, "output bias inside its post-norm"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "is no sum of terms"),
        ("opt", {"_remove_final_layer_norm": True}, "has no norm before its logits"),
    ],
)
def test_what_a_family_may_say_and_is_not_known(
    kind: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        load_model(save(kind, tmp_path, **options), device="cpu")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("phi", {"qk_layernorm": False}, r"hold model\.layers\.0\.self_attn\.k_layernorm\.\w+, which its config"),
        ("falcon", {"bias": False}, r"hold transformer\.h\.0\.mlp\.dense_4h_to_h\.bias, which its config"),
        ("opt", {"ffn_dim": 20}, r"do not fit its config\.json"),
        ("mixtral", {"num_local_experts": 3}, r"do not fit its config|hold .*experts"),
        ("qwen3_moe", {"mlp_only_layers": []}, r"the weights in .* lack model\.layers\.0\.mlp\.experts"),
        ("gptj", {"rotary_dim": 3}, "transformers cannot run|is not made as|is not the sum"),
    ],
)
def test_weights_that_are_not_those_of_the_configuration(
    kind: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save(kind, tmp_path)
    edit_config(tmp_path, **change)
    with pytest.raises(UserError, match=message) as refused:
        load_model(tmp_path, device="cpu")
    assert "\n" not in refused.value.message


def save_gemma3(path: Path) -> dict[str, Tensor]:
    """A Gemma 3 that sees images, as Hugging Face saves it; its tensors."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    sees = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}
    seen = sees | {"image_size": 8, "patch_size": 4}
    texts = {**SMALL, **KINDS["gemma3_text"]}
    config = AutoConfig.for_model("gemma3", text_config=texts, vision_config=seen, mm_tokens_per_image=4)
    model = AutoModelForImageTextToText.from_config(config)
    for weight in model.parameters():
        weight.data.normal_(0, 0.3)
    model.save_pretrained(path)
    return load_file(path / "model.safetensors")


def test_the_text_model_of_a_gemma_that_sees_images_is_read_alone(tmp_path: Path) -> None:
    """Its logits are those of the whole on texts; the files may have either order of names."""
    from transformers import AutoModelForImageTextToText

    tensors = save_gemma3(tmp_path)
    assert any(name.startswith("vision_tower.encoder.layers.2") for name in tensors)
    whole, tokens = AutoModelForImageTextToText.from_pretrained(tmp_path).eval(), torch.arange(1, 13)[None]
    for names in (str, lambda name: re.sub(r"^language_model\.model\.", "model.language_model.", name)):
        save_file(
            {names(name): each for name, each in tensors.items()}, tmp_path / "model.safetensors", {"format": "pt"}
        )
        model, read = load_model(tmp_path, device="cpu"), read_weights(tmp_path)
        assert model.family == read.family == "gemma3_text" and model.n_layers == read.n_layers == 2
        with torch.inference_mode():
            assert (forward(model, tokens) - whole(tokens).logits).abs().max() < 1e-4
    assert vocabulary_size(tmp_path) == SMALL["vocab_size"]


def test_masks_that_old_files_hold_are_no_weights(tmp_path: Path) -> None:
    tensors = load_file(save("gpt2", tmp_path) / "model.safetensors")
    masks = {"transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16).tril(), "transformer.h.0.attn.masked_bias": EMPTY}
    save_file(tensors | masks, tmp_path / "model.safetensors", {"format": "pt"})
    load_model(tmp_path, device="cpu")
