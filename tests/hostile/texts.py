"""Texts that a terminal, a browser, a service that runs tests or a program that draws would obey."""

from __future__ import annotations

import re
import unicodedata

#: what would be obeyed or not be seen where it is written raw
RAW = {
    "clear": "\x1b[2J", "title": "\x1b]0;owned\x07", "csi": "\x9b31m", "back": "good\x08\x08\x08\x08evil",
    "delete": "\x7f", "return": "good\revil", "nul": "\0", "override": "\u202egpj.exe", "isolate": "\u2066a\u2069",
    "mark": "\u200f\u061c", "zero width": "a\u200bb\ufeffc\u2060", "separator": "a\u2028b\u2029c\x85d",
    "half": "\udc80\ud800", "no character": "\ufffe\uffff", "tags": "\U000e0041\U000e0042", "line end": "a\nb",
}  # fmt: skip
#: what some format reads as its own
SYNTAX = {
    "command": "::set-output name=a::b", "command on a line": "a\n  ::error::b", "old command": "##[add-mask]x",
    "azure": "##vso[task.setvariable variable=a]b", "coded": "%0A::error file=a,line=1::%25", "property": ",line=9::x",
    "script": "<script>alert(1)</script>", "attribute": "\" onload='alert(1)' x=\"", "entity": "&lt;b&gt;&#27;&#x1b;",
    "cdata": "]]><!-- -->", "dot": '"]; evil -> b [label="x', "backslash": "\\", "dot's own": "\\N\\G\\l",
    "mermaid": '"]\n  evil --> b["', "mermaid's own": "#quot; %%{init: {}}%% |x| --> ;", "markup": "[bold]x[/] [/]",
    "link": "[link=file:///etc/passwd]x[/link]", "markdown": "](javascript:alert(1)) ```\n# x", "formula": "=1+1|A1",
    "template": "{{7*7}} {0} {x.__class__} %s %(x)s $(id) `id`",
}  # fmt: skip
TEXTS = RAW | SYNTAX
#: characters that a text for people has raw; all others of their categories are spelled out
_SEEN = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\U00013430-\U0001343f]")


def unseen(text: str, keep: str = "\n") -> set[str]:
    """The characters of a text that a terminal obeys or no reader sees."""
    hidden = (c for c in set(text) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") or c in "\ufffe\uffff")
    return {c for c in hidden if c not in keep and not _SEEN.match(c)}


def commands(text: str) -> list[str]:
    """The lines that GitHub's runner, or another's, reads as commands.

    The runner trims a line before it looks for `::`; it finds the older form anywhere in a line, as others do.
    """
    return [line for line in text.split("\n") if line.strip().startswith("::") or re.search(r"##\w*\[", line)]
