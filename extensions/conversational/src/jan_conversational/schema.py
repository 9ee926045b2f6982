"""The tables, and how an older database becomes a newer one.

`PRAGMA user_version` says which version a file has. A migration is appended to MIGRATIONS and never edited
afterwards: files of every version are out there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jan_core import StorageError

from .ids import INCOGNITO

if TYPE_CHECKING:
    import sqlite3

__all__ = ["MIGRATIONS", "VERSION", "migrate"]

_V1 = (
    """
    CREATE TABLE threads (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        assistant_id TEXT NOT NULL,
        model TEXT NOT NULL,
        metadata TEXT NOT NULL,
        last_sequence INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX threads_by_use ON threads (updated_at, id)",
    # `extra` is JSON: what is only ever read with the whole message.
    """
    CREATE TABLE messages (
        key INTEGER PRIMARY KEY,
        thread INTEGER NOT NULL REFERENCES threads (key) ON DELETE CASCADE,
        sequence INTEGER NOT NULL,
        id TEXT NOT NULL UNIQUE,
        role TEXT NOT NULL,
        content TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        status TEXT NOT NULL,
        model TEXT NOT NULL,
        pinned INTEGER NOT NULL,
        error TEXT NOT NULL,
        extra TEXT NOT NULL,
        UNIQUE (thread, sequence)
    ) STRICT
    """,
    # What goes into every prompt, however old it is.
    "CREATE INDEX messages_that_stay ON messages (thread, sequence) WHERE pinned OR role = 'system'",
    # An answer under way: one per thread, whose it is, and the id it has or will have in `messages`.
    """
    CREATE TABLE runs (
        thread INTEGER PRIMARY KEY REFERENCES threads (key) ON DELETE CASCADE,
        owner TEXT NOT NULL,
        message_id TEXT NOT NULL,
        started_at INTEGER NOT NULL
    ) STRICT
    """,
)

_V2 = (
    "ALTER TABLE threads ADD COLUMN sensitivity TEXT NOT NULL DEFAULT 'normal'",
    f"UPDATE threads SET sensitivity = 'sensitive' WHERE id LIKE '{INCOGNITO}%'",  # as they were treated before
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_V1, _V2)
"""Statements that lead from version n to n + 1, by n."""
VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> None:
    """Bring a database to the newest version, in one transaction: all of it or nothing.

    Raises StorageError when it is newer than this software, and sqlite3.Error.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise StorageError(
                f"the conversations were written by a newer version of this software (format {version}; this "
                f"one reads {len(migrations)}): update it",
                version=version,
            )
        for statements in migrations[version:]:
            for statement in statements:
                connection.execute(statement)
        if version < len(migrations):
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
