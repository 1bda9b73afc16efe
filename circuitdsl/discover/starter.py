"""A starter spec for a model and a task: what to fill in, and whether the model does the task at all."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from circuitdsl.api import circuit_of_task, loads
from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.circuit.shapes import shape_of
from circuitdsl.discover.asked import beside
from circuitdsl.errors import UsageError, UserError
from circuitdsl.language.format import format_text
from circuitdsl.models.errors import ModelUnavailable
from circuitdsl.models.tokenizers import quiet_and_offline
from circuitdsl.report.prompts import Prompts, summary
from circuitdsl.tasks.from_file import PromptFileError, check_file
from circuitdsl.tasks.places import positions_in
from circuitdsl.tasks.registry import TASKS
from circuitdsl.verify.session import Session

_TEXT = """\
{head}
circuit {name} "{title}"
  # source "who found it, and where"

model "{model}"
task {task}
metric {metric}
{corruptions}# positions: {positions}

# who takes part, and where: LAYER.HEAD, counted from 0; m{layer} is an MLP
heads writer = {layer}.0 {layer}.1 at END

# who talks to whom: sender -> receiver.q, .k or .v; without a claim the edge must matter
writer -> logits at END
# each earlier -> writer.q at END : lowers
# earlier -> writer.v at {place} : negligible

# what the whole does
expect accuracy {accuracy}
expect knockout(writer) : effect <= 20%
# expect attention(writer, END -> {place}) >= 30%
"""
_GUESS = "its heads are a guess, and claims may fail. Put your own circuit in their place."


@dataclass(frozen=True, slots=True)
class Starter:
    """The text of a starter spec, in the layout that `fmt` gives, and what its author should know."""

    text: str
    warnings: tuple[str, ...]


def starter(session: Session, task: str, target: Path) -> Starter:
    """A starter spec for the session's model (by default `pocket`), which is measured on the task where it is at hand.

    Args:
        task: as in a spec, or the path of a prompt file.
        target: where the spec will lie; from there it names a prompt file.

    Raises:
        UserError: there is no such task, the prompt file has bad lines, the model is a directory that is none, or its
            name cannot stand in a spec.
    """
    circuit, model = circuit_of_task(task), session.name or "pocket"
    use = circuit.tasks[0]
    if not model.isprintable() or '"' in model or "\\" in model:
        raise UsageError(f"a model cannot be called {model!r} in a spec")
    shape, problem = shape_of(model)
    if problem:
        raise UserError(problem)
    unknown = f"{model} is not known here: whether it is a model, and has these heads, is seen when it is loaded"
    found, why, warnings = _measured(session, task, use, circuit.path)
    if shape is None:
        warnings = (unknown, *warnings)
    text = starter_text(use, model, shape.n_layers - 1 if shape else 0, circuit, target, found, why)
    return Starter(text, warnings)


def _measured(session: Session, task: str, use: TaskUse, path: str) -> tuple[Prompts | None, str, tuple[str, ...]]:
    """What the model does on the task; what is said where that is not known; and the warnings that follow."""
    try:
        with quiet_and_offline():
            found: Prompts = session.prompts(task, n=1)
    except PromptFileError:
        raise
    except ModelUnavailable as error:
        if use.file:
            check_file(Path(path).parent / use.file)
        hub = session.name is not None and not Path(session.name).exists()
        missing = f"the weights of {session.name} are not at hand" if hub else error.message
        return None, f"{_GUESS} Nothing was measured: {missing}.", ()
    except UserError as error:
        return None, f"it cannot be verified as it is: {error.message}.", (error.message,)
    return found, "", found.notes if found.does_task is not None else ()


def starter_text(
    use: TaskUse,
    model: str,
    layer: int,
    circuit: Circuit,
    target: Path,
    found: Prompts | None = None,
    why: str = _GUESS,
) -> str:
    """The text of a starter spec.

    Args:
        layer: the last layer of the model.
        circuit: has the path that the task's file is named from.
        target: where the spec will lie.
        found: what the model does on the task; without it, `why` is what is said in its place.
    """
    if use.file:
        known = None
        names = positions_in(Path(circuit.path).parent / use.file) or ("END",)
        title, metric = f"what the prompts of {Path(use.file).name} ask", "logit_diff"
        called, options = f'{use.name} = file("{beside(target, use.file)}"', []
    else:
        known = TASKS[use.generator or use.name]
        names, title, metric, called = tuple(known.positions), known.title, known.metric, f"{known.name}("
        corrupt = use.corrupt or next(iter(known.corruptions))
        options = [f"corrupt = {corrupt}", *(f"{key} = {value}" for key, value in use.options)]
    if use.bos is not None:
        options.append(f"bos = {'yes' if use.bos else 'no'}")
    if use.chat:
        options.append("chat = yes")
    options += [f"prompts = {use.prompts}", f"seed = {use.seed}"]
    places = [name for name in names if name != "END"]
    slug = re.sub(r"\W+", "_", use.name.lower(), flags=re.ASCII).strip("_")
    task = called + ", " * bool(use.file) + ", ".join(options) + ")"
    fields = {
        "head": _head(found, why),
        "title": title.replace('"', "'"),
        "model": model,
        "metric": metric,
        "corruptions": f"# corruptions of {known.name}: {', '.join(known.corruptions)}\n" if known else "",
        "positions": ", ".join(names),
        "layer": layer,
        "place": "ANSWER" if "ANSWER" in places else (places or ["END"])[0],
        "accuracy": ">= 50%" if found is None or (found.all.accuracy or 1.0) >= 0.5 else "above chance",
    }
    for name in (slug, "mine"):  # the name of a file may be a keyword, or begin with a digit
        named = task if known else re.sub(r"^[^=]+=", f"{name} =", task)
        text = _TEXT.format(name=name, task=named, **fields)
        if loads(text, str(target), allow_outside=True).ok:
            break
    return format_text(text)


def _head(found: Prompts | None, why: str) -> str:
    """The comment that opens the spec: what is known of the model on the task."""
    if found is None:
        said = [f"A starter: {why}"]
    elif found.does_task is None:
        said = [f"A starter: {_GUESS}", *found.notes]
    elif found.does_task:
        said = [f"A starter: it verifies as it is, but {_GUESS}", f"Measured: {summary(found)}.", *found.notes]
    else:
        trouble, *more = found.notes
        said = [f"A starter, but {trouble}. What it claims of effects means nothing then."]
        said += [f"Measured: {summary(found)}.", *more]
    return "\n".join(f"# {line}" for text in said for line in textwrap.wrap(text, 116, break_on_hyphens=False))
