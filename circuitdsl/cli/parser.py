"""The parser of the command line: a mistake is named with what was probably meant, under the usage of its own verb."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class Parser(argparse.ArgumentParser):
    """One of these reads a verb's arguments; `argparse` makes them all of the class of the first."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the inherited one, but what it does not know is an error here, not of the whole program."""
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


def _guess(word: str, known: Iterable[str]) -> str:
    from circuitdsl.language.diagnostics import did_you_mean, suggest

    return did_you_mean(suggest(word, known))
