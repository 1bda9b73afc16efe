"""Statements of one shape are parsed alike: what Lark's tables say of a shape is worked out once, then repeated.

Which rules an LALR parser reduces, and when, follows from the kinds of the tokens alone. A spec has thousands of
lines and a few dozen shapes, so every shape becomes a list of steps that builds a statement from its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lark import Lark, Token
from lark.parsers.lalr_analysis import Shift

#: how many children a rule takes from the stack, and what makes a node of them; 0 takes the next token
Step = tuple[int, Callable[[list[Any]], Any] | None]
MAX_SHAPES = 4096


class Shapes:
    """The shapes that one grammar has met."""

    def __init__(self, grammar: Lark) -> None:
        parser: Any = grammar.parser.parser
        self.table, self.callbacks = parser.parser.parse_table, parser.parser.callbacks
        self.start = grammar.options.start[0]
        self.known: dict[tuple[str, ...], tuple[Step, ...] | None] = {}

    def build(self, tokens: Sequence[Token]) -> Any | None:
        """The node that the grammar makes of the tokens; None for a line that it refuses."""
        kinds = tuple([token.type for token in tokens])
        if kinds not in self.known:
            if len(self.known) >= MAX_SHAPES:
                self.known.clear()
            self.known[kinds] = self.steps(kinds)
        steps = self.known[kinds]
        if steps is None:
            return None
        stack: list[Any] = []
        upcoming = iter(tokens)
        for size, make in steps:
            if make is None:
                stack.append(next(upcoming))
            else:
                children = stack[-size:]
                del stack[-size:]
                stack.append(make(children))
        return stack[0]

    def steps(self, kinds: tuple[str, ...]) -> tuple[Step, ...] | None:
        """The steps of a shape; None when it is no statement."""
        states, end = self.table.states, self.table.end_states[self.start]
        stack = [self.table.start_states[self.start]]
        steps: list[Step] = []
        for kind in (*kinds, "$END"):
            while stack[-1] != end:
                action, what = states[stack[-1]].get(kind, (None, None))
                if action is None:
                    return None
                if action is Shift:
                    stack.append(what)
                    steps.append((0, None))
                    break
                size = len(what.expansion)
                assert size, "no rule of the grammar is empty"
                del stack[-size:]
                stack.append(states[stack[-1]][what.origin.name][1])
                steps.append((size, self.callbacks[what]))
        return tuple(steps)
