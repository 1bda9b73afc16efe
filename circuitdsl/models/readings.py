"""A model read by the names that TransformerLens gives to its parts, whatever the architecture.

Names do not say how parts work together: whether a norm takes the mean out, how positions turn queries, what reads
what. So a few random tokens are run, and of every part that reading is taken which gives what the part gave. A model
with a part that no reading fits is refused. Any other is compared with its library's logits, as those of all families
are.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.models.agreement import SHORT
from circuitdsl.models.distances import Distances, slopes
from circuitdsl.models.errors import UnsupportedModel, refusing
from circuitdsl.models.experts import Whole
from circuitdsl.models.families import refuse_changing
from circuitdsl.models.families._family import activation, apart, no_norm
from circuitdsl.models.parts import PORTS, Attention, Block, Linear, Mlp, Norm, Rotary, Transformer, Turns, attend

T = TypeVar("T")
#: how far what a reading gives may be from what the part gave, relative to the largest number of that
FITS = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
#: how libraries call what is added to a variance, and in a configuration the activation of MLPs
_EPS = ("variance_epsilon", "eps", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps")
_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation")
_NORMS: tuple[Literal["rms", "layer"], ...] = ("rms", "layer")


class Passed(NamedTuple):
    """What went into a part of a model, and what came out."""

    x: Float[Tensor, "*rows inputs"]
    y: Float[Tensor, "*rows outputs"]


def read_bridge(name: str, bridge: Any, rotary: Mapping[str, Rotary], **about: Any) -> Transformer:
    """The view of the model in a bridge.

    Args:
        rotary: its rotary frequencies, as `load.rotary_of` gives them.
        about: what else the view has: its tokenizer, its original, the hashes of its files.

    Raises:
        UnsupportedModel: some part computes what no reading of it does.
    """
    config, cfg = bridge.original_model.config, bridge.cfg
    refuse_changing(name, config, rotary)
    tokens = torch.randint(cfg.d_vocab, (2, SHORT), generator=torch.Generator().manual_seed(1))
    tokens = tokens.to(bridge.original_model.device)
    reader = _Reader(name, config, cfg, tuple(_turnings(config, rotary, tokens.device)), {})
    reader.run(bridge.original_model, tokens)
    read = [reader.block(i, block) for i, block in enumerate(bridge.blocks)]
    if len({parallel for _, parallel in read}) != 1:
        raise UnsupportedModel(f"{name} has heads and MLPs beside each other in some layers alone, or no layers")
    final, head = reader.norm("the last norm", bridge.ln_final), _linear(bridge.unembed)
    tiny = torch.full((), 1e-9, dtype=torch.float64)  # no cap changes it
    times = float(bridge.adapter.apply_output_logits_transform(tiny) / tiny)
    view = Transformer(
        name=name,
        family=config.model_type,
        parallel=read[0][1],
        n_ctx=getattr(config, "max_position_embeddings", None) or cfg.n_ctx,
        blocks=tuple(block for block, _ in read),
        final_norm=final if times == 1 else replace(final, gain=final.gain * times, bias=_times(final.bias, times)),
        W_E=_inner(bridge.embed).weight.detach(),
        W_pos=None,
        W_U=head.weight,
        b_U=_times(head.bias, times),
        softcap=_cap(cfg, "output_logits_soft_cap"),
        **about,
    )
    return reader.embedded(view, bridge, tokens)


@dataclass(frozen=True)
class _Reader:
    """What reads the parts of a model.

    Attributes:
        name: the model's.
        config, cfg: its configuration, as Hugging Face has it and as the bridge has.
        turnings: the ways in which positions may turn queries and keys; and whether neighbouring numbers are turned.
        seen: what has passed through each component of the bridge.
    """

    name: str
    config: Any
    cfg: Any
    turnings: tuple[tuple[Rotary | None, bool], ...]
    seen: dict[Any, list[Passed]]

    @torch.no_grad()
    def run(self, model: Any, tokens: Int[Tensor, "n T"]) -> None:
        """Run tokens, and note what passes through every component."""
        inputs, hooks = defaultdict[Any, list[Tensor]](list), []

        def before(module: Any, args: Any, kwargs: Any) -> None:
            given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()]
            inputs[module].append(given[0].clone() if given else tokens)

        def after(module: Any, _: Any, out: Any) -> None:
            y = out[0] if isinstance(out, tuple) else out
            self.seen.setdefault(module, []).append(Passed(inputs[module].pop(), y.clone()))

        for module in model.modules():
            if hasattr(module, "original_component"):
                hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
                hooks.append(module.register_forward_hook(after))
        try:
            with refusing(f"TransformerLens cannot run {self.name}"):
                model(input_ids=tokens, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()

    def best(self, what: str, readings: Iterable[T], run: Callable[[T], Tensor], wanted: Tensor) -> T:
        """The first reading that gives what was seen; in half precision a later one, where that is much nearer.

        Raises:
            UnsupportedModel: none does.
        """
        found, least = list[T](), 2 * FITS[wanted.dtype]
        with torch.no_grad():
            for each in readings:
                off = float((run(each).float() - wanted.float()).abs().max()) / max(float(wanted.abs().max()), 1e-6)
                if off < least / 2:
                    found, least = [each], off
                if least < FITS[torch.float32]:
                    break
        if not found:
            raise UnsupportedModel(f"{what} of {self.name} ({self.config.model_type}) computes what is not known")
        return found[0]

    def norm(self, what: str, component: Any) -> Norm:
        (x, y), module = self.seen[component][-1], _inner(component)
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        gains = [x.new_ones(x.shape[-1])]
        if weight is not None:
            gains = [weight.detach(), 1 + weight.detach().float()]
        eps = next(float(e) for of in (module, self.config) for n in _EPS if (e := getattr(of, n, None)) is not None)
        shift = None if bias is None else bias.detach()
        norms = [Norm(kind, gain, shift, eps) for kind, gain in product(_NORMS, gains) if gain.shape == x.shape[-1:]]
        return self.best(what, norms, lambda norm: norm(x), y)

    def block(self, layer: int, block: Any) -> tuple[Block, bool]:
        """A layer, and whether its MLP stands beside its heads."""
        heads, mlp = _part(block, "attn"), block._modules.get("mlp")
        if mlp is None and _part(block, "moe") is None:
            mlp = _part(block, "shared_mlp")  # of Granite 4 without experts
        if heads is None or mlp is None or len(self.seen[block]) != 1:
            raise UnsupportedModel(f"layer {layer} of {self.name} lacks heads or an MLP, or runs more than once")
        (resid, out), (read, written) = self.seen[block][0], self.seen[heads][0]
        start, end = (each if each in self.seen else mlp for each in (_part(mlp, "in"), _part(mlp, "out")))
        mlp_read, mlp_written = self.seen[start][0].x, self.seen[end][0].y
        norms = [each for each in block.children() if each in self.seen and each not in (heads, mlp)]

        def before(x: Tensor) -> tuple[Norm, Tensor]:
            """The norm whose output a part reads, if any, and what that norms."""
            found = next((each for each in norms if _same(self.seen[each][0].y, x)), None)
            if found is None:
                return no_norm(x.flatten(0, -2)), x
            return self.norm(f"a norm in layer {layer}", found), self.seen[found][0].x

        def after(y: Tensor) -> Norm | None:
            """The norm that reads what a part writes, if any."""
            found = next((each for each in norms if _same(self.seen[each][0].x, y)), None)
            return None if found is None else self.norm(f"a norm in layer {layer}", found)

        attn = replace(self.attention(layer, heads), post=after(written))
        part = replace(self.mlp(layer, mlp, mlp_read, mlp_written), post=after(mlp_written))
        if (times := getattr(block, "residual_contribution_scale", 1.0)) != 1:
            if attn.post or part.post:
                raise UnsupportedModel(f"layer {layer} of {self.name} has norms and a factor behind its parts")
            attn = replace(attn, o=Linear(attn.o.weight * times, _times(attn.o.bias, times)))
            ones = no_norm(mlp_written.flatten(0, -2))
            part = replace(part, post=replace(ones, gain=ones.gain * times))
        (norm, _), (mlp_norm, normed) = before(read), before(mlp_read)
        parallel = _same(normed, resid)

        mid = resid + (attn.post(written) if attn.post else written * times)
        made = Block(norm, attn, mlp_norm, part)
        self.best(f"layer {layer}", [made], lambda _: mid + part(mlp_norm(resid if parallel else mid)), out)
        return made, parallel

    def attention(self, layer: int, heads: Any) -> Attention:
        (x, y), module = self.seen[heads][0], _inner(heads)
        q, k, v, o = (_linear(getattr(heads, each)) for each in "qkvo")
        d_head = getattr(module, "head_dim", None) or self.cfg.d_head
        normed = [_part(heads, f"{each}_norm") for each in "qk"]
        q_norm, k_norm = (each and self.norm(f"a norm in the heads of layer {layer}", each) for each in normed)
        plain = Attention(
            *(q, k, v, o, o.weight.shape[1] // d_head, k.weight.shape[0] // d_head, d_head),
            scale=float(getattr(module, "scaling", None) or d_head**-0.5),
            q_norm=q_norm,
            k_norm=k_norm,
            softcap=_cap(self.cfg, "attn_scores_soft_cap"),
            clip=getattr(module, "clip_qkv", None) or getattr(self.config, "clip_qkv", None),
        )
        types, window = getattr(self.config, "layer_types", None), getattr(self.config, "sliding_window", None)
        windows = [None] if window is None or (types and "sliding" not in types[layer]) else [window, None]

        def readings() -> Iterator[Attention]:
            for rotary, neighbours in self.turnings:
                yield replace(_apart(plain, rotary) if rotary and neighbours else plain, rotary=rotary)
            yield replace(plain, distances=Distances(slopes(plain.n_heads)))

        def run(attn: Attention) -> Tensor:
            nothing = x.new_empty(x.shape[1], 0)
            turns = attn.rotary.turns(x.shape[1], x.dtype) if attn.rotary else Turns(nothing, nothing)
            return attn.write(attend(attn, *(attn.project(port, x, turns).transpose(1, 2) for port in PORTS)))

        windowed = (replace(each, window=window) for each, window in product(readings(), windows))
        return self.best(f"the attention in layer {layer}", windowed, run, y)

    def mlp(self, layer: int, component: Any, x: Tensor, y: Tensor) -> Mlp | Whole:
        """A plain or gated MLP, which has neurons, or else the library's own, as a function of one position."""
        gate, up, down = (_part(component, each) and _linear(_part(component, each)) for each in ("gate", "in", "out"))

        def backwards(mlp: Mlp | Whole) -> Tensor:
            """A function of one position gives the same in any order."""
            return mlp(x.flip(1)).flip(1)

        if up and down and len(up.weight) == down.weight.shape[1]:
            named = (getattr(self.config, each, None) for each in _ACTIVATIONS)
            acts = [activation(each) for each in named if isinstance(each, str)] or [activation("gelu")]
            fixed = [act for act in acts if not isinstance(act, torch.nn.Module) or not list(act.parameters())]
            with suppress(UnsupportedModel):
                return self.best("", [Mlp(up, down, act, gate) for act in fixed], backwards, y)
        module = unwrapped(component.original_component)
        numbers = {name: each.detach() for name, each in (*module.named_parameters(), *module.named_buffers())}
        kept = {name: each for name, each in numbers.items() if each.is_floating_point()}
        whole = Whole(module, tuple(kept), tuple(kept.values()), self.active)
        return self.best(f"the MLP of layer {layer}", [whole], backwards, y)

    @property
    def active(self) -> float:
        """The share of an MLP's weights that one position uses, about."""
        chosen, of = (getattr(self.cfg, each, None) for each in ("experts_per_token", "num_experts"))
        return min(1.0, (chosen + 1) / of) if chosen and of else 1.0

    def embedded(self, view: Transformer, bridge: Any, tokens: Int[Tensor, "n T"]) -> Transformer:
        """The view with what it makes of tokens before the first layer."""
        root = float(torch.tensor(view.d_model**0.5, dtype=view.dtype))  # as transformers stores it
        times = (float(getattr(self.config, "embedding_multiplier", 1.0)), root)
        norm = Norm("rms", view.W_E.new_ones(view.d_model), None, view.final_norm.eps)
        readings: list[dict[str, Any]] = [*({"embed_scale": each} for each in times), {"embed_norm": norm}]
        if (learned := _part(bridge, "pos_embed")) is not None:
            table = _inner(learned).weight.detach()
            readings.append({"W_pos": table[len(table) - view.n_ctx :]})
        wanted = self.seen[bridge.blocks[0]][0].x
        found = self.best("the embedding", readings, lambda each: replace(view, **each).embed(tokens), wanted)
        return replace(view, **found)


