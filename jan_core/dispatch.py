"""Calls hook implementations: concurrently or in order, each in its own scope.

pluggy holds specifications, registration and validation; the calls are ours, because pluggy has none that are async.
Order is derived from the extensions' places, not from the time of registration, so that a reload cannot change it.
This layer does not know what the hooks are for (`hooks.py` has one typed method for each).
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import time
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
import pluggy

from . import hookspecs
from .border import border
from .extension import Failure, Generation
from .hookspecs import PROJECT, HookSpec

__all__ = ["Broadcast", "Dispatcher", "HookTiming", "InvalidHook", "Outcome", "new_manager", "validate_plugin"]

T = TypeVar("T")
log = logging.getLogger(__name__)

FAILURES_BEFORE_QUARANTINE = 5
"""Consecutive failures of one extension's hooks: enough that a hiccup costs nothing, few enough that a broken extension
does not cost every user action its deadline for long."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What one implementation made of one call. `duration` in seconds; `failure` is set when there is no value."""

    extension: str
    generation: int
    duration: float
    value: T | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Broadcast(Generic[T]):
    """The outcomes of all implementations, in order."""

    outcomes: list[Outcome[T]]

    @property
    def values(self) -> list[T]:
        """The values there are: failures and None left out."""
        return [o.value for o in self.outcomes if o.value is not None]


class HookTiming(msgspec.Struct):
    """Figures of one extension's implementation of one hook. Times in seconds."""

    calls: int = 0
    failures: int = 0
    total: float = 0.0
    longest: float = 0.0


class InvalidHook(Exception):
    """A plugin's implementations do not fit the specifications."""


def new_manager() -> pluggy.PluginManager:
    """A plugin manager with our specifications and no plugins."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def validate_plugin(plugin: object, name: str) -> None:
    """Check a plugin's implementations on a scratch manager. Raises InvalidHook with the reason."""
    manager = new_manager()
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise InvalidHook(str(error)) from error
    for caller in manager.get_hookcallers(plugin) or ():
        for impl in caller.get_hookimpls():
            where = f"{name}: {caller.name}"
            if impl.wrapper or impl.hookwrapper:
                raise InvalidHook(
                    f"{where}: wrappers are refused: they end before an async implementation's body begins"
                )
            keyword_only = [
                p.name
                for p in inspect.signature(impl.function).parameters.values()
                if p.kind is p.KEYWORD_ONLY and p.default is p.empty
            ]
            if keyword_only:
                raise InvalidHook(f"{where}: keyword-only parameters are never passed: {', '.join(keyword_only)}")


@dataclass(eq=False)
class _Registered:
    generation: Generation
    failures_in_row: dict[str, int] = field(default_factory=dict)
    """By hook: one that works must not hide another that does not."""
    timings: dict[str, HookTiming] = field(default_factory=dict)


