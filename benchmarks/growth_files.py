"""Growth with the files that users name: a million lines of prompts, and a cache that others have made."""

from __future__ import annotations

import json
import random
import resource
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.growth import Case, Figure
from benchmarks.growth_verbs import process
from circuitdsl import cli
from circuitdsl.models.load import load_tokenizer
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens

LINES, DIFFERENT = 10**6, 20_000
#: rows of a cache that are spoilt, and bytes of each
ROWS, BYTES = 5, 10**8


def drawn(count: int) -> Iterator[dict[str, Any]]:
    """Prompts of `ioi` with all their positions, as texts."""
    for pair in sample(TASKS["ioi"], Tokens(load_tokenizer("pocket"), "pocket"), count).pairs:
        yield {name: value for name, value in pair.record().items() if not name.endswith("_tokens")}


def token_ids() -> Iterator[dict[str, Any]]:
    """Pairs of four tokens, all different."""
    for i in range(LINES):
        ids = [2 + i % 500, 2 + i // 500 % 500, 2 + i // 250_000]
        yield {"clean_tokens": [0, *ids], "corrupt_tokens": [1, *ids], "answer": 9, "distractor": 10}


def repeated() -> Iterator[dict[str, Any]]:
    """Few different prompts, each many times."""
    return islice(cycle(list(drawn(DIFFERENT))), LINES)


def different() -> Iterator[dict[str, Any]]:
    """Prompts of 14 to 20 tokens, all different: the first sentence of one, the second of another."""
    rows = [row for row in drawn(DIFFERENT) if all(". " in row[side] for side in ("clean", "corrupt"))]
    draw = random.Random(0)
    for row in islice(cycle(rows), LINES):
        first = draw.choice(rows)["clean"].partition(". ")[0]
        sides = {side: f"{first}. {row[side].partition('. ')[2]}" for side in ("clean", "corrupt")}
        yield row | sides | {"positions": {}}


def lines(rows: Callable[[], Iterator[dict[str, Any]]], folder: Path) -> list[Figure]:
    """`tasks check` of a file in this process, whose peak of memory includes transformers and its tokenizer."""
    path = folder / "p.jsonl"
    with path.open("w") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows())
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if cli.run(["tasks", "check", str(path)]):
        raise SystemExit("some lines are bad")
    taken, after = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1024 if sys.platform == "linux" else 1
    return [
        Figure("whole verb", taken, "CPU s", 20.0),
        Figure("peak above the start", (after - before) * unit / 1e6, "MB", 500),
    ]


def blobs(folder: Path) -> list[Figure]:
    """What long rows of a cache add to `verify`, against a cache that lacks these rows."""
    verify = "verify", "pocket/ioi"
    process(folder, *verify)
    (cache,) = (folder / "cache").glob("*.sqlite")
    taken = []
    for change in ("DELETE FROM numbers", f"UPDATE numbers SET data = zeroblob({BYTES})"):
        shutil.copy(cache, folder / "spoilt")
        with sqlite3.connect(folder / "spoilt") as held:
            held.execute(f"{change} WHERE rowid <= {ROWS}")
        shutil.copy(cache, folder / "kept")
        shutil.move(folder / "spoilt", cache)
        taken.append(process(folder, *verify)[0])
        shutil.move(folder / "kept", cache)
    return [Figure("added to the whole process", taken[1] - taken[0], "CPU s", 2.0)]


CASES = (
    Case("lines_ids", f"`tasks check` of {LINES:,} lines of token ids", partial(lines, token_ids)),
    Case("lines_repeated", f"`tasks check` of {LINES:,} lines, {DIFFERENT:,} different ones", partial(lines, repeated)),
    Case("lines_different", f"`tasks check` of {LINES:,} different lines", partial(lines, different)),
    Case("cache_blobs", f"`verify pocket/ioi`, {ROWS} rows of the cache with {BYTES / 1e6:.0f} MB each", blobs),
)
