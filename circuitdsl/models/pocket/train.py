"""Train an embedded model: `python -m circuitdsl.models.pocket.train OUT`, for the second one with `--recipe deep`.

A GPT-2-architecture transformer (pre-norm, learned positions, tied unembedding) on a mixture of texts. Matrices of the
blocks are trained with Muon, everything else with AdamW; the learning rate is constant and falls in the last fifth.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn

from circuitdsl.models.pocket import mixture
from circuitdsl.models.pocket.mixture import END_OF_TEXT, TOKEN_PATTERN, UNKNOWN, Mixture
from circuitdsl.models.pocket.watch import watch
from circuitdsl.models.pocket_deep.mixture import DEEP

WIDTH, POSITIONS = 128, 96
#: learning rate, how many times it is for Muon, and what that shrinks weights by
RATE, MUON, DECAY = 2e-3, 3.0, 0.02
#: the weight in the loss of a token that is no answer
CONTEXT = 0.05
#: updates from one row of the log to the next
EVERY = 100


@dataclass(frozen=True, slots=True)
class Recipe:
    """What tells the embedded models apart: sizes, updates and texts."""

    layers: int
    heads: int
    neurons: int
    updates: int
    mixture: Mixture
    #: heads begin by looking at what is like, and by copying it; positions begin as waves
    alike: bool = False


RECIPES = {"pocket": Recipe(4, 8, 64, 2500, mixture.POCKET), "deep": Recipe(6, 4, 32, 2500, DEEP, alike=True)}


class Block(nn.Module):
    def __init__(self, heads: int, neurons: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, neurons), nn.Linear(neurons, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        h = self.ln_1(x)
        q, k, v = (f(h).view(n, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        with torch.autocast("cpu", enabled=False):  # its backward pass is ten times slower in bfloat16 here
            z = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
        x = x + self.o(z.transpose(1, 2).reshape(n, t, d))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Pocket(nn.Module):
    def __init__(self, n_vocab: int, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.wte, self.wpe = nn.Embedding(n_vocab, WIDTH), nn.Embedding(POSITIONS, WIDTH)
        self.blocks = nn.ModuleList(Block(recipe.heads, recipe.neurons) for _ in range(recipe.layers))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.apply(self._init)
        if recipe.alike:
            self._alike()

    def _init(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    @torch.no_grad()
    def _alike(self) -> None:
        """Make queries and keys the same maps, and outputs the values' the other way round."""
        for block in self.layers():
            block.k.weight.copy_(nn.init.normal_(block.q.weight, std=0.04))
            block.o.weight.copy_(nn.init.normal_(block.v.weight, std=0.04).T)
        waves = 1.5 * 150 ** -torch.linspace(0, 1, WIDTH // 2) * torch.arange(POSITIONS)[:, None]
        self.wpe.weight.copy_(0.028 * torch.cat([waves.sin(), waves.cos()], 1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x)

    def layers(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def logits(self, x: Tensor) -> Tensor:
        return x @ self.wte.weight.T


def batch(examples: list[mixture.Example], ids: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Token ids and target weights, padded on the right with end-of-text: [n, t] each."""
    rows, weights = [], []
    for example in examples:
        found = list(mixture.pieces(example.text))
        starts = [0, *(end for _, end in found)]
        rows.append(torch.tensor([*(ids[piece] for piece, _ in found), 0]))
        weights.append(torch.tensor([1.0 if start in example.answers else CONTEXT for start in starts]))
    return tuple(nn.utils.rnn.pad_sequence(each, batch_first=True) for each in (rows, weights))  # type: ignore[return-value]


def loss_sum(model: Pocket, tokens: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy, summed."""
    hidden = model(tokens[:, :-1])
    wanted = weights[:, 1:] > 0
    logits = model.logits(hidden[wanted])
    each = F.cross_entropy(logits.float(), tokens[:, 1:][wanted], reduction="none")
    return (each * weights[:, 1:][wanted]).sum()


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


@torch.no_grad()
def practised(model: Pocket, ids: dict[str, int], kind: str, n: int) -> float:
    """Share of practice texts whose last answer has the largest logit."""
    rng, right = random.Random(f"practice/{kind}"), 0
    for _ in range(n):
        text = model.recipe.mixture.makers[kind](rng)
        tokens = [ids[piece] for piece, end in mixture.pieces(text.text) if end <= text.answers[-1]]
        answer = next(mixture.pieces(text.text[text.answers[-1] :]))[0]
        right += int(model.logits(model(torch.tensor([tokens]))[0, -1]).argmax()) == ids[answer]
    return right / n


def save_tokenizer(vocabulary: list[str], directory: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as Hugging Face reads them.

    One token is a word, with GPT-2's convention that it carries the blank before it, in its byte-level alphabet. Ids:
    end of text, unknown, then the tokens in order.
    """
    tokens = [END_OF_TEXT, UNKNOWN, *(piece.replace(" ", "Ġ").replace("\n", "Ċ") for piece in vocabulary)]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=UNKNOWN))
    split = pre_tokenizers.Split(Regex(TOKEN_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT, UNKNOWN])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": UNKNOWN,
        "model_max_length": 96,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def export(model: Pocket, vocabulary: list[str], directory: Path) -> None:
    """Write an ordinary Hugging Face GPT-2 directory."""
    directory.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().float() for k, v in model.state_dict().items()}
    out = {f"transformer.{name}": value for name, value in state.items() if not name.startswith("blocks.")}
    for i in range(model.recipe.layers):
        old, new = f"blocks.{i}.", f"transformer.h.{i}."
        for kind in ("weight", "bias"):
            for norm in ("ln_1", "ln_2"):
                out[f"{new}{norm}.{kind}"] = state[f"{old}{norm}.{kind}"]
            out[f"{new}attn.c_attn.{kind}"] = torch.cat([state[f"{old}{x}.{kind}"].t() for x in "qkv"], dim=-1)
            for ours, theirs in (("o", "attn.c_proj"), ("up", "mlp.c_fc"), ("down", "mlp.c_proj")):
                out[f"{new}{theirs}.{kind}"] = state[f"{old}{ours}.{kind}"].t()
    save_file({k: v.contiguous() for k, v in out.items()}, directory / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": len(vocabulary) + 2,
        "n_layer": model.recipe.layers,
        "n_embd": WIDTH,
        "n_head": model.recipe.heads,
        "n_inner": model.recipe.neurons,
        "n_positions": POSITIONS,
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
    save_tokenizer(vocabulary, directory)


class Training:
    """All that changes while a model is trained."""

    def __init__(self, model: Pocket, rng: random.Random, updates: int) -> None:
        self.model, self.rng, self.updates, self.step = model, rng, updates, 0
        named = dict(self.model.named_parameters())
        matrices = [p for name, p in named.items() if name.startswith("blocks.") and p.ndim == 2]
        others = [p for name, p in named.items() if not (name.startswith("blocks.") and p.ndim == 2)]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def rate(self) -> float:
        """Warm up for 100 updates, stay, fall linearly to 2 % in the last fifth."""
        fall = self.updates // 5
        return RATE * min(1.0, (self.step + 1) / 100, 0.02 + 0.98 * (self.updates - self.step) / fall)

    def update(self, ids: dict[str, int]) -> float:
        """Take a step; its loss."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate() * (MUON if isinstance(optimizer, torch.optim.Muon) else 1.0)
        texts = self.model.recipe.mixture
        groups = ([kind for kind, n in kinds for _ in range(n)] for kinds in texts.batches(self.step))
        batches = [batch([texts.makers[kind](self.rng) for kind in group], ids) for group in groups]
        weight = float(sum(w[:, 1:].sum() for _, w in batches))
        total = 0.0
        for tokens, weights in batches:
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_sum(self.model, tokens, weights) / weight
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return total

    def save(self, path: Path) -> None:
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        state = {"model": self.model.state_dict(), "optimizers": optimizers, "rng": self.rng.getstate()}
        torch.save(state | {"step": self.step}, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, known in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(known)
        self.rng.setstate(state["rng"])
        self.step = state["step"]


def train(out: Path, recipe: Recipe, updates: int, seed: int) -> None:
    """Train a model, or go on with one, and write it, the log and a checkpoint."""
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    vocabulary, checkpoint = recipe.mixture.vocabulary(), out / "checkpoint.pt"
    ids = {piece: i + 2 for i, piece in enumerate(vocabulary)}
    now = Training(Pocket(len(vocabulary) + 2, recipe), random.Random(seed), updates)
    if checkpoint.exists():
        now.load(checkpoint)
    start = time.time()
    while now.step < updates:
        loss = now.update(ids)
        if now.step % EVERY == 0 or now.step == updates:
            figures = {task: accuracy(now.model, ids, task, 200, 0) for task in mixture.TASKS}
            row: dict[str, float | str] = {
                "update": now.step,
                "seconds": round(time.time() - start),
                "loss": round(loss, 4),
                **figures,
            }
            row |= {kind: practised(now.model, ids, kind, 200) for kind in recipe.mixture.shown}
            row |= watch(now.model, ids)
            new = not (out / "log.csv").exists()
            with (out / "log.csv").open("a", newline="") as file:
                writer = csv.DictWriter(file, row)
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(row, flush=True)
            export(now.model, vocabulary, out)
            now.save(checkpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="directory for model, log and checkpoint (continued if there)")
    parser.add_argument("--recipe", choices=RECIPES, default="pocket", help="which model (default: pocket)")
    parser.add_argument("--updates", type=int, help="how many (default: those of the recipe)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe = RECIPES[given.recipe]
    train(given.out, recipe, given.updates or recipe.updates, given.seed)


if __name__ == "__main__":
    main()
