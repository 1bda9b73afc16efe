"""What dictionaries do on a task's prompts: how much they explain, and which of their features fire where.

What is explained is `1 - sum |error|^2 / sum |x - mean x|^2` over all positions of the clean prompts (semantics §8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import Position
from circuitdsl.dictionaries.coder import Coder, load
from circuitdsl.dictionaries.cross_layer import below as layers_below
from circuitdsl.dictionaries.known import FEW, known, settle
from circuitdsl.dictionaries.record import Dictionary, DictionaryError
from circuitdsl.engine.hooks import USUAL, Reading, at_hook, check_fits, kept_at, readings
from circuitdsl.engine.memory import run_at_once
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.runs import by_length, one_run
from circuitdsl.engine.terms import Cache
from circuitdsl.engine.workers import measuring
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import PromptPair

#: by how much more another way of reading a hook than the usual must explain
BETTER = 0.01
#: activations of features that are held at once, and features that are read together to see what they explain
AT_ONCE, PART = 2**24, 2**12


@dataclass(frozen=True, eq=False)
class Seen:
    """A dictionary in memory, on a model.

    Attributes:
        below: those of a cross-layer transcoder that write into the same MLP's output besides, from the layers below.
    """

    model: Transformer
    found: Dictionary
    coder: Coder
    reading: Reading = USUAL
    below: tuple[Seen, ...] = ()

    def encode(self, run: Cache) -> Float[Tensor, "n T d_sae"]:
        """The activations of all features."""
        return self.coder.encode(at_hook(self.model, run, self.found.reads, self.reading))

    def made(self, run: Cache, f: Float[Tensor, "n T d_sae"]) -> Float[Tensor, "n T d_out"]:
        """What the features give for what stands at the place that is written."""
        made = self.coder.decode(f, at_hook(self.model, run, self.found.reads, self.reading))
        return made + _below(self.found, self.below, run)

    def wanted(self, run: Cache) -> Float[Tensor, "n T d_out"]:
        """What stands at the place that is written."""
        return at_hook(self.model, run, self.found.writes[0], self.reading)

    def run(self, tokens: Int[Tensor, "n T"]) -> Cache:
        """Run prompts, and keep what is read."""
        hooks = [self.found.reads, self.found.writes[0], *(other.found.reads for other in self.below)]
        return one_run(self.model, tokens, kept=kept_at(hooks, self.model))


@dataclass
class Explained:
    """Sums by which it is known how much a dictionary explains."""

    left: float = 0.0
    squares: float = 0.0
    many: int = 0
    total: Tensor | float = 0.0

    def add(self, wanted: Float[Tensor, "*rows d"], made: Float[Tensor, "*rows d"]) -> None:
        """Take some positions in."""
        wanted = wanted.double().flatten(0, -2)
        self.left += float((wanted - made.double().flatten(0, -2)).square().sum())
        self.squares += float(wanted.square().sum())
        self.total, self.many = self.total + wanted.sum(0), self.many + len(wanted)

    @property
    def share(self) -> float:
        """1 where nothing is left; 0 for the mean alone; below 0 for less than that."""
        varies = self.squares - float(torch.as_tensor(self.total).square().sum()) / self.many
        return 1 - self.left / varies if varies > 0 else float(self.left == 0)


@dataclass(frozen=True, eq=False)
class Firing:
    """What the features of a dictionary do on a task's prompts, by feature.

    Attributes:
        explained: the share of what stands there.
        fire: features that fire at a position of a clean prompt, on average.
        prompts: on how many clean prompts a feature fires anywhere.
        strongest, where: its largest activation on each clean prompt, and the token at which it has it.
        differs: by how much what it writes differs between a clean prompt and its partner: the sum over positions of
            the lengths of the differences, mean over prompts.
        clean, corrupt: its mean activation at each of some named positions, over the prompts that have it.
    """

    explained: float
    fire: float
    prompts: Int[Tensor, " d_sae"]
    strongest: Float[Tensor, "n d_sae"]
    where: Int[Tensor, "n d_sae"]
    differs: Float[Tensor, " d_sae"]
    clean: Float[Tensor, "positions d_sae"]
    corrupt: Float[Tensor, "positions d_sae"]


def seen_on(model: Transformer, found: Sequence[Dictionary], pairs: Sequence[PromptPair]) -> list[Seen]:
    """Dictionaries in memory, each in the way of reading its hook in which it explains most of some prompts.

    Raises:
        DictionaryError: one does not fit the model, or cannot be read.
    """
    for each in found:
        check_fits(each, model)
    made = list[Seen]()
    for each in found:
        crossing = tuple(other for other in made if each.writes[0] in other.found.writes[1:])
        way, _ = best_reading(model, each, pairs[:FEW], crossing)
        made.append(Seen(model, each, load(each, device=model.device_of(each.reads.layer)), way, crossing))
    return made


@measuring()
def best_reading(
    model: Transformer, found: Dictionary, pairs: Sequence[PromptPair], below: tuple[Seen, ...] = ()
) -> tuple[Reading, float]:
    """The way of reading its hook in which a dictionary explains most of some clean prompts, and how much that is.

    Its features are in memory some at a time, unless its encoder depends on all of them.
    """
    ways = readings(found, model)
    kept = kept_at([found.reads, found.writes[0], *(other.found.reads for other in below)], model)
    groups = by_length([pair.clean_tokens for pair in pairs], partial(run_at_once, model))
    runs = [one_run(model, tokens, kept=kept) for _, tokens in groups]
    made: dict[tuple[Reading, int], Tensor] = {}
    whole = found.encoding.activation == "topk"
    for some in [None] if whole else [range(i, min(i + PART, found.d_sae)) for i in range(0, found.d_sae, PART)]:
        coder = load(found, some, model.device_of(found.reads.layer))
        for way in ways:
            for i, run in enumerate(runs):
                x = at_hook(model, run, found.reads, way)
                f, first = coder.encode(x), (way, i) not in made
                more = coder.decode(f, x) + _below(found, below, run) if first else coder.added(f, x)
                made[way, i] = more if first else made[way, i] + more
    shares = []
    for way in ways:
        sums = Explained()
        for i, run in enumerate(runs):
            sums.add(at_hook(model, run, found.writes[0], way), made[way, i])
        shares.append(sums.share)
    most = max(range(len(ways)), key=shares.__getitem__)
    best = most if shares[most] > max(shares[0] + BETTER, 0) else 0
    return ways[best], shares[best]


def _below(found: Dictionary, below: Sequence[Seen], run: Cache) -> Tensor | float:
    """What the features of cross-layer transcoders of lower layers add to what a dictionary writes."""
    steps = ((other, found.writes[0].layer - other.found.writes[0].layer) for other in below)
    return sum((other.encode(run) @ other.coder.d[:, step] for other, step in steps), 0.0)


def settled(prompts: Prompts, of: str) -> float:
    """Find out, once, how the hook of a dictionary that nodes name is read; what it explains of a task's first prompts.

    Raises:
        DictionaryError: it explains less of them than a constant would.
    """

    def settling() -> float:
        found, few = known(of).dictionary, prompts.pairs[:FEW]
        check_fits(found, prompts.model)
        below = tuple(seen_on(prompts.model, layers_below(found), few))
        way, share = best_reading(prompts.model, found, few, below)
        if share < 0:
            raise DictionaryError(foreign(found, prompts.model, share))
        settle(of, way.gained, way.centred)
        return share

    return prompts.once(("settled", of), settling)


def foreign(found: Dictionary, model: Transformer, explained: float) -> str:
    """Why a dictionary is refused that explains less than the mean alone."""
    made = f"it says that it was made for {found.model}" if found.model else "its files name no model"
    return (
        f"{found.name} explains {explained:.0%} of {found.writes[0]} in {model.name}, less than a constant would: "
        f"it is not of this model, or was trained on other prompts; {made}"
    )


@measuring()
def explained_by_prompt(prompts: Prompts, of: str) -> np.ndarray:
    """How much a dictionary explains of each prompt: 1 less its error, as a share of what varies in one on average."""
    seen, pairs = _settled(prompts, of), prompts.pairs
    seen = replace(seen, below=tuple(seen_on(prompts.model, layers_below(seen.found), pairs[:FEW])))
    left, sums = np.zeros(len(pairs)), Explained()
    for places, _, run in _runs(seen, pairs, "clean_tokens"):
        wanted, made = seen.wanted(run), seen.made(run, seen.encode(run))
        sums.add(wanted, made)
        left[places] = (wanted.double() - made.double()).square().sum((1, 2)).cpu().numpy()
    varies = sums.left / (1 - sums.share) if sums.share < 1 else 1.0
    return 1 - left * len(pairs) / varies


def _settled(prompts: Prompts, of: str) -> Seen:
    """A dictionary that nodes name in memory, read as `settled` has found."""
    settled(prompts, of)
    found = known(of)
    coder = load(found.dictionary, device=prompts.model.device_of(found.dictionary.reads.layer))
    return Seen(prompts.model, found.dictionary, coder, Reading(found.gained, found.centred))


@measuring()
def fires_on(prompts: Prompts, of: str, position: Position, indices: np.ndarray) -> np.ndarray:
    """On how many of some clean prompts each feature of a dictionary fires at a position, at any of its tokens."""
    seen, pairs = _settled(prompts, of), [prompts.pairs[i] for i in indices]
    counts = np.zeros(seen.found.d_sae)
    for places, ids, run in _runs(seen, pairs, "clean_tokens"):
        here = _weights([pairs[i] for i in places], position, ids.shape[1]).to(seen.coder.d.device) > 0
        counts += ((seen.encode(run) > 0) & here[..., None]).any(1).sum(0).cpu().numpy()
    return counts


@measuring()
def firing(seen: Seen, pairs: Sequence[PromptPair], positions: Sequence[Position]) -> Firing:
    """What the features of a dictionary do on prompts."""
    n, d_sae, device = len(pairs), seen.found.d_sae, seen.coder.d.device
    new = partial(torch.zeros, device=device)
    sums, fired, tokens = Explained(), 0, 0
    prompts, differs = new(d_sae, dtype=torch.long), new(d_sae, dtype=torch.double)
    strongest, where = new(n, d_sae), new(n, d_sae, dtype=torch.long)
    means, counts = new(2, len(positions), d_sae, dtype=torch.double), new(len(positions))
    for places, ids, run in _runs(seen, pairs, "clean_tokens"):
        f = seen.encode(run)
        sums.add(seen.wanted(run), seen.made(run, f))
        partners = torch.tensor([list(pairs[i].corrupt_tokens) for i in places])
        other = seen.encode(seen.run(partners))
        active = f > 0
        fired, tokens = fired + int(active.sum()), tokens + ids.numel()
        prompts += active.any(1).sum(0)
        strongest[places], where[places] = f.max(1)
        differs += (f - other).abs().sum((0, 1)).double()
        weights = torch.stack([_weights([pairs[i] for i in places], each, ids.shape[1]) for each in positions])
        counts += weights.sum((1, 2)).to(device)
        for side, values in zip(means, (f, other), strict=True):
            side += (weights.flatten(1).to(device) @ values.flatten(0, 1)).double()
    means /= counts.clamp_min(1)[:, None]
    lengths = seen.coder.d.flatten(1).norm(dim=-1).double()
    per_prompt = (differs / n * lengths).float()
    sides = means.float()
    return Firing(sums.share, fired / tokens, prompts, strongest, where, per_prompt, sides[0], sides[1])


def _weights(pairs: Sequence[PromptPair], position: Position, length: int) -> Float[Tensor, "n T"]:
    """1 at a position of each prompt, shared by its tokens; 0 in a prompt that lacks it."""
    at = token_indices(pairs, [position])
    found = torch.zeros(len(pairs), length)
    found.scatter_add_(1, at.clamp_min(0), (at >= 0).float())
    return found / found.sum(1, keepdim=True).clamp_min(1)


def _runs(seen: Seen, pairs: Sequence[PromptPair], side: str) -> Iterator[tuple[list[int], Tensor, Cache]]:
    """Prompts of one length that are run and encoded together: their places, their tokens, the run."""

    def at_once(length: int) -> int:
        together: Callable[[int], int] = partial(run_at_once, seen.model)
        return max(1, min(together(length), AT_ONCE // (length * seen.found.d_sae)))

    for places, ids in by_length([getattr(pair, side) for pair in pairs], at_once):
        yield places.tolist(), ids, seen.run(ids)
