"""The tables of the journal, and how a file of an older version becomes one of this version.

A table `job` with a column for each field of `records.Job`; `piece` says how far each piece of a partial file is on
the disk; `host` how fast a host was; `history` what became of a job, for people. It is no layer between journal and
database: `journal` writes its own SQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .records import PIECE, Job, Piece, PieceState

if TYPE_CHECKING:
    import sqlite3

__all__ = ["VERSION", "prepare", "thin"]

VERSION = 2

_TYPES = {str: "TEXT", int: "INTEGER", bool: "INTEGER", float: "REAL"}
_TABLES = """
CREATE TABLE piece (
    job TEXT NOT NULL, number INTEGER NOT NULL, length INTEGER NOT NULL, state TEXT NOT NULL,
    source TEXT NOT NULL, tries INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE TABLE host (name TEXT NOT NULL PRIMARY KEY, speed REAL NOT NULL, at REAL NOT NULL);
CREATE TABLE history (job TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL);
CREATE INDEX history_of_job ON history (job);
"""


def prepare(db: sqlite3.Connection) -> None:
    """Make the tables, or bring those of an older version up to this one, in one transaction.

    Raises sqlite3.OperationalError when a newer version wrote the file, sqlite3.DatabaseError when it is damaged.
    """
    import sqlite3

    if _version(db) == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        found = _version(db)  # another process may have been faster
        if found > VERSION:
            raise sqlite3.OperationalError(f"it was written by a newer version (schema {found})")
        if found < VERSION:
            _make_jobs(db)
            for statement in filter(str.strip, _TABLES.split(";")):
                db.execute(statement)
            _pieces_from_offsets(db)
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection) -> int:
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


def _make_jobs(db: sqlite3.Connection) -> None:
    """The table of jobs; one that is there gets the columns it lacks, with their defaults."""
    there = {row[1] for row in db.execute("PRAGMA table_info(job)")}
    fields = msgspec.structs.fields(Job)
    if not there:
        columns = ", ".join(f'"{field.name}" {_TYPES.get(field.type, "TEXT")} NOT NULL' for field in fields)
        db.execute(f"CREATE TABLE job ({columns}, destination_key TEXT NOT NULL, PRIMARY KEY (id))")
        return
    for field in fields:
        if field.name not in there:
            kind = _TYPES.get(field.type, "TEXT")
            db.execute(f'ALTER TABLE job ADD COLUMN "{field.name}" {kind} NOT NULL DEFAULT {_literal(field.default)}')


def _literal(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else repr(value)


def _pieces_from_offsets(db: sqlite3.Connection) -> None:
    """Version 1 fetched files from their beginning on: what is durable is one stretch of `offset` bytes."""
    rows = db.execute(
        "SELECT id, offset, size, total, updated_at FROM job "
        "WHERE offset > 0 AND state NOT IN ('completed', 'cancelled')"
    ).fetchall()
    for job_id, offset, size, total, at in rows:
        for number, begin in enumerate(range(0, offset, PIECE)):
            length = min(PIECE, offset - begin)
            whole = length == PIECE or offset == (size or total)
            state: PieceState = "whole" if whole else "begun"
            piece = Piece(number, length, state, at=at)
            db.execute(
                "INSERT INTO piece VALUES (?, ?, ?, ?, ?, ?, ?)",
                [job_id, *msgspec.structs.astuple(piece)],
            )


def thin(db: sqlite3.Connection, job_id: str) -> None:
    """Drop every second entry of the kind of history there is most of, and keep its first and last."""
    db.execute(
        """DELETE FROM history WHERE rowid IN (
            SELECT id FROM (
                SELECT rowid AS id, row_number() OVER (ORDER BY at, rowid) AS place, count(*) OVER () AS entries
                FROM history WHERE job = :job AND kind = (
                    SELECT kind FROM history WHERE job = :job GROUP BY kind ORDER BY count(*) DESC LIMIT 1
                )
            ) WHERE place % 2 = 0 AND place < entries OR place = 1 AND entries <= 2
        )""",
        {"job": job_id},
    )
