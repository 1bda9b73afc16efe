"""Finished measurements on disk, so that an edited spec measures only what is new.

One SQLite file holds blobs of plain numbers, each with a checksum. The file is a convenience and never an authority:
whatever is damaged, unreadable or locked is passed over and measured again. A file that others have made costs little:
no row beyond the size of our own is read, and the index that rows are found by has no long keys.
"""

from __future__ import annotations

import errno
import sqlite3
import stat
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np

from circuitdsl.circuit.vocabulary import MAX_PROMPTS

#: bytes that the numbers may take; beyond it, the least recently used are dropped
LIMIT = 256 * 2**20
#: the path of a store in memory, as SQLite names it
IN_MEMORY = Path(":memory:")
#: bytes of a hash: of a prompt, of a checksum
HASH = 16
_ROW = np.dtype([("prompt", f"V{HASH}"), ("value", "<f8"), ("changed", "u1")])
#: bytes of a row's numbers, and seconds in which a file is opened, at the most
_LARGEST, _SOON = HASH + MAX_PROMPTS * _ROW.itemsize, 1.0
#: the numbers, found by an index of short keys: SQLite reads the whole of a key that it compares with another
_SCHEMA = {
    "numbers": "CREATE TABLE numbers (request BLOB, prompts BLOB, data BLOB, used INTEGER)",
    "places": "CREATE UNIQUE INDEX places ON numbers (request, prompts)",
}
_READ = f"SELECT prompts, data FROM numbers WHERE request = ? AND typeof(data) = 'blob' AND length(data) <= {_LARGEST}"

Array = np.ndarray
#: a number for each of some prompts, and whether the patch changed anything there [prompts]
Numbers = tuple[Array, Array]
#: a number, whether the patch changed anything, and whether this was known before the store was opened
Known = tuple[float, bool, bool]
#: errors of a file that another process uses or that is damaged
_TROUBLE = (sqlite3.Error, OSError, ValueError, TypeError, OverflowError, MemoryError)


