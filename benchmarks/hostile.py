"""What hostile input does, by the million: one table, for docs/security.md.

    nice -n 19 python -m benchmarks.hostile                                 # until all sizes are reached, or Ctrl-C
    nice -n 19 python -m benchmarks.hostile --only kills --size kills=10    # one part, another size
    python -m benchmarks.hostile --show -o docs/security.md                 # writes its part of the page

One process, one thread. What was done is kept in a state file, so that a run goes on where the last one ended; what
ended in an exception is tried again first. Every input has a number, from which alone it is made: `--only texts --again
17` makes number 17 again, and lets it fail.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.hostile_inputs import PARTS
from benchmarks.marked import write_part
from circuitdsl.ordinary import write_whole
from circuitdsl.version import __version__

#: how many of each part are tried unless another size is given
SIZES = {"prompt files": 10_000, "verifications": 1_000, "kills": 100, "configs": 10_000, "texts": 1_000_000}
#: failures that are kept, and seconds between two writings of the state
FAILURES, EVERY = 1000, 20.0
FAILED = "an exception"
STATE = Path("hostile.json")


@dataclass
class Tally:
    """What was found of one part.

    Attributes:
        done: how many inputs were tried; the next has this number.
        found: how many ended in each way.
        slowest: CPU seconds of the slowest input in this process, and its number.
        failed: the first inputs that ended in an exception, by their numbers, with its last line.
        seconds: of CPU for all of them, in this process.
        last, version: when the last was tried, and with which version.
    """

    done: int = 0
    found: dict[str, int] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, 0)
    failed: dict[str, str] = field(default_factory=dict)
    failures: int = 0
    seconds: float = 0.0
    last: str = ""
    version: str = ""

    def add(self, number: int, outcome: str, seconds: float) -> None:
        """Count one input."""
        self.done = number + 1
        self.found[outcome] = self.found.get(outcome, 0) + 1
        self.seconds += seconds
        self.slowest = max(self.slowest, (seconds, number))

    def fail(self, number: int, error: BaseException) -> str:
        """Count an input that ended in an exception."""
        self.failures += 1
        if len(self.failed) < FAILURES:
            self.failed[str(number)] = f"{type(error).__name__}: {error}"[:300]
        return FAILED

    def again(self, one: Callable[[int], str]) -> None:
        """Try again what ended in an exception, with code that may be newer."""
        for number in map(int, list(self.failed)):
            try:
                outcome = one(number)
            except Exception:
                continue
            del self.failed[str(number)]
            self.failures -= 1
            self.found[FAILED] -= 1
            self.found[outcome] = self.found.get(outcome, 0) + 1


def read_state(path: Path) -> dict[str, Tally]:
    """What earlier runs have found, by part."""
    given = json.loads(path.read_text()) if path.exists() else {}
    return {name: Tally(**one | {"slowest": tuple(one["slowest"])}) for name, one in given.items()}


def write_state(path: Path, state: dict[str, Tally]) -> None:
    write_whole(path, json.dumps({name: asdict(tally) for name, tally in state.items()}, indent=1) + "\n")


def run(part: str, size: int, state: dict[str, Tally], path: Path) -> None:
    """Try the inputs of a part that were not tried yet."""
    tally = state.setdefault(part, Tally())
    if tally.done >= size and not tally.failed:
        return
    written = time.monotonic()
    with TemporaryDirectory(prefix="hostile-") as folder:
        os.environ["CIRCUITDSL_CACHE"] = str(Path(folder) / "cache")
        one = PARTS[part](Path(folder))
        try:
            tally.again(one)
            for number in range(tally.done, size):
                start = time.process_time()
                try:
                    outcome = one(number)
                except Exception as error:
                    outcome = tally.fail(number, error)
                    print(f"{part} {number}: {type(error).__name__}: {error}"[:1000], flush=True)
                tally.add(number, outcome, time.process_time() - start)
                if time.monotonic() - written > EVERY:
                    stamp(tally)
                    write_state(path, state)
                    written = time.monotonic()
        finally:
            stamp(tally)
            write_state(path, state)


def stamp(tally: Tally) -> None:
    """Say when and with which code this was tried."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    tally.last = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    tally.version = f"{__version__} {found.stdout.strip()}".strip()


def table(state: dict[str, Tally]) -> str:
    """What was found, as Markdown."""
    rows = [
        "| input | tried | exceptions | how they ended | slowest, CPU | last tried (UTC) |",
        "|---|---|---|---|---|---|",
    ]
    for part in SIZES:
        if tally := state.get(part):
            ranked = sorted(tally.found.items(), key=lambda end: -end[1])
            ends = ", ".join(f"{count:,} {outcome}" for outcome, count in ranked if count)
            failed = f"{tally.failures:,}"
            when = f"{tally.last}, {tally.version}"
            rows.append(f"| {part} | {tally.done:,} | {failed} | {ends} | {tally.slowest[0]:.2f} s | {when} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--only", choices=SIZES, action="append", help="these parts alone")
    parser.add_argument("--size", action="append", default=[], metavar="PART=N", help="how many of a part")
    parser.add_argument("--again", type=int, metavar="NUMBER", help="one input of --only, whatever it raises")
    parser.add_argument("--state", type=Path, default=STATE, help=f"the file of what was done ({STATE})")
    parser.add_argument("--show", action="store_true", help="try nothing more")
    parser.add_argument("-o", "--output", type=Path, help="write the table into this page")
    given = parser.parse_args()
    sizes = SIZES | {name: int(size) for name, _, size in (each.partition("=") for each in given.size)}
    parts = given.only or list(SIZES)
    if given.again is not None:
        with TemporaryDirectory(prefix="hostile-") as folder:
            os.environ["CIRCUITDSL_CACHE"] = str(Path(folder) / "cache")
            print(PARTS[parts[0]](Path(folder))(given.again))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    state = read_state(given.state)
    try:
        for part in () if given.show else parts:
            run(part, sizes[part], state, given.state)
            print(f"{part}: {state[part].done:,} tried, {state[part].failures:,} failed", flush=True)
    except KeyboardInterrupt:
        print("interrupted: the next run goes on from here", file=sys.stderr)
    print(table(state))
    if given.output:
        write_part(given.output, "hostile", table(state))
    return int(any(tally.failures for tally in state.values()))


if __name__ == "__main__":
    sys.exit(main())
