"""Claims about the hand-set models, each known to be true or false of the whole population.

Claims start from what a model was built to do (`DESIGNS`). True ones say it with room to spare; false ones change one
thing: the head, the input, the position, the sign or the size. Whether the changed claim really is false is not a
matter of design but of `hand_set_truth.py`: one that happens to be true is kept as a true claim, if it is so clearly
enough for a sample to show it, and is dropped otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from circuitdsl.circuit.nodes import EMBED, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.engine.experiment import Experiment
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset
from tests.known_answers.hand_set import HEADS, LAYERS
from tests.known_answers.hand_set_truth import Brute

MARGIN = 0.01
#: prompts of a sample; true claims have room for `ROOM` standard errors of a mean over so many
PROMPTS = 256
ROOM = 6.0
#: and for this share of their figure
SPARE = 0.2


@dataclass(frozen=True)
class Subject:
    """What a claim can be about, as written in a spec and as what it should mean, spelt out here by hand."""

    text: str
    experiment: Experiment | None = None
    attention: tuple[Node, str, str] | None = None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A subject's figure over the population: its value, and its standard error in a sample of `PROMPTS`."""

    value: float
    error: float
    delta: float = 0.0
    delta_error: float = 0.0
    changed: bool = True


@dataclass(frozen=True)
class KnownClaim:
    """A line of a spec with the groups it names, whether it is true, and what is wrong with it (or sort of truth)."""

    line: str
    true: bool
    kind: str
    groups: tuple[str, ...] = ()


def node(name: str) -> Node:
    """`1.5`, `m2`, `embed` or `logits`."""
    if name in ("embed", "logits"):
        return EMBED if name == "embed" else LOGITS
    return Node("mlp", int(name[1:])) if name.startswith("m") else Node("head", *map(int, name.split(".")))


def edge(senders: str, receivers: str, position: str) -> Subject:
    """An edge between groups: `edge("2.1 2.6", "logits", "END")`, `edge("0.3", "2.1.k 2.6.k", "ANSWER")`."""
    edges = frozenset(
        Edge(node(sender), _input(receiver), Position(position))
        for sender in senders.split()
        for receiver in receivers.split()
    )
    port = receivers[-2:] if receivers[0].isdigit() else ""
    target = receivers.replace(port, "") if port else receivers
    groups = tuple(_group(names)[1] for names in (senders, target) if " " in names)
    sides = [_group(names)[0] for names in (senders, target)]
    return Subject(f"{sides[0]} -> {sides[1]}{port} at {position}", Experiment(edges=edges), groups=groups)


def _group(names: str) -> tuple[str, str]:
    """A group's name and the line that defines it; a single node stands for itself."""
    if " " not in names:
        return names, ""
    name = "g_" + names.replace(".", "_").replace(" ", "_")
    return name, f"heads {name} = {names}"


def _input(name: str) -> Input:
    return Input(node(name[:-2]), name[-1]) if name[-2] == "." and name[-1] in "qkv" else Input(node(name), "in")


def knockout(names: str, position: str, ablate: Literal["corrupt", "zero"] = "corrupt") -> Subject:
    """A knock-out of heads at one position."""
    sites = frozenset(Site(node(name), Position(position)) for name in names.split())
    how = "" if ablate == "corrupt" else f", ablate = {ablate}"
    name = f"out_{names.replace('.', '_').replace(' ', '_')}_at_{position.lower()}"
    return Subject(
        f"expect knockout({name}{how})",
        Experiment(sites=sites, ablate=ablate),
        groups=(f"heads {name} = {names} at {position}",),
    )


def restored(names: str, position: str) -> Subject:
    """Heads whose clean terms at one position are put into the corrupt run."""
    sites = frozenset(Site(node(name), Position(position)) for name in names.split())
    name = f"in_{names.replace('.', '_').replace(' ', '_')}_at_{position.lower()}"
    return Subject(
        f"expect denoise({name})",
        Experiment(sites=sites, direction="denoise"),
        groups=(f"heads {name} = {names} at {position}",),
    )


