"""Whether a change of the code changes a report: writes all reports of the pocket specs, and compares two such folders.

    python -m benchmarks.same_reports --write FOLDER     # before the change, and again after it
    python -m benchmarks.same_reports BEFORE AFTER       # 1 where a verdict, a number or a key is another

Numbers may differ by 1e-6 of themselves. Seconds, bytes and versions are left out. A key may come, none may go.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import math
import sys
from pathlib import Path

MEASURED = "tests/fixtures/measured.circ"
SPECS = ("colored_objects", "greater_than", "induction", "ioi", "laundry_list", "repair", "shared")
UNSTEADY = {"seconds", "created", "version", "versions", "elapsed", "bytes", "spec", "path", "estimate"}


def commands() -> dict[str, list[str]]:
    """What is run, by the name of the file that it writes."""
    runs = {f"{name}.json": ["verify", f"pocket/{name}", "--no-cache"] for name in SPECS}
    runs |= {f"plan_{name}.json": ["plan", f"pocket/{name}", "--format", "json"] for name in SPECS}
    runs["ioi_full.json"] = ["verify", "pocket/ioi", "--no-cache", "--full", "--other-corruptions"]
    runs["measured.json"] = ["verify", MEASURED, "--no-cache"]
    runs["channels.txt"] = ["channels", "pocket", "--to", "3.0.q", "3.1.k", "--components"]
    runs["compare.json"] = ["compare", "pocket/ioi", "pocket/colored_objects", "--format", "json"]
    return runs


def write(folder: Path) -> None:
    """Run every command and keep its report in `folder`."""
    from circuitdsl.cli import leave

    folder.mkdir(parents=True, exist_ok=True)
    for name, command in commands().items():
        to_files = ["-o", str(folder / name)] if command[0] in ("verify", "plan") else []
        if command[0] == "verify":
            to_files += ["--per-prompt", str(folder / f"{Path(name).stem}.csv")]
        with io.StringIO() as printed, contextlib.redirect_stdout(printed):
            try:
                leave([*command, *to_files])
            except SystemExit as end:
                print(f"{name}: exit {end.code}", file=sys.stderr, flush=True)
            if not to_files:
                (folder / name).write_text(printed.getvalue())


def differences(before: object, after: object, where: str = "", apart: float = 1e-6) -> list[str]:
    """Where two values of JSON differ, as paths with both values; numbers by more than `apart` of themselves."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = [f"{where}/{key}: gone" for key in before.keys() - after.keys()]
        for key in before.keys() & after.keys() - UNSTEADY:
            found += differences(before[key], after[key], f"{where}/{key}", apart)
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for at, (old, new) in pairs for line in differences(old, new, f"{where}[{at}]", apart)]
    if isinstance(before, float | int) and isinstance(after, float | int):
        same = before == after or math.isclose(before, after, rel_tol=apart, abs_tol=apart)
    else:
        same = before == after
    return [] if same else [f"{where}: {before!r} -> {after!r}"]


def read(file: Path) -> object:
    """A report as values: JSON as it is, the cells of a CSV file as numbers where they are."""
    if file.suffix == ".json":
        return json.loads(file.read_text())
    rows = list(csv.reader(file.open()))
    return [[number(cell) for cell in row] for row in rows]


def number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def compare(before: Path, after: Path) -> int:
    """Print what differs; how many files do."""
    differing = 0
    for file in sorted(before.iterdir()):
        other = after / file.name
        found = differences(read(file), read(other)) if other.exists() else ["missing"]
        differing += bool(found)
        print(f"{file.name}: {'same' if not found else f'{len(found)} differ'}")
        for line in found[:10]:
            print(f"    {line[:300]}")
    return differing


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    args = arguments()
    if args.write:
        write(args.folders[0])
    else:
        sys.exit(min(1, compare(*args.folders)))
