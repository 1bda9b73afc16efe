"""Attribution graphs as specs: their strongest links as claims, which `verify` then holds to the model.

A graph is linear, on one prompt, with attention held. What a link does to the answer is its weight, times what its
target does to the answer, which is the same sum over the target's own links. The activation of a target divides that:
weights from a feature are what its whole activation adds. Removing what helps lowers, so a link that does more than 0
for the answer is claimed to lower what is measured, and one that does less to raise it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from circuitdsl.brief import quoted
from circuitdsl.circuit.features import whole_of
from circuitdsl.circuit.nodes import Position
from circuitdsl.circuit.vocabulary import GENERAL_POSITIONS, METRICS
from circuitdsl.dictionaries.record import Dictionary, DictionaryError
from circuitdsl.discover.asked import ARGUMENT, beside, circuit_of, name_of, opening
from circuitdsl.discover.feature_search import line_of
from circuitdsl.discover.places import tokens_of
from circuitdsl.errors import UsageError
from circuitdsl.interop.attribution_graphs import AttributionGraph, Point
from circuitdsl.language.format import format_text
from circuitdsl.models.load import load_tokenizer, vocabulary_size
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.prompts import data_for
from circuitdsl.visible import visible

#: metrics that are about the answer alone
OF_ANSWER = ("prob", "logit", "logprob")
#: how far a token may be from one that the task names, to be named by its distance
REACH = 2
#: links that are claimed unless asked otherwise, and features that a message names
TOP, NAMED = 20, 5
#: of the task, among which the graph's prompt is looked for
PROMPTS = 256
#: what a chat template or a tokenizer puts before a text
_BEGINS = re.compile(r"^(?:<[^<>\s]{1,40}>)+")


class Hypothesis(NamedTuple):
    """A link that is claimed, with what it does to the answer in the graph, in logits."""

    source: Point
    target: Point
    effect: float


@dataclass(frozen=True)
class Draft:
    """A spec that was made of a graph, and what is said of it."""

    text: str
    said: tuple[str, ...]


Opens = Callable[[Sequence[str]], Sequence[str]]


def drawn(
    model: str, task: str, metric: str, name: str | None, target: Path | None
) -> tuple[Opens, tuple[PromptPair, ...]]:
    """What opens a spec about a task, given its notes; and the task's prompts, which a tokenizer is enough for.

    Raises:
        UsageError: the task, or an option of it, does not exist.
        UserError: a prompt file cannot be read, or the model has no tokenizer.
    """
    opens = partial(opening, model, name or name_of(task), metric)
    circuit = circuit_of(opens(task, PROMPTS, 0, ()))
    if METRICS[circuit.metric.name].falls:
        raise UsageError(
            f"{circuit.metric} is better when lower, and signs are those of logits", hint="take logit_diff"
        )
    tokenizer = load_tokenizer(model)
    tokens = None if tokenizer is None else Tokens(tokenizer, model, circuit.tasks[0].bos, circuit.tasks[0].chat)
    pairs = data_for(circuit, circuit.tasks[0], tokens, model, vocabulary_size(model)).pairs
    if target is not None and (file := circuit.tasks[0].file) is not None:
        task = task.replace(f'"{file}"', f'"{beside(target, str(file))}"')
    return lambda notes: opens(task, PROMPTS, 0, notes), pairs


# --- what a graph says of the answer ------------------------------------------------------------------


def asked_by(graph: AttributionGraph, pair: PromptPair | None, metric: str) -> dict[int, float]:
    """By how much the metric rises with each logit: of its prompt's answers and distractors, or of the graph's target.

    Raises:
        UsageError: the graph has no logit of these.
    """
    logits = [point for point in graph.points if point.kind == "logit"]
    if pair is None:
        found = {point.number: 1.0 for point in logits if point.asked}
    else:
        found = dict.fromkeys(pair.answers, 1 / max(1, len(pair.answers)))
        if metric.partition("(")[0].strip() not in OF_ANSWER:
            found |= dict.fromkeys(pair.distractors, -1 / max(1, len(pair.distractors)))
    if not any(point.number in found for point in logits):
        of = "target" if pair is None else "answer of its prompt"
        raise UsageError(f"{graph.path}: it has no logit of the {of}, so that nothing says which way a link works")
    return found


def flows(graph: AttributionGraph, asked: Mapping[int, float]) -> tuple[dict[Point, float], list[Hypothesis], int]:
    """What each node does to the answer, what each link does, and how many links are into features of no activation.

    Links into several logits of one source are one.
    """
    from_source: dict[Point, list[tuple[Point, float]]] = {}
    for source, target, weight in graph.links:
        from_source.setdefault(source, []).append((target, weight))
    per_unit: dict[Point, float | None] = {}
    totals: dict[Point, float] = {}
    found: list[Hypothesis] = []
    unknown = 0
    for point in sorted(graph.points, key=lambda each: -each.layer):
        if point.kind == "logit":
            per_unit[point] = asked.get(point.number, 0.0)
            continue
        total, into_logits, last = 0.0, 0.0, None
        for target, weight in from_source.get(point, ()):
            unit = per_unit[target]
            if unit is None:
                unknown += 1
                continue
            total += weight * unit
            if target.kind == "logit":
                into_logits, last = into_logits + weight * unit, target
            else:
                found.append(Hypothesis(point, target, weight * unit))
        if last is not None:
            found.append(Hypothesis(point, last, into_logits))
        totals[point] = total
        per_unit[point] = total / point.activation if point.activation and point.activation > 0 else None
    return totals, sorted((each for each in found if each.effect), key=lambda each: -abs(each.effect)), unknown


# --- the task, and where its prompt has the task's positions --------------------------------------------------------


def pair_of(graph: AttributionGraph, pairs: Sequence[PromptPair]) -> PromptPair | None:
    """The pair of a task whose clean prompt is the graph's, but for a token that a tokenizer begins it with."""
    prompt = _BEGINS.sub("", graph.prompt.strip()).strip()
    return next((pair for pair in pairs if prompt and pair.clean and pair.clean.strip() == prompt), None)


