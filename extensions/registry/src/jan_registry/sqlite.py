"""One SQLite file, opened on first use: writers one at a time, readers beside them, damage set aside.

It knows connections and transactions, and nothing of what the tables hold. Every method blocks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jan_core import StorageError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Database"]


class Database:
    """`schema`: statements that make schema version `version` from nothing. `note` says what had to be repaired.

    Every method raises StorageError when the disk does not do.
    """

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self.path = path
        self.note = ""
        self._schema, self._version = schema, version
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether there is anything to read: reading must not be what makes the file."""
        return self._writer is not None or self.path.exists()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction (BEGIN IMMEDIATE), committed at the end of the block, rolled back when it raises."""
        with self._writing, self._translated():
            if self._writer is None:
                self._writer = self._connect_or_rebuild()
            db = self._writer
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One state of the database, whatever is written meanwhile."""
        with self._reading, self._translated():
            if self._reader is None:
                with self._writing:  # the first one makes the file, or repairs it
                    if self._writer is None:
                        self._writer = self._connect_or_rebuild()
                self._reader = self._open()
            db = self._reader
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    def compact(self) -> None:
        """Give the space of what was deleted back to the disk."""
        with self._writing, self._translated():
            if self._writer is not None:
                self._writer.execute("VACUUM")
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def check(self) -> bool:
        """Look for damage that no query may have met, and set the file aside if there is any. Reads all of it: for the
        background. Answers whether it was whole."""
        import sqlite3

        if not self.path.exists():
            return True
        with self._translated(), contextlib.closing(self._open()) as db:
            try:
                found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                found = str(error)
        if found == "ok":
            return True
        with self._reading, self._writing, self._translated():
            self._disconnect()
            self._set_aside(" ".join(found.split())[:200])
        return False

    def close(self) -> None:
        with self._reading, self._writing:
            self._disconnect()

    def _disconnect(self) -> None:
        for connection in (self._writer, self._reader):
            if connection is not None:
                connection.close()
        self._writer = self._reader = None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        import sqlite3

        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self.path}: {error}") from error

    def _connect_or_rebuild(self) -> sqlite3.Connection:
        import sqlite3

        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._prepared()
        except sqlite3.OperationalError:
            raise  # locked, read-only, full: the file itself is not to blame
        except sqlite3.DatabaseError as error:
            self._set_aside(str(error))
            return self._prepared()

    def _set_aside(self, why: str) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        self.path.replace(aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.note = f"{self.path.name} was damaged ({why}); it is kept as {aside.name} and a new one was begun"

    def _prepared(self) -> sqlite3.Connection:
        import sqlite3

        db = self._open()
        try:
            if db.execute("PRAGMA user_version").fetchone()[0] != self._version:
                db.execute("BEGIN IMMEDIATE")  # another process may be making it, and is then waited for
                version = db.execute("PRAGMA user_version").fetchone()[0]
                if version > self._version:
                    raise sqlite3.OperationalError(f"it was written by a newer version (schema {version})")
                if version < self._version:
                    for statement in _statements(self._schema):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {self._version}")
                db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _open(self) -> sqlite3.Connection:
        import sqlite3

        db = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            _write_ahead(db)
            db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            db.close()
            raise
        return db


def _write_ahead(db: sqlite3.Connection) -> None:
    """WAL. Of processes that make the file at once, SQLite lets one change the mode and does not have others wait."""
    import sqlite3

    deadline = time.monotonic() + 5.0
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


def _statements(script: str) -> Iterator[str]:
    """One by one: `executescript` would first commit the transaction that they belong in."""
    import sqlite3

    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
