"""Train the pocket model: `python -m circuitdsl.models.pocket.train OUT`.

A GPT-2-architecture transformer (pre-norm, learned positions, tied unembedding) on `mixture`. Matrices of the blocks
are trained with Muon, everything else with AdamW; the learning rate is constant and falls only in the last fifth.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from circuitdsl.models.pocket import mixture, tokenizer


@dataclass(frozen=True)
class Shape:
    n_layer: int = 4
    n_embd: int = 128
    n_head: int = 8
    n_inner: int = 64
    n_positions: int = 96


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.n_embd
        self.n_head = shape.n_head
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.up, self.down = nn.Linear(d, shape.n_inner), nn.Linear(shape.n_inner, d)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        h = self.ln_1(x)
        q, k, v = (f(h).view(n, t, self.n_head, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        with torch.autocast("cpu", enabled=False):  # its backward pass is ten times slower in bfloat16 here
            z = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
        x = x + self.o(z.transpose(1, 2).reshape(n, t, d))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Pocket(nn.Module):
    def __init__(self, shape: Shape, n_vocab: int) -> None:
        super().__init__()
        self.shape = shape
        self.wte, self.wpe = nn.Embedding(n_vocab, shape.n_embd), nn.Embedding(shape.n_positions, shape.n_embd)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.ln_f = nn.LayerNorm(shape.n_embd)
        self.apply(self._init)

    def _init(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x)

    def logits(self, x: Tensor) -> Tensor:
        return x @ self.wte.weight.T


# --- batches ---------------------------------------------------------------------------------------


def batch(examples: list[mixture.Example], ids: dict[str, int], context_weight: float) -> tuple[Tensor, Tensor]:
    """Token ids and target weights, padded on the right with end-of-text: [n, t] each."""
    rows = []
    for ex in examples:
        found = list(mixture.pieces(ex.text))
        row = [ids[piece] for piece, _ in found] + [0]
        starts = [0, *(end for _, end in found)]
        weights = [1.0 if starts[i] in ex.answers else context_weight for i in range(len(found))] + [context_weight]
        rows.append((row, weights))
    width = max(len(row) for row, _ in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.zeros(len(rows), width)
    for i, (row, weights) in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        targets[i, : len(row)] = torch.tensor(weights)
    return tokens, targets


def loss_sum(model: Pocket, tokens: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy, summed."""
    hidden = model(tokens[:, :-1])
    wanted = weights[:, 1:] > 0
    logits = model.logits(hidden[wanted])
    each = F.cross_entropy(logits.float(), tokens[:, 1:][wanted], reduction="none")
    return (each * weights[:, 1:][wanted]).sum()


# --- measuring -------------------------------------------------------------------------------------


@torch.no_grad()
def accuracy(model: Pocket, ids: dict[str, int], task: str, n: int, seed: int) -> float:
    """Share of held-out prompts on which the best answer's logit beats every distractor's."""
    rng = random.Random(f"held-out/{task}/{seed}")
    right = 0
    for _ in range(n):
        draft = mixture.draw(task, rng, mixture.held_out)
        tokens = torch.tensor([[ids[piece] for piece, _ in mixture.pieces(draft.clean.text)]])
        logits = model.logits(model(tokens)[0, -1])
        best = max(logits[ids[a]] for a in draft.answers)
        right += int(all(best > logits[ids[d]] for d in draft.distractors))
    return right / n


# --- files -----------------------------------------------------------------------------------------


