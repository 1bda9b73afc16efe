"""Every example of the language's definition parses as written, and into what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Span
from circuitdsl.language.parse import parse

WHOLE = (Path(__file__).parent.parent / "fixtures" / "whole.circ").read_text(encoding="utf-8")

ROLE = """\
role mover "attends to the answer and raises its logit"
  expect attention(self, END -> ANSWER) >= 30%
  expect attribution(self) > 0
  expect copying(self) >= 80%
"""

CHANNELS = """\
channel 4.11   -> 5.5.k  : composition rank <= 3
channel 8.10   -> 9.9.q  : composition z >= 2.5
channel 8.6[2] -> 9.9.q  : composition z >= 5
channel each inhibition -> mover.q : composition above chance
trace 9.9 END -> IO includes 8.6 7.9 at END      # sparse attention decomposition: in at least half of its firings
"""

INTERVENTION = """\
intervention repair "make Colored Objects run like IOI"
  set attention(12.3 13.4 13.13 19.1, END -> DISTRACTOR) = even
  expect accuracy >= 90%
  expect attention(17.4 18.5, END -> DISTRACTOR) falls
"""

PROPERTY = """\
property "the subject is never preferred" for 99% of prompts
  expect logit_diff > 0
"""

COMPARE = """\
compare ioi_medium with colored_objects_medium
  expect overlap >= 75%
  expect overlap above chance
  expect roles agree
"""

LINES = """\
circuit ioi
circuit ioi "title"
source "a paper"
note "a note"
license "MIT"
language 1
model "gpt2"
model "gpt2", revision = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
model "gpt2" revision = main
task ioi
task ioi()
task ioi(corrupt = abc, prompts = 256, seed = 0,)
task ioi(bos = yes)
task flip = ioi(corrupt = flip)
task mine = file("prompts.jsonl")
task file("prompts.jsonl")
metric logit_diff
metric logit_diff(against = max)
metric accuracy(argmax)
metric kl
margin 2%
margin 2.5 %
edges via mlps
edges direct
heads mover = 9.6 9.9
heads mover = 9.6, 9.9, 10.0 at END
heads all = mover + backup
heads some = inhibition - 8.6
heads mixed = (9.6 9.9) + backup - (8.6 8.10) at END, S2 outside
heads control = 3.3 at * role none outside
mlps late = m9 m10 m11 at END
nodes all = embed 0.1 m0 mover
heads one = 0.10 at S1-1 outside role mover
mover -> logits
mover + backup -> logits at END
inhibition - 8.6 -> (mover + backup).q at END : lowers
(7.3 7.9) -> 9.9.q
embed -> m0 at *
m9 -> logits direct
each inhibition -> mover at S1+1, S2 via mlps : matters on ioi "cited"
mover -> logits : effect <= -20%
mover -> logits : effect in [-10%, 0%]
mover -> logits : delta <= -0.5
mover -> logits : delta >= -1.5e-3
inhibition -> 9.9.q at END : stronger than 7.9 -> 9.9.q
inhibition -> 9.9.q at END : lowers and effect <= -5% and stronger than 7.9 -> 9.9.q at END
path inhibition -> mover.q at END -> logits : lowers
path each 5.5 -> 8.6.v at S2 -> 9.9.q at END -> logits : effect <= -1% on ioi "cited"
path (5.5 6.9) -> m7 -> mover + backup at S1, S2 : stronger than path 5.5 -> m7 -> logits and lowers
expect accuracy > 5%
expect attention(mover, END -> IO) > attention(backup, END -> IO)
expect attention(mover, END -> IO) >= attention(mover, END -> S1) by 30 points on ioi where stratum "ABBA*" "cited"
expect accuracy(top = 5) > accuracy by 2 times
expect accuracy(argmax) >= 50%
expect prob_diff >= 40%
expect accuracy above chance
expect faithfulness(ablate = mean, keep = edges) >= 80%
expect faithfulness(keep = nodes, positions = spec, form = wang) <= 0.5
expect incompleteness <= 10%
expect minimality >= 1%
expect sufficiency >= 95%
expect denoise(mover) : effect >= 50%
expect denoise(inhibition -> mover.q) : effect >= 50%
expect denoise(8.6 -> 9.9.q at END) : effect >= 5%
expect attention(9.6 9.9, END -> IO) >= 40% on ioi "a paper"
expect attention(mover, END -> S1, S2) <= 5%
expect attention(mover + backup, END -> *) >= 99%
expect knockout(mover, ablate = zero) <= -20%
expect attribution(mover) > 0
expect previous_token_score(2.2 4.11) >= 40%
expect induction_score(induction) >= 40%
expect duplicate_token_score(0.1) >= 40%
use "lab_roles.circ"
"""

VERBS = """\
intervention everything
  set attention(mover, END -> IO, S1) = 0%
  set attention(mover, END -> IO) = 25%
  scale mover by 2
  scale 8.6[2] by -0.5
  replace inhibition with mean
  replace inhibition - 8.6 with corrupt
  replace m9[1024] with zero
  project out 8.6[2]
  expect accuracy rises
