"""Transformers whose weights are set by hand, so that their circuits are facts.

All are GPT-2s of 4 layers of 8 heads, saved and loaded the way a user's model is. The residual stream is cut into
orthogonal subspaces, each with one meaning (what token stands here, which one stood before, what to suppress, what to
answer). One large constant direction keeps the scale of every LayerNorm nearly, not exactly, constant. Heads that take
no part, all MLPs and all biases are small random numbers; tokens are random codes in few dimensions, so that every
head confuses them a little and prompts differ.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

LAYERS, HEADS, D_HEAD = 4, 8, 28
D_MODEL = HEADS * D_HEAD
LONGEST, CODE = 13, 14
BOS, LAST = 0, 1
NAMES, FILLERS = tuple(range(2, 14)), tuple(range(14, 26))
VOCAB = 26
#: the constant direction's length; everything else that is written has a length of about 1
CONSTANT = 10.0
#: what a token of the clean answer's code adds to its own logit
READOUT = 6.0
#: widths of the subspaces; `junk` is read by noise alone
SUBSPACES = {
    "constant": 1,
    "token": CODE,
    "position": LONGEST,
    "name": 1,
    "first": 1,
    "previous": CODE,
    "duplicate": 1,
    "suppressed": CODE,
    "answer": CODE,
    "junk": CODE,
    "told": CODE,
}


class Weights:
    """The tensors of a model being built: every head begins as noise, `head` gives one a purpose."""

    def __init__(self, seed: int, noise: float = 0.01) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        self.noise = noise
        self.o = self.normal(LAYERS, HEADS, D_HEAD, D_MODEL) * noise
        self.codes = self._spread_out()
        # an orthonormal basis of the vectors of mean 0, which LayerNorm's centring leaves as they are
        whole = torch.cat([torch.ones(D_MODEL, 1), self.normal(D_MODEL, D_MODEL - 1)], 1)
        basis = torch.linalg.qr(whole).Q[:, 1:]
        widths = list(SUBSPACES.values())
        self.space = dict(zip(SUBSPACES, basis[:, : sum(widths)].split(widths, 1), strict=True))
        #: reads 1 everywhere
        self.one = self.space["constant"] / CONSTANT
        fixed = self.space["constant"] @ self.space["constant"].T
        self.q, self.k, self.v = (scale * (noise - fixed @ noise) for scale, noise in self._reads(0.6, 0.6, 0.3))
        #: of MLPs that do something, what their first neurons read [d, n], from where on, and what they write [n, d]
        self.mlps: dict[int, tuple[Tensor, float, Tensor]] = {}

    def _reads(self, *scales: float) -> list[tuple[float, Tensor]]:
        return [(scale, self.normal(LAYERS, HEADS, D_MODEL, D_HEAD)) for scale in scales]

    def _spread_out(self) -> Tensor:
        """Codes of length 1, no two of which look much alike: similarities are cut off, and the nearest codes found."""
        codes = torch.nn.functional.normalize(self.normal(VOCAB, CODE), dim=-1)
        for _ in range(300):
            alike = (codes @ codes.T).clamp(-0.15, 0.15).fill_diagonal_(1.0)
            sizes, directions = torch.linalg.eigh(alike)
            codes = torch.nn.functional.normalize(directions[:, -CODE:] * sizes[-CODE:].clamp_min(0).sqrt(), dim=-1)
        return codes

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.draw)

    def head(self, name: str, q: list[Tensor], k: list[Tensor], v: Tensor, o: Tensor) -> None:
        """Give the head `name` what it reads as query, key [d, n], ... and value [d, m], and where it writes [d, m].

        Its scores are `q . k`: the square root of the head's width that attention divides by is multiplied in here.
        """
        layer, head = map(int, name.split("."))
        wide = [torch.nn.functional.pad(part, (0, D_HEAD - part.shape[1])) for part in (_side(q), _side(k), v, o)]
        self.q[layer, head], self.k[layer, head] = wide[0] * D_HEAD**0.5, wide[1]
        self.v[layer, head], self.o[layer, head] = wide[2], wide[3].T


def _side(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, 1)


# --- what heads do ---------------------------------------------------------------------------------


def previous_token(w: Weights, name: str) -> None:
    """Attends to the token before, by position, and writes what that was."""
    place = w.space["position"]
    before = torch.diag(torch.ones(LONGEST - 1), -1)
    w.head(name, [6 * place @ before], [place], w.space["token"], w.space["previous"])


def induction(w: Weights, name: str, gain: float) -> None:
    """Attends to where the current token stood before, one further, and answers with what it finds."""
    token = w.space["token"]
    rest = [5 * w.one], [w.space["first"]]
    w.head(name, [9 * token, *rest[0]], [w.space["previous"], *rest[1]], token, gain * w.space["answer"])


def duplicate_token(w: Weights, name: str) -> None:
    """Attends to an earlier mention of the current token, not to itself, else to the first position."""
    token, place = w.space["token"], w.space["position"]
    found = w.one - w.space["first"]
    w.head(
        name,
        [10 * token, -20 * place, 7 * w.one],
        [token, place, w.space["first"]],
        found,
        w.space["duplicate"],
    )


def inhibition(w: Weights, name: str, gain: float, into: str = "suppressed") -> None:
    """Attends to where a token is marked as repeated and writes that token as one not to answer with."""
    rest = [4 * w.one], [w.space["first"]]
    w.head(name, [9 * w.one, *rest[0]], [w.space["duplicate"], *rest[1]], w.space["token"], gain * w.space[into])


def mover(w: Weights, name: str, gain: float, into: str = "answer", wakes: float = 0.0, asleep: float = 2.0) -> None:
    """Attends to the name that is not suppressed and writes it, as the answer or elsewhere.

    With `wakes` it is a backup: it looks away from what is already in the answer, to the first position.
    """
    against = -7 * w.space["suppressed"] - wakes * w.space["answer"]
    w.head(
        name,
        [against, 7 * w.one, asleep * w.one],
        [w.space["token"], w.space["name"], w.space["first"]],
        w.space["token"],
        gain * w.space[into],
    )


def negative_mover(w: Weights, name: str, gain: float) -> None:
    """Attends to the name that is already in the answer and writes against it."""
    w.head(
        name,
        [6 * w.space["answer"], 2 * w.one, 4 * w.one],
        [w.space["token"], w.space["name"], w.space["first"]],
        w.space["token"],
        -gain * w.space["answer"],
    )


# --- models ----------------------------------------------------------------------------------------


def build_induction(w: Weights) -> None:
    previous_token(w, "0.3")
    induction(w, "2.1", 0.8)
    induction(w, "2.6", 0.4)


def build_chain(w: Weights) -> None:
    duplicate_token(w, "0.2")
    inhibition(w, "1.1", 0.7)
    inhibition(w, "1.5", 0.4)
    mover(w, "2.3", 0.8)
    mover(w, "2.4", 0.4)


def build_backup(w: Weights, asleep: float = 5.0) -> None:
    duplicate_token(w, "0.2")
    inhibition(w, "1.1", 1.1)
    mover(w, "2.3", 1.0)
    mover(w, "3.5", 0.8, wakes=9.0, asleep=asleep)


def build_quiet_backup(w: Weights) -> None:
    """The same, but the backup sleeps so soundly that it does next to nothing while the mover works."""
    build_backup(w, asleep=8.0)


def build_cancelling(w: Weights) -> None:
    """Two heads that read the same and write the opposite, beside a mover."""
    duplicate_token(w, "0.2")
    inhibition(w, "1.1", 1.1)
    mover(w, "2.3", 1.0)
    mover(w, "2.5", 0.5)
    mover(w, "2.6", -0.5)


def build_negative(w: Weights) -> None:
    build_chain(w)
    negative_mover(w, "3.2", 0.4)


def build_decoy(w: Weights) -> None:
    """The chain, and heads that look as if they took part: right attention, written where only noise reads it,
    or nothing written at all (3.0)."""
    build_chain(w)
    inhibition(w, "1.6", 0.7, into="junk")
    mover(w, "2.0", 1.0, into="junk")
    mover(w, "3.4", 1.0, into="junk")
    mover(w, "3.0", 0.0)


def build_lookup(w: Weights) -> None:
    """Movers that write the name where an MLP reads it: one neuron for each name, which writes the answer."""
    duplicate_token(w, "0.2")
    inhibition(w, "1.1", 0.7)
    inhibition(w, "1.5", 0.4)
    mover(w, "2.3", 0.8, into="told")
    mover(w, "2.4", 0.4, into="told")
    names = w.codes[list(NAMES)]
    w.mlps[3] = 1.5 * w.space["told"] @ names.T, 0.45, 1.5 * names @ w.space["answer"].T


MODELS = {
    "induction": build_induction,
    "chain": build_chain,
    "backup": build_backup,
    "negative": build_negative,
    "decoy": build_decoy,
}
#: models for single questions, of which the tables of claims say nothing
OTHERS = {"quiet backup": build_quiet_backup, "cancelling": build_cancelling, "lookup": build_lookup}


def save_hand_set(kind: str, path: Path, seed: int = 0) -> Path:
    """Build one of `MODELS` or `OTHERS` and save it as a Hugging Face directory."""
    weights = Weights(seed)
    (MODELS | OTHERS)[kind](weights)
    return _save(weights, path)


def _save(w: Weights, path: Path) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=LONGEST,
        n_embd=D_MODEL,
        n_layer=LAYERS,
        n_head=HEADS,
        n_inner=64,
        bos_token_id=BOS,
        eos_token_id=BOS,
        tie_word_embeddings=False,
        activation_function="relu" if w.mlps else "gelu_new",
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            fill = CONSTANT / D_MODEL**0.5 if "ln_" in name and name.endswith("weight") else 0.0
            weight.copy_(fill + w.normal(*weight.shape) * (0.01 if weight.ndim == 1 else 0.05))
        model.transformer.wte.weight.copy_(_embeddings(w))
        model.transformer.wpe.weight.copy_(w.space["position"].T)
        model.lm_head.weight.copy_(READOUT * w.codes @ w.space["answer"].T + 0.05 * w.normal(VOCAB, D_MODEL))
        for layer, block in enumerate(model.transformer.h):
            reads = [part[layer].transpose(0, 1).flatten(1) for part in (w.q, w.k, w.v)]
            block.attn.c_attn.weight.copy_(torch.cat(reads, 1))
            block.attn.c_proj.weight.copy_(w.o[layer].flatten(0, 1))
            block.mlp.c_proj.weight.mul_(0.3)
            if layer in w.mlps:
                read, above, writes = w.mlps[layer]
                n = len(writes)
                block.mlp.c_fc.weight[:, :n], block.mlp.c_fc.bias[:n] = read, -above
                block.mlp.c_proj.weight[:n] = writes
    model.save_pretrained(path)
    return path


def _embeddings(w: Weights) -> Tensor:
    table = w.codes @ w.space["token"].T + CONSTANT * w.space["constant"].T
    table[list(NAMES)] += w.space["name"].T
    table[BOS] += w.space["first"][:, 0]
    return table