def named_places(
    graph: AttributionGraph, pair: PromptPair | None, given: Mapping[str, int], known: Collection[str]
) -> dict[str, int]:
    """The tokens of a graph's prompt at which the task's positions stand.

    Args:
        known: the positions of the task.
        given: some that the user names, each with its token.

    Raises:
        UsageError: nothing says where they are, or a token is beyond the prompt.
    """
    last = graph.length - 1
    for name, token in given.items():
        if name not in known:
            raise UsageError(f"the task has no position {quoted(name)}", hint=f"its positions: {', '.join(known)}")
        if not 0 <= token <= last:
            raise UsageError(f"{name} cannot be token {token}: the prompt of {graph.path} has tokens 0 to {last}")
    if pair is None:
        if not given:
            raise UsageError(
                f"{graph.path} is about the prompt {quoted(repr(graph.prompt))}, which is none of the task's",
                hint="name a task that has it, or say where the task's positions stand in it: --position S2=10",
            )
        return {"END": last, **given}
    begins = graph.length - len(pair.clean_tokens)
    if begins not in (0, 1):
        raise UsageError(
            f"{graph.path} has {graph.length} tokens, and the same prompt has {len(pair.clean_tokens)} here: "
            "it is of another tokenizer"
        )
    places = {name: index[0] + begins for name, index in pair.positions.items() if len(index) == 1}
    return {**places, "END": last, **given}


def place_of(token: int, places: Mapping[str, int], pairs: Sequence[PromptPair]) -> Position | None:
    """A token by the name of a position, or by its distance from the nearest where no prompt has a name there."""
    near = sorted((abs(token - at), name in GENERAL_POSITIONS, name) for name, at in places.items())
    found = (Position(name, token - places[name]) for apart, _, name in near if apart <= REACH)
    return next(
        (place for place in found if not place.offset or not any(_is_named(pair, place) for pair in pairs)), None
    )


def _is_named(pair: PromptPair, place: Position) -> bool:
    """Whether what a distance leads to has another name in a prompt, or is not in it."""
    here, names = tokens_of(pair, place), (Position(name) for name in pair.positions)
    return not here or any(here & tokens_of(pair, name) for name in names)


# --- as claims ----------------------------------------------------------------------------------------


@dataclass
class Written:
    """The claims of a draft.

    Attributes:
        places: the name of each token of the graph's prompt.
        by_layer: the dictionary of each layer.
        dropped: how many links cannot be said, by why.
    """

    by_layer: Mapping[int, Dictionary]
    places: Sequence[Position | None]
    pairs: Sequence[PromptPair]
    totals: Mapping[Point, float]
    used: set[int] = field(default_factory=set)
    claims: dict[str, None] = field(default_factory=dict)
    named: set[Point] = field(default_factory=set)
    edges: int = 0
    knocked: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, link: Hypothesis) -> None:
        """Claim a link; where it goes from one token to another, that its source matters where it stands."""
        source, target, effect = link
        place = self.places[source.position]
        if place is None:
            self.dropped["from tokens that no position of the task stands for in all of its prompts"] += 1
            return
        if source.kind == "token" and not any(_differs(pair, place) for pair in self.pairs):
            self.dropped["from tokens that the corruption leaves as they are"] += 1
            return
        sender = self.node(source)
        if source.position == target.position:
            receiver = "logits" if target.kind == "logit" else self.node(target)
            self.named |= {source, target}
            self.edges += self._claim(f"{sender} -> {receiver} at {place}", effect)
            return
        if not self.totals[source]:
            self.dropped["whose senders do nothing in all"] += 1
            return
        self.named.add(source)
        self.knocked += self._claim(f"expect knockout({sender} at {place})", self.totals[source])

    def _claim(self, line: str, effect: float) -> bool:
        claim = f"{line} : {'lowers' if effect > 0 else 'raises'}"
        new = claim not in self.claims
        self.claims[claim] = None
        return new

    def node(self, point: Point) -> str:
        """A node as a spec names it."""
        if point.kind == "token":
            return "embed"
        if point.layer not in self.by_layer:
            raise UsageError(
                f"a claim is about {point}, and no dictionary of its layer is named",
                hint="name it: --dictionary DIR",
            )
        self.used.add(point.layer)
        return f"t{point.layer}[{'error' if point.kind == 'error' else point.number}]"


