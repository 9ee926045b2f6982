"""Blocking work off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio.to_thread

__all__ = ["in_thread"]

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Run a short blocking function in a worker thread. It always ends, also when the caller is cancelled."""
    return await anyio.to_thread.run_sync(partial(function, *args, **options))
