"""One task on one model, ready to be measured: requests in, one number per prompt out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, reduce

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.measurements import Metric
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.engine import runs as engine
from circuitdsl.engine.circuit_alone import subgraph_effects
from circuitdsl.engine.count import Tally
from circuitdsl.engine.experiment import Readout
from circuitdsl.engine.experiments import experiment_of
from circuitdsl.engine.intervene import intervene
from circuitdsl.engine.memory import (
    VOCAB_ROWS,
    in_halves,
    in_parts,
    refuse_too_little,
    run_at_once,
    vocabulary_rows,
)
from circuitdsl.engine.metrics import FALLING, Scorer, scorer
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.positions import indices_of, places_of, token_indices
from circuitdsl.engine.readers.attention import attention, looked
from circuitdsl.engine.readers.head_score import SEQUENCES, head_score, sequence
from circuitdsl.engine.readers.trace import sent
from circuitdsl.engine.readers.writes import attributed, attribution, copying
from circuitdsl.engine.runs import Runs, Terms
from circuitdsl.engine.trace import Firing, NotTraced
from circuitdsl.errors import UserError
from circuitdsl.measurements.requests import (
    AttentionRequest,
    AttributionRequest,
    BehaviourRequest,
    ChangedRequest,
    CopyingRequest,
    PatchRequest,
    Request,
    ScoreRequest,
    Subgraph,
    TermRequest,
    TraceRequest,
    corrupt_stages_of,
    holds_runs_twice,
    is_scored,
    needs_runs,
    patches_of,
    positions_of,
    replaced,
    uses_means,
    writers_of,
)
from circuitdsl.models import writers
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.agreement import FEW, SIDES, check_agreement, check_rounding
from circuitdsl.verify.cache import Memory, memory
from circuitdsl.verify.store import Store

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
        return Series(
            np.concatenate([self.indices, more.indices]),
            np.concatenate([self.values, more.values]),
            np.concatenate([self.present, more.present]),
            np.concatenate([self.changed, more.changed]),
        )

    def only(self, keep: Array) -> Series:
        """On some of the prompts."""
        return Series(self.indices[keep], self.values[keep], self.present[keep], self.changed[keep])


@dataclass(frozen=True)
class Bench:
    """A task's prompts on a model, with their clean and corrupt scores.

    Attributes:
        clean: the metric on each clean prompt [n].
        corrupt: the metric on each corrupt prompt, scored with the clean one's answers [n].
        ends_of: gives the residual streams at END of all clean and of all corrupt prompts, before the final norm.
        others: a few prompts under each other corruption of the task, for advice.
        more: makes the prompts over which mean ablation takes its means (these among them); by default these alone.
        memory: what was measured before.
        max_memory: bytes that measuring may take beside the model; by default what `patching.memory` finds right.
    """

    model: Transformer
    data: Dataset
    metric: Metric
    scorer: Scorer
    clean: Array
    corrupt: Array
    ends_of: Callable[[], Ends]
    others: Mapping[str, tuple[PromptPair, ...]] = field(default_factory=dict)
    more: Callable[[], Sequence[PromptPair]] | None = None
    max_memory: int | None = None
    tally: Tally = field(default_factory=Tally)
    memory: Memory | None = None
    _means: dict[int, tuple[Terms, Array]] = field(default_factory=dict, repr=False)
    _present: dict[tuple[Position, ...], Array] = field(default_factory=dict, repr=False)
    _behaviours: dict[tuple[Metric, str], Array] = field(default_factory=dict, repr=False)
    _firings: dict[tuple[Node, tuple[Position, ...], tuple[Position, ...]], list[Firing | None]] = field(
        default_factory=dict, repr=False
    )
    _sent: dict[TraceRequest, Array] = field(default_factory=dict, repr=False)

    @property
    def pairs(self) -> tuple[PromptPair, ...]:
        return self.data.pairs

    @cached_property
    def reference(self) -> Sequence[PromptPair]:
        """The prompts that mean ablation averages over."""
        return self.more() if self.more else self.pairs

    @cached_property
    def smallest_mean(self) -> int:
        """Prompts behind the mean of the smallest stratum of one length, among the lengths of these prompts."""
        lengths = {len(pair.corrupt_tokens) for pair in self.pairs}

        def counted() -> int:
            sizes = Counter((n, p.stratum) for p in self.reference if (n := len(p.corrupt_tokens)) in lengths)
            return min(sizes.values())

        what = f"smallest mean of {sorted(lengths)}"
        return int(self.memory.of_means(what, counted)) if self.memory else counted()

    @cached_property
    def strata(self) -> Array:
        return np.asarray([pair.stratum for pair in self.pairs])

    @property
    def falls(self) -> bool:
        """Whether the metric is better when lower."""
        return self.metric.name in FALLING


def bench(
    model: Transformer,
    data: Dataset,
    metric: Metric,
    others: Mapping[str, tuple[PromptPair, ...]] | None = None,
    more: Callable[[], Sequence[PromptPair]] | None = None,
    store: Store | None = None,
    max_memory: int | None = None,
    more_are: str = "",
) -> Bench:
    """Run all prompts once and score them, unless a store knows their scores. Some are compared with the model's own.

    Args:
        more_are: what says which prompts `more` makes, where these are the first of them.

    Raises:
        UserError: the metric cannot be taken on this task, a prompt does not fit the model or is the same as its
            partner, the model gives no finite numbers on it, the memory allowed is too little for a single one, or the
            engine's logits are not those of the model as its library runs it, or too coarse to tell the prompts apart.
    """
    _check_pairs(data.pairs)
    refuse_too_little(model, max((len(pair.clean_tokens) for pair in data.pairs), default=1), max_memory)
    ends = cache(lambda: _ends(model, data.pairs, max_memory))
    at_once = vocabulary_rows(model, max_memory)
    whole = _vocabulary(model, at_once)
    logits = _read(model, ends()[0], whole) if metric.name == "kl" else None
    score = scorer(metric, data.pairs, logits)
    reference = cache(more) if more else lambda: data.pairs
    known = memory(store, model, data.pairs, metric, reference, more_are) if store else None

    def logits_of(side: str, at: Sequence[int]) -> Tensor:
        return _read(model, ends()[SIDES.index(side)][at], whole)

    check_agreement(model, data.pairs, logits_of, known)
    check_rounding(model, data.pairs, logits_of)
    clean = _remembered(known, "clean", metric, lambda: _score(model, ends()[0], score, at_once))
    corrupt = _remembered(known, "corrupt", metric, lambda: _score(model, ends()[1], score, at_once))
    return Bench(model, data, metric, score, clean, corrupt, ends, others or {}, reference, max_memory, memory=known)


def _check_pairs(pairs: Sequence[PromptPair]) -> None:
    """Raises `UserError` where a prompt is its own partner."""
    for i, pair in enumerate(pairs):
        if pair.clean_tokens == pair.corrupt_tokens:
            raise UserError(
                f"prompt {i + 1} ({pair.clean!r}) is the same as its corrupt partner, so that no patch could change it"
            )


def _remembered(known: Memory | None, side: str, metric: Metric, compute: Callable[[], Array]) -> Array:
    return known.scores(side, metric, compute) if known else compute()


def random_bench(model: Transformer, max_memory: int | None = None, known: Memory | None = None) -> Bench:
    """Repeated random tokens, for what needs no task: nothing is scored on them.

    Args:
        known: what a store knows of another task on the model.

    Raises:
        UserError: the memory allowed is too little for a single sequence, or the engine's logits are not those of the
            model as its library runs it.
    """
    bos = model.tokenizer is not None and Tokens(model.tokenizer, model.name).adds_bos
    rows = [tuple(sequence(model, 0, i, bos)) for i in range(SEQUENCES)]
    refuse_too_little(model, len(rows[0]), max_memory)
    data = Dataset("", "", 0, bos, tuple(PromptPair(row, row, (), (), {}, "") for row in rows))
    few = cache(lambda: _ends(model, data.pairs[:FEW], max_memory)[0])
    whole = _vocabulary(model, vocabulary_rows(model, max_memory))
    check_agreement(model, data.pairs[:FEW], lambda _, at: _read(model, few()[at], whole), known)
    nothing = np.zeros(SEQUENCES)
    ends = torch.empty(2, 0, model.d_model)
    score = Scorer(None, lambda logits, _: logits[:, 0])
    return Bench(model, data, Metric(), score, nothing, nothing, lambda: (ends[0], ends[1]), max_memory=max_memory)


def behaviour(bench: Bench, metric: Metric, side: str = "clean") -> Array:
    """Any metric of the clean or the corrupt run, on every prompt."""
    if metric == bench.metric:
        return bench.clean if side == "clean" else bench.corrupt
    if (metric, side) not in bench._behaviours:
        score, at_once = scorer(metric, bench.pairs), vocabulary_rows(bench.model, bench.max_memory)

        def compute() -> Array:
            return _score(bench.model, bench.ends_of()[SIDES.index(side)], score, at_once)

        bench._behaviours[metric, side] = _remembered(bench.memory, side, metric, compute)
    return bench._behaviours[metric, side]


def gap(bench: Bench, metric: Metric) -> float:
    """How far the corrupt prompts are from the clean ones by a metric, on average."""
    return abs(float(np.mean(behaviour(bench, metric) - behaviour(bench, metric, "corrupt"))))


def score_ends(bench: Bench, ends: Float[Tensor, "n d"]) -> Array:
    """The task's metric on residual streams at END, one for each of its prompts."""
    return _score(bench.model, ends, bench.scorer, vocabulary_rows(bench.model, bench.max_memory))


