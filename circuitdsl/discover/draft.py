"""What a search found, written as a spec: groups, claims with bounds well inside what was measured, expectations."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from circuitdsl.circuit.nodes import Position, Site
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.discover.groups import ATTENDS, Named, attended, written
from circuitdsl.discover.search import Sending, effects
from circuitdsl.engine.prompts import Prompts, behaviour
from circuitdsl.measurements.requests import NodeRequest
from circuitdsl.verdict.estimates import share
from circuitdsl.verdict.means import mean
from circuitdsl.verdict.ratios import Ratio

#: bounds are this share of the interval's limit nearer to zero
INSIDE = 0.6


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft in parts, so that claims which do not hold on other prompts can be taken out.

    Attributes:
        head: the lines that open the spec.
        claims: of edges.
        expectations: lines about the whole, and about groups.
        strengths: how large the effect is that a claim is about.
        comments: what is said beside a line.
    """

    head: tuple[str, ...]
    groups: tuple[Named, ...]
    claims: tuple[str, ...]
    expectations: tuple[str, ...]
    strengths: Mapping[str, float] = field(default_factory=dict)
    comments: Mapping[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> tuple[str, ...]:
        """Everything that is claimed."""
        return (*self.claims, *self.expectations)

    def without(self, lines: set[str]) -> Draft:
        """The draft without some of its lines."""
        claims, rest = (tuple(line for line in some if line not in lines) for some in (self.claims, self.expectations))
        return replace(self, claims=claims, expectations=rest)

    def names(self, lines: Sequence[str]) -> set[str]:
        """The groups that some lines name, those that a person has written apart."""
        said = set(re.findall(r"\w+", " ".join(lines)))
        return {group.name for group in self.groups if group.name in said and not group.given}

    def text(self) -> str:
        """The spec, not yet laid out."""
        said = {line: f"{line}  # {text}" for line, text in self.comments.items()}
        definitions = [group.definition for group in self.groups if not group.given]
        titles = ("", "", "# what is sent where, from the logits back\n", "# what the whole does\n")
        parts = zip(titles, (self.head, definitions, self.claims, self.expectations), strict=True)
        written = (title + "\n".join(said.get(line, line) for line in part) for title, part in parts if part)
        return "\n\n".join(written) + "\n"


def claim_of(sending: Sending, groups: Sequence[Named], threshold: float) -> str:
    """`GROUP -> GROUP.q at POS : effect <= -12%`; the receiver may be `(mover - 9.9).q` or `m1`."""
    receivers = written(sending.receivers.nodes, groups, sending.receivers.positions)
    if sending.receivers.kind == "head":
        receivers = f"{receivers}.{sending.port}"
    senders = written(sending.senders.nodes, groups, sending.senders.positions)
    where = f"{senders} -> {receivers} at {', '.join(map(str, sending.positions))}"
    bound = _bound(sending.effect, sending.low, sending.high)
    if bound <= threshold:
        return f"{where} : {'lowers' if sending.lowers else 'raises'}"
    return f"{where} : effect {'<= -' if sending.lowers else '>= '}{100 * bound:g}%"


def _bound(effect: float, low: float, high: float) -> float:
    """How large an effect is claimed to be: down to two significant digits, and to whole percents from 10 % on."""
    near = high if effect < 0 else low
    percents = 100 * INSIDE * abs(near) if near * effect > 0 else 0.0
    return math.floor(percents) / 100 if percents >= 10 else math.floor(percents * 10) / 1000


# --- expectations -----------------------------------------------------------------------------------


def behaviour_of(prompts: Prompts) -> Iterator[str]:
    """What the model does, before anything is patched."""
    hits = behaviour(prompts, Metric("accuracy"))
    least = float(share(hits).interval(0.01)[0])
    yield f"expect accuracy >= {5 * math.floor(20 * least):g}%"
    if prompts.metric == Metric("logit_diff"):
        low = float(mean(prompts.clean, prompts.strata).interval(0.01)[0])
        yield f"expect logit_diff >= {_plainly(0.8 * low)}"


def _plainly(value: float) -> str:
    return f"{math.floor(value * 10) / 10:g}" if value < 10 else f"{math.floor(value):g}"


def attention_of(prompts: Prompts, group: Named, targets: Mapping[Site, Position], many: int) -> Iterator[str]:
    """How much of its attention a group of heads gives to what most of them look at, if that is enough."""
    here, *more = group.group.positions
    seen = Counter(targets[site] for site in sorted(group.group.sites) if site in targets)
    if more or not seen:
        return
    ((target, _),) = seen.most_common(1)
    for values in attended(prompts, {group: (group.group.nodes, here)}, [target], many).get(group, {}).values():
        low = float(mean(values, ends=(0.0, 1.0)).interval(0.01)[0])
        if low >= ATTENDS:
            yield f"expect attention({group.name}, {here} -> {target}) >= {5 * math.floor(100 * 0.8 * low / 5)}%"


def knockouts_of(prompts: Prompts, groups: Sequence[Named], many: int) -> dict[str, tuple[str, ...]]:
    """What the model does where a group is at its mean: a bound inside what was measured, and a range around it."""
    requests = {NodeRequest(tuple(sorted(each.group.sites)), ablate="mean"): each.name for each in groups}
    ratios = effects(prompts, list(requests), np.arange(min(many, len(prompts.pairs))))
    return {requests[request]: _knockout(requests[request], ratio) for request, ratio in ratios.items()}


def _knockout(name: str, ratio: Ratio) -> tuple[str, ...]:
    value, (low, high) = float(ratio.value), (float(end) for end in ratio.interval())
    said, bound = f"expect knockout({name}, ablate = mean) : effect", _bound(value, low, high)
    far = math.ceil(100 * max(abs(low), abs(high)) / INSIDE)
    clear = (f"{said} {'<= -' if value < 0 else '>= '}{100 * bound:g}%",) if bound else ()
    return *clear, f"{said} in [-{far}%, {far}%]"
