"""A model that was loaded once opens without transformers, and is the same model; anything that changed is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.pocket_record import SPECS, made
from circuitdsl.api import loads
from circuitdsl.circuit.shapes import EMBEDDED
from circuitdsl.errors import UserError
from circuitdsl.models import files as files_module
from circuitdsl.models import record
from circuitdsl.models.errors import ModelUnavailable, UnsupportedModel
from circuitdsl.models.files import files_of
from circuitdsl.models.load import POCKET, load_model
from circuitdsl.models.model import Model
from circuitdsl.models.outline import outline, parameters
from circuitdsl.models.record import LOGITS, SHIPPED, open_model
from circuitdsl.models.tokenizers import KnownTokenizer, read_tokenizer
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.session import Session
from tests.drawing import examples

TEXTS = ["Once upon a time, Lily said: “Hello!”", " a", "", "\n\n  two", "<s>she</s>", "naïve café 42"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def copy(stories: Path, tmp_path: Path) -> Path:
    """A model that may be changed."""
    return Path(shutil.copytree(stories, tmp_path / "model"))


@pytest.fixture
def no_transformers(monkeypatch: pytest.MonkeyPatch):
    """Call it, and nothing is loaded by transformers any more."""

    def forbid() -> None:
        for name in ("pretrained", "read_whole"):
            monkeypatch.setattr(f"circuitdsl.models.load.{name}", lambda *_: pytest.fail("transformers is asked"))
        monkeypatch.setattr("circuitdsl.models.record.read_whole", lambda *_: pytest.fail("transformers is asked"))

    return forbid


def tensors(part: object) -> list[torch.Tensor]:
    """All tensors of a model, in order."""
    if isinstance(part, torch.Tensor):
        return [part]
    if isinstance(part, tuple):
        return [each for one in part for each in tensors(one)]
    fields = getattr(part, "__dataclass_fields__", {})
    return [each for name in fields if name not in ("original", "tokenizer") for each in tensors(getattr(part, name))]


def test_the_second_time_it_is_the_same_model(copy: Path, folder: Path, no_transformers) -> None:
    first = open_model(copy, "cpu", folder=folder)
    no_transformers()
    again = open_model(copy, "cpu", folder=folder)
    assert not again.is_read and first.is_read
    same = [getattr(again, name) == getattr(first, name) for name in asdict(first) if name not in _OBJECTS]
    assert all(same) and len(same) > 12
    ours, theirs = tensors(again.parts), tensors(first.parts)
    assert len(ours) == len(theirs) > 40
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    plain = ("family", "parallel", "n_ctx", "embed_scale", "softcap", "sha256")
    assert all(getattr(again.parts, name) == getattr(first.parts, name) for name in plain)
    assert [b.attn.scale for b in again.parts.blocks] == [b.attn.scale for b in first.parts.blocks]


_OBJECTS = ("read", "whole", "shapes", "tokenizer")


@pytest.mark.parametrize("where", ["stories", "pocket"])
def test_its_shapes_are_known_without_transformers(where: str, request, folder: Path) -> None:
    place = POCKET if where == "pocket" else request.getfixturevalue("stories")
    open_model(place, "cpu", "bfloat16", folder=folder)
    source = None if where == "pocket" else record.remembered(place, "cpu", "bfloat16", None, folder, "name")
    known, whole = record.outline_of(source, place, "bfloat16", None), outline(place, "bfloat16")
    assert isinstance(known.tokenizer, KnownTokenizer) and not isinstance(whole.tokenizer, KnownTokenizer)
    ours, theirs = ([(t.shape, t.stride(), t.dtype, t.device.type) for t in tensors(m)] for m in (known, whole))
    assert ours == theirs and len(ours) > 40
    assert (known.n_ctx, known.family, known.parallel) == (whole.n_ctx, whole.family, whole.parallel)
    assert parameters(known) == parameters(whole)


@pytest.mark.parametrize("where", ["stories", "pocket"])
def test_its_tokenizer_gives_the_same_tokens(where: str, request, folder: Path) -> None:
    place = POCKET if where == "pocket" else request.getfixturevalue("stories")
    open_model(place, "cpu", folder=folder)
    known, whole = open_model(place, "cpu", folder=folder).tokenizer, read_tokenizer(files_of(place))
    assert isinstance(known, KnownTokenizer)
    for special in (True, False):
        ours, theirs = (each(TEXTS, add_special_tokens=special, return_offsets_mapping=True) for each in (known, whole))
        assert ours["input_ids"] == theirs["input_ids"]
        assert [list(map(tuple, row)) for row in ours["offset_mapping"]] == theirs["offset_mapping"]
    ids = whole(TEXTS[0])["input_ids"]
    assert known(TEXTS[0])["input_ids"] == ids
    for options in ({}, {"skip_special_tokens": True}, {"clean_up_tokenization_spaces": True}):
        assert known.decode(ids, **options) == whole.decode(ids, **options)
    names = ("bos_token", "bos_token_id", "unk_token_id", "all_special_ids", "eos_token", "vocab_size")
    assert all(getattr(known, name) == getattr(whole, name) for name in names)
    assert Tokens(known).encode(TEXTS[:1]) == Tokens(whole).encode(TEXTS[:1])


@pytest.mark.parametrize(
    "what", ["weights", "config.json", "tokenizer.json", "merges.txt", "the library", "the code", "the machine"]
)
def test_what_has_changed_is_loaded_anew(what: str, copy: Path, folder: Path, monkeypatch) -> None:
    first = open_model(copy, "cpu", folder=folder)
    match what:
        case "weights":
            held = load_file(copy / "model.safetensors")
            held["model.norm.weight"] += 1
            save_file(held, copy / "model.safetensors", {"format": "pt"})
        case "config.json" | "tokenizer.json":
            given = json.loads((copy / what).read_text())
            more = {"rms_norm_eps": 1e-3} if what == "config.json" else {}
            (copy / what).write_text(json.dumps(given | more, indent=3))
        case "merges.txt":  # from which some tokenizers are read
            (copy / what).write_text("a b\n")
        case "the library":
            monkeypatch.setattr(record, "version", lambda name: "other")
        case "the code":
            monkeypatch.setattr(record, "code_digest", lambda: b"other")
        case _:
            monkeypatch.setattr(record, "machine", lambda: "other")
    again = open_model(copy, "cpu", folder=folder)
    assert again.is_read, "a record of something else was taken"
    assert (again.digest != first.digest) or what == "the machine"


@pytest.mark.parametrize("file", ["engine/runs.py", "engine/readers/metric.py", "models/parts.py", "tasks/dataset.py"])
def test_code_that_makes_numbers_is_in_the_hash(file: str, tmp_path: Path, monkeypatch) -> None:
    package = Path(shutil.copytree(Path(record.__file__).parents[1], tmp_path / "p", ignore=lambda *_: ["record"]))
    monkeypatch.setattr(record, "__file__", str(package / "models" / "record.py"))
    before = record.code_digest.__wrapped__()
    (package / file).write_text((package / file).read_text() + "# another line\n")
    assert before == record.code_digest() != record.code_digest.__wrapped__()


def test_number_formats_have_records_of_their_own(copy: Path, folder: Path) -> None:
    open_model(copy, "cpu", folder=folder)
    half = open_model(copy, "cpu", "bfloat16", folder=folder)
    again = open_model(copy, "cpu", "bfloat16", folder=folder)
    assert half.is_read and not again.is_read
    assert again.parts.dtype == torch.bfloat16 and again.rounding == torch.finfo(torch.bfloat16).eps
    assert all(torch.equal(a, b) for a, b in zip(tensors(again.parts), tensors(half.parts), strict=True))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"sizes": 1}', '{"tokenizer": 3}'])
def test_a_damaged_record_is_passed_over(damage: str, copy: Path, folder: Path) -> None:
    open_model(copy, "cpu", folder=folder)
    (file,) = (folder / "models").iterdir()
    file.write_text(damage)
    assert open_model(copy, "cpu", folder=folder).is_read
    assert not open_model(copy, "cpu", folder=folder).is_read


def edited(given: dict, what: str) -> dict:
    """A record that says something else of the model."""
    config, tensors = given["config"], given["tensors"]
    one, other = (f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1))
    return {
        "eps": lambda: given | {"config": config | {"rms_norm_eps": 0.1}},
        "tensors": lambda: given | {"tensors": tensors | {one: tensors[other], other: tensors[one]}},
        "sizes": lambda: given | {"sizes": {}},
        "threads": lambda: given | {"threads": None},
        "no sum": lambda: {key: value for key, value in given.items() if key != "sum"},
    }[what]()


@pytest.mark.parametrize("what", ["eps", "tensors", "sizes", "threads", "no sum"])
def test_a_record_that_was_edited_is_passed_over(what: str, copy: Path, folder: Path) -> None:
    open_model(copy, "cpu", folder=folder)
    (file,) = (folder / "models").iterdir()
    file.write_text(json.dumps(edited(json.loads(file.read_text()), what)))
    assert open_model(copy, "cpu", folder=folder).is_read
    assert not open_model(copy, "cpu", folder=folder).is_read


def test_a_record_of_another_model_is_passed_over(copy: Path, folder: Path) -> None:
    open_model(copy, "cpu", folder=folder)
    (file,) = (folder / "models").iterdir()
    given = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(given | {"rms_norm_eps": 1e-3}))
    open_model(copy, "cpu", folder=folder)
    (other,) = set((folder / "models").iterdir()) - {file}
    shutil.copy(file, other)
    again = open_model(copy, "cpu", folder=folder)
    assert again.is_read and again.parts.final_norm.eps == 1e-3


@pytest.mark.parametrize("what", ["weights", "a file that is gone", "the whole model"])
def test_files_that_change_before_they_are_read_are_noticed(what: str, copy: Path, folder: Path) -> None:
    open_model(copy, "cpu", folder=folder)
    again = open_model(copy, "cpu", folder=folder)
    if what == "a file that is gone":
        (copy / "model.safetensors").unlink()
    else:
        held = load_file(copy / "model.safetensors")
        save_file({name: value + 1 for name, value in held.items()}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelUnavailable, match="have changed since they were looked at"):
        again.original if what == "the whole model" else again.parts  # noqa: B018
    assert not again.is_read


def test_files_that_change_while_they_are_read_are_noticed(copy: Path, folder: Path, monkeypatch) -> None:
    true = record.read_whole

    def read(*given: object) -> object:
        with (copy / "model.safetensors").open("r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"\0" * 100)
        return true(*given)

    monkeypatch.setattr(record, "read_whole", read)
    with pytest.raises(ModelUnavailable, match="have changed since they were looked at"):
        open_model(copy, "cpu", folder=folder)
    assert not folder.exists()


def test_a_change_that_leaves_no_trace_is_noticed(copy: Path, folder: Path, monkeypatch) -> None:
    """Files that were written a moment ago can change again without changing their times."""
    times = {file: [0, 0, 0, 0] for file in [copy / "model.safetensors"]}
    monkeypatch.setattr("circuitdsl.models.files.stamps", lambda files: {file: times[file] for file in files})
    times[copy / "model.safetensors"][0] = 2**63
    opened = open_model(copy, "cpu", folder=folder)
    assert opened.is_read
    again = open_model(copy, "cpu", folder=folder)
    held = load_file(copy / "model.safetensors")
    save_file({name: value + 1 for name, value in held.items()}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelUnavailable, match="have changed since they were looked at"):
        again.parts  # noqa: B018


@pytest.mark.parametrize("times", [1, 2])
def test_weights_in_memory_do_not_change_with_their_file(times: int, copy: Path, folder: Path) -> None:
    for _ in range(times):
        parts = open_model(copy, "cpu", folder=folder).parts
    file = copy / "model.safetensors"
    before, size = [each.clone() for each in tensors(parts)], file.stat().st_size
    with file.open("r+b") as opened:
        opened.seek(20_000)
        opened.write(b"\0" * (size - 20_000))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(parts), strict=True))


def test_a_tokenizer_and_a_configuration_are_those_that_were_hashed(copy: Path, folder: Path) -> None:
    """They are read once: whatever the files say later, it stands under another hash."""
    open_model(copy, "cpu", folder=folder)
    known, plain = open_model(copy, "cpu", folder=folder), read_tokenizer(files_of(copy))
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (copy / name).write_text("{}")
    assert known.tokenizer(TEXTS)["input_ids"] == plain(TEXTS)["input_ids"]
    assert known.tokenizer.eos_token == plain.eos_token
    assert known.original.module.config.hidden_size == known.d_model


def test_a_second_file_of_weights_is_not_read(copy: Path, folder: Path) -> None:
    first = open_model(copy, "cpu", folder=folder)
    held = {name: value * 0 for name, value in load_file(copy / "model.safetensors").items()}
    save_file(held, copy / "model-00001-of-00001.safetensors", {"format": "pt"})
    index = {"weight_map": dict.fromkeys(held, "model-00001-of-00001.safetensors")}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    (copy / "pytorch_model.bin").write_bytes(b"")
    again = open_model(copy, "cpu", folder=folder)
    assert not again.is_read and torch.equal(again.parts.W_E, first.parts.W_E)
    whole = load_model(copy, "cpu")
    assert torch.equal(whole.W_E, first.parts.W_E) and whole.sha256 == first.sha256


def test_a_model_is_refused_the_second_time_as_well(copy: Path, folder: Path) -> None:
    open_model(copy, "cpu", folder=folder)
    (copy / "pytorch_model.bin").write_bytes(b"")
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModel, match="adapter_config"):
        open_model(copy, "cpu", folder=folder)


def test_other_prompts_are_compared_with_the_library_again(copy: Path, folder: Path, monkeypatch) -> None:
    text = f'circuit t\nmodel "{copy}"\nmetric logprob\ntask {{task}}\nexpect logprob <= 0\n'
    rows = '{{"clean_tokens": [1, {0}, 300], "corrupt_tokens": [1, {0}, 301], "answer": 302, "distractor": 303}}\n'
    for name, start in (("a", 310), ("b", 320)):
        (folder.parent / f"{name}.jsonl").write_text(rows.format(start))
    spec = str(folder.parent / "t.circ")
    asked: list[int] = []
    true = record.read_whole
    monkeypatch.setenv("CIRCUITDSL_CACHE", str(folder))
    monkeypatch.setattr(record, "read_whole", lambda *given: asked.append(1) or true(*given))
    for name, times in (("a", 1), ("a", 1), ("b", 2), ("b", 2)):
        with Session(device="cpu") as session:
            session.verify(loads(text.format(task=f'file("{name}.jsonl")'), spec))
        assert len(asked) == times, name


@pytest.mark.parametrize("setting", ["split_special_tokens", "clean_up_tokenization_spaces"])
def test_a_tokenizer_that_transformers_adds_to_is_not_remembered(setting: str, copy: Path, folder: Path) -> None:
    file = copy / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {setting: True}))
    for _ in range(2):
        opened = open_model(copy, "cpu", folder=folder)
        assert not isinstance(opened.tokenizer, KnownTokenizer)
        assert opened.tokenizer("a <s> b")["input_ids"] == read_tokenizer(files_of(copy))("a <s> b")["input_ids"]


# --- the pocket model -------------------------------------------------------------------------------


def test_the_pocket_model_opens_without_transformers(pocket, folder: Path, no_transformers) -> None:
    no_transformers()
    opened = open_model("pocket", "cpu", folder=folder)
    assert all(torch.equal(a, b) for a, b in zip(tensors(opened.parts), tensors(pocket), strict=True))
    again = open_model("pocket", "cpu", folder=folder)
    assert not again.is_read and again.digest == opened.digest


def test_logits_are_those_of_a_number_format(folder: Path) -> None:
    open_model("pocket", "cpu", "bfloat16", folder=folder)
    again = open_model("pocket", "cpu", "bfloat16", folder=folder)
    assert not again.is_read and not again.original.recorded
    assert open_model("pocket", "cpu", folder=folder).original.recorded


def test_it_is_checked_against_what_transformers_computed(tmp_path: Path, monkeypatch) -> None:
    wrong = {name: logits.roll(1, -1) for name, logits in load_file(POCKET / LOGITS).items()}
    save_file(wrong, tmp_path / "logits.safetensors")
    monkeypatch.setattr(record, "LOGITS", tmp_path / "logits.safetensors")
    with pytest.raises(UnsupportedModel, match="is not the sum of the terms"):
        open_model("pocket", "cpu")


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_ships_is_what_transformers_says(name: str) -> None:
    """The record and the logits are those that are found now; other prompts than the recorded ones are few."""
    directory = EMBEDDED[name]
    (file,) = (directory / SHIPPED).glob("*.json")
    assert file == record.shipped_for(files_of(directory)) and record._read(file), (
        "run python -m benchmarks.pocket_record"
    )
    found, logits = made(name, examples([path for path in SPECS[name] if path.stem == "ioi"], SPECS[name]))
    kept, recorded = json.loads(file.read_text()), load_file(directory / LOGITS)
    on_any_machine = ("sizes", "config", "rotary", "tensors", "tokenizer", "window")
    fresh = json.loads(json.dumps(asdict(found)))
    assert {name: kept[name] for name in on_any_machine} == {name: fresh[name] for name in on_any_machine}
    assert logits.keys() <= recorded.keys(), "run python -m benchmarks.pocket_record"
    for name, row in logits.items():
        assert torch.allclose(row, recorded[name], atol=1e-4, rtol=0)


def test_a_shard_that_is_not_there_is_named(copy: Path, folder: Path) -> None:
    (copy / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelUnavailable, match=r"model-00002-of-00002.* cannot be read: No such file"):
        open_model(copy, "cpu", folder=folder)


def test_a_model_that_cannot_be_remembered_is_loaded(copy: Path, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(record, "_tensors", lambda *_: None)
    assert open_model(copy, "cpu", folder=folder).is_read and not (folder / "models").exists()


def test_a_folder_that_cannot_be_written_is_no_hindrance(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert open_model(copy, "cpu", folder=tmp_path / "file").is_read


def test_a_record_that_cannot_be_written_leaves_nothing(copy: Path, folder: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert open_model(copy, "cpu", folder=folder).is_read and not list((folder / "models").iterdir())


def test_threads_that_a_program_has_set_are_not_those_of_the_machine(folder: Path) -> None:
    code = """