# --- positions -------------------------------------------------------------------------------------


def present(data: Bench | Dataset, request: Request, indices: Array) -> Array:
    """On which of some prompts all positions of a request exist, and a traced head fires."""
    wanted = positions_of(request)
    known = data._present if isinstance(data, Bench) else {}
    if wanted not in known:
        known[wanted] = np.asarray([all(indices_of(pair, p) for p in wanted) for pair in data.pairs], bool)
    there = known[wanted][indices]
    if isinstance(request, TraceRequest) and isinstance(data, Bench):
        try:
            there = there & ~np.isnan(sent(data, request)[indices])
        except NotTraced:
            return np.zeros(len(indices), bool)
    return there


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
    patched = [request for request in values if patches_of(request)]
    means = any(map(uses_means, values))
    terms = [request for request in values if isinstance(request, TermRequest)]
    scored = [request for request in patched if is_scored(request)]
    neurons = writers.neurons(node for request in values for node in writers_of(request))
    corrupt_stages = max((corrupt_stages_of(request, bench.model.n_layers) for request in values), default=0)

    def measure_part(places: Array, part: Array) -> None:
        runs = _runs(bench, part, means, neurons, corrupt_stages)
        for reading in (scores_of(bench, runs, scored, part), *_readings(bench, runs, list(values), part)):
            for request, numbers in reading.items():
                values[request][places] = numbers
        for request, differs in _changed(bench, runs, [*patched, *terms], part).items():
            changed[request][places] = differs
        for request, (numbers, differs) in _intervened(bench, runs, list(values), part).items():
            values[request][places], changed[request][places] = numbers, differs
        for circuit, numbers in _alone(bench, runs, [r for r in values if isinstance(r, Subgraph)], part).items():
            values[circuit][places], changed[circuit][places] = numbers, True
        if done:
            done(len(values) * len(part))

    for places, part in parts_of(bench, indices, holds_runs_twice(values)) if any(map(needs_runs, values)) else ():
        _in_memory(measure_part, places, part)
    for request in values:
        if isinstance(request, BehaviourRequest) and request.under is None:
            values[request] = behaviour(bench, request.metric)[indices]
        elif isinstance(request, TraceRequest):
            values[request] = sent(bench, request)[indices]
        elif isinstance(request, ScoreRequest):
            values[request] = head_score(bench, request, indices)
    values |= {term: changed[term].astype(float) for term in terms}
    return {r: Series(indices, values[r], present(bench, r, indices), changed[r]) for r in values}


