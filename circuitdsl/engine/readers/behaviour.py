"""The task's metric, or another, of the unpatched runs. Nothing here imports torch: scores may be known."""

from __future__ import annotations

from typing import Any

from circuitdsl.engine.prompts import Array, Prompts, behaviour
from circuitdsl.errors import UserError
from circuitdsl.measurements.behaviour import Behaviour


def of_prompts(prompts: Prompts, request: Behaviour, indices: Array) -> Array:
    """The metric of the clean run, which was scored when the prompts were made ready."""
    return behaviour(prompts, request.metric)[indices]


def trouble(prompts: Prompts, request: Any) -> str:
    """Why a metric cannot be taken on these prompts; empty where it can."""
    try:
        behaviour(prompts, getattr(request, "metric", prompts.metric))
    except UserError as error:
        return error.message
    return ""
