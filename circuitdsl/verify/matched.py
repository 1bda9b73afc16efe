"""Nulls of features: others of the same dictionary that fire on at least as many of the prompts (semantics §8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from circuitdsl.circuit.criteria import NULL_PROMPTS
from circuitdsl.circuit.features import dictionary_of
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.plan import ClaimPlan, Part
from circuitdsl.measurements.requests import PatchRequest
from circuitdsl.verify.cache import Memory


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
            counts = [_fires_on(prompts, node, place, first) for place in places]
            enough = np.all([each >= max(1, each[node.index]) for each in counts], axis=0)
            return [int(i) for i in np.flatnonzero(enough)]

        return replace(part, null=replace(part.draws, alike=alike).of_patch(request), draws=None)

    return replace(plan, parts=tuple(map(redrawn, plan.parts)))


def _fires_on(prompts: Prompts, node: Node, position: Position, indices: np.ndarray) -> np.ndarray:
    """On how many of some prompts each feature of a node's dictionary fires at a position [d_sae]."""

    def compute() -> np.ndarray:
        found: np.ndarray = prompts.ask("circuitdsl.engine.dictionaries:fires_on", node.of, position, indices)
        return found

    def known() -> np.ndarray:
        memory, d_sae = prompts.cache, dictionary_of(node).d_sae
        return memory.firing(node.of, d_sae, position, indices, compute) if isinstance(memory, Memory) else compute()

    return prompts.once(("fires", node.of, position, indices.tobytes()), known)
