"""A model as its own library runs it: what our view of it, and whatever is measured on it, is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.errors import out_of_memory
from circuitdsl.models.errors import UnsupportedModel, first_line
from circuitdsl.models.products import in_parts

#: how far our logits may be from the model's own, relative to the largest of them
TOLERANCE = 1e-4
#: for a model that amplifies rounding beyond that: how far they may be, as a multiple of how far one rounding of the
#: embedded tokens moves the model's own logits, and in any case
AMPLIFIED, MOST = 10, 5e-2
#: in half precision: how far our logits may be from those of single precision, as a multiple of how far the model's own
#: are, and of what a rounding changes; and how far the model's own may be
ROUNDED, USEFUL = 8, 0.5
#: tokens from which on prompts run one after the other: attention may hold all scores of each of them
LONG = 128


class Original:
    """A Hugging Face model. Where it is loaded first, our view shares its weights.

    Only what is stored otherwise than heads read it is held twice then: the queries, keys and values of GPT-NeoX.

    Attributes:
        load: gives the model; it is called when the model must run.
        digest: a hash of its configuration, defaults included, and of the library's version.
        window: tokens that some layer's heads see at most, as its configuration says; 0 where it does not.
        recorded: logits that it gave earlier, by `row_name`.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], Any],
        digest: bytes,
        dtype: torch.dtype = torch.float32,
        window: int = 0,
        recorded: Mapping[str, Float[Tensor, "last vocab"]] | None = None,
    ) -> None:
        self.name, self.load, self.digest, self.dtype, self.window = name, load, digest, dtype, window
        self.recorded = recorded or {}

    @classmethod
    def of(cls, name: str, module: Any) -> Original:
        """A model that is loaded."""
        from transformers import __version__

        config = module.config.to_json_string(use_diff=False)
        digest = hashlib.sha256(f"{__version__}\n{config}".encode()).digest()
        windows = [getattr(module.config, each, None) for each in ("sliding_window", "window_size")]
        return cls(name, lambda: module, digest, module.dtype, max(window or 0 for window in windows))

    @cached_property
    def module(self) -> Any:
        """The model, which is loaded now if it was not."""
        return self.load()

    def off(
        self,
        ours: Float[Tensor, "n last vocab"],
        tokens: Int[Tensor, "n T"],
        start: int = 0,
        exact: Float[Tensor, "n last vocab"] | None = None,
    ) -> Float[Tensor, " n"]:
        """How far our logits of the last tokens of prompts are from the model's own, relative to the largest of these.

        It is 0 where rounding explains it: up to `TOLERANCE`, or as far as rounding moves the model's own logits. Half
        precision would hide much. So our logits in single precision are held to that, and those in half precision may
        be as far from them as the model's own are, times `ROUNDED`.

        Args:
            start: the position of the first token.
            exact: our logits in single precision, where `ours` are in half precision.

        Raises:
            UnsupportedModel: the library cannot run the model as it is configured, or half precision gives other logits
                than single precision.
        """
        logits = partial(self.logits, tokens, start, ours.shape[1])
        if self.dtype == torch.float32:
            return self._off(ours, logits(), logits)
        assert exact is not None
        true = logits(exactly=True)
        wrong = self._off(exact, true, partial(logits, exactly=True))
        theirs = _difference(logits(), true)
        if not bool((theirs <= USEFUL).all()):
            kind = str(self.dtype).removeprefix("torch.")
            raise UnsupportedModel(
                f"in {kind} the logits of {self.name} are off by {float(theirs.max()):.1e} of the largest, so that no "
                "number would be true of the model",
                "use --dtype float32",
            )
        found = _difference(ours.to(true.device), true)
        rounding = found <= ROUNDED * max(float(theirs.max()), torch.finfo(self.dtype).eps)
        return torch.where(wrong != 0, wrong, torch.where(rounding, 0.0, found))

    @staticmethod
    def _off(
        ours: Float[Tensor, "n last vocab"], theirs: Float[Tensor, "n last vocab"], logits: Callable[..., Tensor]
    ) -> Float[Tensor, " n"]:
        """`off` in single precision; `logits` gives the model's own once more, for a moved input."""
        found, allowed = _difference(ours.to(theirs.device), theirs), TOLERANCE
        if not bool((found <= allowed).all()):
            moved = _difference(logits(rounded=True), theirs)
            allowed = max(allowed, min(MOST, AMPLIFIED * float(moved.max())))
        return torch.where(found <= allowed, 0.0, found)

    @torch.no_grad()
    def logits(
        self, tokens: Tensor, start: int, last: int, rounded: bool = False, exactly: bool = False
    ) -> Float[Tensor, "n last vocab"]:
        """Logits as the library gives them.

        Args:
            rounded: with each number of the embedded tokens moved by a rounding.
            exactly: in single precision, on the weights as they are.
        """
        with in_float32(self.module) if exactly else nullcontext():
            return self._logits(tokens, start, last, rounded)

    def _logits(self, tokens: Tensor, start: int, last: int, rounded: bool) -> Float[Tensor, "n last vocab"]:
        rows = [self.recorded.get(row_name(row, start, last)) for row in tokens.tolist() if self.recorded]
        if rows and not rounded and all(row is not None for row in rows):
            return torch.stack(rows).to(tokens.device)  # type: ignore[arg-type]
        tokens = tokens.to(self.module.device)
        kind, rows_of = "input_ids", tokens
        if rounded:
            made = torch.Generator(tokens.device).manual_seed(0)
            exact = self.module.get_input_embeddings()(tokens)
            noise = torch.randn(exact.shape, generator=made, device=exact.device, dtype=exact.dtype)
            kind, rows_of = "inputs_embeds", exact * (1 + torch.finfo(exact.dtype).eps * noise)
        given: dict[str, Any] = {"use_cache": False, "logits_to_keep": last}
        if start:
            given["position_ids"] = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None]
        at_once = len(tokens) if tokens.shape[1] < LONG else 1
        try:
            return torch.cat([self.module(**{kind: some}, **given).logits.float() for some in rows_of.split(at_once)])
        except Exception as error:  # transformers lets through whatever a wrong configuration runs into
            if out_of_memory(error):
                raise
            raise UnsupportedModel(f"transformers cannot run {self.name}: {first_line(error)}") from None


