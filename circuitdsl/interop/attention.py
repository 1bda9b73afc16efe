"""Attention patterns of a circuit's heads on a prompt, in a notebook, drawn by CircuitsVis where it is installed."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.nodes import Node
from circuitdsl.errors import UsageError
from circuitdsl.language.diagnostics import did_you_mean, suggest
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.prompts import make_data
from circuitdsl.verify.session import Session, with_overrides
from circuitdsl.visible import visible

if TYPE_CHECKING:
    from circuitdsl.api import Spec

#: what is said where the drawing library is missing
WITHOUT = "attention is drawn by CircuitsVis, which is not installed: pip install 'circuitdsl[circuitsvis]'"


@dataclass(frozen=True, eq=False)
class AttentionView:
    """Attention patterns; a notebook shows them as its cell's value.

    Attributes:
        patterns: from each token (axis 1) to each (axis 2), as shares.
    """

    heads: tuple[Node, ...]
    tokens: tuple[str, ...]
    patterns: Float[np.ndarray, "heads T T"]

    def __repr__(self) -> str:
        shown = f"attention of {', '.join(map(str, self.heads))} on {len(self.tokens)} tokens"
        return shown if find_spec("circuitsvis") else f"{shown}; {WITHOUT}"

    def _repr_html_(self) -> str | None:
        """The page of CircuitsVis with its script in it, so that nothing is fetched; None without CircuitsVis."""
        if find_spec("circuitsvis") is None:
            return None
        from circuitsvis.attention import attention_heads

        names = [str(head) for head in self.heads]
        tokens = [visible(token).replace("<", "‹") for token in self.tokens]  # they stand in a script, as they are
        drawn = attention_heads(self.patterns.tolist(), tokens, attention_head_names=names)
        return str(drawn.local_src)


def attention(
    spec: Spec | str,
    group: str,
    prompt: int = 0,
    *,
    corrupt: bool = False,
    task: str | None = None,
    circuit: str | None = None,
    session: Session | None = None,
) -> AttentionView:
    """Attention of a group's heads on one prompt of a task.

    Args:
        prompt: its place among the task's prompts, from 0.
        corrupt: show its corrupt partner.
        task: which task; by default the first.
        session: has the model; by default a new one.

    Raises:
        UsageError: there is no such group, task or prompt, or no heads are in the group.
        UserError: what `Session.circuit` raises, and what making prompts does.
    """
    from circuitdsl.engine.patterns import patterns_on

    if prompt < 0:
        raise UsageError(f"prompt = {prompt}: prompts are counted from 0")
    with nullcontext(session) if session else Session() as running:
        found = with_overrides(running.circuit(spec, circuit), prompts=prompt + 1)
        heads = _heads(found, group)
        use = next((use for use in found.tasks if task in (None, use.name)), None)
        if use is None:
            raise UsageError(f"there is no task {task}", hint=f"here: {', '.join(u.name for u in found.tasks)}")
        model = running.model_of(found)
        pairs = make_data(found, use, model).pairs
        if prompt >= len(pairs):
            raise UsageError(f"there is no prompt {prompt}: {use.name} has {len(pairs)}, counted from 0")
        ids = pairs[prompt].corrupt_tokens if corrupt else pairs[prompt].clean_tokens
        texts = Tokens(model.tokenizer, model.name, use.bos, use.chat).text_of if model.tokenizer else str
        return AttentionView(heads, tuple(map(texts, ids)), np.asarray(patterns_on(model, ids, heads)))


def _heads(circuit: Circuit, name: str) -> tuple[Node, ...]:
    known = [group.name for group in circuit.groups]
    if name not in known:
        guess = did_you_mean(suggest(name, known))
        raise UsageError(f"there is no group {name}{guess}", hint=f"the groups of {circuit.name}: {', '.join(known)}")
    nodes = next(group.nodes for group in circuit.groups if group.name == name)
    heads = tuple(dict.fromkeys(node.whole for node in nodes if node.kind == "head"))
    if not heads:
        raise UsageError(f"no heads are in {name}: only heads attend")
    return heads
