"""What tasks need of a tokenizer: token ids with character spans, and whether a word is one token."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from circuitdsl.errors import out_of_memory
from circuitdsl.language.diagnostics import shorten
from circuitdsl.tasks.task import Task, TaskError, WordList, Words

#: texts that are kept as tokens while a prompt file is read, before all are forgotten; characters of new ones, likewise
KEPT, LONG = 2**16, 2**20
#: texts on which transformers is compared with the library `tokenizers`
PROBES = ("a", "The girl's 12 dogs,  and a boy.\n", " \u00fc\u4e2d")


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it stands in a text, with the blank that it begins with; a model without a tokenizer has no texts."""

    text: str
    id: int

    def __str__(self) -> str:
        return repr(self.text) if self.text else str(self.id)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids, and the span of characters of each."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    def token_before(self, end: int) -> int:
        """The index of the last token that holds the character before `end`; raises `ValueError` where none does."""
        for index in reversed(range(len(self.spans))):
            if self.spans[index][0] < end <= self.spans[index][1]:
                return index
        raise ValueError(f"no token holds character {end - 1}")


@dataclass(frozen=True)
class Tokens:
    """A Hugging Face fast tokenizer as the tasks see it.

    `bos`: `None` leaves the beginning-of-sequence token to `tokenizer(text)`; `True` and `False` force it.
    `chat`: texts are what a chat template wrote, so that nothing is put before them.
    """

    tokenizer: Any
    name: str = "this model"
    bos: bool | None = None
    chat: bool = False
    _continuations: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    _known: dict[str, Encoded] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "is_fast", False):
            raise TaskError(f"the tokenizer of {self.name} gives no character positions (it is not a fast tokenizer)")
        if self.bos and self.tokenizer.bos_token_id is None:
            raise TaskError(
                f"the tokenizer of {self.name} has no beginning-of-sequence token, and bos = yes asks for it"
            )

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode texts as `tokenizer(text)` does, special tokens included."""
        special, (ids, spans) = self._first
        out = self._read(texts, add_special_tokens=special, return_offsets_mapping=True, return_attention_mask=False)
        rows = zip(out["input_ids"], out["offset_mapping"], strict=True)
        return [Encoded(ids + tuple(found), spans + tuple(places)) for found, places in rows]

    def encode_one(self, text: str) -> Encoded:
        """Encode one text, which may have been prepared."""
        return self._known.get(text) or self.encode([text])[0]

    def prepare(self, texts: Sequence[str], followed: Iterable[tuple[str, str]]) -> None:
        """Encode texts, and what follows some of them, all at once: many calls of a tokenizer take much longer.

        Only the texts of the last few calls are kept.

        Args:
            followed: (before, text) as `continuation` takes them; `before` is one of the texts.
        """
        if len(self._known) > KEPT or sum(map(len, texts)) > LONG:
            self._known.clear()
            self._continuations.clear()
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        asked = [pair for pair in dict.fromkeys(followed) if pair not in self._continuations]
        try:
            if not self._is_plain:
                return
            special, first = self._first
            for text, row in zip(new, self._rows(new, special), strict=True):
                self._known[text] = Encoded(first[0] + tuple(row.ids), first[1] + tuple(row.offsets))
            if asked and self._before is not None:
                rows = self._rows([before + text for before, text in asked], False)
                for (before, text), row in zip(asked, rows, strict=True):
                    self._continuations[before, text] = _rest(self._known[before].ids[self._before :], row.ids)
        except Exception as error:  # it is raised again where one text is asked for, which is then named
            if out_of_memory(error):
                raise

    def _rows(self, texts: list[str], special: bool) -> Any:
        """What the library `tokenizers` makes of texts, without what transformers puts around it."""
        return self.tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=special) if texts else []

    @cached_property
    def _is_plain(self) -> bool:
        """Whether the library `tokenizers` does all of the work. It neither cuts off nor pads once it was called."""
        for special in (True, False):
            out = self._read(PROBES, add_special_tokens=special, return_offsets_mapping=True)
            rows = self._rows(list(PROBES), special)
            if [[list(row.ids), list(row.offsets)] for row in rows] != [
                [list(ids), list(spans)] for ids, spans in zip(out["input_ids"], out["offset_mapping"], strict=True)
            ]:
                return False
        return True

    @cached_property
    def _first(self) -> tuple[bool, tuple[tuple[int, ...], tuple[tuple[int, int], ...]]]:
        """Whether the tokenizer adds its special tokens to a prompt; and what is put before it: ids, spans.

        Raises:
            TaskError: one of them would stand behind the prompt, so that END would not be its own last token.
        """
        if self.chat:
            return False, ((), ())
        plain = self._read(["a"], add_special_tokens=False)["input_ids"][0]
        if self.bos is None and plain and (last := self._special[-1:]) != plain[-1:]:
            raise TaskError(
                f"the tokenizer of {self.name} puts {self.text_of(last[0])!r} behind a prompt, and what a model says "
                "after that is no answer to it",
                hint="say bos = yes or bos = no in the task: it is then left out",
            )
        return self.bos is None, ((self._bos,), ((0, 0),)) if self.bos and self._bos is not None else ((), ())

    @cached_property
    def _before(self) -> int | None:
        """How many tokens are put before every text, and none after it; None where that is not known."""
        if self.bos is not None or self.chat:
            return int(bool(self.bos and not self.chat))
        count = getattr(self.tokenizer, "num_special_tokens_to_add", lambda: None)()
        return count if count == 0 or (count == 1 and self.adds_bos) else None

    def _read(self, texts: Sequence[str], **how: bool) -> Any:
        """What the tokenizer makes of texts; raises `TaskError` where it fails."""
        try:
            return self.tokenizer(list(texts), **how)
        except Exception as error:  # the tokenizers library raises bare Exception
            if out_of_memory(error):
                raise
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TaskError(
                f"the tokenizer of {self.name} cannot read {shorten(texts[0])!r}: {said}",
                hint="put the model's own tokenizer.json into its directory",
            ) from None

    def encode_as(self, text: str, ids: Sequence[int] | None) -> Encoded:
        """Encode one text; if that does not give these ids, then with or without BOS, where nothing forces either."""
        own = self.encode_one(text)
        if ids is None or own.ids == tuple(ids) or self.bos is not None or self.chat:
            return own
        forced = (False,) if self.tokenizer.bos_token_id is None else (False, True)
        others = (replace(self, bos=bos).encode([text])[0] for bos in forced)
        return next((other for other in others if other.ids == tuple(ids)), own)

    @property
    def forced(self) -> str:
        """What a task says of BOS, for a message; empty where it says nothing."""
        return "" if self.bos is None else f" with bos = {'yes' if self.bos else 'no'}"

    @property
    def adds_bos(self) -> bool:
        """Whether prompts begin with the beginning-of-sequence token."""
        return self.begins(self._special) if self.bos is None else self.bos

    @cached_property
    def _special(self) -> list[int]:
        """The ids of a text as the tokenizer gives them, special tokens included."""
        found: list[int] = self._read(["a"], add_special_tokens=True)["input_ids"][0]
        return found

    def begins(self, ids: Sequence[int]) -> bool:
        """Whether these ids begin with the beginning-of-sequence token."""
        return self._bos is not None and self._bos in ids[:1]

    @cached_property
    def _bos(self) -> int | None:
        return self.tokenizer.bos_token_id

    @cached_property
    def _unknown(self) -> int | None:
        return self.tokenizer.unk_token_id

    def unknown(self, text: str, encoded: Encoded) -> str | None:
        """The first word of a text that the tokenizer does not know; None where it knows all.

        Some tokenizers use one token both for unknown words and for the beginning of a sequence, such as GPT-2's. Where
        that token is written out in the text, it is no unknown word.
        """
        unknown = self._unknown
        if unknown not in encoded.ids:
            return None
        known = self.tokenizer.bos_token
        for token, (start, end) in zip(encoded.ids, encoded.spans, strict=True):
            if token == unknown and start < end and text[start:end].strip() != known:
                return _word(text, start, end)
        return None

    def continuation(self, before: str, text: str) -> tuple[int, ...]:
        """The ids that `text` adds when it follows `before`; empty where it changes the tokens before it."""
        return self.continuations(before, [text])[0]

    def continuations(self, before: str, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The continuation of each text; empty for all of them where nothing stands before it."""
        if not before:
            return [()] * len(texts)
        new = [text for text in texts if (before, text) not in self._continuations]
        if new:
            asked = [before, *(before + text for text in new)]
            short, *rest = self._read(asked, add_special_tokens=False)["input_ids"]
            for text, long in zip(new, rest, strict=True):
                self._continuations[before, text] = _rest(tuple(short), long)
        return [self._continuations[before, text] for text in texts]

    def whole(self, text: str) -> tuple[int, ...]:
        """The id of a text that is one token by itself; empty where it is not.

        Some tokenizers put a blank before every text. The token is then another than the text asks for.
        """
        ids = tuple(self._read([text], add_special_tokens=False)["input_ids"][0])
        return () if len(ids) != 1 or (self.text_of(ids[0])[:1].isspace() and not text[0].isspace()) else ids

    def text_of(self, token: int) -> str:
        """A token as it stands in a text, with the blank that it begins with."""
        piece = self.tokenizer.convert_ids_to_tokens(token)
        if piece is None:  # an embedding that the tokenizer does not use
            return f"<{token}>"
        if "▁" in piece:  # SentencePiece writes blanks so, and decoding would drop the first
            return str(piece.replace("▁", " "))
        decoded = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return piece if "\ufffd" in decoded else decoded

    def usable(self, words: WordList) -> tuple[str, ...]:
        """The words of a list that are the tokens the list asks for, all of them known."""
        found = self.continuations(words.before, [words.glue + word for word in words.words])
        return tuple(word for word, ids in zip(words.words, found, strict=True) if self._fits(words, word, ids))

    def _fits(self, words: WordList, word: str, ids: tuple[int, ...]) -> bool:
        if self._unknown in ids:
            return False
        if words.cut is None:
            return len(ids) == 1
        head, tail = words.glue + word[: words.cut], word[words.cut :]
        parts = self.continuation(words.before, head), self.continuation(words.before + head, tail)
        return len(ids) == 2 and ids == parts[0] + parts[1]

    def words(self, task: Task) -> Words:
        """The task's usable words; raises `TaskError` naming a list that has too few of them."""
        usable = task.narrow({name: self.usable(words) for name, words in task.lists.items()})
        for name, least in task.needs.items():
            if len(usable[name]) < least:
                raise TaskError(
                    f"the tokenizer of {self.name} leaves {len(usable[name])} of {len(task.lists[name].words)} "
                    f"words in the list '{name}' of task {task.name}, which needs {least}",
                    hint="words must be single tokens of the model's tokenizer; another model or task may serve",
                )
        return usable


