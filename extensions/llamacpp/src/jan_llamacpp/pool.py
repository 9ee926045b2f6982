"""The loaded models: one worker process each, loaded on request, the least recently used one given up for
another.

The pool decides when a worker starts and ends. What a worker is made of (engine, file, options) is its
starter's business, and what is asked of it its user's. For one event loop; not thread-safe.

* Requests for the same model share one load; when the last of them is cancelled, so is the load.
* A model in use is never unloaded for another: the request waits for room, up to a deadline. Models get room in the
  order in which they were asked for. Where those that are loaded never have a pause, the one that was loaded first
  takes no new requests after a while, ends those it has, and goes; what is asked of it meanwhile stands in line.
* A model that nobody used for some time is unloaded. A pinned one never is, but by name.
* A worker that turns out to be dead before a request reached it is started again for it, once.
* What follows from failed loads and deaths is `history.py`'s.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

from jan_core import JanError, Overloaded, Progress

from .client import ExitReason, WorkerProcess
from .deaths import death
from .errors import ModelBusy
from .failures import ModelLoadFailed, WorkerDied
from .history import History
from .model_slot import ModelSlot

__all__ = ["ModelPool", "Starter"]

Starter = Callable[[str, Progress], Awaitable[WorkerProcess]]
"""Starts a worker for a model's id, reporting as it goes. Cancelling it must leave no process."""

TURN_SECONDS = 10.0
"""A model that is never idle keeps its place so long when another waits for it."""


def ignore(message: str, done: float | None, total: float | None) -> None:
    """Progress nobody wants."""


