"""Model, tasks, metric and margin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath

from circuitdsl.circuit.bounds import read
from circuitdsl.circuit.claims import ModelUse, TaskUse
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.shapes import TaskShape
from circuitdsl.circuit.vocabulary import COUNT, FILE_OPTIONS, MAX_PROMPTS, METRICS, TASK_OPTIONS, Metric
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Sink, listing, shorten

Entries = Iterable[s.Option | s.Value]


def model_use(sink: Sink, model: s.Model) -> ModelUse:
    """`model "gpt2", revision = "…"`"""
    options = _options(sink, model.options, ("revision",), "a model")
    if not model.name.text.strip():
        sink.error("E062", "the model has no name", model.name.span)
    revision = options["revision"].text if options else None
    return ModelUse(model.name.text, revision, model.span.line)


def task_use(sink: Sink, task: s.Task, tasks: Mapping[str, TaskShape]) -> TaskUse | None:
    """A task as the spec asks for it; None where it is wrong, after a diagnostic was emitted."""
    errors = len(sink.found)
    generator, line = task.generator, task.span.line
    if generator.text == "file":
        use = _file_task(sink, task)
    elif shape := tasks.get(generator.text):
        only = f"is no option of {shape.name}; options are written: corrupt = …, prompts = 256"
        options = _options(sink, task.arguments, (*TASK_OPTIONS, *shape.options), shape.name, only)
        name = task.name.text if task.name else shape.name
        use = _with_options(sink, TaskUse(name, shape.name, line=line), options, shape)
    else:
        sink.unknown("E042", "task", generator.text, generator.span, (*tasks, "file"))
        return None
    return use if len(sink.found) == errors else None


def _file_task(sink: Sink, task: s.Task) -> TaskUse | None:
    """`task mine = file("prompts.jsonl")`"""
    path = next((entry for entry in task.arguments if isinstance(entry, s.Text)), None)
    others = [entry for entry in task.arguments if entry is not path]
    options = _options(sink, others, FILE_OPTIONS, "a file task", "is not expected: a file task has one path")
    if path is None or not path.text.strip():
        sink.error("E084", 'a file task names its file: file("prompts.jsonl")', task.generator.span)
        return None
    stem = PurePath(path.text.replace("\\", "/")).name.split(".")[0]
    name = task.name.text if task.name else stem or path.text
    return _with_options(sink, TaskUse(name, None, file=path.text, line=task.span.line), options)


def _options(sink: Sink, entries: Entries, known: tuple[str, ...], owner: str, only: str = "") -> dict[str, s.Value]:
    """The options of a model or a task.

    Args:
        only: the end of the message on an argument that is no option.
    """
    options: dict[str, s.Value] = {}
    for entry in entries:
        if not isinstance(entry, s.Option):
            sink.error("E046", f"'{shorten(entry.text)}' {only}", entry.span)
        elif entry.key.text in options:
            sink.error("E054", f"'{entry.key.text}' is given twice", entry.key.span)
            options[entry.key.text] = entry.value
        elif entry.key.text not in known:
            sink.unknown("E046", "option", entry.key.text, entry.key.span, known, f" of {owner}")
        else:
            options[entry.key.text] = entry.value
    return options


def _with_options(sink: Sink, use: TaskUse, options: Mapping[str, s.Value], shape: TaskShape | None = None) -> TaskUse:
    """A task with its options; `shape` is that of a registered task."""
    own: list[tuple[str, str | int]] = []
    for key, value in options.items():
        match key, value:
            case "prompts", _:
                use = replace(use, prompts=_whole(sink, key, value, 1, MAX_PROMPTS, use.prompts))
            case "seed", _:
                use = replace(use, seed=_whole(sink, key, value, 0, 2**32 - 1, use.seed))
            case "bos", s.Word(text="yes" | "no"):
                use = replace(use, bos=value.text == "yes")
            case "chat", s.Word(text="yes" | "no"):
                use = replace(use, chat=value.text == "yes")
            case "bos" | "chat", _:
                sink.error("E047", f"{key} is yes or no", value.span)
            case "corrupt", s.Number() if shape:
                sink.error("E043", f"a corruption is named by a word: {listing(shape.corruptions)}", value.span)
            case "corrupt", _ if shape:
                use = replace(use, corrupt=value.text)
                if value.text not in shape.corruptions:
                    sink.unknown("E043", "corruption", value.text, value.span, shape.corruptions, f" of {shape.name}")
            case _:
                whole = isinstance(value, s.Number) and not value.unit and value.value.is_integer()
                own.append((key, int(value.value) if whole else value.text))  # type: ignore[union-attr]
                allowed = shape.options.get(key) if shape else None
                if allowed and own[-1][1] not in allowed:
                    sink.error("E047", f"{key} of {use.generator} is one of {listing(map(str, allowed))}", value.span)
    return replace(use, options=tuple(own))


def _whole(sink: Sink, key: str, value: s.Value, low: int, high: int, default: int) -> int:
    if isinstance(value, s.Number) and not value.unit and value.value.is_integer() and low <= value.value <= high:
        return int(value.value)
    sink.error("E047", f"{key} is a whole number from {low} to {high}", value.span)
    return default


def metric_of(sink: Sink, name: s.Word, entries: Entries) -> Metric | None:
    """`logit_diff(against = max)`, `accuracy(argmax)`; None where it is wrong, after a diagnostic was emitted."""
    shape = METRICS.get(name.text)
    if shape is None:
        sink.unknown("E049", "metric", name.text, name.span, METRICS)
        return None
    errors = len(sink.found)
    options: dict[str, str] = {}
    for entry in entries:
        key, value = (entry.key, entry.value) if isinstance(entry, s.Option) else (entry, None)
        if key.text not in shape.options:
            sink.unknown("E046", "option", key.text, key.span, shape.options, f" of {name.text}")
            continue
        if key.text in options:
            sink.error("E054", f"'{key.text}' is given twice", key.span)
        allowed = shape.options[key.text]
        text = value.text if value is not None else ""
        if allowed is COUNT:
            if value is None:
                sink.error("E047", f"{key.text} is a number: {key.text} = 5", key.span)
            else:
                text = str(_whole(sink, key.text, value, 1, MAX_PROMPTS, 1))
        elif not allowed and value is not None:
            sink.error("E047", f"{key.text} takes no value", value.span)
        elif allowed and text not in allowed:
            sink.error("E047", f"{key.text} is {' or '.join(allowed)}", (value or key).span)
        options[key.text] = text
    if len(both := [key for key in shape.apart if key in options]) > 1:
        sink.error("E047", f"{' and '.join(both)} exclude each other: {name.text} takes one of them", name.span)
    return Metric(name.text, tuple(options.items())) if len(sink.found) == errors else None


def margin_of(scope: Scope, margin: s.Margin) -> float | None:
    """`margin 2%`: a share of the gap above 0."""
    number = margin.value
    if number.value == 0:
        scope.sink.error("E081", "a margin of 0 decides nothing: no effect is exactly 0", number.span)
        return None
    return read(scope, number, "share", "the margin", 0, 1)
