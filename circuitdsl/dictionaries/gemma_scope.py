"""Gemma Scope's `params.npz`. The site stands in the names of the folders that it lies in, where it was not moved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from circuitdsl.dictionaries.record import Dictionary, DictionaryError, Encoding, Held, Hook, HookKind
from circuitdsl.dictionaries.tensors import Array, archived

FORM, FILE = "Gemma Scope", "params.npz"
_LAYER = re.compile(r"layer_([0-9]{1,4})", re.ASCII)
_REPO = re.compile(r"gemma-scope-(?P<size>\d+b)-(?P<tuned>pt|it)-(?P<site>res|mlp|att|transcoders)")
_SITES: Mapping[str, HookKind] = {"res": "resid_post", "mlp": "mlp_out", "att": "z", "transcoders": "mlp_out"}


def read(path: Path, name: str, at: Hook | None) -> tuple[Dictionary, ...]:
    """The dictionary of a `params.npz`, or of the directory that holds one; none where there is no such file.

    Raises:
        DictionaryError: it cannot be read, or nothing says where it sits.
    """
    file = path / FILE if path.is_dir() else path
    if file.suffix != ".npz" or not file.is_file():
        return ()
    arrays = archived(file)
    tensors: dict[str, Held] = {f"W{key[1:]}" if key.startswith("w_") else key: each for key, each in arrays.items()}
    if "W_enc" in arrays or "w_enc" in arrays:
        encoder = arrays.get("W_enc", arrays.get("w_enc"))
        assert encoder is not None
        tensors["W_enc"] = Array(encoder.values.T, file, "W_enc")
    repo = next((found for part in file.absolute().parts if (found := _REPO.search(part))), None)
    site = at or _site(file, repo["site"] if repo else "")
    model = f"gemma-2-{repo['size']}{'-it' if repo['tuned'] == 'it' else ''}" if repo else ""
    made = Dictionary(name, FORM, site, (site,), Encoding("jumprelu"), tensors, (file,), model)
    if repo and repo["site"] == "transcoders":
        made = as_transcoder(made, Hook("mlp_in", site.layer), site)
    return (made,)


def as_transcoder(found: Dictionary, reads: Hook, writes: Hook) -> Dictionary:
    """The same as a transcoder between two hooks."""
    return replace(found, reads=reads, writes=(writes,))


def _site(file: Path, kind: str) -> Hook:
    layer = next((found for part in reversed(file.absolute().parts) if (found := _LAYER.fullmatch(part))), None)
    if layer is None or not kind:
        raise DictionaryError(
            f"{file} does not say where it sits, and neither do its folders",
            hint='say so: --at blocks.12.hook_resid_post, or at = "…" in a spec',
        )
    return Hook(_SITES[kind], int(layer[1]))
