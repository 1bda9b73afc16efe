"""Time over the floor of W2 to W4 (`benchmarks.engine`) on random models of every family, of the width of GPT-2 small.

    OMP_NUM_THREADS=1 python -m benchmarks.engine_families                      # half an hour of CPU time
    OMP_NUM_THREADS=1 python -m benchmarks.engine_families olmo2 mixtral -n 8
    OMP_NUM_THREADS=1 python -m benchmarks.engine_families --operations -n 2    # two minutes; no clock is read

With `--operations` it is not time that is compared, but the operations that are done with those that are needed.

Of a mixture of experts the floor counts the experts that a position has.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import engine_workloads as workloads
from benchmarks.engine_floor import Rates, needed
from benchmarks.engine_meter import clock_of, median_seconds
from circuitdsl.engine.experiment import Readout
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import run
from circuitdsl.models.families import FAMILIES
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer

LAYERS, HEADS, WIDTH, INNER = 12, 12, 768, 3072
SIZES = {
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "hidden_size": WIDTH,
    "max_position_embeddings": 128,
    "vocab_size": 2000,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
}
EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": INNER // 2}
#: what a family calls otherwise, or needs beside that; a quarter of the heads have keys and values of their own
GROUPED = {"intermediate_size": INNER, "num_key_value_heads": HEADS // 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
    "gpt_neox": {"intermediate_size": INNER},
    "gptj": {"rotary_dim": 32},
    "opt": {"ffn_dim": INNER},
    "bloom": {},
    "falcon": {"alibi": True, "parallel_attn": False},
    "mixtral": GROUPED | EXPERTS,
    "olmoe": EXPERTS | {"num_experts": 8, "clip_qkv": 8.0},
    "qwen3_moe": GROUPED | {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": INNER // 2},
}


def made(kind: str, place: Path) -> Transformer:
    """A random model of a family, its weights as `workloads.random_weights` has them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **OPTIONS.get(kind, GROUPED)}))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(workloads.LARGER)
    model.save_pretrained(place)
    return load_model(place, device="cpu")


class Counted(TorchDispatchMode):
    """Counts the operations of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        if any(name in str(op) for name in ("aten.mm.", "aten.bmm.", "aten.matmul.", "linear")):
            self.operations += 2 * out.numel() * args[0].shape[-1]
        return out


def over_the_floor(model: Transformer, n: int, length: int, repeats: int, operations: bool = False) -> list[float]:
    """Of W2, W3 and W4: of the time, or of the operations."""
    clock, found = clock_of(model.device), []
    rates = Rates(model, clock)
    for load in (
        workloads.queries_at_end(model, 52, n, length),
        workloads.keys_and_values_at_s2(model, n, length),
        workloads.anywhere(model, 52, n, length),
    ):
        runs, readout = run(model, load.clean, load.corrupt), Readout(load.answers)
        measured = partial(effects, runs, load.experiments, load.positions, readout)
        if operations:
            with torch.inference_mode(), Counted() as counted:
                measured()
            found.append(counted.operations / sum(needed(model, load).values()))
        else:
            found.append(median_seconds(clock, measured, repeats)[0] / rates.seconds(needed(model, load)))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line for each family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="family", help=f"of {', '.join(FAMILIES)}; default: all")
    parser.add_argument("-n", type=int, default=32, help="prompts")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--operations", action="store_true", help="count operations; take no time")
    given = parser.parse_args(arguments)
    print("| family | W2 | W3 | W4 |\n|---|---|---|---|")
    for kind in given.families or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            model = made(kind, Path(folder))
            figures = over_the_floor(model, given.n, given.tokens, given.repeats, given.operations)
        print(f"| {kind} | {' | '.join(f'{figure:.2f}' for figure in figures)} |", flush=True)


if __name__ == "__main__":
    main()
