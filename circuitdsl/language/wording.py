"""Words of other notations, and the words of this language for them."""

from __future__ import annotations

import re

#: with what statements begin in other notations
MEANT = {
    "if": "when", "given": "when", "import": "use", "include": "use", "group": "heads", "nodeset": "nodes",
    "assert": "expect", "require": "expect", "claim": "expect", "dataset": "task", "prompts": "task",
    "title": "circuit", "name": "circuit",
    "ablate": "replace", "zero": "replace … with zero", "knockout": "expect knockout(…)",
    "remove": "replace", "multiply": "scale", "threshold": "margin", "citation": "source", "comment": "note",
}  # fmt: skip
#: what other notations claim of an edge
CLAIMS = {
    "falls": "lowers", "decreases": "lowers", "reduces": "lowers", "drops": "lowers", "hurts": "lowers",
    "rises": "raises", "increases": "raises", "boosts": "raises", "helps": "raises", "improves": "raises",
    "important": "matters", "significant": "matters", "strong": "matters", "weak": "negligible", "none": "negligible",
    "nothing": "negligible", "zero": "negligible", "small": "negligible", "insignificant": "negligible",
}  # fmt: skip
_HEAD = re.compile(r"[LlAa](\d{1,3})[._]?[Hh](\d{1,3})")
_MLP = re.compile(r"(?:[Mm][Ll][Pp]_?|M)(\d{1,3})")


def as_node(word: str) -> str | None:
    """A head or an MLP as other tools write it: `L9H6`, `a9.h6`, `mlp9`.

    >>> as_node("L9H6"), as_node("mlp_9"), as_node("mover")
    ('9.6', 'm9', None)
    """
    if head := _HEAD.fullmatch(word):
        return f"{int(head[1])}.{int(head[2])}"
    mlp = _MLP.fullmatch(word)
    return f"m{int(mlp[1])}" if mlp else None
