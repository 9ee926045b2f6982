"""The extension `assistant`: the methods `assistants.*` over the store.

It keeps assistants; it does not talk to models. What an assistant means for a turn is its caller's business.
"""

from __future__ import annotations

import anyio.to_thread

from jan_core import Context, Empty, Method, StorageError, hookimpl, method, methods_of
from jan_core.types import Assistant

from .errors import AssistantExists, AssistantLimit, AssistantNotFound, AssistantProtected
from .shapes import AssistantChanged, AssistantList, CreateAssistant, Identified, UpdateAssistant
from .store import AssistantStore

__all__ = ["AssistantExtension"]


class AssistantExtension:
    """Serves `assistants.*`; emits `assistants.changed` with `{assistant_id}`."""

    _ctx: Context
    _store: AssistantStore

    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        self._ctx = ctx
        self._store = AssistantStore(ctx.data_dir / "assistants.json")

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self)

    @method("assistants.list", errors=[StorageError], events={"assistants.changed": AssistantChanged})
    async def list(self, params: Empty) -> AssistantList:
        """List the assistants: the default one first, then in the order they were made."""
        return AssistantList(await anyio.to_thread.run_sync(self._store.list))

    @method("assistants.get", errors=[AssistantNotFound, StorageError])
    async def get(self, params: Identified) -> Assistant:
        """Get one assistant. `jan` is the default one and always there."""
        return await anyio.to_thread.run_sync(self._store.get, params.assistant_id)

    @method("assistants.create", errors=[AssistantExists, AssistantLimit, StorageError])
    async def create(self, params: CreateAssistant) -> Assistant:
        """Create an assistant. When this answers, it is on the disk."""
        return self._changed(await anyio.to_thread.run_sync(self._store.create, params))

    @method("assistants.update", errors=[AssistantNotFound, AssistantLimit, StorageError])
    async def update(self, params: UpdateAssistant) -> Assistant:
        """Change an assistant: members left out stay as they are, `parameters` are replaced as a whole."""
        return self._changed(await anyio.to_thread.run_sync(self._store.update, params))

    @method("assistants.delete", errors=[AssistantNotFound, AssistantProtected, StorageError])
    async def delete(self, params: Identified) -> Empty:
        """Delete an assistant. The default one is refused; threads of a deleted one go on with it."""
        await anyio.to_thread.run_sync(self._store.delete, params.assistant_id)
        self._ctx.emit("assistants.changed", {"assistant_id": params.assistant_id})
        return Empty()

    def _changed(self, assistant: Assistant) -> Assistant:
        self._ctx.emit("assistants.changed", {"assistant_id": assistant.id})
        return assistant
