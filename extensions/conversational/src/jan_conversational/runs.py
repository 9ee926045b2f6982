"""Statements on answers under way: the table `runs` and the messages they write.

A row of `runs` is there exactly as long as its answer is being written, and a message is `streaming` only
while it has such a row. A row whose owner is dead was cut short by a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jan_core.types import Message, Thread

from . import messages, threads
from .clock import now
from .errors import ThreadBusy
from .shapes import CreateMessage

if TYPE_CHECKING:
    import sqlite3

__all__ = ["IsLive", "begin", "end", "put", "recover", "refuse_if_busy"]

IsLive = Callable[[str, str], bool]
"""Whether the answer of (owner, message id) is still being written."""


def begin(
    connection: sqlite3.Connection,
    thread_id: str,
    question: tuple[str, CreateMessage] | None,
    answer_id: str,
    owner: str,
    is_live: IsLive,
) -> tuple[Thread, Message | None]:
    """Claim a thread for one answer and store the question (its id and what it is), in one step.

    Raises ThreadNotFound and ThreadBusy.
    """
    key = threads.key_of(connection, thread_id)
    refuse_if_busy(connection, thread_id, is_live)
    connection.execute(
        "INSERT INTO runs (thread, owner, message_id, started_at) VALUES (?, ?, ?, ?)",
        (key, owner, answer_id, now()),
    )
    asked = messages.append(connection, *question) if question else None
    return threads.get(connection, thread_id), asked


def put(connection: sqlite3.Connection, message: Message) -> int:
    """Store an answer as far as it has come; returns its sequence number."""
    row = connection.execute("SELECT sequence FROM messages WHERE id = ?", (message.id,)).fetchone()
    if row is not None:
        messages.save(connection, message)
        return int(row[0])
    key = threads.key_of(connection, message.thread_id)
    return messages.insert(connection, key, message).sequence


def end(connection: sqlite3.Connection, thread_id: str, answer_id: str, message: Message | None) -> Message | None:
    """Store the answer as it ended (None: there is none) and release the thread, in one step."""
    key = threads.key_of(connection, thread_id)
    if message is not None:
        put(connection, message)
        connection.execute("UPDATE threads SET updated_at = ? WHERE key = ?", (now(), key))
        message = messages.get(connection, thread_id, message.id)
    connection.execute("DELETE FROM runs WHERE thread = ? AND message_id = ?", (key, answer_id))
    return message


def refuse_if_busy(
    connection: sqlite3.Connection, thread_id: str, is_live: IsLive, message_id: str | None = None
) -> None:
    """Raise ThreadBusy while an answer (this one, if an id is given) is being written in the thread.

    An answer that a crash cut short is no reason: it is closed here.
    """
    key = threads.key_of(connection, thread_id)
    row = connection.execute("SELECT owner, message_id FROM runs WHERE thread = ?", (key,)).fetchone()
    if row is None or (message_id is not None and row[1] != message_id):
        return
    if is_live(*row):
        raise ThreadBusy(
            f"an answer is being written in thread {thread_id}: wait for its end, or cancel it",
            thread_id=thread_id,
            message_id=row[1],
        )
    _close(connection, key, row[1])


def recover(connection: sqlite3.Connection, is_live: IsLive) -> int:
    """Close the answers that a crash cut short: they become `failed` and keep their text.

    Returns how many.
    """
    rows = connection.execute("SELECT thread, owner, message_id FROM runs").fetchall()
    dead = [(thread, message_id) for thread, owner, message_id in rows if not is_live(owner, message_id)]
    for thread, message_id in dead:
        _close(connection, thread, message_id)
    return len(dead)


def _close(connection: sqlite3.Connection, key: int, message_id: str) -> None:
    connection.execute(
        "UPDATE messages SET status = 'failed', error = 'interrupted' WHERE id = ? AND status = 'streaming'",
        (message_id,),
    )
    connection.execute("DELETE FROM runs WHERE thread = ?", (key,))
