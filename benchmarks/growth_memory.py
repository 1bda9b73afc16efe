"""What `plan` says that measuring takes, against what it takes: the peak of memory above a loaded model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.engine_meter import peak_bytes
from benchmarks.engine_workloads import random_weights
from benchmarks.growth import Case, Figure
from circuitdsl.verify.session import Session

EDGES = "".join(f"{a}.{a} -> {b}.{b}.q at END : effect <= 40%\n" for a in range(0, 11, 2) for b in range(a + 1, 12, 3))
IOI = "task ioi(corrupt = abc, prompts = {n}, seed = 0)\n"
WHOLE = "heads a = 8.6 9.9 at END\nheads b = 5.5 at S2\nb -> a.k at S2 : lowers\nexpect faithfulness >= 5%\n"
LONG = 'task long = file("long.jsonl")\n8.6 -> 9.9.q at END : effect <= 40%\n5.5 -> 8.6.k at P : effect <= 40%\n'


def gpt2(folder: Path, lines: str) -> str:
    """The path of a spec about random weights of GPT-2 small's shape."""
    model = random_weights("gpt2-small", folder)
    (folder / "t.circ").write_text(f'circuit t\nmodel "{model}"\n{lines}')
    return str(folder / "t.circ")


def long_prompts(folder: Path) -> str:
    """The path of a spec about 8 prompts of 1000 tokens."""
    draw, rows = random.Random(0), []
    for _ in range(8):
        words = [draw.choice([" the", " cat", " dog", " house", " tree", " car", " sun"]) for _ in range(998)]
        clean, corrupt = (f"The{''.join([*words[:500], word, *words[501:]])} is" for word in (" moon", " red"))
        answers = {"answer": " big", "distractor": " small", "positions": {"P": 501}}
        rows.append(json.dumps({"clean": clean, "corrupt": corrupt} | answers))
    (folder / "long.jsonl").write_text("\n".join(rows))
    return gpt2(folder, LONG)


def measured(name: str, folder: Path) -> list[Figure]:
    """The forecast, the peak, and how far they are apart."""
    specs: dict[str, Callable[[Path], str | Path]] = {
        "pocket_ioi": lambda _: "pocket/ioi",
        "pocket_repair": lambda _: "pocket/repair",
        "gpt2_64": partial(gpt2, lines=IOI.format(n=64) + EDGES),
        "gpt2_256": partial(gpt2, lines=IOI.format(n=256) + EDGES),
        "gpt2_whole": partial(gpt2, lines=IOI.format(n=64) + WHOLE),
        "gpt2_long": long_prompts,
    }
    spec = specs[name](folder)
    with Session(cache=False) as session:
        (forecast,) = session.plan(spec)
        assert session.source_of(session.spec(spec).first()).parts  # the model is in memory before
        peak = peak_bytes(torch.device("cpu"), lambda: session.verify(spec))
    apart = max(forecast.memory / peak, peak / forecast.memory)
    return [
        Figure("planned", forecast.memory / 1e6, "MB"),
        Figure("peak", peak / 1e6, "MB"),
        Figure("apart", apart, "×", 1.2),
    ]


_SAYS = {
    "pocket_ioi": "`pocket/ioi`",
    "pocket_repair": "interventions, `pocket/repair`",
    "gpt2_64": "edges, 64 prompts, gpt2-small's shape",
    "gpt2_256": "edges, 256 prompts, gpt2-small's shape",
    "gpt2_whole": "the whole circuit, 64 prompts, gpt2-small's shape",
    "gpt2_long": "edges, 8 prompts of 1000 tokens, gpt2-small's shape",
}
CASES = tuple(
    Case(f"memory_{name}", f"memory that `plan` says: {says}", partial(measured, name)) for name, says in _SAYS.items()
)
