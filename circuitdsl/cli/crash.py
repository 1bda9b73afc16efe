"""What is said when something goes wrong that nobody foresaw: one sentence, and never the status of a failed claim."""

from __future__ import annotations

import traceback
from pathlib import Path

from circuitdsl.cli.terminal import say
from circuitdsl.errors import out_of_memory
from circuitdsl.version import __version__


def say_crash(error: BaseException, debug: bool) -> None:
    """Say in a sentence what went wrong, and what to do; with `debug` the traceback stands before it."""
    if debug:
        for line in "".join(traceback.format_exception(error)).splitlines():
            say(line)
    if out_of_memory(error):
        why = str(error) if isinstance(error, MemoryError) else ""
        say(f"error: the memory does not suffice{f': {why}' * bool(why)}")
        say("  help: close other programs, or give less: fewer --prompts, --dtype bfloat16, --memory, a smaller model")
        return
    said = " ".join(str(error).split())[:200]
    say(f"error: circuitdsl {__version__} failed: {type(error).__name__}{f': {said}' * bool(said)} ({_place(error)})")
    more = "this sentence" if debug else "this sentence and what --debug prints"
    say(f"  help: this is a mistake of circuitdsl and says nothing of the spec; please report {more}")


def _place(error: BaseException) -> str:
    """Where it was raised: a line of this package, or of another."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "circuitdsl" in Path(frame.filename).parts] or frames
    return f"{'/'.join(Path(ours[-1].filename).parts[-2:])}:{ours[-1].lineno}" if ours else "no place known"
