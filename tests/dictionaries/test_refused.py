"""What is wrong with a dictionary is said in one sentence, and nothing in it is run."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from circuitdsl.dictionaries import read_dictionaries, read_dictionary
from circuitdsl.dictionaries.coder import load
from circuitdsl.dictionaries.labels import read_labels
from circuitdsl.dictionaries.record import DictionaryError

FIXTURES = Path(__file__).parent.parent / "fixtures" / "dictionaries"


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(FIXTURES / name, tmp_path / name))

    return copy


def configured(folder: Path, **changes: Any) -> str:
    """The folder with a changed configuration; None takes a key away."""
    file = folder / "cfg.json"
    config = json.loads(file.read_text())
    for key, value in changes.items():
        place = config["metadata"] if key.startswith("hook") or key == "sae_lens_version" else config
        place.pop(key, None)
        if value is not None:
            place[key] = value
    file.write_text(json.dumps(config))
    return str(folder)


def refused(name: str | Path, message: str, hint: str = "") -> None:
    with pytest.raises(DictionaryError) as caught:
        load(read_dictionary(str(name)))
    assert message in caught.value.message and "\n" not in caught.value.message
    assert hint in (caught.value.hint or "")


CONFIGURATIONS: list[tuple[str, dict[str, Any], str, str]] = [
    ("standard", {"d_sae": None}, "cfg.json has no d_sae, without which", ""),
    ("standard", {"architecture": None}, "cfg.json has no architecture, without which", ""),
    ("standard", {"hook_name": None}, "cfg.json has no hook_name, without which", ""),
    ("transcoder", {"hook_name_out": None}, "cfg.json has no hook_name_out", ""),
    ("topk", {"k": None}, "cfg.json has no k, without which", ""),
    ("standard", {"d_sae": 11}, "says d_in = 6 and d_sae = 11, and W_enc is 6 × 10", ""),
    ("standard", {"d_in": "six"}, "d_in = 'six' is no whole number above 0", ""),
    ("standard", {"apply_b_dec_to_input": 1}, "apply_b_dec_to_input = 1 is neither true nor false", ""),
    ("transcoder", {"apply_b_dec_to_input": True}, "is no option of a transcoder", ""),
    ("standard", {"architecture": "temporal"}, "says architecture = 'temporal', which is not read", "known are"),
    ("standard", {"hook_name": "blocks.1.attn.hook_q"}, "sits at 'blocks.1.attn.hook_q', a place that is not read", ""),
    ("standard", {"hook_name": "blocks.1.ln2.hook_normalized"}, "read by an MLP and written by nothing", ""),
    ("standard", {"hook_head_index": 3}, "it reads a single head", ""),
    (
        "standard",
        {"normalize_activations": "expected_average_only_in"},
        "a factor that the files do not hold",
        "fold",
    ),
    ("standard", {"normalize_activations": "sqrt"}, "normalize_activations = 'sqrt', which is not known", ""),
    (
        "standard",
        {"architecture": "jumprelu"},
        "lacks the tensor threshold, which a jumprelu encoder needs",
        "its files",
    ),
    ("standard", {"architecture": "gated"}, "lacks the tensor b_gate, which a gated encoder needs", ""),
    ("topk", {"k": 11}, "keeps the 11 largest of 10 features", ""),
    ("topk", {"architecture": "batchtopk"}, "holds no threshold", "save_inference_model"),
    ("jumprelu_transcoder", {"architecture": "skip_transcoder"}, "lacks the tensor W_skip", ""),
]


@pytest.mark.parametrize(("name", "changes", "message", "hint"), CONFIGURATIONS)
def test_a_configuration_that_is_wrong(
    copied: Callable[[str], Path], name: str, changes: dict[str, Any], message: str, hint: str
) -> None:
    refused(configured(copied(name), **changes), message, hint)


def test_a_scale_that_does_something(copied: Callable[[str], Path]) -> None:
    folder = copied("old_standard")
    file = folder / "sae_weights.safetensors"
    save_file(load_file(file) | {"scaling_factor": torch.full((10,), 1.5)}, file)
    refused(folder, "holds a scaling_factor of its activations", "multiply the rows of W_dec")


def test_tensors_that_do_not_fit_or_are_not_finite(copied: Callable[[str], Path]) -> None:
    folder = copied("standard")
    file = folder / "sae_weights.safetensors"
    whole = load_file(file)
    save_file(whole | {"b_enc": torch.zeros(9)}, file)
    refused(folder, "b_enc is 9, and the other tensors need 10")
    save_file(whole | {"W_dec": whole["W_dec"].index_fill(0, torch.tensor([4]), torch.nan)}, file)
    refused(folder, "the tensor W_dec in", "")
    assert load(read_dictionary(str(folder)), [3, 5]).d.isfinite().all()
    save_file(whole | {"b_enc": torch.zeros(10, dtype=torch.int8)}, file)
    refused(folder, "holds I8, not numbers as they are")


def test_a_file_that_was_cut_short(copied: Callable[[str], Path]) -> None:
    folder = copied("standard")
    file = folder / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    refused(folder, "cannot be read as safetensors", "cut short")
    (folder / "cfg.json").write_text("{")
    refused(folder, "cfg.json cannot be read")
    (folder / "cfg.json").write_text("[]")
    refused(folder, "holds no object with names and values")


class Trap:
    """What a pickle may do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize("name", ["ae.pt", "sae_weights.safetensors", "params.npz"])
