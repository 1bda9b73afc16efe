"""The clean and the corrupt run, computed once, with what patching needs of them kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from threading import BoundedSemaphore

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import LOGITS, Ablation, Node
from circuitdsl.engine.batch_index import Array, ship
from circuitdsl.engine.experiment import PatchError, Readout, check_node
from circuitdsl.engine.memory import CHUNK, VOCAB_THREADS, together
from circuitdsl.engine.passes import PLAIN, Edits, Pass
from circuitdsl.engine.terms import Cache, Rows, Terms, new_cache, new_terms
from circuitdsl.engine.workers import each, in_equal_parts, measuring, unit_rows
from circuitdsl.measurements.kept import Kept, everything
from circuitdsl.models.parts import Transformer
from circuitdsl.models.writers import in_whole, term, without_terms

#: partners are run from the first token on that differs; they are grouped so that there are at most so many starts
MOST_STARTS = 4
#: held while logits over the whole vocabulary are
_VOCABULARY = BoundedSemaphore(VOCAB_THREADS)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Clean prompts with their corrupt partners, all of one length, as the model runs them.

    Attributes:
        clean: the run that is patched.
        corrupt: the terms that are put into it.
        kept: what the two hold.
        means: for mean ablation, mean terms of each stratum (its first axis counts strata).
        stratum: each prompt's stratum in `means`.
    """

    model: Transformer
    clean_tokens: Int[Tensor, "n T"]
    corrupt_tokens: Int[Tensor, "n T"]
    clean: Cache
    corrupt: Terms
    kept: Kept
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
        other = run(self.model, self.corrupt_tokens, self.clean_tokens, kept=self.kept)
        return replace(other, means=self.means, stratum=self.stratum)

    def first(self, n: int) -> Runs:
        """The runs of the first `n` prompts, without a copy."""
        tokens = self.clean_tokens[:n], self.corrupt_tokens[:n]
        return Runs(self.model, *tokens, self.clean.first(n), self.corrupt.first(n), self.kept)

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
        return found if ablate == "corrupt" else torch.zeros_like(found) + without_terms(self.model, node)


@measuring()
def run(
    model: Transformer,
    clean_tokens: Int[Tensor, "n T"],
    corrupt_tokens: Int[Tensor, "n T"],
    neurons: Sequence[Node] = (),
    kept: Kept | None = None,
) -> Runs:
    """Run clean prompts and their corrupt partners once and keep what is read later.

    Args:
        neurons: those that experiments on these runs name, and residual streams, where everything is kept.
        kept: what is kept instead of everything.

    Raises:
        PatchError: the prompts of a pair differ in length, are empty, too long, or hold a token the model lacks.
    """
    if clean_tokens.shape != corrupt_tokens.shape or clean_tokens.ndim != 2:
        raise PatchError(
            f"clean prompts {tuple(clean_tokens.shape)} and corrupt prompts {tuple(corrupt_tokens.shape)} "
            "must be as many and as long as each other"
        )
    clean, corrupt = _checked(model, clean_tokens, "clean"), _checked(model, corrupt_tokens, "corrupt")
    kept = kept or everything(model.n_layers, frozenset(neurons))
    heads = {Node("head", layer, 0) for layer in (*kept.q, *(n.layer for n in kept.clean if n.kind == "head"))}
    for node in (*heads, *(n for n in kept.clean if n.kind in ("attn", "mid", "mlp", "resid"))):
        check_node(model, node)
    (_, length), first = clean.shape, first_difference(clean, corrupt)
    cache, terms = new_cache(model, clean.shape, kept), new_terms(model, clean.shape, kept.corrupt)
    runs = Runs(model, clean, corrupt, cache, terms, kept)
    order = np.argsort(first, kind="stable")

    def run_some(part: slice) -> None:
        rows = np.sort(order[part])
        _run_some(runs, rows, [(some, min(start, length - 1)) for some, start in starts(first[rows])])

    _on_parts(model, run_some, clean)
    return runs


def _run_some(runs: Runs, rows: Array, parts: Sequence[tuple[Array, int]]) -> None:
    """Run some prompts, and beside them their partners, which take what is before their start from the former.

    Args:
        parts: places in `rows` of partners that start together, and where they start.
    """
    model, kept, turns = runs.model, runs.kept, runs.clean.turns
    here = ship(rows, model.device)
    clean = Pass(model, runs.clean_tokens[here], runs.clean, here, kept.clean_steps, turns=turns)
    partners = []
    for some, start in parts if kept.corrupt else ():
        own = ship(rows[some], model.device)
        one = Pass(model, runs.corrupt_tokens[own], runs.corrupt, own, kept.corrupt_steps, start=start, turns=turns)
        partners.append((one, ship(some, model.device)))
    for layer in range(model.n_layers):
        found = clean.layer(layer)
        for one, within in partners:
            if found is not None and kept.corrupt_steps > 3 * layer:
                one.layer(layer, found.before(within, one.start) if one.start else None)


