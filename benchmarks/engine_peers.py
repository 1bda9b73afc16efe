"""How others patch one edge, on the same weights and prompts: TransformerLens' own function, and plain hooks.

`TransformerLens`: `transformer_lens.patching.get_act_patch_direct_path`, one forward an edge with split query, key
and value inputs. It patches every position; where a workload patches some, it is given caches that differ only there,
so that it computes the very same patch. `Hooks`: what one writes by hand on a Hugging Face GPT-2. A first forward with
every other head and MLP frozen to clean gives the receiver's patched query, key or value; a second puts that in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.engine_meter import clock_of
from benchmarks.engine_workloads import EVERY, Workload
from circuitdsl.circuit.nodes import Edge
from tests.engine.bridge import bridge_of


class Peer(Protocol):
    """Patches a workload's edges one after the other; `times` are the seconds that each took."""

    name: str
    times: list[float]

    def prepare(self, load: Workload) -> None:
        """The clean and corrupt passes."""

    def edge(self, load: Workload, edge: Edge) -> Float[Tensor, "n 2"]:
        """The two logits that are read, with an edge patched."""


class _Enough(Exception):
    """The one edge that was wanted is done."""


class TransformerLens:
    """Theirs is a sweep over receivers, one forward each; every forward is timed as one edge."""

    name = "TransformerLens"

    def __init__(self, path: Path, device: torch.device, dtype: str) -> None:
        self.clock = clock_of(device)
        self.times: list[float] = []
        self.start = 0.0
        self.bridge = bridge_of(path, device, getattr(torch, dtype))
        self.clean: Any = None
        self.corrupt: Any = None

    def prepare(self, load: Workload) -> None:
        def is_z(name: str) -> bool:
            return name.endswith("attn.hook_z")

        with torch.inference_mode():
            _, self.clean = self.bridge.run_with_cache(load.clean, names_filter=is_z)
            _, self.corrupt = self.bridge.run_with_cache(load.corrupt, names_filter=is_z)

    def edge(self, load: Workload, edge: Edge) -> Tensor:
        """Stops their sweep as soon as the wanted receiver is measured."""
        from transformer_lens.patching import get_act_patch_direct_path

        sender, reader, heads = edge.sender, edge.receiver.node, self.bridge.cfg.n_heads
        name = f"blocks.{sender.layer}.attn.hook_z"
        then = self.clean[name].clone()
        at = _mask(load, edge).to(then.device)
        then[at] = self.corrupt[name][at]
        found: list[Tensor] = []

        def metric(logits: Tensor) -> Tensor:
            self.times.append(self.clock() - self.start)
            self.start = self.clock()
            if len(found) == (reader.layer - sender.layer - 1) * heads + reader.head:
                found.append(_read(load, logits[:, -1]))
                raise _Enough
            found.append(logits[0, -1, 0])
            return found[-1]

        self.start = self.clock()
        with torch.inference_mode(), suppress(_Enough):
            get_act_patch_direct_path(
                self.bridge,
                load.clean,
                {name: then},
                {name: self.clean[name]},
                metric,
                sender.layer,
                sender.head,
                edge.receiver.port,
                verbose=False,
            )
        return found[-1]


class Hooks:
    """Two forwards an edge on a Hugging Face GPT-2."""

    name = "plain hooks"

    def __init__(self, path: Path, device: torch.device, dtype: torch.dtype) -> None:
        from transformers import GPT2LMHeadModel

        self.clock = clock_of(device)
        self.times: list[float] = []
        self.model = GPT2LMHeadModel.from_pretrained(path, dtype=dtype).to(device).eval()
        self.d_head = self.model.config.n_embd // self.model.config.n_head
        self.z: list[Tensor] = []
        self.mlp: list[Tensor] = []
        self.corrupt_z: list[Tensor] = []

    def prepare(self, load: Workload) -> None:
        self.corrupt_z, _ = self._cached(load.corrupt)
        self.z, self.mlp = self._cached(load.clean)

    def _cached(self, tokens: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Every layer's `z` (what `c_proj` reads) and MLP output."""
        z: list[Tensor] = []
        mlp: list[Tensor] = []
        hooks: list[tuple[str, Any, Callable]] = []
        for block in self.model.transformer.h:
            hooks.append(("pre", block.attn.c_proj, lambda _, args: z.append(args[0])))
            hooks.append(("out", block.mlp, lambda _, __, out: mlp.append(out)))
        with self._hooked(hooks):
            self._run(tokens)
        return z, mlp

    def edge(self, load: Workload, edge: Edge) -> Tensor:
        sender, reader = edge.sender, edge.receiver.node
        blocks = self.model.transformer.h
        columns = slice(sender.head * self.d_head, (sender.head + 1) * self.d_head)
        start = "qkv".index(edge.receiver.port) * self.model.config.n_embd + reader.head * self.d_head
        port = slice(start, start + self.d_head)
        at = _mask(load, edge).to(self.model.device)
        kept: list[Tensor] = []

        def frozen(layer: int) -> Callable:
            def hook(_: Any, args: tuple) -> tuple:
                z = self.z[layer]
                if layer == sender.layer:
                    z = z.clone()
                    z[..., columns][at] = self.corrupt_z[layer][..., columns][at]
                return (z,)

            return hook

        def patch(_: Any, __: Any, out: Tensor) -> Tensor:
            out = out.clone()
            out[..., port][at] = kept[0][at]
            return out

        freeze: list[tuple[str, Any, Callable]] = []
        for layer in range(reader.layer):
            freeze.append(("pre", blocks[layer].attn.c_proj, frozen(layer)))
            freeze.append(("out", blocks[layer].mlp, lambda _, __, ___, layer=layer: self.mlp[layer]))
        reading = blocks[reader.layer].attn.c_attn
        freeze.append(("out", reading, lambda _, __, out: kept.append(out[..., port])))
        start = self.clock()
        with self._hooked(freeze):
            self._run(load.clean)
        with self._hooked([("out", reading, patch)]):
            out = _read(load, self._run(load.clean)[:, -1])
        self.times.append(self.clock() - start)
        return out

    def _run(self, tokens: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.model(tokens.to(self.model.device)).logits

    @contextmanager
    def _hooked(self, hooks: list[tuple[str, Any, Callable]]) -> Iterator[None]:
        handles = [
            module.register_forward_pre_hook(hook) if kind == "pre" else module.register_forward_hook(hook)
            for kind, module, hook in hooks
        ]
        try:
            with torch.inference_mode():
                yield
        finally:
            for handle in handles:
                handle.remove()


def _mask(load: Workload, edge: Edge) -> Tensor:
    """`[n, T]`: where the edge is patched."""
    if edge.position == EVERY:
        return torch.ones(load.clean.shape, dtype=torch.bool)
    out = torch.zeros(load.clean.shape, dtype=torch.bool)
    return out.scatter(1, load.positions[edge.position], True)


def _read(load: Workload, logits: Float[Tensor, "n vocab"]) -> Float[Tensor, "n 2"]:
    return logits.gather(1, load.answers.to(logits.device)).float()
