"""Statements on the table `threads`: functions of a connection, run by a worker inside its transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jan_core.types import Thread

from .clock import now
from .cursors import decode_cursor, encode_cursor
from .errors import ThreadNotFound
from .ids import INCOGNITO
from .rows import THREAD_COLUMNS, encode_metadata, thread_of
from .shapes import CreateThread, ListThreads, ThreadPage, UpdateThread

if TYPE_CHECKING:
    import sqlite3

__all__ = ["delete", "get", "insert", "key_of", "page", "update"]


def insert(connection: sqlite3.Connection, id: str, params: CreateThread) -> Thread:
    """Add a thread. Raises InvalidParams for metadata that is too large."""
    at = now()
    metadata = encode_metadata(params.metadata)
    sensitivity = params.sensitivity or ("sensitive" if id.startswith(INCOGNITO) else "normal")
    values = (id, params.title, params.assistant_id, params.model, metadata, at, at, sensitivity)
    marks = ", ".join("?" for _ in values)
    connection.execute(f"INSERT INTO threads ({THREAD_COLUMNS}, last_sequence) VALUES ({marks}, 0)", values)
    return thread_of(values)


def key_of(connection: sqlite3.Connection, id: str) -> int:
    """The row of a thread. Raises ThreadNotFound."""
    row = connection.execute("SELECT key FROM threads WHERE id = ?", (id,)).fetchone()
    if row is None:
        hint = " (incognito threads end with the application)" if id.startswith(INCOGNITO) else ""
        raise ThreadNotFound(f"there is no thread {id}{hint}", thread_id=id)
    return int(row[0])


def get(connection: sqlite3.Connection, id: str) -> Thread:
    """One thread. Raises ThreadNotFound."""
    key = key_of(connection, id)
    row = connection.execute(f"SELECT {THREAD_COLUMNS} FROM threads WHERE key = ?", (key,)).fetchone()
    return thread_of(row)


def page(connection: sqlite3.Connection, params: ListThreads) -> ThreadPage:
    """Threads, the last used first. Raises InvalidParams for a cursor of something else."""
    where: str = ""
    bounds: tuple[int | str, ...] = ()
    if params.cursor:
        where, bounds = "WHERE (updated_at, id) < (?, ?)", decode_cursor(params.cursor, tuple[int, str])
    rows = connection.execute(
        f"SELECT {THREAD_COLUMNS} FROM threads {where} ORDER BY updated_at DESC, id DESC LIMIT ?",
        (*bounds, params.limit + 1),
    ).fetchall()
    more = len(rows) > params.limit
    rows = rows[: params.limit]
    cursor = encode_cursor((rows[-1][6], rows[-1][0])) if more else ""
    return ThreadPage([thread_of(row) for row in rows], cursor)


def update(connection: sqlite3.Connection, params: UpdateThread) -> Thread:
    """Change what is given. Raises ThreadNotFound, and InvalidParams for metadata that is too large."""
    key = key_of(connection, params.thread_id)
    changes: dict[str, str] = {}
    for name in ("title", "assistant_id", "model", "sensitivity"):
        value = getattr(params, name)
        if isinstance(value, str):
            changes[name] = value
    if isinstance(params.metadata, dict):
        changes["metadata"] = encode_metadata(params.metadata)
    assignments = ", ".join([*(f"{name} = ?" for name in changes), "updated_at = ?"])
    connection.execute(f"UPDATE threads SET {assignments} WHERE key = ?", (*changes.values(), now(), key))
    return get(connection, params.thread_id)


def delete(connection: sqlite3.Connection, key: int) -> None:
    """Remove a thread with all its messages."""
    connection.execute("DELETE FROM threads WHERE key = ?", (key,))
