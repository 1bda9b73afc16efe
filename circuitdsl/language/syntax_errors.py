"""What to say when a statement does not parse: one sentence, and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

from lark import Token, UnexpectedToken

from circuitdsl.language.diagnostics import Diagnostic, Span, did_you_mean, listing, shorten, suggest
from circuitdsl.language.lexer import BLOCK_HEADERS, KEYWORDS, STATEMENTS, span_of
from circuitdsl.language.wording import CLAIMS, MEANT, as_node

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
    if start.type == "NAME" and str(start) in MEANT and place < 3 and len(tokens) > 1:
        return "E029", f"no statement begins with '{start}'; did you mean '{MEANT[str(start)]}'?", span_of(start), None
    if place == 0 and found.type != "$END":
        guess = suggest(str(start), STATEMENTS) if start.type in ("NAME", "POSITION") else None
        return "E029", f"no statement begins with {_quoted(start)}{did_you_mean(guess)}", None, None
    if start.type != "NAME":
        return None
    if place > 1 and tokens[1].type == "LPAR" and tokens[1].start_pos == start.end_pos:
        return "E029", f"no statement begins with '{start}('; did you mean 'expect {start}(…)'?", span_of(start), None
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
        measured = f"what is measured stands after 'expect': expect {shorten(start)} …"
        said = f"expected '->' after '{shorten(start)}', found {_quoted(found)}"
        return "E020", said, None, measured if found.type == "RELATION" else None
    if found.type == "AND":
        return "E030", "nodes are listed in brackets, or added", None, f"write: ({start} …), or {start} + …"
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
    after_operand = place > 1 and tokens[place - 1].type in OPERAND | {"RPAR", "RSQB"} and "DECIMAL" in expected
    if found.type in ("PLUS", "MINUS") and after_operand:
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
    if found.type == "RELATION" and "COLON" in expected and tokens[0].type != "CHANNEL":
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


def _habits(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """What other notations write, or people do."""
    start, before, word = tokens[0].type, tokens[place - 1] if place else None, str(found)
    if "DECIMAL" in expected and (node := as_node(word)):
        return "E020", f"'{shorten(word)}' is no node here; did you mean '{node}'?", None, None
    if "DECIMAL" in expected and word == "[":
        return "E020", "a list of nodes stands without brackets, or in ( )", None, "write: 9.6 9.9, or (9.6 9.9)"
    if word == "=" and "RELATION" in expected:
        help = "for a value that is nearly met write an interval: in [38%, 42%]"
        return "E020", "a relation is one of >=, <=, > and <", None, help
    if ("IN" in expected and word in ("between", "from", "within")) or (word == "(" and "LSQB" in expected):
        return "E020", "an interval is written in [low, high]", None, None
    if word in (",", "or", "but") and {"AND", "ON"} <= expected:
        return "E020", "claims are joined by 'and': all of them must hold", None, None
    if word == "logits" and "PERCENT" in expected:
        return "E020", "logits are plain numbers: leave 'logits' out", None, None
    if word == ":" and before is not None and before.type == "STRING" and start != "CHANNEL":
        return "E020", "the citation stands at the end of the line, after the claim", span_of(before), None
    if word == ":" and place == len(tokens) - 1 and str(tokens[0]) in BLOCK_HEADERS:
        return "E020", "the first line of a block ends without ':'", None, "its lines are indented below it"
    return None


def _brackets_or_quotes(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`expect knockout mover`, `task ioi corrupt = abc`, `model gpt2`, `circuit my-circuit`"""
    start, word = tokens[0].type, str(found)
    if start == "EXPECT" and place == 2 and found.type in OPERAND | {"POSITION"}:
        what = f"{tokens[1]}({word} …)"
        return "E020", f"what is measured of something has it in brackets: {shorten(what)}", None, None
    if start in ("TASK", "METRIC") and place == 2 and found.type in ("NAME", "COMMA"):
        return "E020", f"options stand in brackets: {shorten(tokens[1])}(…)", None, None
    if start == "TASK" and found.type == "STRING" and place in (1, 3):
        return (
            "E020",
            "a prompt file is a task made by 'file'",
            None,
            f"write: task {'mine = ' * (place > 1)}file({word})",
        )
    if expected == {"STRING"} and found.type in ("NAME", "POSITION", "DECIMAL"):
        return "E020", f'expected a "string", found {_quoted(found)}', None, f'put it into quotes: "{shorten(word)}"'
    if start in DEFINITIONS and place == 2 and found.type == "MINUS" and len(tokens) > 3:
        guess = f"{tokens[1]}_{tokens[3]}"
        return (
            "E022",
            f"a name is written in small letters, digits and '_'{did_you_mean(shorten(guess))}",
            span_of(tokens[1]).to(span_of(tokens[3])),
            None,
        )
    if found.type == "POSITION" and "NAME" in expected and "COMMA" in expected:
        return "E020", f"a comma is missing before {word}", None, "write: attention(mover, END -> IO)"
    return None


def _conditions(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`when mover is patched`, `when mover knocked out`"""
    if tokens[0].type != "WHEN":
        return None
    if found.type in ("PATCHED", "KNOCKED") and "IS" in expected:
        return "E020", f"'is' is missing before '{found}'", None, None
    edge = any(token.type == "ARROW" for token in tokens[:place])
    if found.type == ("KNOCKED" if edge else "PATCHED"):
        help = "write: when mover is knocked out, or: when inhibition -> mover.q is patched"
        return "E020", "an edge is patched, and nodes are knocked out", None, help
    return None


def _claim_in_other_words(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`: decreases`, `: falls`, `: composition rank <= 3`"""
    if "LOWERS" not in expected:
        return None
    if str(found) in CLAIMS:
        return "E020", f"'{found}' is no claim; did you mean '{CLAIMS[str(found)]}'?", None, None
    if str(found) == "composition":
        return (
            "E020",
            "a composition is claimed of a channel",
            None,
            "begin the line with 'channel', and leave 'at' out",
        )
    return None


def _misspelt_keyword(found: Token, place: int, tokens: list[Token], expected: frozenset[str]) -> Said:
    """`: lower`, `att END`: a word that is nearly one of those that may stand here."""
    if found.type in ("NAME", "POSITION"):
        guess = suggest(str(found), (t.lower() for t in expected if t.lower() in KEYWORDS))
        if guess:
            return "E020", f"'{shorten(found)}' is not expected here; did you mean '{guess}'?", None, None
    return None


RULES = (
    _conditions, _not_a_statement, _habits, _keyword_as_name, _number_as_node, _brackets_or_quotes, _mixed_set,
    _position_without_at, _bound_of_nothing, _claim_without_colon, _claim_in_other_words, _misspelt_keyword,
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
    if {"CIRCUIT", "NAME", "POSITION"} <= expected:
        return "a name"
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
