"""One task on one model, ready to be measured: requests in, one number per prompt out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.claims import EVERYWHERE, Metric, Position
from circuitdsl.measure.metrics import FALLING, SHARES, Scorer, scorer, unit
from circuitdsl.measure.plan import (
    AttentionRequest,
    BehaviourRequest,
    EdgeRequest,
    NodeRequest,
    PatchRequest,
    Request,
)
from circuitdsl.models.parts import Transformer
from circuitdsl.patching import runs as engine
from circuitdsl.patching.count import Tally
from circuitdsl.patching.patch import Experiment, Positions, Readout
from circuitdsl.patching.recompute import effects
from circuitdsl.patching.runs import Runs, Terms
from circuitdsl.tasks.dataset import Dataset, PromptPair

#: prompts whose runs are held in memory at a time
CHUNK = 64
Array = np.ndarray
Ends = tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]


@dataclass(frozen=True, slots=True)
class Series:
    """One request's numbers on some prompts.

    Attributes:
        indices: which prompts of the dataset, in order.
        values: the number on each.
        present: whether the prompt has all positions asked for; where it has not, the value means nothing.
        changed: whether the patch puts in anything other than what stood there.
    """

    indices: Array
    values: Array
    present: Array
    changed: Array

    def extended(self, more: Series) -> Series:
        """These prompts and then those."""
        return Series(*(np.concatenate([getattr(self, n), getattr(more, n)]) for n in Series.__slots__))


@dataclass(frozen=True)
class Bench:
    """A task's prompts on a model, with their clean and corrupt scores.

    Attributes:
        clean: the metric on each clean prompt [n].
        corrupt: the metric on each corrupt prompt, scored with the clean one's answers [n].
        ends: the residual streams at END of all clean and of all corrupt prompts, before the final norm.
        corruptions: other corruptions of the task, for advice.
    """

    model: Transformer
    data: Dataset
    metric: Metric
    scorer: Scorer
    clean: Array
    corrupt: Array
    ends: Ends
    corruptions: tuple[str, ...] = ()
    max_rows: int | None = None
    tally: Tally = field(default_factory=Tally)
    _means: dict[int, tuple[Terms, Array]] = field(default_factory=dict, repr=False)

    @property
    def pairs(self) -> tuple[PromptPair, ...]:
        return self.data.pairs

    @property
    def strata(self) -> Array:
        return np.asarray([pair.stratum for pair in self.pairs])

    @property
    def is_share(self) -> bool:
        """Whether the metric is a share of prompts."""
        return self.metric.name in SHARES

    @property
    def falls(self) -> bool:
        """Whether the metric is better when lower."""
        return self.metric.name in FALLING

    @property
    def unit(self) -> str:
        return unit(self.metric)


def bench(
    model: Transformer,
    data: Dataset,
    metric: Metric,
    corruptions: tuple[str, ...] = (),
    max_rows: int | None = None,
) -> Bench:
    """Run all prompts once and score them.

    Raises:
        UserError: the metric cannot be taken on this task, or a prompt does not fit the model.
    """
    ends = _ends(model, data.pairs)
    vocabulary = Readout.of_vocabulary(lambda rows, _: rows, model.n_vocab)
    logits = _read(model, ends[0], lambda _: vocabulary) if metric.name == "kl" else None
    score = scorer(metric, data.pairs, logits)
    clean, corrupt = (_score(model, end, score) for end in ends)
    return Bench(model, data, metric, score, clean, corrupt, ends, corruptions, max_rows)


def behaviour(bench: Bench, metric: Metric) -> Array:
    """Any metric of the clean run, on every prompt."""
    if metric == bench.metric:
        return bench.clean
    if metric.name == "kl":
        return np.zeros(len(bench.pairs))
    return _score(bench.model, bench.ends[0], scorer(metric, bench.pairs))


# --- positions -------------------------------------------------------------------------------------


def positions_of(request: Request) -> tuple[Position, ...]:
    """Every position that a request needs, but for `*`."""
    match request:
        case EdgeRequest(edges=edges):
            found: Iterable[Position] = (edge.position for edge in edges)
        case NodeRequest(sites=sites):
            found = (site.position for site in sites)
        case AttentionRequest(source=source, target=target):
            found = (*source, *target)
        case _:
            found = ()
    return tuple(dict.fromkeys(p for p in found if p != EVERYWHERE))


def present(bench: Bench, request: Request) -> Array:
    """On which prompts all positions of a request exist [n]."""
    wanted = positions_of(request)
    return np.asarray([all(_indices(pair, p) for p in wanted) for pair in bench.pairs], bool)


def _indices(pair: PromptPair, position: Position) -> tuple[int, ...]:
    """Token indices of a position in a prompt; none where the prompt lacks it."""
    if position == EVERYWHERE:
        return tuple(range(len(pair.clean_tokens)))
    moved = tuple(i + position.offset for i in pair.positions.get(position.name, ()))
    return moved if all(0 <= i < len(pair.clean_tokens) for i in moved) else ()


def _padded(pairs: Sequence[PromptPair], wanted: Iterable[Position]) -> Int[Tensor, "n k"]:
    """Token indices of some positions together, without repetition, padded with -1."""
    rows = [sorted({i for position in wanted for i in _indices(pair, position)}) for pair in pairs]
    width = max(1, *map(len, rows))
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows])


# --- measuring -------------------------------------------------------------------------------------


def measure(
    bench: Bench, requests: Sequence[Request], indices: Array, done: Callable[[int], None] | None = None
) -> dict[Request, Series]:
    """Measure requests on some prompts of a bench.

    Args:
        requests: what to measure; equal requests are measured once.
        indices: which prompts, in the order in which the results come.
        done: called with the number of (request, prompt) pairs just measured.
    """
    values = {request: np.full(len(indices), np.nan) for request in requests}
    changed = {request: np.zeros(len(indices), bool) for request in requests}
    for places, part in _parts(bench, indices):
        runs = _runs(bench, part, any(isinstance(r, NodeRequest) and r.ablate == "mean" for r in requests))
        patches = [r for r in values if isinstance(r, (EdgeRequest, NodeRequest))]
        for patch, numbers in _patched(bench, runs, patches, part).items():
            values[patch][places] = numbers
            changed[patch][places] = _changed(bench, runs, patch, part)
        for request in values:
            if isinstance(request, AttentionRequest):
                values[request][places] = _attention(bench, runs, request, part)
        if done:
            done(len(values) * len(part))
    for request in values:
        if isinstance(request, BehaviourRequest):
            values[request] = behaviour(bench, request.metric)[indices]
    return {r: Series(indices, values[r], present(bench, r)[indices], changed[r]) for r in values}


def _parts(bench: Bench, indices: Array) -> Iterator[tuple[Array, Array]]:
    """Prompts of one length, a chunk at a time: (places in `indices`, indices)."""
    lengths = np.asarray([len(bench.pairs[i].clean_tokens) for i in indices])
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        for start in range(0, len(places), CHUNK):
            chunk = places[start : start + CHUNK]
            yield chunk, indices[chunk]


def _runs(bench: Bench, part: Array, means: bool) -> Runs:
    pairs = [bench.pairs[i] for i in part]
    runs = engine.run(bench.model, _tokens(pairs, "clean_tokens"), _tokens(pairs, "corrupt_tokens"))
    if not means:
        return runs
    terms, stratum = _mean_terms(bench, runs.length)
    return runs.with_means(terms, torch.as_tensor(stratum[part]))


def _mean_terms(bench: Bench, length: int) -> tuple[Terms, Array]:
    """Mean terms over all corrupt prompts of a stratum and length, and every prompt's stratum (-1: other length)."""
    if length not in bench._means:
        here = [i for i, pair in enumerate(bench.pairs) if len(pair.corrupt_tokens) == length]
        names, codes = np.unique([bench.pairs[i].stratum for i in here], return_inverse=True)
        tokens = _tokens([bench.pairs[i] for i in here], "corrupt_tokens")
        terms = engine.mean_terms(bench.model, tokens, torch.as_tensor(codes), len(names))
        stratum = np.full(len(bench.pairs), -1)
        stratum[here] = codes
        bench._means[length] = terms, stratum
    return bench._means[length]