import sys
from pathlib import Path
from circuitdsl.models.record import open_model
model = open_model("pocket", "cpu", folder=Path(sys.argv[1]))
import torch
print(model.threads, torch.get_num_threads(), model.is_read)
"""

    def opened(before: str = "") -> list[str]:
        command = [sys.executable, "-c", before + code, str(folder)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True).stdout.split()

    assert opened("import torch\ntorch.set_num_threads(7)\n") == ["7", "7", "True"]
    (own, now, read), again = opened(), opened()
    assert own == now != "7" and read == "False" and again == [own, now, read]


def test_a_device_that_is_none_is_refused_without_torch() -> None:
    code = "from circuitdsl.models.model import device_name\nfrom circuitdsl.errors import UserError\nimport sys\n"
    code += "try: device_name('gpu')\nexcept UserError as error: print(error.message, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert run.stdout == "device gpu is not known; use auto, cpu or cuda False\n"
    with pytest.raises(UserError, match="dtype int8 is not known"):
        open_model("pocket", "cpu", "int8")


def test_what_is_loaded_is_known(pocket) -> None:
    model = Model.of(pocket)
    assert model.parts is pocket and model.is_read and (model.device, model.dtype) == ("cpu", "float32")
    assert model.digest == Model.of(load_model("pocket", "cpu")).digest


# --- hashes of large files --------------------------------------------------------------------------


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file counts as large and as written long ago; the files that are hashed from now on."""
    hashed: list[Path] = []
    true = files_module._file_sha256
    monkeypatch.setattr(files_module, "LARGE", 1)
    monkeypatch.setattr(files_module, "_TELLS", -(10**18))
    monkeypatch.setattr(files_module, "_file_sha256", lambda file: hashed.append(file) or true(file))
    return hashed


