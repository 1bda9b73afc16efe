"""Directions of the residual stream, read from safetensors files: `direction u = file("u.safetensors", tensor = "s")`.

A direction is a unit vector: the file's vector is divided by its length. What a spec means by it is its content, so
that the hash of that is part of all that is asked along it. Nothing but numbers is read from the file, and torch is not
imported.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

from circuitdsl.brief import quoted
from circuitdsl.circuit.nodes import Along
from circuitdsl.circuit.paths import leaves
from circuitdsl.circuit.scope import Scope
from circuitdsl.errors import UserError
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Sink, listing, suggest
from circuitdsl.ordinary import Unreadable, opened

#: number formats of safetensors: bytes of a number, and how `struct` reads it
FORMATS = {"F64": (8, "d"), "F32": (4, "f"), "F16": (2, "e"), "BF16": (2, "H")}
#: bytes of a file's header, and numbers of a direction, at the most
MAX_HEADER, MAX_WIDTH = 2**24, 2**17
#: how far from 1 the length of a unit vector may be
UNIT = 1e-3
#: as torch, numpy and pickle begin their files
_PICKLED = (b"\x80", b"PK\x03\x04", b"\x93NUMPY")
HINT = "such a file is made by: circuitdsl direction SPEC --from clean,corrupt --at END --layer 5 -o d.safetensors"


class NoDirection(UserError):
    """A file that holds no such direction."""


def resolve_direction(scope: Scope, line: s.Direction, folder: Path, allow_outside: bool) -> Along | None:
    """The direction of a line; None where it is wrong, after a diagnostic was emitted."""
    sink = scope.sink
    named = _named(sink, line)
    if named is None:
        return None
    file, tensor = named
    if not allow_outside and (problem := leaves(file.text, folder, folder)):
        message = f"{problem}: a direction's file lies in the spec's own folder or below"
        help = "move it there, or run with --allow-outside if you trust the spec"
        sink.error("E032", message, file.span, help)
        return None
    try:
        numbers = read_vector(folder / file.text, tensor.text if tensor else None)
        along, length = unit_of(line.name.text, numbers)
    except NoDirection as wrong:
        sink.error("E066", wrong.message, (tensor or file).span, wrong.hint)
        return None
    width = scope.model.d_model if scope.model else None
    if width is not None and along.width != width:
        of_model = f"the residual stream of {scope.model.title if scope.model else 'the model'} {width}"
        message = f"the direction {along.name} has {along.width} numbers, and {of_model}"
        sink.error("E066", message, (tensor or file).span, "take a direction that was made on this model")
        return None
    if abs(length - 1) > UNIT:
        message = f"{along.name} has the length {length:.4g}: it is divided by that"
        sink.warning("W066", message, file.span)
    return along


def _named(sink: Sink, line: s.Direction) -> tuple[s.Text, s.Text | None] | None:
    """The file and the tensor that a line names."""
    usage = f'write: direction {line.name.text} = file("{line.name.text}.safetensors", tensor = "s")'
    if line.source.text != "file":
        sink.error("E084", f"a direction comes from a file, not from '{line.source.text}'", line.source.span, usage)
        return None
    files = [each for each in line.arguments if isinstance(each, s.Text)]
    options = [each for each in line.arguments if isinstance(each, s.Option)]
    for option in options:
        if option.key.text != "tensor":
            sink.unknown("E046", "option", option.key.text, option.key.span, ("tensor",), " of a direction")
            return None
        if not isinstance(option.value, s.Text):
            sink.error("E047", 'tensor is the name of a tensor: tensor = "s"', option.value.span)
            return None
    if len(files) != 1 or len(options) > 1 or len(files) + len(options) < len(line.arguments):
        sink.error("E084", "a direction names one file, and one tensor in it", line.span, usage)
        return None
    return files[0], options[0].value if options else None  # type: ignore[return-value]


def unit_of(name: str, numbers: tuple[float, ...]) -> tuple[Along, float]:
    """A vector as a direction, and its length; raises `NoDirection` where it has none."""
    wrong = next((i for i, x in enumerate(numbers) if not math.isfinite(x)), None)
    if wrong is not None:
        raise NoDirection(
            f"number {wrong + 1} of {len(numbers)} of {name} is {numbers[wrong]}: it is no direction", HINT
        )
    length = math.hypot(*numbers)
    if length == 0 or not math.isfinite(length):
        what = "is zero everywhere" if length == 0 else "is too long to be measured"
        raise NoDirection(f"{name} {what}: it is no direction", HINT)
    unit = struct.pack(f"<{len(numbers)}f", *(x / length for x in numbers))
    return Along(name, hashlib.sha256(unit).hexdigest(), unit), length


def read_vector(path: Path, tensor: str | None) -> tuple[float, ...]:
    """The numbers of a vector in a safetensors file; without a name, of the only tensor in it.

    Raises:
        NoDirection: the file cannot be read, is no safetensors file, or has no such vector.
    """
    name = quoted(path.name)
    try:
        with opened(path) as stream:
            begins = stream.read(8)
            size = int.from_bytes(begins, "little")
            pickled = next((each for each in _PICKLED if begins.startswith(each)), None)
            if len(begins) < 8 or (size > MAX_HEADER and pickled) or not 2 <= size <= MAX_HEADER:
                _refuse(name, bool(pickled))
            tensors = _header(stream.read(size), name)
            about = _chosen(tensors, tensor, name)
            dtype, count, start = about
            each, code = FORMATS[dtype]
            stream.seek(8 + size + start)
            data = stream.read(each * count)
    except (Unreadable, OSError) as error:
        reason = getattr(error, "strerror", None)
        raise NoDirection(f"{name} cannot be read: {reason or error}", HINT) from None
    if len(data) < each * count:
        raise NoDirection(f"{name} ends before the tensor does: the file is cut off", HINT)
    numbers = struct.unpack(f"<{count}{code}", data)
    if dtype == "BF16":
        numbers = struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *(number << 16 for number in numbers)))
    return numbers


def _refuse(name: str, pickled: bool) -> None:
    if pickled:
        message = f"{name} is a pickle or an archive, which may run code when it is loaded: it is not read"
        raise NoDirection(message, 'save the vector with safetensors: save_file({"s": vector}, "u.safetensors")')
    raise NoDirection(f"{name} is no safetensors file", HINT)


def _header(text: bytes, name: str) -> dict[str, Any]:
    """What a file says of its tensors."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NoDirection(f"{name} is no safetensors file", HINT)
    return {key: about for key, about in found.items() if key != "__metadata__" and isinstance(about, dict)}


