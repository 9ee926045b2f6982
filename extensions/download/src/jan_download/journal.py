"""What survives: one row per job and what belongs to it, in SQLite, shared by every thread and every process of the
data folder.

One connection for all threads, behind a lock. What a method here returned from is durable (`synchronous=FULL`). It
decides nothing: states and their order are the manager's. Its tables are in `schema`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .journal_errors import failure, lacks_room
from .names import same_name
from .records import Job, JobState, Piece
from .schema import prepare, thin

if TYPE_CHECKING:
    import sqlite3

__all__ = ["HISTORY_ROWS", "HistoryEntry", "Journal"]

HISTORY_ROWS = 2000
"""What is kept of a job's history; beyond that every second entry of its most frequent kind goes."""
_HOSTS = 500
"""Hosts whose speed is remembered, the latest."""

_FIELDS = Job.__struct_fields__


class HistoryEntry(msgspec.Struct):
    """Something that became of a job. `at`: seconds since the epoch; `kind` says what `data` is."""

    at: float
    kind: str
    data: dict[str, Any]


class Journal:
    """Opened on first use: `sqlite3` is not imported while there is nothing to remember.

    Every method raises StorageError when the file cannot be read or written; on a disk that is full to the last byte
    it can still be read. A damaged file is set aside (`recovered` says where) and a new one begun.
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

    # -- jobs ----------------------------------------

    def add(self, job: Job) -> None:
        """Insert a new job."""
        values = [getattr(job, name) for name in _FIELDS]
        with self.transaction() as db:
            marks = ", ".join("?" for _ in range(len(_FIELDS) + 1))
            db.execute(
                f"INSERT INTO job ({_COLUMNS}, destination_key) VALUES ({marks})", [*values, same_name(job.destination)]
            )

    def get(self, job_id: str) -> Job | None:
        """One job, or None."""
        rows = self._jobs("WHERE id = ?", [job_id])
        return rows[0] if rows else None

    def jobs(self, states: Iterable[JobState] = (), *, limit: int = -1) -> list[Job]:
        """The newest `limit` jobs in one of `states` (empty: any), oldest first."""
        wanted = list(states)
        where = f"WHERE state IN ({', '.join('?' for _ in wanted)})" if wanted else ""
        return self._jobs(f"{where} ORDER BY created_at DESC, rowid DESC LIMIT ?", [*wanted, limit])[::-1]

    def group(self, group_id: str) -> list[Job]:
        """The members of a group, in their order."""
        return self._jobs('WHERE "group" = ? ORDER BY position, rowid', [group_id]) if group_id else []

    def related(self, destination: str, sha256: str) -> list[Job]:
        """Jobs for the same destination (as a case-insensitive disk sees it) or the same content, newest
        first."""
        return self._jobs(
            "WHERE destination_key = ? OR (sha256 = ? AND sha256 <> '') ORDER BY created_at DESC, rowid DESC",
            [same_name(destination), sha256],
        )

    def holders(self, sha256: str, partial: str = "") -> list[Job]:
        """Jobs that have or want the content `sha256`, or have the partial file `partial`; the newest first."""
        return self._jobs(
            "WHERE (? IN (sha256, actual) AND ? <> '') OR (partial = ? AND partial <> '') "
            "ORDER BY created_at DESC, rowid DESC",
            [sha256, sha256, partial],
        )

    def update(self, job_id: str, /, known: int | None = None, **changes: Any) -> Job | None:
        """Change fields of a job and return it; None, and nothing changed, when it is gone or `known` is
        not its run."""
        changes["updated_at"] = time.time()
        if "destination" in changes:
            changes["destination_key"] = same_name(changes["destination"])
        columns = ", ".join(f'"{name}" = ?' for name in changes)
        guard = "" if known is None else " AND run = ?"
        values = [*changes.values(), job_id, *([] if known is None else [known])]
        with self.transaction() as db:
            cursor = db.execute(f"UPDATE job SET {columns} WHERE id = ?{guard}", values)
            return self.get(job_id) if cursor.rowcount else None

    def remove(self, job_id: str) -> Job | None:
        """Forget a job with its pieces and its history; returns what it was. No file is touched."""
        with self.transaction() as db:
            job = self.get(job_id)
            for table, column in (("job", "id"), ("piece", "job"), ("history", "job")):
                db.execute(f"DELETE FROM {table} WHERE {column} = ?", [job_id])
            return job

    # -- pieces ----------------------------------------

    def pieces(self, job_id: str) -> list[Piece]:
        """What is known of the pieces of a job's partial file, in their order; those never begun are left out."""
        rows = self._rows(
            "SELECT number, length, state, source, tries, at FROM piece WHERE job = ? ORDER BY number", [job_id]
        )
        return [Piece(*row) for row in rows]

    def checkpoint(self, job_id: str, run: int, pieces: Iterable[Piece], /, **changes: Any) -> Job | None:
        """Note pieces and fields of a job in one transaction; None, and nothing noted, when `run` is not its run any
        more. The bytes that `pieces` speaks of must be on the disk by now.
        """
        with self.transaction() as db:
            job = self.update(job_id, run, **changes)
            if job is not None:
                db.executemany(
                    "INSERT OR REPLACE INTO piece VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [[job_id, *msgspec.structs.astuple(piece)] for piece in pieces],
                )
            return job

    def forget_pieces(self, job_id: str) -> None:
        """Nothing is known of the job's partial file any more."""
        with self.transaction() as db:
            db.execute("DELETE FROM piece WHERE job = ?", [job_id])

    def inherit(self, job_id: str, heir_id: str) -> None:
        """What is known of one job's partial file is known of another's from now on: they have the same file."""
        with self.transaction() as db:
            self.forget_pieces(heir_id)
            db.execute("UPDATE piece SET job = ? WHERE job = ?", [heir_id, job_id])
            old, heir = self.get(job_id), self.get(heir_id)
            if old is not None and heir is not None:
                fields = {name: getattr(old, name) for name in ("offset", "total", "source", "validator")}
                self.update(heir_id, high=max(old.high, heir.high), **fields)
                self.update(job_id, offset=0)

    # -- hosts ----------------------------------------

    def host_speeds(self) -> dict[str, float]:
        """Bytes/s of each host when it was last used."""
        return dict(self._rows("SELECT name, speed FROM host", []))

    def note_host_speeds(self, speeds: Mapping[str, float]) -> None:
        """Remember how fast hosts are (bytes/s)."""
        now = time.time()
        with self.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO host VALUES (?, ?, ?)", [[host, speed, now] for host, speed in speeds.items()]
            )
            db.execute(
                "DELETE FROM host WHERE name NOT IN (SELECT name FROM host ORDER BY at DESC, name LIMIT ?)", [_HOSTS]
            )

    # -- history ----------------------------------------

    def add_history(self, job_id: str, kind: str, data: Mapping[str, Any], at: float | None = None) -> None:
        """Add an entry to a job's history. Several belong into one `transaction`: each one is a sync of the disk."""
        text = msgspec.json.encode(data).decode()
        with self.transaction() as db:
            db.execute(
                "INSERT INTO history VALUES (?, ?, ?, ?)", [job_id, time.time() if at is None else at, kind, text]
            )
            [count] = db.execute("SELECT count(*) FROM history WHERE job = ?", [job_id]).fetchone()
            if count > HISTORY_ROWS:
                thin(db, job_id)

    def history(self, job_id: str) -> list[HistoryEntry]:
        """What became of a job, oldest first."""
        rows = self._rows("SELECT at, kind, data FROM history WHERE job = ? ORDER BY at, rowid", [job_id])
        return [HistoryEntry(at, kind, msgspec.json.decode(data)) for at, kind, data in rows]

    # -- the file ----------------------------------------

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
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:  # some errors, a full disk among them, have ended it already
                        db.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, OSError) as error:
                raise failure(self.path, error) from error

    def close(self) -> None:
        """Close the connection. A later call would open it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _jobs(self, rest: str, values: list[Any]) -> list[Job]:
        rows = self._rows(f"SELECT {_COLUMNS} FROM job {rest}", values)
        return [msgspec.convert(dict(zip(_FIELDS, row, strict=True)), Job, strict=False) for row in rows]

    def _rows(self, query: str, values: list[Any]) -> list[Any]:
        import sqlite3

        with self._lock:
            try:
                return self._open().execute(query, values).fetchall()
            except (sqlite3.Error, OSError) as error:
                if self._connection is None and lacks_room(error):
                    with contextlib.suppress(sqlite3.Error):
                        return self._read_alone(query, values)
                raise failure(self.path, error) from error

    def _read_alone(self, query: str, values: list[Any]) -> list[Any]:
        """Read where there is no room for what processes share: without it, for which nobody else may use the file."""
        import sqlite3

        with contextlib.closing(sqlite3.connect(self.path, timeout=1.0, isolation_level=None)) as db:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            return db.execute(query, values).fetchall()

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
            db.execute("PRAGMA fullfsync = ON")  # macOS: through the drive's cache too; nothing elsewhere
            if db.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("quick_check failed")
            prepare(db)
        except BaseException:
            db.close()
            raise
        return db


_COLUMNS = ", ".join(f'"{name}"' for name in _FIELDS)