def test_a_large_file_is_hashed_once(copy: Path, folder: Path, large: list[Path]) -> None:
    first = open_model(copy, "cpu", folder=folder)
    assert large == [copy / "model.safetensors"]
    again = open_model(copy, "cpu", folder=folder)
    assert large == [copy / "model.safetensors"] and not again.is_read
    assert again.sha256 == first.sha256 == hashlib.sha256((copy / "model.safetensors").read_bytes()).hexdigest()
    open_model(copy, "cpu")
    assert len(large) == 2, "without a folder nothing is known"


@pytest.mark.parametrize("what", ["weights", "the same numbers", "another place", "damage", "no hash", "a folder"])
def test_a_large_file_that_may_be_another_is_hashed_anew(
    what: str, copy: Path, folder: Path, large: list[Path], tmp_path: Path
) -> None:
    first = open_model(copy, "cpu", folder=folder)
    (kept,) = (folder / "weights").iterdir()
    place, held = copy, load_file(copy / "model.safetensors")
    match what:
        case "weights":
            times = (copy / "model.safetensors").stat()
            held["model.norm.weight"] += 1
            save_file(held, copy / "model.safetensors", {"format": "pt"})
            os.utime(copy / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had changed
        case "the same numbers":
            save_file(held, copy / "model.safetensors", {"format": "pt"})
        case "another place":
            place = Path(shutil.copytree(copy, tmp_path / "elsewhere"))
        case "damage":
            kept.write_text(kept.read_text().replace(first.sha256[:4], "0000" if first.sha256[0] != "0" else "1111"))
        case "no hash":
            kept.write_text("x" * 10_000)
        case _:
            kept.unlink()
            kept.mkdir()
    again = open_model(place, "cpu", folder=folder)
    assert len(large) == 2
    assert again.sha256 == hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest()
    assert (again.sha256 == first.sha256) == (what != "weights")
