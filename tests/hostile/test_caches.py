"""Whatever lies where the cache of numbers would: said in one sentence, and passed over in a moment."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from circuitdsl.models.files import files_of
from circuitdsl.models.load import POCKET
from circuitdsl.models.record import _read, open_model, shipped_for
from circuitdsl.verify.store import Store, digest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")

NAMES = [digest(b"request", bytes([i])) for i in range(20)]
PROMPTS = [digest(b"prompt", bytes([i])) for i in range(50)]
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT "


def fill(path: Path) -> None:
    """A cache of our own."""
    with Store(path) as store:
        for name in NAMES:
            store.write({name: (np.arange(50.0), np.ones(50, bool))}, {name: PROMPTS})


def changed(*statements: str) -> Callable[[Path], None]:
    """A cache of our own after some statements."""

    def make(path: Path) -> None:
        fill(path)
        with sqlite3.connect(path) as held:
            for statement in statements:
                held.execute(statement)

    return make


def other(*statements: str) -> Callable[[Path], None]:
    """A file of SQLite's with other tables."""

    def make(path: Path) -> None:
        with sqlite3.connect(path) as held:
            for statement in statements:
                held.execute(statement)

    return make


def many_tables(path: Path) -> None:
    other("BEGIN", *(f"CREATE TABLE t{i} (a)" for i in range(3000)), "COMMIT")(path)


def beside(end: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def both(path: Path) -> None:
        path.touch()
        make(path.with_name(path.name + end))

    return both


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (Path.mkdir, "is not an ordinary file"),
    "a pipe": (os.mkfifo, "is not an ordinary file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is not an ordinary file"),
    "a circle of links": (lambda path: path.symlink_to(path), "cannot be used"),
    "text": (lambda path: path.write_text("hello" * 1000), "is damaged"),
    "4 GB": (lambda path: path.touch() or os.truncate(path, 4 * 10**9), "is damaged"),
    "a journal that is a pipe": (beside("-journal", os.mkfifo), "is not an ordinary file"),
    "a log that is a device": (beside("-wal", lambda path: path.symlink_to("/dev/zero")), "is not an ordinary file"),
    "a view without end": (
        other(f"CREATE VIEW numbers AS {ENDLESS} x request, x prompts, x data, x used FROM c"),
        "is damaged",
    ),
    "a trigger without end": (
        changed(f"CREATE TRIGGER t BEFORE INSERT ON numbers BEGIN SELECT ({ENDLESS} count(*) FROM c); END"),
        "is damaged",
    ),
    "many tables": (many_tables, "is damaged"),
    "long keys": (changed("UPDATE numbers SET request = zeroblob(30000000) WHERE rowid = 3"), "is damaged"),
    "keys that are text": (changed("UPDATE numbers SET prompts = hex(zeroblob(20000000)) WHERE rowid = 3"), "is da"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_cache_of_ours_is_said_and_passed_over(name: str, tmp_path: Path) -> None:
    make, sentence = HOSTILE[name]
    path = tmp_path / "results.sqlite"
    make(path)
    said: list[str] = []
    start = time.process_time()
    with Store(path, warn=said.append) as store:
        assert store.read(NAMES) == {}
        store.write({NAMES[0]: (np.arange(50.0), np.ones(50, bool))}, {NAMES[0]: PROMPTS})
    assert time.process_time() - start < 3
    assert len(said) == 1 and sentence in said[0] and said[0].endswith("; everything is measured"), said
    if "damaged" in said[0]:
        fill(path)
        assert len(Store(path, warn=said.append).read(NAMES)) == len(NAMES) and len(said) == 1


@pytest.mark.parametrize("kind", ["zeroblob(100000000)", "hex(zeroblob(20000000))", "5", "NULL", "x''"])
def test_rows_that_are_none_of_ours_are_not_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    changed(f"UPDATE numbers SET data = {kind} WHERE rowid <= 3")(path)
    said: list[str] = []
    start = time.process_time()
    with Store(path, warn=said.append) as store:
        assert sum(map(bool, store.read(NAMES).values())) == len(NAMES) - 3
    assert time.process_time() - start < 2
    assert not said


def test_a_full_disk_is_said_and_the_work_goes_on(tmp_path: Path) -> None:
    """No file of this process may grow beyond 100 kB, as on a full disk."""
    path, said = tmp_path / "results.sqlite", list[str]()
    usual, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, usual[1]))
    try:
        with Store(path, warn=said.append) as store:
            for i in range(100):
                name = digest(bytes([i]))
                store.write({name: (np.arange(50.0), np.ones(50, bool))}, {name: PROMPTS})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(said) == 1 and "cannot be used" in said[0]


@pytest.mark.parametrize("spoil", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_a_record_of_a_model_that_is_no_file_is_passed_over(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    open_model(POCKET, "cpu", folder=tmp_path)
    (record,) = (tmp_path / "models").iterdir()
    record.unlink()
    spoil(record)
    assert _read(record) is None
    assert open_model(POCKET, "cpu", folder=tmp_path).digest == open_model(POCKET, "cpu").digest
    assert _read(shipped_for(files_of(POCKET))) is not None
