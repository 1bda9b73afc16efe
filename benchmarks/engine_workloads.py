"""What is measured: random models of a named shape, prompts on them, and the edges of each workload."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from circuitdsl.circuit.nodes import Edge, Input, Node, Position
from circuitdsl.engine.experiment import Experiment, Positions
from circuitdsl.models.parts import PORTS, Transformer
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens

#: Hugging Face's files of GPT-2's tokenizer, where they are at hand
TOKENIZER = Path(__file__).parents[2] / "shared" / "data" / "gpt2-tokenizer"
LARGER = 3.0
IOI_LENGTHS = range(14, 21)
END, S2, EVERY = Position("END"), Position("S2"), Position("*")
SHAPES: dict[str, dict] = {
    "tiny": {"n_layer": 4, "n_head": 4, "n_embd": 128, "n_positions": 128, "vocab_size": 1000},
    "gpt2-small": {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257},
    "gpt2-medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024, "n_positions": 1024, "vocab_size": 50257},
    "llama-8b": {
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 8192,
        "vocab_size": 128256,
    },
}


@dataclass(frozen=True)
class Workload:
    """Edges to patch one by one on prompt pairs of one length, and the two tokens whose logits are read."""

    name: str
    says: str
    edges: tuple[Edge, ...]
    clean: Tensor
    corrupt: Tensor
    positions: Positions
    answers: Tensor

    @property
    def experiments(self) -> list[Experiment]:
        return [Experiment(frozenset([edge])) for edge in self.edges]

    @property
    def n(self) -> int:
        return self.clean.shape[0]

    @property
    def length(self) -> int:
        return self.clean.shape[1]


def random_weights(shape: str, place: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A directory with a model of a shape.

    Its weights are drawn as before training, those of its layers larger: a patch then changes more than rounding does.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = "llama" if shape.startswith("llama") else "gpt2"
    config = AutoConfig.for_model(kind, bos_token_id=0, eos_token_id=0, pad_token_id=0, **SHAPES[shape])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if (weight.ndim == 2 and "layers." in name) or ".h." in name:
                weight.mul_(LARGER)
    model.save_pretrained(place / shape)
    if kind == "gpt2" and SHAPES[shape]["vocab_size"] == 50257 and TOKENIZER.exists():
        for file in TOKENIZER.glob("*.*"):
            shutil.copy(file, place / shape)
    return place / shape


Prompts = tuple[Tensor, Tensor, Positions, Tensor]


def prompts(model: Transformer, n: int, length: int) -> Prompts:
    """Clean prompts, their partners, positions, and the answer and distractor of each.

    IOI prompts of just this length where the model has GPT-2's tokenizer, else random tokens.
    """
    if model.tokenizer is not None and length in IOI_LENGTHS:
        return _ioi(model, n, length)
    return _random(model, n, length)


def _ioi(model: Transformer, n: int, length: int) -> Prompts:
    drawn = sample(TASKS["ioi"], Tokens(model.tokenizer, model.name), 40 * n, 0, "abc")
    pairs = [pair for pair in drawn.pairs if len(pair.clean_tokens) == length][:n]
    if len(pairs) < n:
        raise SystemExit(f"only {len(pairs)} of {40 * n} IOI prompts have {length} tokens")
    tokens = (torch.tensor([getattr(pair, side) for pair in pairs]) for side in ("clean_tokens", "corrupt_tokens"))
    places = {place: torch.tensor([pair.positions[place.name] for pair in pairs]) for place in (END, S2)}
    answers = torch.tensor([[pair.answers[0], pair.distractors[0]] for pair in pairs])
    return next(tokens), next(tokens), places, answers


def _random(model: Transformer, n: int, length: int) -> Prompts:
    """Tokens whose partners differ at three of them; S2 stands two thirds into a prompt, give or take one."""
    draw = torch.Generator().manual_seed(0)
    clean = torch.randint(model.n_vocab, (n, length), generator=draw)
    corrupt = clean.clone()
    s2 = (2 * length // 3 + torch.arange(n) % 3 - 1).clamp(0, length - 1)
    for at in (torch.full((n,), length // 4), s2, torch.full((n,), length - 1)):
        corrupt[torch.arange(n), at] = torch.randint(model.n_vocab, (n,), generator=draw)
    places = {END: torch.full((n, 1), length - 1), S2: s2[:, None]}
    return clean, corrupt, places, torch.randint(model.n_vocab, (n, 2), generator=draw)


def all_heads(model: Transformer, n: int, length: int) -> Workload:
    """W1: every head to every later head, through q, k and v, at all positions."""
    edges = [
        Edge(Node("head", a, i), Input(Node("head", b, j), port), EVERY)
        for b in range(model.n_layers)
        for a in range(b)
        for i in range(model.n_heads)
        for j in range(model.n_heads)
        for port in PORTS
    ]
    return _workload("W1", "every head → every later head, q, k and v, all positions", edges, model, n, length)


def queries_at_end(model: Transformer, count: int, n: int, length: int) -> Workload:
    """W2: S-inhibition heads to the queries of movers, negative movers and backups, at END; then further senders.

    The first 52 are the edges that Wang et al. 2022 look at.
    """
    inhibition = [(7, 3), (7, 9), (8, 6), (8, 10)]
    movers = [(9, 6), (9, 9), (10, 0), (10, 7), (11, 10)]
    backups = [(9, 0), (9, 7), (10, 1), (10, 2), (10, 6), (10, 10), (11, 2), (11, 9)]
    others = [(layer, head) for layer in range(9) for head in range(12)]
    pairs = [(a, b) for senders in (inhibition, others) for a in senders for b in movers + backups]
    edges = [Edge(_head(model, a), Input(_head(model, b), "q"), END) for a, b in dict.fromkeys(pairs)]
    return _workload("W2", f"{count} q edges at END", edges[:count], model, n, length)


def keys_and_values_at_s2(model: Transformer, n: int, length: int) -> Workload:
    """W3: duplicate-token and induction heads to the keys and values of S-inhibition heads at S2, as in IOI."""
    senders = [(0, 1), (0, 10), (3, 0), (5, 5), (5, 8), (5, 9), (6, 9)]
    receivers = [(7, 3), (7, 9), (8, 6), (8, 10)]
    edges = [
        Edge(_head(model, a), Input(_head(model, b), port), S2)
        for b in receivers
        for port in PORTS[1:]
        for a in senders
    ]
    return _workload(
        "W3", f"{len(edges)} duplicate/induction → S-inhibition k and v edges at S2", edges, model, n, length
    )


def anywhere(model: Transformer, count: int, n: int, length: int) -> Workload:
    """W4: head to head edges drawn from all of the model, at all positions."""
    draw = random.Random(0)
    edges: list[Edge] = []
    while len(edges) < count:
        a, b = sorted(draw.randrange(model.n_layers) for _ in range(2))
        if a < b:
            i, j = (draw.randrange(model.n_heads) for _ in range(2))
            edges.append(Edge(Node("head", a, i), Input(Node("head", b, j), draw.choice(PORTS)), EVERY))
    return _workload(
        "W4", f"{count} head → head edges drawn from the whole model, all positions", edges, model, n, length
    )


def into_layer(model: Transformer, layer: int, n: int, length: int) -> Workload:
    """Edges at all positions into one layer, for growth with the layers above it."""
    edges = [
        Edge(Node("head", 0, i), Input(Node("head", layer, j), "q"), EVERY)
        for i in range(2)
        for j in range(min(6, model.n_heads))
    ]
    return _workload(f"into layer {layer}", f"{len(edges)} q edges into layer {layer}", edges, model, n, length)


def on(model: Transformer, edges: list[Edge], n: int) -> Workload:
    """Some edges on IOI prompts of the length that is most frequent."""
    drawn = sample(TASKS["ioi"], Tokens(model.tokenizer, model.name), 8 * n, 0, "abc").pairs
    lengths = Counter(len(pair.clean_tokens) for pair in drawn)
    return _workload("", "", edges, model, n, lengths.most_common(1)[0][0])


def _head(model: Transformer, at: tuple[int, int]) -> Node:
    """A head of GPT-2 small, or the one at the same relative depth of a deeper model."""
    layer, head = at
    return Node("head", layer * model.n_layers // 12, head % model.n_heads)


def _workload(name: str, says: str, edges: list[Edge], model: Transformer, n: int, length: int) -> Workload:
    clean, corrupt, positions, answers = prompts(model, n, length)
    used: Mapping = {p: positions[p] for p in {edge.position for edge in edges} if p != EVERY}
    return Workload(name, says, tuple(dict.fromkeys(edges)), clean, corrupt, used, answers)
