"""What to say when a statement does not parse: one sentence, and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

from lark import Token, UnexpectedToken

from .diagnostics import Diagnostic, Span, did_you_mean, listing, shorten, suggest
from .lexer import KEYWORDS, STATEMENTS, span_of

NAMES = {
    "STRING": "a \"string\"", "NAME": "a name", "POSITION": "a position such as END", "ARROW": "'->'",
    "RELATION": "'>=', '<=', '>' or '<'", "EQUALS": "'='", "COLON": "':'", "COMMA": "','", "LPAR": "'('", "RPAR": "')'",
    "LSQB": "'['", "RSQB": "']'", "PERCENT": "'%'", "PORT": "'.q', '.k' or '.v'", "STAR": "'*'", "PLUS": "'+'",
    "MINUS": "'-'", "INT": "a number", "MLP": "an MLP such as m9", "DECIMAL": "a head such as 9.9",
}  # fmt: skip
OPERAND = frozenset({"NAME", "DECIMAL", "MLP", "LPAR"})
#: what follows an operand anywhere, and is seldom what was left out
SELDOM = frozenset({"PLUS", "MINUS", "LSQB", "PORT", "COMMA", "LPAR"})
DEFINITIONS = frozenset({"CIRCUIT", "TASK", "HEADS", "MLPS", "NODES", "ROLE", "INTERVENTION", "METRIC"})


def explain(error: UnexpectedToken, tokens: list[Token]) -> Diagnostic:
    """The diagnostic for a statement that stopped making sense at `error.token`."""
    found = error.token
    ended = found.type == "$END"
    place = len(tokens) if ended else next(i for i, t in enumerate(tokens) if t is found)
    span = _after(tokens[-1]) if ended else span_of(found)
    expected = _expected(error)
    for rule in RULES:
        said = rule(found, place, tokens, expected)
        if said is not None:
            code, message, where, help = said
            return Diagnostic(code, "error", message, where or span, (), help)
    wanted = _wanted(expected)
    if ended:
        early = f"the line ends where {wanted} is expected" if wanted else "the line ends too early"
        return Diagnostic("E020", "error", early, span)
    if found.type == "ODD" or not wanted:
        return Diagnostic("E020", "error", f"{_quoted(found)} is not expected here", span)
    return Diagnostic("E020", "error", f"expected {wanted}, found {_quoted(found)}", span)


#: by state of the parser: working out what it accepts takes a while, and broken lines resemble each other
_EXPECTED: dict[tuple[int, ...], frozenset[str]] = {}


def _expected(error: UnexpectedToken) -> frozenset[str]:
    """The terminals that may stand where the parse stopped."""
    parser = error.interactive_parser
    state = tuple(parser.parser_state.state_stack) if parser is not None else ()
    if len(state) > 30:
        return frozenset(error.expected)
    if state not in _EXPECTED:
        _EXPECTED[state] = frozenset(error.accepts or error.expected) - {"$END"}
    return _EXPECTED[state]


Said = tuple[str, str, Span | None, str | None] | None


def _not_a_statement(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`head mover = 9.9`, `mover = 9.9`, `via mlps`."""
    start = tokens[0]
    if place == 0 and found.type != "$END":
        guess = suggest(str(start), STATEMENTS) if start.type in ("NAME", "POSITION") else None
        return "E029", f"no statement begins with {_quoted(start)}{did_you_mean(guess)}", None, None
    if start.type != "NAME":
        return None
    if place > 1 and tokens[1].type in ("NAME", "MLP", "STRING"):
        guess = suggest(str(start), STATEMENTS)
        if guess or found.type == "EQUALS":
            message = f"no statement begins with '{shorten(start)}'{did_you_mean(guess)}"
            return "E029", message, span_of(start), None
    if place != 1:
        return None
    if found.type == "EQUALS":
        help = f"a group is defined by: heads {start} = …, mlps {start} = … or nodes {start} = …"
        return "E020", f"'{shorten(start)} = …' defines nothing", span_of(start), help
    if found.type in ("RELATION", "COLON", "MINUS"):
        return "E020", f"expected '->' after '{shorten(start)}', found {_quoted(found)}", None, None
    guess = suggest(str(start), STATEMENTS)
    if guess is None and found.type in ("$END", "ARROW"):
        return None
    known = None if guess else "an edge is written: sender -> receiver.q at END"
    return "E029", f"no statement begins with '{shorten(start)}'{did_you_mean(guess)}", span_of(start), known


