"""Prompts for instruct models: the turns of a talk, as the tokenizer's chat template writes them down."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate
from typing import Any

from circuitdsl.errors import out_of_memory
from circuitdsl.language.diagnostics import shorten
from circuitdsl.tasks.records import BadLine, echo, is_text
from circuitdsl.tasks.task import TaskError
from circuitdsl.tasks.tokens import KEPT, Encoded, Tokens

#: turns of a prompt, at the most
MOST = 100
#: the date for templates that write one: that to which those of Llama 3 fall back
DATE = "26 Jul 2024"
#: stands for the text of a turn in private characters, which no template writes
_PLACE = "\ue000{}\ue001"
_PLACES = re.compile("\ue000([0-9]+)\ue001")


@dataclass(frozen=True, slots=True)
class Talk:
    """A prompt as a chat template writes it.

    Attributes:
        text: the whole prompt, with what the template puts around the turns.
        said: the texts of the turns alone, each on a line of its own. Positions refer to them.
        turns: of each turn, where its text begins in `said`, where in `text`, and its number of characters there.
    """

    text: str
    said: str
    turns: tuple[tuple[int, int, int], ...]

    def within(self, encoded: Encoded) -> Encoded:
        """The tokens of `text` with their spans in `said`. Tokens that are the template's alone have empty spans."""
        return Encoded(encoded.ids, tuple(self._span(*span) for span in encoded.spans))

    def _span(self, start: int, end: int) -> tuple[int, int]:
        for said, begin, length in self.turns:
            low, high = max(start, begin), min(end, begin + length)
            if low < high:
                return low - begin + said, high - begin + said
        return 0, 0


@dataclass(slots=True)
class Template:
    """The chat template of a tokenizer.

    The template says whether the prompt begins with the beginning-of-sequence token. A task that says `bos = yes` or
    `bos = no` has it once or not at all, whatever the template does.

    Raises:
        TaskError: the tokenizer has none.
    """

    tokens: Tokens
    sha256: str = ""
    _frames: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    _known: dict[str, Talk] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not getattr(self.tokens.tokenizer, "chat_template", None):
            raise TaskError(
                f"the tokenizer of {self.tokens.name} has no chat template, and chat = yes asks for one",
                hint="take a model that is trained on chats, or leave chat out",
            )
        template = self.tokens.tokenizer.get_chat_template()
        if "strftime_now" in template and "date_string" not in template:
            raise TaskError(
                f"{self._named} writes today's date: prompts would not be the same tomorrow",
                hint="take a model with another template, or write whole texts, without chat = yes",
            )
        self.sha256 = sha256(template.encode()).hexdigest()

    def read(self, given: Any) -> Talk:
        """A prompt file's `clean` or `corrupt`: the user's text, or a list of turns with `role` and `content`.

        Where the last turn is the assistant's, the model goes on with it; else it answers.

        Raises:
            BadLine: it is neither, the template fails, or it does not write the text of every turn as it is.
        """
        name = repr(given)
        if name not in self._known:
            if len(self._known) > KEPT:
                self._known.clear()
            self._known[name] = self._talk(_turns(given))
        return self._known[name]

    def _talk(self, turns: Sequence[Mapping[str, str]]) -> Talk:
        texts, roles = [turn["content"] for turn in turns], tuple(turn["role"] for turn in turns)
        if roles not in self._frames:
            empty = [{"role": role, "content": _PLACE.format(i)} for i, role in enumerate(roles)]
            self._frames[roles] = _PLACES.split(self._written(empty))
        before, places, after = self._frames[roles][0], self._frames[roles][1::2], self._frames[roles][2::2]
        if places != [str(i) for i in range(len(turns))]:
            raise BadLine(f"{self._named} does not write every turn once and in order")
        text, at, found = self._written(turns), len(before), []
        said = accumulate((len(each) + 1 for each in texts), initial=0)
        whole = text.startswith(before)
        for start, content, behind in zip(said, texts, after, strict=False):
            forms = (content, content.strip(), content.lstrip(), content.rstrip())
            form = next((form for form in forms if text.startswith(form + behind, at)), None)
            whole = whole and form is not None
            if form is not None:
                found.append((start + content.index(form), at, len(form)))
                at += len(form) + len(behind)
        if not whole or at != len(text):
            raise BadLine(f"{self._named} changes the text of a turn, so that nothing is known of places in it")
        return Talk(text, "\n".join(texts), tuple(found))

    def _written(self, turns: Sequence[Mapping[str, str]]) -> str:
        tokenizer, goes_on = self.tokens.tokenizer, turns[-1]["role"] == "assistant"
        how: dict[str, Any] = {
            "add_generation_prompt": not goes_on,
            "continue_final_message": goes_on,
            "tokenize": False,
        }
        how["date_string"] = DATE
        try:
            text: str = tokenizer.apply_chat_template(list(turns), **how)
        except Exception as error:  # a template may raise anything
            if out_of_memory(error):
                raise
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadLine(f"{self._named} fails: {shorten(said)}") from None
        if self.tokens.bos is None or not (first := tokenizer.bos_token):
            return text
        return first * self.tokens.bos + text.removeprefix(first)

    @property
    def _named(self) -> str:
        return f"the chat template of {self.tokens.name}"


def _turns(given: Any) -> list[dict[str, str]]:
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given or len(given) > MOST:
        raise BadLine(f"a prompt is the user's text, or a list of 1 to {MOST} turns: {echo(given)}")
    for turn in given:
        if not isinstance(turn, dict) or turn.keys() != {"role", "content"}:
            raise BadLine(f'a turn is {{"role": …, "content": …}}: {echo(turn)}')
        for text in turn.values():
            if not is_text(text) or not text.strip():
                raise BadLine(f"role and content of a turn are texts that are not empty: {echo(turn)}")
    return given
