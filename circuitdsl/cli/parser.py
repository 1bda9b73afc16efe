"""The parser of the command line: a mistake is named with what was probably meant, under the usage of its own verb."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, cast


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

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            guess = _guess(str(value), known) if isinstance(action, argparse._SubParsersAction) else ""
            raise argparse.ArgumentError(action, f"invalid choice: {value!r} (choose from {', '.join(known)}){guess}")


class Verbs(argparse._SubParsersAction):
    """The verbs. The --help of a verb begins with the sentence that the list of verbs has about it."""

    def verb(self, run: Callable[[Any], int], name: str, help: str, epilog: str | None = None) -> Parser:
        """Add a verb; `run` takes the parsed arguments and returns the exit status."""
        added: Parser = self.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=epilog)
        added.set_defaults(run=run)
        return added


def _guess(word: str, known: Iterable[str]) -> str:
    from circuitdsl.language.diagnostics import did_you_mean, suggest

    return did_you_mean(suggest(word, known))
