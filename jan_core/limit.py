"""How long one call of somebody's code may take, and whose cancellation it was when it ends early.

Written for calls that mostly end without waiting for anything: those pay for no timer and no task. (Where awaiting a
coroutine takes 0.1 us, asyncio.timeout takes 3 us, anyio's time-out 5 us, and its task group 75 us for five.) What
is bounded here is time spent waiting; code that blocks is `stall.py`'s to find.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, TypeVar

__all__ = ["GRACE", "Limit", "ended", "started"]

T = TypeVar("T")

GRACE = 1.0
"""Seconds for what passed its deadline, or was cancelled, to end. One that swallows its cancellation is left behind
then, where it runs in a task of its own."""


class Limit:
    """The limit of one call, which runs in the task that enters `bound`.

    `expired`: the call was cancelled for having passed it. `given_up`: nobody waits for it any more.
    """

    __slots__ = ("_before", "_clock", "_task", "expired", "given_up", "seconds")

    def __init__(self, seconds: float, *, clock: bool = True) -> None:
        """Without `clock`, somebody else calls `expire` in time: one timer will do for calls that begin together."""
        self.seconds = seconds
        self.expired = self.given_up = False
        self._clock = clock
        self._before = 0
        self._task: asyncio.Task[Any] | None = None

    def expire(self) -> None:
        """The time is over: cancel the call, if it is still waiting."""
        if self._task is not None:
            self.expired = True
            self._task.cancel()

    @types.coroutine
    def bound(self, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Await `work`, with a deadline from when it first waits for something."""
        try:
            waits = work.send(None)
        except StopIteration as end:
            return end.value
        self._task = task = asyncio.current_task()
        assert task is not None
        self._before = task.cancelling()
        timer = asyncio.get_running_loop().call_later(self.seconds, self.expire) if self._clock else None
        try:
            while True:
                try:
                    sent = yield waits
                except BaseException as error:
                    waits = work.throw(error)
                else:
                    waits = work.send(sent)
        except StopIteration as end:
            return end.value
        finally:
            self._task = None
            if timer is not None:
                timer.cancel()

    def settle(self, task: asyncio.Task[Any], *ours: bool) -> bool:
        """Take back the cancellations of `task` that were `ours`, as asyncio.timeout does: whether another is left."""
        for cancelled in ours:
            if cancelled:
                task.uncancel()
        return task.cancelling() > (self._before if any(ours) else 0)


def started(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task for `work`. From Python 3.12 on it has run up to its first wait already, often its end."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


async def ended(tasks: Sequence[asyncio.Task[Any]], limits: Sequence[Limit], seconds: float) -> None:
    """Wait until all `tasks` have ended, or GRACE after `seconds`, when their limits have expired.

    Cancelled, it cancels them all and waits for them, GRACE at most.
    """
    waited_for = [task for task in tasks if not task.done()]
    left = len(waited_for)
    if left == 0:
        return
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    timer: asyncio.TimerHandle
    cancelled: asyncio.CancelledError | None = None

    def give_up() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def expire() -> None:
        nonlocal timer
        timer = loop.call_later(GRACE, give_up)
        for limit in limits:
            limit.expire()

    def one_ended(task: asyncio.Task[Any]) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            give_up()

    for task in waited_for:
        task.add_done_callback(one_ended)
    timer = loop.call_later(seconds, expire)
    try:
        while not waiter.done():
            try:
                await waiter
            except asyncio.CancelledError as error:
                if cancelled is None:  # anyio cancels again and again; the tasks are told once, and GRACE begins once
                    cancelled = error
                    timer.cancel()
                    timer = loop.call_later(GRACE, give_up)
                    for task in waited_for:
                        task.cancel()
                if left:
                    waiter = loop.create_future()
    finally:
        timer.cancel()
    if cancelled is not None:
        raise cancelled