class Dispatcher:
    """The live implementations, and how they are called.

    `on_outcome(generation, failure, in_row)` is told of each failure with the number of consecutive ones of that hook,
    and (None, 0) of the success that ends a row of them.
    """

    def __init__(self, on_outcome: Callable[[Generation, Failure | None, int], None] | None = None) -> None:
        self._manager = new_manager()
        self._registered: dict[str, _Registered] = {}
        self._on_outcome = on_outcome or (lambda generation, failure, in_row: None)

    def swap(self, old: Generation | None, new: Generation | None) -> None:
        """Take `old` out and put `new` in, in one step without an await.

        Raises ValueError, and changes nothing, when the new plugin cannot be registered.
        """
        if new is not None:
            self._manager.register(new.plugin, new.name)
            self._registered[new.name] = _Registered(new)
        if old is not None:
            self._manager.unregister(name=old.name)
            del self._registered[old.name]

    def report(self, generation: Generation, failure: Failure | None, in_row: int) -> None:
        """Tell of a failure outside of the hooks as of one in them; see `on_outcome`."""
        self._on_outcome(generation, failure, in_row)

    def timings(self) -> dict[str, dict[str, HookTiming]]:
        """Figures by extension and hook."""
        return {r.generation.extension: dict(r.timings) for r in self._registered.values()}

    async def broadcast(self, name: str, **arguments: Any) -> Broadcast[Any]:
        """Run all implementations at once; each outcome is in its implementation's place."""
        impls = self._impls(name)
        outcomes: list[Outcome[Any]] = [None] * len(impls)  # type: ignore[list-item]

        async def run(place: int) -> None:
            outcomes[place] = await self._run(name, impls[place], arguments)

        if len(impls) == 1:
            await run(0)
        elif impls:
            import anyio

            async with anyio.create_task_group() as group:
                for place in range(len(impls)):
                    group.start_soon(run, place)
        return Broadcast(outcomes)

    async def first(self, name: str, **arguments: Any) -> Outcome[Any] | None:
        """Run implementations in order until one returns something; None when nobody did."""
        for impl in self._impls(name):
            outcome = await self._run(name, impl, arguments)
            if outcome.value is not None:
                return outcome
        return None

    async def pipeline(
        self, name: str, argument: str, value: T, *, until: Callable[[T], bool] = lambda value: False, **arguments: Any
    ) -> T:
        """Thread `value` through the implementations, as `argument`. One that fails or returns None changes nothing.

        `until` ends the pipeline early.
        """
        for impl in self._impls(name):
            # A copy of its own: one that fails half-way through changing a list or Struct changes nothing.
            outcome = await self._run(name, impl, {**arguments, argument: copy.copy(value)})
            if outcome.value is not None:
                value = outcome.value
                if until(value):
                    break
        return value

    async def single(self, generation: Generation, name: str, **arguments: Any) -> Outcome[Any] | None:
        """Run one plugin's implementation, registered or not; None when it has none."""
        options = self._manager.parse_hookimpl_opts
        for attribute in dir(generation.plugin):
            try:
                found = options(generation.plugin, attribute)
            except Exception:  # a property of the plugin that raises is no hook
                continue
            if found is not None and (found.get("specname") or attribute) == name:
                function = getattr(generation.plugin, attribute)
                names = [n for n in arguments if n in inspect.signature(function).parameters]
                return await self._run(name, _Impl(function, names, generation), arguments, retired_too=True)
        return None

    def _impls(self, name: str) -> list[_Impl]:
        found = [
            (1 - impl.tryfirst + impl.trylast, self._registered[impl.plugin_name].generation, impl)
            for impl in getattr(self._manager.hook, name).get_hookimpls()
        ]
        found.sort(key=lambda entry: (entry[0], entry[1].extension))
        return [_Impl(impl.function, impl.argnames, generation) for _, generation, impl in found]

    async def _run(
        self, name: str, impl: _Impl, arguments: Mapping[str, Any], *, retired_too: bool = False
    ) -> Outcome[Any]:
        import anyio  # here: no hook is called before `initialize` is answered, and this takes 30 ms
        import anyio.to_thread

        generation = impl.generation
        if generation.retiring.is_set() and not retired_too:
            # It retired while implementations before it ran: its hooks must not run after its `jan_deactivate`.
            return Outcome(generation.extension, generation.number, 0.0)
        spec, result_type = _spec(name)
        values = [arguments[n] for n in impl.argnames]
        began = time.perf_counter()
        value, failure = None, None
        with generation.lease():
            try:
                with anyio.move_on_after(spec.deadline) as scope, border(f"{name} of {generation.extension}"):
                    if _is_async(impl.function):
                        value = await impl.function(*values)
                    else:
                        # Abandoned on timeout: a thread cannot be stopped, but its caller can stop waiting for it.
                        value = await anyio.to_thread.run_sync(impl.function, *values, abandon_on_cancel=True)
                if scope.cancelled_caught:
                    message = f"{name} did not end within {spec.deadline:g} s"
                    failure = Failure("hook", "TimeoutError", message, at=time.time())
                elif value is not None and result_type is not None:
                    value = msgspec.convert(value, result_type, from_attributes=True)
            except msgspec.ValidationError as error:
                message = f"{name} returned the wrong type: {error}"
                value, failure = None, Failure("hook", "TypeError", message, at=time.time())
            except Exception as error:
                failure = Failure.of("hook", error)
                log.warning("%s: %s raised", generation.name, name, exc_info=error)
        duration = time.perf_counter() - began
        self._account(name, generation, duration, failure)
        return Outcome(generation.extension, generation.number, duration, value, failure)

    def _account(self, name: str, generation: Generation, duration: float, failure: Failure | None) -> None:
        registered = self._registered.get(generation.name)
        if registered is None:
            return  # not live (being activated, or retired meanwhile): its caller sees the outcome
        timing = registered.timings.setdefault(name, HookTiming())
        timing.calls += 1
        timing.total += duration
        timing.longest = max(timing.longest, duration)
        if failure is None:
            if registered.failures_in_row.pop(name, 0) and not registered.failures_in_row:
                self._on_outcome(generation, None, 0)
            return
        timing.failures += 1
        in_row = registered.failures_in_row[name] = registered.failures_in_row.get(name, 0) + 1
        self._on_outcome(generation, failure, in_row)


@dataclass(frozen=True, slots=True)
class _Impl:
    function: Callable[..., Any]
    argnames: typing.Sequence[str]
    generation: Generation


@functools.cache
def _spec(name: str) -> tuple[HookSpec, Any]:
    """A hook's specification and the type its results are checked against (None: not checked here)."""
    found = hookspecs.hookspecs()[name]
    result = typing.get_type_hints(found.function).get("return")
    # Methods and settings are types and functions, not data; whoever loads the extension checks them.
    return found, None if found.mode == "single" or result in (type(None), Any) else result


def _is_async(function: Callable[..., Any]) -> bool:
    """Whether calling `function` gives a coroutine; sees through partials and callable objects (as Starlette does)."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
