"""The parser of the command line, the options that several verbs have, and the session that they ask for.

A mistake is named with what was probably meant, under the usage of its own verb.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, cast

from circuitdsl.brief import brief, quoted
from circuitdsl.circuit.paths import prompt_files
from circuitdsl.cli.terminal import progress, say, status
from circuitdsl.errors import UsageError
from circuitdsl.limits import positive, seed, size_of
from circuitdsl.visible import line

if TYPE_CHECKING:
    from circuitdsl.verify.session import Session


class Parser(argparse.ArgumentParser):
    """One of these reads a verb's arguments; `argparse` makes them all of the class of the first."""

    def add_verbs(self, **described: Any) -> Verbs:
        """Take a verb as the next argument; `described` are the options of `add_subparsers`."""
        return cast(Verbs, self.add_subparsers(action=Verbs, **described))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as the inherited method does, but report unknown arguments under the usage of this verb."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [word for word in unknown if word.startswith("-")]
            if options:
                name = options[0].partition("=")[0]
                self.error(f"there is no option {name}{_guess(name, self._option_string_actions)}")
            self.error(f"'{unknown[0]}' is one argument too many")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """End with the usage of this verb and the message, which stays one short line, whatever it quotes."""
        super().error(brief(line(message)))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            guess = _guess(str(value), known) if isinstance(action, argparse._SubParsersAction) else ""
            raise argparse.ArgumentError(
                action, f"invalid choice: {quoted(repr(value))} (choose from {', '.join(known)}){guess}"
            )


class Verbs(argparse._SubParsersAction):
    """The verbs. The --help of a verb begins with the sentence that the list of verbs has about it."""

    def verb(self, run: Callable[[Any], int], name: str, help: str, epilog: str | None = None) -> Parser:
        """Add a verb; `run` takes the parsed arguments and returns the exit status."""
        added: Parser = self.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=epilog)
        added.set_defaults(run=run)
        return added


class VerbsHelp(argparse.HelpFormatter):
    """The list of verbs, each with its sentence beside it; `argparse` leaves the longest one no room."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, Verbs):
            self._action_max_length += self._indent_increment


def _guess(word: str, known: Iterable[str]) -> str:
    from circuitdsl.language.diagnostics import did_you_mean, suggest

    return did_you_mean(suggest(word, known))


def fraction(what: str, low: float = 1e-9, high: float = math.nextafter(1.0, 0.0)) -> Callable[[str], float]:
    """A function that reads `5%` or `0.05`, within bounds; its error names `what` is wanted, with an example."""

    def read(text: str) -> float:
        try:
            value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            value = -1.0
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{quoted(text)} is not a {what}")
        return value

    return read


#: readers of a significance level, and of a share of the gap
level, share = fraction("level such as 5%"), fraction("share such as 2%")


def budget(text: str) -> str:
    """Check a budget: `90`, `90s`, `5m`, `2e6 blocks`."""
    from circuitdsl.discover.watch import budget_of

    try:
        budget_of(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{error.message}: {error.hint}") from None
    return text


def size(text: str) -> int:
    """Read a number of bytes: `2GB`, `500 MB`, `1.5GiB`."""
    try:
        return size_of(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def quantised(text: str) -> str:
    """Refuse a format in which other libraries load weights, and say why."""
    raise argparse.ArgumentTypeError(
        f"weights are not loaded in {text}: a quantised product rounds what it multiplies, so that the terms of heads "
        "and MLPs do not add up to what the model computes; take --dtype bfloat16, and --device-map balanced where one "
        "GPU does not hold it"
    )


def add_spec(verb: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """Add the name of a spec; with `nargs`, of several."""
    verb.add_argument("spec", nargs=nargs, help="a .circ file, or a shipped spec such as pocket/ioi")
    add_outside(verb)


def add_outside(verb: argparse.ArgumentParser) -> None:
    """Add the option for specs that are trusted to open files."""
    what = "let specs name prompt files outside their folders"
    verb.add_argument("--allow-outside", action="store_true", help=what)


def add_prompt_files(verb: argparse.ArgumentParser) -> None:
    """Add prompt files that take the place of the prompts of a task."""
    what = "take the prompts of this task from a file, instead of the spec's; may be given again"
    verb.add_argument("--task", action="append", metavar="NAME=FILE", help=what)


def files_of_tasks(given: argparse.Namespace) -> dict[str, str]:
    """The prompt files that `--task NAME=FILE` names; raises what `prompt_files` raises."""
    tasks = getattr(given, "task", None)
    return prompt_files(tasks) if isinstance(tasks, list) else {}


def add_circuit(verb: argparse.ArgumentParser) -> None:
    """Add the option that chooses one circuit of the spec."""
    verb.add_argument("--circuit", help="which circuit, where the spec has several")


def add_prompts(verb: argparse.ArgumentParser, several: bool = False) -> None:
    """Add the number of prompts and their seed, or several seeds."""
    verb.add_argument("--prompts", type=positive, help="prompts per task at most, instead of the spec's number")
    again = _AGAIN if several else {}
    what = f"seed of the prompts, instead of the spec's{_MAY * several}"
    verb.add_argument("--seed", type=seed, help=what, **again)


#: of an option that may be given several times
_AGAIN: dict[str, Any]
_AGAIN, _MAY = {"action": "append"}, "; may be given again"


def add_session(
    verb: argparse.ArgumentParser,
    otherwise: str = "instead of the spec's own",
    cache: bool = True,
    several: bool = False,
) -> None:
    """Add the options of a session: the model (or several), device and number format, memory, the cache of numbers."""
    again = _AGAIN if several else {}
    verb.add_argument("--model", help=f"a model's name or directory, {otherwise}{_MAY * several}", **again)
    verb.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: a GPU, if any")
    verb.add_argument("--device-map", choices=("balanced", "auto"), help="lay the model over all GPUs, by layers")
    verb.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="number format")
    verb.add_argument("--load-in", type=quantised, help=argparse.SUPPRESS)
    verb.add_argument("--memory", type=size, metavar="SIZE", help="measure in no more than this beside the model (2GB)")
    if cache:
        no_cache = "measure everything, whatever earlier runs have found"
        verb.add_argument("--no-cache", dest="cache", action="store_false", help=no_cache)


def session(given: argparse.Namespace, model: str | None = None) -> Session:
    """The session that the options ask for; a verb that has only `--model` gets the defaults of the others."""
    from circuitdsl.verify.session import Session

    named = {
        name: getattr(given, name)
        for name in ("device", "device_map", "dtype", "cache", "memory", "allow_outside")
        if hasattr(given, name)
    }
    warn = lambda text: say(f"warning: {brief(text)}")  # noqa: E731
    named |= {"prompt_files": files_of_tasks(given)}
    return Session(given.model or model, **named, busy=status, meter=progress, warn=warn)
