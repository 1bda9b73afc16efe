"""Models are loaded from directories, seen as the sum of their terms, or refused with one sentence."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuitdsl.models import agreement, families, original
from circuitdsl.models.errors import BrokenWeights, ModelUnavailable, UnsupportedModel
from circuitdsl.models.experts import Experts
from circuitdsl.models.load import available_models, load_model, load_tokenizer
from circuitdsl.models.parts import Attention, Mlp, Transformer
from circuitdsl.models.weights import read_weights
from tests.families import ROWS

SHARED = Path(__file__).parents[3] / "shared" / "data"
SMALL = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_inner": 24},
    "gpt_neox": {"rotary_pct": 0.25},
    "llama": {"num_key_value_heads": 1, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    "mistral": {"num_key_value_heads": 1, "sliding_window": 8, "head_dim": 8},
    "qwen2": {"num_key_value_heads": 1},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 4},
    "gemma": {"num_key_value_heads": 1, "head_dim": 4},
    "gemma2": {"num_key_value_heads": 1, "head_dim": 4, "sliding_window": 4, "query_pre_attn_scalar": 6},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 4, "sliding_window": 4, "query_pre_attn_scalar": 6},
    **{kind: row.sized(2) for kind, row in ROWS.items()},
}


#: how many matrices of a layer are stored in another order than heads are read in
COPIED = {"gpt_neox": 3, "gptj": 2, "bloom": 3}


def save(kind: str, path: Path, **options: Any) -> Path:
    """A random model of a family, as Hugging Face saves it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **KINDS.get(kind, {}), **options})
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        weight.data.normal_(0, 0.3)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def gpt2_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("gpt2", tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def copy(gpt2_dir: Path, tmp_path: Path) -> Path:
    """A directory to spoil."""
    return Path(shutil.copytree(gpt2_dir, tmp_path / "model"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_is_the_sum_of_its_terms(kind: str, tmp_path: Path) -> None:
    path = save(kind, tmp_path)
    model = load_model(path, device="cpu")
    assert (model.family, model.n_layers, model.n_heads, model.tokenizer) == (kind, 2, 2, None)
    assert model.parallel == (kind == "gpt_neox" or (kind in ROWS and ROWS[kind].parallel))
    from transformers import AutoModelForCausalLM

    tokens = torch.arange(6)[None]
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(path)(tokens).logits
    with torch.inference_mode():
        assert torch.allclose(agreement.forward(model, tokens), theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", {"activation_function": "relu"}),
        ("gpt_neox", {"use_parallel_residual": False, "hidden_act": "gelu_fast"}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
        ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": 2.0, "tie_word_embeddings": True}),
        ("gemma2", {"attn_logit_softcapping": 0.5, "layer_types": ["full_attention", "full_attention"]}),
        ("gemma3_text", {"final_logit_softcapping": 2.0, "sliding_window_pattern": 2}),
        ("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    ],
)
def test_variants_of_families(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    load_model(save(kind, tmp_path, **options), device="cpu")  # refuses what it does not compute exactly


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("kind", "width"), [("gpt2", 16), ("gemma", 12), ("gemma2", 16), ("gemma3_text", 12)], ids=str)
def test_half_precision(kind: str, width: int, dtype: str, tmp_path: Path) -> None:
    """A root of the width is rounded where a Gemma's embeddings are multiplied by it."""
    path = save(kind, tmp_path, hidden_size=width)
    assert load_model(path, device="cpu", dtype=dtype).dtype == getattr(torch, dtype)


def test_a_trained_llama_and_its_tokenizer() -> None:
    path = SHARED / "stories260K"
    if not path.exists():
        pytest.skip(f"real data not at hand: {path}")
    model = load_model(path, device="cpu")
    tokens = torch.tensor([model.tokenizer("Once upon a time there was a little")["input_ids"]])
    with torch.inference_mode():
        best = int(agreement.forward(model, tokens)[0, -1].argmax())
    assert model.tokenizer.decode([best]).strip() in ("girl", "boy", "g", "b")


def test_a_tokenizer_alone() -> None:
    path = SHARED / "gpt2-tokenizer"
    if not path.exists():
        pytest.skip(f"real data not at hand: {path}")
    tokenizer = load_tokenizer(path)
    assert tokenizer.is_fast and len(tokenizer) == 50257
    assert tokenizer(" Mary gave")["input_ids"] == [5335, 2921]


def test_a_tokenizer_file_is_read_as_it_stands(copy: Path) -> None:
    """Without a configuration that says otherwise, splitting and ids are those of tokenizer.json."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({"<unk>": 0, "Mary": 1, ",": 2}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.save(str(copy / "tokenizer.json"))
    assert load_model(copy, device="cpu").tokenizer("Mary, ?")["input_ids"] == [1, 2, 0]


def test_the_digest_is_that_of_the_file(gpt2_dir: Path) -> None:
    digest = hashlib.sha256((gpt2_dir / "model.safetensors").read_bytes()).hexdigest()
    assert digest == load_model(gpt2_dir, device="cpu").sha256


def test_shards_are_read(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = save("gpt2", tmp_path / "whole")
    AutoModelForCausalLM.from_pretrained(path).save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    whole, shards = (load_model(tmp_path / name, device="cpu") for name in ("whole", "shards"))
    assert torch.equal(whole.W_E, shards.W_E) and whole.sha256 != shards.sha256


# --- what is refused --------------------------------------------------------------------------------


def edit_config(path: Path, **values: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="there is no model directory") as caught:
        load_model(tmp_path / "nothing")
    assert "--model" in str(caught.value.hint)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00")
    with pytest.raises(ModelUnavailable, match="is a file; a model is a directory"):
        load_model(tmp_path / "file")


def test_no_config(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"has no config\.json"):
        load_model(copy)


@pytest.mark.parametrize("text", ["{", "[]", "\x00\x01"])
def test_a_broken_config(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    with pytest.raises(ModelUnavailable, match=r"config\.json (cannot be read|is not a JSON object)"):
        load_model(copy)


def test_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"has no model\.safetensors"):
        load_model(copy)


def test_pickles_are_never_read(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelUnavailable, match=r"in pytorch_model\.bin, which can hold code"):
        load_model(copy)


def test_cut_off_weights(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        load_model(copy, device="cpu")


def test_missing_weights_are_not_made_up(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrokenWeights, match=r"lack transformer\.h\.1\.mlp\.c_fc\.weight"):
        load_model(copy, device="cpu")


def test_weights_of_another_size_are_named(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.bias"] = weights["transformer.h.1.mlp.c_fc.bias"][:7].clone()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrokenWeights, match=r"transformer\.h\.1\.mlp\.c_fc\.bias is 7, not \d+"):
        load_model(copy, device="cpu")


def test_what_transformers_says_of_a_configuration_is_not_cut_at_its_colon(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text()) | {"n_head": "two"}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match=r"'n_head': .*two"):
        load_model(copy, device="cpu")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(copy: Path, bad: float) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["transformer.h.0.ln_2.bias"][3] = bad
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrokenWeights, match=r"transformer\.h\.0\.ln_2\.bias .* NaN or infinity"):
        load_model(copy, device="cpu")


def test_code_that_comes_with_a_model_is_not_run(copy: Path) -> None:
    edit_config(copy, model_type="mine", auto_map={"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"})
    (copy / "mine.py").write_text(f"open({str(copy / 'ran')!r}, 'w')")
    with pytest.raises(UnsupportedModel, match="is a mine model, which is not known"):
        load_model(copy, device="cpu")
    assert not (copy / "ran").exists()


def test_an_unknown_family(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="is a biogpt model, which is not known") as refused:
        load_model(save("biogpt", tmp_path), "cpu")
    assert "models --families" in str(refused.value.hint)


def test_rotary_that_depends_on_length(tmp_path: Path) -> None:
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    with pytest.raises(UnsupportedModel, match="with the prompt's length"):
        load_model(save("llama", tmp_path, rope_parameters=scaled), device="cpu")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("gemma2", {"attention_bias": True}, "output bias inside its post-norm"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "attends to later tokens too"),
        ("gemma3_text", {"attn_logit_softcapping": 0.5}, "capped attention scores"),
        (
            "gemma3_text",
            {"rope_parameters": {"full_attention": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}},
            "with the prompt's length",
        ),
    ],
)
def test_what_a_gemma_could_have_and_is_not_known(
    kind: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        load_model(save(kind, tmp_path, **options), device="cpu")


def test_a_stream_that_is_not_the_sum_is_refused(gpt2_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = families.FAMILIES["gpt2"]
    monkeypatch.setitem(families.FAMILIES, "gpt2", true._replace(about=lambda *_: {"parallel": True}))
    with pytest.raises(UnsupportedModel, match="is not the sum of the terms"):
        load_model(gpt2_dir, device="cpu")


def test_a_broken_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match=r"the tokenizer in .* cannot be read") as refused:
        load_model(copy, device="cpu")
    assert "tokenizer.json" in str(refused.value.hint)


def test_no_tokenizer(gpt2_dir: Path) -> None:
    with pytest.raises(ModelUnavailable, match="has no tokenizer"):
        load_tokenizer(gpt2_dir)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"device": "tpu"}, "device tpu is not known"), ({"dtype": "int8"}, "dtype int8 is not known")],
)
def test_devices_and_dtypes(gpt2_dir: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ModelUnavailable, match=message):
        load_model(gpt2_dir, **options)  # type: ignore[arg-type]


def test_cuda_without_a_device(gpt2_dir: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ModelUnavailable, match="no CUDA device here"):
        load_model(gpt2_dir, device="cuda")


# --- the hub ----------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_name_whose_weights_are_not_at_hand(hub: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"the weights of gpt2 are not at hand: .* hub's cache") as caught:
        load_model("gpt2")
    assert str(hub) in caught.value.message and "--model" in str(caught.value.hint)


def test_a_name_in_the_cache(hub: Path, gpt2_dir: Path) -> None:
    cached = hub / "models--gpt2"
    shutil.copytree(gpt2_dir, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    assert load_model("gpt2", device="cpu").n_layers == 2


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    """The index names one of them, and nothing says that the other is meant for another purpose."""
    path = sharded(tmp_path)
    first, second, *_ = sorted(path.glob("*.safetensors"))
    held, name = load_file(second), min(load_file(first))
    save_file(held | {name: load_file(first)[name] + 1}, second, {"format": "pt"})
    with pytest.raises(BrokenWeights, match=f"the tensor {name} stands in {second.name}, and in another of the shards"):
        load_model(path, device="cpu")


@pytest.mark.parametrize("change", [0.0, 1.0])
def test_an_unembedding_that_the_configuration_denies_is_refused(change: float, tmp_path: Path) -> None:
    path = save("llama", tmp_path, tie_word_embeddings=True)
    held = load_file(path / "model.safetensors")
    table = held["model.embed_tokens.weight"]
    save_file(held | {"lm_head.weight": table + change}, path / "model.safetensors", {"format": "pt"})
    if not change:  # a copy of the same numbers says nothing else
        assert torch.equal(load_model(path, device="cpu").W_U, table)
        return
    with pytest.raises(BrokenWeights, match="ties the unembedding to the embedding, and the weights hold another") as e:
        load_model(path, device="cpu")
    assert "tie_word_embeddings as false" in str(e.value.hint)


def test_no_name_at_all() -> None:
    with pytest.raises(ModelUnavailable, match="is neither a directory nor a name on the Hugging Face hub"):
        load_model("not a/name?")


def test_what_is_available(tmp_path: Path, gpt2_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    cached = tmp_path / "models--me--small"
    shutil.copytree(gpt2_dir, cached / "snapshots" / "abc")
    true = huggingface_hub.scan_cache_dir
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: true(tmp_path))
    found = {model.name: model for model in available_models()}
    assert found["me/small"].where == "in the hub's cache"
    assert found["me/small"].size == (gpt2_dir / "model.safetensors").stat().st_size


def test_weights_of_more_layers_than_the_configuration_says_are_refused(tmp_path) -> None:
    import json
    import shutil

    from circuitdsl.models.errors import BrokenWeights
    from circuitdsl.models.load import POCKET, load_model

    for name in ("config.json", "model.safetensors"):
        shutil.copy(POCKET / name, tmp_path / name)
    config = json.loads((tmp_path / "config.json").read_text()) | {"n_layer": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BrokenWeights, match="gives the model 3 layers, and the weights have more"):
        load_model(tmp_path)


@pytest.mark.parametrize("layers", ["x", None, -1, 0])
def test_a_senseless_number_of_layers_is_refused(tmp_path, layers) -> None:
    import json
    import shutil

    from circuitdsl.errors import UserError
    from circuitdsl.models.load import POCKET, load_model

    for name in ("config.json", "model.safetensors"):
        shutil.copy(POCKET / name, tmp_path / name)
    config = json.loads((tmp_path / "config.json").read_text()) | {"n_layer": layers}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError):
        load_model(tmp_path)


def test_a_model_of_impossible_depth_is_refused_before_it_is_made(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    key = "n_layer" if "n_layer" in config else "num_hidden_layers"
    (copy / "config.json").write_text(json.dumps(config | {key: 400_000}))
    with pytest.raises(ModelUnavailable, match="= 400000; it is a number from 1 to 1000"):
        load_model(copy, device="cpu")


@pytest.mark.parametrize("files", [["a"], {"a": 5}, {"a": ""}, None, 7])
def test_an_index_that_names_no_files_is_refused(copy: Path, files: object) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    with pytest.raises(ModelUnavailable, match="does not say which file holds each tensor"):
        load_model(copy, device="cpu")


# --- weights that are not those of the report -------------------------------------------------------


def sharded(path: Path, **shards: str) -> Path:
    """A model in two shards, of which the index names some otherwise."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(save("gpt2", path / "whole")).save_pretrained(
        path / "model", max_shard_size="8KB"
    )
    index = path / "model" / "model.safetensors.index.json"
    given = json.loads(index.read_text())
    files = sorted(set(given["weight_map"].values()))
    assert len(files) > 1
    given["weight_map"] = {
        key: shards.get("first", name) if name == files[0] else name for key, name in given["weight_map"].items()
    }
    index.write_text(json.dumps(given))
    return path / "model"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("transformers_weights", "evil.safetensors"),
        ("transformers_weights", ""),
        ("configuration_files", ["config.4.0.0.json"]),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("fusion_config", {}),
    ],
)
def test_a_configuration_that_asks_for_other_weights(copy: Path, key: str, value: Any) -> None:
    shutil.copy(copy / "model.safetensors", copy / "evil.safetensors")
    edit_config(copy, **{key: value})
    for read in (load_model, read_weights):
        with pytest.raises(UnsupportedModel, match=rf"config\.json has {key}, by which .* other weights") as refused:
            read(copy)
        assert f"remove {key}" in str(refused.value.hint)


@pytest.mark.parametrize("name", ["adapter_config.json", "shard-00000-model-00000-of-00001.safetensors"])
def test_files_that_are_read_besides(copy: Path, name: str) -> None:
    (copy / name).write_text("{}")
    with pytest.raises(UnsupportedModel, match=rf"holds {name}, from which .* stand in no hash") as refused:
        load_model(copy)
    assert "save_pretrained" in str(refused.value.hint)


def test_shards_elsewhere(tmp_path: Path) -> None:
    """Beside each lies a decoy of the same name, which would be hashed."""
    for i, (folder, name) in enumerate(
        [("sub", "sub/{}"), ("..", "../{}"), ("sub", "{absolute}/sub/{}"), (".", "./{}")]
    ):
        model = sharded(tmp_path / str(i))
        first = sorted(model.glob("*.safetensors"))[0]
        (model / folder).mkdir(exist_ok=True)
        if folder != ".":
            shutil.copy(first, model / folder / first.name)
        index = model / "model.safetensors.index.json"
        index.write_text(
            index.read_text().replace(f'"{first.name}"', json.dumps(name.format(first.name, absolute=model)))
        )
        for read in (load_model, read_weights):
            with pytest.raises(ModelUnavailable, match="which is not a safetensors file in that directory itself"):
                read(model)


def test_shards_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"names 'pytorch_model\.bin', which is not a safetensors file"):
        load_model(sharded(tmp_path, first="pytorch_model.bin"))


def test_shards_that_are_links(tmp_path: Path) -> None:
    """To another directory they are refused; as the hub's cache lays them out they are read."""
    model = sharded(tmp_path)
    cached = tmp_path / "models--me--mine" / "snapshots" / "abc"
    blobs = tmp_path / "models--me--mine" / "blobs"
    blobs.mkdir(parents=True)
    shutil.copytree(model, cached)
    for i, file in enumerate(sorted(cached.iterdir())):
        file.rename(blobs / str(i))
        file.symlink_to(Path("../../blobs") / str(i))
    assert load_model(cached, device="cpu").sha256 == load_model(model, device="cpu").sha256
    first = sorted(model.glob("*.safetensors"))[0]
    shutil.move(first, tmp_path / "elsewhere.safetensors")
    first.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(ModelUnavailable, match=r"is a link to a file in .*, which is not the model's directory"):
        load_model(model)


def test_one_file_goes_before_an_index(tmp_path: Path) -> None:
    """As transformers has it; the hash is that of the file that is read."""
    model, other = sharded(tmp_path), save("gpt2", tmp_path / "other", n_inner=32)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(other / name, model / name)
    assert (
        load_model(model, device="cpu").sha256 == hashlib.sha256((other / "model.safetensors").read_bytes()).hexdigest()
    )


def test_the_hubs_cache_is_checked_too(hub: Path, copy: Path) -> None:
    (copy / "adapter_config.json").write_text("{}")
    shutil.copytree(copy, hub / "models--mine" / "snapshots" / "abc")
    (hub / "models--mine" / "refs").mkdir()
    (hub / "models--mine" / "refs" / "main").write_text("abc")
    with pytest.raises(UnsupportedModel, match=r"holds adapter_config\.json"):
        load_model("mine")


# --- the check at load ------------------------------------------------------------------------------


def spoilt(monkeypatch: pytest.MonkeyPatch, kind: str, change: Any) -> None:
    """A reader of a family that gets something wrong."""
    true = families.FAMILIES[kind]

    def wrong(*args: Any) -> tuple[Any, Any]:
        norm, attn = true.heads(*args)
        return norm, change(attn)

    monkeypatch.setitem(families.FAMILIES, kind, true._replace(heads=wrong))


@pytest.mark.parametrize("size", [13, 40, 100])
def test_windows_that_are_not_the_models_are_seen_at_load(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window beyond the first tokens, too, whether we alone have it or the model alone."""
    path = save("llama", tmp_path / "llama", max_position_embeddings=128)
    with monkeypatch.context() as patched, pytest.raises(UnsupportedModel, match=r"on tokens 1 to \d+ logits"):
        spoilt(patched, "llama", lambda attn: replace(attn, window=size))
        load_model(path, device="cpu")
    path = save("mistral", tmp_path / "mistral", max_position_embeddings=128, sliding_window=size)
    with monkeypatch.context() as patched, pytest.raises(UnsupportedModel, match=r"on tokens 1 to \d+ logits"):
        spoilt(patched, "mistral", lambda attn: replace(attn, window=None))
        load_model(path, device="cpu")


def test_a_window_longer_than_the_usual_prompt_is_seen_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save("mistral", tmp_path, max_position_embeddings=500, sliding_window=300)
    load_model(path, device="cpu")
    for other, length in ((301, 305), (None, 304)):
        with monkeypatch.context() as patched, pytest.raises(UnsupportedModel, match=f"on tokens 1 to {length}"):
            spoilt(patched, "mistral", lambda attn, other=other: replace(attn, window=other))
            load_model(path, device="cpu")


def test_the_last_learned_position_is_seen_at_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save("gpt2", tmp_path, max_position_embeddings=600)
    true = families.read_parts

    def wrong(*args: Any) -> Transformer:
        model = true(*args)
        assert model.W_pos is not None
        positions = model.W_pos.clone()
        positions[-1, 0] += 1
        return replace(model, W_pos=positions)

    monkeypatch.setattr(families, "read_parts", wrong)
    with pytest.raises(UnsupportedModel, match="on tokens 589 to 600"):
        load_model(path, device="cpu")


def test_rounding_that_a_model_amplifies_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model's own logits move as far when its input is rounded, a difference says nothing."""
    model = load_model(save("gpt2", tmp_path), device="cpu")
    tokens = torch.arange(12)[None]
    with torch.inference_mode():
        ours = agreement.forward(model, tokens)
    monkeypatch.setattr(original, "TOLERANCE", 1e-12)
    assert model.original is not None
    assert float(model.original.off(ours, tokens)) == 0
    assert float(model.original.off(ours * (1 + 1e-3), tokens)) > 5e-4
    assert bool(model.original.off(ours * float("nan"), tokens).isnan())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_scaled_model_is_not_refused_in_half_precision(kind: str, dtype: str, tmp_path: Path) -> None:
    """Where the model's own logits are rounded as much, a difference of 5 % says nothing."""
    path = save(kind, tmp_path)
    scaled = {name: 3 * weight for name, weight in load_file(path / "model.safetensors").items()}
    save_file(scaled, path / "model.safetensors", {"format": "pt"})
    model = load_model(path, device="cpu", dtype=dtype)
    assert {weight.dtype for weight in model.original.module.parameters()} == {getattr(torch, dtype)}  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("wrong", ["scale", "bias"])
def test_half_precision_hides_no_wrong_view(
    wrong: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is smaller than what half precision rounds away is seen in single precision."""
    path = save("gpt2", tmp_path)

    def change(attn: Attention) -> Attention:
        if wrong == "scale":
            return replace(attn, scale=1.02 * attn.scale)
        assert attn.o.bias is not None
        return replace(attn, o=replace(attn.o, bias=1.1 * attn.o.bias))

    spoilt(monkeypatch, "gpt2", change)
    monkeypatch.setattr(original, "ROUNDED", 1e9)  # what is rounded decides nothing
    with pytest.raises(UnsupportedModel, match="is not the sum of the terms"):
        load_model(path, device="cpu", dtype=dtype)


def test_what_only_half_precision_gets_wrong_is_refused(tmp_path: Path) -> None:
    model = load_model(save("gpt2", tmp_path), device="cpu", dtype="bfloat16")
    tokens = torch.arange(12)[None]
    exact = agreement.in_single_precision(model, tokens)
    with torch.inference_mode():
        ours = agreement.forward(model, tokens)
    assert model.original is not None and exact is not None
    assert float(model.original.off(ours, tokens, exact=exact)) == 0
    assert float(model.original.off(ours.roll(1, -1), tokens, exact=exact)) > 0.1
    assert bool(model.original.off(ours * float("nan"), tokens, exact=exact).isnan())


def test_a_model_that_half_precision_makes_useless_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "USEFUL", 1e-4)
    with pytest.raises(UnsupportedModel, match=r"in bfloat16 the logits of .* are off by") as error:
        load_model(save("gpt2", tmp_path), device="cpu", dtype="bfloat16")
    assert error.value.hint == "use --dtype float32"


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_and_our_view_share_their_weights(kind: str, tmp_path: Path) -> None:
    """Two models in memory would be one too many. Some store queries, keys and values in another order."""
    model = load_model(save(kind, tmp_path), device="cpu")
    assert model.original is not None
    theirs = {tensor.untyped_storage().data_ptr() for tensor in model.original.module.parameters()}
    ours = [model.W_E, model.W_U, *(w for block in model.blocks for w in weights_in(block.attn, block.mlp))]
    copied = [tensor for tensor in ours if tensor.untyped_storage().data_ptr() not in theirs]
    assert len(copied) == COPIED.get(kind, 0) * model.n_layers


def weights_in(attn: Attention, mlp: Mlp | Experts) -> list[torch.Tensor]:
    mlps = mlp.experts if isinstance(mlp, Experts) else (mlp,)
    maps = (attn.q, attn.k, attn.v, attn.o, *(each for some in mlps for each in (some.up, some.down, some.gate)))
    return [each.weight for each in maps if each is not None]
