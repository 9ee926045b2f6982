"""One generation while it lives: the context it is handed, its background tasks, and its end.

A generation's whole life is one task (`live`), so that what it enters when it is activated (a task group of its own,
say) is left in the same task, whoever asks for its end. Nothing that it does can keep its end from coming: what does
not end is left behind, and said. Deciding when it begins and ends is `lifecycle.py`'s business.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from .background import keep
from .border import border
from .context import Caller, Progress, Stream
from .dispatch import Dispatcher
from .events import Event, EventBus
from .extension import Failure, Generation
from .hooks import Hooks
from .logs import logger_of
from .settings import Settings

if TYPE_CHECKING:
    import httpx

__all__ = ["House", "LiveContext", "live", "restore"]

CLEANUP_LIMIT = 5.0
"""Seconds for an extension's own disposers together: the host's exit must not hang on one of them."""

CANCEL_LIMIT, CANCEL_EVERY = 2.0, 0.5
"""Seconds for its background tasks to end once they are cancelled; a task that swallowed that is cancelled again."""

REVOKE_LIMIT = 1.0
"""Seconds that revoked calls may take to end before `jan_deactivate` is called over their heads."""

END_LIMIT = 20.0
"""Seconds from there to the end of everything, more than all that has a limit of its own. What goes on after that
(a disposer that swallows its cancellation) is not waited for: the next reload would be, too."""


class House(Protocol):
    """What a context reaches into: the part of a host that extensions need. They never see it themselves."""

    data_dir: Path
    settings: Settings
    bus: EventBus
    dispatcher: Dispatcher
    hooks: Hooks

    def client(self, name: str) -> Caller:
        """A caller in the name of an extension."""
        ...

    def http(self) -> httpx.AsyncClient:
        """The shared HTTP client."""
        ...


class LiveTasks:
    """Background tasks of one generation; see `context.Tasks`."""

    def __init__(self, generation: Generation, on_failure: Callable[[Failure], None]) -> None:
        self._generation, self._on_failure = generation, on_failure
        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> None:
        async def guarded() -> None:
            try:
                with border(f"a task of {self._generation.extension}"):
                    await function(*args)
            except Exception as error:
                logger_of(self._generation.extension).error("background task failed", exc_info=error)
                self._on_failure(Failure.of("task", error))

        def start() -> None:
            label = name or getattr(function, "__qualname__", None)
            if self._closed:
                log = logger_of(self._generation.extension)
                log.warning("%s has retired and starts no more tasks: %s", self._generation.name, label)
                return
            keep(self._running, self._loop.create_task(guarded(), name=label))

        _on_loop(self._loop, start)

    def cancel(self) -> None:
        """Cancel those that run now."""
        for task in self._running:
            task.cancel()

    async def aclose(self) -> None:
        """Cancel all, and wait until they have ended, CANCEL_LIMIT at most. No more are started."""
        self._closed = True
        end = self._loop.time() + CANCEL_LIMIT
        while self._running and self._loop.time() < end:
            self.cancel()
            await asyncio.wait(self._running, timeout=CANCEL_EVERY)
        if self._running:
            names = ", ".join(sorted(task.get_name() for task in self._running))
            message = f"tasks that ignore being cancelled go on: {names}"
            self._on_failure(Failure("task", "TimeoutError", message))


class Disposers:
    """What a generation wants done at its end, the latest first."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._functions: list[Callable[[], Awaitable[None] | None]] = []
        self.add = self._functions.append

    async def aclose(self) -> None:
        """Call all of them, within CLEANUP_LIMIT; past it each is cancelled at its first wait. One fails alone."""
        end = asyncio.get_running_loop().time() + CLEANUP_LIMIT
        cancelled: asyncio.CancelledError | None = None
        while self._functions:
            function = self._functions.pop()
            try:
                async with asyncio.timeout_at(end):
                    with border(f"a disposer of {self._id}"):
                        done = function()
                        if inspect.isawaitable(done):
                            await done
            except asyncio.CancelledError as error:
                cancelled = error
            except Exception as error:
                logger_of(self._id).error("a disposer failed", exc_info=error)
        if cancelled is not None:
            raise cancelled


