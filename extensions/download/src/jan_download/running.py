"""A run as the event loop sees it: how far it is, and how to end it. What it does is in `run`, in its thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from .progress import Meter
from .records import Job
from .status import Status

if TYPE_CHECKING:
    from .engine.stop import Stop

__all__ = ["Run"]

T = TypeVar("T")


class Run:
    """A job whose thread is at work, or about to be. `limit` is read by that thread: bytes/s, 0 for none.

    `requeue`: when it has ended, the job is to go back to the queue. `ended` is set when nothing of it is left.
    """

    def __init__(self, job: Job, on_loop: Callable[..., None]) -> None:
        from .engine.stop import Stop

        self.job = job
        self.limit = self._journaled_limit = job.limit
        self.stop: Stop = Stop()
        self.requeue = False
        self.started = False
        """Whether `job` is as it was when this run took it over."""
        self.ended = anyio.Event()
        self.status: Status | None = None
        self.meter = Meter(job.offset, time.monotonic())
        self._on_loop = on_loop
        self._loop = asyncio.get_running_loop()
        self._shown: tuple[Any, ...] = ()

    @property
    def stopping(self) -> bool:
        return self.stop.is_set()

    def halt(self, *, requeue: bool = False) -> None:
        """Have it end. Whoever halts it for another reason than its turn decides what becomes of the job."""
        self.requeue = requeue
        self.stop.set()

    async def work(self, function: Callable[[], Job]) -> Job | Exception:
        """Run a function in the thread of this run; returns what it returned or raised."""
        done = anyio.Event()
        outcome: list[Job | Exception] = []

        def thread() -> None:
            try:
                outcome.append(function())
            except Exception as error:  # everything: the queue judges it
                outcome.append(error)
            self._on_loop(done.set)

        # Not a worker of anyio's: a run lasts for hours, and its thread must not keep a process from ending.
        threading.Thread(target=thread, name=f"download {self.job.id}", daemon=True).start()
        try:
            await done.wait()
        except BaseException:
            self.stop.set()
            with anyio.move_on_after(2.0, shield=True):
                await done.wait()
            raise
        return outcome[0]

    def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Have something asked on the event loop; blocks the run's thread. Raises Stopped when the run is stopped."""

        async def asked() -> T:
            return await question()

        def cancel() -> None:
            future.cancel()

        future = asyncio.run_coroutine_threadsafe(asked(), self._loop)
        with self.stop.calling(cancel):
            try:
                return future.result()
            finally:
                self.stop.check()

    def note(self, status: Status) -> bool:
        """Take note of how far the run is; returns whether there is anything new to show."""
        if status.job.run != self.job.run:
            return False  # a thread that does not know yet that it was superseded
        self.status = status
        if status.job.limit != self._journaled_limit:  # by another process: here it is told sooner, by the queue
            self.limit = self._journaled_limit = status.job.limit
        self.meter.add(status.written, time.monotonic())
        shown = (
            status.job.state,
            status.job.high,
            status.job.discarded,
            status.verified,
            round(self.meter.speed),
            status.connections,
            status.pieces,
            tuple((each.id, each.state) for each in status.sources),
        )
        changed, self._shown = shown != self._shown, shown
        return changed
