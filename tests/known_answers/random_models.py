"""Models of random weights, where nothing is a circuit: claims that something matters should hold as rarely as chance.

So that there is an effect to speak of, the answer to each prompt is what the model itself prefers on it over the
corrupt prompt, by more than it does on the corrupt one: the gap is real, and no part was made for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch

from circuitdsl.models.agreement import forward
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset, PromptPair

LAYERS, HEADS, VOCAB, LENGTH = 4, 6, 30, 8
POSITIONS = {"A": (2,), "B": (4,), "C": (5,), "END": (LENGTH - 1,)}


def random_model(path: Path, seed: int) -> Transformer:
    """A GPT-2 whose weights are large enough for every head and MLP to do something."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=16, n_embd=48, n_layer=LAYERS, n_head=HEADS, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
            else:
                weight.normal_(0, 1.0 if "wte" in name or "wpe" in name else 0.25)
    model.save_pretrained(path / f"random-{seed}")
    return load_model(path / f"random-{seed}", device="cpu")


def random_task(model: Transformer, n: int, seed: int) -> Dataset:
    """Random prompts whose partners differ at A, B and C; answers are the model's own."""
    draw = torch.Generator().manual_seed(seed)
    clean = torch.randint(1, VOCAB, (n, LENGTH), generator=draw)
    corrupt = clean.clone()
    for (place,) in (POSITIONS[name] for name in "ABC"):
        corrupt[:, place] = torch.randint(1, VOCAB, (n,), generator=draw)
    with torch.inference_mode():
        change = forward(model, clean)[:, -1] - forward(model, corrupt)[:, -1]
    answers, distractors = change.argmax(-1).tolist(), change.argmin(-1).tolist()
    pairs = [
        PromptPair(tuple(a), tuple(b), (y,), (z,), POSITIONS, "")
        for a, b, y, z in zip(clean.tolist(), corrupt.tolist(), answers, distractors, strict=True)
        if y != z
    ]
    return Dataset("known", "abc", seed, False, tuple(pairs))


def matters_claims(seed: int) -> Iterator[tuple[str, str]]:
    """Claims that random edges, groups and knock-outs matter, with the groups they name; no end to them.

    Heads are drawn from all that could take their place: for an edge those below its receiver, for a knock-out all.
    """
    draw = random.Random(seed)
    while True:
        size, position, out = draw.choice((1, 1, 2, 3)), draw.choice("ABC"), draw.random() < 0.2
        top = LAYERS if out else draw.choice((2, 3, 3, LAYERS, LAYERS))
        senders = [f"{layer}.{head}" for layer in range(top) for head in range(HEADS)]
        chosen = sorted(draw.sample(senders, size))
        name = "g_" + "_".join(chosen).replace(".", "_")
        group = f"heads {name} = {' '.join(chosen)}" if size > 1 else ""
        sender = name if size > 1 else chosen[0]
        if out:
            knocked = f"out_{len(chosen)}_" + "_".join(chosen).replace(".", "_")
            yield f"expect knockout({knocked}) : matters", f"heads {knocked} = {' '.join(chosen)} at END"
        elif top == LAYERS:
            yield f"{sender} -> logits at END : matters", group
        else:
            port = draw.choice("qkv")
            place = "END" if port == "q" else position
            yield f"{sender} -> {top}.{draw.randrange(HEADS)}.{port} at {place} : matters", group


def matters_spec(model: Transformer, claims: Iterator[tuple[str, str]], size: int, prompts: int) -> str:
    """The next `size` different claims as a spec."""
    found: dict[str, str] = {}
    while len(found) < size:
        line, group = next(claims)
        found[line] = group
    groups = dict.fromkeys(group for group in found.values() if group)
    head = ["circuit known", f'model "{model.name}"', f'task known = file("known.jsonl", prompts = {prompts})']
    return "\n".join([*head, *groups, *found]) + "\n"
