"""What is known of a dictionary: what it reads and writes, how it encodes, and where its tensors lie.

A dictionary (sparse autoencoder or transcoder) writes what stands at a hook as a sum of features and an error:
`x = b_dec + sum f_i d_i (+ W_skip input) + error`, with `f = encoder(input)`. Nothing here imports torch: tensors are
read when they are asked for, and of large ones only the rows that are.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from circuitdsl.brief import quoted
from circuitdsl.errors import UserError
from circuitdsl.ordinary import Unreadable, opened

if TYPE_CHECKING:
    from torch import Tensor

HookKind = Literal["resid_pre", "resid_mid", "resid_post", "mlp_in", "mlp_out", "attn_out", "z"]
#: hooks of TransformerLens, by what stands there; those of one kind after the first are read, and not written
HOOKS: Mapping[HookKind, tuple[str, ...]] = {
    "resid_pre": ("hook_resid_pre",),
    "resid_mid": ("hook_resid_mid", "hook_mlp_in"),
    "resid_post": ("hook_resid_post",),
    "mlp_in": ("ln2.hook_normalized", "mlp.hook_in"),
    "mlp_out": ("hook_mlp_out", "mlp.hook_out"),
    "attn_out": ("hook_attn_out",),
    "z": ("attn.hook_z",),
}
_NAMED = re.compile(r"blocks\.([0-9]{1,4})\.([a-z0-9_.]+)", re.ASCII)
#: numbers of a dictionary's tensors at the most, by which a typing error is told from a dictionary
LARGEST = 2**24


#: nanoseconds after which another change of a file shows in its times
_TELLS = 2 * 10**9
#: the hashes of files that this process has read, with what changes when a file does
_DIGESTS: dict[Path, tuple[tuple[int, ...] | None, bytes]] = {}


class DictionaryError(UserError):
    """A dictionary that cannot be read, or is not of this model."""


class Hook(NamedTuple):
    """A place in a model.

    `mlp_in` is what an MLP reads, behind its norm; `resid_mid` the residual stream before that norm; `z` the values
    that the heads of a layer have gathered, side by side.
    """

    kind: HookKind
    layer: int

    def __str__(self) -> str:
        return f"blocks.{self.layer}.{HOOKS[self.kind][0]}"


def hook_of(name: str) -> Hook | None:
    """The place that a hook of TransformerLens names, `blocks.3.hook_resid_pre`; None where none is known."""
    found = _NAMED.fullmatch(name)
    kinds = [kind for kind, names in HOOKS.items() if found and found[2] in names]
    return Hook(kinds[0], int(found[1])) if found and kinds else None


@dataclass(frozen=True, slots=True)
class Encoding:
    """How activations are made of what is read.

    Attributes:
        activation: what is made of `x W_enc + b_enc`: `relu`; `jumprelu`: 0 up to a threshold; `topk`: 0 but for the
            `k` largest; `gated`: 0 where the gate is closed.
        signed: what is kept is not cut at 0 besides.
        norm: what the input is divided by beforehand: `constant`: its own length, so that all are as long;
            `layer`: its own standard deviation, without its mean.
        subtracts: `b_dec` is subtracted from the input.
        rescaled: activations are multiplied by the length of the decoder's row, and divided by it when they write.
    """

    activation: Literal["relu", "jumprelu", "topk", "gated"] = "relu"
    k: int = 0
    signed: bool = False
    norm: Literal["none", "constant", "layer"] = "none"
    subtracts: bool = False
    rescaled: bool = False

    def __str__(self) -> str:
        words = [f"top {self.k}" if self.activation == "topk" else self.activation]
        words += {"none": [], "constant": ["inputs of equal length"], "layer": ["inputs normed"]}[self.norm]
        return ", ".join(words)


class Held(Hashable, Protocol):
    """A tensor in a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, rows: Sequence[int] | None = None) -> Tensor:
        """It, or some of its rows, in single precision."""


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A dictionary in files.

    Attributes:
        name: as it was asked for.
        form: what wrote the files.
        reads: the hook that is encoded.
        writes: the hook that is written; of a cross-layer transcoder, one for each layer from its own on.
        tensors: `W_enc` [d_sae, d_in], `W_dec` [d_sae, d_out] (or [d_sae, writes, d_out]), `b_dec` [d_out]; `b_enc`,
            `threshold`, `b_gate`, `b_mag`, `r_mag` [d_sae]; `W_skip` [d_out, d_in]. Those that its encoder needs.
        files: those that it is read from.
        model: the model that it says it was made for; "" where it does not say.
        centred: whether the mean over the stream's dimensions was taken out of what it reads (TransformerLens'
            `center_writing_weights`); None where the files do not say.
        about: what else the files say that a reader may want to know.
        crossing: of an encoder of a cross-layer transcoder, the folder in which those of the other layers are.
    """

    name: str
    form: str
    reads: Hook
    writes: tuple[Hook, ...]
    encoding: Encoding
    tensors: Mapping[str, Held] = field(repr=False)
    files: tuple[Path, ...] = ()
    model: str = ""
    centred: bool | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    crossing: Path | None = None

    @property
    def d_in(self) -> int:
        return self.tensors["W_enc"].shape[1]

    @property
    def d_sae(self) -> int:
        """Features."""
        return self.tensors["W_enc"].shape[0]

    @property
    def d_out(self) -> int:
        return self.tensors["W_dec"].shape[-1]

    @property
    def is_transcoder(self) -> bool:
        """Whether it writes something else than it reads."""
        return self.writes != (self.reads,)

    @cached_property
    def sha256(self) -> str:
        """A hash of all files that it is read from, and of what was asked of them: what numbers are known by."""
        whole = hashlib.sha256(f"{self.reads} {self.writes} {self.encoding}".encode())
        for path in self.files:
            whole.update(_digest_of(path))
        return whole.hexdigest()

    @property
    def kind(self) -> str:
        """`sparse autoencoder`, `transcoder` or `cross-layer transcoder`"""
        if len(self.writes) > 1:
            return "cross-layer transcoder"
        return "transcoder" if self.is_transcoder else "sparse autoencoder"

    def check_feature(self, index: int) -> None:
        """Raise `DictionaryError` where there is no such feature."""
        if not 0 <= index < self.d_sae:
            raise DictionaryError(f"{self.name} has features 0 to {self.d_sae - 1}, so there is no feature {index}")


def _digest_of(path: Path) -> bytes:
    """SHA-256 of a file, which is read again where it may have changed; raises `DictionaryError`."""
    try:
        seen = path.stat()
        stamp = seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino
        known, digest = _DIGESTS.get(path.absolute(), (None, b""))
        if known != stamp:
            with opened(path) as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
            # a file that was changed just now may change again within one step of its time
            settled = max(stamp[:2]) < time.time_ns() - _TELLS and os.stat(path).st_ctime_ns == seen.st_ctime_ns
            _DIGESTS[path.absolute()] = stamp if settled else None, digest
        return digest
    except (Unreadable, OSError) as error:
        raise DictionaryError(f"{path} cannot be read: {error}") from None


def checked(found: Dictionary) -> Dictionary:
    """A dictionary whose tensors fit each other.

    Raises:
        DictionaryError: one is missing, or has another shape.
    """
    activation, skip = found.encoding.activation, "W_skip" in found.tensors
    biases: tuple[str, ...] = ("b_gate", "b_mag", "r_mag") if activation == "gated" else ("b_enc",)
    biases += ("threshold",) if activation == "jumprelu" else ()
    needed = ("W_enc", "W_dec", "b_dec", *biases, *(("W_skip",) if skip else ()))
    missing = [name for name in needed if name not in found.tensors]
    if missing:
        raise DictionaryError(
            f"{found.name} lacks the tensor {missing[0]}, which {article(activation)} encoder needs",
            hint=f"its files hold {', '.join(sorted(found.tensors)) or 'none that is known'}",
        )
    shapes = {name: found.tensors[name].shape for name in needed}
    d_sae, d_in, d_out = shapes["W_enc"][:1], shapes["W_enc"][1:], shapes["W_dec"][-1:]
    outputs = (len(found.writes),) if len(found.writes) > 1 else ()
    wanted = {"W_enc": (*d_sae, *d_in), "W_dec": (*d_sae, *outputs, *d_out), "b_dec": d_out, "W_skip": (*d_out, *d_in)}
    for name, shape in shapes.items():
        right = wanted.get(name, d_sae)
        if shape != right or not all(0 < size <= LARGEST for size in shape):
            said = " × ".join(map(str, shape)) or "a single number"
            raise DictionaryError(f"{found.name}: {name} is {said}, and the other tensors need {_sizes(right)}")
    if len(d_in) != 1 or (not found.is_transcoder and d_in != d_out):
        raise DictionaryError(f"{found.name} reads {_sizes(d_in)} numbers and writes {_sizes(d_out)}")
    if activation == "topk" and not 0 < found.encoding.k <= d_sae[0]:
        raise DictionaryError(f"{found.name} keeps the {found.encoding.k} largest of {d_sae[0]} features")
    return replace(found, tensors={name: found.tensors[name] for name in needed})


def _sizes(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def hook_named(name: Any, where: str) -> Hook:
    """The place that files name.

    Raises:
        DictionaryError: no dictionary at that place is read.
    """
    found = hook_of(name) if isinstance(name, str) else None
    if found is None:
        known = ", ".join(f"blocks.L.{each[0]}" for each in HOOKS.values())
        raise DictionaryError(f"{where} sits at {quoted(repr(name))}, a place that is not read", hint=f"known: {known}")
    return found
