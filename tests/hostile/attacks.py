"""Model directories and prompt files from strangers, each made from a small model by one change.

Large files are sparse: they take no room on the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

Attack = Callable[[Path], object]
DEEP = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PADDING = {
    "strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": 8,
    "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>",
}  # fmt: skip


def says(file: str, **values: Any) -> Attack:
    """Keys of a JSON file."""

    def change(model: Path) -> None:
        given = json.loads((model / file).read_text())
        (model / file).write_text(json.dumps(given | values))

    return change


def config(**values: Any) -> Attack:
    return says("config.json", **values)


def holds(file: str, text: str) -> Attack:
    return lambda model: (model / file).write_text(text)


def link(file: str, target: str) -> Attack:
    """A link in the place of a file, which is moved away where the target is in another folder."""

    def change(model: Path) -> None:
        elsewhere = model / target
        if not elsewhere.exists():
            elsewhere.parent.mkdir(exist_ok=True)
            (model / file).rename(elsewhere)
        (model / file).unlink(missing_ok=True)
        (model / file).symlink_to(elsewhere)

    return change


def pipe(file: str) -> Attack:
    def change(model: Path) -> None:
        (model / file).unlink(missing_ok=True)
        os.mkfifo(model / file)

    return change


def large(file: str, size: int) -> Attack:
    return lambda model: os.truncate(model / file, size)


def other_weights(model: Path, file: str) -> None:
    """Weights of the same names and shapes, in a file of another name."""
    changed = {name: value * 0 for name, value in load_file(model / WEIGHTS).items()}
    (model / file).parent.mkdir(exist_ok=True)
    save_file(changed, model / file, {"format": "pt"})


def stored_as(kind: str) -> Attack:
    """One matrix of the weights in another number format."""

    def change(model: Path) -> None:
        held = load_file(model / WEIGHTS)
        name = "transformer.h.1.attn.c_proj.weight"
        held[name] = np.sign(held[name]).astype(kind)
        save_file(held, model / WEIGHTS, {"format": "pt"})

    return change


def sharded(named: str, decoy: str = "") -> Attack:
    """One shard, which the index names so; a decoy lies where the last part of the name points."""

    def change(model: Path) -> None:
        other_weights(model, decoy or "unused.safetensors")
        (model / WEIGHTS).rename(model / "part.safetensors")
        tensors = load_file(model / "part.safetensors")
        (model / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, named)}))

    return change


def broken_index(text: str) -> Attack:
    def change(model: Path) -> None:
        (model / WEIGHTS).unlink()
        (model / INDEX).write_text(text)

    return change


def together(*changes: Attack) -> Attack:
    return lambda model: [change(model) for change in changes]


#: refused by every verb that looks at a model, with what the sentence says
CONFIGURATIONS: dict[str, tuple[Attack, str]] = {
    "100 000 deep": (holds("config.json", DEEP), r"config\.json (cannot be read|is not JSON)"),
    "30 deep": (holds("config.json", '{"a":' * 30 + "1" + "}" * 30), r"more than 20 deep"),
    "a device": (link("config.json", "/dev/zero"), r"config\.json .*(not an ordinary file|link to a file in /dev)"),
    "a pipe": (pipe("config.json"), r"config\.json cannot be read: it is not an ordinary file"),
    "2 MB": (large("config.json", 2 * 10**6), r"config\.json cannot be read: it has 2\.0 MB, and 1 MB are read"),
    "n_head -8": (config(n_head=-8), r"config\.json has n_head = -8; it is a number from 1 to 4096"),
    "n_head 0": (config(n_head=0), r"has n_head = 0;"),
    "n_embd 0": (config(n_embd=0), r"has n_embd = 0;"),
    "n_embd 1e30": (config(n_embd=1e30), r"has n_embd = 1e\+30;"),
    "num_labels": (config(num_labels=10**8), r"has num_labels = 100000000; it is a number from 0 to 10000"),
    "vocab_size": (config(vocab_size=10**7), r"has vocab_size = 10000000;"),
    "a long number": (config(n_inner=10**4000), r"has n_inner = 10{20,};"),
    "layers": (config(n_layer=400_000), r"has n_layer = 400000;"),
    "inside": (config(text_config={"num_attention_heads": 0}), r"has num_attention_heads = 0;"),
}  # fmt: skip
#: refused by verbs that read weights
LOADED: dict[str, tuple[Attack, str]] = {
    "transformers_weights": (config(transformers_weights="evil.safetensors"), r"has transformers_weights, by which"),
    "quantization": (config(text_config={"quantization_config": {"load_in_8bit": True}}), r"has quantization_config"),
    "an adapter": (holds("adapter_config.json", "{}"), r"holds adapter_config\.json"),
    "a folder beside a decoy": (sharded("sub/part.safetensors", "sub/part.safetensors"), r"names 'sub/part"),
    "the folder above": (sharded("../part.safetensors"), r"names '\.\./part\.safetensors', which is not"),
    "a pickle": (sharded("part.bin"), r"names 'part\.bin', which is not"),
    "an index 100 000 deep": (broken_index(DEEP), r"index\.json cannot be read"),
    "an index of nothing": (broken_index('{"weight_map": {}}'), r"does not say which file"),
    "an index of 20 MB": (together(broken_index("{}"), large(INDEX, 20 * 10**6)), r"it has 20\.0 MB, and 17 MB"),
    "a link": (link(WEIGHTS, "../elsewhere/w"), r"model\.safetensors is a link to a file in .*elsewhere, which is not"),
    "a pipe": (pipe(WEIGHTS), r"model\.safetensors cannot be read: it is not an ordinary file"),
    "int8": (stored_as("int8"), r"c_proj\.weight in .* holds I8, not numbers as they are"),
    "bool": (stored_as("bool"), r"c_proj\.weight in .* holds BOOL, not numbers as they are"),
}  # fmt: skip
#: refused by verbs that make prompts
TOKENIZERS: dict[str, tuple[Attack, str]] = {
    "100 000 deep": (holds("tokenizer.json", DEEP), r"the tokenizer in .* cannot be read"),
    "settings 100 000 deep": (holds("tokenizer_config.json", DEEP), r"tokenizer_config\.json cannot be read"),
    "a pipe": (pipe("tokenizer.json"), r"tokenizer\.json cannot be read: it is not an ordinary file"),
    "a link": (link("tokenizer.json", "../elsewhere/t"), r"tokenizer\.json is a link to a file in .*elsewhere"),
    "70 MB": (large("tokenizer.json", 70 * 10**6), r"tokenizer\.json cannot be read: it has 70\.0 MB, and 67 MB"),
    "no tokens": (
        together(
            says("tokenizer.json", model={"type": "WordLevel", "vocab": {}, "unk_token": "?"}, added_tokens=[]),
            lambda model: (model / "tokenizer_config.json").unlink(),
        ),
        r"the tokenizer in .* cannot be read: it has no tokens",
    ),
    "no word": (
        says("tokenizer.json", model={"type": "WordLevel", "vocab": {}, "unk_token": "?"}, added_tokens=[]),
        r"the tokenizer of .* cannot read 'to': WordLevel error",
    ),
}  # fmt: skip
#: ignored: everything is measured as if they were not there
HARMLESS: dict[str, Attack] = {
    "a kernel": config(_attn_implementation="kernels-community/flash-attn", attn_implementation="nobody/nothing"),
    "code": together(
        config(auto_map={"AutoModelForCausalLM": "mine.M", "AutoConfig": "mine.C"}, trust_remote_code=True),
        says("tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.T", "mine.T"]}, trust_remote_code=True),
        lambda model: (model / "mine.py").write_text(f"open({str(model / 'ran')!r}, 'w')"),
    ),
    "other outputs": config(return_dict=False, output_attentions=True, output_hidden_states=True),
    "another tokenizer": together(
        says("tokenizer_config.json", tokenizer_file="/nowhere/t.json", fast_tokenizer_files=["tokenizer.4.0.json"]),
        holds("tokenizer.4.0.json", "{}"),
    ),
    "padding on the left": together(
        says("tokenizer_config.json", padding_side="left", pad_token="<|endoftext|>"),
        says("tokenizer.json", padding=PADDING),
    ),
    "cutting off": says(
        "tokenizer.json", truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    ),
    "more weights": together(
        lambda model: other_weights(model, "model-00001-of-00001.safetensors"),
        lambda model: other_weights(model, "evil.safetensors"),
        holds(INDEX, '{"weight_map": {"transformer.wte.weight": "evil.safetensors"}}'),
        holds("pytorch_model.bin", "\x80\x04."),
    ),
    "other files": together(
        pipe("notes.json"), link("results.json", "/dev/zero"), holds("generation_config.json", DEEP)
    ),
}  # fmt: skip
#: prompt files, refused before a model is looked at
PROMPTS: dict[str, tuple[Attack, str]] = {
    "a device": (link("p.jsonl", "/dev/zero"), r"p\.jsonl(: it is not an ordinary| leads out of the)"),
    "a pipe": (pipe("p.jsonl"), r"p\.jsonl: it is not an ordinary file"),
    "a folder": (lambda folder: (folder / "p.jsonl").mkdir(), r"p\.jsonl: it is a directory"),
    "2 GB": (together(holds("p.jsonl", ""), large("p.jsonl", 2 * 10**9)), r"it has 2,000\.0 MB, and 1,000 MB are read"),
    "one line": (holds("p.jsonl", '{"clean": "' + "a" * 3_000_000), r"p\.jsonl:1: the line has more than 1 MB"),
    "two lines": (holds("p.jsonl", "a" * 3_000_000 + "\n{}"), r"p\.jsonl:2: there is no clean prompt"),
    "deep": (holds("p.jsonl", DEEP), r"p\.jsonl:1: not JSON"),
    "no text": (lambda folder: (folder / "p.jsonl").write_bytes(b"\xff\xfe"), r"it is not UTF-8 text"),
}  # fmt: skip
