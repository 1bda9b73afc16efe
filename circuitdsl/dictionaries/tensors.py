"""Tensors in files of strangers: safetensors, whose rows are read one by one, and numpy's archives without pickles."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitdsl.dictionaries.record import DictionaryError
from circuitdsl.ordinary import Unreadable, opened

if TYPE_CHECKING:
    from torch import Tensor

#: number formats of weights, as safetensors call them
FLOATS = ("F64", "F32", "F16", "BF16")
#: rows of a tensor up to which each is read by itself
FEW = 512
#: how many times the bytes of an archive its arrays may have
SWELLS = 20
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A tensor of a safetensors file.

    Attributes:
        turned: its rows stand in columns.
    """

    file: Any
    path: Path
    key: str
    turned: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        found = tuple(self.file.get_slice(self.key).get_shape())
        return found[::-1] if self.turned else found

    def read(self, rows: Sequence[int] | None = None) -> Tensor:
        """It, or some of its rows, in single precision.

        Raises:
            DictionaryError: it cannot be read, or is not finite.
        """
        import torch
        from safetensors import SafetensorError, safe_open

        try:
            file = safe_open(str(self.path), "pt")
            if isinstance(rows, range):
                part, some = file.get_slice(self.key), slice(rows.start, rows.stop)
                found = part[:, some].T if self.turned else part[some]
            elif rows is None or len(rows) > FEW:
                found = file.get_tensor(self.key)
                found = found.T if self.turned else found
                found = found if rows is None else found[torch.as_tensor(rows)]
            else:
                part = file.get_slice(self.key)
                parts = [part[:, i : i + 1].T if self.turned else part[i : i + 1] for i in rows]
                found = torch.cat(parts)
        except (OSError, SafetensorError) as error:
            raise DictionaryError(f"{self.path} cannot be read: {error}") from None
        return finite(found.float().contiguous(), self.key, self.path)


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """An array in memory, as `Stored` gives it."""

    values: Any
    path: Path
    key: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    def read(self, rows: Sequence[int] | None = None) -> Tensor:
        """It, or some of its rows, in single precision; raises what `Stored.read` raises."""
        import torch

        found = torch.as_tensor(self.values if rows is None else self.values[list(rows)])
        return finite(found.float().contiguous(), self.key, self.path)


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """The rows of a tensor with an axis of length 1 in its middle, without it."""

    inner: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.inner.shape[0], self.inner.shape[-1])

    def read(self, rows: Sequence[int] | None = None) -> Tensor:
        """It, or some of its rows."""
        found: Tensor = self.inner.read(rows)
        return found.flatten(1)


@dataclass(frozen=True, slots=True, eq=False)
class Same:
    """One number for every feature, where the file holds one for all of them."""

    one: Stored | Array
    many: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.many,)

    def read(self, rows: Sequence[int] | None = None) -> Tensor:
        """The number, as often as it is asked for."""
        return self.one.read().reshape(1).expand(self.many if rows is None else len(rows))


def finite(found: Tensor, key: str, path: Path) -> Tensor:
    """A tensor without NaN and infinity; raises `DictionaryError` where it has some."""
    if not bool(found.isfinite().all()):
        raise DictionaryError(f"the tensor {key} in {path} holds NaN or infinity")
    return found


def stored(path: Path, turned: Sequence[str] = ()) -> dict[str, Stored]:
    """The tensors of a safetensors file, each read when it is asked for.

    Args:
        turned: names of those whose rows stand in columns.

    Raises:
        DictionaryError: it is no such file, is cut short, or holds no plain numbers.
    """
    from safetensors import SafetensorError, safe_open

    refuse_pickle(path)
    try:
        with opened(path):
            held = safe_open(str(path), "numpy")  # of which only the shapes are read: torch is not needed for these
    except (Unreadable, OSError, SafetensorError) as error:
        hint = "it may have been cut short: copy or download it again"
        raise DictionaryError(f"{path} cannot be read as safetensors: {error}", hint=hint) from None
    found = {key: Stored(held, path, key, key in turned) for key in held.keys()}  # noqa: SIM118 - it is no mapping
    for key in found:
        if (kind := str(held.get_slice(key).get_dtype())) not in FLOATS and key != "k":
            raise DictionaryError(f"the tensor {key} in {path} holds {kind}, not numbers as they are")
    return found


def archived(path: Path) -> dict[str, Array]:
    """The arrays of an `.npz` file, without pickles.

    Raises:
        DictionaryError: it is no such file, holds pickles, or its arrays are far larger than it says.
    """
    import numpy as np

    try:
        with opened(path) as stream:
            size = path.stat().st_size
            with zipfile.ZipFile(stream) as archive:
                if sum(each.file_size for each in archive.infolist()) > SWELLS * size + 10**6:
                    raise DictionaryError(f"{path} holds arrays that are more than {SWELLS} times as large as it is")
            with np.load(path, allow_pickle=False) as arrays:
                found = {key: Array(arrays[key], path, key) for key in arrays.files}
    except (Unreadable, OSError, ValueError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        said = str(error)
        if "pickle" in said:
            raise pickled(path) from None
        hint = "it may have been cut short: copy or download it again"
        raise DictionaryError(f"{path} cannot be read as an .npz file: {said}", hint=hint) from None
    for key, array in found.items():
        if not np.issubdtype(array.values.dtype, np.floating) or math.prod(array.shape) == 0:
            raise DictionaryError(f"the array {key} in {path} holds {array.values.dtype}, not numbers as they are")
    return found


def refuse_pickle(path: Path) -> None:
    """Raise `DictionaryError` where a file is a pickle, by its name or by how it begins."""
    begins = b""
    if path.suffix != ".npz":
        try:
            with opened(path) as stream:
                begins = stream.read(9)
        except (Unreadable, OSError):
            return
    pickle = begins[:1] == b"\x80" and begins[8:] != b"{"  # a header of safetensors may be 128 bytes long
    if path.suffix in PICKLES or begins[:4] == b"PK\x03\x04" or pickle:
        raise pickled(path)


def pickled(path: Path) -> DictionaryError:
    return DictionaryError(
        f"{path} is a pickle, which may run a program when it is read; it was not",
        hint="load it where you trust it, and save it with safetensors, or with SAELens' save_model",
    )
