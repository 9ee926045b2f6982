"""What an extension is handed. It never gets the host.

Whatever is registered through the context is undone by it, in reverse order, when the generation retires: this is what
makes disabling and reloading safe.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

if TYPE_CHECKING:
    import httpx

    from .hooks import Hooks

__all__ = ["Caller", "Context", "Progress", "Stream", "Tasks"]

T = TypeVar("T")
Progress = Callable[[str, float | None, float | None], None]
"""Called with (message, done, total) as long work goes on."""


class Stream(Protocol):
    """A streaming call under way: iterate over its items, then take its result."""

    def __aiter__(self) -> AsyncIterator[Any]: ...

    async def result(self) -> Any:
        """The method's result, after the items. Raises RpcError when the call failed."""
        ...


class Caller(Protocol):
    """Reaches the method table: the same interface in memory, over a pipe, and from an extension.

    `params` may be a Struct or plain data. `result`/`item` name the type to convert answers to; without them answers
    are plain data. `progress` is called as the work goes on. Cancelling the awaiting task cancels the call.
    """

    @overload
    async def call(self, method: str, params: Any = ..., *, progress: Progress | None = ...) -> Any: ...

    @overload
    async def call(self, method: str, params: Any = ..., *, result: type[T], progress: Progress | None = ...) -> T: ...

    async def call(
        self, method: str, params: Any = None, *, result: Any = None, progress: Progress | None = None
    ) -> Any:
        """Call a method and wait for its result. Raises RpcError."""
        ...

    def stream(
        self, method: str, params: Any = None, *, item: Any = None, result: Any = None, progress: Progress | None = None
    ) -> AbstractAsyncContextManager[Stream]:
        """Call a streaming method; leaving the block before its end cancels the call.

        async with caller.stream("chat.complete", request, item=ChatChunk) as stream:
            async for chunk in stream: ...
            answer = await stream.result()
        """
        ...


class Tasks(Protocol):
    """Background tasks of one generation: cancelled when it retires. One that fails, or goes on all the same, is
    recorded and disturbs nobody."""

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> None: ...


class Context(Caller, Protocol):
    """One generation's access to everything around it."""

    id: str
    """The extension's id."""
    generation: int
    """Which import of its source this is, from 1."""
    log: logging.Logger
    """Goes to stderr (warnings) and the rotating log file (all)."""
    data_dir: Path
    """A folder of the extension's own; it exists."""
    tasks: Tasks

    @property
    def settings(self) -> Any:
        """The current values, an instance of the Struct that `jan_settings` named. Read it anew each time."""
        ...

    @property
    def hooks(self) -> Hooks:
        """Call hooks of the whole house, one typed method per hook."""
        ...

    @property
    def http(self) -> httpx.AsyncClient:
        """The one shared HTTP client: it obeys the environment's proxy settings. Do not close it."""
        ...

    def emit(self, name: str, data: Any = None, *, key: str = "") -> None:
        """Tell everybody that something happened. Events with the same `key` may replace each other unsent."""
        ...

    def on_dispose(self, function: Callable[[], Awaitable[None] | None]) -> None:
        """Call `function` when this generation retires, after what was registered later."""
        ...
