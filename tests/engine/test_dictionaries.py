"""What dictionaries explain of a model: ones that are known by construction, on models with random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from circuitdsl.circuit.nodes import Position
from circuitdsl.dictionaries import read_dictionaries, read_dictionary
from circuitdsl.dictionaries.coder import Coder
from circuitdsl.dictionaries.record import Dictionary, DictionaryError, Hook
from circuitdsl.engine.dictionaries import Seen, best_reading, firing, seen_on
from circuitdsl.engine.hooks import Reading, at_hook, kept_at
from circuitdsl.engine.runs import one_run
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import PromptPair

#: hooks at which something is written
WRITTEN = ("resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out", "z")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def written(folder: Path, tensors: dict[str, Tensor], **config: object) -> Dictionary:
    """A dictionary as SAELens writes it, read again."""
    folder.mkdir(exist_ok=True, parents=True)
    d_in, d_sae = tensors["W_enc"].shape
    base = {"d_in": d_in, "d_sae": d_sae, "apply_b_dec_to_input": False, "metadata": {"sae_lens_version": "6.0.0"}}
    (folder / "cfg.json").write_text(json.dumps({**base, "architecture": "standard", **config}))
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "sae_weights.safetensors")
    return read_dictionary(str(folder))


def doubled(d: int, seen: Tensor | None = None) -> dict[str, Tensor]:
    """Two features for each direction, one for either sign: it explains everything that it sees."""
    one = torch.eye(d) if seen is None else seen
    parts = {"W_enc": torch.cat((one, -one)).T, "W_dec": torch.cat((one, -one))}
    return parts | {"b_enc": torch.zeros(2 * d), "b_dec": torch.zeros(d)}


@pytest.fixture(scope="module")
def model() -> Transformer:
    return load_model("pocket", "cpu")


@pytest.fixture(scope="module")
def pairs() -> tuple[PromptPair, ...]:
    clean, corrupt = (torch.randint(2, 500, (6, 7), generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    rows = zip(clean.tolist(), corrupt.tolist(), strict=True)
    made = [PromptPair((*a,), (*b,), (1,), (2,), {"END": (6,), "TWO": (1, 2)}, "s") for a, b in rows]
    short = replace(made[0], clean_tokens=made[0].clean_tokens[:5], corrupt_tokens=made[0].corrupt_tokens[:5])
    return (*made, replace(short, positions={"END": (4,)}))


def explained(seen: Seen, pairs: tuple[PromptPair, ...]) -> float:
    return firing(seen, pairs, [Position("END")]).explained


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("layer", [0, 3])
def test_a_dictionary_of_everything_explains_everything(
    tmp_path: Path, model: Transformer, pairs: tuple[PromptPair, ...], kind: str, layer: int
) -> None:
    found = written(tmp_path, doubled(model.d_model), hook_name=str(Hook(kind, layer)))  # type: ignore[arg-type]
    assert found.writes == (Hook(kind, layer),)  # type: ignore[arg-type]
    (seen,) = seen_on(model, [found], pairs)
    assert explained(seen, pairs) == pytest.approx(1, abs=1e-5)
    assert seen.reading == Reading()


def test_what_stands_at_hooks_is_what_the_model_adds_up(model: Transformer) -> None:
    tokens = torch.randint(2, 500, (3, 6), generator=torch.Generator().manual_seed(3))
    hooks = [Hook(kind, layer) for kind in WRITTEN[:5] for layer in range(model.n_layers)]
    run = one_run(model, tokens, kept=kept_at(hooks, model))
    found = {hook: at_hook(model, run, hook) for hook in hooks}
    stream = model.embed(tokens)
    for layer in range(model.n_layers):
        torch.testing.assert_close(found[Hook("resid_pre", layer)], stream)
        stream = stream + found[Hook("attn_out", layer)]
        torch.testing.assert_close(found[Hook("resid_mid", layer)], stream, atol=1e-4, rtol=1e-5)
        stream = stream + found[Hook("mlp_out", layer)]
        torch.testing.assert_close(found[Hook("resid_post", layer)], stream, atol=1e-4, rtol=1e-5)
    assert model.original is not None
    own = model.original.logits(tokens, 0, 6)
    torch.testing.assert_close(model.logits(stream), own, atol=1e-3, rtol=1e-4)


def test_centring_is_settled_by_what_is_explained(
    tmp_path: Path, model: Transformer, pairs: tuple[PromptPair, ...]
) -> None:
    d = model.d_model
    centre = torch.eye(d) - 1 / d
    hook = "blocks.1.hook_resid_pre"
    shifted = replace(model, W_E=model.W_E + 3 * drawn(model.n_vocab, 1))  # a stream whose mean varies
    (seen,) = seen_on(shifted, [written(tmp_path, doubled(d, centre), hook_name=hook)], pairs)
    assert seen.reading == Reading(centred=True)
    assert str(seen.reading) == "the mean over dimensions taken out"
    assert explained(seen, pairs) == pytest.approx(1, abs=1e-4)
    assert explained(replace(seen, reading=Reading()), pairs) < 0.95
    said = {"model_from_pretrained_kwargs": {"center_writing_weights": False}, "hook_name": hook}
    (seen,) = seen_on(shifted, [written(tmp_path, doubled(d, centre), **said)], pairs)
    assert seen.reading == Reading()


@pytest.mark.parametrize("architecture", ["standard", "gated", "topk"])
def test_what_it_explains_is_found_with_some_features_in_memory_at_a_time(
    tmp_path: Path,
    model: Transformer,
    pairs: tuple[PromptPair, ...],
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
) -> None:
    d, many = model.d_model, 22
    tensors = {"W_enc": drawn(d, many, seed=1), "W_dec": drawn(many, d, seed=2) / 9, "b_dec": drawn(d, seed=3)}
    biases = ("b_gate", "b_mag", "r_mag") if architecture == "gated" else ("b_enc",)
    tensors |= {name: drawn(many, seed=4 + i) for i, name in enumerate(biases)}
    norm = {"normalize_activations": "layer_norm", "k": 5, "hook_name": "blocks.1.hook_resid_pre"}
    found = written(tmp_path, tensors, architecture=architecture, **norm)
    way, share = best_reading(model, found, pairs)
    (seen,) = seen_on(model, [found], pairs)
    assert seen.reading == way and share == pytest.approx(explained(seen, pairs), abs=1e-4)
    held = list[int]()
    monkeypatch.setattr(Coder, "encode", lambda coder, x, own=Coder.encode: held.append(len(coder.d)) or own(coder, x))
    monkeypatch.setattr("circuitdsl.engine.dictionaries.PART", 5)
    assert best_reading(model, found, pairs)[1] == pytest.approx(share, abs=1e-5)
    assert set(held) == ({many} if architecture == "topk" else {5, 2}), "a top-k depends on all of them"


@pytest.mark.parametrize("gained", [True, False])
def test_a_transcoder_before_or_after_the_norms_gain(
    tmp_path: Path, model: Transformer, pairs: tuple[PromptPair, ...], gained: bool
) -> None:
    block = model.blocks[2]
    mlp, norm = replace(block.mlp, act=torch.relu), block.mlp_norm  # type: ignore[arg-type]
    of_relu = replace(model, blocks=(*model.blocks[:2], replace(block, mlp=mlp), *model.blocks[3:]))
    W_enc, b_enc = mlp.up.weight.T, mlp.up.bias
    if not gained:
        W_enc, b_enc = norm.gain[:, None] * W_enc, b_enc + norm.bias @ W_enc
    tensors = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": mlp.down.weight.T, "b_dec": mlp.down.bias}
    hooks = {"hook_name": "blocks.2.ln2.hook_normalized", "hook_name_out": "blocks.2.hook_mlp_out"}
    found = written(tmp_path, tensors, architecture="transcoder", d_out=model.d_model, **hooks)
    (seen,) = seen_on(of_relu, [found], pairs)
    assert seen.reading == Reading(gained=gained)
    assert explained(seen, pairs) == pytest.approx(1, abs=1e-5)


def test_what_fires_where(tmp_path: Path, model: Transformer, pairs: tuple[PromptPair, ...]) -> None:
    hook = Hook("resid_post", 0)
    tensors = {"W_enc": drawn(model.d_model, 9, seed=4), "W_dec": drawn(9, model.d_model, seed=5)}
    tensors |= {"b_enc": drawn(9, seed=6), "b_dec": drawn(model.d_model, seed=7)}
    tensors["b_enc"][3] = -1e4
    seen = Seen(
        model, found := written(tmp_path, tensors, hook_name=str(hook)), seen_on(model, [found], pairs)[0].coder
    )
    result = firing(seen, pairs, [Position("END"), Position("TWO")])

    def encoded(tokens: tuple[int, ...]) -> Tensor:
        run = one_run(model, torch.tensor([tokens]), kept=kept_at([hook], model))
        return (at_hook(model, run, hook)[0] @ tensors["W_enc"] + tensors["b_enc"]).relu()

    clean, corrupt = ([encoded(getattr(pair, side)) for pair in pairs] for side in ("clean_tokens", "corrupt_tokens"))
    assert result.prompts.tolist() == sum((f > 0).any(0).long() for f in clean).tolist()  # type: ignore[union-attr]
    assert result.prompts[3] == 0
    assert result.fire == pytest.approx(sum(int((f > 0).sum()) for f in clean) / sum(map(len, clean)))
    torch.testing.assert_close(result.strongest, torch.stack([f.amax(0) for f in clean]), atol=1e-3, rtol=1e-4)
    assert int(result.where[2, 0]) == int(clean[2][:, 0].argmax())
    lengths = tensors["W_dec"].norm(dim=-1)
    apart = sum((a - b).abs().sum(0) for a, b in zip(clean, corrupt, strict=True)) * lengths / len(pairs)
    torch.testing.assert_close(result.differs, apart, atol=1e-2, rtol=1e-4)
    two = torch.stack([f[1:3].mean(0) for f in clean[:-1]]).mean(0)  # the last prompt has no such position
    torch.testing.assert_close(result.clean[1], two, atol=1e-3, rtol=1e-4)
    end = torch.stack([f[-1] for f in corrupt]).mean(0)
    torch.testing.assert_close(result.corrupt[0], end, atol=1e-3, rtol=1e-4)


def test_what_is_not_of_this_model(tmp_path: Path, model: Transformer, pairs: tuple[PromptPair, ...]) -> None:
    narrow = written(tmp_path, doubled(64), hook_name="blocks.1.hook_resid_pre", model_name="gpt2-small")
    with pytest.raises(DictionaryError, match="made for gpt2-small has 64 numbers at blocks"):
        seen_on(model, [narrow], pairs)
    high = written(tmp_path, doubled(model.d_model), hook_name="blocks.4.hook_resid_pre")
    with pytest.raises(DictionaryError, match="and pocket has layers 0 to 3: it is not of this model"):
        seen_on(model, [high], pairs)


def test_layers_below_of_a_cross_layer_transcoder_are_added(
    tmp_path: Path, model: Transformer, pairs: tuple[PromptPair, ...]
) -> None:
    """The features of layer 0 write half of what the MLP of layer 1 is made to write, those of layer 1 the rest."""
    d = model.d_model
    both = doubled(d)
    for layer in range(4):
        rows = torch.zeros(2 * d, 4 - layer, d)
        if layer == 0:
            rows[:, 1] = 0.5 * both["W_dec"]
        if layer == 1:
            rows[:, 0] = 0.25 * both["W_dec"]
        own = {"W_enc": both["W_enc"].T, "b_enc": both["b_enc"], "b_dec": torch.full((d,), float(layer))}
        named = {f"{key}_{layer}": each.contiguous() for key, each in own.items()}
        save_file(named, tmp_path / f"W_enc_{layer}.safetensors")
        save_file({f"W_dec_{layer}": rows}, tmp_path / f"W_dec_{layer}.safetensors")
    seen = seen_on(model, read_dictionaries(str(tmp_path)), pairs)
    run = seen[1].run(torch.tensor([pairs[0].clean_tokens]))
    made = seen[1].made(run, seen[1].encode(run))
    wanted = 0.5 * at_hook(model, run, Hook("resid_mid", 0)) + 0.25 * at_hook(model, run, Hook("resid_mid", 1)) + 1
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=1e-5)
