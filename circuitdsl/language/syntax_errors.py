"""Messages about statements that do not parse: one sentence, and what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from circuitdsl.brief import quoted
from circuitdsl.language.diagnostics import Diagnostic, Fix, Span, did_you_mean, listing, shorten, suggest
from circuitdsl.language.lexer import BLOCK_HEADERS, KEYWORDS, STATEMENTS, Token

NAMES = {
    "STRING": "a \"string\"", "NAME": "a name", "POSITION": "a position such as END", "ARROW": "'->'",
    "RELATION": "'>=', '<=', '>' or '<'", "EQUALS": "'='", "COLON": "':'", "COMMA": "','", "LPAR": "'('", "RPAR": "')'",
    "LSQB": "'['", "RSQB": "']'", "PERCENT": "'%'", "PORT": "'.q', '.k' or '.v'", "STAR": "'*'", "PLUS": "'+'",
    "MINUS": "'-'", "INT": "a number", "MLP": "an MLP such as m9", "DECIMAL": "a head such as 9.9",
    "LAYER": "a layer such as 9.*", "EXPECTED": "'expected to fail'", "WHERE": "'where stratum'",
    "ABLATE": "'ablate mean'",
    "RESID": "a residual stream such as resid3",
}  # fmt: skip
#: what is expected, in words, where these terminals may stand; the first row that fits is taken
KINDS = (
    ("a value", {"NAME", "POSITION", "INT"}), ("a number or a measurement", {"NAME", "ROLE", "INT"}),
    ("a name", {"CIRCUIT", "NAME", "POSITION"}),
    ("a claim such as 'lowers'", {"MATTERS", "LOWERS"}), ("a node or a group", {"NAME", "DECIMAL", "MLP"}),
    ("a name", {"NAME", "POSITION", "MLP"}), ("a position such as END", {"POSITION", "STAR"}),
)  # fmt: skip
OPERAND = frozenset({"NAME", "DECIMAL", "LAYER", "MLP", "RESID", "LPAR"})
#: what may follow any operand; it is seldom what the author left out
SELDOM = frozenset({"PLUS", "MINUS", "LSQB", "PORT", "COMMA", "LPAR"})
DEFINITIONS = frozenset({"CIRCUIT", "TASK", "HEADS", "MLPS", "NODES", "ROLE", "INTERVENTION", "METRIC"})
CLAIM_WORDS = frozenset({"MATTERS", "NEGLIGIBLE", "LOWERS", "RAISES", "EFFECT", "DELTA", "STRONGER"})


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
_RESID = re.compile(r"(?:[Rr]esid(?:ual)?_?(?:pre_?)?|RESID_?)(\d{1,3})")


def as_node(word: str) -> str | None:
    """A head, an MLP or a residual stream as other tools write it: `L9H6`, `a9.h6`, `mlp9`, `resid_pre3`.

    >>> as_node("L9H6"), as_node("mlp_9"), as_node("resid_pre3"), as_node("mover")
    ('9.6', 'm9', 'resid3', None)
    """
    if head := _HEAD.fullmatch(word):
        return f"{int(head[1])}.{int(head[2])}"
    mlp = _MLP.fullmatch(word)
    resid = _RESID.fullmatch(word)
    return f"m{int(mlp[1])}" if mlp else f"resid{int(resid[1])}" if resid else None


@dataclass(frozen=True, slots=True)
class Stop:
    """Where the parse of a statement stopped.

    Attributes:
        found: the token at which it stopped; `$END` where the line ends too early.
        place: which of the statement's tokens that is.
        start: the statement's first token.
        expected: the terminals that may stand there.
        kind: the terminal that was found.
        before: the terminal before it; empty at the start.
    """

    found: Token
    place: int
    tokens: list[Token]
    start: Token
    expected: frozenset[str]
    kind: str
    before: str


@dataclass(frozen=True, slots=True)
class Said:
    """A message.

    Attributes:
        where: the part that is wrong, if that is not the token found.
        meant: what was probably meant, which the message then asks.
        fix: the text that fits in the place of the part, where that is not `meant`; empty where none does.
    """

    message: str
    help: str | None = None
    where: Span | None = None
    code: str = "E020"
    meant: str | None = None
    fix: str | None = None


def explain(tokens: list[Token], place: int, expected: frozenset[str]) -> Diagnostic:
    """The diagnostic for a statement that stopped making sense at one of its tokens, or at its end.

    Args:
        place: the number of that token.
        expected: the terminals that may stand there.
    """
    last = tokens[-1].span
    after = Span(last.end_line, last.end_column, last.end_line, last.end_column + 1)
    found = tokens[place] if place < len(tokens) else Token("$END", "", tokens[-1].end_pos, tokens[-1].end_pos, after)
    at = Stop(found, place, tokens, tokens[0], expected, found.type, tokens[place - 1].type if place else "")
    said = next((said for rule in RULES for said in rule(at)), None) or Said(_plainly(at))
    where = said.where or found.span
    text = said.meant if said.fix is None else said.fix
    fixes = (Fix(where, text),) if text else ()
    return Diagnostic(said.code, "error", said.message + did_you_mean(said.meant), where, (), said.help, fixes)


def _plainly(at: Stop) -> str:
    """What was found and what was expected: the message where no rule has a better one."""
    wanted = _wanted(at.expected)
    if at.kind == "$END":
        return f"the line ends where {wanted} is expected" if wanted else "the line ends too early"
    if at.kind == "ODD" or not wanted:
        return f"{_quoted(at.found)} is not expected here"
    return f"expected {wanted}, found {_quoted(at.found)}"


def _conditions(at: Stop) -> Iterator[Said]:
    """`when mover is patched`, `when mover knocked out`"""
    if at.start.type != "WHEN":
        return
    if at.kind in ("PATCHED", "KNOCKED") and "IS" in at.expected:
        yield Said(f"'is' is missing before '{at.found}'")
    edge = any(token.type == "ARROW" for token in at.tokens[: at.place])
    if at.kind == ("KNOCKED" if edge else "PATCHED"):
        help = "write: when mover is knocked out, or: when inhibition -> mover.q is patched"
        yield Said("an edge is patched, and nodes are knocked out", help)


def _not_a_statement(at: Stop) -> Iterator[Said]:
    """`head mover = 9.9`, `mover = 9.9`, `via mlps`."""
    start, here = at.start, at.start.span
    name = shorten(start)
    if start.type == "NAME" and str(start) in MEANT and at.place < 3 and len(at.tokens) > 1:
        meant = MEANT[str(start)]
        fix = "" if "…" in meant else None
        yield Said(f"no statement begins with '{start}'", None, here, "E029", meant, fix)
    if at.place < 2 and len(at.tokens) > 1 and at.tokens[1].type == "ARROW" and (node := as_node(start)):
        yield Said(f"'{name}' is no node here", None, here, meant=node)
    if at.place == 0 and at.kind != "$END":
        guess = suggest(str(start), STATEMENTS) if start.type in ("NAME", "POSITION") else None
        yield Said(f"no statement begins with {_quoted(start)}", code="E029", meant=guess)
    if start.type != "NAME":
        return
    guess = suggest(str(start), STATEMENTS)
    unknown = f"no statement begins with '{name}'"
    if at.place > 1 and at.tokens[1].type == "LPAR" and at.tokens[1].start_pos == start.end_pos:
        said, meant = f"no statement begins with '{start}('", f"expect {start}(…)"
        yield Said(said, None, here, "E029", meant, f"expect {start}")
    if at.place > 1 and at.tokens[1].type in ("NAME", "MLP", "STRING") and (guess or at.kind == "EQUALS"):
        yield Said(unknown, None, here, "E029", guess)
    if at.place != 1:
        return
    if at.kind == "EQUALS":
        help = f"a group is defined by: heads {start} = …, mlps {start} = … or nodes {start} = …"
        yield Said(f"'{name} = …' defines nothing", help, here)
    if at.kind in ("RELATION", "COLON", "MINUS"):
        measured = f"what is measured stands after 'expect': expect {name} …" if at.kind == "RELATION" else None
        yield Said(f"expected '->' after '{name}', found {_quoted(at.found)}", measured)
    if at.kind == "AND":
        yield Said("nodes are listed in brackets, or added", f"write: ({start} …), or {start} + …", code="E030")
    if guess is None and at.kind in ("$END", "ARROW"):
        return
    known = None if guess else "an edge is written: sender -> receiver.q at END"
    yield Said(unknown, known, here, "E029", guess)


def _habits(at: Stop) -> Iterator[Said]:
    """Notations of other tools, and common slips."""
    word, expected = at.found, at.expected
    if "DECIMAL" in expected and (node := as_node(word)):
        yield Said(f"'{shorten(word)}' is no node here", meant=node)
    if "DECIMAL" in expected and word == "[":
        yield Said("a list of nodes stands without brackets, or in ( )", "write: 9.6 9.9, or (9.6 9.9)")
    if word == "*" and {"DECIMAL", "NAME"} <= expected:
        yield Said("'*' is no node here", "every head of a layer is 9.*, every node is all")
    if "EXPECTED" in expected and word in ("expected", "expect", "xfail", "fails", "should", "known"):
        yield Said('a known gap is written: expected to fail "why"')
    if "ABLATE" in expected and word in ("ablate", "mean", "ablated"):
        yield Said("what stands in for the sender's term is written: ablate mean", "or: ablate corrupt")
    if "WHERE" in expected and word in ("where", "stratum", "strata", "for", "in", "when"):
        yield Said('some strata are named by: where stratum "ABBA*"', "a star stands for any text")
    if at.before == "STRATUM" and at.kind != "STRING":
        yield Said("the name of a stratum is a string", 'write: where stratum "ABBA*"')
    if at.before == "FAIL" and at.kind != "STRING":
        yield Said("after 'expected to fail' stands why", 'write: expected to fail "the backups take over"')
    if word == "=" and "RELATION" in expected:
        help = "for a value that is nearly met write an interval: in [38%, 42%]"
        yield Said("a relation is one of >=, <=, > and <", help)
    if ("IN" in expected and word in ("between", "from", "within")) or (word == "(" and "LSQB" in expected):
        yield Said("an interval is written in [low, high]")
    if word in (",", "or", "but") and {"AND", "ON"} <= expected:
        yield Said("claims are joined by 'and': all of them must hold")
    if word == "logits" and "PERCENT" in expected:
        yield Said("logits are plain numbers: leave 'logits' out")
    if word == ":" and at.before == "STRING" and at.start.type != "CHANNEL":
        where = at.tokens[at.place - 1].span
        yield Said("the citation stands at the end of the line, after the claim", None, where)
    if word == ":" and at.place == len(at.tokens) - 1 and str(at.start) in BLOCK_HEADERS:
        yield Said("the first line of a block ends without ':'", "its lines are indented below it")
    if at.kind == "INT" and "DECIMAL" in expected and "INT" not in expected:
        yield Said(f"'{word}' is no node: a head is written {word}.0, an MLP m{word}")


def _keyword_as_name(at: Stop) -> Iterator[Said]:
    """`source -> mover.q`, `expect knockout(edges)`: the word is reserved."""
    if at.place == 1 and at.kind == "ARROW" and str(at.start) in KEYWORDS:
        yield Said(f"'{at.start}' is a keyword and cannot stand for a group", None, at.start.span, "E021")
    if at.found in KEYWORDS and "NAME" in at.expected and at.kind not in ("AT", "ON", "VIA", "DIRECT"):
        inside = at.place < 2 or at.before in ("ARROW", "LPAR", "COMMA")
        if inside or at.found not in STATEMENTS:
            yield Said(f"'{at.found}' is a keyword and cannot stand for a group", code="E021")


def _brackets_or_quotes(at: Stop) -> Iterator[Said]:
    """`expect knockout mover`, `task ioi corrupt = abc`, `model gpt2`, `circuit my-circuit`"""
    start, tokens, word = at.start.type, at.tokens, at.found
    if start == "EXPECT" and at.place == 2 and at.kind in OPERAND | {"POSITION"}:
        yield Said(
            f"what is measured stands before brackets, and its nodes in them: {shorten(f'{tokens[1]}({word} …)')}"
        )
    if start in ("TASK", "METRIC") and at.place == 2 and at.kind in ("NAME", "COMMA"):
        yield Said(f"options stand in brackets: {shorten(tokens[1])}(…)")
    if start == "TASK" and at.kind == "STRING" and at.place in (1, 3):
        yield Said(
            "a prompt file is a task made by 'file'", f"write: task {'mine = ' * (at.place > 1)}file({quoted(word)})"
        )
    if at.expected == {"STRING"} and at.kind in ("NAME", "POSITION", "DECIMAL"):
        yield Said(f'expected a "string", found {_quoted(at.found)}', f'put it into quotes: "{shorten(word)}"')
    if start in DEFINITIONS and at.place == 2 and at.kind == "MINUS" and len(tokens) > 3:
        name = f"{tokens[1]}_{tokens[3]}"
        where = tokens[1].span.to(tokens[3].span)
        yield Said("a name is written in small letters, digits and '_'", None, where, "E022", shorten(name), name)
    if at.kind == "POSITION" and "NAME" in at.expected and "COMMA" in at.expected:
        yield Said(f"a comma is missing before {word}", "write: attention(mover, END -> IO)")


def _path(at: Stop) -> Iterator[Said]:
    """`path a -> b.q at END via mlps -> logits`"""
    if at.start.type == "PATH" and at.kind in ("VIA", "DIRECT"):
        help = "name the MLPs that it goes through: path 8.6 -> m8 at END -> 9.9.q at END -> logits"
        yield Said("a path goes through the nodes that it names, and through nothing else", help)


def _mixed_set(at: Stop) -> Iterator[Said]:
    """`mover + 9.6 9.9`: which of the two is meant?"""
    after_operand = at.before in OPERAND | {"RPAR", "RSQB"}
    mixed = "a list and a sum are mixed without brackets"
    if after_operand and at.kind in OPERAND | {"COMMA"} and "PLUS" in at.expected:
        if any(t.type in ("PLUS", "MINUS") for t in at.tokens[: at.place]):
            yield Said(mixed, "put the list into brackets: mover + (9.6 9.9)", code="E030")
        return
    if after_operand and at.kind in ("PLUS", "MINUS") and at.place > 1 and "DECIMAL" in at.expected:
        yield Said(mixed, "put the list into brackets: (9.6 9.9) + mover", code="E030")


def _claim(at: Stop) -> Iterator[Said]:
    """`heads mover = 9.9 END`, `a -> b.q : <= -20%`, `a -> b.q at END lowers`, `: decreases`, `: lower`"""
    if at.kind == "POSITION" and "AT" in at.expected:
        yield Said(f"a position is given with 'at': at {at.found}")
    if at.kind == "RELATION" and "EFFECT" in at.expected:
        yield Said("the claim does not say what is bounded", "write: effect <= -20%, or: delta <= -0.5")
    if at.kind == "RELATION" and "COLON" in at.expected and at.start.type != "CHANNEL":
        yield Said("a claim stands after a colon", "write: … : effect <= -20%")
    if at.kind in CLAIM_WORDS and "COLON" in at.expected:
        yield Said(f"a claim stands after a colon: ': {at.found}'")
    if "LOWERS" in at.expected and at.found in CLAIMS:
        yield Said(f"'{at.found}' is no claim", meant=CLAIMS[at.found])
    if "LOWERS" in at.expected and at.found == "composition":
        yield Said("a composition is claimed of a channel", "begin the line with 'channel', and leave 'at' out")
    if at.before in ("LOWERS", "RAISES") and at.found == "by":
        bound = "effect <= -20%" if at.before == "LOWERS" else "effect >= 20%"
        yield Said("'lowers' and 'raises' take no size", f"write a bound on the effect: {bound}")
    # a word that is nearly one of those that may stand here
    near = suggest(at.found, (t.lower() for t in at.expected if t.lower() in KEYWORDS))
    if near and at.kind in ("NAME", "POSITION"):
        yield Said(f"'{shorten(at.found)}' is not expected here", meant=near)


#: each gives messages for one kind of mistake; the first message of all is used
RULES = (_conditions, _not_a_statement, _habits, _keyword_as_name, _brackets_or_quotes, _path, _mixed_set, _claim)


def _quoted(token: Token) -> str:
    return f"'{shorten(token)}'"


def _wanted(expected: Iterable[str]) -> str:
    """What may stand here, in words; nothing when that would be a long list."""
    expected = set(expected)
    if {"INT", "DECIMAL", "SCIENTIFIC"} <= expected:
        expected -= {"DECIMAL", "SCIENTIFIC", "PLUS", "MINUS"}
    if kind := next((kind for kind, terminals in KINDS if terminals <= expected), None):
        return kind
    main = sorted(expected - SELDOM or expected, key=lambda terminal: (terminal.lower() in KEYWORDS, terminal))
    words = [NAMES.get(terminal, f"'{terminal.lower()}'") for terminal in main]
    if len(words) > 5:
        return ""
    return listing(words[:-1]) + " or " + words[-1] if len(words) > 1 else "".join(words)
