"""Families that are read through a bridge of TransformerLens, and bridges that a program has loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import circuitdsl
from circuitdsl import cli
from circuitdsl.circuit.changes import Intervention
from circuitdsl.errors import UsageError
from circuitdsl.models import readings
from circuitdsl.models.agreement import forward
from circuitdsl.models.bridge import read_through_bridge, view_of
from circuitdsl.models.edit import NotWeights, save_edited
from circuitdsl.models.errors import UnsupportedModel
from circuitdsl.models.experts import Whole
from circuitdsl.models.families import BRIDGED, FAMILIES, REFUSED
from circuitdsl.models.load import POCKET, load_model
from circuitdsl.models.outline import has_outline, outline
from circuitdsl.models.parts import Mlp, Transformer
from circuitdsl.models.towers import TOWERS
from circuitdsl.models.weights import read_weights
from tests.drawing import examples
from tests.engine.bridge import bridge_of
from tests.engine.small_models import save_random
from tests.families import BRIDGED_ROWS

FEW = ("granite", "glm4", "qwen2_moe", "mpt")
#: a place in a reading: the reader's method, and what is wrong in what it gives
WRONG: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "scale": ("granite", "attention", lambda attn: replace(attn, scale=attn.d_head**-0.5)),
    "turned": ("glm4", "attention", lambda attn: replace(attn, rotary=None)),
    "window": ("cohere2", "attention", lambda attn: replace(attn, window=None)),
    "distances": ("mpt", "attention", lambda attn: replace(attn, distances=None)),
    "head norm": ("exaone4", "attention", lambda attn: replace(attn, q_norm=None)),
    "gate": ("stablelm", "mlp", lambda mlp: replace(mlp, up=mlp.gate, gate=mlp.up)),
    "experts": ("qwen2_moe", "mlp", lambda mlp: replace(mlp, tensors=tuple(each.flip(0) for each in mlp.tensors))),
    "norm": ("granite", "norm", lambda norm: replace(norm, kind="layer")),
    "times": ("granite", "block", lambda read: (replace(read[0], mlp=replace(read[0].mlp, post=None)), read[1])),
    "beside": ("stablelm", "block", lambda read: (read[0], False)),
    "embedding": ("granite", "embedded", lambda view: replace(view, embed_scale=1.0)),
    "logits": ("cohere2", "embedded", lambda view: replace(view, b_U=view.W_U.sum(1))),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`saved(family)`: a random model, saved once."""
    known: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in known:
            known[kind] = save_random(kind, tmp_path_factory.mktemp(kind))
        return known[kind]

    return get


@pytest.fixture(scope="module")
def pocket_bridge() -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(str(POCKET), device="cpu")


def test_every_architecture_of_transformer_lens_is_known_or_refused() -> None:
    """By the types of models that transformers makes of it: those of other code are named one by one."""
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
    from transformers.models.auto import modeling_auto

    types: dict[str, set[str]] = {}
    for name, mapping in inspect.getmembers(modeling_auto):
        if name.endswith("_MAPPING_NAMES"):
            for kind, made in mapping.items():
                for each in (made,) if isinstance(made, str) else made:
                    types.setdefault(each, set()).add(kind)
    listed = [*FAMILIES, *BRIDGED, *TOWERS, *REFUSED]
    assert len(listed) == len(set(listed)) and set(BRIDGED) == set(BRIDGED_ROWS)
    same = {"gpt-sw3"}  # a name for others' tokenizers: its models are gpt2
    missing = {kind for name in SUPPORTED_ARCHITECTURES for kind in types.get(name, ())} - set(listed) - same
    assert not missing
    through = {kind for name in SUPPORTED_ARCHITECTURES for kind in types.get(name, ())}
    assert set(BRIDGED) <= through


