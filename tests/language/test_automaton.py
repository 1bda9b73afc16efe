"""What the grammar's tables are run by says what Lark itself says of the same words."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from lark import Lark, UnexpectedToken
from lark import Token as LarkToken

from circuitdsl.language.automaton import END, Automaton, Stuck
from circuitdsl.language.builder import Builder
from circuitdsl.language.diagnostics import Sink
from circuitdsl.language.lexer import Token, logical_lines
from circuitdsl.language.tables import build
from tests.drawing import examples
from tests.language.mutations import mutated


def by_lark(built: Lark, tokens: list[Token]) -> Any:
    """The node of a statement, or the number of the token at which it stops and what Lark would take there."""
    parser: Any = built.parser.parser
    running = parser.parser.parse(SimpleNamespace(_Token=LarkToken), "line", start_interactive=True)
    for place, token in enumerate([*tokens, Token(END, "", 0, 0, tokens[-1].span)]):
        try:
            node = running.parser_state.feed_token(token, token.type == END)
        except UnexpectedToken:
            return place, running.accepts() - {END}
    return node


def test_lines_are_read_as_lark_reads_them() -> None:
    built = build(Builder())
    ours, read, stuck = Automaton(built), 0, 0
    for seed in range(examples(60, 600)):
        for line in logical_lines(mutated(random.Random(seed)), Sink())[0]:
            found, wanted = ours.parse(line.tokens), by_lark(built, line.tokens)
            if isinstance(found, Stuck):
                stuck += 1
                assert found.place == wanted[0]
                if len(found.states) <= 30:
                    assert ours.expected(found.states) == wanted[1]
            else:
                read += 1
                assert found == wanted and found.span == wanted.span
    assert min(read, stuck) > 90
