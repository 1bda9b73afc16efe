"""What the modules that know specs and those that know the protocol share."""

from __future__ import annotations

#: the byte-order mark, which some editors leave at the start of a text
MARK = "\ufeff"
#: the types of coloured words in the protocol, in the order of its legend; and what else may be said of them
TYPES = (
    "keyword", "string", "number", "comment", "operator", "namespace", "class", "variable", "function", "enumMember",
)  # fmt: skip
MODIFIERS = ("declaration",)
