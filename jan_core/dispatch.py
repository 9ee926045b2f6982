"""Calls hook implementations: concurrently or in order, each in its own scope.

pluggy holds specifications, registration and validation; the calls are ours, because pluggy has none that are async.
Order is derived from the extensions' places, not from the time of registration, so that a reload cannot change it.
This layer does not know what the hooks are for (`hooks.py` has one typed method for each), what makes an implementation
valid (`hookimpls.py`), what its result must be (`hookresults.py`), how a deadline is kept (`limit.py`) nor how threads
are (`threads.py`).
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Generic, TypeVar

import msgspec

from .border import Escaped
from .extension import Failure, Generation
from .hookimpls import implementations, is_async, new_manager, parameters
from .hookresults import WrongType, checked, promised
from .limit import Limit, ended, started
from .stall import StallWatch
from .threads import LIMIT, ThreadFigures, Threads
from .timing import Figures, Timing, Timings

__all__ = ["Broadcast", "Dispatcher", "Outcome"]

T = TypeVar("T")
log = logging.getLogger(__name__)

FAILURES_BEFORE_QUARANTINE = 5
"""Consecutive failures of one extension's hooks: enough that a hiccup costs nothing, few enough that a broken extension
does not cost every user action its deadline for long."""


class Outcome(msgspec.Struct, Generic[T], frozen=True):
    """What one implementation made of one call. `duration` in seconds; `failure` is set when there is no value."""

    extension: str
    generation: int
    duration: float
    value: T | None = None
    failure: Failure | None = None


class Broadcast(msgspec.Struct, Generic[T], frozen=True):
    """The outcomes of all implementations, in order."""

    outcomes: list[Outcome[T]]

    @property
    def values(self) -> list[T]:
        """The values there are: failures and None left out."""
        return [o.value for o in self.outcomes if o.value is not None]


class _Impl(msgspec.Struct, eq=False):
    """One implementation, with all that its calls need looked up."""

    hook: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]
    is_async: bool
    generation: Generation
    timing: Timing
    threads: Threads


class _Hook(msgspec.Struct, eq=False):
    """A hook's implementations in order, as they are until the next swap."""

    deadline: float
    impls: tuple[_Impl, ...]


