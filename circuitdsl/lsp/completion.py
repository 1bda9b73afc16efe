"""What may be written at a place: keywords as the grammar has them, and names as the spec and its model do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from circuitdsl.circuit.vocabulary import ABLATIONS, METRICS, PORTS
from circuitdsl.language import syntax as s
from circuitdsl.language.lexer import KEYWORDS, PHRASES, SOFT, STATEMENTS
from circuitdsl.language.parse import HOLDS, VERBS, expected_after
from circuitdsl.lsp import offers
from circuitdsl.lsp.document import Document
from circuitdsl.lsp.offers import Offer, Place
from circuitdsl.lsp.pieces import cut
from circuitdsl.lsp.words import KEYWORD_SAYS
from circuitdsl.measurements import KINDS

#: what is being typed, up to the cursor
_PREFIX = re.compile(r"[A-Za-z0-9_.]*$")
_STRING = re.compile(r'"([^"]*)$')
_OPERATORS = (">=", "<=", ">", "<")
_PORTS = dict(zip(PORTS, ("where it looks", "where it is found", "what it carries"), strict=True))


#: the verbs of an intervention, by their first word; and what ends a set
_VERBS = ("set", "scale", "replace", "project")
_SET_END = frozenset({"NAME", "DECIMAL", "LAYER", "MLP", "RESID", "RPAR", "RSQB", "EMBED", "LOGITS", "SELF", "PORT"})


def complete(document: Document, row: int, column: int) -> list[Offer]:
    """What may be written at a place, in the order in which to show it; only what begins as what is typed there."""
    line = document.rows[row - 1] if row <= len(document.rows) else ""
    typed = line[: column - 1]
    prefix = _PREFIX.search(typed)
    assert prefix is not None
    start = prefix.start()
    before = "\n".join([*document.rows[: row - 1], typed[:start]])
    lines, comments = cut(before)
    if comments and comments[-1].line == row:
        return []
    pieces = lines[-1] if lines else []
    here = bool(pieces) and pieces[-1].span.line == row
    if here and pieces[-1].text.startswith('"') and (string := _STRING.search(typed)):
        return _matching(offers.strings(document, pieces[:-1], string.start() + 1), string[1])
    # a statement goes on in the next row only inside brackets
    depth = sum((piece.kind in ("LPAR", "LSQB")) - (piece.kind in ("RPAR", "RSQB")) for piece in pieces)
    pieces = pieces if here or depth > 0 else []
    allowed = expected_after([piece.kind for piece in pieces])
    place = Place(document, row, pieces, allowed, prefix[0], line[:1].isspace())
    return _matching({offer.text: offer for offer in _offers(place)}.values(), prefix[0], start)


def _matching(offers: Iterable[Offer], typed: str, start: int | None = None) -> list[Offer]:
    return [
        offer if start is None else Offer(offer.text, offer.sort, start, offer.says)
        for offer in offers
        if offer.text.startswith(typed) and offer.text != typed
    ]


def _offers(place: Place) -> Iterator[Offer]:
    """Everything that may stand at a place."""
    if "." in place.prefix:
        yield from _dotted(place)
        return
    if not place.pieces:
        yield from _beginnings(place)
        return
    for names in _names(place):
        yield from names(place)
    if "NAME" in place.allowed and "CIRCUIT" in place.allowed:
        return  # a name may stand here that is new, or that was offered
    yield from _keywords(place)


def _keywords(place: Place) -> Iterator[Offer]:
    """The keywords and signs that the grammar allows."""
    where = {type(header) for header in place.headers}
    unfit = {"embed", "logits", "self"}
    unfit |= set() if s.Compare in where else {"agree"}
    unfit |= {"role"} if place.before in ("EXPECT", "SET", "RELATION") else set()  # it is offered as a measurement
    unfit |= set() if where & {s.WhenPatched, s.WhenKnockedOut, s.WhenBoth, s.Intervention} else {"rises", "falls"}
    for word in sorted((KEYWORDS | SOFT.keys()) - unfit):
        if word.upper() in place.allowed:
            yield Offer(word, "keyword", 0, KEYWORD_SAYS[word])
    for phrase in PHRASES:
        if phrase[0].upper() in place.allowed:
            yield Offer(" ".join(phrase), "keyword", 0, KEYWORD_SAYS[phrase[0]])
    if "RELATION" in place.allowed:
        yield from (Offer(sign, "keyword", 0) for sign in _OPERATORS)
    if "ARROW" in place.allowed:
        yield Offer("->", "keyword", 0)


def _beginnings(place: Place) -> Iterator[Offer]:
    """With what a statement may begin: in a block only what the block holds."""
    words: Iterable[str] = sorted((STATEMENTS | SOFT.keys()).difference(_VERBS))
    if place.headers:
        header = str(getattr(place.headers[-1], "text", "")).split(" ")[0]
        inside = HOLDS.get(header, ((), "", ""))[0]
        words = ("expect", *(("when",) if s.WhenPatched in inside else ()), *(_VERBS if inside == VERBS else ()))
    yield from (Offer(word, "keyword", 0, KEYWORD_SAYS[word]) for word in words)
    if not place.headers:
        yield from offers.groups(place)


def _dotted(place: Place) -> Iterator[Offer]:
    """After a dot: the heads of a layer, or the inputs of a receiver."""
    base, _, _ = place.prefix.rpartition(".")
    if base.isdigit() and {"DECIMAL"} & place.allowed and not _in_number(place):
        yield from offers.heads(place, int(base))
    arrow = "ARROW" in place.kinds and place.first != "TRACE"
    if arrow and (base in place.document.groups_at(place.row) or re.fullmatch(r"\d+\.\d+", base)):
        yield from (Offer(f"{base}.{port}", "option", 0, f"what decides {said}") for port, said in _PORTS.items())


def _in_number(place: Place) -> bool:
    return place.before in ("RELATION", "LSQB", "BY", "MARGIN", "FOR", "PLUS", "MINUS") and "NAME" not in place.allowed


Names = Callable[[Place], Iterator[Offer]]


def _names(place: Place) -> Iterator[Names]:
    """Which names may stand at a place, by what stands before it."""
    kinds, before, first = place.kinds, place.before, place.first
    if place.open and kinds[place.open] == "LPAR" and first in ("TASK", "METRIC"):
        yield offers.task_options if first == "TASK" else offers.metric_options
    elif first == "TASK" and before in ("TASK", "EQUALS"):
        yield offers.generators
    elif first == "METRIC" and before == "METRIC":
        yield offers.metrics
    elif before == "ROLE" and first in ("HEADS", "MLPS", "NODES"):
        yield offers.roles
    elif first == "COMPARE" and before in ("COMPARE", "WITH"):
        yield offers.circuits
    elif before == "WITH" and first == "REPLACE":
        yield lambda _: (Offer(word, "value", 0) for word in ABLATIONS)
    elif (first, before) == ("EXPECT", "RELATION"):
        yield lambda place: (one for one in offers.measurements(place) if one.text == place.pieces[1].text)
    elif before == "ON":
        yield offers.tasks
    elif (first, before) == ("EXPECT", "EXPECT") or (first, before) == ("SET", "SET"):
        yield offers.measurements
    elif first == "SET" and before == "EQUALS":
        yield lambda _: iter([Offer("even", "value", 0, "100 % of the attention, spread equally")])
    elif first == "CHANNEL" and before in ("COLON", "AND", "NAME"):
        words = ("composition",) if before != "NAME" else ("rank", "z")
        yield lambda _: (Offer(word, "option", 0) for word in words)
    else:
        yield from _of_sets_and_places(place)


def _of_sets_and_places(place: Place) -> Iterator[Names]:
    """Groups, nodes and positions, where the grammar lets them stand and the statement takes them."""
    argument = bool(place.owner) and place.first == "EXPECT"
    kind = KINDS.word(place.owner) if argument else None
    if place.before == "LSQB" and "INT" in place.allowed and "NAME" in place.allowed:
        yield offers.directions
        return
    if argument and place.before == "EQUALS":
        yield offers.option_values
        return
    places = "POSITION" in place.allowed and (kind is None or hasattr(kind, "source") or place.before == "AT")
    if places and argument and place.before == "COMMA":
        yield offers.positions
    if argument and place.before in ("LPAR", "COMMA"):
        yield offers.options
    # in an edge a list stands in brackets
    listed = place.first in ("HEADS", "MLPS", "NODES", "FEATURES", "SCALE", "REPLACE", "PROJECT", "TRACE") or place.open
    whole = kind is not None and (kind.of_whole or place.owner in METRICS)
    fits = {"DECIMAL", "NAME"} <= place.allowed and (listed or place.before not in _SET_END)
    if fits and not whole and place.first not in ("HEADS", "MLPS", "CHANNEL", "TRACE"):
        yield offers.dictionaries
    if fits and not whole and place.first != "FEATURES":
        yield offers.groups
        yield offers.nodes
    if places:
        yield offers.positions