@contextmanager
def in_float32(module: Any) -> Iterator[None]:
    """Let every part of a model read its weights in single precision; they are converted when they are read.

    Plain matrices are converted in parts, and of the embeddings those of the tokens alone: these are the large ones.
    """
    narrow: dict[Any, list[tuple[Any, Tensor]]] = {}
    embedding = module.get_input_embeddings()

    def widen(part: Any, given: tuple[Any, ...]) -> None:
        narrow[part] = [(weight, weight.data) for weight in part.parameters(recurse=False)]
        for weight, data in narrow[part]:
            weight.data = _rows(data, given[0]) if part is embedding and given else data.float()

    def restore(part: Any, *_: Any) -> None:
        for weight, data in narrow.pop(part, ()):
            weight.data = data

    parts = [part for part in module.modules() if list(part.parameters(recurse=False))]
    plain = [part for part in parts if type(part) is torch.nn.Linear and "forward" not in vars(part)]
    others = [part for part in parts if part not in plain]
    hooks = [part.register_forward_pre_hook(widen) for part in others]
    hooks += [part.register_forward_hook(restore, always_call=True) for part in others]
    for part in plain:
        vars(part)["forward"] = partial(_linear, part)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for part in plain:
            del vars(part)["forward"]


def _rows(table: Float[Tensor, "vocab d"], tokens: Int[Tensor, "n T"]) -> Float[Tensor, "vocab d"]:
    """A table in single precision, in which the rows of some tokens alone are filled: on a CPU the rest takes none."""
    wide = torch.empty_like(table, dtype=torch.float32)
    wide[tokens] = table[tokens].float()
    return wide


def _linear(part: torch.nn.Linear, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
    """What a linear map gives, with its weight converted in parts."""
    return in_parts(F.linear, x, part.weight, part.bias)


def row_name(tokens: list[int], start: int, last: int) -> str:
    """The name of the logits of the last tokens of a prompt among those that are recorded."""
    return hashlib.sha256(f"{start} {last} {tokens}".encode()).hexdigest()


def _difference(ours: Float[Tensor, "n k vocab"], theirs: Float[Tensor, "n k vocab"]) -> Float[Tensor, " n"]:
    """How far logits are from others on each prompt, relative to the largest of these.

    What all logits of a token have in common is left out: no metric reads it, and it may hide what they differ in.
    """
    ours, theirs = (logits - logits.mean(-1, keepdim=True) for logits in (ours.float(), theirs))
    off, size = (ours - theirs).abs(), theirs.abs()
    return off.flatten(1).amax(1) / size.flatten(1).amax(1).clamp_min(1e-6)
