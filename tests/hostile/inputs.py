"""Everything that a stranger may hand to a verb: names, specs, prompt files, reports. Each is made in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from circuitdsl.models.load import POCKET
from tests.hostile.texts import TEXTS

Make = Callable[[Path], object]

HEAD = 'circuit t "title"\nmodel "pocket"\ntask ioi(prompts = 4)\nheads a = 0.3 0.5 at END\n'
CLAIMS = (
    'expect accuracy >= 5%\na -> 2.4.q at END : matters\nproperty "p" for 10% of prompts\n  expect logit_diff > -99\n'
    "intervention off\n  scale 2.4 by 0\n  expect logit_diff falls\n"
)
GOOD = HEAD + CLAIMS
PAIR = {
    "clean": "The store Lauren and Matthew went to had a drink. Lauren gave it to",
    "corrupt": "The store Lauren and Matthew went to had a drink. Emily gave it to",
    "answer": " Matthew", "distractor": " Lauren",
}  # fmt: skip
#: in the place of any name or number on the command line, which can hold neither NUL nor halves of all kinds
WORDS = (
    *(text for text in TEXTS.values() if not {"\0", "\ud800"} & set(text)), "\udc80", "", "-", ".", "/", "/dev/zero",
    "/dev/null/x", "../up", "~nosuchuser/x", "~", "a" * 3000, "9" * 400, "nan", "-1", "1e999", "0x10", "x=y", "0.0.q",
    "pocket/ioi#", 'file("p.jsonl")', "ioi(prompts = -1)", "ioi(", "*", "$HOME", "%s{}", "𝟘", "é" * 300,
)  # fmt: skip


def _spec(text: str | bytes) -> Make:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return lambda path: path.write_bytes(data)


def _with_prompts(line: str) -> Make:
    """A spec on a prompt file beside it."""

    def make(path: Path) -> None:
        (path.parent / "own.jsonl").write_text(line)
        path.write_text('circuit t\nmodel "pocket"\ntask file("own.jsonl")\nexpect accuracy >= 5%\n')

    return make


def _sparse(size: int) -> Make:
    def make(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return make


#: files in the place of a spec
SPECS: dict[str, Make] = {
    "nothing": _spec(""),
    "bytes": _spec(bytes(range(256))),
    "no UTF-8": _spec(b'circuit t "\xff\xfe"\n'),
    "UTF-16": _spec(GOOD.encode("utf-16")),
    "a half character": _spec(GOOD + "# \ud800"),
    "returns alone": _spec(GOOD.replace("\n", "\r")),
    "a mark": _spec("\ufeff" + GOOD),
    "brackets": _spec(HEAD + "expect " + "(" * 5000),
    "quotes": _spec(HEAD + '"' * 5000),
    "minus signs": _spec(HEAD + "a -> 2.4.q at END : effect >= " + "-" * 5000 + "1%"),
    "many claims": _spec(HEAD + "expect accuracy >= 5%\n" * 300 + "expect acuracy >= 5%\n" * 60),
    "long names": _spec(HEAD + f"{'x' * 3000} -> {'y' * 3000}.q at END\n"),
    "large numbers": _spec(HEAD + f"expect accuracy >= {'9' * 3000}%\nheads b = {'9' * 3000}.1\n"),
    "many circuits": _spec("".join(f"circuit c{i}\nexpect accuracy >= 5%\n" for i in range(100))),
    "one group in another": _spec("circuit t\nheads a = b\nheads b = a\n"),
    "itself": _spec('circuit t\nuse "self.circ"\n'),
    "the system's file": _spec(GOOD + 'task file("/etc/passwd")\n'),
    "a file above": _spec(GOOD + 'task file("../../../etc/passwd")\nuse role x from "../../x.circ"\n'),
    "a model above": _spec(GOOD.replace('"pocket"', '"../../../../dev"')),
    "a model's name": _spec(GOOD.replace('"pocket"', '"~nosuchuser/x"')),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("/nowhere/x"),
    "a link to itself": lambda path: path.symlink_to(path),
    "2 GB": _sparse(2 * 10**9),
    "prompts that are none": _with_prompts('{"clean": "\x1b[2J\u202e", "corrupt": 1}\n[]\n\x1b[2J\n'),
    "texts in prompts": _with_prompts("".join(json.dumps(PAIR | {"answer": text}) + "\n" for text in TEXTS.values())),
    "keys in prompts": _with_prompts("".join(json.dumps(PAIR | {text: text}) + "\n" for text in TEXTS.values())),
    "strata of prompts": _with_prompts("".join(json.dumps(PAIR | {"stratum": text}) + "\n" for text in TEXTS.values())),
    "texts in comments": _spec(GOOD + "".join(f"# {text}\n" for text in TEXTS.values() if "\n" not in text)),
    "texts as lines": _spec(GOOD + "\n".join(TEXTS.values())),
    "texts as titles": _spec("".join(f'note "{text}"\n' for text in TEXTS.values()) + GOOD),
    "texts as names": _spec(HEAD + "".join(f"{text} -> 2.4.q at END\n" for text in TEXTS.values())),
    "titles that are read": _spec(
        GOOD.replace('"title"', '"::error::x ##[add-mask]y </script><script> [bold]x[/] \u200b\u200f\ufeff %0A"')
    ),
}  # fmt: skip


def _lines(text: str) -> Make:
    return lambda path: path.write_bytes(text.encode("utf-8", "surrogatepass"))


NUMBERS = ("NaN", "1e999", "9" * 5000)
#: files in the place of a prompt file
PROMPT_FILES: dict[str, Make] = {
    "nothing": _lines(""),
    "texts": _lines("\n".join(TEXTS.values())),
    "texts as keys": _lines("\n".join(json.dumps({text: text, "clean": text}) for text in TEXTS.values())),
    "texts as strata": _lines("\n".join(json.dumps(PAIR | {"stratum": text}) for text in TEXTS.values())),
    "texts as prompts": _lines(
        "\n".join(json.dumps(PAIR | {"clean": text, "corrupt": text + "x"}) for text in TEXTS.values())
    ),
    "no numbers": _lines("\n".join(f'{{"clean": {odd}, "corrupt_tokens": [{odd}]}}' for odd in NUMBERS)),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "2 GB": _sparse(2 * 10**9),
    "deep": _lines("[" * 50_000),
}  # fmt: skip


def _report(body: Any) -> Make:
    return lambda path: path.write_text(body if isinstance(body, str) else json.dumps(body))


#: files in the place of a report
REPORTS: dict[str, Make] = {
    "nothing": _report(""),
    "bytes": lambda path: path.write_bytes(bytes(range(256))),
    "deep": _report("[" * 50_000),
    "another thing": _report({"schema": 1, "claims": "\x1b[2J"}),
    "texts": _report({"schema": "\x1b[2J\u202e\n::error::x"}),
    "large numbers": _report('{"schema": ' + "9" * 5000 + "}"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "2 GB": _sparse(2 * 10**9),
}  # fmt: skip


def _model(config: str) -> Make:
    def make(path: Path) -> None:
        path.mkdir()
        for name in ("model.safetensors", "tokenizer.json"):
            (path / name).symlink_to(POCKET / name)
        (path / "config.json").write_text(config)

    return make


_CONFIG = json.loads((POCKET / "config.json").read_text())
#: directories in the place of a model; `attacks.py` has many more, for the verbs that read them
MODELS: dict[str, Make] = {
    "nothing": lambda path: path.mkdir(),
    "a file": _report("x"),
    "a pipe": lambda path: os.mkfifo(path),
    "texts in its configuration": _model(json.dumps(_CONFIG | {"model_type": "\x1b[2J\u202e\n::error::x"})),
    "texts as numbers": _model(json.dumps(_CONFIG | {"n_layer": "\x1b[2J\u202e\n::error::x"})),
    "deep": _model("[" * 50_000),
}  # fmt: skip
