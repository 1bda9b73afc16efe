"""Text to logical lines of tokens.

A logical line is one statement. It ends with the physical line, unless a bracket is open. Lines are cut
before any parsing, so that a broken statement does not affect others. Characters that only look like
those of the language (`→`, `−`, curly quotes) are reported, and then read as what they look like.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

from circuitdsl.language.diagnostics import Fix, Sink, Span, as_span, shorten

BLOCK_HEADERS = frozenset({"when", "role", "property", "compare", "intervention"})
_STATEMENTS = """
    circuit source note license language model task metric margin edges heads mlps nodes each expect use channel
    trace set scale replace project
"""
_INSIDE = """
    at outside via direct on is patched knocked out includes by with for of matters negligible lowers raises effect
    delta stronger than and in rises falls above chance points agree embed logits self none
"""
#: words that mean something only where they follow one another, as what a term becomes does; elsewhere each is a name
TERMS = ("mean", "corrupt")
PHRASES = (
    ("expected", "to", "fail"),
    ("where", "stratum"),
    *(("ablate", term) for term in TERMS),
)
IN_PHRASES = frozenset(word for phrase in PHRASES for word in phrase).difference(TERMS)
_BEGIN_PHRASES = frozenset(phrase[0] for phrase in PHRASES)
STATEMENTS = BLOCK_HEADERS.union(_STATEMENTS.split())
KEYWORDS = STATEMENTS.union(_INSIDE.split())
#: words that are keywords by their place alone, so that groups may have these names: each with the keywords behind
#: which it is one; nodes follow it, but for a bracket behind `knockout`, and `times` ends `by 2 times`
SOFT = {
    "path": frozenset({"", "THAN"}),
    "dictionary": frozenset({""}),
    "features": frozenset({""}),
    "direction": frozenset({""}),
    "knockout": frozenset({"THAN"}),
    "times": frozenset({"INT", "DECIMAL", "SCIENTIFIC", "PERCENT", "POINTS"}),
}
#: those of them that define a name, which an equals sign follows
_DEFINING = frozenset({"dictionary", "features", "direction"})
#: words of measurements that are read as such where brackets follow
_CALLED = frozenset({"knockout"})
_NODES_FOLLOW = frozenset({"NAME", "DECIMAL", "LAYER", "MLP", "RESID", "LPAR", "EACH", "EMBED", "LOGITS", "SELF"})

MAX_DEPTH = 40
#: words and signs of a statement and of a file, statements of a file, and mistakes in its syntax
MAX_TOKENS, MAX_TOKENS_OF_ALL, MAX_STATEMENTS = 10_000, 250_000, 30_000
MAX_MISTAKES, MAX_TROUBLES_A_LINE = 1000, 5
BLANK = r" \t\f\v\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\ufeff"

TOKEN = re.compile(
    rf"""
    [{BLANK}]*(?:
      (?P<WORD>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<SCIENTIFIC>[0-9]+(?:\.[0-9]+)?[eE][+-]?[0-9]+(?![A-Za-z0-9_]))
    | (?P<LAYER>[0-9]+\.\*)
    | (?P<DECIMAL>[0-9]+\.[0-9]+)
    | (?P<INT>[0-9]+)
    | (?P<PORT>\.[A-Za-z_][A-Za-z0-9_]*)
    | (?P<NEWLINE>\r\n|\n|\r)
    | (?P<COMMENT>\#[^\r\n]*)
    | (?P<SLASHES>//[^\r\n]*)
    | (?P<STRING>"[^"\r\n]*")
    | (?P<OPEN_STRING>"[^"\r\n]*)
    | (?P<CURLY_STRING>[“”„«‟][^“”„«»‟"\r\n]*[“”„»‟"]|['‘‚][^'‘‚’\r\n]*['’‘])
    | (?P<ARROW>->)
    | (?P<LOOKALIKE>--?->|==>|~>|=>|==|=<|[–—−‐‑‒―－][>＞]|[→⟶➔➜⇒⟹﹣–—−‐‑‒―－≥≤⩾⩽＞＜＝＋：，（）［］％＊“”„«»‟‘’])
    | (?P<RELATION>>=|<=|>|<)
    | (?P<SIGN>[=:,()\[\]+\-*%])
    | (?P<BLANK>[{BLANK}])
    | (?P<ODD>@|[^\W]+|\.+|.)
    )
    """,
    re.VERBOSE | re.DOTALL,
)

#: what may not stand in a string: control characters, and those that change the direction of text
UNSEEN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
SIGNS = {
    "=": "EQUALS", ":": "COLON", ",": "COMMA", "(": "LPAR", ")": "RPAR", "[": "LSQB", "]": "RSQB",
    "+": "PLUS", "-": "MINUS", "*": "STAR", "%": "PERCENT",
}  # fmt: skip
DASHES = "﹣–—−‐‑‒―－"
LOOKALIKES = {
    **dict.fromkeys("→⟶➔➜⇒⟹", "->"), **dict.fromkeys(DASHES, "-"),
    **dict.fromkeys((dash + head for dash in DASHES for head in ">＞"), "->"),
    "=>": "->", "-->": "->", "--->": "->", "==>": "->", "~>": "->",
    "==": "=", "=<": "<=", "≥": ">=", "⩾": ">=", "≤": "<=", "⩽": "<=", "＞": ">", "＜": "<",
    "＝": "=", "＋": "+", "：": ":", "，": ",", "（": "(", "）": ")", "［": "[", "］": "]", "％": "%", "＊": "*",
}  # fmt: skip
#: terminals by the names of their groups
_AS_WRITTEN = frozenset({"DECIMAL", "LAYER", "INT", "ARROW", "RELATION", "PORT", "SCIENTIFIC"})
OPENING, CLOSING = frozenset({"LPAR", "LSQB"}), frozenset({"RPAR", "RSQB"})
_BRACKETS = OPENING | CLOSING


class Token(str):
    """A word or sign, `type` being its terminal."""

    __slots__ = ("end_pos", "span", "start_pos", "type")

    type: str
    start_pos: int
    end_pos: int
    span: Span

    def __new__(cls, type: str, value: str, start_pos: int, end_pos: int, span: Span) -> Token:
        made = _string(cls, value)
        made.type, made.start_pos, made.end_pos, made.span = type, start_pos, end_pos, span
        return made


#: makes the text of a token; a text has hundreds of thousands, and `_Cutter.add` makes them without a call of ours
_string = str.__new__


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment with its place, for a formatter to keep."""

    line: int
    column: int
    text: str


@dataclass(slots=True)
class LogicalLine:
    """The tokens of one statement. It is `broken` where an error in its text was reported: it is not parsed then."""

    indent: int
    tokens: list[Token] = field(default_factory=list)
    broken: bool = False

    @property
    def span(self) -> Span:
        return self.tokens[0].span.to(self.tokens[-1].span)


@lru_cache(4096)
def word_kind(word: str) -> str:
    """The terminal of a word: a keyword, an MLP, a residual stream, a position (capitals), or a name."""
    if word in KEYWORDS:
        return word.upper()
    if word[0] == "m" and word[1:].isdigit():
        return "MLP"
    if word.startswith("resid") and word[5:].isdigit():
        return "RESID"
    return "POSITION" if word.isupper() and word[0] != "_" else "NAME"


def logical_lines(text: str, sink: Sink) -> tuple[list[LogicalLine], list[Comment]]:
    """Cut a text into statements, reporting what is wrong with its characters."""
    return _Cutter(text, sink).cut()


class _Cutter:
    """Cuts a text into logical lines, in one pass from its start to its end."""

    def __init__(self, text: str, sink: Sink) -> None:
        self.text = text
        self.sink = sink
        self.lines: list[LogicalLine] = []
        self.comments: list[Comment] = []
        self.current: LogicalLine | None = None
        self.open: list[Token] = []
        #: whether some word of the statement may be a keyword
        self.soft = False
        self.tokens = 0
        self.row = 1
        self.row_start = 0
        self.troubles = 0

    def cut(self) -> tuple[list[LogicalLine], list[Comment]]:
        add, sink = self.add, self.sink
        for match in TOKEN.finditer(self.text):  # the last alternative takes any character
            kind = match.lastgroup or "ODD"
            value = match[kind]
            start = match.end() - len(value)
            if kind == "WORD":
                add(word_kind(value), value, start)
                if value in SOFT:
                    self.soft = True
            elif kind == "SIGN":
                add(SIGNS[value], value, start)
            elif kind in _AS_WRITTEN:
                add(kind, value, start)
            elif kind == "STRING":
                token = self.add("STRING", value, start)
                if unseen := UNSEEN.search(value):
                    self.complain("E011", f"{describe(unseen[0])} cannot stand in a string", token)
            elif kind == "NEWLINE":
                self.newline(match.end())
            elif kind == "COMMENT":
                self.comments.append(Comment(self.row, start - self.row_start + 1, value))
            elif kind != "BLANK":
                self.trouble(kind, value, start)
            if sink.stopped:
                break
        self.finish()
        return self.lines, self.comments

    def add(self, kind: str, value: str, position: int, width: int | None = None) -> Token:
        column, row, length = position - self.row_start + 1, self.row, len(value) if width is None else width
        token, line = _string(Token, value), self.current
        token.type, token.start_pos, token.end_pos = kind, position, position + length
        token.span = as_span((row, column, row, column + length))
        if line is None:
            # columns before the first token; a tab goes to the next multiple of eight
            before = self.text[self.row_start : position].replace("\ufeff", "")
            line = self.current = LogicalLine(len(before.expandtabs(8)))
        line.tokens.append(token)
        if len(line.tokens) > MAX_TOKENS:
            line.broken = True
            self.sink.stop(f"this statement has more than {MAX_TOKENS} words and signs", line.tokens[0].span)
        if kind in _BRACKETS:
            self.bracket(token)
        return token

    def bracket(self, token: Token) -> None:
        if token.type in OPENING:
            self.open.append(token)
            if len(self.open) == MAX_DEPTH + 1:
                self.complain("E015", f"brackets are nested deeper than {MAX_DEPTH}", token)
        elif self.open:
            self.open.pop()

    def newline(self, end: int) -> None:
        self.row += 1
        self.row_start = end
        self.troubles = 0
        if self.open and self.starts_statement(end):
            self.complain("E014", f"'{self.open[-1]}' is never closed", self.open[-1])
            self.finish()
        elif not self.open:
            self.finish()

    def finish(self) -> None:
        if self.current is not None:
            if self.open and not self.current.broken:
                self.complain("E014", f"'{self.open[-1]}' is never closed", self.open[-1])
            _join_phrases(self.current.tokens)
            self.harden(self.current.tokens)
            self.lines.append(self.current)
            self.tokens += len(self.current.tokens)
            if self.tokens > MAX_TOKENS_OF_ALL:
                self.too_many(MAX_TOKENS_OF_ALL, "words and signs")
            elif len(self.lines) > MAX_STATEMENTS:
                self.too_many(MAX_STATEMENTS, "statements")
            elif len(self.sink.found) > MAX_MISTAKES:
                self.too_many(MAX_MISTAKES, "mistakes")
        self.current = None
        self.open.clear()

    def harden(self, tokens: list[Token]) -> None:
        """Make keywords of the words that stand where they are ones."""
        for place, token in enumerate(tokens) if self.soft else ():
            if token not in SOFT:
                continue
            before = tokens[place - 1].type if place else ""
            after = [each.type for each in tokens[place + 1 : place + 3]]
            if token in _DEFINING:
                follows = after[1:] == ["EQUALS"]
            elif token in _CALLED:
                adjacent = after[:1] == ["LPAR"] and tokens[place + 1].start_pos == token.end_pos
                follows = adjacent and after[-1] not in ("RPAR", "COMMA")  # `knockout()` names nothing
            elif token == "times":
                follows = "BY" in [each.type for each in tokens[max(place - 4, 0) : place]]
            else:
                follows = not after or after[0] in _NODES_FOLLOW
            if before in SOFT[token] and follows:
                token.type = token.upper()
        self.soft = False

    def too_many(self, most: int, what: str) -> None:
        assert self.current is not None
        self.sink.stop(f"the file has more than {most:,} {what}", self.current.span)

    def starts_statement(self, position: int) -> bool:
        """Whether the physical line reads like a new statement although a bracket is still open."""
        assert self.current is not None
        match = _STATEMENT_START.match(self.text, position)
        if match is None:
            return False
        if match["keyword"] in STATEMENTS:
            return True
        indent = len(match["indent"].expandtabs(8))
        return match["arrow"] is not None and indent <= self.current.indent

    def complain(self, code: str, message: str, token: Token, *meant: str) -> None:
        """Report an error that breaks the line; `meant` are texts that fit in the token's place."""
        assert self.current is not None
        self.current.broken = True
        span = token.span
        self.sink.error(code, message, span, fixes=tuple(Fix(span, text) for text in meant))

    def trouble(self, kind: str, value: str, position: int) -> None:
        self.troubles += 1
        if self.troubles > MAX_TROUBLES_A_LINE:
            return
        if kind == "SLASHES":
            column = position - self.row_start + 1
            place = Span(self.row, column, self.row, column + 2)
            self.sink.error("E010", "'//' is not read here; comments begin with '#'", place)
        elif kind == "OPEN_STRING":
            value = value.rstrip()
            self.open.clear()  # whatever would have closed the brackets is inside the string
            self.complain("E013", "this string is not closed on its line", self.add("STRING", value, position))
        elif kind == "CURLY_STRING":
            token = self.add("STRING", f'"{value[1:-1]}"', position)
            self.alike(f"{value[0]}…{value[-1]}", '"…"', token)
        elif value == "==" and not self.open and self.claims():
            message = "'==' is no relation; did you mean '>=' or '<=', or an interval: in [38%, 42%]?"
            self.complain("E010", message, self.add("RELATION", value, position), ">=", "<=")
        elif kind == "LOOKALIKE" and value in LOOKALIKES:
            meant = LOOKALIKES[value]
            if value == "=>" and self.current and self.current.tokens[0].type in ("EXPECT", "MARGIN"):
                meant = ">="
            kind = "ARROW" if meant == "->" else SIGNS.get(meant, "RELATION")
            self.alike(value, meant, self.add(kind, meant, position, len(value)))
        else:
            code, message = "E011", f"{describe(value)} is not part of the language"
            if value == "@":
                code, message = "E012", "'@' is reserved"
            elif value in "“”„«»‟‘’'":
                code, message = "E010", f"'{value}' is not read here; strings are written \"like this\""
            self.complain(code, message, self.add("ODD", value, position))

    def claims(self) -> bool:
        """Whether a relation may stand here: in an `expect` line, or after a colon."""
        tokens = self.current.tokens if self.current else []
        return any(token.type in ("EXPECT", "COLON") for token in tokens)

    def alike(self, written: str, meant: str, token: Token) -> None:
        span = token.span
        self.sink.error("E010", f"'{written}' is not read here", span, meant=meant, fixes=(Fix(span, str(token)),))


def _join_phrases(tokens: list[Token]) -> None:
    """Words that make a phrase become its terminals."""
    for i, token in enumerate(tokens):
        if token.type == "NAME" and token in _BEGIN_PHRASES:
            phrase = next((each for each in PHRASES if tuple(tokens[i : i + len(each)]) == each), ())
            for word in tokens[i : i + len(phrase)]:
                word.type = word.upper() if word in IN_PHRASES else word.type


_STATEMENT_START = re.compile(
    rf"(?P<indent>[{BLANK}]*)(?:(?P<arrow>[a-z0-9_.]+[{BLANK}]*->)|(?P<keyword>[a-z]+)\b(?![{BLANK}]*[=,)\]]))"
)


def describe(text: str) -> str:
    """A character, or a run of them, named so that an invisible one can be found."""
    if len(text) > 1:
        return f"'{shorten(text)}'"
    name = unicodedata.name(text, "no name")
    return f"'{text}' (U+{ord(text):04X} {name})" if text.isprintable() else f"U+{ord(text):04X} ({name})"


def text_of(tokens: list[Token]) -> str:
    """The text of tokens, with one blank wherever there are blanks between two."""
    words, end = list[str](), 0
    for token in tokens:
        words += (" ", token) if words and token.start_pos != end else (token,)
        end = token.end_pos
    return "".join(words)
