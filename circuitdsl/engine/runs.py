"""The clean and the corrupt run, computed once, with what patching needs of them kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from threading import BoundedSemaphore
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, Ablation, Node
from circuitdsl.engine.batch_index import Array, ship
from circuitdsl.engine.experiment import PatchError, Readout, check_node
from circuitdsl.engine.memory import CHUNK, VOCAB_THREADS
from circuitdsl.engine.workers import each, in_equal_parts, measuring, unit_rows
from circuitdsl.models.parts import PORTS, Attention, Transformer, Turns, attend
from circuitdsl.models.writers import Written, in_whole

T = TypeVar("T", bound="Terms")
#: some of the prompts
Rows = slice | Int[Tensor, " m"]
#: partners are run from the first token on that differs; they are grouped so that there are at most so many starts
MOST_STARTS = 4
#: held while logits over the whole vocabulary are
_VOCABULARY = BoundedSemaphore(VOCAB_THREADS)


@dataclass(frozen=True, slots=True, eq=False)
class Terms(Written):
    """What the nodes of whole runs write, for prompts of one length: values are `[n, T, ...]`.

    Attributes:
        end: the residual stream at END, before the final norm; empty if the run stopped before the last MLP.
    """

    end: Float[Tensor, "n d"]

    def first(self: T, n: int) -> T:
        """The first `n` prompts, without a copy."""

        def cut(values: Any) -> Any:
            if isinstance(values, dict):
                return {key: value[:n] for key, value in values.items()}
            return tuple(value[:n] for value in values) if isinstance(values, tuple) else values[:n]

        return replace(self, **{f.name: cut(getattr(self, f.name)) for f in fields(self) if f.name != "turns"})


@dataclass(frozen=True, slots=True, eq=False)
class Cache(Terms):
    """A run with everything that is needed to recompute it from any layer on, by layer.

    Attributes:
        resid_pre: the residual stream that the heads read.
        gathered: in layers with a post-norm, each head's `z` before it takes on a scale.
        mlp_in: the residual stream that the MLP reads: `resid_mid`, or `resid_pre` in parallel models.
        q, k, v: queries, keys (both turned by their positions) and values.
        turns: how positions turn queries and keys.
    """

    resid_pre: tuple[Float[Tensor, "n T d"], ...]
    gathered: dict[int, Float[Tensor, "n T heads d_head"]]
    mlp_in: tuple[Float[Tensor, "n T d"], ...]
    q: tuple[Float[Tensor, "n heads T d_head"], ...]
    k: tuple[Float[Tensor, "n kv_heads T d_head"], ...]
    v: tuple[Float[Tensor, "n kv_heads T d_head"], ...]
    turns: tuple[Turns, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Clean prompts with their corrupt partners, all of one length, as the model runs them.

    Attributes:
        clean: the run that is patched.
        corrupt: the terms that are put into it.
        means: for mean ablation, mean terms of each stratum (its first axis counts strata).
        stratum: each prompt's stratum in `means`.
    """

    model: Transformer
    clean_tokens: Int[Tensor, "n T"]
    corrupt_tokens: Int[Tensor, "n T"]
    clean: Cache
    corrupt: Terms
    means: Terms | None = None
    stratum: Int[Tensor, " n"] | None = None

    @property
    def n(self) -> int:
        return self.clean_tokens.shape[0]

    @property
    def length(self) -> int:
        """Tokens in each prompt."""
        return self.clean_tokens.shape[1]

    def swapped(self) -> Runs:
        """The same prompts with clean and corrupt exchanged, for denoising. Runs the model again."""
        other = run(self.model, self.corrupt_tokens, self.clean_tokens, tuple(self.clean.neurons))
        return replace(other, means=self.means, stratum=self.stratum)

    def first(self, n: int) -> Runs:
        """The runs of the first `n` prompts, without a copy."""
        tokens = self.clean_tokens[:n], self.corrupt_tokens[:n]
        return Runs(self.model, *tokens, self.clean.first(n), self.corrupt.first(n))

    def with_means(self, means: Terms, stratum: Int[Tensor, " n"]) -> Runs:
        """The same runs, with the values that mean ablation puts in."""
        return replace(self, means=means, stratum=stratum.to(self.clean_tokens.device))

    def substitute(self, ablate: Ablation, node: Node, prompts: Rows, *at: Tensor) -> Float[Tensor, "*rows"]:
        """What an ablation puts in the place of a node's value, at some prompts; `at` indexes the value's other axes.

        Raises:
            PatchError: mean ablation, and these runs have no means.
        """
        if ablate == "mean":
            if self.means is None or self.stratum is None:
                raise PatchError("mean ablation needs the means: Runs.with_means(mean_terms(...), stratum)")
            return self.means.value(node)[(self.stratum[prompts], *at)]
        found = (self.corrupt if ablate == "corrupt" else self.clean).value(node)[(prompts, *at)]
        return found if ablate == "corrupt" else torch.zeros_like(found)


