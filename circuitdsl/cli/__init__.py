"""The command line. Each module in `MODULES` has a few verbs; its `register` adds them, with their arguments."""

from __future__ import annotations

import argparse
import gc
import io
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from circuitdsl.cli.arguments import Parser, VerbsHelp
from circuitdsl.cli.crash import say_crash
from circuitdsl.cli.room import look_ahead
from circuitdsl.cli.terminal import PLAIN, say, say_error, status, tell
from circuitdsl.errors import INTERRUPTED, NOT_RUN, SPEC_WRONG, UserError, out_of_memory
from circuitdsl.garbage import RARELY
from circuitdsl.shown import SHOW
from circuitdsl.version import __version__

#: the modules beside this one, in the order in which --help lists their verbs
MODULES = (
    "verify",
    "matrix",
    "view",
    "language",
    "drawings",
    "circuits",
    "sweep",
    "scores",
    "dictionaries",
    "testing",
    "tasks",
    "editor",
    "completion",
)
#: the option that shows tracebacks, wherever it stands
DEBUG = "--debug"
#: how the version is asked for, and with it what a bug report needs
VERSION, VERBOSE = ("-V", "--version"), "--verbose"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status.

    The process ends without taking torch and all objects down first, which takes as long as importing them.
    """
    gc.set_threshold(*RARELY)
    try:
        leave(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads on
            status = status or NOT_RUN
    os._exit(status)


def leave(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and raise `SystemExit` with its status."""
    if sys.stdout is None or sys.stderr is None:  # the caller has closed it: what is written there is lost
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)  # so that a report can be written where there is no minus sign
    given = sys.argv[1:] if arguments is None else arguments
    debug = DEBUG in given
    try:
        look_ahead()
        status = run([word for word in given if word != DEBUG])
        sys.stdout.flush()
    except KeyboardInterrupt:
        say("interrupted")
        status = INTERRUPTED
    except SystemExit:
        raise
    except BaseException as error:  # an uncaught one would end the process as if a claim had failed
        status = NOT_RUN
        if not isinstance(error, OSError) or error.filename is not None or out_of_memory(error):
            say_crash(error, debug)
        else:
            if not isinstance(error, BrokenPipeError):  # that one says only that nobody reads on, as after `head`
                say(f"error: cannot write the output: {error.strerror or error}")
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status (0 holds, 1 fails, 2 spec wrong, 3 could not be run)."""
    if any(sorted(arguments) == sorted((VERBOSE, name)) for name in VERSION):
        from circuitdsl.cli.about import about

        for line in about():
            tell(line)
        return 0
    parser = command_line()
    if not arguments:
        parser.print_help(sys.stderr)
        return SPEC_WRONG
    given = parser.parse_args(arguments)
    SHOW.set(status)
    given.command = shlex.join(("circuitdsl", *arguments))
    try:
        return int(given.run(given))
    except UserError as error:
        say_error(error)
        return error.status


def command_line() -> argparse.ArgumentParser:
    """The parser of all arguments, with every verb."""
    parser = Parser(
        prog="circuitdsl",
        formatter_class=VerbsHelp,
        description="Verify circuits of transformers, written as text, claim by claim against the real model.",
        epilog="exit status: 0 every claim holds; 1 some fail or are undecided; 2 a wrong spec; 3 it could not run",
    )
    parser.add_argument(DEBUG, action="store_true", help="print the traceback of a mistake of circuitdsl's own")
    parser.add_argument(
        *VERSION,
        action="version",
        version=f"circuitdsl {__version__}",
        help="print the version and exit; with --verbose, what a bug report needs",
    )
    verbs = parser.add_verbs(title="verbs", required=True, metavar="VERB")
    for module in MODULES:
        import_module(f"circuitdsl.cli.{module}").register(verbs)
    return parser
