"""The inputs of `hostile.py`: each part is a function of a folder that gives a function of a number.

The latter makes the input of that number, lets the product read it, checks what every input must keep to, and returns
in a few words how it ended.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.hostile_kills import kills
from circuitdsl.api import loads
from circuitdsl.errors import UserError
from circuitdsl.language.parse import decode
from circuitdsl.models.load import POCKET, load_model, load_tokenizer, vocabulary_size
from circuitdsl.report.report import Report
from circuitdsl.tasks.from_file import pairs_in
from circuitdsl.tasks.reading import Reading
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.session import Session
from tests.language.mutations import MUTATIONS, WORDS, mutated, read, seeds

#: makes the input of a number, tries it, and says how it ended
One = Callable[[int], str]

# --- texts --------------------------------------------------------------------------------------------

#: lines of a spec that are mutated at the most, and one text in so many is a whole spec
_LINES, _WHOLE = 12, 50


def texts(folder: Path) -> One:
    """Soups of words and signs, pieces of specs and a few whole ones with changes, and random bytes."""

    def one(number: int) -> str:
        rng = random.Random(f"text/{number}")
        kind = number % 10
        if number % _WHOLE == 0:
            text = mutated(rng)
        elif kind < 4:
            text = " ".join(rng.choices(WORDS, k=rng.randint(1, 40))).replace(" \n ", "\n")
        elif kind < 9:
            text = mutated(rng, _piece(rng)) if kind < 7 else rng.choice(MUTATIONS)(_claiming(rng), rng)
        else:
            most = rng.choice((128, 256))
            text, found = decode(bytes(rng.choices(range(most), k=rng.randint(0, 80))))
            if found:
                return "no UTF-8 text"
        return "refused" if any(each.severity == "error" for each in read(text)) else "a circuit"

    return one


def _piece(rng: random.Random) -> str:
    lines = rng.choice(seeds()).split("\n")
    start = rng.randrange(len(lines))
    return "\n".join(lines[start : start + rng.randint(1, _LINES)])


def _claiming(rng: random.Random, most: int = 5) -> str:
    """A shipped spec with a few of its claims."""
    lines = rng.choice(_shipped()).split("\n")
    claims = [line for line in lines if "->" in line or line.startswith(("expect", "margin"))]
    chosen = rng.sample(claims, min(len(claims), rng.randint(1, most)))
    return "\n".join([*(line for line in lines if line.startswith(_HEADS)), *chosen])


_HEADS = ("circuit", "model", "task", "metric", "heads", "mlps", "nodes")


@cache
def _shipped() -> list[str]:
    return [text for text in seeds() if 'model "pocket"' in text.replace("  ", " ") and "file(" not in text]


# --- configurations and prompt files ------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 10**9, 10**30, -(10**30), 1e308, 0.5, float("nan"), float("inf"), "", "x",
    "\x1b[2J", "\u202etxt", "\ud800", "../x", "/dev/zero", "gelu", "llama", "gpt2", [], [[]], {}, {"a": 1}, [1, 2],
    "9" * 5000,
)  # fmt: skip
KEYS = (
    "model_type", "architectures", "vocab_size", "n_layer", "n_embd", "n_head", "n_inner", "n_positions",
    "activation_function", "layer_norm_epsilon", "tie_word_embeddings", "bos_token_id", "eos_token_id", "dtype",
    "torch_dtype", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "use_cache",
    "auto_map", "quantization_config", "transformers_weights", "attn_implementation", "_attn_implementation",
    "text_config", "rope_scaling", "rope_parameters", "sliding_window", "layer_types", "head_dim", "hidden_size",
    "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "is_encoder_decoder", "add_cross_attention",
    "pruned_heads", "id2label", "num_labels", "problem_type", "output_attentions", "return_dict", "pad_token_id",
    "transformers_version", "tokenizer_class", "task_specific_params", "summary_type", "chunk_size_feed_forward",
)  # fmt: skip


def _odd(rng: random.Random, value: Any) -> Any:
    """A JSON value with one change somewhere in it."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        return {**value, key: _odd(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], _odd(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, str) and rng.random() < 0.5:
        at = rng.randint(0, len(value))
        return value[:at] + str(rng.choice(ODD)) + value[at + rng.randint(0, 3) :]
    if isinstance(value, int) and rng.random() < 0.5:
        return value * rng.choice((-1, 2, 3)) + rng.choice((-1, 0, 1))
    return rng.choice(ODD)