def _chosen(tensors: dict[str, Any], tensor: str | None, name: str) -> tuple[str, int, int]:
    """Number format, numbers and place of a vector."""
    known = listing(tensors) if tensors else "none"
    if tensor is None and len(tensors) != 1:
        raise NoDirection(f"{name} has {len(tensors)} tensors ({known})", 'name one: tensor = "s"')
    key = next(iter(tensors)) if tensor is None else tensor
    if key not in tensors:
        guess = suggest(key, tensors)
        meant = f"; did you mean '{guess}'?" if guess else ""
        raise NoDirection(f"{name} has no tensor {quoted(key)}{meant}", f"it has {known}")
    dtype, shape, offsets = (tensors[key].get(field) for field in ("dtype", "shape", "data_offsets"))
    if dtype not in FORMATS:
        what = f"{quoted(key)} holds {quoted(str(dtype))}, which is none of {listing(FORMATS)}"
        raise NoDirection(what, "save it as float32")
    sizes = [n for n in shape if n != 1] if _counts(shape) else None
    if sizes is None or len(sizes) > 1 or not _counts(offsets) or len(offsets) != 2:
        raise NoDirection(f"{quoted(key)} is no vector: its shape is {quoted(str(shape))}", "save one row of it")
    count = sizes[0] if sizes else 1
    if not 1 <= count <= MAX_WIDTH or offsets[1] - offsets[0] != count * FORMATS[dtype][0]:
        raise NoDirection(f"{quoted(key)} has {count} numbers, which do not fit what the file holds", HINT)
    return dtype, count, offsets[0]


def _counts(numbers: Any) -> bool:
    """Whether these are lengths or places."""
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**62 for n in numbers)