class Edits:
    """Changes of a forward pass, for some rows of the prompts. The methods of this class change nothing."""

    def attend(self, layer: int, attn: Attention, q: Tensor, k: Tensor, v: Tensor, rows: Rows) -> Tensor:
        """`z` of every head [m, T, heads, d_head]; arguments as for `parts.attend`."""
        return attend(attn, q, k, v)

    def heads(self, layer: int, z: Tensor, rows: Rows) -> Tensor:
        """The values of the heads of a layer [m, T, heads, d_head]."""
        return z

    def attn_out(self, layer: int, out: Tensor, rows: Rows) -> Tensor:
        """What the heads of a layer write together, `b_O` included [m, T, d]."""
        return out

    def mlp(self, layer: int, term: Tensor, rows: Rows) -> Tensor:
        """What the MLP of a layer writes [m, T, d]."""
        return term


@measuring()
def run(
    model: Transformer,
    clean_tokens: Int[Tensor, "n T"],
    corrupt_tokens: Int[Tensor, "n T"],
    neurons: Sequence[Node] = (),
    corrupt_stages: int | None = None,
) -> Runs:
    """Run clean prompts and their corrupt partners once and keep what patching needs.

    Args:
        neurons: those that experiments on these runs name.
        corrupt_stages: how many stages of the corrupt run are kept: the heads of a layer are one, its MLP the next. By
            default all.

    Raises:
        PatchError: the prompts of a pair differ in length, are empty, too long, or hold a token the model lacks.
    """
    if clean_tokens.shape != corrupt_tokens.shape or clean_tokens.ndim != 2:
        raise PatchError(
            f"clean prompts {tuple(clean_tokens.shape)} and corrupt prompts {tuple(corrupt_tokens.shape)} "
            "must be as many and as long as each other"
        )
    clean, corrupt = _checked(model, clean_tokens, "clean"), _checked(model, corrupt_tokens, "corrupt")
    for node in neurons:
        check_node(model, node)
    cache = _filled(model, clean, _new_cache(model, clean.shape, neurons))
    terms = _new_terms(model, clean.shape, neurons, corrupt_stages)

    def fill(unit: tuple[Array, int]) -> None:
        here, start = ship(unit[0], model.device), min(unit[1], clean.shape[1] - 1)
        _fill(model, corrupt[here], terms, here, start=start, before=cache)

    n, length = clean.shape
    units = list(starts(first_difference(clean, corrupt), _at_once(model, n, length)))
    units.sort(key=lambda unit: len(unit[0]) * (length - unit[1]), reverse=True)
    each(model, fill, units, [len(rows) * (length - start) for rows, start in units], CHUNK * length)
    return Runs(model, clean, corrupt, cache, terms)


