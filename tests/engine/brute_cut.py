"""Cuts done by hand: Hugging Face's own model with plain torch hooks, full matrices, one prompt at a time.

Nothing of the measured code is used but what says which head fires from where to where.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Head = tuple[int, int]


@dataclass(frozen=True)
class Traced:
    """What a firing is made of: per side its token, its senders, a projector onto the signal, the norm's scale."""

    tokens: tuple[int, int]
    senders: tuple[list[Head], list[Head]]
    projectors: tuple[Tensor, Tensor]
    scales: tuple[float, float]
    signal: set[int]


class ByHand:
    """GPT-2 in double precision on one prompt."""

    def __init__(self, path: str, tokens: Tensor) -> None:
        from transformers import GPT2LMHeadModel

        self.model = GPT2LMHeadModel.from_pretrained(path, attn_implementation="eager").double().eval()
        self.tokens, self.heads = tokens[None], self.model.config.n_head
        self.d_head = self.model.config.n_embd // self.heads
        self.resid: dict[int, Tensor] = {}
        self.z: dict[int, Tensor] = {}
        self.out: dict[int, Tensor] = {}
        self.qk: dict[int, Tensor] = {}
        self.clean = self.run()
        self.clean_resid, self.clean_z, self.clean_out = dict(self.resid), dict(self.z), dict(self.out)

    def run(self, written: dict[tuple[int, int], Tensor] | None = None, read: Any = None) -> Tensor:
        """Logits at END.

        Args:
            written: what is added to the output of a layer's attention at a token.
            read: (layer, head, {token: what is added to the normed input that it reads, without the norm's gain}).
        """
        with ExitStack() as hooks, torch.no_grad():
            for layer, block in enumerate(self.model.transformer.h):
                for module, hook in (
                    (block.ln_1, self._resid(layer)),
                    (block.attn.c_attn, self._read(layer, block, read)),
                    (block.attn.c_proj, self._written(layer, written or {})),
                ):
                    handle = module.register_forward_hook(hook)
                    hooks.callback(handle.remove)
            return self.model(self.tokens).logits[0, -1]

    def _resid(self, layer: int) -> Any:
        def hook(module: Any, inputs: Any, output: Tensor) -> None:
            self.resid[layer] = inputs[0][0].clone()

        return hook

    def _read(self, layer: int, block: Any, read: Any) -> Any:
        def hook(module: Any, inputs: Any, output: Tensor) -> Tensor:
            output = output.clone()
            if read is not None and read[0] == layer:
                x = inputs[0].clone()
                for token, vector in read[2].items():
                    x[0, token] += block.ln_1.weight * vector
                changed = x @ module.weight + module.bias
                for port in range(3):
                    at = slice(*(port * module.nx + h * self.d_head for h in (read[1], read[1] + 1)))
                    output[..., at] = changed[..., at]
            self.qk[layer] = output[0]
            return output

        return hook

    def _written(self, layer: int, written: dict[tuple[int, int], Tensor]) -> Any:
        def hook(module: Any, inputs: Any, output: Tensor) -> Tensor:
            self.z[layer] = inputs[0][0].clone()
            output = output.clone()
            for (at, token), vector in written.items():
                if at == layer:
                    output[0, token] += vector
            self.out[layer] = output[0]
            return output

        return hook

    def score(self, head: Head, i: int, j: int) -> float:
        """The attention score of a head in the last run."""
        d, h = self.model.config.n_embd, slice(head[1] * self.d_head, (head[1] + 1) * self.d_head)
        q, k, _ = self.qk[head[0]].split(d, dim=-1)
        return float(q[i, h] @ k[j, h]) / self.d_head**0.5

    def term(self, head: Head, token: int) -> Tensor:
        """What a head writes in the clean run."""
        at = slice(head[1] * self.d_head, (head[1] + 1) * self.d_head)
        return self.clean_z[head[0]][token, at] @ self.model.transformer.h[head[0]].attn.c_proj.weight[at].detach()

    def traced(self, head: Head, i: int, j: int) -> Traced:
        """Signal and senders of a firing from token i to token j, from the whole of Ω."""
        layer, d = head[0], self.model.config.n_embd
        block = self.model.transformer.h[layer]
        at = slice(head[1] * self.d_head, (head[1] + 1) * self.d_head)
        centre = torch.eye(d).double() - 1 / d
        ports = []
        for port in range(2):
            weight = block.attn.c_attn.weight[:, port * d : (port + 1) * d][:, at].detach()
            bias = block.attn.c_attn.bias[port * d : (port + 1) * d][at].detach()
            bias = bias + block.ln_1.bias.detach() @ weight
            ports.append(torch.cat((centre @ torch.diag(block.ln_1.weight.detach()) @ weight, bias[None])))
        u, values, vh = torch.linalg.svd(ports[0] @ ports[1].T / self.d_head**0.5)
        inputs, scales = [], []
        for token in (i, j):
            x = centre @ self.clean_resid[layer][token]
            scales.append(float((x.square().mean() + block.ln_1.eps).sqrt()))
            inputs.append(torch.cat((x / scales[-1], torch.ones(1).double())))
        along = inputs[0] @ u
        terms = (values * along * (vh @ inputs[1]))[: self.d_head]
        order, chosen, reached = terms.argsort(descending=True).tolist(), [], 0.0
        while reached < float(terms.sum()) - 1e-6 * float(terms.abs().sum()):
            chosen.append(order[len(chosen)])
            reached += float(terms[chosen[-1]])
        senders, projectors = [], []
        for vectors, token, scale in ((u.T, i, scales[0]), (vh, j, scales[1])):
            signal = vectors[chosen, :-1]
            towards = (along[chosen].sign() * values[chosen].sqrt()) @ signal / scale
            adds = {(below, h): float(self.term((below, h), token) @ towards)
                    for below in range(layer) for h in range(self.heads)}  # fmt: skip
            senders.append(list(_most(adds)))
            projectors.append(signal.T @ signal)
        return Traced((i, j), tuple(senders), tuple(projectors), tuple(scales), set(chosen))

    def removed(self, found: Traced) -> Iterator[tuple[Head, int, float, Tensor]]:
        """What each sender writes along the signal: (sender, token, the norm's scale there, the part)."""
        for side in range(2):
            for sender in found.senders[side]:
                part = found.projectors[side] @ self.term(sender, found.tokens[side])
                yield sender, found.tokens[side], found.scales[side], part

    def cut(self, head: Head, found: Traced, reach: str, sign: float = -1.0) -> tuple[Tensor, float, list[Any]]:
        """Logits at END with a signal taken out, the head's score, and what is cut into before and after."""
        written: dict[tuple[int, int], Tensor] = {}
        read: dict[int, Tensor] = {}
        for sender, token, scale, part in self.removed(found):
            place = (sender[0], token)
            written[place] = written.get(place, 0) + sign * part
            read[token] = read.get(token, 0) + sign * part / scale
        if reach == "global":
            logits = self.run(written)
            bias = [block.attn.c_proj.bias.detach() for block in self.model.transformer.h]  # no head writes it
            pairs = [
                (self.clean_out[layer][token] - bias[layer], self.out[layer][token] - bias[layer])
                for layer, token in written
            ]
            pairs = [(old - old.mean(), new - new.mean()) for old, new in pairs]
        else:
            logits = self.run(read=(*head, read))
            pairs = []
            for token, vector in read.items():
                x = self.clean_resid[head[0]][token]
                x = (x - x.mean()) / (x.var(unbiased=False) + self.model.transformer.h[0].ln_1.eps).sqrt()
                pairs.append((x, x + vector))
        return logits, self.score(head, *found.tokens), pairs


def _most(adds: dict[Head, float]) -> Iterator[Head]:
    total, reached = sum(adds.values()), 0.0
    for head in sorted(adds, key=lambda head: -adds[head]):
        if reached >= 0.7 * total:
            return
        reached += adds[head]
        yield head