def unequal_words(text: str, other: str, clean: Encoded, corrupt: Encoded) -> str:
    """The first words that differ in their number of tokens: ` (Mia is 2 tokens, Tom 1)`; empty where none are found.

    They are the n-th word of either text, so that texts of different numbers of words have none.
    """
    sides = [[(word[0], word.span()) for word in re.finditer(r"\S+", each)] for each in (text, other)]
    if len(sides[0]) != len(sides[1]) or not (clean.spans and corrupt.spans):
        return ""
    ends = [sorted(last for _, last in each.spans) for each in (clean, corrupt)]
    for (word, place), (partner, there) in zip(*sides, strict=True):
        n, m = (
            bisect_right(each, end) - bisect_right(each, start)
            for each, (start, end) in zip(ends, (place, there), strict=True)
        )
        if n != m:
            return f" ({shorten(word)!r} is {n} token{'s' * (n != 1)}, {shorten(partner)!r} {m})"
    return ""


def _rest(short: tuple[int, ...], long: Sequence[int]) -> tuple[int, ...]:
    """The ids that are added to others; none where those are changed."""
    return tuple(long[len(short) :]) if tuple(long[: len(short)]) == short else ()


def _word(text: str, start: int, end: int) -> str:
    """Part of a text, completed to whole words."""
    before, after = re.search(r"\w*$", text[:start]), re.match(r"\w*", text[end:])
    left = before[0] if before and text[start].isalnum() else ""
    right = after[0] if after and text[end - 1].isalnum() else ""
    return (left + text[start:end] + right).strip() or text[start:end]
