"""Features of named dictionaries in a draft: those that matter at the places of a search, and what they send to it.

A feature's attribution is the gradient of the metric along what it writes, times how far its activation is from that of
the corrupt run: what its knock-out does to first order, from one backward pass for all features at once. Those with the
largest are knocked out, one by one. What does something is grouped by dictionary, place and sign, and each group is
patched into all that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.features import KINDS, feature, whole_of
from circuitdsl.circuit.nodes import Position, Site
from circuitdsl.dictionaries import read_set
from circuitdsl.dictionaries.record import Dictionary
from circuitdsl.discover.asked import beside
from circuitdsl.discover.groups import Named
from circuitdsl.discover.places import word
from circuitdsl.discover.search import Group, effects, found
from circuitdsl.engine.dictionaries import FEW, Seen, seen_on
from circuitdsl.engine.hooks import at_hook, kept_at
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.runs import one_run, rows_at
from circuitdsl.engine.stream_gradients import StreamGradients
from circuitdsl.engine.workers import measuring
from circuitdsl.errors import UsageError
from circuitdsl.measurements.requests import NodeRequest

Array = np.ndarray
#: features of each dictionary that are knocked out, at whatever places
TRIED = 64
#: the share of the threshold that a single feature must do, and how many are in a group
SINGLE, MOST = 0.25, 8


@dataclass(frozen=True)
class Features:
    """Dictionaries by the names that a draft gives them."""

    named: Mapping[str, Dictionary]

    def lines(self, target: Path | None) -> tuple[str, ...]:
        """The lines that name them in a spec that will lie there."""
        return tuple(line_of(name, each, target) for name, each in self.named.items())


def line_of(name: str, found: Dictionary, target: Path | None) -> str:
    """The line that names a dictionary in a spec that will lie there."""
    word = next(word for word, transcoder in KINDS.items() if transcoder == found.is_transcoder)
    path = beside(target, found.name) if target is not None and Path(found.name).exists() else found.name
    return f'dictionary {name} = {word}("{path}")'


def features_named(names: Sequence[str]) -> Features:
    """The dictionaries of some names, or sets of them, called `t1` (a transcoder), `s1` (of an MLP) or `r2`.

    Raises:
        DictionaryError: there is none, or its features cannot be patched.
        UsageError: two sit at one place.
    """
    named: dict[str, Dictionary] = {}
    for each in (one for name in names for one in read_set(name)):
        whole = whole_of(each)
        called = f"{'r' if whole.kind == 'resid' else 't' if each.is_transcoder else 's'}{whole.layer}"
        if called in named:
            raise UsageError(f"{named[called].name} and {each.name} sit at one place", hint="name one of them")
        named[called] = each
    return Features(named)


def groups_of(
    prompts: Prompts, indices: Array, features: Features, places: Sequence[Position], threshold: float
) -> tuple[Named, ...]:
    """Groups of features of one dictionary, place and sign whose knock-out does more than the threshold.

    Single features do little: one is taken from a share of the threshold on, where its effect has a sign. Groups are
    tested over all of them.
    """
    tried: dict[NodeRequest, tuple[str, Site]] = {}
    for name, scores in attributions(prompts, indices, features, places).items():
        order = np.argsort(-np.abs(scores), axis=None, kind="stable")[:TRIED]
        for place, index in zip(*np.unravel_index(order, scores.shape), strict=True):
            if scores[place, index]:
                site = Site(feature(name, features.named[name], int(index)), places[place])
                tried[NodeRequest((site,))] = name, site
    ratios = effects(prompts, list(tried), indices)
    parts: dict[tuple[str, Position, bool], list[Site]] = {}
    for request, ratio in sorted(ratios.items(), key=lambda each: -abs(float(each[1].value))):
        low, high = (float(end) for end in ratio.interval())
        if low * high > 0 and abs(float(ratio.value)) >= SINGLE * threshold:
            name, site = tried[request]
            parts.setdefault((name, site.position, high < 0), []).append(site)
    together = {NodeRequest(tuple(sorted(sites[:MOST]))): key for key, sites in parts.items()}
    beyond = found(effects(prompts, list(together), indices), threshold)
    made = list[Named]()
    for request in (each for each in together if each in beyond):
        name, place, helps = together[request]
        group = Group(tuple(site.node for site in request.sites), (place,))
        made.append(Named(f"{name}_{word(place)}{'' if helps else '_against'}", group))
    return tuple(made)


@measuring()
def attributions(
    prompts: Prompts, indices: Array, features: Features, places: Sequence[Position]
) -> dict[str, Float[Array, "places d_sae"]]:
    """What the knock-out of each feature does at each place, to first order, as a share of the gap."""
    every = dict(
        zip(features.named, seen_on(prompts.model, [*features.named.values()], prompts.pairs[:FEW]), strict=True)
    )
    wholes = {name: whole_of(each) for name, each in features.named.items()}
    streams = {name: whole.layer + (whole.kind == "mlp") for name, whole in wholes.items()}
    total = {name: torch.zeros(len(places), each.d_sae, dtype=torch.double) for name, each in features.named.items()}
    runs = StreamGradients(prompts, indices, layers=tuple(streams.values()))
    kept = kept_at([each.found.reads for each in every.values()], prompts.model)
    for some, gradients in runs.found():
        pairs = [prompts.pairs[indices[i]] for i in some]
        clean, corrupt = (
            one_run(prompts.model, torch.tensor([list(getattr(pair, side)) for pair in pairs]), kept=kept)
            for side in ("clean_tokens", "corrupt_tokens")
        )
        for number, place in enumerate(places):
            at = token_indices(pairs, [place])
            for name, seen in every.items():
                now, then = (_values(seen, rows_at(_read(seen, run), at)) for run in (clean, corrupt))
                along = rows_at(gradients[streams[name]], at).float() @ seen.coder.d.T
                change = (then - now) * along * (at >= 0)[..., None].to(now.device)
                total[name][number] += change.sum((0, 1)).double().cpu()
    return {name: (each / (len(indices) * runs.gap)).numpy() for name, each in total.items()}


def _read(seen: Seen, run: object) -> Float[Tensor, "n T d_in"]:
    return at_hook(seen.model, run, seen.found.reads, seen.reading)  # type: ignore[arg-type]


def _values(seen: Seen, x: Float[Tensor, "n k d_in"]) -> Float[Tensor, "n k d_sae"]:
    """Activations, times what a dictionary divides its inputs by."""
    active = seen.coder.encode(x)
    return active if seen.coder.transcoder else active * seen.coder.normed(x)[1]
