"""The loaded models: one worker process each, loaded on request, the least recently used one given up for
another.

The pool decides when a worker starts and ends. What a worker is made of (engine, file, options) is its
starter's business, and what is asked of it its user's. For one event loop; not thread-safe.

* Requests for the same model share one load; when the last of them is cancelled, so is the load. * A model in
use is never unloaded for another: the request waits for room, up to a deadline. * A failed load is
remembered, and answered with again without trying, for a time that doubles with each failure. * A worker that
died is started again by the next request: at once the first time, then after growing pauses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

from jan_core import JanError, Overloaded, Progress

from .client import ExitReason, WorkerProcess
from .errors import ModelBusy
from .failures import ModelLoadFailed

__all__ = ["ModelPool", "Starter"]

Starter = Callable[[str, Progress], Awaitable[WorkerProcess]]
"""Starts a worker for a model's id, reporting as it goes. Cancelling it must leave no process."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds
_STEADY = 60.0  # a worker that lived this long is not in a crash loop


def ignore(message: str, done: float | None, total: float | None) -> None:
    """Progress nobody wants."""


class _Slot:
    """A model that is loading or loaded. `users` counts the requests inside and those waiting for the load."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.users = 0
        self.used_at = self.started_at = time.monotonic()
        self.worker: WorkerProcess | None = None
        self.load: asyncio.Task[WorkerProcess]
        self.listeners: list[Progress] = []
        self.leaving = False

    def report(self, message: str, done: float | None, total: float | None) -> None:
        for listener in tuple(self.listeners):
            try:
                listener(message, done, total)
            except Exception:  # It is one request's; the load is everybody's.
                self.listeners.remove(listener)


class _History:
    """What went wrong with a model lately. Times are `time.monotonic`'s."""

    def __init__(self) -> None:
        self.error: JanError | None = None
        self.failures = 0
        self.not_before = 0.0
        self.deaths = 0

    def failed(self, error: JanError) -> None:
        self.error, self.failures = error, self.failures + 1
        self.not_before = time.monotonic() + _pause(self.failures)

    def died(self, lived: float) -> None:
        self.deaths = 1 if lived >= _STEADY else self.deaths + 1
        self.not_before = time.monotonic() + (_pause(self.deaths - 1) if self.deaths > 1 else 0.0)

    def loaded(self) -> None:
        self.error, self.failures = None, 0


