"""What a search found, written as a spec: groups, claims with bounds well inside what was measured, expectations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from circuitdsl.circuit.claims import EMBED, Metric, Position
from circuitdsl.discover.places import END, places
from circuitdsl.discover.search import Found, Group, Search, Sending
from circuitdsl.measure.bench import Bench, behaviour, measure
from circuitdsl.measure.requests import AttentionRequest
from circuitdsl.verdict.intervals import mean, share

#: bounds are this share of the interval's limit nearer to zero
INSIDE = 0.6
#: heads that give a position less of their attention are not said to attend to it
ATTENDS = 0.3


@dataclass(frozen=True, slots=True)
class Looks:
    """Where a group of heads looks from its position: the share of its attention on another position."""

    group: Group
    target: Position
    low: float


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft in parts, so that claims which do not hold on other prompts can be taken out.

    `claims` and `expectations` are lines of a spec; groups that no claim names are not written.
    """

    head: tuple[str, ...]
    groups: tuple[Group, ...]
    claims: tuple[str, ...]
    expectations: tuple[str, ...]
    roles: tuple[tuple[str, str], ...] = ()

    def without(self, lines: set[str]) -> Draft:
        """The draft without some of its lines."""
        kept = tuple(line for line in self.claims if line not in lines)
        rest = tuple(line for line in self.expectations if line not in lines)
        return Draft(self.head, self.groups, kept, rest, self.roles)

    def text(self) -> str:
        """The spec, not yet laid out."""
        said = " ".join((*self.claims, *self.expectations))
        used = [group for group in self.groups if group.nodes != (EMBED,) and _names(said, group.name)]
        return "\n".join(
            (
                *self.head,
                "",
                *(_definition(group, dict(self.roles).get(group.name)) for group in used),
                "",
                *self.claims,
                "",
                *self.expectations,
                "",
            )
        )


def _names(said: str, name: str) -> bool:
    return name in said.replace("(", " ").replace(")", " ").replace(".", " ").replace(",", " ").split()


def _definition(group: Group, role: str | None) -> str:
    kind = {"head": "heads", "mlp": "mlps"}[group.kind]
    said = f" role {role}" if role else ""
    return f"{kind} {group.name} = {' '.join(map(str, group.nodes))} at {group.position}{said}"


def draft(bench: Bench, found: Found, settings: Search, head: Sequence[str]) -> Draft:
    """Write down what a search found.

    Args:
        head: the lines that open the spec: circuit, notes, model, task, metric.
    """
    looks = [look for group in found.groups if group.kind == "head" for look in _looks(bench, group, settings)]
    return Draft(
        tuple(head),
        tuple(found.groups),
        tuple(dict.fromkeys(_claim(sending, settings.threshold) for sending in found.sendings)),
        (*_behaviour(bench), *(_attention(look) for look in looks)),
    )


def _claim(sending: Sending, threshold: float) -> str:
    """`GROUP -> GROUP.q at POS : effect <= -12%`"""
    receiver = sending.receivers.name
    port = "" if sending.receivers.kind in ("mlp", "logits") else f".{sending.joint.port}"
    where = f"{sending.group.name} -> {receiver}{port} at {sending.joint.position}"
    near = sending.joint.high if sending.joint.lowers else sending.joint.low
    bound = _rounded(INSIDE * abs(near)) if near * sending.joint.effect > 0 else 0.0
    if bound <= threshold:
        return f"{where} : {'lowers' if sending.joint.lowers else 'raises'}"
    return f"{where} : effect {'<= -' if sending.joint.lowers else '>= '}{100 * bound:g}%"


def _rounded(value: float) -> float:
    """Down to two significant digits, and to whole percents from 10 % on."""
    percents = 100 * value
    if percents >= 10:
        return math.floor(percents) / 100
    return math.floor(percents * 10) / 1000


# --- expectations -----------------------------------------------------------------------------------


def _behaviour(bench: Bench) -> Iterator[str]:
    hits = behaviour(bench, Metric("accuracy"))
    least = float(share(hits).interval(0.01)[0])
    yield f"expect accuracy >= {5 * math.floor(20 * least):g}%"
    if bench.metric == Metric("logit_diff"):
        low = float(mean(bench.clean, bench.strata).interval(0.01)[0])
        yield f"expect logit_diff >= {_plainly(0.8 * low)}"


def _plainly(value: float) -> str:
    return f"{math.floor(value * 10) / 10:g}" if value < 10 else f"{math.floor(value):g}"


def _looks(bench: Bench, group: Group, settings: Search) -> Iterator[Looks]:
    """The position that a group of heads looks at most, where it looks there often."""
    indices = np.arange(min(settings.prompts, len(bench.pairs)))
    targets = [place for place in places(bench) if group.position == END or place != group.position]
    requests = {AttentionRequest(group.nodes, (group.position,), (target,)): target for target in targets}
    series = measure(bench, list(requests), indices)
    best: Looks | None = None
    for request, target in requests.items():
        one = series[request].only(series[request].present)
        if len(one.indices) >= len(indices) / 2:
            low = float(mean(one.values, bench.strata[one.indices]).interval(0.01)[0])
            best = Looks(group, target, low) if best is None or low > best.low else best
    if best and best.low >= ATTENDS:
        yield best


def _attention(look: Looks) -> str:
    bound = 5 * math.floor(100 * 0.8 * look.low / 5)
    return f"expect attention({look.group.name}, {look.group.position} -> {look.target}) >= {bound}%"
