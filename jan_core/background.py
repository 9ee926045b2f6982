"""Work that goes on beside whoever asked for it: in a worker thread, or in a task that several wait for.

It knows nothing of extensions but how the failure of a stage is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from .errors import ShuttingDown
from .extension import Failure
from .loader import StageError

__all__ = ["in_thread", "keep", "shared"]

T = TypeVar("T")

YIELD_EVERY, YIELD_FOR = 0.001, (0.0002, 0.002)
"""Seconds: how often a busy loop sleeps while something is staged, and for how long at first and at most."""


def keep(tasks: set[asyncio.Task[Any]], task: asyncio.Task[T]) -> asyncio.Task[T]:
    """Hold on to a task while it runs: the loop itself keeps only a weak reference."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def shared(task: asyncio.Task[T]) -> T:
    """What a task makes that is nobody's own: a caller that gives up leaves it to the others.

    Raises what it raises, and ShuttingDown when the host ended it.
    """
    task.add_done_callback(_retrieve)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        caller = asyncio.current_task()
        if task.cancelled() and caller is not None and not caller.cancelling():
            raise ShuttingDown("the host is shutting down") from None
        raise


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Its callers may all have gone: a failure that is on the record need not be logged as lost."""
    if not task.cancelled():
        task.exception()


async def in_thread(
    stage_name: str,
    limit: float,
    function: Callable[..., T],
    *args: Any,
    undo: Callable[[], None] = lambda: None,
) -> T:
    """Run one stage in a worker thread. Raises StageError, also when it takes longer than `limit` seconds.

    A thread cannot be stopped: `undo` takes back what it did when nobody waits for it any more, once it has ended.
    """
    import anyio
    import anyio.to_thread

    ended = given_up = False

    def work() -> T:
        nonlocal ended
        try:
            return function(*args)
        finally:
            ended = True
            if given_up:
                undo()

    yielding = asyncio.create_task(_let_threads_run(), name=f"let the {stage_name} run")
    try:
        with anyio.fail_after(limit):
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except BaseException as error:
        given_up = True
        if ended:
            undo()
        if isinstance(error, TimeoutError):
            message = f"the {stage_name} did not end within {limit:g} s"
            raise StageError(Failure(stage_name, "TimeoutError", message)) from None
        raise
    finally:
        yielding.cancel()


async def _let_threads_run() -> None:
    """Now and then sleep with the whole event loop, so that a worker thread gets the GIL.

    CPython asks for the GIL on behalf of a thread only when the thread's wait for it times out, and a loop that is busy
    starts that wait anew with each poll for events, which lets go for a microsecond (`take_gil` in ceval_gil.h). Fifty
    streams that never pause have kept an import waiting for seconds.
    """
    least, most = YIELD_FOR
    began = time.monotonic()
    while True:
        await asyncio.sleep(YIELD_EVERY)
        time.sleep(min(most, max(least, (time.monotonic() - began) / 50)))  # noqa: ASYNC251 (blocking is the point)
