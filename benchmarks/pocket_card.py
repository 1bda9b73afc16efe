"""The embedded models' figures and curves: `python -m benchmarks.pocket_card`.

Prints accuracy on prompts whose combinations training never saw (see `circuitdsl.models.pocket.mixture.held_out`),
for every task, and draws `curves.svg` beside each model from its training log. Needs matplotlib for the picture.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

from circuitdsl.circuit.shapes import EMBEDDED
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.prompts import behaviour
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.models.pocket import mixture
from circuitdsl.tasks.dataset import Dataset, PromptPair, encode
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.prompts import scored_prompts

PROMPTS, SEED = 1000, 1


def held_out_prompts(task: str, tokens: Tokens, n: int, seed: int = SEED) -> tuple[PromptPair, ...]:
    """Prompts of a task whose asked combination never occurs in training."""
    rng = random.Random(f"card/{task}/{seed}")
    drafts = [mixture.draw(task, rng, mixture.held_out) for _ in range(n)]
    return encode(TASKS[task], tokens, drafts)


def accuracies(model: Transformer, task: str, n: int = PROMPTS) -> tuple[float, float]:
    """Accuracy against the distractors, and against the whole vocabulary."""
    pairs = held_out_prompts(task, Tokens(model.tokenizer, model.name), n)
    found = scored_prompts(model, Dataset(task, "none", SEED, False, pairs), Metric("accuracy"))
    return float(found.clean.mean()), float(behaviour(found, Metric("accuracy", (("argmax", ""),))).mean())


def curves(log: Path, picture: Path, name: str) -> None:
    """Accuracy of every task, and the loss, by update."""
    from matplotlib import pyplot as plt

    with log.open() as file:
        rows = [{key: float(row[key]) for key in ("update", "loss", *TASKS)} for row in csv.DictReader(file)]
    updates = [row["update"] for row in rows]
    figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(7, 5), height_ratios=(3, 1), layout="constrained")
    for task in TASKS:
        top.plot(updates, [100 * row[task] for row in rows], label=task.replace("_", " "), linewidth=1.6)
    top.set(ylabel="accuracy on held-out prompts, %", ylim=(0, 102), title=f"{name} in training")
    top.legend(loc="lower right", frameon=False)
    bottom.plot(updates, [row["loss"] for row in rows], color="0.3")
    bottom.set(ylabel="loss", xlabel="update", yscale="log")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, metadata={"Date": None})


def main() -> None:
    for name, directory in EMBEDDED.items():
        model = load_model(name, device="cpu")
        print(f"{name}\n\n| task | accuracy | against the whole vocabulary |\n|---|---|---|")
        for task in TASKS:
            shares = accuracies(model, task)
            print(f"| `{task}` | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |", flush=True)
        curves(directory / "log.csv", directory / "curves.svg", name)
        print(f"\ndrew {directory / 'curves.svg'}\n")


if __name__ == "__main__":
    main()