def _keyword_as_name(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`source -> mover.q`, `expect knockout(edges)`: the word is reserved."""
    start = tokens[0]
    if place == 1 and found.type == "ARROW" and str(start) in KEYWORDS:
        return "E021", f"'{start}' is a keyword and cannot stand for a group", span_of(start), None
    if str(found) in KEYWORDS and "NAME" in expected and found.type not in ("AT", "ON", "VIA", "DIRECT"):
        if str(found) in STATEMENTS and place > 1 and tokens[place - 1].type not in ("ARROW", "LPAR", "COMMA"):
            return None
        return "E021", f"'{found}' is a keyword and cannot stand for a group", None, None
    return None


def _number_as_node(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`heads mover = 9`, `9 -> logits`."""
    if found.type == "INT" and "DECIMAL" in expected and "INT" not in expected:
        return "E020", f"'{found}' is no node: a head is written {found}.0, an MLP m{found}", None, None
    return None


def _mixed_set(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`mover + 9.6 9.9`: which of the two is meant?"""
    if (
        found.type in OPERAND | {"COMMA"}
        and tokens[place - 1].type in OPERAND | {"RPAR", "RSQB"}
        and "PLUS" in expected
    ):
        if any(t.type in ("PLUS", "MINUS") for t in tokens[:place]):
            help = "put the list into brackets: mover + (9.6 9.9)"
            return "E030", "a list and a sum are mixed without brackets", None, help
        if found.type == "LPAR":
            return None
    if found.type in ("PLUS", "MINUS") and tokens[place - 1].type in OPERAND | {"RPAR", "RSQB"} and place > 1:
        help = "put the list into brackets: (9.6 9.9) + mover"
        return "E030", "a list and a sum are mixed without brackets", None, help
    return None


def _position_without_at(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`heads mover = 9.9 END`"""
    if found.type == "POSITION" and "AT" in expected:
        return "E020", f"a position is given with 'at': at {found}", None, None
    return None


def _bound_of_nothing(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`a -> b.q : <= -20%`, `a -> b.q at END <= -20%`"""
    if found.type == "RELATION" and "EFFECT" in expected:
        return "E020", "the claim does not say what is bounded", None, "write: effect <= -20%, or: delta <= -0.5"
    if found.type == "RELATION" and "COLON" in expected:
        return "E020", "a claim stands after a colon", None, "write: … : effect <= -20%"
    return None


def _claim_without_colon(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`a -> b.q at END lowers`"""
    if "COLON" in expected and found.type in (
        "MATTERS",
        "NEGLIGIBLE",
        "LOWERS",
        "RAISES",
        "EFFECT",
        "DELTA",
        "STRONGER",
    ):
        return "E020", f"a claim stands after a colon: ': {found}'", None, None
    return None


def _misspelt_keyword(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`: lower`, `att END`: a word that is nearly one of those that may stand here."""
    if found.type in ("NAME", "POSITION"):
        guess = suggest(str(found), (t.lower() for t in expected if t.lower() in KEYWORDS))
        if guess:
            return "E020", f"'{shorten(found)}' is not expected here; did you mean '{guess}'?", None, None
    return None


RULES = (
    _not_a_statement, _keyword_as_name, _number_as_node, _mixed_set, _position_without_at, _bound_of_nothing,
    _claim_without_colon, _misspelt_keyword,
)  # fmt: skip


def _after(token: Token) -> Span:
    span = span_of(token)
    return Span(span.end_line, span.end_column, span.end_line, span.end_column + 1)


def _quoted(token: Token) -> str:
    return f"'{shorten(token)}'"


def _wanted(expected: Iterable[str]) -> str:
    """What may stand here, in words; nothing when that would be a long list."""
    expected = set(expected)
    if {"INT", "DECIMAL", "SCIENTIFIC"} <= expected:
        expected -= {"DECIMAL", "SCIENTIFIC", "PLUS", "MINUS"}
    if {"NAME", "POSITION", "INT"} <= expected:
        return "a value"
    if {"MATTERS", "LOWERS"} <= expected:
        return "a claim such as 'lowers'"
    if {"NAME", "DECIMAL", "MLP"} <= expected:
        return "a node or a group"
    if {"NAME", "POSITION", "MLP"} <= expected:
        return "a name"
    if {"POSITION", "STAR"} <= expected:
        return "a position such as END"
    main = expected - SELDOM or expected
    words = [NAMES.get(t, f"'{t.lower()}'") for t in sorted(main, key=_rank)]
    if len(words) > 5:
        return ""
    return listing(words[:-1]) + " or " + words[-1] if len(words) > 1 else "".join(words)


def _rank(terminal: str) -> tuple[bool, str]:
    return terminal.lower() in KEYWORDS, terminal