def _readings(bench: Bench, runs: Runs, requests: Sequence[Request], part: Array) -> Iterator[Mapping[Request, Array]]:
    """What is read off runs other than the metric."""
    yield attention(bench, runs, [r for r in requests if isinstance(r, AttentionRequest)], part)
    yield attribution(bench, runs, [r for r in requests if isinstance(r, AttributionRequest)], part)
    yield {r: copying(bench, runs, r, part) for r in requests if isinstance(r, CopyingRequest)}


def _in_memory(work: Callable[[Array, Array], None], places: Array, part: Array) -> None:
    """Do some work on prompts, or on one half of them after the other where memory runs out."""
    in_halves(
        lambda start, end: work(places[start:end], part[start:end]),
        0,
        len(part),
        lambda i: f"running prompt {part[i] + 1}",
    )


def parts_of(bench: Bench, indices: Array, twice: bool = False) -> Iterator[tuple[Array, Array]]:
    """Prompts of one length, as many at a time as memory takes: (places in `indices`, indices)."""
    lengths = np.asarray([len(bench.pairs[i].clean_tokens) for i in indices])
    for places in in_parts(bench.model, lengths, bench.max_memory, twice):
        yield places, indices[places]


def _runs(bench: Bench, part: Array, means: bool, neurons: Sequence[Node], corrupt_stages: int) -> Runs:
    pairs = [bench.pairs[i] for i in part]
    clean, corrupt = (_tokens(pairs, side) for side in ("clean_tokens", "corrupt_tokens"))
    runs = engine.run(bench.model, clean, corrupt, neurons, corrupt_stages)
    if not means:
        return runs
    terms, stratum = _mean_terms(bench, runs.length, neurons)
    return runs.with_means(terms, torch.as_tensor(stratum[part]))


