"""Runs the commands that a page shows, and compares or writes what they print: `python docs/_site/console.py PAGE …`.

A page has commands in blocks of the kind `console`, each after a `$`, with their output below. `<!-- file NAME -->`
above any other block writes it to a file; `<!-- folder NAME -->` fetches the files of a folder of docs/. A line `…`
stands for any lines of output. Times, versions and whether numbers were known already are no part of a comparison.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

DOCS = Path(__file__).parent.parent

_STEP = re.compile(
    r"<!-- folder (?P<folder>\S+) -->|<!-- file (?P<file>\S+) -->\n```\S*\n(?P<text>.*?)```"
    r"|```console\n(?P<console>.*?)```",
    re.DOTALL,
)
_VARIES = (
    (re.compile(r"circuitdsl \d\S* · torch \S+"), "versions"),
    (re.compile(r"\d[\d.,]* s\b(, \d+ % of the numbers known from earlier runs)?"), "a time"),
    (re.compile(r"at most [\d.,]+ [kMG]B"), "at most"),
)
ANY = "…"


def shown_again(page: str) -> str:
    """The page with what its commands print now. A block that says the same as it did is left as it is.

    Commands run in the working directory, and files are written there.
    """
    status = 0

    def step(found: re.Match[str]) -> str:
        nonlocal status
        if found["folder"]:
            shutil.copytree(DOCS / found["folder"], ".", dirs_exist_ok=True)
        elif found["file"]:
            Path(found["file"]).write_text(found["text"], encoding="utf-8")
        else:
            blocks = []
            for command, before in _commands(found["console"]):
                now, status = _output(command, status)
                blocks.append(f"$ {command}\n" + (before if same(before, now) else now))
            return "```console\n" + "".join(blocks) + "```"
        return found[0]

    return _STEP.sub(step, page)


def same(shown: str, printed: str) -> bool:
    """Whether a page shows what is printed, but for what varies from run to run and the lines that it leaves out."""
    parts = [re.escape(part) for part in re.split(rf"^{ANY}\n", _constant(shown), flags=re.MULTILINE)]
    return re.fullmatch(r"(?:.*\n)*?".join(parts), _constant(printed)) is not None


def _constant(text: str) -> str:
    for pattern, word in _VARIES:
        text = pattern.sub(word, text)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def _commands(block: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def _output(command: str, status: int) -> tuple[str, int]:
    """What a command prints, and its exit status. The status of the command before is what `echo $?` prints."""
    words = shlex.split(command)
    if words == ["echo", "$?"]:
        return f"{status}\n", 0
    return _circuitdsl(words)


def _circuitdsl(words: Sequence[str]) -> tuple[str, int]:
    from circuitdsl import cli

    if words[0] != "circuitdsl":
        raise ValueError(f"pages run circuitdsl and echo $?, not {words[0]}")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            cli.leave(words[1:])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    return printed.getvalue(), status


def main() -> None:
    """Write what the commands of the named pages print now."""
    for page in [Path(name).resolve() for name in sys.argv[1:]]:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            os.environ["CIRCUITDSL_CACHE"] = str(Path(folder) / "cache")
            page.write_text(shown_again(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