when mover is knocked out
  expect logit_diff falls by >= 1
role lone
\texpect attention(self, END -> ANSWER) >= 30%
"""


@pytest.mark.parametrize("text", [WHOLE, ROLE, CHANNELS, INTERVENTION, PROPERTY, COMPARE, VERBS])
def test_the_examples_parse_without_a_word(text: str) -> None:
    file, found = parse(text)
    assert [str(d) for d in found] == []
    assert not [part for statement in file.statements for part in s.walk(statement) if isinstance(part, s.Broken)]


def everything(node: s.Syntax) -> Iterator[s.Syntax]:
    """The node and all syntax in its fields, whatever their types say."""
    yield node
    for held in vars(node).values():
        for each in held if isinstance(held, tuple) else (held,):
            if isinstance(each, s.Syntax):
                yield from everything(each)


def kinds(kind: type[s.Syntax]) -> Iterator[type[s.Syntax]]:
    for each in kind.__subclasses__():
        yield from (each, *kinds(each))


@pytest.mark.parametrize("text", [WHOLE, ROLE, CHANNELS, INTERVENTION, PROPERTY, COMPARE, VERBS, LINES])
def test_all_syntax_of_a_kind_is_found(text: str) -> None:
    """What no field can hold is not looked into, and nothing else is left out."""
    for statement in parse(text)[0].statements:
        whole = Counter(map(id, everything(statement)))
        assert Counter(map(id, s.walk(statement))) == whole
        for kind in kinds(s.Syntax):
            assert [*s.walk_to(statement, kind)] == [part for part in s.walk(statement) if isinstance(part, kind)]


@pytest.mark.parametrize("line", LINES.strip().split("\n"))
def test_every_kind_of_line_parses(line: str) -> None:
    file, found = parse(line)
    assert [str(d) for d in found] == []
    assert len(file.statements) == 1
    statement = file.statements[0]
    assert (statement.span.line, statement.span.column) == (1, 1)
    if not isinstance(statement, s.Task | s.Metric):  # whose options are not part of their span
        assert statement.span.end_column == len(line) + 1


def only(text: str) -> s.Statement:
    file, found = parse(text)
    assert found == ()
    (statement,) = file.statements
    return statement


def test_the_whole_example_in_order() -> None:
    file, _ = parse(WHOLE, "ioi.circ")
    kinds = [type(statement).__name__ for statement in file.statements]
    header = ["Circuit", "Info", "Model", "Task", "Metric", "ProtocolLine"]
    assert kinds == header + ["Group"] * 7 + ["EdgeClaim"] * 8 + ["Expect"] * 6 + ["WhenPatched"]
    assert file.path == "ioi.circ"
    assert [comment.line for comment in file.comments] == [7, 9, 18, 28, 33]
    when = file.statements[-1]
    assert isinstance(when, s.WhenPatched)
    assert [line.text for line in when.block if isinstance(line, s.Expect)] == [
        "expect attention(mover, END -> S1) rises by >= 10 points",
        "expect attention(mover, END -> IO) falls",
    ]


def test_heads_are_pairs_and_not_numbers() -> None:
    group = only("heads duplicate = 0.1 0.10 3.0")
    assert isinstance(group, s.Group) and isinstance(group.members, s.Items)
    assert [(h.layer, h.head) for h in group.members.members if isinstance(h, s.Head)] == [(0, 1), (0, 10), (3, 0)]


def test_an_edge_in_full() -> None:
    line = 'each inhibition - 8.6 -> (mover + 9.0).q at S1+1, END via mlps : lowers and effect <= -5% on ioi "cited"'
    claim = only(line)
    assert isinstance(claim, s.EdgeClaim)
    assert claim.each and claim.citation is not None and claim.citation.text == "cited"
    assert claim.on is not None and claim.on.text == "ioi"
    assert claim.text == line.removesuffix(' "cited"')
    assert isinstance(claim.edge.sender, s.Sum) and claim.edge.sender.signs == ("+", "-")
    assert isinstance(claim.edge.receiver, s.WithPort) and claim.edge.receiver.port.text == "q"
    assert isinstance(claim.edge.receiver.inner, s.Brackets)
    assert claim.edge.at is not None
    assert [(p.name, p.offset) for p in claim.edge.at.places] == [("S1", 1), ("END", 0)]
    assert claim.edge.protocol is not None and claim.edge.protocol.via_mlps
    lowers, bound = claim.claim
    assert isinstance(lowers, s.PlainClaim) and lowers.word == "lowers"
    assert isinstance(bound, s.Bound) and isinstance(bound.relation, s.Compared)
    assert (bound.quantity, bound.relation.bound.value, bound.relation.bound.unit) == ("effect", -5.0, "%")
    assert claim.edge.receiver.span == Span(1, 26, 1, 41)


def test_spans_count_from_one_and_end_after() -> None:
    group = only("heads mover = 9.6 9.9[2] at END")
    assert isinstance(group, s.Group) and isinstance(group.members, s.Items)
    assert group.name.span == Span(1, 7, 1, 12)
    assert [m.span for m in group.members.members] == [Span(1, 15, 1, 18), Span(1, 19, 1, 22)]
    assert group.at[0].span == Span(1, 26, 1, 32)


def test_where_things_stand_does_not_count_in_comparisons() -> None:
    spread = "heads   mover = 9.6,\t9.9   at END # why\n\n\nmover   ->  logits : lowers\n"
    close = "heads mover = 9.6 9.9 at END\nmover -> logits : lowers"
    assert parse(spread)[0] == parse(close)[0]
    assert parse(close)[0] != parse(close.replace("lowers", "raises"))[0]


def test_a_bracket_holds_its_line_open() -> None:
    text = "expect attention(mover, # the movers\n    END -> IO\n) >= 40%   'x'\nmover -> logits"
    file, _ = parse(text.replace("'x'", '"x"'))
    expect, edge = file.statements
    assert isinstance(expect, s.Expect)
    assert expect.text == "expect attention(mover, END -> IO ) >= 40%"
    assert expect.span == Span(1, 1, 3, 15)
    assert isinstance(edge, s.EdgeClaim) and edge.span.line == 4


def test_marks_and_line_ends_are_simply_read() -> None:
    plain = "circuit ioi\nheads mover = 9.9 at END\n"
    odd = "\ufeffcircuit\u00a0ioi\r\nheads mover =\u20039.9\u3000at END\r\n"
    assert parse(odd)[1] == ()
    assert parse(odd)[0] == parse(plain)[0]
    assert parse(plain.replace("\n", "\r"))[0] == parse(plain)[0]


def test_lines_below_circuit_may_be_indented() -> None:
    flat = 'circuit a\nsource "s"\nmodel "gpt2"\nwhen mover is knocked out\n  expect accuracy falls\nmargin 2%'
    deep = flat.replace("\n", "\n  ")
    assert parse(deep)[1] == ()
    assert parse(deep)[0] == parse(flat)[0]


def test_a_broken_line_still_defines_its_name_and_keeps_its_block() -> None:
    file, found = parse("heads mover = 9.9 at\nwhen mover is gone\n  expect accuracy falls\nmargin 2%")
    mover, when, margin = file.statements
    assert isinstance(mover, s.Broken) and (mover.keyword, mover.name) == ("heads", "mover")
    assert isinstance(when, s.Broken) and len(when.block) == 1
    assert isinstance(margin, s.Margin)
    assert [(d.code, d.span.line) for d in found] == [("E020", 1), ("E020", 2)]
