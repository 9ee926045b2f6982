"""Conversations, as the rest of this extension sees them: an async face over one database.

The same class keeps threads on disk and incognito ones in memory; `library.py` knows which is which. A method
that changes something returns after the change is durable. Nothing here knows of models, hooks or events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jan_core.types import Message, Thread

from . import messages, runs, threads
from .database import Database
from .ids import INCOGNITO, Ids
from .messages import History
from .owner import Owner
from .shapes import (
    CreateMessage,
    CreateThread,
    ListMessages,
    ListThreads,
    MessagePage,
    MessageRef,
    ThreadPage,
    UpdateMessage,
    UpdateThread,
)

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Run", "Store"]


@dataclass(frozen=True, slots=True)
class Run:
    """One answer under way: the thread, the stored question (None when there is none) and the answer's id."""

    thread: Thread
    question: Message | None
    answer_id: str


class Store:
    """Threads and messages of one database. Every method may raise StorageError.

    `make_database` makes it, and is told what to run when it is opened; `owner` is who writes answers here.
    """

    def __init__(
        self,
        make_database: Callable[[Callable[[sqlite3.Connection], None]], Database],
        ids: Ids,
        owner: Callable[[], Owner],
        *,
        incognito: bool,
    ) -> None:
        self._database = make_database(self._recover)
        self._ids = ids
        self._owner = owner
        self._incognito = incognito
        self._writing: set[str] = set()
        """Ids of the answers that this object's callers are writing now."""

    async def create_thread(self, params: CreateThread) -> Thread:
        """Raises InvalidParams for metadata that is too large."""
        id = (INCOGNITO if self._incognito else "") + self._ids.new()
        return await self._database.write(lambda c: threads.insert(c, id, params))

    async def list_threads(self, params: ListThreads) -> ThreadPage:
        """Raises InvalidParams for a cursor of something else."""
        return await self._database.read(lambda c: threads.page(c, params))

    async def get_thread(self, id: str) -> Thread:
        """Raises ThreadNotFound."""
        return await self._database.read(lambda c: threads.get(c, id))

    async def update_thread(self, params: UpdateThread) -> Thread:
        """Raises ThreadNotFound, and InvalidParams for metadata that is too large."""
        return await self._database.write(lambda c: threads.update(c, params))

    async def delete_thread(self, id: str) -> None:
        """Raises ThreadNotFound and ThreadBusy."""

        def job(connection: sqlite3.Connection) -> None:
            key = threads.key_of(connection, id)
            runs.refuse_if_busy(connection, id, self._is_live)
            threads.delete(connection, key)

        await self._database.write(job)

    async def add_message(self, params: CreateMessage) -> tuple[Thread, Message]:
        """Raises ThreadNotFound, and InvalidParams for metadata that is too large."""
        id = self._ids.new()

        def job(connection: sqlite3.Connection) -> tuple[Thread, Message]:
            message = messages.append(connection, id, params)
            return threads.get(connection, params.thread_id), message

        return await self._database.write(job)

    async def list_messages(self, params: ListMessages) -> MessagePage:
        """Raises ThreadNotFound, and InvalidParams for a cursor of something else."""
        page = await self._database.read(lambda c: messages.page(c, params))
        others = any(m.status == "streaming" and m.id not in self._writing for m in page.messages)
        # Another process writes them, or was killed at it after we had opened the database.
        if others and await self._database.write(lambda c: runs.recover(c, self._is_live)) > 0:
            page = await self._database.read(lambda c: messages.page(c, params))
        return page

    async def update_message(self, params: UpdateMessage) -> Message:
        """Raises ThreadNotFound, MessageNotFound, ThreadBusy, and InvalidParams for too large metadata."""

        def job(connection: sqlite3.Connection) -> Message:
            runs.refuse_if_busy(connection, params.thread_id, self._is_live, params.message_id)
            return messages.update(connection, params)

        return await self._database.write(job)

    async def delete_message(self, params: MessageRef) -> None:
        """Raises ThreadNotFound, MessageNotFound and ThreadBusy."""

        def job(connection: sqlite3.Connection) -> None:
            runs.refuse_if_busy(connection, params.thread_id, self._is_live, params.message_id)
            messages.delete(connection, messages.get(connection, params.thread_id, params.message_id).id)

        await self._database.write(job)

    async def history(self, thread_id: str, most: int) -> History:
        """What of a thread can go into a prompt: its newest `most` messages. Raises ThreadNotFound."""
        return await self._database.read(lambda c: messages.history(c, thread_id, most))

    async def begin_run(self, thread_id: str, content: str | None) -> Run:
        """Claim the thread for one answer, and store the question. Raises ThreadNotFound and ThreadBusy."""
        question = None
        if content is not None:
            question = (self._ids.new(), CreateMessage(thread_id=thread_id, content=content))
        answer_id = self._ids.new()
        self._writing.add(answer_id)
        try:
            thread, asked = await self._database.write(
                lambda c: runs.begin(c, thread_id, question, answer_id, self._owner().token, self._is_live)
            )
        except BaseException:
            # Also when the wait was cancelled and the claim was made: a claim nobody is writing for is void.
            self._writing.discard(answer_id)
            raise
        return Run(thread, asked, answer_id)

    def put_answer(self, message: Message) -> Future[int]:
        """Store an answer as far as it has come, without waiting.

        The message must not be changed meanwhile.
        """
        return self._database.submit(lambda c: runs.put(c, message))

    async def end_run(self, run: Run, message: Message | None) -> Message | None:
        """Store the answer as it ended (None: there is none) and release the thread.

        It is done also when the wait for it is cancelled. Raises ThreadNotFound when the thread is gone.
        """
        future = self._database.submit(lambda c: runs.end(c, run.thread.id, run.answer_id, message))
        future.add_done_callback(lambda _: self._writing.discard(run.answer_id))
        return await asyncio.shield(asyncio.wrap_future(future))

    def close(self) -> None:
        """Finish what is queued and close. Blocks."""
        self._database.close()

    def _recover(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        runs.recover(connection, self._is_live)
        connection.execute("COMMIT")

    def _is_live(self, owner: str, message_id: str) -> bool:
        own = self._owner()
        return message_id in self._writing if owner == own.token else own.is_alive(owner)
