"""Hypothesis strategies that draw specs: every construct of the language, as syntax without places.

A drawn spec is grammatical; whether its groups, heads and positions exist is left to chance.
"""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import START
from circuitdsl.language.lexer import KEYWORDS, UNSEEN, word_kind

T = TypeVar("T")


def _maybe(drawn: SearchStrategy[T]) -> SearchStrategy[T | None]:
    return st.none() | drawn


def _several(drawn: SearchStrategy[T], least: int = 1, most: int = 3) -> SearchStrategy[tuple[T, ...]]:
    return st.lists(drawn, min_size=least, max_size=most).map(tuple)


# --- words, numbers, options ----------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True).filter(
    lambda name: name not in KEYWORDS and word_kind(name) == "NAME"
)
POSITIONS = st.sampled_from(("END", "IO", "S1", "S2", "ANSWER", "QUERY_2", "X"))
SMALL = st.integers(0, 40)

words = st.builds(s.Word, st.just(START), NAMES)
writable = st.text(st.characters(exclude_characters='"', exclude_categories=["Cs"]), max_size=20)
texts = st.builds(s.Text, st.just(START), writable.filter(lambda text: not UNSEEN.search(text)))
digits = st.one_of(
    SMALL.map(str),
    st.tuples(SMALL, SMALL).map(lambda pair: f"{pair[0]}.{pair[1]}"),
    st.tuples(SMALL, st.integers(-20, 20)).map(lambda pair: f"{pair[0]}e{pair[1]}"),
)


@st.composite
def numbers(draw: st.DrawFn, units: tuple[str, ...] = ("", "%", "points")) -> s.Number:
    """A number with its sign and unit."""
    written, unit = draw(st.sampled_from(("", "-", "+"))) + draw(digits), draw(st.sampled_from(units))
    return s.Number(START, float(written), unit, written + (" points" if unit == "points" else unit))


values = st.one_of(words, texts, numbers())
options = st.builds(s.Option, st.just(START), words, values)
entries = _several(st.one_of(options, values), 0)

# --- nodes, sets, positions -----------------------------------------------------------------------

nodes = st.one_of(
    st.builds(s.Head, st.just(START), SMALL, SMALL, _maybe(SMALL)),
    st.builds(s.Mlp, st.just(START), SMALL, _maybe(SMALL)),
    st.builds(s.Special, st.just(START), st.sampled_from(("embed", "logits", "self"))),
    st.builds(s.GroupRef, st.just(START), NAMES),
)
ports = st.builds(s.Word, st.just(START), st.sampled_from(("q", "k", "v")))


@st.composite
def sums(draw: st.DrawFn, operands: SearchStrategy[s.Set]) -> s.Sum:
    """`a + b - c`"""
    drawn = draw(_several(operands, 2))
    signs = draw(st.lists(st.sampled_from("+-"), min_size=len(drawn) - 1, max_size=len(drawn) - 1))
    return s.Sum(START, ("+", *signs), drawn)


def _larger(inner: SearchStrategy[s.Set]) -> SearchStrategy[s.Set]:
    lists = st.builds(s.Items, st.just(START), _several(inner, 2, 4))
    return st.builds(s.Brackets, st.just(START), st.one_of(inner, lists, sums(inner)))


inner_sets: SearchStrategy[s.Set] = st.recursive(nodes, _larger, max_leaves=6)
operands: SearchStrategy[s.Set] = st.one_of(inner_sets, st.builds(s.WithPort, st.just(START), inner_sets, ports))
sets: SearchStrategy[s.Set] = st.one_of(
    operands, st.builds(s.Items, st.just(START), _several(operands, 2, 9)), sums(operands)
)

places = st.one_of(st.builds(s.Place, st.just(START), POSITIONS, st.integers(-12, 12)), st.just(s.Place(START, "*")))
ats = st.builds(s.At, st.just(START), _several(places))
protocols = st.builds(s.Protocol, st.just(START), st.booleans())
edges = st.builds(s.Edge, st.just(START), sets, sets, _maybe(ats), _maybe(protocols))
arrows = st.builds(s.PlaceArrow, st.just(START), places, places)

# --- measurements and claims ----------------------------------------------------------------------