def _mean_terms(bench: Bench, length: int, neurons: Sequence[Node]) -> tuple[Terms, Array]:
    """Mean terms over all corrupt prompts of a stratum and length, and every prompt's stratum (-1: other length)."""
    if length not in bench._means or not set(neurons) <= bench._means[length][0].neurons.keys():
        known = [pair for pair in bench.reference if len(pair.corrupt_tokens) == length]
        names, codes = np.unique([pair.stratum for pair in known], return_inverse=True)
        tokens = _tokens(known, "corrupt_tokens")
        at_once = run_at_once(bench.model, length, bench.max_memory)
        terms = engine.mean_terms(bench.model, tokens, torch.as_tensor(codes), len(names), neurons, at_once)
        number = {str(name): i for i, name in enumerate(names)}
        stratum = [number[p.stratum] if len(p.corrupt_tokens) == length else -1 for p in bench.pairs]
        bench._means[length] = terms, np.asarray(stratum)
    return bench._means[length]


def _tokens(pairs: Sequence[PromptPair], side: str) -> Int[Tensor, "n T"]:
    return torch.tensor([getattr(pair, side) for pair in pairs])


def scores_of(bench: Bench, runs: Runs, requests: Sequence[Request], part: Array) -> dict[Request, Array]:
    """The metric of every patched run, on prompts of one length; a batch of runs for each metric."""
    by_metric: dict[Metric, list[Request]] = {}
    for request in requests:
        metric = request.metric if isinstance(request, BehaviourRequest) else bench.metric
        by_metric.setdefault(metric, []).append(request)
    scores: dict[Request, Array] = {}
    for metric, mine in by_metric.items():
        score = scorer_of(bench, metric)
        readout = _readout_of(bench, score, part)
        experiments = [experiment_of(request) for request in mine]
        positions = places_of(bench, mine, part)
        found = effects(
            bench.model, runs, experiments, positions, readout, max_memory=bench.max_memory, tally=bench.tally
        )
        scores |= zip(mine, _scored(score, found, torch.as_tensor(part)), strict=True)
    return scores


def scorer_of(bench: Bench, metric: Metric) -> Scorer:
    """What scores these prompts by a metric."""
    return bench.scorer if metric == bench.metric else scorer(metric, bench.pairs)


def _alone(bench: Bench, runs: Runs, circuits: Sequence[Subgraph], part: Array) -> dict[Subgraph, Array]:
    """The metric when circuits run alone, on prompts of one length."""
    if not circuits:
        return {}
    positions = places_of(bench, circuits, part)
    readout = _readout_of(bench, bench.scorer, part)
    found = subgraph_effects(
        bench.model, runs, circuits, positions, readout, max_memory=bench.max_memory, tally=bench.tally
    )
    return dict(zip(circuits, _scored(bench.scorer, found, torch.as_tensor(part)), strict=True))


def _changed(bench: Bench, runs: Runs, requests: Sequence[Request], part: Array) -> dict[Request, Array]:
    """On which prompts every patch of a request makes some term other than it was, or the term that is asked for is
    other than what would replace it; each term is looked at once."""
    pairs = [bench.pairs[i] for i in part]

    @cache
    def differs(term: TermRequest) -> Tensor:
        return engine.changed(runs, term.node, token_indices(pairs, [term.position]), term.ablate)

    @cache
    def change(patch: PatchRequest) -> Tensor:
        return reduce(torch.logical_or, map(differs, replaced(patch)))

    def of(request: Request) -> Tensor:
        if isinstance(request, TermRequest):
            return differs(request)
        return reduce(torch.logical_and, map(change, patches_of(request)))

    return {request: of(request).cpu().numpy() for request in requests}