class ModelPool:
    """At most `max_loaded()` models at a time. `queue_seconds()`: how long a request waits for room.

    `on_change` is called with a model's id whenever its state changed.
    """

    def __init__(
        self,
        start: Starter,
        *,
        max_loaded: Callable[[], int],
        queue_seconds: Callable[[], float],
        on_change: Callable[[str], None] = lambda id: None,
    ) -> None:
        self._start = start
        self._max_loaded = max_loaded
        self._queue_seconds = queue_seconds
        self._on_change = on_change
        self._slots: dict[str, _Slot] = {}
        self._histories: dict[str, _History] = {}
        self._turn = asyncio.Event()  # set and replaced whenever room may have come up

    @asynccontextmanager
    async def use(self, id: str, report: Progress = ignore) -> AsyncIterator[WorkerProcess]:
        """The worker of a model, loaded first where it is not; it is not unloaded inside the block.

        Raises what the load raises (again, when it failed a short time ago), and Overloaded when no room came
        up.
        """
        slot = await self._acquire(id, report)
        try:
            assert slot.worker is not None
            yield slot.worker
        finally:
            self._release(slot)

    async def load(self, id: str, report: Progress = ignore) -> WorkerProcess:
        """Load a model now, also when it failed a short time ago. It may be given up for another one later."""
        self.forget(id)
        async with self.use(id, report) as worker:
            return worker

    async def unload(self, id: str, *, force: bool = False) -> bool:
        """Unload a model; False: it was not loaded. `force` ends what runs on it. Raises ModelBusy."""
        slot = self._slots.get(id)
        if slot is None:
            return False
        if slot.users and slot.worker is not None and not force:
            raise ModelBusy(f"{id} is answering {slot.users} requests", model=id, requests=slot.users)
        await self._give_up(slot)
        return True

    async def close(self) -> None:
        """Unload everything; requests inside end with WorkerDied."""
        await asyncio.gather(*(self._give_up(slot) for slot in list(self._slots.values())))

    def state(self, id: str) -> tuple[Literal["available", "loading", "loaded", "failed"], str]:
        """A model's state, and why its last load failed."""
        if slot := self._slots.get(id):
            return ("loading" if slot.worker is None else "loaded"), ""
        history = self._histories.get(id)
        if history and history.error:
            return "failed", history.error.message
        return "available", ""

    def forget(self, id: str) -> None:
        """Forget what went wrong with a model: its file is another one now."""
        if self._histories.pop(id, None):
            self._wake()

    def forget_all(self) -> None:
        """Forget what went wrong with any model: the engine or the settings are others now."""
        self._histories.clear()
        self._wake()

    def loaded(self) -> dict[str, WorkerProcess]:
        """The workers by model id, the least recently used first."""
        slots = sorted(self._slots.values(), key=lambda slot: slot.used_at)
        return {slot.id: slot.worker for slot in slots if slot.worker is not None}

    # -- inside
    # ------------------------------------------------------------------------------------------------------

    async def _acquire(self, id: str, report: Progress) -> _Slot:
        slot = await self._slot(id, report)
        slot.users += 1
        slot.listeners.append(report)
        try:
            await asyncio.shield(slot.load)
        except BaseException as failure:
            self._release(slot)
            task = asyncio.current_task()
            ours = task is not None and task.cancelling()  # the load may be what was cancelled, not this request
            if isinstance(failure, asyncio.CancelledError) and slot.load.cancelled() and not ours:
                raise ModelLoadFailed(f"{id} was unloaded while it was loading", reason="unloaded", log="") from None
            if slot.users == 0 and not slot.load.done():
                await self._give_up(slot)  # nobody waits for it any more
            raise
        finally:
            if report in slot.listeners:
                slot.listeners.remove(report)
        return slot

    async def _slot(self, id: str, report: Progress) -> _Slot:
        """The model's slot, a new one where there is none. Nothing is awaited between finding room and taking
        it.
        """
        deadline = time.monotonic() + self._queue_seconds()
        while True:
            slot = self._slots.get(id)
            if slot is None:
                history = self._histories.get(id)
                if history and history.error and time.monotonic() < history.not_before:
                    raise history.error.with_traceback(None)
                if history and time.monotonic() < history.not_before:
                    # Waited for out here: a model that is not started takes nobody's place.
                    died = f"{id} ended {history.deaths} times"
                    report(f"{died}; waiting before the next start", None, None)
                    await self._turn_before(min(history.not_before, deadline))
                    if time.monotonic() >= deadline:
                        raise Overloaded(f"{died} and is not started again yet", models=list(self._slots))
                    continue
                if len(self._slots) < self._max_loaded():
                    return self._open(id)
                idle = [each for each in self._slots.values() if not each.users and not each.leaving]
                if idle:
                    await self._give_up(min(idle, key=lambda each: each.used_at))
                    continue
            elif not slot.leaving:
                return slot
            busy = ", ".join(self._slots)
            report(f"waiting for room: {busy} in use", None, None)
            if not await self._turn_before(deadline):
                raise Overloaded(f"{id} cannot be loaded: {busy} did not become free", models=list(self._slots))

    async def _turn_before(self, when: float) -> bool:
        """Wait until something has changed; False when nothing did until `when` (`time.monotonic`'s)."""
        # Not wait_for: before Python 3.12 it loses a cancellation that comes with the result.
        try:
            async with asyncio.timeout(when - time.monotonic()):
                return await self._turn.wait()
        except TimeoutError:
            return False

    def _open(self, id: str) -> _Slot:
        slot = self._slots[id] = _Slot(id)
        slot.load = asyncio.create_task(self._load(slot), name=f"load {id}")
        slot.load.add_done_callback(_retrieve)
        return slot

    async def _load(self, slot: _Slot) -> WorkerProcess:
        self._on_change(slot.id)
        try:
            worker = await self._start(slot.id, slot.report)
        except BaseException as failure:
            if isinstance(failure, JanError):
                self._histories.setdefault(slot.id, _History()).failed(failure)
            self._drop(slot)
            raise
        if slot.leaving:  # the cancellation came too late to be seen in there
            worker.kill()
            self._drop(slot)
            raise asyncio.CancelledError
        if history := self._histories.get(slot.id):
            history.loaded()
        slot.worker = worker
        slot.used_at = slot.started_at = time.monotonic()
        worker.exited.add_done_callback(partial(self._exited, slot))
        self._on_change(slot.id)
        return worker

    def _exited(self, slot: _Slot, future: asyncio.Future[ExitReason]) -> None:
        if not future.cancelled() and not future.result().expected:
            self._histories.setdefault(slot.id, _History()).died(time.monotonic() - slot.started_at)
        self._drop(slot)

    def _release(self, slot: _Slot) -> None:
        slot.users -= 1
        slot.used_at = time.monotonic()
        if not slot.users:
            self._wake()

    async def _give_up(self, slot: _Slot) -> None:
        """End a slot's load or worker; its place is free when this returns, also when it is cancelled."""
        slot.leaving = True
        try:
            if slot.worker is None:
                slot.load.cancel()
                await asyncio.wait([slot.load])
            if slot.worker is not None:
                await slot.worker.close()
        finally:
            if slot.worker is not None:
                slot.worker.kill()
            self._drop(slot)

    def _drop(self, slot: _Slot) -> None:
        if self._slots.get(slot.id) is slot:
            del self._slots[slot.id]
            self._wake()
            self._on_change(slot.id)

    def _wake(self) -> None:
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()


def _pause(count: int) -> float:
    """Seconds to wait after the `count`th time in a row something went wrong."""
    return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(count - 1, 10)))


def _retrieve(task: asyncio.Task[WorkerProcess]) -> None:
    """Waiters may all have gone: a failure nobody awaits must not be logged as lost."""
    if not task.cancelled():
        task.exception()