@pytest.mark.parametrize("kind", examples(FEW, tuple(BRIDGED)))
def test_a_bridged_family_is_the_sum_of_its_terms(kind: str, saved: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    model, row = load_model(saved(kind), device="cpu"), BRIDGED_ROWS[kind]
    assert (model.family, model.n_layers, model.parallel) == (kind, 3, row.parallel)
    assert all(isinstance(block.mlp, Mlp | Whole) for block in model.blocks)
    assert model.d_mlp == 0 if kind in ("qwen2_moe", "apertus") else kind not in FEW or model.d_mlp > 0
    tokens = torch.arange(12).view(2, 6)
    with torch.inference_mode():
        theirs = AutoModelForCausalLM.from_pretrained(saved(kind), attn_implementation="eager")(tokens).logits
        assert (forward(model, tokens) - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("dtype", examples(("bfloat16",), ("bfloat16", "float16")))
@pytest.mark.parametrize("kind", ["granite", "nemotron", "vaultgemma", "apertus"])
def test_bridged_families_in_half_precision(kind: str, dtype: str, saved: Callable[[str], Path]) -> None:
    assert load_model(saved(kind), "cpu", dtype).dtype == getattr(torch, dtype)


@pytest.mark.parametrize("place", WRONG)
def test_a_reading_that_is_wrong_in_one_place_is_refused(
    place: str, saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, method, change = WRONG[place]
    true = getattr(readings._Reader, method)
    load_model(saved(kind), device="cpu")
    monkeypatch.setattr(readings._Reader, method, lambda self, *args: change(true(self, *args)))
    with pytest.raises(UnsupportedModel, match=r"is not the sum of the terms|computes what is not known"):
        load_model(saved(kind), device="cpu")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "cohere2",
            {
                "layer_types": ["full_attention"] * 3,
                "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
            },
            "length",
        ),
        ("stablelm", {"qk_layernorm": True}, r"a norm in the heads of layer 0 of .* computes what is not known"),
        ("granitemoehybrid", {"layer_types": ["mamba", "attention", "attention"]}, "layer 0 of .* lacks heads or an"),
        ("granitemoehybrid", {"num_local_experts": 4, "num_experts_per_tok": 2}, "layer 0 of .* lacks heads or an MLP"),
    ],
)
def test_what_a_bridged_family_may_say_and_is_not_known(
    kind: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModel, match=message) as refused:
        load_model(save_random(kind, tmp_path, **options), device="cpu")
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gpt_oss", {"num_local_experts": 4, "head_dim": 8}),
        ("hunyuan_v1_dense", {"head_dim": 8}),
        ("llama4_text", {"head_dim": 8}),
        ("afmoe", {"head_dim": 8}),
        ("bitnet", {}),
    ],
)
def test_families_that_are_refused_by_name_would_be_refused_by_their_numbers(
    kind: str, options: dict[str, Any]
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    config = AutoConfig.for_model(kind, vocab_size=20, intermediate_size=40, **special, **sizes, **options)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for weight in model.parameters():
        weight.data.normal_(0, 0.3)
    assert kind in REFUSED
    with pytest.raises(UnsupportedModel, match=r"of random .* computes what is not known|TransformerLens cannot"):
        read_through_bridge("random", model)


def test_weights_and_outline_of_a_bridged_family(saved: Callable[[str], Path]) -> None:
    model, weights = load_model(saved("granite")), read_weights(saved("granite"))
    assert weights.family == "granite" and weights.rotary
    assert torch.equal(weights.factors(1).W_O, circuitdsl.models.weights.weights_of(model).factors(1).W_O)
    assert not has_outline(saved("granite")) and has_outline("pocket")
    with pytest.raises(UnsupportedModel, match="is read through a bridge, for which it must be loaded"):
        outline(saved("granite"))


def test_no_weights_are_edited_by_name(saved: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(NotWeights, match="which tensors of a granite model its heads and MLPs write with"):
        save_edited(saved("granite"), read_weights(saved("granite")), Intervention("none", "", ()), tmp_path / "out")


# --- a bridge that a program has loaded


def test_a_bridge_is_a_model(pocket_bridge: Any, pocket: Transformer) -> None:
    """Numbers are those of the model in its directory, whatever token TransformerLens puts before texts."""
    given = {"prompts": 32, "claim": "38,39,42", "cache": False}
    found, wanted = (circuitdsl.load("pocket/ioi").verify(model, **given) for model in (pocket_bridge, pocket))
    assert [claim.measured.value for claim in found.claims] == pytest.approx(
        [claim.measured.value for claim in wanted.claims], abs=1e-5
    )
    with circuitdsl.Session(pocket_bridge, cache=False) as session:
        assert session.own is not None and session.own.W_E.data_ptr() == pocket_bridge.W_E.data_ptr()
        assert session.plan("pocket/ioi")[0].model["n_layers"] == 4
        found, wanted = session.prompts("ioi", n=1), circuitdsl.prompts("ioi", n=1)
        assert str(found).replace(str(POCKET), "pocket").split() == str(wanted).split()


@pytest.mark.parametrize("kind", ["granite", "gpt_bigcode", "qwen2_moe", "codegen"])
def test_a_bridge_of_a_bridged_family(kind: str, saved: Callable[[str], Path]) -> None:
    tokens, bridge = torch.arange(12).view(2, 6), bridge_of(saved(kind))
    model, loaded = circuitdsl.load_model(bridge), load_model(saved(kind), device="cpu")
    with torch.inference_mode():
        assert (forward(model, tokens) - forward(loaded, tokens)).abs().max() < 1e-4
        assert (forward(model, tokens) - bridge(tokens)).abs().max() < 1e-4


def test_a_bridge_in_half_precision(saved: Callable[[str], Path]) -> None:
    for kind in ("granite", "gpt2"):
        assert circuitdsl.load_model(bridge_of(saved(kind), dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_bridge_elsewhere(pocket_bridge: Any) -> None:
    for given, message in (
        ({"device": "cuda"}, "is on cpu, not cuda"),
        ({"dtype": "bfloat16"}, "is in float32, not bfloat16"),
    ):
        with pytest.raises(UnsupportedModel, match=message) as refused, circuitdsl.Session(pocket_bridge, **given):
            pass
        assert refused.value.hint == "a bridge stays as it is"
    assert view_of(pocket_bridge, "cpu").device.type == "cpu"


def test_a_bridge_on_two_devices(saved: Callable[[str], Path]) -> None:
    bridge = bridge_of(saved("granite"))
    bridge.original_model.lm_head.to("meta")
    with pytest.raises(UnsupportedModel, match="lies on cpu and meta; load it on one device"):
        circuitdsl.load_model(bridge)


def test_a_bridge_that_computes_something_else(saved: Callable[[str], Path]) -> None:
    bridge = bridge_of(saved("granite"))
    bridge.add_hook("blocks.1.attn.hook_out", lambda x, hook: x * 2)
    with pytest.raises(UnsupportedModel, match="computes something else than transformers does") as refused:
        circuitdsl.load_model(bridge)
    assert "without hooks" in str(refused.value.hint)
    bridge.reset_hooks()
    circuitdsl.load_model(bridge)
    processed = bridge_of(saved("gpt2"))
    processed.enable_compatibility_mode()
    with pytest.raises(UnsupportedModel, match=r"computes something else|is not the sum of the terms"):
        circuitdsl.load_model(processed)


def test_a_bridge_of_a_family_that_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("mamba", hidden_size=16, num_hidden_layers=2, vocab_size=20, state_size=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="is a mamba model, which has no attention"):
        circuitdsl.load_model(bridge_of(tmp_path))


def test_something_else_is_no_model() -> None:
    with pytest.raises(UsageError, match="a Linear is no model"):
        circuitdsl.Session(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_the_list_of_families_needs_neither_transformers_nor_transformer_lens() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from circuitdsl import cli; cli.run(['models', '--families']); "
        "assert not {'transformers', 'transformer_lens'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_list_says_how_a_family_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "--families"]) == 0
    known, rest = capsys.readouterr().out.split("known through a bridge of TransformerLens:")
    through, refused = rest.split("refused:")
    assert "  gpt2 " in known and "  granite " in through and "  mamba " in refused