class Dispatcher:
    """The live implementations, and how they are called.

    `on_outcome(generation, failure, in_row)` is told of each failure with the number of consecutive ones of that hook,
    and (None, 0) of the success that ends a row of them. `watch` is told which modules are whose, and begins when the
    first code of an extension is about to run on the loop.
    """

    def __init__(
        self,
        on_outcome: Callable[[Generation, Failure | None, int], None] | None = None,
        watch: StallWatch | None = None,
    ) -> None:
        self._manager = new_manager()
        self._live: dict[str, _Live] = {}
        self._on_outcome = on_outcome or (lambda generation, failure, in_row: None)
        self._watch = watch or StallWatch()
        self._hooks: dict[str, _Hook] = {}
        self._timings: dict[str, Timings] = {}
        self._threads: dict[str, Threads] = {}

    def swap(self, old: Generation | None, new: Generation | None) -> None:
        """Take `old` out and put `new` in, in one step without an await.

        Raises ValueError, and changes nothing, when the new plugin cannot be registered.
        """
        if new is not None:
            self._manager.register(new.plugin, new.name)
            self._live[new.name] = _Live(new)
        if old is not None:
            self._manager.unregister(name=old.name)
            del self._live[old.name]
        self._hooks.clear()

    def report(self, generation: Generation, failure: Failure | None, in_row: int) -> None:
        """Tell of a failure outside of the hooks as of one in them; see `on_outcome`."""
        self._on_outcome(generation, failure, in_row)

    def timings(self) -> dict[str, dict[str, Figures]]:
        """Figures by extension and hook."""
        return {extension: self._timings[extension].figures() for extension in sorted(self._timings)}

    def threads(self) -> dict[str, ThreadFigures]:
        """The threads of plain implementations that are at work, by extension, all generations together."""
        found: dict[str, ThreadFigures] = {}
        for name, threads in self._threads.items():
            if threads.running:
                figures = found.setdefault(name.partition("@")[0], ThreadFigures(0, 0, LIMIT))
                figures.running += threads.running
                figures.stuck += threads.stuck
        return found

    async def broadcast(self, name: str, **arguments: Any) -> Broadcast[Any]:
        """Run all implementations at once; each outcome is in its implementation's place."""
        hook = self._hooks.get(name) or self._look_up(name)
        if len(hook.impls) < 2:
            return Broadcast([await self._run(impl, arguments, Limit(hook.deadline)) for impl in hook.impls])
        limits = [Limit(hook.deadline, clock=False) for _ in hook.impls]
        tasks = [started(self._run(i, arguments, limit)) for i, limit in zip(hook.impls, limits, strict=True)]
        await ended(tasks, limits, hook.deadline)
        return Broadcast([self._result(*of) for of in zip(hook.impls, tasks, limits, strict=True)])

    async def first(self, name: str, **arguments: Any) -> Outcome[Any] | None:
        """Run implementations in order until one returns something; None when nobody did."""
        hook = self._hooks.get(name) or self._look_up(name)
        for impl in hook.impls:
            outcome = await self._run(impl, arguments, Limit(hook.deadline))
            if outcome.value is not None:
                return outcome
        return None

    async def pipeline(
        self, name: str, argument: str, value: T, *, until: Callable[[T], bool] = lambda value: False, **arguments: Any
    ) -> T:
        """Thread `value` through the implementations, as `argument`. One that fails or returns None changes nothing.

        `until` ends the pipeline early.
        """
        hook = self._hooks.get(name) or self._look_up(name)
        for impl in hook.impls:
            # A copy of its own: one that fails half-way through changing a list or Struct changes nothing.
            arguments[argument] = copy.copy(value)
            outcome = await self._run(impl, arguments, Limit(hook.deadline))
            if outcome.value is not None:
                value = outcome.value
                if until(value):
                    break
        return value

    async def single(self, generation: Generation, name: str, **arguments: Any) -> Outcome[Any] | None:
        """Run one plugin's implementation, registered or not, retired or not; None when it has none."""
        plugin = generation.plugin
        module = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
        self._watch.learn(module, generation.extension)
        self._watch.start()
        for found in implementations(plugin):
            if found.hook == name:
                impl = self._impl(name, found.function, generation)
                return await self._run(impl, arguments, Limit(promised(name).spec.deadline), retired_too=True)
        return None

    def _look_up(self, name: str) -> _Hook:
        found = [
            (1 - impl.tryfirst + impl.trylast, self._live[impl.plugin_name].generation, impl)
            for impl in getattr(self._manager.hook, name).get_hookimpls()
        ]
        found.sort(key=lambda entry: (entry[0], entry[1].extension))
        impls = tuple(self._impl(name, impl.function, generation) for _, generation, impl in found)
        hook = self._hooks[name] = _Hook(promised(name).spec.deadline, impls)
        return hook

    def _impl(self, hook: str, function: Callable[..., Any], generation: Generation) -> _Impl:
        argnames = parameters(function, promised(hook).spec.function, f"{generation.name}: {hook}")
        timings = self._timings.setdefault(generation.extension, Timings())
        timing = timings.of(hook, generation.number)
        return _Impl(hook, function, argnames, is_async(function), generation, timing, self._threads_of(generation))

    def _threads_of(self, generation: Generation) -> Threads:
        threads = self._threads.get(generation.name)
        if threads is None:
            idle = [name for name, of in self._threads.items() if not of.running and name not in self._live]
            for name in idle:
                del self._threads[name]
            threads = self._threads[generation.name] = Threads(generation.name)
        return threads

    async def _run(
        self, impl: _Impl, arguments: Mapping[str, Any], limit: Limit, *, retired_too: bool = False
    ) -> Outcome[Any]:
        generation, timing = impl.generation, impl.timing
        if generation.retiring.is_set() and not retired_too:
            # It retired while those before it ran, and must not run after its `jan_deactivate`. What took its place has
            # its say instead: a policy is not passed over for having been reloaded.
            for heir in (self._hooks.get(impl.hook) or self._look_up(impl.hook)).impls:
                if heir.generation.extension == generation.extension:
                    return await self._run(heir, arguments, limit)
            return Outcome(generation.extension, generation.number, 0.0)
        task = asyncio.current_task()
        assert task is not None
        value, failure, timed_out = None, None, False
        lease = generation.lease(task)
        timing.in_flight += 1
        began = time.perf_counter()
        try:
            values = [arguments[n] for n in impl.argnames]
            try:
                if impl.is_async:
                    value = await limit.bound(impl.function(*values))
                else:
                    value = await limit.bound(impl.threads.run(impl.function, values))
            finally:
                cancelled = limit.settle(task, limit.expired, lease.revoked)
            if value is not None:
                value = checked(impl.hook, value)
        except asyncio.CancelledError as error:
            if cancelled:
                raise
            if limit.expired:
                failure, timed_out = _timed_out(impl.hook, limit), True
            elif lease.revoked:
                failure = Failure.of("hook", lease.reason())
            else:
                failure = _escaped(impl, "was cancelled from within", error)
        except SystemExit as error:
            failure = _escaped(impl, f"called sys.exit({error.code!r})", error)
        except WrongType as error:
            value, failure = None, Failure("hook", "TypeError", str(error), at=time.time())
        except Exception as error:
            failure = Failure.of("hook", error)
            log.warning("%s: %s raised", generation.name, impl.hook, exc_info=error)
        finally:
            lease.release()
            timing.in_flight -= 1
        duration = time.perf_counter() - began
        if not limit.given_up:
            self._account(impl, duration, failure, timed_out)
        return Outcome(generation.extension, generation.number, duration, value, failure)

    def _result(self, impl: _Impl, task: asyncio.Task[Outcome[Any]], limit: Limit) -> Outcome[Any]:
        """The outcome of one of many, whatever it made of its task."""
        generation = impl.generation
        if not task.done():
            limit.given_up = True
            failure = _timed_out(impl.hook, limit)
            failure.message += ", nor when it was cancelled; it goes on"
            self._account(impl, limit.seconds, failure, timed_out=True)
        elif task.cancelled():
            failure = _escaped(impl, "was cancelled from within", asyncio.CancelledError())
        else:
            return task.result()
        return Outcome(generation.extension, generation.number, limit.seconds, None, failure)

    def _account(self, impl: _Impl, duration: float, failure: Failure | None, timed_out: bool) -> None:
        impl.timing.add(duration, failure is not None, timed_out)
        live = self._live.get(impl.generation.name)
        if live is None:
            return  # being activated, or retired meanwhile: its caller sees the outcome
        if failure is None:
            if live.failures_in_row and live.failures_in_row.pop(impl.hook, 0) and not live.failures_in_row:
                self._on_outcome(impl.generation, None, 0)
            return
        in_row = live.failures_in_row[impl.hook] = live.failures_in_row.get(impl.hook, 0) + 1
        self._on_outcome(impl.generation, failure, in_row)


class _Live(msgspec.Struct, eq=False):
    generation: Generation
    failures_in_row: dict[str, int] = {}
    """By hook: one that works must not hide another that does not."""


def _timed_out(hook: str, limit: Limit) -> Failure:
    return Failure("hook", "TimeoutError", f"{hook} did not end within {limit.seconds:g} s", at=time.time())


def _escaped(impl: _Impl, what: str, error: BaseException) -> Failure:
    """What would have reached beyond the call (see `border.py`), at the line where it began."""
    escaped = Escaped(f"{impl.hook} of {impl.generation.extension} {what}").with_traceback(error.__traceback__)
    log.warning("%s", escaped, exc_info=error)
    return Failure.of("hook", escaped)
