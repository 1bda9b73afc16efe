"""What can become of a claim: the four verdicts and their order."""

from __future__ import annotations

from typing import Literal

Verdict = Literal["holds", "fails", "undecided", "error"]
#: in the order in which they are counted
VERDICTS: tuple[Verdict, ...] = ("holds", "fails", "undecided", "error")
#: of several parts, the one whose verdict comes first here decides about the whole
WORST_FIRST: tuple[Verdict, ...] = ("fails", "error", "undecided", "holds")
