"""Hypothesis strategies for users' own tests: prompts of a task, whole specs, small models.

    from hypothesis import given
    from circuitdsl.testing.strategies import prompt_pairs

    @given(prompt_pairs("ioi", tokenizer))
    def test_pairs_align(pair):
        assert len(pair.clean_tokens) == len(pair.corrupt_tokens)

Prompts shrink to the simplest their task can make: the first template, the first names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from circuitdsl.errors import UsageError
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import START
from circuitdsl.language.lexer import KEYWORDS, TERMS, UNSEEN, word_kind
from circuitdsl.tasks.dataset import PromptPair, encode
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.task import Draft, Options, Task
from circuitdsl.tasks.tokens import Tokens

if TYPE_CHECKING:
    from circuitdsl.models.parts import Transformer

__all__ = ["drafts", "prompt_pairs", "small_models", "specs"]
T = TypeVar("T")


def drafts(
    task: Task, tokens: Tokens, corrupt: str | None = None, options: Options | None = None
) -> SearchStrategy[Draft]:
    """Every prompt pair that a task can make with a tokenizer's words, as text."""
    corruption, given = task.corruption(corrupt), task.settings(options or {})
    words = tokens.words(task)
    randoms = st.randoms(use_true_random=False, note_method_calls=False)
    return randoms.map(lambda rng: task.draw(rng, words, corruption, given))


def prompt_pairs(
    task: str, tokenizer: Any, corrupt: str | None = None, bos: bool | None = None, **options: str | int
) -> SearchStrategy[PromptPair]:
    """Every aligned prompt pair of a registered task, as token ids.

    Args:
        task: its name, such as `ioi`.
        tokenizer: a Hugging Face fast tokenizer.
        corrupt: a corruption of the task; its first by default.
        bos: whether prompts begin with the beginning-of-sequence token; by default as the tokenizer has it.
        options: the task's own options.

    Raises:
        UsageError: an unknown task, corruption or option.
        TaskError: the tokenizer leaves a word list too short.
    """
    if task not in TASKS:
        raise UsageError(f"there is no task {task}", hint=f"tasks: {', '.join(TASKS)}")
    chosen, tokens = TASKS[task], Tokens(tokenizer, bos=bos)
    return drafts(chosen, tokens, corrupt, options).map(lambda draft: encode(chosen, tokens, [draft])[0])


# --- small models ---------------------------------------------------------------------------------

HEAD_WIDTH = 8
FAMILIES = ("gpt2", "gpt_neox", "llama")


def small_models(
    layers: int = 3, heads: int = 4, vocabulary: int = 40, families: tuple[str, ...] = FAMILIES
) -> SearchStrategy[Transformer]:
    """Random models of up to so many layers and heads a layer, without a tokenizer, loaded as a user's are.

    Loading takes a tenth of a second or more: give tests that draw them `@settings(deadline=None, max_examples=…)`.
    """
    sizes = st.tuples(st.sampled_from(families), st.integers(1, layers), st.integers(1, heads), st.integers(0, 2**16))
    return sizes.map(lambda drawn: _random_model(*drawn, vocabulary))


def _random_model(family: str, layers: int, heads: int, seed: int, vocabulary: int) -> Transformer:
    """A model whose weights are large enough for attention and MLPs to be far from linear."""
    import tempfile

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from circuitdsl.models.load import load_model

    width = heads * HEAD_WIDTH
    sizes = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": width}
    sizes |= {"max_position_embeddings": 64} | ({} if family == "gpt2" else {"intermediate_size": 2 * width})
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=vocabulary, **special, **sizes))
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=drawn)
            weight.copy_(weight + 0.2 * noise if weight.ndim == 1 else 0.4 * noise)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        return load_model(directory, device="cpu")


# --- specs: every construct of the language, as syntax without places -------------------------------


def _maybe(drawn: SearchStrategy[T]) -> SearchStrategy[T | None]:
    return st.none() | drawn


def _node(kind: Callable[..., T], *parts: SearchStrategy[Any], **named: SearchStrategy[Any]) -> SearchStrategy[T]:
    """A piece of syntax with drawn parts, which stands nowhere in particular."""
    return st.builds(kind, st.just(START), *parts, **named)


def _several(drawn: SearchStrategy[T], least: int = 1, most: int = 3) -> SearchStrategy[tuple[T, ...]]:
    return st.lists(drawn, min_size=least, max_size=most).map(tuple)