comparisons = st.builds(s.Compared, st.just(START), st.sampled_from((">=", "<=", ">", "<")), numbers())
changes = st.builds(s.Change, st.just(START), st.sampled_from(("rises", "falls")), _maybe(comparisons))
relations = st.one_of(
    comparisons,
    st.builds(s.Between, st.just(START), numbers(), numbers()),
    st.just(s.AboveChance(START)),
    changes,
    st.just(s.Agree(START)),
)
claims = _several(
    st.one_of(
        st.builds(s.PlainClaim, st.just(START), st.sampled_from(("matters", "negligible", "lowers", "raises"))),
        st.builds(s.Bound, st.just(START), st.sampled_from(("effect", "delta")), relations),
        st.builds(s.Stronger, st.just(START), edges),
    )
)
argument_edges = st.builds(
    s.Edge,
    st.just(START),
    sets,
    sets,
    _maybe(st.builds(s.At, st.just(START), _several(places, 1, 1))),
    _maybe(protocols),
)
arguments: SearchStrategy[s.Argument] = st.one_of(options, texts, places, arrows, sets, argument_edges)
measurements = st.builds(
    s.Measurement,
    st.just(START),
    st.builds(s.Word, st.just(START), st.one_of(NAMES, st.sampled_from(("role", "attention", "accuracy")))),
    _several(arguments, 0),
)


@st.composite
def expectations(draw: st.DrawFn) -> s.Expect:
    """`expect MEASUREMENT RELATION` or `expect MEASUREMENT : CLAIM`, or neither."""
    relation = draw(_maybe(relations))
    claim = () if relation else draw(st.one_of(st.just(()), claims))
    return s.Expect(START, draw(measurements), relation, claim, draw(_maybe(words)), citation=draw(_maybe(texts)))


# --- statements -----------------------------------------------------------------------------------

models = st.builds(
    s.Model, st.just(START), texts, _several(st.builds(s.Option, st.just(START), words, words | texts), 0)
)
headers: SearchStrategy[s.Statement] = st.one_of(
    st.builds(s.Info, st.just(START), st.sampled_from(("source", "note", "license")), texts),
    st.builds(s.Language, st.just(START), SMALL),
    models,
    st.builds(s.Task, st.just(START), _maybe(words), words, entries),
    st.builds(s.Metric, st.just(START), words, entries),
    st.builds(s.Margin, st.just(START), numbers()),
    st.builds(s.ProtocolLine, st.just(START), protocols),
    st.builds(s.Use, st.just(START), texts),
)
groups = st.builds(
    s.Group,
    st.just(START),
    st.sampled_from(("heads", "mlps", "nodes")),
    words,
    sets,
    _several(ats, 0, 1),
    _several(words | st.just(s.Word(START, "none")), 0, 1),
    st.booleans(),
)
edge_claims = st.builds(
    s.EdgeClaim,
    st.just(START),
    st.booleans(),
    edges,
    st.one_of(st.just(()), claims),
    _maybe(words),
    citation=_maybe(texts),
)
compositions = st.builds(s.Composition, st.just(START), words, _maybe(words), relations)
channels = st.builds(
    s.Channel, st.just(START), st.booleans(), sets, sets, _several(compositions), citation=_maybe(texts)
)
traces = st.builds(
    s.Trace, st.just(START), sets, _several(places), _several(places), sets, _maybe(ats), citation=_maybe(texts)
)
attention_values = st.one_of(numbers(("%",)), words)
verbs: SearchStrategy[s.Statement] = st.one_of(
    st.builds(s.SetAttention, st.just(START), measurements, attention_values),
    st.builds(s.Scale, st.just(START), sets, numbers()),
    st.builds(s.Replace, st.just(START), sets, words),
    st.builds(s.ProjectOut, st.just(START), sets),
)
expected = _several(expectations())


@st.composite
def properties(draw: st.DrawFn) -> s.Property:
    """`property "…" for 99% of prompts`"""
    share = draw(_maybe(numbers()))
    of = s.Word(START, "prompts") if share else None
    return s.Property(START, draw(texts), share, of, block=draw(expected))


conditions: SearchStrategy[s.Statement] = st.one_of(
    st.builds(s.WhenPatched, st.just(START), edges, block=expected),
    st.builds(s.WhenKnockedOut, st.just(START), sets, block=expected),
)
blocks: SearchStrategy[s.Statement] = st.one_of(
    conditions,
    st.builds(s.Role, st.just(START), words, _maybe(texts), block=_several(st.one_of(expectations(), conditions))),
    st.builds(s.Intervention, st.just(START), words, _maybe(texts), block=_several(st.one_of(verbs, expectations()))),
    properties(),
    st.builds(s.Compare, st.just(START), words, words, block=expected),
)
circuits = st.builds(s.Circuit, st.just(START), words, _maybe(texts))
statements: SearchStrategy[s.Statement] = st.one_of(
    circuits, headers, groups, edge_claims, expectations(), channels, traces, blocks
)


def specs(most: int = 12) -> SearchStrategy[s.File]:
    """Whole files of up to `most` statements: `format.dumps` gives their text."""
    return st.builds(s.File, st.just(""), _several(statements, 1, most))
