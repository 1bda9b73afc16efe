"""Features patched by brute force, with hooks on the modules of transformers: one prompt, nothing of the engine.

Whatever is read is computed from what the modules are given in the same run; features are those of plain autoencoders
and transcoders with a ReLU, as their definition has them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from circuitdsl.circuit.nodes import EMBED, ERROR, LOGITS, Edge, Node, Position, Site

#: an input, by its node and port
Place = tuple[Node, str]


class Names(NamedTuple):
    """Where a family keeps its modules: those of a layer are named as its attributes."""

    layers: str
    final_norm: str
    attn_norm: str
    q: str
    o: str
    mlp_norm: str
    mlp: str = "mlp"
    attn_post: str = ""
    mlp_post: str = ""


NAMES = {
    "gpt2": Names("transformer.h", "transformer.ln_f", "ln_1", "attn.c_attn", "attn.c_proj", "ln_2"),
    "llama": Names(
        "model.layers",
        "model.norm",
        "input_layernorm",
        "self_attn.q_proj",
        "self_attn.o_proj",
        "post_attention_layernorm",
    ),
    "gpt_neox": Names(
        "gpt_neox.layers",
        "gpt_neox.final_layer_norm",
        "input_layernorm",
        "attention.query_key_value",
        "attention.dense",
        "post_attention_layernorm",
    ),
    "gemma2": Names(
        "model.layers",
        "model.norm",
        "input_layernorm",
        "self_attn.q_proj",
        "self_attn.o_proj",
        "pre_feedforward_layernorm",
        "mlp",
        "post_attention_layernorm",
        "post_feedforward_layernorm",
    ),
}


class Plain(NamedTuple):
    """A dictionary; rows are features.

    `place` is `read` (what an MLP reads), `wrote` (what it, or a layer's heads, write), `gathered` (what the heads do
    before that) or `stream`.
    """

    whole: Node
    place: str
    tensors: Mapping[str, Tensor]


@dataclass
class Hooked:
    """A model of transformers under hooks.

    Attributes:
        terms: what each node wrote in the last run [T, d].
    """

    model: nn.Module
    family: str
    features: Mapping[Node, Plain]
    terms: dict[Node, Tensor] = field(default_factory=dict)

    def part(self, *path: str) -> Any:
        found: Any = self.model
        for name in ".".join(path).split("."):
            found = found[int(name)] if name.isdigit() else getattr(found, name)
        return found

    @torch.inference_mode()
    def run(
        self,
        tokens: Tensor,
        edges: Collection[tuple[Node, Place, int]] = (),
        other: Mapping[Node, Tensor] | None = None,
        adds: Mapping[Place, Tensor] | None = None,
        scales: Mapping[Node, float] | None = None,
        sites: Collection[tuple[Node, int]] = (),
    ) -> Tensor:
        """Logits at END.

        Args:
            edges: (sender, input, token): there the term of `other` is read in the place of the sender's own.
            adds: what is added to what inputs read.
            scales: features whose terms are multiplied.
            sites: features, and tokens at which their terms are those of `other`.
        """
        self.terms, self.resid, self.mid = {}, torch.empty(0), torch.empty(0)
        self.edges, self.other, self.adds, self.scales = edges, other or {}, adds or {}, scales or {}
        self.sites = sites
        names, hooks = NAMES[self.family], []

        def listen(module: nn.Module, hook: Callable, before: bool = False) -> None:
            hooks.append(
                module.register_forward_pre_hook(hook, with_kwargs=True)
                if before
                else module.register_forward_hook(lambda module, given, out: hook(given, out))
            )

        try:
            for i, layer in enumerate(self.part(names.layers)):
                listen(layer, lambda module, args, more, i=i: self._stream(i, args, more), before=True)
                own = {
                    name: self.part(names.layers, str(i), path)
                    for name, path in names._asdict().items()
                    if path and name not in ("layers", "final_norm")
                }
                listen(own["q"], lambda given, out, i=i, own=own: self._queries(i, own, out))
                listen(own["o"], lambda given, out, i=i, own=own: self._heads(i, own, given[0][0], out))
                if names.attn_post:
                    listen(own["attn_post"], lambda given, out, i=i: self._rescaled(i, out[0] / given[0][0]))
                listen(own["mlp_norm"], lambda given, out: setattr(self, "mid", given[0][0].clone()))
                last = own["mlp_post"] if names.mlp_post else own["mlp"]
                listen(last, lambda given, out, i=i, own=own: self._mlp(i, own, out))
            final = self.part(names.final_norm)
            depth = len(self.part(names.layers))
            listen(final, lambda module, args, more: self._stream(depth, args, more), before=True)
            return self.model(tokens[None]).logits[0, -1]
        finally:
            for hook in hooks:
                hook.remove()

    def read(self, node: Node, port: str, resid: Tensor) -> Tensor:
        """What an input reads, given the stream."""
        resid = resid + self.adds.get((node, port), 0)
        for sender, place, token in self.edges:
            if place == (node, port):
                resid[token] += self.other[sender][token] - self.terms[sender][token]
        return resid

    def patched(self, node: Node, port: str) -> bool:
        return (node, port) in self.adds or any(place == (node, port) for _, place, _ in self.edges)

    def _stream(self, layer: int, args: tuple, more: dict) -> tuple[tuple, dict] | None:
        resid = (args[0] if args else more["hidden_states"])[0].clone()
        if layer == 0:
            self.terms[EMBED] = resid.clone()
        resid = self._inside(Node("resid", layer), resid, lambda node: self.read(node, "in", resid))
        self.resid = resid
        if layer == len(self.part(NAMES[self.family].layers)):
            resid = self.read(LOGITS, "in", resid)
        return ((resid[None], *args[1:]), more) if args else (args, {**more, "hidden_states": resid[None]})

    def _queries(self, layer: int, own: Mapping[str, Any], out: Tensor) -> Tensor:
        config, out = self.model.config, out.clone()
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        for head in range(heads):
            node = Node("head", layer, head)
            if self.patched(node, "q"):
                x = own["attn_norm"].forward(self.read(node, "q", self.resid)[None])
                step = 3 * width if self.family == "gpt_neox" else width
                columns = slice(head * step, head * step + width)
                out[..., columns] = own["q"].forward(x)[..., columns]
        return out

    def _heads(self, layer: int, own: Mapping[str, Any], z: Tensor, out: Tensor) -> Tensor:
        weight = own["o"].weight if self.family == "gpt2" else own["o"].weight.T
        heads = self.model.config.num_attention_heads
        for head, (rows, part) in enumerate(zip(weight.chunk(heads), z.chunk(heads, dim=-1), strict=True)):
            self.terms[Node("head", layer, head)] = part @ rows
        attended = self._inside(Node("attn", layer), out[0], None, z, weight)
        mid, behind = self.resid + attended, Node("mid", layer)
        changed = self._inside(behind, mid, lambda node: self.read(node, "in", mid))
        return (attended + (changed - mid))[None]

    def _rescaled(self, layer: int, factor: Tensor) -> None:
        for node in [node for node in self.terms if node.kind == "head" and node.layer == layer]:
            self.terms[node] = self.terms[node] * factor

    def _mlp(self, layer: int, own: Mapping[str, Any], out: Tensor) -> Tensor:
        whole, term = Node("mlp", layer), out[0].clone()

        def new(node: Node) -> Tensor:
            x = own["mlp_norm"].forward(self.read(node, "in", self.mid)[None])
            if self.features[node].place == "read":
                return x[0]
            made = own["mlp"].forward(x)
            return (own["mlp_post"].forward(made) if "mlp_post" in own else made)[0]

        seen = own["mlp_norm"].forward(self.mid[None])[0]
        self.terms[whole] = self._inside(whole, term, new, seen)
        return self.terms[whole][None]

    def _inside(
        self,
        whole: Node,
        value: Tensor,
        new: Callable[[Node], Tensor] | None = None,
        seen: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """A term or a stream with the features that read something else, are scaled, or are knocked out.

        Args:
            new: what a feature reads to which something is sent.
            seen: what features read that do not read `value`.
            out: through which weights these write.
        """
        change = torch.zeros_like(value)
        for node, plain in self.features.items():
            if plain.whole != whole:
                continue
            x = seen if plain.place in ("read", "gathered") else value
            through = out if plain.place == "gathered" else None
            own = self.terms[node] = self._term(node, x, value, through)  # type: ignore[arg-type]
            if node.index != ERROR and self.patched(node, "in"):
                self.terms[node] = self._term(node, new(node), value, through)  # type: ignore[misc]
            self.terms[node] = self.terms[node] * self.scales.get(node, 1.0)
            for token in [token for other, token in self.sites if other == node]:
                self.terms[node][token] = self.other[node][token]
            change += self.terms[node] - own
        return value + change

    def _term(self, node: Node, x: Tensor, value: Tensor, out: Tensor | None = None) -> Tensor:
        tensors = self.features[node].tensors
        f = (x @ tensors["W_enc"] + tensors["b_enc"]).relu()
        through = torch.eye(len(tensors["b_dec"])) if out is None else out
        if node.index != ERROR:
            return torch.outer(f[:, node.index], tensors["W_dec"][node.index] @ through)
        return ((value if out is None else x) - f @ tensors["W_dec"] - tensors["b_dec"]) @ through


def patched(
    hooked: Hooked,
    clean: Tensor,
    corrupt: Tensor,
    edges: Collection[Edge],
    at: Mapping[Position, set[int]],
    sites: Collection[Site] = (),
) -> Tensor:
    """Logits at END where all of some edges and features are patched in one run."""
    hooked.run(corrupt)
    other = {node: term.clone() for node, term in hooked.terms.items()}
    some = {(e.sender, (e.receiver.node, e.receiver.port), token) for e in edges for token in at[e.position]}
    out = {(site.node, token) for site in sites for token in at[site.position]}
    return hooked.run(clean, some, other, sites=out)


def along(
    hooked: Hooked, clean: Tensor, corrupt: Tensor, arrows: list[Collection[Edge]], at: Mapping[Position, set[int]]
) -> Tensor:
    """Logits at END where a change goes along a path: every reader is run alone, on the clean prompt."""
    hooked.run(corrupt)
    other = dict(hooked.terms)
    hooked.run(clean)
    plain = dict(hooked.terms)
    change = {edge.sender: other[edge.sender] - plain[edge.sender] for edge in arrows[0]}
    for arrow in arrows:
        places = [(edge, (edge.receiver.node, edge.receiver.port)) for edge in arrow]
        come: dict[Place, Tensor] = {place: torch.zeros_like(plain[EMBED]) for _, place in places}
        for sender, place, token in {(edge.sender, place, t) for edge, place in places for t in at[edge.position]}:
            come[place][token] += change[sender][token]
        if arrow is arrows[-1]:
            return hooked.run(clean, adds=come)
        change = {}
        for node, port in come:
            hooked.run(clean, adds={(node, port): come[node, port]})
            change[node] = hooked.terms[node] - plain[node]
    raise AssertionError
