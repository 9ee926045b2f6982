"""Storing an answer while it comes: at its first word, then every so often, and how it ended.

It never waits for the disk on the way, so that the stream is not held up; only the end is waited for. A write
that fails on the way is not reported: the one at the end stores the whole text, and its failure is.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import msgspec

from jan_core.types import Message, MessageStatus

from .store import Run, Store

__all__ = ["Recorder"]


class Recorder:
    """One answer of one run. Used on the event loop only."""

    def __init__(self, store: Store, run: Run, *, every: float) -> None:
        self._store = store
        self._run = run
        self._every = every
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._dirty = False
        self._message = Message(
            id=run.answer_id,
            thread_id=run.thread.id,
            sequence=0,
            role="assistant",
            content="",
            created_at="",
            status="streaming",
        )

    @property
    def empty(self) -> bool:
        """Whether no text has come."""
        return not any(self._text)

    def add(self, text: str = "", *, reasoning: str = "", model: str = "") -> None:
        """Put text at the end of the answer."""
        if model:
            self._message.model = model
        if not text and not reasoning:
            return
        self._text.append(text)
        self._reasoning.append(reasoning)
        self._dirty = True
        if self._timer is None:
            self._flush()

    async def finish(self, status: MessageStatus, **fields: Any) -> Message:
        """Store how it ended; `fields` are the message's. Durable when it returns.

        Raises StorageError, and ThreadNotFound when the thread is gone.
        """
        if self._timer is not None:
            self._timer.cancel()
        metadata = {**self._snapshot().metadata, **fields.pop("metadata", {})}
        final = msgspec.structs.replace(self._snapshot(), status=status, metadata=metadata, **fields)
        stored = await self._store.end_run(self._run, final)
        assert stored is not None  # a message was given
        return stored

    def _snapshot(self) -> Message:
        reasoning = "".join(self._reasoning)
        return msgspec.structs.replace(
            self._message,
            content="".join(self._text),
            metadata={"reasoning": reasoning} if reasoning else {},
        )

    def _flush(self) -> None:
        self._timer = None
        if self._dirty:
            self._dirty = False
            self._store.put_answer(self._snapshot()).add_done_callback(_forget)
            self._timer = asyncio.get_running_loop().call_later(self._every, self._flush)


def _forget(future: Future[int]) -> None:
    future.exception()