class Store(AbstractContextManager["Store"]):
    """Numbers by the hash of what was asked and the hash of the prompt. Never raises; a failure is warned of once."""

    def __init__(self, path: Path, limit: int = LIMIT, warn: Callable[[str], None] | None = None) -> None:
        self.path = path
        self.limit = limit
        self.warn = warn or (lambda text: warnings.warn(text, stacklevel=2))
        self.used: set[bytes] = set()
        self.written: set[tuple[bytes, bytes]] = set()
        self.connection: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path != IN_MEMORY:
                self._check_size()
            # changes are made for all rows of a statement or for none, also when it is interrupted
            self.connection = sqlite3.connect(path, timeout=2, isolation_level="IMMEDIATE")
            self._prepare(self.connection)
        except _TROUBLE as error:
            self._give_up(error)

    def _check_size(self) -> None:
        """Raise where the file, or the journal that SQLite would read, is none of ours."""
        for path in (self.path, *self._journals):
            with suppress(FileNotFoundError):
                seen = path.stat()
                if not stat.S_ISREG(seen.st_mode):
                    raise OSError(errno.EINVAL, f"{path.name} is not an ordinary file")
                if seen.st_size > 2 * self.limit + 2 * _LARGEST:
                    raise sqlite3.DatabaseError(f"it has {seen.st_size / 1e6:,.0f} MB")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table in a new file; raises `sqlite3.DatabaseError` where the file has another, or long keys."""
        end = time.monotonic() + _SOON
        connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
        connection.execute("PRAGMA synchronous = OFF")  # what a crash of the machine tears, checksums find
        found = dict(connection.execute("SELECT name, sql FROM sqlite_master LIMIT 9").fetchall())
        if not found:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for name, statement in _SCHEMA.items():  # another process may have made them by now
                    connection.execute(statement.replace(f" {name} ", f" IF NOT EXISTS {name} ", 1))
        elif found != _SCHEMA:
            raise sqlite3.DatabaseError("it has another layout")
        elif self.path != IN_MEMORY and self.path.stat().st_size > _LARGEST:
            long = f"typeof(request) != 'blob' OR length(request) > {HASH} OR typeof(prompts) != 'blob'"
            if connection.execute(f"SELECT 1 FROM numbers WHERE {long} OR length(prompts) > {HASH} LIMIT 1").fetchone():
                raise sqlite3.DatabaseError("it has long keys")
        connection.set_progress_handler(None, 0)

    @property
    def _journals(self) -> list[Path]:
        return [self.path.with_name(self.path.name + end) for end in ("-journal", "-wal", "-shm")]

    @property
    def folder(self) -> Path | None:
        """Where other files can be kept beside the numbers; None for a store that is in memory."""
        return None if self.path == IN_MEMORY else self.path.parent

    def read(self, requests: Sequence[bytes]) -> Mapping[bytes, Mapping[bytes, Known]]:
        """For each request that is known, its number on each prompt for which it is."""
        known: dict[bytes, dict[bytes, Known]] = {}
        if self.connection is None:
            return known
        with self._guarded():
            for request in requests:
                for prompts, data in self.connection.execute(_READ, (request,)):
                    before = (request, prompts) not in self.written
                    known.setdefault(request, {}).update(_unpacked(request, prompts, data, before))
            self.used.update(known)
            return known
        return {}

    def write(self, found: Mapping[bytes, Numbers], prompts: Mapping[bytes, Sequence[bytes]]) -> None:
        """Keep the numbers of requests on their prompts, all or none of them."""
        now = int(time.time())
        columns = {id(some): some for some in prompts.values()}  # many requests share their prompts
        blank = {at: (_column(some), digest(*some)) for at, some in columns.items()}

        def row(request: bytes, numbers: Numbers) -> tuple[bytes, bytes, bytes, int]:
            rows, which = blank[id(prompts[request])]
            rows["value"], rows["changed"] = numbers
            return (*_packed(request, which, rows.tobytes()), now)

        rows = [row(request, numbers) for request, numbers in found.items()]
        if self.connection is None:
            return
        with self._guarded():
            with self.connection:
                self.connection.executemany("INSERT OR REPLACE INTO numbers VALUES (?, ?, ?, ?)", rows)
            self.written.update((request, which) for request, which, _, _ in rows)
            self._shrink(self.connection)

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Drop the least recently used numbers if the file is larger than its limit."""
        figures = ("page_count", "freelist_count", "page_size")
        pages, free, page = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in figures)
        size = (pages - free) * page
        if size <= self.limit:
            return
        rows = connection.execute("SELECT request, prompts, length(data) FROM numbers ORDER BY used")
        excess, old = size - self.limit * 3 // 4, []
        for request, prompts, length in rows.fetchall():
            if excess <= 0:
                break
            old.append((request, prompts))
            excess -= length
        with connection:
            connection.executemany("DELETE FROM numbers WHERE request = ? AND prompts = ?", old)

    def close(self) -> None:
        """Note what was used, and let go of the file."""
        if self.connection is not None:
            rows = [(int(time.time()), request) for request in self.used]
            with self._guarded(), self.connection:
                self.connection.executemany("UPDATE numbers SET used = ? WHERE request = ?", rows)
                self._join(self.connection)
        self._let_go()

    def _join(self, connection: sqlite3.Connection) -> None:
        """Make one row of the rows of each request that was written; a hundred short ones take longer to read."""
        rows_of = Counter(request for request, _ in self.written)
        for request in (request for request, rows in rows_of.items() if rows > 1 or request in self.used):
            rows = connection.execute(_READ, (request,)).fetchall()
            good = [(which, raw) for which, data in rows if (raw := _raw(request, which, data)) is not None]
            if len(good) > 1:
                found = np.concatenate([np.frombuffer(raw, _ROW) for _, raw in good])
                _, first = np.unique(found["prompt"], return_index=True)
                whole = found[np.sort(first)]
                row = _packed(request, digest(*whole["prompt"].tolist()), whole.tobytes())
                gone = [(request, which) for which, _ in good]
                connection.executemany("DELETE FROM numbers WHERE request = ? AND prompts = ?", gone)
                connection.execute("INSERT OR REPLACE INTO numbers VALUES (?, ?, ?, ?)", (*row, int(time.time())))

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what may fail

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """After an error the store is not used any more; while another process has it, only this once."""
        try:
            yield
        except _TROUBLE as error:
            if "locked" not in str(error):
                self._give_up(error)

    def _let_go(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _give_up(self, error: Exception) -> None:
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        self._let_go()
        if damaged:
            for path in (self.path, *self._journals):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        what = "is damaged, and is begun anew next time" if damaged else f"cannot be used ({reason})"
        self.warn(f"the cache of measurements {self.path} {what}; everything is measured")


def digest(*parts: bytes) -> bytes:
    """A hash of some bytes, each with its length."""
    made = blake2b(digest_size=HASH)
    for part in parts:
        made.update(len(part).to_bytes(8, "little"))
        made.update(part)
    return made.digest()


# --- a row -----------------------------------------------------------------------------------------


def _column(prompts: Sequence[bytes]) -> Array:
    """Rows of numbers on some prompts, all of them 0."""
    rows = np.zeros(len(prompts), _ROW)
    rows["prompt"] = np.frombuffer(b"".join(prompts), f"V{HASH}")
    return rows


def _packed(request: bytes, which: bytes, raw: bytes) -> tuple[bytes, bytes, bytes]:
    """(request, prompts, data) of the bytes of some rows, with a checksum before them."""
    return request, which, digest(request, which, raw) + raw


def _raw(request: bytes, prompts: bytes, data: bytes) -> bytes | None:
    """The rows of numbers in a row of the file; None where a single bit of it is wrong."""
    check, raw = data[:HASH], data[HASH:]
    return raw if digest(request, prompts, raw) == check and len(raw) % _ROW.itemsize == 0 else None


def _unpacked(request: bytes, prompts: bytes, data: bytes, before: bool) -> dict[bytes, Known]:
    """What a row holds; nothing where a single bit of it is wrong."""
    raw = _raw(request, prompts, data)
    if raw is None:
        return {}
    rows = np.frombuffer(raw, _ROW)
    found = zip(rows["prompt"].tolist(), rows["value"].tolist(), rows["changed"].astype(bool).tolist(), strict=True)
    return {prompt: (value, changed, before) for prompt, value, changed in found}