def _tokens(pairs: Sequence[PromptPair], side: str) -> Int[Tensor, "n T"]:
    return torch.tensor([getattr(pair, side) for pair in pairs])


def _patched(bench: Bench, runs: Runs, requests: Sequence[PatchRequest], part: Array) -> dict[PatchRequest, Array]:
    """The metric under every patch, on prompts of one length."""
    if not requests:
        return {}
    pairs = [bench.pairs[i] for i in part]
    wanted = dict.fromkeys(p for request in requests for p in positions_of(request))
    positions: Positions = {p: _padded(pairs, [p]) for p in wanted}
    readout = _readout(bench.scorer, torch.as_tensor(part))
    experiments = [_experiment(request) for request in requests]
    found = effects(bench.model, runs, experiments, positions, readout, max_rows=bench.max_rows, tally=bench.tally)
    scores = _scored(bench.scorer, found, torch.as_tensor(part))
    return dict(zip(requests, scores, strict=True))


def _experiment(request: PatchRequest) -> Experiment:
    if isinstance(request, EdgeRequest):
        return Experiment(edges=frozenset(request.edges), via_mlps=request.via_mlps, direction=request.direction)
    return Experiment(sites=frozenset(request.sites), ablate=request.ablate, direction=request.direction)


def _changed(bench: Bench, runs: Runs, request: PatchRequest, part: Array) -> Array:
    """On which prompts some patched term is not the same on the clean and the corrupt prompt."""
    if isinstance(request, NodeRequest) and request.ablate != "corrupt":
        return np.ones(len(part), bool)
    pairs = [bench.pairs[i] for i in part]
    terms = request.edges if isinstance(request, EdgeRequest) else request.sites
    writes = {(t.sender if isinstance(request, EdgeRequest) else t.node, t.position) for t in terms}  # type: ignore[union-attr]
    found = (engine.changed(runs, node, _padded(pairs, [p])) for node, p in writes)
    return reduce(torch.logical_or, found).cpu().numpy()


