"""Model, tasks, metric and margin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath

from circuitdsl.circuit.bounds import read
from circuitdsl.circuit.catalogue import TaskShape
from circuitdsl.circuit.claims import ModelUse, TaskUse
from circuitdsl.circuit.metric import Metric
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import MAX_PROMPTS, METRICS, TASK_OPTIONS
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Sink, listing, shorten

Entries = Iterable[s.Option | s.Value]


# --- model ----------------------------------------------------------------------------------------


def model_use(sink: Sink, model: s.Model) -> ModelUse:
    """`model "gpt2", revision = "…"`"""
    revision = None
    for option in model.options:
        if option.key.text != "revision":
            sink.unknown("E046", "option", option.key.text, option.key.span, ("revision",), " of a model")
        elif revision is not None:
            sink.error("E054", "'revision' is given twice", option.key.span)
        elif isinstance(option.value, s.Text | s.Word):
            revision = option.value.text
    if not model.name.text.strip():
        sink.error("E062", "the model has no name", model.name.span)
    return ModelUse(model.name.text, revision, model.span.line)


# --- tasks ----------------------------------------------------------------------------------------


def task_use(sink: Sink, task: s.Task, tasks: Mapping[str, TaskShape]) -> TaskUse | None:
    """A task as the spec asks for it; None when it is wrong (and said so)."""
    errors = len(sink.found)
    generator = task.generator.text
    use = _file_task(sink, task) if generator == "file" else _generated(sink, task, tasks)
    return use if use is not None and len(sink.found) == errors else None


def _generated(sink: Sink, task: s.Task, tasks: Mapping[str, TaskShape]) -> TaskUse | None:
    generator = task.generator
    shape = tasks.get(generator.text)
    if shape is None:
        sink.unknown("E042", "task", generator.text, generator.span, (*tasks, "file"))
        return None
    options: dict[str, s.Value] = {}
    for entry in task.arguments:
        if not isinstance(entry, s.Option):
            message = f"'{_shown(entry)}' is no option of {shape.name}; options are written: corrupt = …, prompts = 256"
            sink.error("E046", message, entry.span)
        elif _new_key(sink, entry, options) and entry.key.text not in (*TASK_OPTIONS, *shape.options):
            known = (*TASK_OPTIONS, *shape.options)
            sink.unknown("E046", "option", entry.key.text, entry.key.span, known, f" of {shape.name}")
        else:
            options[entry.key.text] = entry.value
    name = task.name.text if task.name else shape.name
    corrupt = _corruption(sink, options.get("corrupt"), shape)
    for key, value in options.items():
        allowed = shape.options.get(key)
        if allowed and _plain(value) not in allowed:
            sink.error("E047", f"{key} of {shape.name} is one of {listing(map(str, allowed))}", value.span)
    return _with_options(sink, TaskUse(name, shape.name, corrupt=corrupt, line=task.span.line), options)


def _file_task(sink: Sink, task: s.Task) -> TaskUse | None:
    """`task mine = file("prompts.jsonl")`"""
    path: s.Text | None = None
    options: dict[str, s.Value] = {}
    for entry in task.arguments:
        if isinstance(entry, s.Text) and path is None:
            path = entry
        elif not isinstance(entry, s.Option):
            sink.error("E046", f"'{_shown(entry)}' is not expected: a file task has one path", entry.span)
        elif _new_key(sink, entry, options) and entry.key.text not in TASK_OPTIONS[1:]:
            sink.unknown("E046", "option", entry.key.text, entry.key.span, TASK_OPTIONS[1:], " of a file task")
        else:
            options[entry.key.text] = entry.value
    if path is None or not path.text.strip():
        sink.error("E084", 'a file task names its file: file("prompts.jsonl")', task.generator.span)
        return None
    stem = PurePath(path.text.replace("\\", "/")).name.split(".")[0]
    name = task.name.text if task.name else stem or path.text
    return _with_options(sink, TaskUse(name, None, file=path.text, line=task.span.line), options)


def _new_key(sink: Sink, option: s.Option, seen: Mapping[str, s.Value]) -> bool:
    if option.key.text in seen:
        sink.error("E054", f"'{option.key.text}' is given twice", option.key.span)
    return option.key.text not in seen


def _corruption(sink: Sink, value: s.Value | None, shape: TaskShape) -> str | None:
    if value is None:
        return None
    if not isinstance(value, s.Word | s.Text):
        sink.error("E043", f"a corruption is named by a word: {listing(shape.corruptions)}", value.span)
        return None
    if value.text not in shape.corruptions:
        sink.unknown("E043", "corruption", value.text, value.span, shape.corruptions, f" of {shape.name}")
    return value.text


def _with_options(sink: Sink, use: TaskUse, options: Mapping[str, s.Value]) -> TaskUse:
    prompts, seed, bos, others = use.prompts, use.seed, use.bos, []
    for key, value in options.items():
        match key:
            case "prompts":
                prompts = _whole(sink, key, value, 1, MAX_PROMPTS, prompts)
            case "seed":
                seed = _whole(sink, key, value, 0, 2**32 - 1, seed)
            case "bos":
                bos = _yes_or_no(sink, value)
            case "corrupt":
                pass
            case _:
                others.append((key, _plain(value)))
    return TaskUse(use.name, use.generator, use.file, use.corrupt, prompts, seed, bos, tuple(others), use.line)


def _whole(sink: Sink, key: str, value: s.Value, low: int, high: int, default: int) -> int:
    if isinstance(value, s.Number) and not value.unit and value.value.is_integer() and low <= value.value <= high:
        return int(value.value)
    sink.error("E047", f"{key} is a whole number from {low} to {high}", value.span)
    return default


def _yes_or_no(sink: Sink, value: s.Value) -> bool | None:
    if isinstance(value, s.Word) and value.text in ("yes", "no"):
        return value.text == "yes"
    sink.error("E047", "bos is yes or no", value.span)
    return None


def _plain(value: s.Value) -> str | int:
    """A word, a whole number, or anything else as it was written."""
    if isinstance(value, s.Number) and not value.unit and value.value.is_integer():
        return int(value.value)
    return value.text


def _shown(value: s.Value) -> str:
    return shorten(value.text)


# --- metric and margin ----------------------------------------------------------------------------


def metric_of(sink: Sink, name: s.Word, entries: Entries) -> Metric | None:
    """`logit_diff(against = max)`, `accuracy(argmax)`; None when it is wrong (and said so)."""
    shape = METRICS.get(name.text)
    if shape is None:
        sink.unknown("E049", "metric", name.text, name.span, METRICS)
        return None
    errors = len(sink.found)
    options: dict[str, str] = {}
    for entry in entries:
        key = entry.key if isinstance(entry, s.Option) else entry
        value = entry.value if isinstance(entry, s.Option) else None
        if key.text not in shape.options:
            sink.unknown("E046", "option", key.text, key.span, shape.options, f" of {name.text}")
            continue
        if key.text in options:
            sink.error("E054", f"'{key.text}' is given twice", key.span)
        allowed = shape.options[key.text]
        text = value.text if value is not None else ""
        if not allowed and value is not None:
            sink.error("E047", f"{key.text} takes no value", value.span)
        elif allowed and text not in allowed:
            sink.error("E047", f"{key.text} is {' or '.join(allowed)}", (value or key).span)
        options[key.text] = text
    return Metric(name.text, tuple(options.items())) if len(sink.found) == errors else None


def margin_of(scope: Scope, margin: s.Margin) -> float | None:
    """`margin 2%`: a share of the gap above 0."""
    number = margin.value
    if number.value == 0:
        scope.sink.error("E081", "a margin of 0 decides nothing: no effect is exactly 0", number.span)
        return None
    return read(scope, number, "share", "the margin", 0, 1)
