"""Dictionaries as others write them: circuit-tracer's sets, cross-layer transcoders, Gemma Scope, the hub's cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from circuitdsl.dictionaries import read_dictionaries, read_dictionary, record
from circuitdsl.dictionaries.coder import load
from circuitdsl.dictionaries.record import DictionaryError, Hook

D, F = 4, 7
HOOKS = "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
SET = f"model_kind: transcoder_set\nmodel_name: pocket\n{HOOKS}"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(number: int) -> dict[str, Tensor]:
    return {
        "W_enc": drawn(F, D, seed=number),
        "W_dec": drawn(F, D, seed=number + 10),
        "b_enc": drawn(F, seed=number + 20),
        "b_dec": drawn(D, seed=number + 30),
    }


X = drawn(5, D, seed=99)


def test_a_set_has_a_transcoder_for_each_layer(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(SET)
    tensors = [layer(i) for i in range(3)]
    tensors[1]["activation_function.threshold"] = drawn(F, seed=50).abs()
    tensors[2]["W_skip"] = drawn(D, D, seed=60)
    for i, each in enumerate(tensors):
        save_file(each, tmp_path / f"layer_{i}.safetensors")
    found = read_dictionaries(str(tmp_path))
    assert [(one.reads, one.writes) for one in found] == [(Hook("mlp_in", i), (Hook("mlp_out", i),)) for i in range(3)]
    before = [X @ each["W_enc"].T + each["b_enc"] for each in tensors]
    threshold = tensors[1]["activation_function.threshold"]
    wanted = [before[0].relu(), before[1] * (before[1] > threshold), before[2].relu()]
    for one, f, each in zip(found, wanted, tensors, strict=True):
        coder = load(one)
        torch.testing.assert_close(coder.encode(X), f)
        out = f @ each["W_dec"] + each["b_dec"] + (X @ each["W_skip"].T if "W_skip" in each else 0)
        torch.testing.assert_close(coder.decode(f, X), out)
    alone = read_dictionary(str(tmp_path / "layer_1.safetensors"))
    assert alone.reads == Hook("mlp_in", 1) and alone.encoding.activation == "jumprelu"
    with pytest.raises(DictionaryError, match="a dictionary for each of 3 layers"):
        read_dictionary(str(tmp_path))


def test_a_set_that_keeps_the_largest_keeps_their_signs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(SET + "activation: topk\nk: 5\n")
    save_file(layer(0), tmp_path / "layer_0.safetensors")
    f = load(read_dictionary(str(tmp_path))).encode(X)
    before = X @ layer(0)["W_enc"].T + layer(0)["b_enc"]
    gate = torch.zeros_like(before).scatter(-1, before.topk(5).indices, 1.0)
    torch.testing.assert_close(f, before * gate)
    assert bool((f < 0).any())


def test_features_of_a_cross_layer_transcoder_write_to_all_later_layers(tmp_path: Path) -> None:
    for i in range(3):
        own = {"W_enc": drawn(F, D, seed=i), "b_enc": drawn(F, seed=i + 20), "b_dec": drawn(D, seed=i + 30)}
        own["threshold"] = drawn(F, seed=i + 40).abs()
        save_file({f"{key}_{i}": value for key, value in own.items()}, tmp_path / f"W_enc_{i}.safetensors")
        save_file({f"W_dec_{i}": drawn(F, 3 - i, D, seed=i + 10)}, tmp_path / f"W_dec_{i}.safetensors")
    found = read_dictionaries(str(tmp_path))
    assert [one.reads for one in found] == [Hook("resid_mid", i) for i in range(3)]
    assert [len(one.writes) for one in found] == [3, 2, 1]
    assert found[1].writes == (Hook("mlp_out", 1), Hook("mlp_out", 2))
    assert found[0].kind == "cross-layer transcoder"
    for i, one in enumerate(found):
        before = X @ drawn(F, D, seed=i).T + drawn(F, seed=i + 20)
        coder = load(one, [3, 0])
        f = (before * (before > drawn(F, seed=i + 40).abs()))[:, [3, 0]]
        torch.testing.assert_close(coder.encode(X), f)
        torch.testing.assert_close(coder.d.view(2, -1, D), drawn(F, 3 - i, D, seed=i + 10)[[3, 0]])
    (tmp_path / "W_enc_1.safetensors").unlink()
    with pytest.raises(DictionaryError, match="lacks the encoder of a layer: it has 0, 2"):
        read_dictionaries(str(tmp_path))


def gemma(folder: Path) -> Path:
    folder.mkdir(parents=True)
    arrays = {key: value.numpy() for key, value in layer(0).items()}
    arrays |= {"W_enc": arrays["W_enc"].T, "threshold": np.full(F, 0.4, np.float32)}
    np.savez(folder / "params.npz", **arrays)
    return folder


def test_gemma_scope_says_where_it_sits_by_its_folders(tmp_path: Path) -> None:
    hub = tmp_path / "models--google--gemma-scope-2b-pt-res" / "snapshots" / "abc"
    found = read_dictionary(str(gemma(hub / "layer_12" / "width_16k" / "average_l0_71")))
    assert (found.reads, found.model) == (Hook("resid_post", 12), "gemma-2-2b")
    before = X @ layer(0)["W_enc"].T + layer(0)["b_enc"]
    torch.testing.assert_close(load(found).encode(X), before.relu() * (before > 0.4))
    moved = gemma(tmp_path / "moved")
    with pytest.raises(DictionaryError, match="does not say where it sits"):
        read_dictionary(str(moved))
    assert read_dictionary(str(moved), at=Hook("mlp_out", 3)).writes == (Hook("mlp_out", 3),)


def test_the_hubs_cache_is_looked_in_and_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub = tmp_path / "models--me--things"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc")
    folder = hub / "snapshots" / "abc" / "set"
    folder.mkdir(parents=True)
    listed = "transcoders:\n  - hf://me/things/set/one.safetensors\n  - two.safetensors\n"
    (folder / "config.yaml").write_text(SET + listed)
    save_file(layer(0), folder / "one.safetensors")
    save_file(layer(1), folder / "two.safetensors")
    found = read_dictionaries("me/things/set")
    assert [one.writes[0].layer for one in found] == [0, 1]
    assert read_dictionaries("hf://me/things/set?revision=abc")[1].sha256 == found[1].sha256 != found[0].sha256
    with pytest.raises(DictionaryError, match="nor in the hub's cache") as caught:
        read_dictionaries("me/others/set")
    assert caught.value.hint == "hf download me/others --include 'set*'"


def test_a_file_is_hashed_once_and_again_where_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, hashed = tmp_path / "some.bin", []
    digest = hashlib.file_digest
    monkeypatch.setattr(record.hashlib, "file_digest", lambda *args: hashed.append(1) or digest(*args))
    path.write_bytes(b"one")
    assert [record._digest_of(path) for _ in range(2)] == [hashlib.sha256(b"one").digest()] * 2
    assert len(hashed) == 2  # it was written just now
    monkeypatch.setattr(record, "_TELLS", -(10**12))
    assert [record._digest_of(path) for _ in range(3)] == [hashlib.sha256(b"one").digest()] * 3
    assert len(hashed) == 3
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert record._digest_of(path) == hashlib.sha256(b"two").digest()