def _attention(bench: Bench, runs: Runs, request: AttentionRequest, part: Array) -> Array:
    """Attention summed over targets, averaged over sources and heads."""
    pairs = [bench.pairs[i] for i in part]
    source, target = _padded(pairs, request.source), _padded(pairs, request.target)
    count = (source >= 0).sum(-1).clamp_min(1)
    total = torch.zeros(len(pairs))
    for head in request.heads:
        total += engine.attention(bench.model, runs, head, source, target).sum((1, 2)).cpu() / count
    return (total / len(request.heads)).double().numpy()


# --- readouts --------------------------------------------------------------------------------------


def _ends(model: Transformer, pairs: Sequence[PromptPair]) -> Ends:
    """The residual streams at END of all clean and all corrupt prompts."""
    ends = torch.empty(2, len(pairs), model.d_model, dtype=model.dtype, device=model.device)
    for places, tokens in engine.by_length([pair.clean_tokens for pair in pairs]):
        for start in range(0, len(places), CHUNK):
            here = places[start : start + CHUNK]
            partners = _tokens([pairs[i] for i in here], "corrupt_tokens")
            runs = engine.run(model, tokens[start : start + CHUNK], partners)
            ends[0, here], ends[1, here] = runs.clean.end, runs.corrupt.end
    return ends[0], ends[1]


def _read(
    model: Transformer, ends: Float[Tensor, "n d"], readout: Callable[[Int[Tensor, " m"]], Readout]
) -> Float[Tensor, "n k"]:
    """What a readout gives on residual streams at END."""
    parts = []
    with torch.inference_mode():
        for here in torch.arange(len(ends)).split(CHUNK):
            places = torch.arange(len(here), device=ends.device)
            parts.append(engine.read(model, ends[here][:, None], places, readout(here))[:, 0].cpu())
    return torch.cat(parts)


def _score(model: Transformer, ends: Float[Tensor, "n d"], score: Scorer) -> Array:
    """A metric on residual streams at END, one for each prompt of the scorer."""
    found = _read(model, ends, lambda here: _readout(score, here))
    return _scored(score, found[None], torch.arange(len(ends)))[0]


def _readout(score: Scorer, places: Int[Tensor, " m"]) -> Readout:
    """What a scorer reads of the prompts at `places`; whole-vocabulary metrics are reduced to their score at once."""
    if score.ids is not None:
        return Readout.of_tokens(score.ids[places])
    return Readout.of_vocabulary(lambda rows, prompts: score.score(rows, places[prompts.cpu()])[:, None], 1)


def _scored(score: Scorer, found: Float[Tensor, "e n k"], places: Int[Tensor, " n"]) -> Array:
    """One number for each run and prompt [e, n]."""
    if score.ids is None:
        return found[..., 0].double().cpu().numpy()
    e, n, k = found.shape
    rows = score.score(found.reshape(e * n, k).cpu(), places.repeat(e))
    return rows.view(e, n).double().numpy()