def restored_edge(senders: str, receivers: str, position: str) -> Subject:
    """An edge whose clean terms are put into the corrupt run."""
    plain = edge(senders, receivers, position)
    assert plain.experiment is not None
    return Subject(f"expect denoise({plain.text})", replace(plain.experiment, direction="denoise"), groups=plain.groups)


def attention(head: str, source: str, target: str) -> Subject:
    return Subject(f"expect attention({head}, {source} -> {target})", attention=(node(head), source, target))


# --- what the models were built to do --------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """A model's circuit: its edges as (senders, receivers, position), heads that attend, heads that act at END.

    `positions` are those that a wrong claim may name; `decoys` are edges that look the part and do nothing.
    """

    task: str
    edges: tuple[tuple[str, str, str], ...]
    attends: tuple[tuple[str, str, str], ...]
    acts: tuple[str, ...]
    positions: tuple[str, ...]
    decoys: tuple[tuple[str, str, str], ...] = ()


NAMES_AT = ("IO", "S1", "S2", "OTHER", "END")
CHAIN = (
    ("0.2", "1.1.k", "S2"),
    ("0.2", "1.1.k 1.5.k", "S2"),
    ("embed", "1.1.v 1.5.v", "S2"),
    ("1.1", "2.3.q", "END"),
    ("1.1 1.5", "2.3.q 2.4.q", "END"),
    ("1.5", "2.3.q 2.4.q", "END"),
    ("embed", "2.3.v", "IO"),
    ("2.3", "logits", "END"),
    ("2.4", "logits", "END"),
    ("2.3 2.4", "logits", "END"),
)
LOOKS = (("2.3", "END", "IO"), ("1.1", "END", "S2"), ("0.2", "S2", "S1"))
DESIGNS = {
    "induction": Design(
        "repeated_list",
        edges=(
            ("embed", "0.3.v", "MATCH"),
            ("0.3", "2.1.k", "ANSWER"),
            ("0.3", "2.1.k 2.6.k", "ANSWER"),
            ("embed", "2.1.q", "END"),
            ("embed", "2.1.v", "ANSWER"),
            ("2.1", "logits", "END"),
            ("2.6", "logits", "END"),
            ("2.1 2.6", "logits", "END"),
        ),
        attends=(("2.1", "END", "ANSWER"), ("0.3", "ANSWER", "MATCH")),
        acts=("2.1", "2.6", "2.1 2.6"),
        positions=("MATCH", "ANSWER", "OTHER", "END"),
    ),
    "chain": Design("repeated_name", CHAIN, LOOKS, ("1.1", "2.3", "2.3 2.4"), NAMES_AT),
    "backup": Design(
        "repeated_name",
        edges=(
            ("0.2", "1.1.k", "S2"),
            ("embed", "1.1.v", "S2"),
            ("1.1", "2.3.q", "END"),
            ("1.1", "3.5.q", "END"),
            ("2.3", "3.5.q", "END"),
            ("2.3", "logits", "END"),
            ("3.5", "logits", "END"),
        ),
        attends=LOOKS,
        acts=("1.1", "2.3", "3.5", "2.3 3.5"),
        positions=NAMES_AT,
    ),
    "negative": Design(
        "repeated_name",
        edges=(*CHAIN, ("2.3 2.4", "3.2.q", "END"), ("3.2", "logits", "END")),
        attends=(*LOOKS, ("3.2", "END", "IO")),
        acts=("1.1", "2.3", "2.3 2.4", "3.2"),
        positions=NAMES_AT,
    ),
    "decoy": Design(
        "repeated_name",
        edges=CHAIN,
        attends=(*LOOKS, ("2.0", "END", "IO"), ("3.4", "END", "IO"), ("3.0", "END", "IO"), ("1.6", "END", "S2")),
        acts=("1.1", "2.3", "2.3 2.4"),
        positions=NAMES_AT,
        decoys=(
            ("1.6", "2.3.q", "END"),
            ("1.6", "2.3.q 2.4.q", "END"),
            ("2.0", "logits", "END"),
            ("3.4", "logits", "END"),
            ("2.0 3.4", "logits", "END"),
            ("embed", "3.4.v", "IO"),
            ("embed", "3.0.v", "IO"),
            ("1.1", "3.0.q", "END"),
            ("0.2", "1.6.k", "S2"),
        ),
    ),
}


# --- figures over the population -------------------------------------------------------------------


@dataclass
class Population:
    """A model on all prompts of its task; figures of subjects are measured once."""

    model: Transformer
    data: Dataset

    def __post_init__(self) -> None:
        self.brute = Brute(self.model, self.data.pairs)
        self.clean = self.brute.logit_diffs(Experiment())
        corrupt = Experiment(sites=frozenset({Site(EMBED, Position("*"))}))
        self.gap = self.clean - self.brute.logit_diffs(corrupt)
        self.known: dict[Subject, Figure] = {}

    def figure(self, subject: Subject) -> Figure:
        if subject not in self.known:
            self.known[subject] = self._measured(subject)
        return self.known[subject]

    def _measured(self, subject: Subject) -> Figure:
        if subject.attention is not None:
            head, source, target = subject.attention
            values = self.brute.attentions([head], source, target)
            return Figure(values.mean(), values.std() / PROMPTS**0.5)
        assert subject.experiment is not None
        base = self.clean if subject.experiment.direction == "noise" else self.clean - self.gap
        d = self.brute.logit_diffs(subject.experiment) - base
        gap = self.gap.mean()
        effect = d.mean() / gap
        error = (d - effect * self.gap).std() / abs(gap) / PROMPTS**0.5
        return Figure(effect, error, d.mean(), d.std() / PROMPTS**0.5, bool(np.any(d != 0)))


# --- claims ----------------------------------------------------------------------------------------


def claims(population: Population, design: Design, seed: int = 0, wrong_heads: int = 3) -> list[KnownClaim]:
    """All claims about a model, in random order."""
    draw = random.Random(seed)
    found = [claim for subject in _subjects(design) for claim in _about(population, subject)]
    for right in design.edges:
        sign = population.figure(edge(*right))
        for kind, subject in _wrong_edges(right, design, draw, wrong_heads):
            found += _mistaken(population, subject, kind, sign)
    for look in design.decoys:
        found += _mistaken(population, edge(*look), "decoy", Figure(-0.3, 0.0))
    for right in design.attends:
        found += _wrong_attention(population, right, design, draw)
    found += _behaviour(population)
    outdone = _outdone(population, design)
    unique = [c for c in dict.fromkeys(found) if not (c.true and c.kind == "matters" and c.line in outdone)]
    draw.shuffle(unique)
    return unique


def _outdone(population: Population, design: Design) -> set[str]:
    """`matters` on edges beside a stronger one into the same input, which their null has unless it is claimed too."""
    lines = set()
    for about in (edge, restored_edge):
        for senders, receivers, position in design.edges:
            subject = about(senders, receivers, position)
            for others, *same in design.edges:
                apart = same == [receivers, position] and not set(others.split()) & set(senders.split())
                if apart and abs(population.figure(about(others, *same)).value) > abs(population.figure(subject).value):
                    lines.add(f"{subject.text} : matters")
    return lines


def _subjects(design: Design) -> Iterator[Subject]:
    yield from (edge(*right) for right in design.edges)
    yield from (attention(*right) for right in design.attends)
    for names in design.acts:
        yield knockout(names, "END")
        yield knockout(names, "END", "zero")
        yield restored(names, "END")
    for right in design.edges:
        if " " in right[0] + right[1]:
            yield restored_edge(*right)


def _about(population: Population, subject: Subject) -> Iterator[KnownClaim]:
    """Claims about what is so, and the same with the wrong sign or size."""
    figure = population.figure(subject)
    if subject.attention is not None:
        yield from _bounds(subject, "", figure.value, figure.error, _percent)
        return
    down = figure.value < 0
    right, wrong = ("lowers", "raises") if down else ("raises", "lowers")
    if abs(figure.value) > MARGIN + ROOM * figure.error:
        yield _said(subject, right, True, "sign")
        yield _said(subject, "negligible", False, "size")
        if subject.experiment is not None and _has_null(subject.experiment):
            yield _said(subject, "matters", True, "matters")
    if (figure.value < -MARGIN) if down else (figure.value > MARGIN):
        yield _said(subject, wrong, False, "sign")
        yield _said(subject, "effect >= 0%" if down else "effect <= 0%", False, "sign")
    yield from _bounds(subject, "effect ", figure.value, figure.error, _percent)
    yield from _bounds(subject, "delta ", figure.delta, figure.delta_error, "{:.6f}".format)


def _bounds(subject: Subject, quantity: str, value: float, error: float, written) -> Iterator[KnownClaim]:
    """Bounds on a figure with room to spare, and bounds it misses by little and by much."""
    room = max(SPARE * abs(value), ROOM * error)
    least, most = (0.0, 1.0) if subject.attention is not None and written is _percent else (-np.inf, np.inf)
    low, high = max(least, value - room), min(most, value + room)
    yield _bound(subject, f"{quantity}in [{written(low)}, {written(high)}]", True, "size")
    yield _bound(subject, f"{quantity}>= {written(low)}", True, "size")
    yield _bound(subject, f"{quantity}<= {written(high)}", True, "size")
    for miss in (room, error):
        low, high = max(least, value - miss), min(most, value + miss)
        yield _bound(subject, f"{quantity}<= {written(low)}", False, "size")
        yield _bound(subject, f"{quantity}>= {written(high)}", False, "size")
    low, high = min(most, value + error), min(most, value + 3 * room)
    yield _bound(subject, f"{quantity}in [{written(low)}, {written(high)}]", False, "size")


def _percent(share: float) -> str:
    return f"{100 * share:.6f}%"


def _bound(subject: Subject, text: str, true: bool, kind: str) -> KnownClaim:
    between = " " if subject.attention is not None else " : "
    return KnownClaim(f"{subject.text}{between}{text}", true, kind, subject.groups)


def _said(subject: Subject, text: str, true: bool, kind: str) -> KnownClaim:
    return KnownClaim(f"{subject.text} : {text}", true, kind, subject.groups)


def _has_null(experiment: Experiment) -> bool:
    """Whether enough random counterparts exist: senders that are heads, receivers with many heads before them."""
    receivers = {found.receiver.node for found in experiment.edges}
    heads = all(found.sender.kind == "head" for found in experiment.edges)
    return bool(receivers) and heads and min(r.layer if r != LOGITS else LAYERS for r in receivers) >= 2


def _wrong_edges(
    right: tuple[str, str, str], design: Design, draw: random.Random, heads: int
) -> Iterator[tuple[str, Subject]]:
    """Edges like a true one with another sender or receiver, another input, another position."""
    senders, receivers, position = right
    taken = {name for names, *_ in design.edges for name in names.split()}
    if senders != "embed":
        layer = int(senders.split(".")[0])
        free = [f"{layer}.{h}" for h in range(HEADS) if f"{layer}.{h}" not in taken]
        for _ in range(heads):
            yield "head", edge(" ".join(sorted(draw.sample(free, len(senders.split())))), receivers, position)
    if receivers == "logits":
        return
    port = receivers[-2:]
    layer = int(receivers.split(".")[0])
    busy = {name[:-2] for _, names, _ in design.edges if names != "logits" for name in names.split()}
    free = [f"{layer}.{h}{port}" for h in range(HEADS) if f"{layer}.{h}" not in busy]
    for _ in range(heads):
        yield "head", edge(senders, " ".join(sorted(draw.sample(free, len(receivers.split())))), position)
    # a query that is not read where its head acts is refused before anything runs
    for other in sorted({".q", ".k", ".v"} - {port} - ({".q"} if position != "END" else set())):
        yield "input", edge(senders, receivers.replace(port, other), position)
    for other in design.positions:
        if other != position and (port != ".q" or other == "END"):
            yield "position", edge(senders, receivers, other)


def _mistaken(population: Population, subject: Subject, kind: str, right: Figure) -> Iterator[KnownClaim]:
    """What is true of one edge, claimed of another."""
    figure = population.figure(subject)
    sign = -1 if right.value < 0 else 1
    if not figure.changed:  # no effect: `negligible` is true, or an error where the sender wrote the same
        yield from (_said(subject, text, False, kind) for text in ("lowers", "raises", "matters"))
        return
    bound = right.value * (1 - SPARE)
    text = f"effect {'<=' if sign < 0 else '>='} {_percent(bound)}"
    if sign * (figure.value - bound) < 0:
        yield _said(subject, text, False, kind)
    elif sign * (figure.value - bound) > ROOM * figure.error:
        yield _said(subject, text, True, "size")
    if sign * figure.value <= MARGIN:
        yield _said(subject, "lowers" if sign < 0 else "raises", False, kind)
    elif sign * figure.value > MARGIN + ROOM * figure.error:
        yield _said(subject, "lowers" if sign < 0 else "raises", True, "sign")
    if abs(figure.value) <= MARGIN:
        yield _said(subject, "matters", False, kind)
    if abs(figure.value) + ROOM * figure.error < MARGIN:
        yield _said(subject, "negligible", True, "negligible")
    elif abs(figure.value) > MARGIN:
        yield _said(subject, "negligible", False, "size")


def _wrong_attention(
    population: Population, right: tuple[str, str, str], design: Design, draw: random.Random
) -> Iterator[KnownClaim]:
    """What is true of one head's attention, claimed of another head or another target."""
    head, source, target = right
    share = population.figure(attention(*right)).value * (1 - SPARE)
    layer = head.split(".")[0]
    looking = {name for name, *_ in design.attends} | set(design.acts)
    free = [f"{layer}.{h}" for h in range(HEADS) if f"{layer}.{h}" not in looking]
    wrong = [("head", attention(other, source, target)) for other in draw.sample(free, 2)]
    wrong += [
        ("position", attention(head, source, other)) for other in design.positions if other not in (target, source)
    ]
    for kind, subject in wrong:
        if _before(subject) and population.figure(subject).value < share:
            yield _bound(subject, f">= {_percent(share)}", False, kind)


