"""Starts tasks by running them at once up to their first wait, instead of in the next turn of the event loop.

Most handlers never wait, and then their task is over before anybody needs to know of it. Python 3.12 has this as
`asyncio.Task(eager_start=True)`. On 3.11 the loop is asked to hand over the first step instead of queueing it. Where
neither works (another event loop, one whose `call_soon` is replaced already, a caller that is a task itself) tasks are
ordinary ones. A loop's task factory is not asked on either.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
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
    mine: Context | None = None
    first: Callable[[], object] | None = None
    new_task, current_task, attributes = asyncio.Task, asyncio.current_task, vars(loop)
    call_soon = loop.call_soon

    def hand_over(callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        nonlocal first
        if context is None or context is not mine:
            # Finalizers may run while a task is made, and signal handlers: what they ask for is theirs.
            return call_soon(callback, *args, context=context)
        first = callback
        return None

    def start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        nonlocal mine, first
        # A task cannot be run inside another; and what somebody else has put in this place is left there.
        if current_task(loop) is not None or "call_soon" in attributes:
            return new_task(work, loop=loop, name=name)
        # A new task puts its first step into `call_soon`, in the context that it is given: nobody else has that one.
        mine = context = copy_context()
        loop.call_soon = hand_over
        try:
            task = new_task(work, loop=loop, name=name, context=context)
        finally:
            del loop.call_soon
            mine = None
        if first is not None:
            step, first = first, None
            context.run(step)
        return task

    return start