# --- words, numbers, options ----------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True).filter(
    lambda name: name not in KEYWORDS and word_kind(name) == "NAME"
)
POSITIONS = st.sampled_from(("END", "IO", "S1", "S2", "ANSWER", "QUERY_2", "X"))
SMALL = st.integers(0, 40)

words = _node(s.Word, NAMES)
writable = st.text(st.characters(exclude_characters='"', exclude_categories=["Cs"]), max_size=20)
texts = _node(s.Text, writable.filter(lambda text: not UNSEEN.search(text)))
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
options = _node(s.Option, words, values)
entries = _several(st.one_of(options, values), 0)

# --- nodes, sets, positions -----------------------------------------------------------------------

nodes = st.one_of(
    _node(s.Head, SMALL, SMALL, _maybe(SMALL | NAMES)),
    _node(s.Layer, SMALL),
    _node(s.Mlp, SMALL, _maybe(SMALL | NAMES)),
    _node(s.Resid, SMALL, _maybe(SMALL | NAMES)),
    _node(s.Special, st.just("embed"), _maybe(SMALL | NAMES)),
    _node(s.Feature, NAMES, _node(s.Word, st.one_of(st.just("error"), SMALL.map(str)))),
    _node(s.Special, st.sampled_from(("embed", "logits", "self"))),
    _node(s.GroupRef, NAMES),
)
ports = _node(s.Word, st.sampled_from(("q", "k", "v")))


@st.composite
def sums(draw: st.DrawFn, operands: SearchStrategy[s.Set]) -> s.Sum:
    """`a + b - c`"""
    drawn = draw(_several(operands, 2))
    signs = draw(st.lists(st.sampled_from("+-"), min_size=len(drawn) - 1, max_size=len(drawn) - 1))
    return s.Sum(START, ("+", *signs), drawn)


def _larger(inner: SearchStrategy[s.Set]) -> SearchStrategy[s.Set]:
    lists = _node(s.Items, _several(inner, 2, 4))
    return _node(s.Brackets, st.one_of(inner, lists, sums(inner)))


inner_sets: SearchStrategy[s.Set] = st.recursive(nodes, _larger, max_leaves=6)
operands: SearchStrategy[s.Set] = st.one_of(inner_sets, _node(s.WithPort, inner_sets, ports))
sets: SearchStrategy[s.Set] = st.one_of(operands, _node(s.Items, _several(operands, 2, 9)), sums(operands))

places = st.one_of(_node(s.Place, POSITIONS, st.integers(-12, 12)), st.just(s.Place(START, "*")))
ats = _node(s.At, _several(places))
terms = st.sampled_from(TERMS)
protocols = st.one_of(_node(s.Protocol, st.booleans(), _maybe(terms)), _node(s.Protocol, st.none(), terms))
edges = _node(s.Edge, sets, sets, _maybe(ats), _maybe(protocols))
paths = _node(s.Path, sets, _several(_node(s.Hop, sets, _maybe(ats))))
arrows = _node(s.PlaceArrow, places, places)

# --- measurements and claims ----------------------------------------------------------------------

signs = st.sampled_from((">=", "<=", ">", "<"))
comparisons = _node(s.Compared, signs, numbers())
changes = _node(s.Change, st.sampled_from(("rises", "falls")), _maybe(comparisons))
relations = st.one_of(
    comparisons, _node(s.Between, numbers(), numbers()), st.just(s.AboveChance(START)), changes, st.just(s.Agree(START))
)
argument_edges = _node(s.Edge, sets, sets, _maybe(_node(s.At, _several(places, 1, 1))), _maybe(protocols))
nodes_at = _node(s.NodesAt, sets, _node(s.At, _several(places, 1, 1)))
arguments: SearchStrategy[s.Argument] = st.one_of(options, texts, places, arrows, sets, nodes_at, argument_edges)
knockouts = _node(s.Measurement, st.just(s.Word(START, "knockout")), _several(arguments))
claims = _several(
    st.one_of(
        _node(s.PlainClaim, st.sampled_from(("matters", "negligible", "lowers", "raises"))),
        _node(s.Bound, st.sampled_from(("effect", "delta")), relations),
        _node(s.Stronger, edges | paths | knockouts, _maybe(numbers())),
    )
)
gaps = _maybe(_node(s.KnownGap, texts))
of_weights = {"citation": _maybe(texts), "gap": gaps}
tails = {"where": _maybe(_node(s.Where, _several(texts))), **of_weights}
measurements = _node(
    s.Measurement,
    _node(s.Word, st.one_of(NAMES, st.sampled_from(("role", "attention", "accuracy")))),
    _several(arguments, 0),
)
againsts = st.one_of(
    _node(s.Against, signs, measurements), _node(s.Against, signs, measurements, numbers(), st.booleans())
)
maybe_claims = st.one_of(st.just(()), claims)
#: `expect MEASUREMENT RELATION` or `expect MEASUREMENT : CLAIM`, or neither
expectations = st.one_of(
    _node(s.Expect, measurements, relations | againsts, st.just(()), _maybe(words), **tails),
    _node(s.Expect, measurements, st.none(), maybe_claims, _maybe(words), **tails),
)
expected = _several(expectations)
#: what a role or a property asks for, which is no claim
checks = st.one_of(
    _node(s.Expect, measurements, relations | againsts, st.just(()), _maybe(words), citation=_maybe(texts)),
    _node(s.Expect, measurements, st.none(), maybe_claims, _maybe(words), citation=_maybe(texts)),
)
asked = _several(checks)

