"""Features and others of their dictionary: those that fire as often are their null (semantics §8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from circuitdsl.circuit.criteria import NULL_PROMPTS
from circuitdsl.circuit.features import dictionary_of
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.dictionaries.known import FEW, known, name_of
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.plan import ClaimPlan, Part
from circuitdsl.measurements.requests import PatchRequest, Request
from circuitdsl.report.dictionaries import doubt
from circuitdsl.verify.cache import Memory

#: features that are named in the place of one that never fires
NEAREST = 3


def matched(plan: ClaimPlan, prompts: Prompts, indices: np.ndarray) -> ClaimPlan:
    """A plan whose nulls of features are drawn from those that fire as often on a claim's first prompts, all of them.

    Args:
        indices: the prompts that have all of the claim's positions.
    """
    first = indices[:NULL_PROMPTS]

    def redrawn(part: Part) -> Part:
        if part.draws is None or not len(first):
            return part
        assert isinstance(part.request, PatchRequest)
        request = part.request

        def alike(node: Node) -> Iterable[int]:
            places = [place for other, place in (*request.writes, *request.reads) if other == node]
            counts = [fires_on(prompts, node, place, first) for place in places]
            enough = np.all([each >= max(1, each[node.index]) for each in counts], axis=0)
            return [int(i) for i in np.flatnonzero(enough)]

        return replace(part, null=replace(part.draws, alike=alike).of_patch(request), draws=None)

    return replace(plan, parts=tuple(map(redrawn, plan.parts)))


def nearest_that_fire(prompts: Prompts, node: Node, position: Position) -> list[tuple[Node, float]]:
    """For a feature that fires on no clean prompt at a position, those nearest to it that do, with the cosines.

    They are the nearest by what they write: by the cosine of the rows of the decoder.
    """
    fires = fires_on(prompts, node, position, np.arange(len(prompts.pairs)))
    if fires[node.index]:
        return []
    rows = dictionary_of(node).tensors["W_dec"].read().flatten(1).numpy()
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    cosines = np.where(fires > 0, rows @ rows[node.index], -1)
    nearest = np.argsort(-cosines, kind="stable")[:NEAREST]
    return [(node._replace(index=int(i)), float(cosines[i])) for i in nearest if cosines[i] > 0]


def doubts(prompts: Prompts, requests: Iterable[Request]) -> tuple[str, ...]:
    """A warning for each dictionary, of features that some requests name, that explains little of the first prompts."""
    memory, found = prompts.cache, list[str]()
    for of in sorted({node.of for request in requests for node in request.named if node.of}):

        def compute(of: str = of) -> float:
            return float(prompts.ask("circuitdsl.engine.dictionaries:settled", of))

        explained = memory.explained(of, compute) if isinstance(memory, Memory) else compute()
        place = f"{known(of).dictionary.writes[0]} on the first {len(prompts.pairs[:FEW])} prompts"
        found += filter(None, [doubt(name_of(of), explained, place)])
    return tuple(found)


def fires_on(prompts: Prompts, node: Node, position: Position, indices: np.ndarray) -> np.ndarray:
    """On how many of some prompts each feature of a node's dictionary fires at a position [d_sae]."""

    def compute() -> np.ndarray:
        found: np.ndarray = prompts.ask("circuitdsl.engine.dictionaries:fires_on", node.of, position, indices)
        return found

    def remembered() -> np.ndarray:
        memory, d_sae = prompts.cache, dictionary_of(node).d_sae
        return memory.firing(node.of, d_sae, position, indices, compute) if isinstance(memory, Memory) else compute()

    return prompts.once(("fires", node.of, position, indices.tobytes()), remembered)
