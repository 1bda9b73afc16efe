"""Texts of a megabyte, broken and whole: each is a piece that is repeated, or a line for every number."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

SIZE = 1_000_000
HEAD = 'circuit big\nmodel "pocket"\ntask ioi\nheads mover = 2.1 2.3\nheads inhibition = 1.1 1.2\n'
#: without a model, heads of any number exist
WIDE = (
    "circuit big\ntask ioi\n"
    + "".join(
        f"heads {name} = {' '.join(f'{layer}.{i}' for i in range(100))} at END\n" for layer, name in enumerate("ab")
    )
    + f"heads all = {' '.join(f'0.{i}' for i in range(3000))} at END\n"
)
WORDS = (
    "heads mlps nodes expect circuit a b 9.9 m3 -> => ( ) [ ] , : = >= <= % + - * \"x\" # effect lowers and at END S1 "
    "each role when is patched in 5 0.5 .q attention knockout via mlps direct 1e9 @ → “ é"
).split()  # fmt: skip


def repeated(piece: str, before: str = "") -> str:
    """A piece again and again, up to the size."""
    return before + piece * ((SIZE - len(before)) // len(piece))


def lines(line: Callable[[int], str], before: str = HEAD, most: int = SIZE) -> str:
    """A line for every number, up to the size, or so many."""

    def made() -> Iterator[str]:
        left = SIZE - len(before)
        for number in range(most):
            text = line(number) + "\n"
            left -= len(text)
            if left < 0:
                return
            yield text

    return before + "".join(made())


def soup(seed: int, between: str) -> str:
    """Words of the language in any order."""
    return between.join(random.Random(seed).choices(WORDS, k=SIZE // 5))[:SIZE].encode()[:SIZE].decode(errors="ignore")


def noise(seed: int, *points: range) -> str:
    """Any characters."""
    known = [chr(point) for some in points for point in some]
    text = "".join(random.Random(seed).choices(known, k=SIZE))
    return text.encode()[:SIZE].decode(errors="ignore")


Texts = Mapping[str, Callable[[], str]]

#: read in well under a second
BROKEN: Texts = {
    **{
        piece: lambda piece=piece: repeated(piece)
        for piece in ("(", "[", "([", "-", '"', "→", "a\r", "a\n", "→\n", "9.")
    },
    "blank lines": lambda: repeated("\n"),
    "blanks": lambda: repeated(" ") + "a",
    "one name": lambda: repeated("a"),
    "one number": lambda: repeated("9", "margin "),
    "low quotes": lambda: repeated("‚")[: SIZE // 3],
    "nested": lambda: "(" * (SIZE // 2) + ")" * (SIZE // 2),
    "words": lambda: soup(0, " "),
    "words on lines": lambda: soup(1, "\n"),
    "bytes": lambda: noise(0, range(256)),
    "characters": lambda: noise(0, range(1, 0xD800)),
    "misspelt words": lambda: lines(lambda i: f"hedas g{i} = 1.1"),
    "circuits": lambda: lines(lambda i: f"circuit c{i}\ntask ioi\nexpect accuracy >= 5%", ""),
    "roles": lambda: lines(lambda i: f"role r{i}\n  expect accuracy >= 5%"),
}
#: a short text that names very many nodes, edges and checks
MANY: Texts = {
    "pairs": lambda: lines(lambda i: f"a -> b.q at S1+{i} : lowers", WIDE, 9000),
    "senders above": lambda: lines(lambda i: f"b -> a.q at S1+{i} : lowers", WIDE, 9000),
    "members": lambda: lines(lambda i: f"heads g{i} = all + 2.1", WIDE, 9000),
    "knocked out": lambda: lines(lambda i: f"expect knockout(all) : effect <= -{i / 1000}%", WIDE, 9000),
    "a growing chain": lambda: lines(
        lambda i: f"heads g{i} = g{i - 1} + {i % 90 + 1}.{i}", "circuit a\nheads g0 = 1.1\n", 9000
    ),
    "checks": lambda: lines(
        lambda i: f"heads g{i} = 1.{i % 8} at END role r\nexpect role(g{i})",
        lines(lambda i: f"  expect attention(self, END -> IO) >= {i / 1000}%", "circuit a\ntask ioi\nrole r\n", 3000),
        3000,
    ),
}
#: read to their end
WHOLE: Texts = {
    "20 000 claims": lambda: lines(lambda i: f"inhibition -> mover.q at END : effect <= -{i / 1000}%", HEAD, 20_000),
    "25 000 groups": lambda: lines(lambda i: f"heads g{i} = {i % 4}.{i % 8}", HEAD, 25_000),
    "unknown groups": lambda: lines(
        lambda i: f"heads gabcdefgh{i} = 1.1" if i < 9000 else f"gabcdxfgh{i} -> logits : lowers", HEAD, 18_000
    ),
    "unknown words": lambda: lines(lambda i: f"expect attentoin{i}(mover) >= 5%", HEAD, 18_000),
}
