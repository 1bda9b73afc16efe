"""The parser's tables, as they were built from the grammar: reading them takes a tenth of the time of building them.

    python -m circuitdsl.language.tables

writes `tables.json` anew. Tables of another grammar or of another version of Lark are not used.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from lark import Lark
from lark.grammar import Rule
from lark.lexer import Lexer, TerminalDef

from circuitdsl.installed import version

GRAMMAR, TABLES = (Path(__file__).with_name(name) for name in ("grammar.lark", "tables.json"))


class _NoLexer(Lexer):
    """`lexer.py` makes the tokens, and `automaton.py` reads them."""

    def __init__(self, conf: Any) -> None:
        pass

    def lex(self, lexer_state: Any, parser_state: Any) -> Any:
        raise NotImplementedError


def parser(transformer: Any) -> Lark:
    """The parser of one statement, from the tables where they are those of the grammar."""
    try:
        known = json.loads(TABLES.read_text(encoding="utf-8"), object_pairs_hook=_numbered)
        fresh = known["of"] == _of()
    except (OSError, ValueError, KeyError, TypeError):
        fresh = False
    return _read(known, transformer) if fresh else build(transformer)


def build(transformer: Any) -> Lark:
    """The parser, built from the grammar."""
    return Lark(
        GRAMMAR.read_text(encoding="utf-8"),
        parser="lalr",
        start="line",
        lexer=_NoLexer,
        transformer=transformer,
        keep_all_tokens=True,
        maybe_placeholders=False,
    )


def tables(built: Lark) -> dict[str, Any]:
    """What is kept of a parser; its lexer and transformer, which are code, are not."""
    data, memo = built.memo_serialize([TerminalDef, Rule])
    data["options"] |= {"lexer": None, "transformer": None}
    data["parser"]["lexer_conf"]["lexer_type"] = None
    return {"of": _of(), "data": data, "memo": memo}


def _read(known: dict[str, Any], transformer: Any) -> Lark:
    data = known["data"]
    data["options"]["lexer"] = data["parser"]["lexer_conf"]["lexer_type"] = _NoLexer
    return Lark._load_from_dict(data, known["memo"], transformer=transformer)


def _of() -> str:
    """What the tables depend on."""
    return sha256(GRAMMAR.read_bytes() + version("lark").encode()).hexdigest()


def _numbered(pairs: list[tuple[str, Any]]) -> dict[str | int, Any]:
    """A JSON object; its keys that are numbers are numbers again."""
    return {int(key) if key.isdigit() else key: value for key, value in pairs}


if __name__ == "__main__":
    TABLES.write_text(json.dumps(tables(build(None)), separators=(",", ":")) + "\n", encoding="utf-8")
