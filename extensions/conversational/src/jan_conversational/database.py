"""One database: on disk or in memory, with the threads that write and read it.

On disk: WAL with `synchronous=FULL`, so a commit is on the disk before it is acknowledged (kill -9 and power
cuts lose nothing that was), and readers never wait for the writer. In memory: SQLite's `memdb` file system,
which every connection of this process with the same name shares; so a reload of this extension keeps what is
there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jan_core import JanError, StorageError

from .faults import storage_error
from .schema import migrate
from .worker import Worker

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Database", "disk_database", "memory_database"]

T = TypeVar("T")

BUSY_MILLISECONDS = 5000
"""How long a write waits for another process's. Ours take milliseconds."""
OLDEST_SQLITE = (3, 37, 0)
"""STRICT tables; the shared memdb file system came with 3.36."""


class Database:
    """Runs jobs on a writing and a reading connection; without a reading one, on the writing one."""

    def __init__(self, writer: Worker, reader: Worker | None = None) -> None:
        self._writer = writer
        self._reader = reader
        self._opened = False

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job that only reads. Raises StorageError."""
        if self._reader is None:
            return await self._writer.run(job)
        if not self._opened:  # the writer makes the tables that the reader reads
            await self.write(_nothing)
        return await self._reader.run(job)

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job in a transaction; returns after its commit.

        Raises StorageError, and then nothing was done.
        """
        result = await self._writer.run(job)
        self._opened = True
        return result

    def submit(self, job: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Queue a write without waiting for it. Writes are done in the order they were queued."""
        return self._writer.submit(job)

    def close(self) -> None:
        """Finish what is queued and close. Blocks."""
        if self._reader is not None:
            self._reader.close()
        self._writer.close()


def disk_database(path: Path, ready: Callable[[sqlite3.Connection], None]) -> Database:
    """The database in the file `path`, made when it is first used; `ready` is run once it is open."""

    def write() -> sqlite3.Connection:
        # Made by us rather than by SQLite: conversations are their owner's only. The WAL gets the same
        # permissions.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = _connect(path.absolute().as_uri() + "?mode=rw")
        try:
            # FULL: fsync at each commit. The last two matter on macOS, where fsync alone does not reach the
            # disk.
            _pragmas(
                connection,
                journal_mode="WAL",
                synchronous="FULL",
                fullfsync=1,
                checkpoint_fullfsync=1,
                foreign_keys=1,
                secure_delete=1,
            )
            migrate(connection)
            ready(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def read() -> sqlite3.Connection:
        connection = _connect(path.absolute().as_uri() + "?mode=rw")
        _pragmas(connection, query_only=1)
        return connection

    def explain(error: sqlite3.Error) -> JanError:
        return storage_error(error, str(path))

    return Database(
        Worker("conversations-write", write, explain, writes=True),
        Worker("conversations-read", read, explain, writes=False),
    )


def memory_database(name: str, ready: Callable[[sqlite3.Connection], None], *, limit: int) -> Database:
    """The database `name` of this process's memory, of at most `limit` bytes; gone when its last user closes
    it.

    No byte of it is ever written to a file: the journal and temporary tables are in memory too. (What the
    system swaps out is not in this program's hands.)
    """

    def connect() -> sqlite3.Connection:
        connection = _connect(f"file:/{name}?vfs=memdb")
        try:
            if ("TEMP_STORE=0",) in connection.execute("PRAGMA compile_options").fetchall():
                raise StorageError("this build of SQLite always writes temporary files: no incognito threads")
            _pragmas(connection, temp_store="MEMORY", journal_mode="MEMORY", foreign_keys=1, secure_delete=1)
            (page,) = connection.execute("PRAGMA page_size").fetchone()
            _pragmas(connection, max_page_count=limit // page)
            migrate(connection)
            ready(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def explain(error: sqlite3.Error) -> JanError:
        return storage_error(error, "incognito threads", memory_limit=limit)

    return Database(Worker("incognito", connect, explain, writes=True))


def _connect(uri: str) -> sqlite3.Connection:
    import sqlite3

    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StorageError(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
    # Used by one thread at a time, but not always closed by the one that opened it.
    return sqlite3.connect(
        uri, uri=True, timeout=BUSY_MILLISECONDS / 1000, isolation_level=None, check_same_thread=False
    )


def _pragmas(connection: sqlite3.Connection, **values: Any) -> None:
    for name, value in values.items():
        connection.execute(f"PRAGMA {name}={value}").fetchall()


def _nothing(connection: sqlite3.Connection) -> None:
    return None
