"""A model that takes a good part of a small machine's memory: random weights of a Llama's shape, in bfloat16.

The shards are written one after the other, so that the weights are never in memory all at once.
"""

from __future__ import annotations

import gc
import json
import shutil
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks.engine_meter import median_seconds, peak_bytes
from benchmarks.growth import Case, Figure
from circuitdsl.models.load import POCKET, load_model
from circuitdsl.models.pretrained import shapes_alone
from circuitdsl.models.record import open_model
from circuitdsl.verify.session import Session

#: 1.1e9 and 1.0e8 weights; their tokenizer is the pocket model's, so that its task has prompts for them
SHAPES: dict[str, dict[str, int]] = {
    "1100m": {"num_hidden_layers": 12, "hidden_size": 2560, "intermediate_size": 6912, "vocab_size": 32000},
    "100m": {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 2048, "vocab_size": 9000},
}
#: most that loading may take, as a multiple of the weights
AIM = 1.1
SPEC = """circuit big
model "{model}"
task ioi(corrupt = abc, prompts = {prompts}, seed = 0)
heads early = 2.1, 3.4 at S2
heads late = 9.1, 10.2 at END
early -> late.q at END
early -> late.v at S2 : effect <= 40%
expect knockout(late) : effect <= 40%
expect attention(late, END -> IO) <= 90%
expect faithfulness <= 90%
"""


def big_llama(folder: Path, shape: str, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A directory with a model of a shape, a shard for each of its layers."""
    from safetensors.torch import save_file
    from transformers import AutoConfig

    more = {"num_attention_heads": 12 if shape == "100m" else 20, "max_position_embeddings": 512}
    config = AutoConfig.for_model(
        "llama", **SHAPES[shape], **more, bos_token_id=0, eos_token_id=0, pad_token_id=0, dtype=dtype
    )
    place, made = folder / shape, torch.Generator().manual_seed(0)
    place.mkdir()
    config.save_pretrained(place)
    groups: dict[str, list[tuple[str, torch.Size]]] = {}
    for name, weight in shapes_alone(config, dtype).named_parameters():
        groups.setdefault(name.split(".")[2] if ".layers." in name else name, []).append((name, weight.shape))
    index: dict[str, str] = {}
    for at, group in enumerate(groups.values()):
        shard = f"model-{at + 1:05}-of-{len(groups):05}.safetensors"
        drawn = {
            name: torch.ones(size, dtype=dtype)
            if len(size) == 1
            else torch.empty(size, dtype=dtype).normal_(0, 0.03, generator=made)
            for name, size in group
        }
        save_file(drawn, place / shard, metadata={"format": "pt"})
        index |= dict.fromkeys(drawn, shard)
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    for file in POCKET.glob("tokenizer*.json"):
        shutil.copy(file, place)
    return place


def bytes_of(place: Path) -> int:
    """Bytes of a model's weights."""
    return sum(file.stat().st_size for file in place.glob("*.safetensors"))


def loading(shape: str, folder: Path) -> list[Figure]:
    """What loading takes beside transformers' own, and what opening takes once the model is known."""
    from transformers import AutoModelForCausalLM

    place, cpu = big_llama(folder, shape), torch.device("cpu")
    time.sleep(4)  # the hash of a file that was written just now is not kept
    weights, known = bytes_of(place), folder / "known"
    dtype = {"dtype": torch.bfloat16, "attn_implementation": "eager"}

    def theirs() -> object:
        model = AutoModelForCausalLM.from_pretrained(place, **dtype)
        return sum(bool(weight.sum().isfinite()) for weight in model.parameters())  # they are read when they are used

    opened = partial(open_model, place, "cpu", "bfloat16", folder=known)
    load_model(POCKET, "cpu")  # libraries are imported
    own, _ = median_seconds(time.process_time, theirs, 1)
    peaks, seconds = [], []
    for work in (opened, lambda: opened().parts):
        start = time.process_time()
        peaks.append(peak_bytes(cpu, work) / weights)
        seconds.append(time.process_time() - start - own)
        gc.collect()
    return [
        Figure("weights", weights / 1e6, "MB"),
        Figure("peak / weights", peaks[0], "×", AIM),
        Figure("peak / weights, once the model is known", peaks[1], "×", AIM),
        Figure("transformers' own", own, "s of CPU"),
        Figure("more than that: hashes, and the check of the view", seconds[0], "s of CPU"),
        Figure("more than that, once the model is known", seconds[1], "s of CPU"),
    ]


def verifying(shape: str, folder: Path) -> list[Figure]:
    """A whole `verify` in bfloat16, with loading, and what `plan` says of its memory."""
    place = big_llama(folder, shape)
    (folder / "big.circ").write_text(SPEC.format(model=place, prompts=4))
    load_model(POCKET, "cpu")
    with Session(dtype="bfloat16", cache=False, allow_outside=True) as session:
        (forecast,) = session.plan(folder / "big.circ")
        start = time.process_time()
        peak = peak_bytes(torch.device("cpu"), lambda: session.verify(folder / "big.circ"))
    planned = forecast.weights + forecast.memory
    return [
        Figure("planned", planned / 1e6, "MB"),
        Figure("peak", peak / 1e6, "MB"),
        Figure("apart", max(planned / peak, peak / planned), "×", 1.2),
        Figure("loading and verifying", time.process_time() - start, "s of CPU"),
    ]


CASES = (
    Case("big_loading", "a Llama of 1.1 B weights in bfloat16, in 15 shards: loading", partial(loading, "1100m")),
    Case("big_verify", "`verify` of six claims on it, 12 layers, 4 prompts", partial(verifying, "1100m"), threads=2),
)
