"""`init`, `check`, `explain` and `fmt`: what can be said and done about a spec's text without loading a model."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import Verbs, add_prompt_files, add_spec, session
from circuitdsl.cli.files import check_model, exists, load_all, write_spec
from circuitdsl.cli.tasks import task_named
from circuitdsl.cli.terminal import console, say, say_diagnostics, tell
from circuitdsl.errors import SPEC_WRONG, UsageError, UserError

if TYPE_CHECKING:
    from circuitdsl.api import CheckedFile

WOULD_CHANGE = 1
#: how `explain` shows a code, by its first letter
_STYLES = {"E": "bold red", "W": "bold yellow", "N": "bold blue"}


def register(verbs: Verbs) -> None:
    init = verbs.verb(_init, "init", "write a starter spec for a model and a task")
    init.add_argument("file", nargs="?", help="the file to write (default: TASK.circ); one that exists is left alone")
    init.add_argument("-o", "--output", metavar="FILE", help="the same")
    init.add_argument("--model", default="pocket", help="a model's name or directory (default: pocket)")
    init.add_argument("--task", default="ioi", help="a task as in a spec, or a prompt file, x.jsonl (default: ioi)")

    check = verbs.verb(_check, "check", "find mistakes in specs without loading a model")
    add_spec(check, "+")
    check.add_argument("--model", help="check against this model instead of the spec's own")
    add_prompt_files(check)
    check.add_argument("--format", choices=("text", "github"), default="text", help="github: with annotations")
    check.add_argument("--all", action="store_true", help="show all mistakes of a file, not the first 50 alone")

    explain = verbs.verb(_explain, "explain", "say what the code of a diagnostic means")
    explain.add_argument("code", nargs="?", help="such as E012; without one, all codes are listed")

    fmt = verbs.verb(_fmt, "fmt", "put specs into their one layout")
    fmt.add_argument(
        "file", nargs="+", help="a .circ file, or - for standard input (the result goes to standard output)"
    )
    fmt.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file would change")
    fmt.add_argument("--diff", action="store_true", help="write nothing; print what would change")


def _init(given: argparse.Namespace) -> int:
    from circuitdsl.api import circuit_of_task, load
    from circuitdsl.ordinary import write_whole

    if given.task.isidentifier():
        task_named(given.task)
    if given.file and given.output and given.file != given.output:
        raise UsageError(f"two files are named, {given.file} and {given.output}", hint="-o FILE is the same as FILE")
    path = Path(given.file or given.output or f"{circuit_of_task(given.task).tasks[0].name}.circ")
    if exists(path):
        raise UserError(f"{path} is there already, and is left as it is", hint="name another file")
    with session(given) as running:
        found = running.starter(given.task, path)
    write_whole(path, found.text)
    for warning in found.warnings:
        say(f"warning: {warning}")
    tell(f"wrote {path}; try: circuitdsl verify {'' if load(path).ok else '--allow-outside '}{path}")
    return 0


def _check(given: argparse.Namespace) -> int:
    from circuitdsl.api import checked_files

    check_model(given.model)
    specs = load_all(given.spec, given, given.format == "github", given.all)
    files = [checked_files(spec, given.model) for spec in specs]
    for spec, read in zip(specs, files, strict=True):
        claims = sum(len(circuit.claims) for circuit in spec.circuits)
        names = ", ".join(circuit.name for circuit in spec.circuits)
        warned = sum(diagnostic.severity == "warning" for diagnostic in spec.diagnostics)
        warnings = f", {warned} warning{'s' * (warned != 1)}" if warned else ""
        tell(f"{spec.path}: {names}: {claims} claim{'s' * (claims != 1)}, no errors{warnings}")
        for file in read:
            tell(f"  {file.name}: {_read(file)}")
    return 0


def _read(file: CheckedFile) -> str:
    """What `check` says of a prompt file: what is scored, or that its tokens are not known."""
    count = f"{file.prompts} prompt{'s' * (file.prompts != 1)}"
    if not file.by_tokens:
        return (
            f"{count}; not checked: their tokens, as the model's tokenizer is not at hand (--model DIR names another)"
        )
    from circuitdsl.report.terminal import listed

    return f"{count}, answer tokens {listed(file.answers)} against {listed(file.distractors)}"


def _explain(given: argparse.Namespace) -> int:
    from rich.table import Table
    from rich.text import Text

    from circuitdsl.language.diagnostics import codes, did_you_mean, shorten, suggest

    terminal = console()
    if given.code is None:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for each in codes().values():
            table.add_row(Text(each.code, _STYLES[each.code[0]]), Text(each.title))
        terminal.print(table)
        return 0
    wanted = given.code.strip("[]").upper()
    code = codes().get(wanted)
    if code is None:
        guess = did_you_mean(suggest(wanted, codes()))
        raise UsageError(f"there is no code {shorten(given.code)}{guess}", hint="circuitdsl explain lists all codes")
    terminal.print(Text.assemble((code.code, _STYLES[code.code[0]]), (f": {code.title}", "bold")))
    terminal.print()
    terminal.print(Text(code.explanation.replace("`", "")), width=min(terminal.width, 100))
    if code.example:
        terminal.print()
        for line in code.example.split("\n"):
            terminal.print(Text(f"    {line}", "cyan"), soft_wrap=True)
    return 0


def _fmt(given: argparse.Namespace) -> int:
    from circuitdsl.ordinary import write_whole

    if given.file.count("-") > 1:
        raise UsageError("standard input is given twice")
    texts = [(name, *_formatted(name)) for name in given.file]
    changed = [name for name, before, after in texts if after is not None and after != before]
    for name, before, after in texts:
        if after is None:
            continue
        if given.diff:  # different line ends alone are not shown
            old, new = (text.replace("\r\n", "\n").split("\n") for text in (before, after))
            for line in difflib.unified_diff(old, new, name, f"{name} (formatted)", lineterm=""):
                tell(line)
        elif name == "-" and not given.check:
            write_spec(None, after)
        elif name in changed and given.check:
            say(f"{name} would change")
        elif name in changed:
            write_whole(Path(name), after)
            tell(f"{name} formatted")
    if any(after is None for _, _, after in texts):
        return SPEC_WRONG
    return WOULD_CHANGE if given.check and changed else 0


def _formatted(name: str) -> tuple[str, str | None]:
    """A file's text, and that text in the canonical layout; None after syntax errors, which are printed."""
    from circuitdsl.language.format import NotFormatted, format_text
    from circuitdsl.language.parse import MAX_BYTES, decode, read_source

    stdin = name == "-"
    text, found = decode(sys.stdin.buffer.read(MAX_BYTES + 1)) if stdin else read_source(name)
    shown = "<stdin>" if stdin else name
    try:
        if not found:
            return text, format_text(text, shown)
    except NotFormatted as refused:
        found = refused.diagnostics
    say_diagnostics(found, text, shown)
    return text, None