def starts(first: Int[np.ndarray, " n"]) -> Iterator[tuple[Int[np.ndarray, " m"], int]]:
    """Groups of prompts, each with a position before which none of them differs from its partner."""
    order = np.argsort(first, kind="stable")
    edges = [0, *(1 + np.flatnonzero(np.diff(first[order]))), len(first)]
    if len(edges) > MOST_STARTS + 1:  # in about equal parts
        edges = sorted({edges[np.searchsorted(edges, i * len(first) // MOST_STARTS)] for i in range(MOST_STARTS + 1)})
    for a, b in pairwise(edges):
        rows = np.sort(order[a:b])
        yield rows, int(first[rows].min())


@measuring()
def one_run(model: Transformer, tokens: Int[Tensor, "n T"], edits: Edits = PLAIN, kept: Kept | None = None) -> Cache:
    """Run prompts without partners, with some of the forward pass changed; other arguments and errors as for `run`."""
    tokens, kept = _checked(model, tokens, "clean"), kept or everything(model.n_layers)
    cache = new_cache(model, tokens.shape, kept)
    _fill(model, tokens, cache, kept.clean_steps, edits)
    return cache


@measuring()
def ends(model: Transformer, tokens: Int[Tensor, "n T"]) -> Float[Tensor, "n d"]:
    """The residual streams at END, before the final norm, and nothing else; errors are those of `run`."""
    tokens = _checked(model, tokens, "clean")
    terms = new_terms(model, tokens.shape, [LOGITS])
    _fill(model, tokens, terms)
    return terms.end


def _fill(model: Transformer, tokens: Int[Tensor, "n T"], out: Terms, steps: float = inf, edits: Edits = PLAIN) -> None:
    """Run prompts and write down what there is room for."""

    def run_some(rows: slice) -> None:
        some = Pass(model, tokens[rows], out, rows, steps, edits)
        for layer in range(model.n_layers):
            some.layer(layer)

    _on_parts(model, run_some, tokens)


def _on_parts(model: Transformer, work: Callable[[slice], None], tokens: Int[Tensor, "n T"]) -> None:
    """Do some work on parts of the prompts: on an even number of them, of about as many rows as a full unit has."""
    n, length = tokens.shape
    most = together(model.device, length)
    pairs = max(1, 2 * round(n * length / (2 * unit_rows(model))))
    parts = [slice(*part) for part in in_equal_parts(n, min(most, -(-n // pairs)))]
    sizes = [(part.stop - part.start) * length for part in parts]
    each(model, work, parts, sizes, max(most * length, 2 * max(sizes)))


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
    nodes = everything(model.n_layers, frozenset(neurons)).corrupt - {LOGITS}
    total = new_terms(model, (strata, tokens.shape[1]), nodes)
    sums = list(total.kept.values())
    for tensor in sums:
        tensor.zero_()
    for some, group in zip(tokens.split(at_once), stratum.split(at_once), strict=True):
        part = new_terms(model, some.shape, nodes)
        _fill(model, some, part)
        member = torch.nn.functional.one_hot(group, strata).T.to(model.dtype)
        for tensor, more in zip(sums, part.kept.values(), strict=True):
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
    return model.logits_of(resid, tokens)


@measuring()
def patterns(
    model: Transformer, cache: Cache, head: Node, at: Int[Tensor, "n a"] | None = None
) -> Float[Tensor, "n a T"]:
    """The attention pattern of a head: from some positions (axis 1), by default from each, to each (axis 2).

    Args:
        at: the positions; where an index is -1, the row means nothing.

    Raises:
        PatchError: the model has no such head.
    """
    check_node(model, head)
    attn = model.blocks[head.layer].attn.alone(head.head)
    q, k = cache.q[head.layer][:, head.head], cache.k[head.layer][:, head.head // attn.group]
    if at is None:
        return attn.pattern(q @ k.mT)
    at = at.to(q.device).clamp_min(0)
    return attn.pattern(rows_at(q, at) @ k.mT, attn.hidden_from(at, k.shape[1]))


def rows_at(values: Float[Tensor, "n T _"], at: Int[Tensor, "n a"]) -> Float[Tensor, "n a _"]:
    """What stands at some positions of each prompt; where an index is -1, what stands there means nothing."""
    at = at.to(values.device).clamp_min(0)
    return values[torch.arange(len(values), device=values.device)[:, None], at]


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
    if sender.along:  # a part is small beside its whole where that writes across it, and is rounded like the whole
        change, size = term(runs.model, sender, clean - other), term(runs.model, sender.whole, clean)
        differs = change.norm(dim=-1) > 1e-6 * size.norm(dim=-1)
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
    return in_whole(runs.model, node, value) if node.kind == "head" and not node.along else value


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
