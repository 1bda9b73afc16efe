"""Write what ships with the embedded models so that they open without transformers: `record` in their directories.

    python -m benchmarks.pocket_record

That is its record (`models.record.Record`), and the logits that transformers computes on the tokens which the model is
checked on: when it is loaded, and on the first prompts of each length of its specs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

from circuitdsl.api import load
from circuitdsl.circuit.shapes import EMBEDDED
from circuitdsl.models.files import files_of
from circuitdsl.models.load import read_whole
from circuitdsl.models.model import Model
from circuitdsl.models.original import Original, row_name
from circuitdsl.models.record import LOGITS, SHIPPED, Record, record_of, shipped_for, text_of
from circuitdsl.verify.prompts import prompts_by_task, random_prompts

FOLDER = Path(__file__).parent.parent / "specs"
SPECS = {name: sorted((FOLDER / name).glob("*.circ")) for name in EMBEDDED}


@contextmanager
def recording() -> Iterator[dict[str, torch.Tensor]]:
    """Collects the logits that transformers computes."""
    found: dict[str, torch.Tensor] = {}
    computed = Original.logits

    def noted(
        self: Original, tokens: torch.Tensor, start: int, last: int, rounded: bool = False, exactly: bool = False
    ) -> torch.Tensor:
        logits = computed(self, tokens, start, last, rounded, exactly)
        if not rounded and not exactly:
            found.update({row_name(row, start, last): logits[i].clone() for i, row in enumerate(tokens.tolist())})
        return logits

    Original.logits = noted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Original.logits = computed  # type: ignore[method-assign]


def made(name: str, specs: Sequence[Path]) -> tuple[Record, dict[str, torch.Tensor]]:
    """The record of a model, and by name the logits that some specs need."""
    files = files_of(EMBEDDED[name])
    with recording() as logits:
        view, notes = read_whole(name, files, "cpu", "float32")
        model = Model.of(view)
        for path in specs:
            for circuit in load(path).circuits:
                prompts_by_task(circuit, model)
        random_prompts(model)
    record = record_of(model, notes, files) if notes else None
    assert record is not None, f"{name} can be read without transformers"
    return record, logits


def main() -> None:
    """Write both files of every model."""
    for name, directory in EMBEDDED.items():
        record, logits = made(name, SPECS[name])
        (directory / SHIPPED).mkdir(exist_ok=True)
        for old in (directory / SHIPPED).glob("*.json"):
            old.unlink()
        file = shipped_for(files_of(directory))
        file.write_text(text_of(file, record), encoding="utf-8")
        save_file(logits, directory / LOGITS)
        print(f"{name}: {len(logits)} rows, {(directory / LOGITS).stat().st_size} bytes")


if __name__ == "__main__":
    main()