def _spoilt(rng: random.Random, content: bytes) -> bytes:
    """A few bytes changed, or the end cut off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)


def configs(folder: Path) -> One:
    """The pocket model's configuration with changes, its weights as they are."""
    given = json.loads((POCKET / "config.json").read_text())
    model = folder / "model"
    model.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(POCKET / name, model / name)

    def one(number: int) -> str:
        rng, config = random.Random(f"config/{number}"), dict(given)
        for _ in range(rng.randint(1, 3)):
            if rng.random() < 0.5:
                key = rng.choice(list(config))
                config[key] = _odd(rng, config[key])
            elif rng.random() < 0.8:
                config[rng.choice(KEYS)] = rng.choice(ODD)
            else:
                config.pop(rng.choice(list(config)), None)
        content = json.dumps(config if number % 7 else rng.choice((*ODD, [config]))).encode()
        (model / "config.json").write_bytes(_spoilt(rng, content) if number % 5 == 0 else content)
        spec = loads('circuit t\nmodel "."\ntask ioi\nexpect accuracy >= 5%\n', folder / "t.circ", model)
        if not spec.ok:
            return "refused by check"
        try:
            load_model(str(model), device="cpu")
        except UserError as error:
            return "refused" if _said(error) else ""
        return "loaded"

    return one


def _said(error: UserError) -> bool:
    """Whether an error says something, and not too much."""
    assert 0 < len(error.message) < 20_000, len(error.message)
    return True


CLEAN = "The store Lauren and Matthew went to had a drink. Lauren gave it to"
PAIR: dict[str, Any] = {
    "clean": CLEAN, "corrupt": CLEAN.replace(". Lauren", ". Emily"), "answer": " Matthew", "distractor": " Lauren",
    "positions": {"IO": "Matthew", "S2": [11]}, "stratum": "a", "corrupt_answer": " Emily", "answer_tokens": "first",
}  # fmt: skip


def prompt_files(folder: Path) -> One:
    """A few prompt pairs with changes, as JSON Lines or CSV, and some of them with changed bytes."""
    tokens, size = Tokens(load_tokenizer("pocket"), "pocket"), vocabulary_size("pocket")

    def one(number: int) -> str:
        rng = random.Random(f"prompts/{number}")
        path = folder / ("p.csv" if number % 4 == 0 else "p.jsonl")
        pairs = [_pair(rng) for _ in range(rng.randint(1, 6))]
        if path.suffix == ".csv":
            rows = [PAIR, *(pair.values() if isinstance(pair, dict) else [pair] for pair in pairs)]
            lines = [",".join(f'"{cell}"' if rng.random() < 0.9 else str(cell) for cell in row) for row in rows]
        else:
            lines = list(map(json.dumps, pairs))
        content = "\n".join(lines).encode("utf-8", "surrogatepass")
        path.write_bytes(_spoilt(rng, content) if number % 5 == 0 else content)
        try:
            found = Reading(path)
            with pairs_in(path, tokens, size) as read:
                assert all(pair for _, pair in found.usable(read))
        except UserError as error:
            return "not read" if _said(error) else ""
        assert all("\n" not in named for named in found.named)
        return "with bad lines" if found.bad else "without bad lines"

    return one


def _pair(rng: random.Random) -> Any:
    """A prompt pair; every other with a change."""
    pair = dict(PAIR)
    if rng.random() < 0.5:
        return pair
    if rng.random() < 0.05:
        return rng.choice(ODD)
    key = rng.choice((*pair, "x", "clean_tokens", "corrupt_tokens"))
    return {**pair, key: _odd(rng, pair.get(key))}


# --- whole verifications ------------------------------------------------------------------------------


def verifications(folder: Path) -> One:
    """Specs of a few claims, most of them changed, that can be read: verified on a few prompts, and written."""
    session = Session(device="cpu")

    def one(number: int) -> str:
        rng = random.Random(f"verification/{number}")
        text = _readable(rng)
        try:
            report = session.verify(loads(text), prompts=rng.choice((2, 3, 8, 24)))
        except UserError as error:
            return "refused when run" if _said(error) else ""
        assert isinstance(report, Report)
        json.dumps(report.to_json(), allow_nan=False)
        assert str(report) and report._repr_html_()
        return {0: "all claims hold", 1: "some do not hold", 3: "some cannot be measured"}[report.exit_status()]

    return one


def _readable(rng: random.Random) -> str:
    """A spec that has no errors, and claims something."""
    while True:
        text = _claiming(rng)
        for _ in range(rng.randint(0, 2)):
            text = rng.choice(MUTATIONS)(text, rng)
        spec = loads(text)
        if spec.ok and len(spec.circuits) == 1 and spec.circuits[0].claims and spec.circuits[0].tasks:
            return text


PARTS: dict[str, Callable[[Path], One]] = {
    "prompt files": prompt_files,
    "configs": configs,
    "kills": kills,
    "verifications": verifications,
    "texts": texts,
}
