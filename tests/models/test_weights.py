"""Attention weights from files are those of the loaded model; folding changes nothing that heads compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuitdsl.models.errors import BrokenWeights, UnsupportedModel
from circuitdsl.models.load import load_model
from circuitdsl.models.weights import AttentionWeights, decompose, fold, read_weights, weights_of
from tests.models.test_load import KINDS, save

PARTS = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K")


def same(one: AttentionWeights, other: AttentionWeights) -> bool:
    found = [
        torch.equal(getattr(one.factors(layer), part), getattr(other.factors(layer), part))
        for layer in range(one.n_layers)
        for part in PARTS
    ]
    return bool(found) and all(found)


@pytest.mark.parametrize("kind", KINDS)
def test_files_give_the_weights_of_the_loaded_model(kind: str, tmp_path: Path) -> None:
    directory = save(kind, tmp_path / kind)
    read, loaded = read_weights(directory), weights_of(load_model(directory, device="cpu"))
    norm, attn = read.layers[0]
    assert (read.n_layers, read.n_heads, norm.gain.shape[0], attn.d_head) == (2, 2, 16, loaded.layers[0][1].d_head)
    assert (read.rotary, read.sha256, read.family) == (loaded.rotary, loaded.sha256, kind)
    assert read.rotary is (kind not in ("gpt2", "gpt_neo", "opt", "bloom", "falcon"))
    assert same(read, loaded)


def test_one_file_without_the_bodys_prefix_and_in_half_precision(tmp_path: Path) -> None:
    """As the published `gpt2` is; the numbers are read exactly, in single precision."""
    directory = save("gpt2", tmp_path / "whole")
    tensors = {key: value.half() for key, value in load_file(directory / "model.safetensors").items()}
    attention = {k.removeprefix("transformer."): v for k, v in tensors.items() if ".attn." in k or ".ln_1" in k}
    save_file({k: v.contiguous() for k, v in attention.items()}, directory / "model.safetensors")
    read = read_weights(directory)
    assert read.dtype == "float16"
    assert read.layers[1][1].o.weight.dtype == torch.float32
    assert torch.equal(read.layers[1][1].o.weight, attention["h.1.attn.c_proj.weight"].float().T)


@pytest.mark.parametrize("kind", KINDS)
def test_folded_factors_compute_what_the_heads_compute(kind: str, tmp_path: Path) -> None:
    """Queries, keys and head outputs of a normed residual; LayerNorm's next reader cannot tell centred writes apart."""
    model = load_model(save(kind, tmp_path / kind), device="cpu")
    norm, attn = weights_of(model).layers[1]
    found = fold(norm, attn)
    resid = torch.randn(5, 16, generator=torch.Generator().manual_seed(1)).double()
    wide = resid - resid.mean(-1, keepdim=True) if norm.kind == "layer" else resid
    scaled = wide if norm.kind == "none" else wide / (wide.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    normed = norm(resid.float())
    for head in range(2):
        mine = head // attn.group
        q = _behind(attn.q_norm, attn.q.outputs(head * attn.d_head, (head + 1) * attn.d_head)(normed), head)
        k = _behind(attn.k_norm, attn.k.outputs(mine * attn.d_head, (mine + 1) * attn.d_head)(normed), mine)
        assert torch.allclose((scaled @ found.W_Q[head] + found.b_Q[head]).float(), q, atol=1e-5)
        assert torch.allclose((scaled @ found.W_K[head] + found.b_K[head]).float(), k, atol=1e-5)
        v = attn.v.outputs(mine * attn.d_head, (mine + 1) * attn.d_head)
        z = normed @ v.weight.T
        out = attn.out_head(head, z)
        wanted = out - out.mean(-1, keepdim=True) if norm.kind == "layer" else out
        assert torch.allclose(
            (scaled @ found.W_V[head] @ found.W_O[head]).float() + _bias(norm, v, attn, head), wanted, atol=1e-4
        )


def _behind(norm, x: torch.Tensor, head: int) -> torch.Tensor:
    """A head's queries or keys behind their norm, but for its scale and bias."""
    if norm is None:
        return x
    gains = norm.gain.unflatten(0, (-1, x.shape[-1]))  # one for all heads, or one for each
    return norm.centred(x) * gains[head % len(gains)]


def _bias(norm, v, attn, head) -> torch.Tensor:
    """What the norm's bias writes through the head, which W_OV leaves out."""
    if norm.bias is None:
        return torch.zeros(())
    out = attn.out_head(head, norm.bias @ v.weight.T)
    return out - out.mean()


def test_components_are_the_singular_value_decomposition(pocket) -> None:
    weights = weights_of(pocket)
    factors, found = weights.factors(2), weights.components(2)
    for head in range(weights.n_heads):
        ov = (factors.W_V[head] @ factors.W_O[head]).float()
        rebuilt = found.reads[head].T @ found.values[head].diag() @ found.writes[head]
        assert torch.allclose(rebuilt, ov, atol=1e-5)
        assert torch.allclose(found.values[head], torch.linalg.svdvals(ov)[: pocket.d_head], atol=1e-5)
        assert torch.allclose(found.writes[head] @ found.writes[head].T, torch.eye(pocket.d_head), atol=1e-5)
    assert bool((found.values.diff(dim=1) <= 0).all())
    assert weights.components(2) is found


def test_components_of_next_to_no_size_are_not_kept() -> None:
    """The rank of W_OV is two here: the rest is noise, left out of every rank."""
    from circuitdsl.models.weights import Factors

    torch.manual_seed(0)
    narrow = torch.randn(1, 12, 2).double() @ torch.randn(1, 2, 4).double()
    blank = torch.zeros(1, 12, 4).double()
    found = decompose(Factors(blank, blank, narrow, torch.randn(1, 4, 12).double(), blank[:, 0], blank[:, 0], 1.0))
    assert found.kept.tolist() == [[True, True, False, False]]


# --- what is refused --------------------------------------------------------------------------------


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    directory = save("gpt2", tmp_path / "whole")
    tensors = load_file(directory / "model.safetensors")
    del tensors["transformer.h.1.attn.c_proj.weight"]
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(BrokenWeights, match=r"lack transformer\.h\.1\.attn\.c_proj\.weight"):
        read_weights(directory)


def test_wrong_shapes_and_numbers_are_refused(tmp_path: Path) -> None:
    directory = save("gpt2", tmp_path / "whole")
    tensors = load_file(directory / "model.safetensors")
    key = "transformer.h.0.attn.c_proj.weight"
    save_file(tensors | {key: torch.zeros(3, 16)}, directory / "model.safetensors")
    with pytest.raises(BrokenWeights, match=r"W_O of layer 0 in .* is 16 × 3; config.json makes it 16 × 16"):
        read_weights(directory)
    save_file(tensors | {key: torch.full((16, 16), torch.nan)}, directory / "model.safetensors")
    with pytest.raises(BrokenWeights, match=r"layer 0 in .* holds NaN or infinity"):
        read_weights(directory)


def test_fewer_layers_than_the_files_have_are_refused(tmp_path: Path) -> None:
    directory = save("gpt2", tmp_path / "whole")
    config = directory / "config.json"
    config.write_text(config.read_text().replace('"n_layer": 2', '"n_layer": 1'))
    with pytest.raises(BrokenWeights, match="1 layers, and the weights have more"):
        read_weights(directory)


def test_unknown_families_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="is a biogpt model, which is not known"):
        read_weights(save("biogpt", tmp_path))
