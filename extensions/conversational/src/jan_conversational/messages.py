"""Statements on the table `messages`: functions of a connection, run by a worker inside its transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jan_core import InvalidParams
from jan_core.types import Message

from . import threads
from .clock import now, rfc3339
from .cursors import decode_cursor, encode_cursor
from .errors import MessageNotFound
from .rows import MESSAGE_COLUMNS, encode_extra, encode_metadata, message_of
from .shapes import CreateMessage, ListMessages, MessagePage, UpdateMessage
from .title import derive_title

if TYPE_CHECKING:
    import sqlite3

__all__ = ["History", "append", "delete", "get", "history", "insert", "page", "save", "update"]

PAGE_BYTES = 4 * 1024 * 1024
"""Text of one page: with JSON's worst escapes it stays within one message of the channel."""
OLDER_IDS = 1000
"""Ids named of messages that were not even looked at: what a client can mark in its window."""
HISTORY_BYTES = 8 * 1024 * 1024
"""Text considered for a prompt: more than any context window holds, less than what would hurt to load."""


def append(connection: sqlite3.Connection, id: str, params: CreateMessage) -> Message:
    """Put a message at the end of its thread; the first of a user names the thread.

    Raises ThreadNotFound, and InvalidParams for metadata that is too large.
    """
    key = threads.key_of(connection, params.thread_id)
    encode_metadata(params.metadata)
    message = Message(
        id=id,
        thread_id=params.thread_id,
        sequence=0,
        role=params.role,
        content=params.content,
        created_at="",
        pinned=params.pinned,
        tool_calls=params.tool_calls,
        tool_call_id=params.tool_call_id,
        metadata=params.metadata,
    )
    message = insert(connection, key, message)
    if params.role == "user":
        connection.execute(
            "UPDATE threads SET title = ? WHERE key = ? AND title = ''", (derive_title(params.content), key)
        )
    return message


def insert(connection: sqlite3.Connection, key: int, message: Message) -> Message:
    """Store a new message under the next sequence number; returns it with that and its time."""
    at = now()
    (sequence,) = connection.execute(
        "UPDATE threads SET last_sequence = last_sequence + 1, updated_at = ? WHERE key = ? RETURNING last_sequence",
        (at, key),
    ).fetchone()
    connection.execute(
        f"INSERT INTO messages ({MESSAGE_COLUMNS}, thread) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            message.id,
            sequence,
            message.role,
            message.content,
            at,
            message.status,
            message.model,
            message.pinned,
            message.error,
            encode_extra(message),
            key,
        ),
    )
    message.sequence, message.created_at = sequence, rfc3339(at)
    return message


def save(connection: sqlite3.Connection, message: Message) -> None:
    """Write what of a stored message may have changed."""
    connection.execute(
        "UPDATE messages SET content = ?, status = ?, model = ?, pinned = ?, error = ?, extra = ? WHERE id = ?",
        (
            message.content,
            message.status,
            message.model,
            message.pinned,
            message.error,
            encode_extra(message),
            message.id,
        ),
    )


def get(connection: sqlite3.Connection, thread_id: str, id: str) -> Message:
    """One message. Raises ThreadNotFound and MessageNotFound."""
    key = threads.key_of(connection, thread_id)
    row = connection.execute(
        f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE id = ? AND thread = ?", (id, key)
    ).fetchone()
    if row is None:
        raise MessageNotFound(f"thread {thread_id} has no message {id}", thread_id=thread_id, message_id=id)
    return message_of(row, thread_id)


def page(connection: sqlite3.Connection, params: ListMessages) -> MessagePage:
    """Messages of a thread. Raises ThreadNotFound, and InvalidParams for a cursor of something else."""
    key = threads.key_of(connection, params.thread_id)
    ascending = params.order == "asc"
    start = 0 if ascending else 2**63 - 1
    if params.cursor:
        order, start = decode_cursor(params.cursor, tuple[str, int])
        if order != params.order or not 0 <= start < 2**63:
            raise InvalidParams("this cursor is of a list in the other order", path="$.cursor")
    rows = connection.execute(
        f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE thread = ? AND sequence {'>' if ascending else '<'} ?"
        f" ORDER BY sequence {'ASC' if ascending else 'DESC'}",
        (key, start),
    )
    found: list[Message] = []
    size = 0
    for row in rows:
        size += len(row[3].encode())
        if len(found) == params.limit or (found and size > PAGE_BYTES):
            return MessagePage(found, encode_cursor((params.order, found[-1].sequence)))
        found.append(message_of(row, params.thread_id))
    return MessagePage(found)


def update(connection: sqlite3.Connection, params: UpdateMessage) -> Message:
    """Change what is given. Raises ThreadNotFound, MessageNotFound, InvalidParams for too large metadata."""
    message = get(connection, params.thread_id, params.message_id)
    if isinstance(params.content, str):
        message.content = params.content
    if isinstance(params.pinned, bool):
        message.pinned = params.pinned
    if isinstance(params.metadata, dict):
        encode_metadata(params.metadata)
        message.metadata = params.metadata
    save(connection, message)
    return message


def delete(connection: sqlite3.Connection, id: str) -> None:
    """Remove a message. Its sequence number is not used again."""
    connection.execute("DELETE FROM messages WHERE id = ?", (id,))


@dataclass(frozen=True, slots=True)
class History:
    """What of a thread can go into a prompt: `messages` from old to new.

    `older` are the ids of the messages before them that were not looked at, the newest OLDER_IDS of `older_count`;
    `more` says that a longer look would see more.
    """

    messages: list[Message]
    older: list[str]
    older_count: int
    more: bool


def history(connection: sqlite3.Connection, thread_id: str, most: int, *, most_bytes: int = HISTORY_BYTES) -> History:
    """The newest `most` messages of a thread, and before them those that always stay. Raises ThreadNotFound."""
    key = threads.key_of(connection, thread_id)
    rows = connection.execute(
        f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE thread = ? ORDER BY sequence DESC LIMIT ?", (key, most)
    )
    found: list[Message] = []
    size = 0
    for row in rows:
        size += len(row[3].encode())
        if found and size > most_bytes:
            break
        found.append(message_of(row, thread_id))
    if not found:
        return History([], [], 0, more=False)
    found.reverse()
    before = (key, found[0].sequence)
    stay = connection.execute(
        f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE thread = ? AND sequence < ? AND (pinned OR role = 'system')"
        " ORDER BY sequence",
        before,
    ).fetchall()
    (count,) = connection.execute("SELECT count(*) FROM messages WHERE thread = ? AND sequence < ?", before).fetchone()
    older = connection.execute(
        "SELECT id FROM messages WHERE thread = ? AND sequence < ? AND NOT (pinned OR role = 'system')"
        f" ORDER BY sequence DESC LIMIT {OLDER_IDS}",
        before,
    ).fetchall()
    count -= len(stay)
    return History(
        [*(message_of(row, thread_id) for row in stay), *found],
        [id for (id,) in reversed(older)],
        count,
        more=bool(count) and size <= most_bytes,
    )