class _Place:
    """A model's place in the line for room."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.waiters = 0


class ModelPool:
    """At most `max_loaded()` models at a time. `queue_seconds()`: how long a request waits for room.

    `idle_seconds()`: an unused model is unloaded after so long (0: never). `pinned(id)`: is it not unloaded
    for idleness or for another? `turn_seconds`: how long a model that is never idle keeps its place when
    another waits. `on_change` is called with a model's id whenever its state changed.
    """

    def __init__(
        self,
        start: Starter,
        *,
        max_loaded: Callable[[], int],
        queue_seconds: Callable[[], float],
        idle_seconds: Callable[[], float] = lambda: 0.0,
        pinned: Callable[[str], bool] = lambda id: False,
        turn_seconds: float = TURN_SECONDS,
        on_change: Callable[[str], None] = lambda id: None,
    ) -> None:
        self._start = start
        self._max_loaded, self._queue_seconds, self._idle_seconds = max_loaded, queue_seconds, idle_seconds
        self._pinned, self._turn_seconds = pinned, turn_seconds
        self._on_change = on_change
        self._slots: dict[str, ModelSlot] = {}
        self._line: dict[str, _Place] = {}  # models that wait for room, in the order they were asked for
        self._pins: set[str] = set()
        self._histories: dict[str, History] = {}
        self._turn = asyncio.Event()  # set and replaced whenever room may have come up
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def use(self, id: str, report: Progress = ignore) -> AsyncIterator[WorkerProcess]:
        """The worker of a model, loaded first where it is not, or where it is found dead; it is not unloaded inside
        the block.

        Raises what the load raises (again, when it failed a short time ago), and Overloaded when no room came
        up.
        """
        slot = await self._acquire(id, report)
        if await self._found_dead(slot):
            slot = await self._acquire(id, report)
        try:
            assert slot.worker is not None
            yield slot.worker
        finally:
            self._release(slot)

    async def load(self, id: str, report: Progress = ignore, *, pin: bool = False) -> WorkerProcess:
        """Load a model now, also when it failed a short time ago, or too often.

        It may be given up for another one later, unless it is pinned: then it stays until it is unloaded by name.
        """
        self.forget(id)
        async with self.use(id, report) as worker:
            if pin:
                self._pins.add(id)
            return worker

    async def unload(self, *ids: str, force: bool = False) -> bool:
        """Unload these, or none of them; False: none was loaded. `force` ends what runs on them. Raises ModelBusy."""
        slots = [self._slots[id] for id in ids if id in self._slots]
        for slot in slots:
            if slot.users and slot.worker is not None and not force:
                raise ModelBusy(f"{slot.id} is answering {slot.users} requests", model=slot.id, requests=slot.users)
        self._pins.difference_update(ids)
        await asyncio.gather(*(self._give_up(slot) for slot in slots))
        return bool(slots)

    async def close(self) -> None:
        """Unload everything; requests inside end with WorkerDied."""
        await asyncio.gather(*(self._give_up(slot) for slot in list(self._slots.values())))

    def is_pinned(self, id: str) -> bool:
        """Is this model kept when it is idle, and when another needs room?"""
        return id in self._pins or self._pinned(id)

    def reconsider(self) -> None:
        """The settings are others now: so may be the room, and how long a model may be idle."""
        for slot in self._slots.values():
            self._watch_idle(slot)
        self._wake()

    def state(self, id: str) -> tuple[Literal["available", "loading", "loaded", "failed"], str]:
        """A model's state, and why it cannot be loaded, or could not the last time."""
        if slot := self._slots.get(id):
            return ("loading" if slot.worker is None else "loaded"), ""
        history = self._histories.get(id)
        if history and history.error:
            return "failed", history.error.message
        return "available", ""

    def refuses(self, id: str) -> bool:
        """Whether a request for the model would be refused now, for what went wrong with it lately."""
        history = self._histories.get(id)
        return history is not None and history.refusal() is not None

    def forget(self, id: str) -> None:
        """Forget what went wrong with a model: its file is another one now."""
        if self._histories.pop(id, None):
            self._wake()

    def forget_all(self) -> None:
        """Forget what went wrong with any model: the engine or the settings are others now."""
        self._histories.clear()
        self._wake()

    def known(self) -> list[str]:
        """The ids of all that is loaded or loading, was, or failed."""
        return [*dict.fromkeys((*self._slots, *self._histories))]

    def loaded(self) -> dict[str, WorkerProcess]:
        """The workers by model id, the least recently used first."""
        slots = sorted(self._slots.values(), key=lambda slot: slot.used_at)
        return {slot.id: slot.worker for slot in slots if slot.worker is not None}

    # --- inside ---------------------------------------------------------------------------------------------

    async def _acquire(self, id: str, report: Progress) -> ModelSlot:
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

    async def _found_dead(self, slot: ModelSlot) -> bool:
        """Whether a worker died before anything of this request reached it, so that another one may be asked. The slot
        is given back then.

        That a process is gone is noticed some time after its end, so one that is idle is asked for a sign of life; what
        a busy one dies of cannot be told from the request.
        """
        worker = slot.worker
        assert worker is not None
        if worker.alive and worker.busy:
            return False
        try:
            await worker.stats()
        except WorkerDied:
            self._release(slot)
            if slot.leaving:  # unloaded meanwhile
                raise
            while self._slots.get(slot.id) is slot:  # until the death is in the books
                await self._turn.wait()
            return True
        except BaseException:
            self._release(slot)
            raise
        return False

    async def _slot(self, id: str, report: Progress) -> ModelSlot:
        """The model's slot, a new one where there is none. Nothing is awaited between finding room and taking
        it.
        """
        deadline = time.monotonic() + self._queue_seconds()
        place: _Place | None = None
        try:
            while True:
                slot, history = self._slots.get(id), self._histories.get(id)
                if slot is not None and not slot.leaving and not (slot.draining and self._first() not in (id, None)):
                    slot.draining = False
                    return slot
                if slot is None and history is not None and (refusal := history.refusal()):
                    raise refusal.with_traceback(None)
                if slot is None and history is not None and history.waits:
                    # Waited for out here: a model that is not started takes nobody's place.
                    self._step_out(id, place)
                    place = None
                    died = f"{id} ended {history.lives} times"
                    report(f"{died}; waiting before the next start", None, None)
                    await self._turn_before(min(history.not_before, deadline))
                    if time.monotonic() >= deadline:
                        raise Overloaded(f"{died} and is not started again yet", models=list(self._slots))
                    continue
                if place is None or self._line.get(id) is not place:
                    place = self._line.setdefault(id, _Place())
                    place.waiters += 1
                until = deadline
                if slot is None and self._first() == id:
                    if len(self._slots) < self._max_loaded():
                        return self._open(id)
                    idle = [each for each in self._slots.values() if not each.users and self._may_go(each)]
                    if idle:
                        await self._give_up(min(idle, key=lambda each: each.used_at))
                        continue
                    until = min(deadline, self._make_turn(place))
                busy = ", ".join(self._slots)
                report(f"waiting for room: {busy} in use", None, None)
                if not await self._turn_before(until) and time.monotonic() >= deadline:
                    raise Overloaded(f"{id} cannot be loaded: {busy} did not become free", models=list(self._slots))
        finally:
            self._step_out(id, place)

    def _first(self) -> str | None:
        """The model whose turn it is to get room."""
        return next(iter(self._line), None)

    def _step_out(self, id: str, place: _Place | None) -> None:
        """One request less that stands in a place."""
        if place is None:
            return
        place.waiters -= 1
        if not place.waiters and self._line.get(id) is place:
            del self._line[id]
            self._line_moved()

    def _line_moved(self) -> None:
        if not self._line:  # nobody needs the room that was being made
            for slot in self._slots.values():
                slot.draining = False
        self._wake()

    def _may_go(self, slot: ModelSlot) -> bool:
        return not slot.leaving and not self.is_pinned(slot.id)

    def _make_turn(self, place: _Place) -> float:
        """Nobody is idle: let the model that was loaded first end its requests, if it had its turn.

        Returns when to look again. Raises Overloaded when all that is loaded is pinned.
        """
        slots = self._slots.values()
        if all(self.is_pinned(slot.id) for slot in slots):
            raise Overloaded(f"all models that are loaded are pinned: {', '.join(self._slots)}", models=[*self._slots])
        loaded = [slot for slot in slots if slot.worker is not None and self._may_go(slot)]
        if not loaded or any(slot.draining or slot.leaving for slot in slots):
            return math.inf
        victim = min(loaded, key=lambda slot: slot.started_at)
        when = max(place.since, victim.started_at) + self._turn_seconds
        if time.monotonic() < when:
            return when
        victim.draining = True
        return math.inf

    async def _turn_before(self, when: float) -> bool:
        """Wait until something has changed; False when nothing did until `when` (`time.monotonic`'s)."""
        # Not wait_for: before Python 3.12 it loses a cancellation that comes with the result.
        try:
            async with asyncio.timeout(when - time.monotonic()):
                return await self._turn.wait()
        except TimeoutError:
            return False

    def _open(self, id: str) -> ModelSlot:
        slot = self._slots[id] = ModelSlot(id)
        slot.load = asyncio.create_task(self._load(slot), name=f"load {id}")
        slot.load.add_done_callback(_retrieve)
        if self._line.pop(id, None):
            self._line_moved()
        return slot

    async def _load(self, slot: ModelSlot) -> WorkerProcess:
        self._on_change(slot.id)
        try:
            worker = await self._start(slot.id, slot.report)
        except BaseException as failure:
            if isinstance(failure, JanError):
                self._histories.setdefault(slot.id, History()).failed(failure)
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
        self._wake()
        return worker

    def _exited(self, slot: ModelSlot, future: asyncio.Future[ExitReason]) -> None:
        if not future.cancelled() and not future.result().expected:
            history = self._histories.setdefault(slot.id, History())
            history.died(slot.id, time.monotonic() - slot.started_at, death(future.result()))
        self._drop(slot)

    def _release(self, slot: ModelSlot) -> None:
        slot.users -= 1
        slot.used_at = time.monotonic()
        if not slot.users:
            self._watch_idle(slot)
            self._wake()

    def _watch_idle(self, slot: ModelSlot) -> None:
        """Unload it when it is idle for too long, counted from its last use."""
        if slot.idle is not None:
            slot.idle.cancel()
            slot.idle = None
        seconds = self._idle_seconds()
        if seconds and not slot.users and slot.worker is not None and self._may_go(slot):
            left = max(0.0, slot.used_at + seconds - time.monotonic())
            slot.idle = asyncio.get_running_loop().call_later(left, self._idle_too_long, slot)

    def _idle_too_long(self, slot: ModelSlot) -> None:
        if not slot.users and self._may_go(slot):
            task = asyncio.create_task(self._give_up(slot), name=f"unload {slot.id}")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _give_up(self, slot: ModelSlot) -> None:
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

    def _drop(self, slot: ModelSlot) -> None:
        if slot.idle is not None:
            slot.idle.cancel()
        if self._slots.get(slot.id) is slot:
            del self._slots[slot.id]
            self._wake()
            self._on_change(slot.id)

    def _wake(self) -> None:
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()


def _retrieve(task: asyncio.Task[WorkerProcess]) -> None:
    """Waiters may all have gone: a failure nobody awaits must not be logged as lost."""
    if not task.cancelled():
        task.exception()