def export(model: Pocket, vocabulary: list[str], directory: Path) -> None:
    """Write an ordinary Hugging Face GPT-2 directory."""
    directory.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().float() for k, v in model.state_dict().items()}
    out = {f"transformer.{name}": state[name] for name in ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias")}
    for i in range(model.shape.n_layer):
        old, new = f"blocks.{i}.", f"transformer.h.{i}."
        for norm in ("ln_1", "ln_2"):
            for kind in ("weight", "bias"):
                out[f"{new}{norm}.{kind}"] = state[f"{old}{norm}.{kind}"]
        out[f"{new}attn.c_attn.weight"] = torch.cat([state[f"{old}{x}.weight"].T for x in "qkv"], dim=1)
        out[f"{new}attn.c_attn.bias"] = torch.cat([state[f"{old}{x}.bias"] for x in "qkv"])
        for ours, theirs in (("o", "attn.c_proj"), ("up", "mlp.c_fc"), ("down", "mlp.c_proj")):
            out[f"{new}{theirs}.weight"] = state[f"{old}{ours}.weight"].T
            out[f"{new}{theirs}.bias"] = state[f"{old}{ours}.bias"]
    save_file({k: v.contiguous() for k, v in out.items()}, directory / "model.safetensors", metadata={"format": "pt"})
    shape = asdict(model.shape)
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": len(vocabulary) + 2,
        **shape,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "dtype": "float32",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tokenizer.save(tokenizer.build(vocabulary), directory)


# --- the loop --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    updates: int = 2500
    seed: int = 0
    lr: float = 2e-3
    muon_factor: float = 3.0
    weight_decay: float = 0.02
    context_weight: float = 0.05
    every: int = 100
    threads: int = 1
    bf16: bool = True


def rate(settings: Settings, step: int) -> float:
    """Warm up for 100 updates, stay, fall linearly to 2 % in the last fifth."""
    fall = settings.updates // 5
    return min(1.0, (step + 1) / 100, 0.02 + 0.98 * (settings.updates - step) / fall)


def train(out: Path, shape: Shape, settings: Settings) -> None:
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = mixture.vocabulary()
    ids = {piece: i + 2 for i, piece in enumerate(vocabulary)}
    model = Pocket(shape, len(vocabulary) + 2)
    matrices = [p for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2]
    others = [p for n, p in model.named_parameters() if not (n.startswith("blocks.") and p.ndim == 2)]
    optimizers = [
        torch.optim.Muon(matrices, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    rng = random.Random(settings.seed)
    start, done = time.time(), _resume(out, model, optimizers, rng)
    for step in range(done, settings.updates):
        total = _update(model, optimizers, ids, rng, settings, step)
        if (step + 1) % settings.every == 0 or step + 1 == settings.updates:
            figures = {task: accuracy(model, ids, task, 200, 0) for task in mixture.TASKS}
            _log(out, {"update": step + 1, "seconds": round(time.time() - start), "loss": round(total, 4), **figures})
            export(model, vocabulary, out)
            _checkpoint(out, model, optimizers, rng, step + 1)


def _update(
    model: Pocket,
    optimizers: list[torch.optim.Optimizer],
    ids: dict[str, int],
    rng: random.Random,
    settings: Settings,
    step: int,
) -> float:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            factor = settings.muon_factor if isinstance(optimizer, torch.optim.Muon) else 1.0
            group["lr"] = settings.lr * factor * rate(settings, step)
    batches = []
    for kinds in (mixture.SHORT, mixture.MEDIUM, mixture.LONG):
        examples = [mixture.example(kind, rng) for kind, n in kinds for _ in range(n)]
        batches.append(batch(examples, ids, settings.context_weight))
    weight = float(sum(w[:, 1:].sum() for _, w in batches))
    total = 0.0
    for tokens, weights in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            loss = loss_sum(model, tokens, weights) / weight
        loss.backward()
        total += float(loss.detach())
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return total


def _log(out: Path, row: dict[str, float]) -> None:
    path = out / "log.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


def _checkpoint(
    out: Path, model: Pocket, optimizers: list[torch.optim.Optimizer], rng: random.Random, step: int
) -> None:
    """Everything that a continued run needs, as tensors and JSON."""
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    for o, optimizer in enumerate(optimizers):
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{o}/{i}/{k}": torch.as_tensor(v) for k, v in state.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, out / "checkpoint.safetensors")
    version, internal, gauss = rng.getstate()
    (out / "checkpoint.json").write_text(json.dumps({"step": step, "rng": [version, list(internal), gauss]}))


def _resume(out: Path, model: Pocket, optimizers: list[torch.optim.Optimizer], rng: random.Random) -> int:
    if not (out / "checkpoint.json").exists():
        return 0
    meta = json.loads((out / "checkpoint.json").read_text())
    tensors = load_file(out / "checkpoint.safetensors")
    model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
    for o, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer/{o}/"):
                _, _, i, name = key.split("/")
                state.setdefault(int(i), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    version, internal, gauss = meta["rng"]
    rng.setstate((version, tuple(internal), gauss))
    return int(meta["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="directory for model, log and checkpoint (continued if there)")
    defaults = Settings()
    parser.add_argument("--updates", type=int, default=defaults.updates)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--lr", type=float, default=defaults.lr)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--layers", type=int, default=Shape().n_layer)
    parser.add_argument("--inner", type=int, default=Shape().n_inner, help="neurons of each MLP")
    given = parser.parse_args()
    settings = Settings(updates=given.updates, seed=given.seed, lr=given.lr, threads=given.threads)
    train(given.out, Shape(n_layer=given.layers, n_inner=given.inner), settings)


if __name__ == "__main__":
    main()