def _intervened(
    bench: Bench, runs: Runs, requests: Sequence[Request], part: Array
) -> dict[ChangedRequest, tuple[Array, Array]]:
    """Attention, behaviour and attribution of changed models, each of which is run once, and where that changes
    anything: (numbers, on which prompts)."""
    pairs, places = [bench.pairs[i] for i in part], torch.as_tensor(part)
    wanted = [request for request in requests if isinstance(request, ChangedRequest)]
    found: dict[ChangedRequest, tuple[Array, Array]] = {}
    for intervention in dict.fromkeys(request.intervention for request in wanted):
        mine = [request for request in wanted if request.intervention == intervention]
        run = intervene(runs, intervention, places_of(bench, mine, part))
        for request in mine:
            if isinstance(request.inner, AttentionRequest):
                numbers = looked(request.inner, cache(run.pattern), pairs)
            elif isinstance(request.inner, AttributionRequest):
                numbers = attributed(bench, runs, request.inner, run.cache, part)
            else:
                score = scorer_of(bench, request.inner.metric)
                rows = engine.baseline(bench.model, run.cache, _readout_of(bench, score, part))
                numbers = _scored(score, rows[None], places)[0]
            found[request] = numbers, run.changed.cpu().numpy()
    return found


# --- readouts --------------------------------------------------------------------------------------


def _ends(model: Transformer, pairs: Sequence[PromptPair], max_memory: int | None) -> Ends:
    """The residual streams at END of all clean and all corrupt prompts."""
    ends = torch.empty(2, len(pairs), model.d_model, dtype=model.dtype, device=model.device)
    for places, tokens in engine.by_length([pair.clean_tokens for pair in pairs]):
        partners = _tokens([pairs[i] for i in places], "corrupt_tokens")
        at_once = run_at_once(model, tokens.shape[1], max_memory)
        ends[0, places], ends[1, places] = engine.ends_of_pairs(model, tokens, partners, at_once)
    for side, end in zip(("clean", "corrupt"), ends, strict=True):
        broken = (~end.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if broken:
            raise UserError(
                f"the model gives NaN or infinity on {len(broken)} of {len(pairs)} {side} prompts, the first of them "
                f"prompt {broken[0] + 1} ({getattr(pairs[broken[0]], side)!r})",
                hint="float16 overflows easily: try bfloat16 or float32" if model.dtype == torch.float16 else None,
            )
    return ends[0], ends[1]


def _read(
    model: Transformer, ends: Float[Tensor, "n d"], readout: Callable[[Int[Tensor, " m"]], Readout]
) -> Float[Tensor, "n k"]:
    """What a readout gives on residual streams at END."""
    parts = []
    with torch.inference_mode():
        for here in torch.arange(len(ends)).split(VOCAB_ROWS):
            places = torch.arange(len(here), device=ends.device)
            parts.append(engine.read(model, ends[here][:, None], places, readout(here))[:, 0].cpu())
    return torch.cat(parts)


def _vocabulary(model: Transformer, at_once: int) -> Callable[[Tensor], Readout]:
    """Reads all logits."""
    readout = Readout.of_vocabulary(lambda rows, _: rows, model.n_vocab, at_once)
    return lambda _: readout


def _score(model: Transformer, ends: Float[Tensor, "n d"], score: Scorer, at_once: int) -> Array:
    """A metric on residual streams at END, one for each prompt of the scorer."""
    found = _read(model, ends, lambda here: _readout(score, here, model.device, at_once))
    return _scored(score, found[None], torch.arange(len(ends)))[0]


def _readout_of(bench: Bench, score: Scorer, part: Array) -> Readout:
    at_once = vocabulary_rows(bench.model, bench.max_memory)
    return _readout(score, torch.as_tensor(part), bench.model.device, at_once)


def _readout(score: Scorer, places: Int[Tensor, " m"], device: torch.device, at_once: int) -> Readout:
    """What a scorer reads of the prompts at `places`; whole-vocabulary metrics are reduced to their score at once."""
    if score.ids is not None:
        return Readout.of_tokens(score.ids[places])
    there = places.to(device)
    return Readout.of_vocabulary(lambda rows, prompts: score.score(rows, there[prompts])[:, None], 1, at_once)


def _scored(score: Scorer, found: Float[Tensor, "e n k"], places: Int[Tensor, " n"]) -> Array:
    """One number for each run and prompt [e, n]."""
    if score.ids is None:
        return found[..., 0].double().cpu().numpy()
    e, n, k = found.shape
    rows = score.score(found.reshape(e * n, k).cpu(), places.repeat(e))
    return rows.view(e, n).double().numpy()
