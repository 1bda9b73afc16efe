"""What can be wrong with a model, each as one sentence for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circuitdsl.errors import UserError, out_of_memory


class ModelUnavailable(UserError):
    """The weights are not at hand, or what is at hand cannot be read."""


class UnsupportedModel(UserError):
    """A readable model that the engine must not touch: its residual stream is not the sum it patches."""


class BrokenWeights(UserError):
    """Weights that are missing, of the wrong shape, or not finite; the message names the tensor."""


class NotTraced(UserError):
    """A model whose attention scores are not those of one matrix."""


class PatchError(UserError):
    """A patch that cannot be made: a node or position that does not exist, a sender that comes too late."""


@contextmanager
def refusing(problem: str, folder: Path | None = None) -> Iterator[None]:
    """Raise whatever transformers raises on a wrong configuration as `UnsupportedModel`, with `problem` before it.

    Where it names the folder, it says "it".
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        said = first_line(error)
        raise UnsupportedModel(f"{problem}: {said.replace(str(folder), 'it') if folder else said}") from None


def first_line(error: Exception) -> str:
    """What an error says first; where that only announces the next line, both."""
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (f"{first} {rest[0]}" if first.endswith(":") and rest else first)[:200]
