"""The last valid list of each source, in SQLite. What it returns was checked against its digest, and is read like a
fresh one.

Blocks; opened on first use. A file that is damaged is set aside and a new one begun: the list can be had again.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from jan_core import StorageError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Cache", "CachedList"]

_VERSION = 1
_KEEP = 4
_SCHEMA = """
CREATE TABLE IF NOT EXISTS list (
    url TEXT PRIMARY KEY, body BLOB NOT NULL, digest TEXT NOT NULL, etag TEXT NOT NULL, last_modified TEXT NOT NULL,
    fetched_at REAL NOT NULL, checked_at REAL NOT NULL
) WITHOUT ROWID
"""


class CachedList(Struct):
    """A document as it came, with what is needed to ask whether it changed. Times in seconds since the epoch.

    `fetched_at`: when its bytes came; `checked_at`: when the source last said that they are current.
    """

    url: str
    body: bytes
    digest: str
    etag: str
    last_modified: str
    fetched_at: float
    checked_at: float


class Cache:
    """One file. `note` says what had to be repaired. Every method raises StorageError when the disk does not do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = ""
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def load(self, url: str) -> CachedList | None:
        """The list of a source; None when there is none, or it is not what was stored."""
        if self._connection is None and not self.path.exists():
            return None
        with self._open() as db:
            row = db.execute(
                "SELECT url, body, digest, etag, last_modified, fetched_at, checked_at FROM list WHERE url = ?", [url]
            ).fetchone()
            if row is None:
                return None
            found = CachedList(*row)
            if isinstance(found.body, bytes) and hashlib.sha256(found.body).hexdigest() == found.digest:
                return found
            db.execute("DELETE FROM list WHERE url = ?", [url])
            self.note = "a cached list did not match its digest and was dropped"
            return None

    def store(self, entry: CachedList) -> None:
        """Keep a list, durably, and forget those of sources that were not used for longest."""
        row = [getattr(entry, name) for name in CachedList.__struct_fields__]
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.execute("INSERT OR REPLACE INTO list VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                db.execute(
                    "DELETE FROM list WHERE url NOT IN (SELECT url FROM list ORDER BY checked_at DESC LIMIT ?)", [_KEEP]
                )
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def touch(self, url: str, checked_at: float) -> None:
        """Note that a source confirmed its list."""
        with self._open() as db:
            db.execute("UPDATE list SET checked_at = ? WHERE url = ?", [checked_at, url])

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        import sqlite3

        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect_or_rebuild()
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                raise StorageError(f"the registry's cache {self.path}: {error}") from error

    def _connect_or_rebuild(self) -> sqlite3.Connection:
        import sqlite3

        try:
            return self._connect()
        except sqlite3.OperationalError:
            raise  # locked, read-only, full: the file itself is not to blame
        except sqlite3.DatabaseError as error:
            aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
            self.path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            self.note = f"the cache was damaged ({error}); it is kept as {aside.name} and a new one was begun"
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        import sqlite3

        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            if db.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("quick_check failed")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise sqlite3.OperationalError(f"it was written by a newer version (schema {version})")
            if version < _VERSION:
                db.executescript(f"BEGIN; {_SCHEMA}; PRAGMA user_version = {_VERSION}; COMMIT")
        except BaseException:
            db.close()
            raise
        return db
