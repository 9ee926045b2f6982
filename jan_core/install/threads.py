"""Work that must not stop half-way: on many files, or between the switch and its announcement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["off_loop", "seen_through"]

T = TypeVar("T")


async def off_loop(function: Callable[..., T], *args: Any) -> T:
    """Run a function in a thread, and see it through: whoever cleans up after it must not race with it."""
    return await seen_through(asyncio.to_thread(function, *args))


async def seen_through(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, whatever comes meanwhile; a cancellation is raised after it."""
    import anyio

    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    # anyio would repeat its cancellations for ever, asyncio says its own once.
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # it is told to nobody: the cancellation is
        raise cancelled
    return task.result()