def _before(subject: Subject) -> bool:
    """Attention claims are made from END, or to positions before the source."""
    assert subject.attention is not None
    return subject.attention[1] == "END"


def _behaviour(population: Population) -> Iterator[KnownClaim]:
    """Bounds on the logit difference and on accuracy."""
    value, error = population.clean.mean(), population.clean.std() / PROMPTS**0.5
    yield from _bounds(Subject("expect logit_diff", attention=(LOGITS, "", "")), "", value, error, "{:.6f}".format)
    share = float((population.clean > 0).mean())
    room = ROOM * (share * (1 - share) / PROMPTS) ** 0.5 + 0.06
    about = Subject("expect accuracy", attention=(LOGITS, "", ""))
    yield _bound(about, f">= {_percent(max(0.0, share - room))}", True, "size")
    if share < 1:
        yield _bound(about, f">= {_percent(min(1.0, share + (1 - share) / 4))}", False, "size")
        yield _bound(about, f"<= {_percent(share - 0.02)}", False, "size")


# --- specs -----------------------------------------------------------------------------------------


def specs(model: str, found: list[KnownClaim], size: int = 20) -> Iterator[tuple[str, list[KnownClaim]]]:
    """The claims as specs of about `size` lines each, with the claims in the order of their lines."""
    for start in range(0, len(found), size):
        part = found[start : start + size]
        yield spec(model, part), part


def spec(model: str, part: list[KnownClaim]) -> str:
    """A whole spec of some claims."""
    groups = dict.fromkeys(line for claim in part for line in claim.groups)
    head = ["circuit known", f'model "{model}"', f'task known = file("known.jsonl", prompts = {PROMPTS})']
    return "\n".join([*head, *groups, *(claim.line for claim in part)]) + "\n"


def on_the_bound(population: Population, design: Design) -> list[KnownClaim]:
    """Claims that are false by nothing at all: the figure of the whole population is exactly the bound.

    Figures that are all the same, or whose patch changes nothing, are left out: there a bound can be met for sure.
    """
    found = []
    for subject in _subjects(design):
        figure = population.figure(subject)
        if figure.error == 0 or "ablate" in subject.text:
            continue
        quantity = "" if subject.attention is not None else "effect "
        for relation in ("<=", ">="):
            text = f"{quantity}{relation} {100 * figure.value:.12f}%"
            found.append(_bound(subject, text, False, "on the bound"))
    return found
