"""Train dictionaries of the pocket model's features: `python -m circuitdsl.models.pocket.dictionaries OUT`.

A transcoder for every MLP (from what it reads, behind its norm, to what it writes) and a sparse autoencoder for the
residual stream after every layer. They are trained with batch top-k (Bussmann et al. 2024, arXiv:2412.06410): the
largest `k` activations a token are kept, counted over a whole batch. Dead features are given the error to explain
(Gao et al. 2024, arXiv:2406.04093). What is written is a JumpReLU dictionary in SAELens' layout: a feature fires
above one threshold, the mean of the smallest activation that was kept.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from circuitdsl.dictionaries import read_dictionary
from circuitdsl.dictionaries.coder import load
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import PORTS, Transformer, attend
from circuitdsl.models.pocket import mixture
from circuitdsl.tasks.task import Draft

Function = Callable[[Tensor], Tensor]
#: activations a token that are kept, and features
K, TRANSCODER, AUTOENCODER = 12, 256, 512
#: texts that activations are taken of, of training and for the card; tokens of a batch, batches
TEXTS, HELD_OUT, ROWS, UPDATES = 24000, 3000, 1024, 4000
RATE, AUXILIARY = 1e-3, 1 / 32
#: batches after which a feature that never fired is dead
DEAD = 100


@dataclass(frozen=True)
class Place:
    """Where a dictionary sits.

    Attributes:
        folder: of its files.
        reads, writes: the names of the hooks of TransformerLens; the same for an autoencoder.
    """

    folder: str
    reads: str
    writes: str
    features: int


def _transcoder(layer: int) -> Place:
    hooks = f"blocks.{layer}.ln2.hook_normalized", f"blocks.{layer}.hook_mlp_out"
    return Place(f"transcoders/{layer}", *hooks, TRANSCODER)


def _autoencoder(layer: int) -> Place:
    hook = f"blocks.{layer}.hook_resid_post"
    return Place(f"saes/resid{layer + 1}", hook, hook, AUTOENCODER)


PLACES = (*(_transcoder(layer) for layer in range(4)), *(_autoencoder(layer) for layer in range(4)))


def activations(
    model: Transformer, tokens: Tensor, replaced: Mapping[str, Function] | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """What stands at the hooks, `[n, T, d]` each, and the logits; some are replaced by what a dictionary makes."""
    found: dict[str, Tensor] = {}
    replaced = replaced or {}
    resid, turns = model.embed(tokens), model.turns(tokens.shape[1])
    for i, block in enumerate(model.blocks):
        x = block.attn_norm(resid)
        q, k, v = (block.attn.project(port, x, turns[i]).transpose(1, 2) for port in PORTS)
        resid = resid + block.attn.written(attend(block.attn, q, k, v))[1]
        x = found[f"blocks.{i}.ln2.hook_normalized"] = block.mlp_norm(resid)
        coder = replaced.get(f"blocks.{i}.hook_mlp_out")
        out = found[f"blocks.{i}.hook_mlp_out"] = block.mlp(x) if coder is None else coder(x)
        resid = resid + out
        coder = replaced.get(f"blocks.{i}.hook_resid_post")
        resid = found[f"blocks.{i}.hook_resid_post"] = resid if coder is None else coder(resid)
    return found, model.logits(resid)


def texts(many: int, seed: int) -> Iterator[str]:
    """Texts of the model's training data, tasks and practice alike."""
    rng = random.Random(f"dictionaries/{seed}")
    kinds = [kind for batch in mixture.BATCHES for kind, n in batch for _ in range(n)]
    for _ in range(many):
        yield mixture.MAKERS[rng.choice(kinds)](rng).text


