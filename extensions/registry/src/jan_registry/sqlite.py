"""One SQLite file, opened on first use: writers one at a time, readers beside them, damage set aside.

Where the disk cannot be written, what is in the file can still be read. It knows connections and transactions, and
nothing of what the tables hold. Every method blocks.
"""

from __future__ import annotations

import contextlib
import errno
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
    """`schema`: statements that make schema version `version` from nothing. `note` says what had to be repaired, or
    that nothing can be written.

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
        try:
            return self._writer is not None or self.path.stat().st_size > 0
        except OSError:
            return False

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
                db.execute("COMMIT")
            except BaseException:
                # A disk that is full has often ended it already; one that was only busy at the end has not.
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One state of the database, whatever is written meanwhile."""
        with self._reading, self._translated():
            db = self._reader_or_none()
            if db is None:
                with self._as_it_lies() as db:
                    yield db
                return
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _reader_or_none(self) -> sqlite3.Connection | None:
        """None where the disk cannot be written, and there is something to read nevertheless."""
        import sqlite3

        if self._reader is None:
            try:
                with self._writing:  # the first one makes the file, or repairs it
                    if self._writer is None:
                        self._writer = self._connect_or_rebuild()
                self._reader = self._open()
            except (sqlite3.OperationalError, OSError) as error:
                if not (_unwritable(error) and self.exists):
                    raise
                self.note = f"{self.path} cannot be written ({error}): what is in it is read, and nothing is kept"
                return None
            if self.note.startswith(f"{self.path} cannot be written"):
                self.note = ""
        return self._reader

    @contextlib.contextmanager
    def _as_it_lies(self) -> Iterator[sqlite3.Connection]:
        """The file opened for this one time, without locks or a log beside it.

        SQLite reads a database in WAL mode on a disk that cannot be written if the log's files are there, else only as
        `immutable`, which leaves the log out: then there must be none with content (sqlite.org/wal.html#readonly).
        """
        import sqlite3

        log = self.path.with_name(f"{self.path.name}-wal")
        logged = log.exists() and log.stat().st_size > 0
        before = self.path.stat()
        mode = "mode=ro" if logged else "mode=ro&immutable=1"
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, check_same_thread=False
        )
        with contextlib.closing(db):
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version != self._version:
                raise sqlite3.OperationalError(f"it has another schema ({version}), and cannot be written")
            db.execute("BEGIN")
            yield db
        after = self.path.stat()
        if not logged and (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
            raise sqlite3.OperationalError("somebody else has written it meanwhile")

    def writable(self) -> bool:
        """Whether what is damaged could be mended. Raises StorageError."""
        with self._reading, self._translated():
            return not self.exists or self._reader_or_none() is not None

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


def _unwritable(error: Exception) -> bool:
    """Whether it is the disk or the folder that cannot be written, or is full."""
    import sqlite3

    codes = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    if isinstance(error, OSError):
        return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in codes


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
