"""Runs that are killed with -9 at random moments, and gone on with from the cache that they leave."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from circuitdsl.verify.session import Session

SPEC, SEEDS = "pocket/ioi", 4
#: seconds between two looks at the cache of a run that is to be killed
LOOK = 0.02


def kills(folder: Path) -> Callable[[int], str]:
    """A verification from nothing, killed; another goes on from its cache, and must find what an undisturbed one finds.

    A cache that holds some of the numbers, and not all, says that the kill fell into the middle of measuring.
    """
    undisturbed: dict[int, tuple[Any, int, float]] = {}

    def one(number: int) -> str:
        rng, seed = random.Random(f"kill/{number}"), number % SEEDS
        if seed not in undisturbed:
            cache, start = folder / f"undisturbed-{seed}", time.monotonic()
            numbers = _verified(cache, seed)
            undisturbed[seed] = numbers, _rows(cache), time.monotonic() - start
        numbers, total, seconds = undisturbed[seed]
        cache = folder / "killed"
        shutil.rmtree(cache, ignore_errors=True)
        process = _started(cache, seed)
        try:
            if number % 4:  # three of four not before numbers are kept
                while process.poll() is None and not _rows(cache):
                    time.sleep(LOOK)
                time.sleep(rng.uniform(0, 0.9 * seconds))
            else:
                time.sleep(rng.uniform(0, 4 * seconds))
        finally:
            ended = process.poll() is not None
            process.kill()
            process.wait()
        kept = _rows(cache)
        assert _verified(cache, seed) == numbers, f"other numbers after {kept} of {total} rows"
        assert _rows(cache) == total
        if ended:
            return "after the end"
        return "in the middle of measuring" if 0 < kept < total else "before" if not kept else "after measuring"

    return one


def _started(cache: Path, seed: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "circuitdsl", "verify", SPEC, "--device", "cpu", "--seed", str(seed)]
    given = os.environ | {"CIRCUITDSL_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _verified(cache: Path, seed: int) -> Any:
    """Everything that a report says of the claims and tasks, with the numbers in this cache."""
    os.environ["CIRCUITDSL_CACHE"] = str(cache)
    with Session(device="cpu") as session:
        report = json.loads(json.dumps(session.verify(SPEC, seed=seed).to_json()))
    return report["claims"], report["tasks"]


def _rows(cache: Path) -> int:
    """How many numbers' rows a cache holds; none where it cannot be read yet."""
    try:
        (file,) = cache.glob("results-*.sqlite")
        connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=1)
        try:
            return int(connection.execute("SELECT count(*) FROM numbers").fetchone()[0])
        finally:
            connection.close()
    except (ValueError, sqlite3.Error):
        return 0