def sampled(model: Transformer, many: int, seed: int) -> dict[str, Tensor]:
    """The activations at all hooks on so many texts, `[tokens, d]` each."""
    by_length: dict[int, list[list[int]]] = {}
    for text in texts(many, seed):
        ids = model.tokenizer(text)["input_ids"]
        by_length.setdefault(len(ids), []).append(ids)
    parts: dict[str, list[Tensor]] = {}
    for rows in by_length.values():
        for some in torch.tensor(rows).split(256):
            for hook, values in activations(model, some)[0].items():
                parts.setdefault(hook, []).append(values.flatten(0, 1))
    return {hook: torch.cat(values) for hook, values in parts.items()}


class Coder(nn.Module):
    """Encoder and decoder between two hooks; decoder rows have length 1."""

    def __init__(self, x: Tensor, y: Tensor, features: int) -> None:
        super().__init__()
        self.scale_in, self.scale_out = (float(1 / z.sub(z.mean(0)).square().sum(-1).mean().sqrt()) for z in (x, y))
        self.W_dec = nn.Parameter(nn.functional.normalize(torch.randn(features, y.shape[1]), dim=-1))
        start = self.W_dec.T if x is y else nn.functional.normalize(torch.randn(features, x.shape[1]), dim=-1).T
        self.W_enc = nn.Parameter(start.detach().clone())
        self.b_enc = nn.Parameter(-(x.mean(0) * self.scale_in) @ self.W_enc.detach())
        self.b_dec = nn.Parameter(y.mean(0) * self.scale_out)
        self.threshold = torch.zeros(())

    def before(self, x: Tensor) -> Tensor:
        return x * self.scale_in @ self.W_enc + self.b_enc

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        f = self.before(x).relu()
        out: Tensor = self.decode(f * (f > self.threshold)) / self.scale_out
        return out

    def tensors(self) -> dict[str, Tensor]:
        """As SAELens names them, in half precision; scales are inside of the weights."""
        sizes = 1 / self.scale_out
        found = {
            "W_enc": self.W_enc * self.scale_in * sizes,
            "b_enc": self.b_enc * sizes,
            "W_dec": self.W_dec,
            "b_dec": self.b_dec * sizes,
            "threshold": torch.full_like(self.b_enc, float(self.threshold * sizes)),
        }
        return {name: value.detach().half().contiguous() for name, value in found.items()}