def test_a_pickle_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "it"
    shutil.copytree(FIXTURES / "standard", folder)
    (folder / "sae_weights.safetensors").unlink()
    if name == "params.npz":
        (folder / "cfg.json").unlink()
        np.savez(folder / name, W_enc=np.array([Trap()], dtype=object))
    else:
        (folder / name).write_bytes(pickle.dumps(Trap()))
    refused(folder, f"{name} is a pickle, which may run a program when it is read; it was not", "safetensors")
    refused(folder / name, f"{name} is a pickle")
    assert not (tmp_path / "ran").exists()


def test_an_archive_that_swells(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "params.npz", W_enc=np.zeros((4000, 1000)))
    refused(tmp_path / "params.npz", "more than 20 times as large as it is")
    (tmp_path / "params.npz").write_bytes(b"PK\x03\x04 and no more")
    refused(tmp_path / "params.npz", "cannot be read as an .npz file", "cut short")


def test_names_that_mean_nothing_or_too_much(tmp_path: Path) -> None:
    refused("nowhere", "there is no dictionary nowhere", "shipped are")
    refused("./nowhere/at/all", "there is no dictionary ./nowhere/at/all")
    refused("a/b\0c", "is no name on the hub")
    refused("me/../things", "is no name on the hub")
    refused(tmp_path, "holds no dictionary that is read", "cfg.json")
    (tmp_path / "notes.txt").write_text("nothing")
    refused(tmp_path / "notes.txt", "is no dictionary that is read")
    refused(FIXTURES, "holds several dictionaries", "name one: batchtopk")
    with pytest.raises(DictionaryError, match="features 0 to 9, so there is no feature 10"):
        load(read_dictionary(str(FIXTURES / "standard")), [10])


def test_a_set_that_names_files_elsewhere(tmp_path: Path) -> None:
    kind = "model_kind: transcoder_set\nfeature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    for named in ("../secret.safetensors", "/etc/passwd"):
        (tmp_path / "config.yaml").write_text(f"{kind}transcoders: ['{named}']\n")
        with pytest.raises(DictionaryError, match="does not lie beside it"):
            read_dictionaries(str(tmp_path))
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(DictionaryError, match=r"config.yaml cannot be read"):
        read_dictionaries(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"7": "a", "8": "b"}', r"'8' is no feature of the dictionary, which has 8"),
        ('{"-1": "a"}', "'-1' is no feature"),
        ('[{"description": "a"}]', "None is no feature"),
        ('[{"index": 1}]', "the label of 1 is no text"),
        ('["a"]', "holds no labels of features"),
        ("{", "cannot be read"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(DictionaryError, match=says):
        read_labels(tmp_path / "labels.json", 8)


def test_labels_of_neuronpedia(tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    file.write_text(json.dumps([{"modelId": "gpt2-small", "index": "3", "description": " names\tof people "}]))
    assert read_labels(file, 8) == {3: "names of people"}
