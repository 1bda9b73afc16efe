"""Hostile names and files through every verb that the parser has: a clear answer in time, and nothing else happens."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from circuitdsl import cli
from tests.drawing import examples
from tests.hostile.inputs import GOOD, MODELS, PAIR, PROMPT_FILES, REPORTS, SPECS, WORDS, Make
from tests.hostile.texts import commands, unseen

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")

Parser = argparse.ArgumentParser
Run = Callable[..., tuple[int, str, str]]
#: exit statuses of the documentation; lines and characters that a command says at most; CPU seconds
STATUSES, LINES, CHARACTERS, SECONDS = {0, 1, 2, 3}, 500, 60_000, 20.0
#: by the name of an argument, what is put there as a rule; `-o` of any verb names a file that may be written
USUAL: dict[str, str] = {
    "spec": "good.circ", "first": "good.circ", "second": "good.circ", "source": "pocket", "old": "old.json",
    "new": "old.json", "code": "E012", "task": "ioi", "to": "2.4.q", "head": "2.4", "target": "IO",
    "report": "old.json", "files": "edges.json", "found": "old.json", "layer": "1",
}  # fmt: skip
#: where a verb's argument of that name is another thing
OTHERWISE = {
    ("fmt", "file"): "good.circ", ("init", "file"): "new.circ", ("tasks check", "file"): "p.jsonl",
    ("trace", "source"): "END", ("import", "file"): "edges.json",
    ("dictionaries", "name"): "pocket/transcoders/1",
}  # fmt: skip
#: keeps what is run short
SMALL = {"prompts": "2", "budget": "2", "n": "1"}
#: by the name of an argument, the files that a stranger may have made of it
FILES = {
    "good.circ": (SPECS, "x.circ"), "p.jsonl": (PROMPT_FILES, "x.jsonl"), "old.json": (REPORTS, "x.json"),
    "edges.json": (REPORTS, "x.json"),
}  # fmt: skip
#: the verbs that are given all files; what others read is read by the same functions
WHOLE = ("check", "fmt", "diff", "tasks check")
#: what is written where no name is given
UNNAMED = {"t.svg", "ioi.circ", "p.circ"}
OUTPUTS = ("output", "per_prompt", "good", "bad")


def verbs(
    parser: argparse.ArgumentParser, before: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every verb, and every verb of a verb, with what reads its arguments."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in inner:
        for name, found in action.choices.items():
            yield from verbs(found, (*before, name))
    if before and not inner:
        yield " ".join(before), parser


PARSER = cli.command_line()
VERBS = dict(verbs(PARSER))


def usual(verb: str, action: argparse.Action) -> str:
    if action.dest in OUTPUTS:
        return f"{action.dest}.out"
    found = OTHERWISE.get((verb, action.dest)) or USUAL.get(action.dest)
    assert found, f"say in USUAL what {action.dest} of {verb} is as a rule"
    return found


def command(verb: str, changed: argparse.Action | None = None, word: str = "") -> list[str]:
    """A verb with what it needs; in the place of one argument stands the word."""
    named, placed = verb.split(), list[str]()
    for action in VERBS[verb]._actions:
        if action is not changed and not action.required and action.dest not in SMALL:
            continue
        given = word if action is changed else SMALL.get(action.dest) or usual(verb, action)
        if action.option_strings and action.nargs is None:
            named.append(f"{action.option_strings[-1]}={given}")
        elif action.option_strings:
            named += [action.option_strings[-1], given]
        else:
            placed.append(given)
    return [*named, "--", *placed] if any(each.startswith("-") for each in placed) else [*named, *placed]


def taking(verb: str) -> list[argparse.Action]:
    """The arguments of a verb that take a word of any kind."""
    return [action for action in VERBS[verb]._actions if action.nargs != 0 and not action.choices]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the usual files. The cache and the home of the user lie elsewhere."""
    folder = tmp_path / "here"
    folder.mkdir()
    for variable, name in (("HOME", "home"), ("CIRCUITDSL_CACHE", "home/cache"), ("XDG_CACHE_HOME", "home/.cache")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cli, "command_line", lambda: PARSER)  # making it takes longer than most answers
    return folder