# --- statements -----------------------------------------------------------------------------------

headers: SearchStrategy[s.Statement] = st.one_of(
    _node(s.Info, st.sampled_from(("source", "note", "license")), texts),
    _node(s.Language, SMALL),
    _node(s.Model, texts, _several(_node(s.Option, words, words | texts), 0)),
    _node(s.Task, _maybe(words), words, entries),
    _node(s.Metric, words, entries),
    _node(s.Margin, numbers()),
    _node(s.Direction, words, st.just(s.Word(START, "file")), _several(st.one_of(options, texts))),
    _node(s.ProtocolLine, protocols),
    _node(s.Use, texts),
    _node(s.Dictionary, words, words, entries),
)
groups = _node(
    s.Group,
    st.sampled_from(("heads", "mlps", "nodes", "features")),
    words,
    sets,
    _several(ats, 0, 1),
    _several(words | st.just(s.Word(START, "none")), 0, 1),
    st.booleans(),
)
path_claims = _node(s.PathClaim, st.booleans(), paths, maybe_claims, _maybe(words), **tails)
edge_claims = _node(s.EdgeClaim, st.booleans(), edges, maybe_claims, _maybe(words), **tails)
aparts = _node(s.Apart, words, numbers().filter(lambda number: number.text[0] not in "+-"))
compositions = _node(s.Composition, words, _maybe(words), relations)
channels = _node(s.Channel, st.booleans(), sets, sets, _maybe(aparts), _several(compositions), **of_weights)
traces = _node(s.Trace, sets, _several(places), _several(places), sets, _maybe(ats), **tails)
verbs: SearchStrategy[s.Statement] = st.one_of(
    _node(s.SetAttention, measurements, st.one_of(numbers(("%",)), words)),
    _node(s.Scale, sets, numbers()),
    _node(s.Replace, sets, words),
    _node(s.ProjectOut, sets),
)
#: `property "…" for 99% of prompts`, or of every one
properties = st.one_of(
    _node(s.Property, texts, numbers(), st.just(s.Word(START, "prompts")), gap=gaps, block=asked),
    _node(s.Property, texts, st.none(), st.none(), gap=gaps, block=asked),
)
conditions: SearchStrategy[s.Statement] = st.one_of(
    _node(s.WhenPatched, edges, block=expected),
    _node(s.WhenKnockedOut, sets, _maybe(ats), block=expected),
    _node(
        s.WhenBoth,
        _several(st.one_of(_node(s.WhenPatched, edges), _node(s.WhenKnockedOut, sets)), 2, 2),
        block=expected,
    ),
)
blocks: SearchStrategy[s.Statement] = st.one_of(
    conditions,
    _node(s.Role, words, _maybe(texts), block=_several(st.one_of(checks, _node(s.WhenPatched, edges, block=asked)))),
    _node(s.Intervention, words, _maybe(texts), block=_several(st.one_of(verbs, expectations))),
    properties,
    _node(s.Compare, words, words, block=expected),
)
statements: SearchStrategy[s.Statement] = st.one_of(
    *(
        _node(s.Circuit, words, _maybe(texts)),
        headers,
        groups,
        edge_claims,
        path_claims,
        expectations,
        channels,
        traces,
        blocks,
    )
)


def specs(most: int = 12) -> SearchStrategy[s.File]:
    """Whole files of up to `most` statements: `format.dumps` gives their text.

    A drawn spec is grammatical; whether its groups, heads and positions exist is left to chance.
    """
    return st.builds(s.File, st.just(""), _several(statements, 1, most))
