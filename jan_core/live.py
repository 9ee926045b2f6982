"""One generation while it lives: the context it is handed, its background tasks, and its end.

A generation's whole life is one task (`live`), so that its task group is left where it was entered, whoever asks for
its end. Deciding when it begins and ends is `lifecycle.py`'s business.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import typing
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import msgspec
from anyio.abc import TaskGroup

from .border import border
from .context import Caller, Progress, Stream
from .dispatch import Dispatcher
from .events import Event, EventBus
from .extension import Failure, Generation
from .hooks import Hooks
from .settings import Settings

if TYPE_CHECKING:
    import httpx

__all__ = ["House", "LiveContext", "live", "restore"]

CLEANUP_LIMIT = 5.0
"""Seconds for an extension's own disposers together: the host's exit must not hang on one of them."""


REVOKE_LIMIT = 1.0
"""Seconds that revoked calls may take to end before `jan_deactivate` is called over their heads."""


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

    def __init__(self, group: TaskGroup, generation: Generation, on_failure: Callable[[Failure], None]) -> None:
        self._group, self._generation, self._on_failure = group, generation, on_failure
        self._loop = asyncio.get_running_loop()

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> None:
        async def guarded() -> None:
            try:
                with border(f"a task of {self._generation.extension}"):
                    await function(*args)
            except Exception as error:
                logging.getLogger(f"jan.{self._generation.extension}").error("background task failed", exc_info=error)
                self._on_failure(Failure.of("task", error))

        label = name or getattr(function, "__qualname__", None)
        _on_loop(self._loop, functools.partial(self._group.start_soon, guarded, name=label))


class LiveContext:
    """The implementation of `context.Context`."""

    def __init__(self, house: House, generation: Generation, tasks: LiveTasks, stack: AsyncExitStack) -> None:
        self.id = generation.extension
        self.generation = generation.number
        self.log = logging.getLogger(f"jan.{self.id}")
        self.data_dir = house.data_dir / self.id
        self.tasks = tasks
        self._house, self._kind, self._stack = house, generation.settings_type, stack
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
        return self._house.settings.read(self.id, self._kind) if self._kind else None

    @property
    def hooks(self) -> Hooks:
        return self._house.hooks

    @property
    def http(self) -> httpx.AsyncClient:
        return self._house.http()

    def emit(self, name: str, data: Any = None, *, key: str = "") -> None:
        _on_loop(self._loop, functools.partial(self._house.bus.emit, Event(name, data, self.id, key)))

    def on_dispose(self, function: Callable[[], Awaitable[None] | None]) -> None:
        async def dispose() -> None:
            try:
                with border(f"a disposer of {self.id}"):
                    done = function()
                    if inspect.isawaitable(done):
                        await done
            except Exception as error:
                self.log.error("a disposer failed", exc_info=error)

        self._stack.push_async_callback(dispose)


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
    try:
        failure = await _live(house, generation, on_failure, started, state)
        if failure is not None and not started.done():
            started.set_result(failure)
    finally:
        generation.retired.set()
        if not started.done():  # nobody waits for ever, whatever happened
            started.set_result(Failure("activate", "Cancelled", "the activation was cancelled"))


async def _live(
    house: House,
    generation: Generation,
    on_failure: Callable[[Failure], None],
    started: asyncio.Future[Failure | None],
    state: Any,
) -> Failure | None:
    # The disposers are entered before the tasks, so that they run after them: what a task uses outlives it.
    async with _bounded(CLEANUP_LIMIT) as disposers, anyio.create_task_group() as group:
        context = LiveContext(house, generation, LiveTasks(group, generation, on_failure), disposers)
        failure = await _activate(house, generation, context)
        activated = failure is None
        if failure is None and state is not None:
            failure = await restore(house, generation, state)
        if failure is None:
            if not started.done():
                started.set_result(None)
            await generation.retiring.wait()
            await generation.drained(generation.drain_limit)
            if generation.leases:
                # What is still inside may be its own tasks, calling its own methods: they would wait for each other.
                group.cancel_scope.cancel()
                for lease in tuple(generation.leases):
                    lease.revoke()
                with anyio.CancelScope(shield=True):
                    await generation.drained(REVOKE_LIMIT)
        if activated:
            with anyio.CancelScope(shield=True):
                outcome = await house.dispatcher.single(generation, "jan_deactivate", ctx=context)
            if outcome and outcome.failure:
                outcome.failure.stage = "deactivate"
                on_failure(outcome.failure)
        group.cancel_scope.cancel()
    return failure


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
        hints = list(typing.get_type_hints(restore).values()) if restore else []
        kind = hints[0] if hints else Any
        outcome = await house.dispatcher.single(generation, "jan_restore_state", state=msgspec.convert(state, kind))
    except (msgspec.ValidationError, NameError, TypeError) as error:
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
        return

    async def later() -> None:  # a task and not a bare callback: anyio starts tasks from tasks only
        function()

    asyncio.run_coroutine_threadsafe(later(), loop)


class _bounded(AbstractAsyncContextManager[AsyncExitStack]):  # noqa: N801 (reads as a function)
    """An exit stack whose exit is shielded from cancellation and bounded in time."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> AsyncExitStack:
        return self._stack

    async def __aexit__(self, *exc: object) -> None:
        with anyio.move_on_after(self._limit, shield=True):
            await self._stack.aclose()