def draft(
    graph: AttributionGraph,
    dictionaries: Sequence[Dictionary],
    pairs: Sequence[PromptPair],
    opens: Opens,
    metric: str,
    positions: Mapping[str, int],
    top: int | None,
    threshold: float | None,
    target: Path | None,
) -> Draft:
    """A spec that claims a graph's strongest links.

    Args:
        pairs: prompts of the task, among which the graph's own is looked for.
        opens: gives the lines that open the spec with some notes.
        positions: tokens of the graph's prompt at which the task's positions stand.
        top, threshold: so many links, or those that do at least so much to the answer, in logits.
        target: where the spec will lie.

    Raises:
        UsageError: the graph's prompt is none of the task's, a dictionary is missing, or nothing is left to claim.
        DictionaryError: a dictionary has no such feature, or features at its place cannot be patched.
    """
    by_layer, pair = _by_layer(graph, dictionaries), pair_of(graph, pairs)
    named = named_places(graph, pair, positions, dict.fromkeys(name for each in pairs for name in each.positions))
    places = [place_of(token, named, pairs) for token in range(graph.length)]
    totals, every, unknown = flows(graph, asked_by(graph, pair, metric))
    kept = [each for each in every if abs(each.effect) >= threshold] if threshold else every[: top or TOP]
    written = Written(by_layer, places, pairs, totals)
    for link in kept:
        written.add(link)
    if not written.claims:
        why = f"none of the {len(kept)} links that were asked for can be claimed"
        raise UsageError(f"{graph.path}: {why}", hint="give a larger --top, or a smaller --threshold")
    said = list(_said(graph, written, len(every), len(kept), unknown))
    lines = [*opens([visible(each).replace('"', "'") for each in said[:2]])]
    for layer in sorted(written.used):
        lines.append(line_of(f"t{layer}", by_layer[layer], target))
    circuit_of(lines, str(target or ARGUMENT))
    return Draft(format_text("\n".join([*lines, "", *written.claims, ""])), tuple(said))


def _differs(pair: PromptPair, place: Position) -> bool:
    """Whether a prompt and its partner have different tokens there."""
    return any(pair.clean_tokens[i] != pair.corrupt_tokens[i] for i in tokens_of(pair, place))


def _by_layer(graph: AttributionGraph, dictionaries: Sequence[Dictionary]) -> dict[int, Dictionary]:
    """The dictionary of each layer; raises `UsageError` or `DictionaryError` where one is not of the graph."""
    found: dict[int, Dictionary] = {}
    for each in dictionaries:
        whole = whole_of(each)
        if whole.kind != "mlp":
            raise UsageError(f"{each.name} is a {each.kind} at {each.reads}; features of such graphs are an MLP's")
        if whole.layer >= graph.layers:
            of = f"of a model with {graph.layers} layers"
            raise UsageError(f"{each.name} sits in layer {whole.layer}, and {graph.path} is {of}")
        if whole.layer in found:
            raise UsageError(f"{found[whole.layer].name} and {each.name} are both of layer {whole.layer}: name one")
        found[whole.layer] = each
    for point in graph.points:
        if point.kind == "feature" and point.layer in found and point.number >= found[point.layer].d_sae:
            own = found[point.layer]
            raise DictionaryError(
                f"{own.name} has features 0 to {own.d_sae - 1}, and {graph.path} has {point}",
                hint="it was made with other dictionaries",
            )
    return found


def _said(graph: AttributionGraph, written: Written, every: int, kept: int, unknown: int) -> Iterator[str]:
    """What is said of a draft: what it claims, how a sign is meant, and what it leaves out."""
    yield (
        f"{kept} of {every} links of {graph.path.name}, by what they do to the answer: {written.edges} are edges; of "
        f"the senders of others, which are read at other tokens, {written.knocked} are knocked out"
    )
    yield "signs are those of a linear attribution on one prompt; nothing here has been measured"
    for why, many in written.dropped.items():
        yield f"{many} of these links are not claimed: {why}"
    if unknown:
        yield f"{unknown} links into features without an activation are not ranked"
    unnamed = {(point.layer, point.number) for point in graph.points if point.kind == "feature"}
    unnamed -= {(point.layer, point.number) for point in written.named}
    strongest = sorted(written.totals, key=lambda point: -abs(written.totals[point]))
    first = dict.fromkeys(f"t{each.layer}[{each.number}]" for each in strongest if each[1:3] in unnamed)
    if unnamed:
        yield f"{len(unnamed)} features of the graph are in no claim, the strongest {', '.join(list(first)[:NAMED])}"
    if unused := sorted(set(written.by_layer) - written.used):
        yield f"no claim is about a feature of {', '.join(written.by_layer[layer].name for layer in unused)}"
