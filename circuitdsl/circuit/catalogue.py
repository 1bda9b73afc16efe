"""What resolution may know without a model or a tokenizer: tasks' positions and models' shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TaskShape:
    """The names a registered task defines; positions and corruptions with a sentence, options with their values."""

    name: str
    positions: Mapping[str, str]
    corruptions: Mapping[str, str]
    options: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict)
    #: for a position, the positions that stand strictly before it in every prompt
    before: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The size of a model: enough to know which heads and MLPs exist; `d_head` and `d_mlp` where they are known."""

    title: str
    n_layers: int
    n_heads: int
    parallel: bool = False
    d_head: int | None = None
    d_mlp: int | None = None