def fill(folder: Path) -> None:
    """Make the usual files anew."""
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    (folder / "good.circ").write_text(GOOD)
    (folder / "p.jsonl").write_text(json.dumps(PAIR) + "\n")
    (folder / "old.json").write_text("{}")
    (folder / "edges.json").write_text("{}")


def contents(folder: Path) -> set[Path]:
    return {path for path in folder.parent.rglob("*") if "home" not in path.relative_to(folder.parent).parts[:1]}


def answered(run: Run, given: list[str], folder: Path) -> None:
    """The command ends as the documentation says, and has written nothing but the file that it names."""
    before, start = contents(folder), time.process_time()
    status, out, err = run(*given)
    said = out + err
    assert time.process_time() - start < SECONDS, given
    assert status in STATUSES, given
    assert "Traceback" not in said and "mistake of circuitdsl" not in said, (given, err)
    assert said.count("\n") <= LINES and len(said) <= CHARACTERS, (given, said[:300])
    assert not unseen(said, "\n"), (given, unseen(said, "\n"))
    assert not commands(said), (given, commands(said)[:3])
    assert status == 0 or err or given[0] in ("fmt", "tasks", "diff", "falsify", "verify", "mutate"), given
    new = contents(folder) - before
    words = {word.partition("=")[2] if "=" in word and word[0] == "-" else word for word in given}
    named = {Path(os.path.abspath(folder / word)) for word in words | UNNAMED if word}
    assert all(named & {path, *path.parents} for path in new), (given, new)


@pytest.mark.parametrize("verb", VERBS)
def test_any_word_for_any_argument(verb: str, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every argument is given some of the words, and in a long run all of them."""
    rng = random.Random(verb)
    actions = taking(verb)
    each = examples(max(3, len(WORDS) // max(1, 2 * len(actions))), len(WORDS))
    turn = itertools.cycle(rng.sample(WORDS, len(WORDS)))
    for action in actions:
        for word in itertools.islice(turn, each):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"circuit t")))
            fill(here)
            answered(run, command(verb, action, word), here)


@pytest.mark.parametrize("verb", VERBS)
def test_any_file_for_any_argument(verb: str, run: Run, here: Path) -> None:
    """Every argument that names a file is given all files of that kind that a stranger may have made."""
    for action in taking(verb):
        for make, name in files(verb, action):
            fill(here)
            make(here / name)
            answered(run, command(verb, action, name), here)


def files(verb: str, action: argparse.Action) -> list[tuple[Make, str]]:
    """What is made for an argument, and under which name: all of it for some verbs, a part for the others."""
    usually = USUAL.get(action.dest) if (verb, action.dest) not in OTHERWISE else OTHERWISE[verb, action.dest]
    made, name = {
        "model": (MODELS, "./m"), "task": (PROMPT_FILES, "x.jsonl"), "report": (REPORTS, "x.json"),
        "control": (SPECS, "x.circ"),
    }.get(action.dest) or FILES.get(usually or "", ({}, ""))  # fmt: skip
    if verb == "channels" and action.dest == "source":
        made, name = SPECS, "x.circ"
    if not made or (verb, action.dest) == ("trace", "task"):
        return []
    rng = random.Random(f"{verb} {action.dest}")
    some = list(made.values()) if verb in WHOLE else rng.sample([*made.values()], examples(4, len(made)))
    evil = f"x\x1b[2J\u202e\n::error::y##[z]{Path(name).suffix}"
    return [*((make, name) for make in some), (lambda path: path.write_bytes(b"x"), evil)]


def test_standard_input(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in SPECS.values():
        fill(here)
        make(here / "x.circ")
        path = here / "x.circ"
        if not path.is_symlink() and path.is_file() and path.stat().st_size < 10**6:
            data = path.read_bytes()
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
            status, out, err = run("fmt", "-")
            assert status in (0, 2) and not unseen(err, "\n")
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
            status, out, err = run("fmt", "-", "--diff")
            assert not unseen(out + err, "\n") and not commands(out + err)
