"""Starts tasks by running them at once up to their first wait, instead of in the next turn of the event loop.

Most handlers never wait, and then their task is over before anybody needs to know of it. Python 3.12 has this as
`asyncio.Task(eager_start=True)`. On 3.11 the loop is asked to hand over the first step instead of queueing it. Where
neither works (another event loop, a caller that is a task itself) tasks are ordinary ones.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

__all__ = ["starter"]

Start = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


def starter(loop: asyncio.AbstractEventLoop) -> Start:
    """A function that runs work as a named task of `loop`, which is the running one."""
    if sys.version_info >= (3, 12):
        return lambda work, name: asyncio.Task(work, loop=loop, name=name, eager_start=True)
    if type(loop).call_soon is not asyncio.BaseEventLoop.call_soon:  # uvloop: its attributes cannot be set
        return lambda work, name: loop.create_task(work, name=name)
    return _starter_of_3_11(loop)


def _starter_of_3_11(loop: Any) -> Start:
    first: Callable[[], None]
    in_context: Context
    new_task, current_task = asyncio.Task, asyncio.current_task

    def hand_over(step: Callable[[], None], *, context: Context) -> None:
        nonlocal first, in_context
        first, in_context = step, context

    def start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if current_task(loop) is not None:  # a task cannot be run inside another
            return new_task(work, loop=loop, name=name)
        # All that a new task does is to put its first step into `call_soon`; nothing else runs in between.
        loop.call_soon = hand_over
        try:
            task = new_task(work, loop=loop, name=name)
        finally:
            del loop.call_soon
        in_context.run(first)
        return task

    return start
