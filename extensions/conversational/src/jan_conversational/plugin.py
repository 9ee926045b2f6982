"""The extension `conversational`: the methods `threads.*` and `messages.*`, and one context strategy.

It wires the parts together. Where things are kept is `store.py`'s business, how a turn goes `turn.py`'s.
"""

from __future__ import annotations

from typing import Any

import anyio.to_thread

from jan_core import Call, Context, Empty, InvalidParams, Method, StorageError, hookimpl, method, methods_of
from jan_core.types import Assembly, Budget, Message, Thread

from .errors import ContextOverflow, IncognitoFull, MessageNotFound, ThreadBusy, ThreadNotFound
from .library import Library
from .settings import ConversationalSettings
from .shapes import (
    CreateMessage,
    CreateThread,
    ListMessages,
    ListThreads,
    MessagePage,
    MessageRef,
    RunItem,
    RunResult,
    RunThread,
    ThreadChanged,
    ThreadErased,
    ThreadPage,
    ThreadRef,
    UpdateMessage,
    UpdateThread,
)
from .turn import Turns
from .window import drop_oldest

__all__ = ["ConversationalExtension"]

_WRITE = (IncognitoFull, InvalidParams, StorageError)


class ConversationalExtension:
    """Serves `threads.*` and `messages.*`; emits `threads.changed` and `threads.erased` with `{thread_id}`."""

    _library: Library
    _turns: Turns

    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        self._library = Library(ctx.data_dir)
        self._turns = Turns(ctx, self._library)

        async def close() -> None:
            await anyio.to_thread.run_sync(self._library.close)

        ctx.on_dispose(close)

    @hookimpl
    def jan_settings(self) -> type[ConversationalSettings]:
        return ConversationalSettings

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self)

    @hookimpl
    def jan_export_state(self) -> dict[str, Any]:
        return {"incognito": self._library.has_incognito}

    @hookimpl
    async def jan_restore_state(self, state: dict[str, Any]) -> None:
        if state.get("incognito"):
            # Held open from here on: the memory is freed when the last one who holds it lets go.
            await self._library.store(incognito=True).list_threads(ListThreads(limit=1))

    @hookimpl(trylast=True)
    async def jan_assemble_context(self, thread: Assembly, budget: Budget) -> Assembly:
        return drop_oldest(thread, budget)

    @method("threads.create", errors=_WRITE)
    async def create_thread(self, params: CreateThread) -> Thread:
        """Begin a conversation. An incognito one lives in memory only and ends with the application."""
        thread = await self._library.store(incognito=params.incognito).create_thread(params)
        self._turns.changed(thread.id)
        return thread

    @method(
        "threads.list", errors=[StorageError], events={"threads.changed": ThreadChanged, "threads.erased": ThreadErased}
    )
    async def list_threads(self, params: ListThreads) -> ThreadPage:
        """List conversations, the last used first; incognito ones only when asked for."""
        return await self._library.store(incognito=params.incognito).list_threads(params)

    @method("threads.get", errors=[ThreadNotFound, StorageError])
    async def get_thread(self, params: ThreadRef) -> Thread:
        """Get one conversation, without its messages."""
        return await self._library.store_of(params.thread_id).get_thread(params.thread_id)

    @method("threads.update", errors=[ThreadNotFound, *_WRITE])
    async def update_thread(self, params: UpdateThread) -> Thread:
        """Change a conversation: members left out stay as they are, `metadata` is replaced as a whole."""
        thread = await self._library.store_of(params.thread_id).update_thread(params)
        self._turns.changed(thread.id)
        return thread

    @method("threads.delete", errors=[ThreadNotFound, ThreadBusy, StorageError])
    async def delete_thread(self, params: ThreadRef) -> Empty:
        """Delete a conversation with all its messages. Refused while an answer is being written in it."""
        await self._library.store_of(params.thread_id).delete_thread(params.thread_id)
        self._turns.erased(params.thread_id)
        return Empty()

    @method("threads.run", item=RunItem, errors=[ThreadNotFound, ThreadBusy, ContextOverflow, *_WRITE])
    async def run_thread(self, params: RunThread, call: Call) -> RunResult:
        """Take one assistant turn: store the question, ask the model, stream and store the answer.

        The question is durable before anything else happens. The answer is stored as it comes; when it is
        cancelled or its engine fails, what had arrived is kept with that status. Ends with the engine's own
        error when that fails, with `thread_id` and `message_id` added to its data.
        """
        return await self._turns.run(params, call)

    @method("messages.create", errors=[ThreadNotFound, *_WRITE])
    async def create_message(self, params: CreateMessage) -> Message:
        """Put a message at the end of a conversation. When this answers, it is on the disk."""
        thread, message = await self._library.store_of(params.thread_id).add_message(params)
        self._turns.added(thread, message)
        return message

    @method("messages.list", errors=[ThreadNotFound, StorageError])
    async def list_messages(self, params: ListMessages) -> MessagePage:
        """List a conversation's messages, page by page, from its beginning or its end."""
        return await self._library.store_of(params.thread_id).list_messages(params)

    @method("messages.update", errors=[ThreadNotFound, MessageNotFound, ThreadBusy, *_WRITE])
    async def update_message(self, params: UpdateMessage) -> Message:
        """Change a message. Refused while it is being written."""
        message = await self._library.store_of(params.thread_id).update_message(params)
        self._turns.erased(params.thread_id)
        return message

    @method("messages.delete", errors=[ThreadNotFound, MessageNotFound, ThreadBusy, StorageError])
    async def delete_message(self, params: MessageRef) -> Empty:
        """Delete a message. Refused while it is being written."""
        await self._library.store_of(params.thread_id).delete_message(params)
        self._turns.erased(params.thread_id)
        return Empty()
