"""Texts from strangers as they are shown: what a terminal would obey and what no reader sees is spelled out.

A spec, a prompt, a model's name or a file's name may hold control characters, such as ESC, and characters that turn the
direction of text or take no room. They are written as Python writes them: `\\x1b`, `\\u202e`, `\\U000e0041`.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

#: control characters, halves of pairs, line ends of Unicode, what turns or joins text, what is ignored when it is shown
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
#: what a service that runs tests reads as a command: `::error …` at the start of a line, `##[…]` or `##vso[…]` anywhere
_COMMAND = re.compile(r"##(?=\w*\[)|^[^\S\n]*:(?=:)", re.MULTILINE)
#: an escape in JSON
_ESCAPED = re.compile(r"\\(?:u.{4}|.)")
_MARKUP = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;"))


def visible(text: str, keep: str = "") -> str:
    """A text with what cannot be seen in it spelled out, line ends and tabs too but for those to keep.

    >>> visible("\\x1b[31mred\\n")
    '\\\\x1b[31mred\\\\n'
    """
    return _UNSEEN.sub(partial(_spelled, keep), text)


def _spelled(keep: str, found: re.Match[str]) -> str:
    return found[0] if found[0] in keep else found[0].encode("unicode_escape").decode()


def line(text: str) -> str:
    """A text as one line of a terminal or a log: what is not seen is spelled out, and nothing is read as a command."""
    return harmless(visible(text))


def lines(text: str) -> str:
    """As `line`, but line ends and tabs stay."""
    return harmless(visible(text, "\n\t"))


def harmless(text: str) -> str:
    """Lines in which no service that runs tests finds a command, such as GitHub's `::set-output …`."""
    return _COMMAND.sub(r"\g<0> ", text)


def escape(text: str) -> str:
    """A text for HTML or XML, between tags or in the quotes of an attribute."""
    shown = visible(text, "\n\t")
    for sign, written in _MARKUP:
        shown = shown.replace(sign, written)
    if "##" not in shown and "::" not in shown:
        return shown
    return _COMMAND.sub(lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", shown)


def json_text(value: Any, **how: Any) -> str:
    """A value as JSON in which nothing unseen stands raw, and no command; it means the same.

    `how` are arguments of `json.dumps`, whose errors these are too.
    """
    text = json.dumps(value, ensure_ascii=False, **how)
    return _UNSEEN.sub(_in_json, text.replace("##", "#\\u0023"))


def json_to_show(value: Any, **how: Any) -> str:
    """JSON for a page that shows its texts: what is not seen is spelled out in them."""
    text = _ESCAPED.sub(_as_it_is, json.dumps(value, ensure_ascii=False, **how)).replace("##", "#\\u0023")
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode().replace("\\", r"\\"), text)


def _as_it_is(found: re.Match[str]) -> str:
    """What JSON escapes and nobody sees, as the character that it is; line ends and tabs stay escaped."""
    return found[0] if found[0][1] in '"\\nt' else str(json.loads(f'"{found[0]}"'))


def _in_json(found: re.Match[str]) -> str:
    return found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1]