def trained(x: Tensor, y: Tensor, features: int, updates: int, seed: int) -> Coder:
    """A dictionary from activations to activations."""
    torch.manual_seed(seed)
    coder = Coder(x, y, features)
    optimizer = torch.optim.Adam(coder.parameters(), lr=RATE, betas=(0.9, 0.999))
    last = torch.zeros(features)
    for step in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100, 5 * (updates - step) / updates)
        rows = torch.randint(len(x), (ROWS,))
        wanted = y[rows] * coder.scale_out
        before = coder.before(x[rows])
        f = before.relu()
        least = f.detach().flatten().topk(K * ROWS).values[-1]
        kept = f * (f >= least)
        made = coder.decode(kept)
        loss = (made - wanted).square().sum(-1).mean()
        last = torch.where((kept > 0).any(0), step, last)
        if (dead := step - last > DEAD).any():
            most = before[:, dead].topk(min(64, int(dead.sum())), dim=-1)
            again = torch.zeros_like(before[:, dead]).scatter(-1, most.indices, most.values.relu())
            left = (wanted - made).detach()
            loss = loss + AUXILIARY * (again @ coder.W_dec[dead] - left).square().sum(-1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            coder.W_dec.data = nn.functional.normalize(coder.W_dec, dim=-1)
            coder.threshold = torch.lerp(coder.threshold, least, 0.01) if step else least
    return coder


def write(coder: Coder, place: Place, model: Transformer, out: Path) -> None:
    """Write `cfg.json` and `sae_weights.safetensors`."""
    folder = out / place.folder
    folder.mkdir(parents=True, exist_ok=True)
    save_file(coder.tensors(), folder / "sae_weights.safetensors")
    transcoder = place.reads != place.writes
    hooks = {"hook_name": place.reads} | ({"hook_name_out": place.writes} if transcoder else {})
    config = {
        "architecture": "jumprelu_transcoder" if transcoder else "jumprelu",
        "d_in": model.d_model,
        "d_sae": place.features,
        **({"d_out": model.d_model} if transcoder else {}),
        "dtype": "float16",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.51.1", "model_name": "pocket", **hooks, "prepend_bos": False},
    }
    (folder / "cfg.json").write_text(json.dumps(config, indent=1) + "\n")


def read(folder: Path) -> Spliced:
    """A dictionary as it was written, in half precision, with its encoder alone."""
    coder = load(read_dictionary(str(folder)))
    return Spliced(lambda x: coder.decode(coder.encode(x), x), coder.encode)


@dataclass(frozen=True)
class Spliced:
    """What takes the place of what it reads, and how it encodes that."""

    made: Function
    encode: Function

    def __call__(self, x: Tensor) -> Tensor:
        return self.made(x)


def sides(draft: Draft) -> tuple[Sequence[str], Sequence[str]]:
    """Answers and distractors."""
    return draft.answers, draft.distractors


@torch.no_grad()
def accuracy(model: Transformer, task: str, replaced: Mapping[str, Function], many: int = 300) -> float:
    """Share of held-out prompts of a task on which the best answer's logit beats every distractor's."""
    rng, right = random.Random(f"held-out/{task}/dictionaries"), 0
    for _ in range(many):
        draft = mixture.draw(task, rng, mixture.held_out)
        logits = activations(model, torch.tensor([model.tokenizer(draft.clean.text)["input_ids"]]), replaced)[1][0, -1]
        best = (max(logits[model.tokenizer(word)["input_ids"][0]] for word in words) for words in sides(draft))
        right += int(next(best) > next(best))
    return right / many


@torch.no_grad()
def card(model: Transformer, out: Path) -> Iterator[str]:
    """The rows of the model card's table: what each dictionary does on texts that training never saw."""
    held = sampled(model, HELD_OUT, 1)
    tasks = list(mixture.TASKS)
    yield f"| dictionary | reads | features | reconstruction | fire a token | dead | {' | '.join(tasks)} |"
    yield "|" + "---|" * (6 + len(tasks))
    for place in PLACES:
        coder = read(out / place.folder)
        x, y = held[place.reads], held[place.writes]
        f, left = coder.encode(x), y - coder(x)
        explained = 1 - left.square().sum() / (y - y.mean(0)).square().sum()
        kept = _shares(accuracy(model, task, {place.writes: coder}) for task in tasks)
        figures = f"{explained:.1%} | {(f > 0).sum(-1).float().mean():.1f} | {int((f == 0).all(0).sum())}"
        yield f"| `{place.folder}` | `{place.reads}` | {place.features} | {figures} | {kept} |"
    for name in ("transcoders", "saes"):
        coders = {place.writes: read(out / place.folder) for place in PLACES if place.folder.startswith(name)}
        yield f"| all {name} at once | | | | | | {_shares(accuracy(model, task, coders) for task in tasks)} |"


def _shares(values: Iterable[float]) -> str:
    return " | ".join(f"{value:.1%}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="directory for the dictionaries")
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--card", action="store_true", help="only measure those that are there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, start = load_model("pocket", "cpu"), time.time()
    if not given.card:
        with torch.no_grad():
            held = sampled(model, TEXTS, 0)
        print(f"{len(next(iter(held.values())))} tokens in {time.time() - start:.0f} s", flush=True)
        for number, place in enumerate(PLACES):
            x, y = held[place.reads], held[place.writes]
            write(trained(x, y, place.features, given.updates, number), place, model, given.out)
            print(f"{place.folder} after {time.time() - start:.0f} s", flush=True)
    for row in card(model, given.out):
        print(row, flush=True)


if __name__ == "__main__":
    main()