def _turnings(config: Any, rotary: Mapping[str, Rotary], device: torch.device) -> Iterator[tuple[Rotary | None, bool]]:
    """The ways in which positions may turn queries and keys, the usual one first: forwards or backwards, or not."""
    known = list(rotary.values())
    if not known and (turned := getattr(config, "rotary_dim", None)):
        known = [Rotary(1.0 / 10000 ** (torch.arange(0, turned, 2, device=device) / turned))]
    for each, neighbours in product(known, (False, True)):
        yield each, neighbours
        yield Rotary(-each.inv_freq, each.scaling), neighbours
    yield None, False


def _apart(attn: Attention, rotary: Rotary) -> Attention:
    """Heads in which neighbouring numbers are turned, in the order of the others (see `apart`)."""
    if attn.q_norm or attn.k_norm:
        return attn  # gains would have to be in that order too
    q, k = (apart(each, attn.d_head, 2 * len(rotary.inv_freq)) for each in (attn.q, attn.k))
    return replace(attn, q=q, k=k)


def _part(of: Any, name: str) -> Any:
    """A component of a bridge or of one of its components; None where the model has no such part."""
    found = of._modules.get(name)
    return None if found is None or found.original_component is None else found


def _inner(component: Any) -> Any:
    """The library's own module in a component."""
    while (found := getattr(component, "original_component", None)) is not None:
        component = found
    return component


def twin_of(module: Any) -> Any:
    """A module with the same numbers: another one, which shares the tensors."""
    return copy.deepcopy(module, {id(each): each for each in (*module.parameters(), *module.buffers())})


def unwrapped(module: Any) -> Any:
    """A twin of a module without a bridge's components in it."""
    found = twin_of(module)
    for parent in list(found.modules()):
        for key, child in parent._modules.items():
            parent._modules[key] = _inner(child)
        if isinstance(parent, torch.nn.Linear) and "bias" in parent._buffers:
            parent._buffers["bias"] = None  # zeros, which are no weights of the model
    return found


def _linear(component: Any) -> Linear:
    module = _inner(component)
    weight, bias = module.weight.detach(), module._parameters.get("bias")  # a bridge adds zeros as a buffer
    return Linear(weight.T if type(module).__name__ == "Conv1D" else weight, None if bias is None else bias.detach())


def _times(tensor: Tensor | None, factor: float) -> Tensor | None:
    return tensor if tensor is None or factor == 1 else tensor * factor


def _cap(cfg: Any, name: str) -> float | None:
    """What scores or logits do not exceed; a bridge says −1 where there is no cap."""
    found = getattr(cfg, name, None)
    return float(found) if found and found > 0 else None


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