class LiveContext:
    """The implementation of `context.Context`."""

    def __init__(self, house: House, generation: Generation, tasks: LiveTasks, disposers: Disposers) -> None:
        self.id = generation.extension
        self.generation = generation.number
        self.log = logger_of(self.id)
        self.data_dir = house.data_dir / self.id
        self.tasks = tasks
        self._house, self._kind = house, generation.settings_type
        self._settings: tuple[int, Any] | None = None
        self.on_dispose = disposers.add
        self._loop = asyncio.get_running_loop()
        self._caller = house.client(self.id)
        self.call = self._caller.call
        self.report = functools.partial(house.dispatcher.report, generation)

    def stream(
        self, method: str, params: Any = None, *, item: Any = None, result: Any = None, progress: Progress | None = None
    ) -> AbstractAsyncContextManager[Stream]:
        return self._caller.stream(method, params, item=item, result=result, progress=progress)

    @property
    def settings(self) -> Any:
        if self._kind is None:
            return None
        version = self._house.settings.version
        if self._settings is None or self._settings[0] != version:
            values = self._house.settings.read(self.id, self._kind)
            if not self._kind.__struct_config__.frozen:
                return values
            # Read for every request, and fitting them takes longer than most of those; nobody can change these.
            self._settings = version, values
        return self._settings[1]

    @property
    def hooks(self) -> Hooks:
        return self._house.hooks

    @property
    def http(self) -> httpx.AsyncClient:
        return self._house.http()

    def emit(self, name: str, data: Any = None, *, key: str = "") -> None:
        _on_loop(self._loop, functools.partial(self._house.bus.emit, Event(name, data, self.id, key)))


async def live(
    house: House,
    generation: Generation,
    on_failure: Callable[[Failure], None],
    started: asyncio.Future[Failure | None],
    state: Any = None,
) -> None:
    """Activate a generation, tell through `started` how that went, and see it through to its end.

    `state` is what the generation before handed over. `started` gets None when it is up, else the failure; what failed
    is disposed of first.
    """
    tasks, disposers = LiveTasks(generation, on_failure), Disposers(generation.extension)
    context = LiveContext(house, generation, tasks, disposers)
    failure: Failure | None = None
    activated = False
    try:
        failure = await _activate(house, generation, context)
        activated = failure is None
        if activated and state is not None:
            failure = await restore(house, generation, state)
        if failure is None:
            if not started.done():
                started.set_result(None)
            await _serve(generation, tasks)
    finally:
        limit = asyncio.get_running_loop().call_later(END_LIMIT, _give_up, generation, on_failure)
        try:
            if activated:
                outcome = await house.dispatcher.single(generation, "jan_deactivate", ctx=context)
                if outcome and outcome.failure:
                    on_failure(_at("deactivate", outcome.failure))
        finally:
            try:
                await tasks.aclose()
            finally:
                try:
                    await disposers.aclose()
                finally:
                    limit.cancel()
                    generation.retired.set()
                    if not started.done():  # nobody waits for ever, whatever happened
                        started.set_result(failure or Failure("activate", "Cancelled", "the activation was cancelled"))


async def _serve(generation: Generation, tasks: LiveTasks) -> None:
    await generation.retiring.wait()
    await generation.drained(generation.drain_limit)
    if generation.leases:
        # What is still inside may be its own tasks, calling its own methods: they would wait for each other.
        tasks.cancel()
        for lease in tuple(generation.leases):
            lease.revoke()
        await generation.drained(REVOKE_LIMIT)
        for lease in tuple(generation.leases):
            lease.leave()


def _give_up(generation: Generation, on_failure: Callable[[Failure], None]) -> None:
    on_failure(Failure("deactivate", "TimeoutError", f"{generation.name} did not end within {END_LIMIT:g} s"))
    generation.retired.set()


async def _activate(house: House, generation: Generation, context: LiveContext) -> Failure | None:
    try:
        context.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Failure.of("activate", error)
    outcome = await house.dispatcher.single(generation, "jan_activate", ctx=context)
    return outcome.failure and _at("activate", outcome.failure) if outcome else None


async def restore(house: House, generation: Generation, state: Any) -> Failure | None:
    """Hand over state, as the type that the implementation asks for: fields it does not know are left out, those that
    are missing get their defaults."""
    restore = getattr(generation.plugin, "jan_restore_state", None)
    try:
        hints = typing.get_type_hints(restore) if restore else {}
        kind = next((hint for name, hint in hints.items() if name != "return"), Any)
        outcome = await house.dispatcher.single(generation, "jan_restore_state", state=msgspec.convert(state, kind))
    except Exception as error:  # of the state, or of annotations that name nothing
        return Failure.of("restore", error)
    return outcome.failure and _at("restore", outcome.failure) if outcome else None


def _at(stage: str, failure: Failure) -> Failure:
    failure.stage = stage
    return failure


def _on_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> None:
    """Run `function` on the event loop: now when called on it, soon when called from any thread. Plain hook
    implementations run in threads."""
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        function()
    else:
        loop.call_soon_threadsafe(function)
