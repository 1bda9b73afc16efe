"""What a search found, written as a spec: groups, claims with bounds well inside what was measured, expectations."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.discover.roles import Placed
from circuitdsl.discover.search import END, Found, Group, Search, Sending, places
from circuitdsl.engine.prompts import Prompts, behaviour
from circuitdsl.measurements.attention import Attention
from circuitdsl.verdict.estimates import share
from circuitdsl.verdict.means import mean
from circuitdsl.verify.measure import measure

#: bounds are this share of the interval's limit nearer to zero
INSIDE = 0.6
#: heads that give a position less of their attention are not said to attend to it
ATTENDS = 0.3
#: the keyword that defines a group of a kind
KEYWORDS = {"head": "heads", "mlp": "mlps"}


@dataclass(frozen=True, slots=True)
class Named:
    """A group with its name in the spec, and the role of its heads."""

    name: str
    group: Group
    role: str | None = None

    @property
    def definition(self) -> str:
        said = f" role {self.role}" if self.role and self.role != self.name else ""
        return f"{KEYWORDS[self.group.kind]} {self.name} = {self.group}{said}"

    @property
    def claim(self) -> str:
        return f"expect role({self.name})"


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft in parts, so that claims which do not hold on other prompts can be taken out.

    `claims` and `expectations` are lines of a spec; groups that none of them names are not written.
    """

    head: tuple[str, ...]
    groups: tuple[Named, ...]
    claims: tuple[str, ...]
    expectations: tuple[str, ...]

    def without(self, lines: set[str]) -> Draft:
        """The draft without some of its lines."""
        kept = tuple(line for line in self.claims if line not in lines)
        rest = tuple(line for line in self.expectations if line not in lines)
        said = set(re.findall(r"\w+", " ".join((*kept, *rest))))
        return Draft(self.head, tuple(group for group in self.groups if group.name in said), kept, rest)

    def text(self) -> str:
        """The spec, not yet laid out."""
        definitions = [group.definition for group in self.groups]
        return "\n".join((*self.head, "", *definitions, "", *self.claims, "", *self.expectations, ""))


def draft(prompts: Prompts, found: Found, groups: Sequence[Named], settings: Search, head: Sequence[str]) -> Draft:
    """Write down what a search found.

    Args:
        groups: the nodes that it found, as the spec calls them.
        head: the lines that open the spec: circuit, notes, model, task, metric.
    """
    return Draft(
        tuple(head),
        tuple(groups),
        tuple(dict.fromkeys(_claim(sending, groups, settings.threshold) for sending in found.sendings)),
        (
            *_behaviour(prompts),
            *(line for group in groups if group.group.kind == "head" for line in _attention(prompts, group, settings)),
            *(group.claim for group in groups if group.role),
        ),
    )


def _claim(sending: Sending, groups: Sequence[Named], threshold: float) -> str:
    """`GROUP -> GROUP.q at POS : effect <= -12%`; the receiver may be `(mover - 9.9).q` or `m1`."""
    receivers = written(sending.receivers, groups)
    if sending.receivers.kind == "head":
        single = re.fullmatch(r"\S+|\([^()]*\)", receivers)
        receivers = f"{receivers if single else f'({receivers})'}.{sending.joint.port}"
    where = f"{written(sending.group, groups)} -> {receivers} at {sending.joint.position}"
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


# --- groups -----------------------------------------------------------------------------------------


def named(senders: Iterable[Group], roles: Mapping[Placed, str]) -> tuple[Named, ...]:
    """Every node in one group for each position at which it acts, in the order in which they were found.

    Heads of one role and position are together; what has no role is with those with which it was found to send first.
    A group is called like its role, with its position where the role has several groups; without one, after its
    position.
    """
    parts: dict[tuple[str, Position, str | int], set[Node]] = {}
    homes: dict[Placed, tuple[str, Position, str | int]] = {}
    for number, group in enumerate(group for group in senders if group.kind in KEYWORDS):
        for node in group.nodes:
            placed = node, group.position
            homes.setdefault(placed, (group.kind, group.position, roles.get(placed, number)))
            parts.setdefault(homes[placed], set()).add(node)
    played = [role for _, _, role in parts]
    result: list[Named] = []
    for (kind, position, role), nodes in parts.items():
        place = f"{position.name.lower()}{'_next' * position.offset}"
        group = Group(tuple(sorted(nodes)), position)
        if isinstance(role, str):
            result.append(Named(role if played.count(role) == 1 else f"{role}_{place}", group, role))
        else:
            base = place if kind == "head" else f"{kind}_{place}"
            taken = {each.name for each in result}
            result.append(Named(next(n for n in (f"{base}_{i}" for i in range(1, 1000)) if n not in taken), group))
    return tuple(result)


def written(group: Group, known: Sequence[Named]) -> str:
    """A set of nodes as the spec names it, by its groups: `inhibition`, `inhibition - 0.7 + end_1`, `m1`."""
    wanted, said = set(group.nodes), list[str]()
    for each in known:
        here = [node for node in each.group.nodes if node in wanted and each.group.position == group.position]
        missing = [node for node in each.group.nodes if node not in here]
        if here:
            wanted -= set(here)
            short = not missing or 1 + len(missing) < len(here)
            said.append(" - ".join([each.name, *map(str, missing)]) if short else _listed(here))
    return " + ".join([*said, *([_listed(sorted(wanted))] if wanted else [])])


def _listed(nodes: Sequence[Node]) -> str:
    listed = " ".join(map(str, nodes))
    return f"({listed})" if len(nodes) > 1 else listed


# --- expectations -----------------------------------------------------------------------------------


def _behaviour(prompts: Prompts) -> Iterator[str]:
    hits = behaviour(prompts, Metric("accuracy"))
    least = float(share(hits).interval(0.01)[0])
    yield f"expect accuracy >= {5 * math.floor(20 * least):g}%"
    if prompts.metric == Metric("logit_diff"):
        low = float(mean(prompts.clean, prompts.strata).interval(0.01)[0])
        yield f"expect logit_diff >= {_plainly(0.8 * low)}"


def _plainly(value: float) -> str:
    return f"{math.floor(value * 10) / 10:g}" if value < 10 else f"{math.floor(value):g}"


def _attention(prompts: Prompts, group: Named, settings: Search) -> Iterator[str]:
    """Where a group of heads attends most from its position, if it gives that position enough of its attention."""
    here = group.group.position
    indices = np.arange(min(settings.prompts, len(prompts.pairs)))
    targets = [place for place in places(prompts) if here == END or place != here]
    requests = {Attention(group.group.nodes, (here,), (target,)): target for target in targets}
    series = measure(prompts, list(requests), indices)
    lows: dict[Position, float] = {}
    for request, target in requests.items():
        one = series[request].only(series[request].present)
        if len(one.indices) >= len(indices) / 2:
            lows[target] = float(mean(one.values, ends=(0.0, 1.0)).interval(0.01)[0])
    target = max(lows, key=lows.__getitem__, default=here)
    if lows and lows[target] >= ATTENDS:
        yield f"expect attention({group.name}, {here} -> {target}) >= {5 * math.floor(100 * 0.8 * lows[target] / 5)}%"
