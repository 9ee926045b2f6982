"""Worker threads for the hook implementations that are plain functions.

Each generation of an extension has its own few, so that one that hangs takes nobody else's. A thread cannot be
stopped: when its call is given up (deadline, cancellation) it goes on by itself and is counted as stuck until it
returns; an extension whose threads are all stuck is refused at once. The threads are daemons, so that a stuck one does
not hold the end of the process. anyio's own worker threads do neither: an abandoned call there gives back its place
while its thread lives, and the interpreter waits for that thread at exit.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

__all__ = ["LIMIT", "ThreadFigures", "Threads", "ThreadsStuck"]

LIMIT = 8
"""Threads of one generation: several hooks of it may well block at once, and eight stuck ones are enough of a leak."""

IDLE = 5.0
"""Seconds a thread without work is kept: hooks come in bursts, and most never come again."""


class ThreadsStuck(Exception):
    """Every thread of an extension is inside a call that was given up."""


class ThreadFigures(Struct):
    """Threads of one extension: inside a call now, and those of them whose call was given up."""

    running: int
    stuck: int
    limit: int


class Threads:
    """The worker threads of one generation. For one event loop; begins without any."""

    def __init__(self, generation: str) -> None:
        self._generation = generation
        self._idle: list[_Worker] = []
        self._free = asyncio.Semaphore(LIMIT)
        self.running = self.stuck = 0

    async def run(self, function: Callable[..., Any], arguments: Iterable[Any]) -> Any:
        """Call `function` in a thread, in a copy of the caller's context, and wait for what it returns.

        Waits for a thread when all are at work. Cancelled, it leaves the thread to itself. Raises ThreadsStuck, or what
        the function raises.
        """
        if self.stuck >= LIMIT:
            raise ThreadsStuck(f"all {LIMIT} threads of {self._generation} are stuck in calls that never returned")
        await self._free.acquire()
        worker = self._idle.pop() if self._idle else _Worker(self, asyncio.get_running_loop(), self._generation)
        self.running += 1
        call = _Call(contextvars.copy_context(), function, arguments, worker.loop.create_future())
        worker.calls.put(call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            if call.answer.cancelled():
                self.stuck += 1
            raise

    def ended(self, worker: _Worker, call: _Call, value: Any, error: BaseException | None) -> None:
        """A thread has come back; told on the loop."""
        self.running -= 1
        self._idle.append(worker)
        self._free.release()
        if call.answer.cancelled():
            self.stuck -= 1
        elif error is None:
            call.answer.set_result(value)
        else:
            call.answer.set_exception(error)

    def dismiss(self, worker: _Worker) -> None:
        """A thread has had nothing to do for a while; told on the loop. It may have been given something meanwhile."""
        if worker in self._idle:
            self._idle.remove(worker)
            worker.calls.put(None)


class _Call(Struct, eq=False):
    context: contextvars.Context
    function: Callable[..., Any]
    arguments: Iterable[Any]
    answer: asyncio.Future[Any]


class _Worker:
    """One thread. It keeps nothing of a call that is over: a retired generation must not live on in an idle thread."""

    def __init__(self, threads: Threads, loop: asyncio.AbstractEventLoop, generation: str) -> None:
        self.loop = loop
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads = threads
        threading.Thread(target=self._work, name=f"hooks of {generation}", daemon=True).start()

    def _work(self) -> None:
        patience: float | None = IDLE
        while True:
            try:
                call = self.calls.get(timeout=patience)
            except queue.Empty:
                patience = None
                if self._tell(self._threads.dismiss, self):
                    continue
                return
            if call is None or not self._tell(self._threads.ended, self, call, *_made_of(call)):
                return
            patience = IDLE
            del call

    def _tell(self, function: Callable[..., None], *arguments: Any) -> bool:
        """Have the loop call `function`. False when it is closed: nobody waits any more."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return False
        return True


def _made_of(call: _Call) -> tuple[Any, BaseException | None]:
    try:
        return call.context.run(call.function, *call.arguments), None
    except StopIteration as error:  # a future cannot carry one
        wrapped = RuntimeError("the function raised StopIteration")
        wrapped.__cause__ = error
        return None, wrapped
    except BaseException as error:
        return None, error