def starts(first: Int[np.ndarray, " n"], most: int) -> Iterator[tuple[Int[np.ndarray, " m"], int]]:
    """Groups of at most so many prompts, each with a position before which none of them differs from its partner."""
    order = np.argsort(first, kind="stable")
    edges = [0, *(1 + np.flatnonzero(np.diff(first[order]))), len(first)]
    if len(edges) > MOST_STARTS + 1:  # in about equal parts
        edges = sorted({edges[np.searchsorted(edges, i * len(first) // MOST_STARTS)] for i in range(MOST_STARTS + 1)})
    for a, b in pairwise(edges):
        for at, end in in_equal_parts(b - a, most):
            rows = np.sort(order[a + at : a + end])
            yield rows, int(first[rows].min())


@measuring()
def one_run(model: Transformer, tokens: Int[Tensor, "n T"], edits: Edits | None = None) -> Cache:
    """Run prompts without partners, with some of the forward pass changed; errors are those of `run`."""
    tokens = _checked(model, tokens, "clean")
    return _filled(model, tokens, _new_cache(model, tokens.shape), edits)


@measuring()
def ends(model: Transformer, tokens: Int[Tensor, "n T"]) -> Float[Tensor, "n d"]:
    """The residual streams at END, before the final norm, and nothing else; errors are those of `run`."""
    parts = _checked(model, tokens, "clean").split(CHUNK)
    return torch.cat([_filled(model, part, _new_terms(model, part.shape)).end for part in parts])


@measuring()
def mean_terms(
    model: Transformer,
    tokens: Int[Tensor, "n T"],
    stratum: Int[Tensor, " n"],
    strata: int,
    neurons: Sequence[Node] = (),
    at_once: int = CHUNK,
) -> Terms:
    """Mean terms of the prompts of each stratum, position by position; memory does not grow with the prompts.

    Args:
        stratum: each prompt's stratum, from 0 to `strata` - 1; every stratum has a prompt.
        at_once: prompts that run together.
    """
    tokens, stratum = _checked(model, tokens, "corrupt"), stratum.to(model.device)
    total = _new_terms(model, (strata, tokens.shape[1]), neurons)
    sums = [total.end, *total.kept.values()]
    for tensor in sums:
        tensor.zero_()
    for some, group in zip(tokens.split(at_once), stratum.split(at_once), strict=True):
        part = _filled(model, some, _new_terms(model, some.shape, neurons))
        member = torch.nn.functional.one_hot(group, strata).T.to(model.dtype)
        for tensor, more in zip(sums, (part.end, *part.kept.values()), strict=True):
            tensor.add_((member @ more.flatten(1)).view_as(tensor))  # on a GPU `index_add_` adds in any order
    count = torch.bincount(stratum, minlength=strata)
    for tensor in sums:
        tensor.div_(count.view(-1, *[1] * (tensor.ndim - 1)))
    return total


def _checked(model: Transformer, tokens: Tensor, which: str) -> Int[Tensor, "n T"]:
    """Tokens on the model's device; errors are those of `run`."""
    tokens = tokens.to(model.device).long()
    n, length = tokens.shape
    if not n or not length:
        raise PatchError(f"there are no {which} prompts" if not n else f"the {which} prompts are empty")
    if length > model.n_ctx:
        raise PatchError(f"the {which} prompts have {length} tokens; {model.name} can be patched up to {model.n_ctx}")
    bad = ((tokens < 0) | (tokens >= model.n_vocab)).any(dim=1).nonzero()
    if len(bad):
        raise PatchError(f"{which} prompt {int(bad[0]) + 1} holds a token that {model.name} does not have")
    return tokens


# --- filling the caches -----------------------------------------------------------------------------


def _filled(model: Transformer, tokens: Tensor, out: T, edits: Edits | None = None) -> T:
    """Run prompts up to the last heads or MLP that `out` has room for."""
    length = tokens.shape[1]
    units = [slice(*part) for part in in_equal_parts(len(tokens), _at_once(model, len(tokens), length))]
    sizes = [(rows.stop - rows.start) * length for rows in units]
    each(model, lambda rows: _fill(model, tokens[rows], out, rows, edits), units, sizes, CHUNK * length)
    return out


def _at_once(model: Transformer, n: int, length: int) -> int:
    """Of `n` prompts, those that go through the model together: in units of about the full size, an even number."""
    pairs = round(n * length / (2 * unit_rows(model)))
    return min(CHUNK, -(-n // max(1, 2 * pairs)))


def _fill(
    model: Transformer,
    tokens: Int[Tensor, "m T"],
    out: Terms,
    rows: Rows,
    edits: Edits | None = None,
    start: int = 0,
    before: Cache | None = None,
) -> None:
    """Run prompts and write their activations into `rows` of a cache, as far as it has room.

    Args:
        start: the first position that is run; activations of earlier ones are copied from the same rows of `before`.
    """
    full = out if isinstance(out, Cache) else None
    edits, neurons = edits or Edits(), tuple(out.neurons)
    here = rows, slice(start, None)
    for node, into in out.kept.items() if before is not None and start else ():
        into[rows, :start] = before.kept[node][rows, :start]  # type: ignore[union-attr]
    resid = out.kept[EMBED][here] = model.embed(tokens)[:, start:]
    turns = full.turns if full else model.turns(tokens.shape[1])
    for layer, block in enumerate(model.blocks):
        heads, mlp = Node("head", layer), Node("mlp", layer)
        if heads not in out:
            return
        x = block.attn_norm(resid)
        q, k, v = (block.attn.project(port, x, turns[layer][start:]).transpose(1, 2) for port in PORTS)
        if before is not None and start:
            k, v = (
                torch.cat((seen[layer][rows, :, :start], own), dim=2) for seen, own in ((before.k, k), (before.v, v))
            )
        gathered = edits.attend(layer, block.attn, q, k, v, rows)
        out.kept[heads][here], attended = block.attn.written(gathered, partial(edits.heads, layer, rows=rows))
        if mlp not in out:
            return
        mid = resid + edits.attn_out(layer, attended, rows)
        watched = [node for node in neurons if node.layer == layer]
        x = block.mlp_norm(resid if model.parallel else mid)
        term, activations = block.mlp.written(x, [node.index for node in watched])
        for node, activation in zip(watched, activations, strict=True):
            out.kept[node][here] = activation
        term = out.kept[mlp][here] = edits.mlp(layer, term, rows)
        if full:
            full.resid_pre[layer][rows] = resid
            if layer in full.gathered:
                full.gathered[layer][rows] = gathered
            full.q[layer][rows], full.k[layer][rows], full.v[layer][rows] = q, k, v
            if not model.parallel:
                full.mlp_in[layer][rows] = mid
        resid = mid + term
    out.end[rows] = resid[:, -1]


def _new_terms(
    model: Transformer, shape: Sequence[int], neurons: Sequence[Node] = (), stages: int | None = None
) -> Terms:
    """Room for the terms of some stages of the runs of tokens `[n, T]`; by default of all."""
    n, length = shape
    new = partial(torch.empty, dtype=model.dtype, device=model.device)
    kept = {EMBED: new((n, length, model.d_model))}
    for stage in range(2 * model.n_layers if stages is None else stages):
        if stage % 2:
            kept[Node("mlp", stage // 2)] = new((n, length, model.d_model))
        else:
            kept[Node("head", stage // 2)] = new((n, length, model.n_heads, model.d_head))
    kept |= {node: new((n, length)) for node in neurons}
    return Terms(kept, new((n if Node("mlp", model.n_layers - 1) in kept else 0, model.d_model)))


def _new_cache(model: Transformer, shape: Sequence[int], neurons: Sequence[Node] = ()) -> Cache:
    (n, length), layers, terms = shape, [block.attn for block in model.blocks], _new_terms(model, shape, neurons)
    new = terms.embed.new_empty
    resid_pre = tuple(torch.empty_like(terms.embed) for _ in layers)
    return Cache(
        terms.kept,
        terms.end,
        resid_pre=resid_pre,
        gathered={layer: torch.empty_like(z) for layer, z in enumerate(terms.z) if layers[layer].post},
        mlp_in=resid_pre if model.parallel else tuple(map(torch.empty_like, resid_pre)),
        q=tuple(new(n, attn.n_heads, length, attn.d_head) for attn in layers),
        k=tuple(new(n, attn.n_kv_heads, length, attn.d_head) for attn in layers),
        v=tuple(new(n, attn.n_kv_heads, length, attn.d_head) for attn in layers),
        turns=model.turns(length),
    )


# --- reading them -----------------------------------------------------------------------------------


@measuring()
def baseline(model: Transformer, terms: Terms, readout: Readout) -> Float[Tensor, "n width"]:
    """What the readout gives on a run that is not patched (`runs.clean` or `runs.corrupt`), in float32."""
    return read(model, terms.end[:, None], torch.arange(len(terms.end), device=model.device), readout)[:, 0]


def read(
    model: Transformer, resid: Float[Tensor, "n m d"], prompts: Int[Tensor, " n"], readout: Readout
) -> Float[Tensor, "n m width"]:
    """What the readout gives on residual streams at END: `m` runs of each of `n` prompts."""
    if readout.tokens is None:
        assert readout.reduce is not None
        n, m, _ = resid.shape
        split = readout.at_once
        rows = zip(resid.flatten(0, 1).split(split), prompts.repeat_interleave(m).split(split), strict=True)
        with _VOCABULARY:
            out = torch.cat([readout.reduce(model.logits(part).float(), at) for part, at in rows])
        return out.view(n, m, -1).float()
    tokens = readout.tokens.to(model.device)[prompts]
    return model.capped(model.final_norm(resid) @ model.W_U[tokens].mT).float()


@measuring()
def patterns(model: Transformer, cache: Cache, head: Node) -> Float[Tensor, "n T T"]:
    """The attention pattern of a head: from each position (axis 1) to each (axis 2).

    Raises:
        PatchError: the model has no such head.
    """
    check_node(model, head)
    attn = model.blocks[head.layer].attn
    return attn.pattern(cache.q[head.layer][:, head.head] @ cache.k[head.layer][:, head.head // attn.group].mT)


def at(
    pattern: Float[Tensor, "n T T"], source: Int[Tensor, "n a"], target: Int[Tensor, "n b"]
) -> Float[Tensor, "n a b"]:
    """A pattern from each source to each target position; 0 where an index is -1."""
    source, target = source.to(pattern.device), target.to(pattern.device)
    rows = torch.arange(len(pattern), device=pattern.device)[:, None, None]
    looked = pattern[rows, source[:, :, None], target[:, None, :]]
    return looked * ((source >= 0)[:, :, None] & (target >= 0)[:, None, :])


@measuring()
def changed(
    runs: Runs, sender: Node, index: Int[Tensor, "n k"] | None = None, ablate: Ablation = "corrupt"
) -> Bool[Tensor, " n"]:
    """Whether what a patch puts in differs from what the sender writes, at the given positions (`None`: at any).

    A corrupt term can only differ if the prompts differ at its position or before. A difference below a millionth of
    the term's own size is rounding.
    """
    clean, other = _value(runs, sender), _value(runs, sender, ablate)
    differs = unequal(clean, other)
    if ablate == "corrupt":
        differs &= (runs.clean_tokens != runs.corrupt_tokens).cumsum(dim=1) > 0
        if sender.is_part:  # where its whole writes the same, a part differs by rounding alone
            differs &= unequal(_value(runs, sender.whole), _value(runs, sender.whole, ablate))
    if index is None:
        return differs.any(dim=1)
    index = index.to(differs.device)
    return (differs.gather(1, index.clamp_min(0)) & (index >= 0)).any(dim=1)


def first_difference(clean: Int[Tensor, "n T"], corrupt: Int[Tensor, "n T"]) -> Int[np.ndarray, " n"]:
    """The first token at which each prompt differs from its partner; `T` where none does."""
    differs = (clean != corrupt).cpu().numpy()
    return np.where(differs.any(axis=1), differs.argmax(axis=1), differs.shape[1])


def unequal(clean: Float[Tensor, "n T _"], corrupt: Float[Tensor, "n T _"]) -> Bool[Tensor, "n T"]:
    """Where two terms differ by more than rounding: by a millionth of their own size."""
    size = torch.maximum(clean.abs().amax(dim=-1), corrupt.abs().amax(dim=-1))
    return (clean - corrupt).abs().amax(dim=-1) > 1e-6 * size


def _value(runs: Runs, node: Node, ablate: Ablation | None = None) -> Float[Tensor, "n T _"]:
    """A node's value in the clean run, or what an ablation puts there; a component's is the part of its head's `z`."""
    value = runs.substitute(ablate, node, slice(None)) if ablate else runs.clean.value(node)
    return in_whole(runs.model, node, value) if node.kind == "head" else value


def by_length(
    prompts: Sequence[Sequence[int]], at_once: Callable[[int], int]
) -> Iterator[tuple[Int[Tensor, " m"], Int[Tensor, "m T"]]]:
    """Prompts in groups of one length, without padding: (their places in `prompts`, their tokens), shortest first.

    Args:
        at_once: the size of a group, given the length.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    for length in lengths.unique().tolist():
        for group in (lengths == length).nonzero()[:, 0].split(at_once(length)):
            yield group, torch.tensor([list(prompts[i]) for i in group]).view(len(group), length)
