"""Work on many files, off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["off_loop"]

T = TypeVar("T")


async def off_loop(function: Callable[..., T], *args: Any) -> T:
    """Run a function in a thread and see it through: it is never left half-way, even when the caller is cancelled."""
    import anyio.to_thread

    return await anyio.to_thread.run_sync(function, *args)
