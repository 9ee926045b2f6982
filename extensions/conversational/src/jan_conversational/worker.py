"""A thread that owns one SQLite connection, so that the event loop never waits for a disk.

Writers commit together what waits together: jobs queued while the disk was busy share the next transaction,
each inside a savepoint, and are answered after its commit. It knows nothing of what the jobs do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from jan_core import InvalidParams, JanError, StorageError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Worker"]

T = TypeVar("T")
_Job = tuple[Callable[["sqlite3.Connection"], Any], Future[Any]]

TOGETHER = 64
"""Jobs of one transaction at most: the first of them waits for all."""


class Worker:
    """Runs jobs one after the other on its own thread and connection.

    `connect` opens the connection, on that thread, when the first job comes, and is tried again with the next
    one when it fails. `explain` makes a typed error of one of SQLite's. `writes`: jobs run inside
    transactions.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], sqlite3.Connection],
        explain: Callable[[sqlite3.Error], JanError],
        *,
        writes: bool,
    ) -> None:
        self._connect = connect
        self._explain = explain
        self._writes = writes
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        # A daemon: a disk that hangs must not keep the process from ending. `close` waits for what was
        # queued.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Queue a job.

        Its future ends with StorageError when the database fails it; a write's, after the commit.
        """
        if self._closed:
            raise StorageError("the conversations are closed")
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Queue a job and wait for it. A wait that is cancelled takes back a job that has not begun."""
        return await asyncio.wrap_future(self.submit(job))

    def close(self) -> None:
        """Do what is queued, then close the connection and end the thread. Blocks."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        open_ended = True
        while open_ended:
            jobs, open_ended = self._next()
            jobs = [entry for entry in jobs if entry[1].set_running_or_notify_cancel()]
            try:
                if jobs and connection is None:
                    connection = self._connect()
                if jobs and connection is not None:
                    (self._transaction if self._writes else self._one_by_one)(connection, jobs)
            except Exception as error:
                for _, future in jobs:
                    if not future.done():
                        future.set_exception(self._typed(error))
            del jobs
        if connection is not None:
            connection.close()

    def _next(self) -> tuple[list[_Job], bool]:
        """Jobs to do now, and whether more may come."""
        entry = self._jobs.get()
        jobs: list[_Job] = []
        while entry is not None:
            jobs.append(entry)
            if len(jobs) == (TOGETHER if self._writes else 1):
                return jobs, True
            try:
                entry = self._jobs.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False

    def _one_by_one(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        for job, future in jobs:
            future.set_result(job(connection))

    def _transaction(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        done: list[tuple[Future[Any], Any]] = []
        connection.execute("BEGIN IMMEDIATE")
        try:
            for job, future in jobs:
                connection.execute("SAVEPOINT job")
                try:
                    done.append((future, job(connection)))
                except Exception as error:
                    if not connection.in_transaction:
                        raise  # SQLite rolled everything back (a full disk, for one): nobody's job was done
                    connection.execute("ROLLBACK TO job")
                    future.set_exception(self._typed(error))
                connection.execute("RELEASE job")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        for future, result in done:
            future.set_result(result)

    def _typed(self, error: Exception) -> Exception:
        import sqlite3

        if isinstance(error, sqlite3.Error):
            return self._explain(error)
        if isinstance(error, UnicodeEncodeError):
            return InvalidParams(f"text that is not Unicode: {error.reason}", path="$")
        if isinstance(error, OSError):
            return StorageError(f"{error.filename or 'the data folder'}: {error.strerror or error}")
        return error
