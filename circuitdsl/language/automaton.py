"""Runs the grammar's LALR tables over the tokens of one statement.

Lark builds the tables. It is not used to run them: a spec may have tens of thousands of statements, and most of them
have the same sequence of terminals as an earlier one. What the tables do with such a sequence is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lark import Lark
from lark.parse_tree_builder import ExpandSingleChild
from lark.parsers.lalr_analysis import Shift

from circuitdsl.language.lexer import Token

END = "$END"
#: sequences of terminals that are kept, and how long one of them may be
KEPT, LONGEST = 5000, 100

#: tokens to take, or a callback with the number of values that it makes one of
Step = tuple[Callable[[list[Any]], Any] | None, int]


@dataclass(frozen=True, slots=True)
class Stuck:
    """Where a statement stops making sense: at the token of that number, in these states, the innermost last."""

    place: int
    states: tuple[int, ...]


class Automaton:
    """The parser of one statement.

    Args:
        built: the grammar with its tables and callbacks.
    """

    def __init__(self, built: Lark) -> None:
        parser: Any = built.parser.parser
        self.states, self.callbacks = parser._parse_table.states, parser.parser.callbacks
        self.first, self.last = parser._parse_table.start_states["line"], parser._parse_table.end_states["line"]
        self.known: dict[tuple[str, ...], list[Step]] = {}
        self.accepted: dict[tuple[int, ...], frozenset[str]] = {}

    def parse(self, tokens: Sequence[Token]) -> Any:
        """What the callbacks make of a statement, or where it is `Stuck`."""
        kinds = tuple([token.type for token in tokens])
        steps = self.known.get(kinds)
        if steps is None:
            found = self.steps(kinds)
            if isinstance(found, Stuck):
                return found
            steps = found
            if len(self.known) < KEPT and len(kinds) <= LONGEST:
                self.known[kinds] = steps
        values: list[Any] = []
        at = 0
        for make, count in steps:
            if make is None:
                values += tokens[at : at + count]
                at += count
            elif count == 1:
                values[-1] = make(values[-1:])
            else:
                values[-count:] = [make(values[-count:])]
        return values[0]

    def steps(self, kinds: Sequence[str]) -> list[Step] | Stuck:
        """What is done with a sequence of terminals, or where it ends before its time."""
        stack, steps = [self.first], list[Step]()
        for place, kind in enumerate((*kinds, END)):
            if not self.advance(stack, kind, steps):
                return Stuck(place, tuple(stack))
        return steps

    def after(self, kinds: Sequence[str]) -> frozenset[str]:
        """The terminals that may follow the first ones of a statement; none where no statement begins with these."""
        stack = [self.first]
        able = all(self.advance(stack, kind, []) for kind in kinds)
        return self.expected(tuple(stack)) if able else frozenset()

    def advance(self, stack: list[int], kind: str, steps: list[Step]) -> bool:
        """Whether a terminal may follow; the stack and the steps are moved on, as far as they go."""
        while True:
            action, what = self.states[stack[-1]].get(kind, (None, None))
            if action is None:
                return False
            if action is Shift:
                stack.append(what)
                taken = steps.pop()[1] if steps and steps[-1][0] is None else 0
                steps.append((None, taken + 1))
                return True
            make, count = self.callbacks[what], len(what.expansion)
            del stack[len(stack) - count :]
            stack.append(self.states[stack[-1]][what.origin.name][1])
            if count != 1 or not isinstance(make, ExpandSingleChild):
                steps.append((make, count))
            if kind == END and stack[-1] == self.last:
                return True

    def expected(self, states: tuple[int, ...]) -> frozenset[str]:
        """The terminals that may stand where the parse stopped."""
        here = [name for name in self.states[states[-1]] if name.isupper()]
        if len(states) > 30:
            return frozenset(here)
        if states not in self.accepted:
            able = [name for name in here if self.advance([*states], name, [])]
            self.accepted[states] = frozenset(able or here) - {END}
        return self.accepted[states]
