"""The journal: every job, in SQLite, so that a killed process goes on where the disk is known to be.

One connection for all threads, behind a lock. What a method here returned from is durable
(`synchronous=FULL`). It decides nothing: states and their order are the manager's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from jan_core import StorageError

from .names import same_name
from .records import Job, JobState

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Journal"]

_VERSION = 1
_FIELDS = Job.__struct_fields__
_TYPES = {str: "TEXT", int: "INTEGER", bool: "INTEGER", float: "REAL"}


class Journal:
    """Opened on first use: `sqlite3` is not imported while there is nothing to remember.

    Every method raises StorageError when the file cannot be read or written. A damaged file is set aside
    (`recovered` says where) and a new one begun.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recovered = ""
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether there is anything to remember; does not open it."""
        return self._connection is not None or self.path.exists()

    def add(self, job: Job) -> None:
        """Insert a new job."""
        values = [getattr(job, name) for name in _FIELDS]
        with self.transaction() as db:
            marks = ", ".join("?" for _ in range(len(_FIELDS) + 1))
            db.execute(f"INSERT INTO job VALUES ({marks})", [*values, same_name(job.destination)])

    def get(self, job_id: str) -> Job | None:
        """One job, or None."""
        rows = self._select("WHERE id = ?", [job_id])
        return rows[0] if rows else None

    def jobs(self, states: Iterable[JobState] = (), *, limit: int = -1) -> list[Job]:
        """The newest `limit` jobs in one of `states` (empty: any), oldest first."""
        wanted = list(states)
        where = f"WHERE state IN ({', '.join('?' for _ in wanted)})" if wanted else ""
        return self._select(f"{where} ORDER BY created_at DESC, rowid DESC LIMIT ?", [*wanted, limit])[::-1]

    def related(self, destination: str, sha256: str) -> list[Job]:
        """Jobs for the same destination (as a case-insensitive disk sees it) or the same content, newest
        first."""
        return self._select(
            "WHERE destination_key = ? OR (sha256 = ? AND sha256 <> '') ORDER BY created_at DESC, rowid DESC",
            [same_name(destination), sha256],
        )

    def update(self, job_id: str, /, known: int | None = None, **changes: Any) -> Job | None:
        """Change fields of a job and return it; None, and nothing changed, when it is gone or `known` is
        not its run."""
        changes["updated_at"] = time.time()
        columns = ", ".join(f'"{name}" = ?' for name in changes)
        guard = "" if known is None else " AND run = ?"
        values = [*changes.values(), job_id, *([] if known is None else [known])]
        with self.transaction() as db:
            cursor = db.execute(f"UPDATE job SET {columns} WHERE id = ?{guard}", values)
            return self.get(job_id) if cursor.rowcount else None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Several steps as one; nests. Other threads and processes wait."""
        import sqlite3

        with self._lock:
            try:
                db = self._open()
                if db.in_transaction:
                    yield db
                    return
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                except BaseException:
                    db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")
            except (sqlite3.Error, OSError) as error:
                raise StorageError(f"the download journal {self.path}: {error}") from error

    def close(self) -> None:
        """Close the connection. A later call would open it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _select(self, rest: str, values: list[Any]) -> list[Job]:
        import sqlite3

        with self._lock:
            try:
                rows = self._open().execute(f"SELECT {_COLUMNS} FROM job {rest}", values).fetchall()
            except (sqlite3.Error, OSError) as error:
                raise StorageError(f"the download journal {self.path}: {error}") from error
        return [msgspec.convert(dict(zip(_FIELDS, row, strict=True)), Job, strict=False) for row in rows]

    def _open(self) -> sqlite3.Connection:
        import sqlite3

        if self._connection is None:
            try:
                self._connection = self._connect()
            except sqlite3.OperationalError:
                raise  # locked, read-only, full: the file itself is not to blame
            except sqlite3.DatabaseError as error:
                aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
                self.path.replace(aside)
                for suffix in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                self.recovered = (
                    f"the journal was damaged ({error}) and is kept as {aside.name}; its jobs are forgotten"
                )
                self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        import sqlite3

        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
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


_COLUMNS = ", ".join(f'"{name}"' for name in _FIELDS)
_KINDS = {f.name: _TYPES.get(f.type, "TEXT") for f in msgspec.structs.fields(Job)}
_SCHEMA = "CREATE TABLE IF NOT EXISTS job ({}, destination_key TEXT NOT NULL, PRIMARY KEY (id))".format(
    ", ".join(f'"{name}" {kind} NOT NULL' for name, kind in _KINDS.items())
)
