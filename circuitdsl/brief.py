"""Messages that quote what a stranger wrote: a name of a megabyte, or a statement of thousands of words, is cut."""

from __future__ import annotations

import re

#: the longest stretch without a blank that a message shows, and the longest line
WORD, LINE = 200, 380
_LONG = re.compile(rf"\S{{{WORD + 1},}}")


def brief(text: str, longest: int = LINE) -> str:
    """A message with what is very long in it cut in its middle; its lines stay lines.

    >>> brief("there is no file " + "a" * 1000 + ".circ") == "there is no file " + "a" * 100 + "…" + "a" * 85 + ".circ"
    True
    """
    if len(text) <= WORD:
        return text
    return "\n".join(quoted(_LONG.sub(lambda word: quoted(word[0], WORD), line), longest) for line in text.split("\n"))


def quoted(text: str, most: int = WORD) -> str:
    """A text as a message quotes it: without its middle where it has more characters than `most`.

    >>> quoted("abcdefghij" * 4, 30)
    'abcdefghijabcde…fghij'
    """
    return text if len(text) <= most else f"{text[: most // 2]}…{text[10 - most // 2 :]}"
