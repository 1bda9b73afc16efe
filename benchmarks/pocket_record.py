"""Write what ships with the pocket model so that it opens without transformers: `circuitdsl/models/pocket/record`.

    python -m benchmarks.pocket_record

That is its record (`models.record.Record`), and the logits that transformers computes on the tokens which the model is
checked on: when it is loaded, and on the first prompts of each length of the pocket specs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

from circuitdsl.api import load
from circuitdsl.models.files import files_of
from circuitdsl.models.load import POCKET, read_whole
from circuitdsl.models.model import Model
from circuitdsl.models.original import Original, row_name
from circuitdsl.models.record import LOGITS, SHIPPED, Record, record_of, shipped_for, text_of
from circuitdsl.verify.prompts import prompts_by_task, random_prompts

SPECS = sorted((Path(__file__).parent.parent / "specs" / "pocket").glob("*.circ"))


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


def made(specs: Sequence[Path] = SPECS) -> tuple[Record, dict[str, torch.Tensor]]:
    """The record, and by name the logits that some specs need."""
    with recording() as logits:
        view, notes = read_whole("pocket", files_of(POCKET), "cpu", "float32")
        model = Model.of(view)
        for path in specs:
            for circuit in load(path).circuits:
                prompts_by_task(circuit, model)
        random_prompts(model)
    record = record_of(model, notes, files_of(POCKET)) if notes else None
    assert record is not None, "the pocket model can be read without transformers"
    return record, logits


def main() -> None:
    """Write both files."""
    record, logits = made()
    SHIPPED.mkdir(exist_ok=True)
    for old in SHIPPED.glob("*.json"):
        old.unlink()
    file = shipped_for()
    file.write_text(text_of(file, record), encoding="utf-8")
    save_file(logits, LOGITS)
    print(f"{len(logits)} rows, {LOGITS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
