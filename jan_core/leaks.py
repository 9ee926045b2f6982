"""What is left of a generation that has retired, and who holds it.

A module's functions keep all its globals alive, so one forgotten thread or exit handler keeps a whole generation in
memory, and lets it act. Whatever goes through the context is undone by it; this finds what went past it. It reports
and undoes nothing.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import signal
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .border import text_of

__all__ = ["Inquest", "Probe", "collect"]

log = logging.getLogger(__name__)

DEPTH, BREADTH = 8, 50
"""Steps from a survivor to whoever holds it (a registry in a closure, as of `functools.singledispatch`, takes six), and
how many objects are followed at each: every step goes through all objects of the process."""

QUIET = 1.0
"""Seconds without another retirement before it is looked, and again before a leak is called one: what a call has just
let go of needs a moment to be gone. Collecting garbage stops everything for some ten ms."""


MOST_WAITING = 8
"""Retirements that are not waited for any longer: what is in cycles would pile up under a storm of reloads."""


def collect() -> None:
    """Collect garbage, and what `typing` remembers of annotations it has made: a cache is no use of a class."""
    for forget in list(getattr(typing, "_cleanups", ())):  # as CPython's own tests do before they look for leaks
        forget()
    gc.collect()


class Inquest:
    """Looks after what has retired, a while later."""

    def __init__(self) -> None:
        self._probes: list[tuple[Probe, Callable[[list[str]], None]]] = []

    def open(self, probe: Probe, report: Callable[[list[str]], None]) -> bool:
        """Take a probe into the next look; `report` is told its leaks. Returns whether somebody must `hold` it."""
        self._probes.append((probe, report))
        return len(self._probes) == 1

    async def hold(self) -> None:
        """Wait until it is quiet, and look once for all."""
        seen = 0
        while seen != len(self._probes) < MOST_WAITING:
            seen = len(self._probes)
            await asyncio.sleep(QUIET)
        probes, self._probes = self._probes, []
        if any(probe.alive for probe, _ in probes):
            collect()
        if any(probe.alive for probe, _ in probes):
            await asyncio.sleep(QUIET)  # a thread may have been in the middle of something
            collect()
        for probe, report in probes:
            try:
                # In a thread: each step of the search holds everything up for some ten ms; others go between them.
                if probe.alive and (leaks := await asyncio.to_thread(probe.leaks, asyncio.all_tasks())):
                    report(leaks)
            except Exception as error:  # what is looked at is somebody's objects, and may answer with anything
                log.warning("could not find what is left in memory: %s", text_of(error))


class Probe:
    """What was in the modules of `package`. Take it while they are still known, drop them, and ask for the `leaks`."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._watched = [weakref.ref(thing) for thing in self._things()]

    @property
    def alive(self) -> bool:
        """Whether anything of it is left. What is in a cycle is until garbage is collected."""
        return any(ref() is not None for ref in self._watched)

    def leaks(self, tasks: Iterable[asyncio.Task[Any]] = ()) -> list[str]:
        """Who keeps the package alive, in words; empty when nothing of it is left. `tasks` are those of the loop."""
        if not self.alive:
            return []
        found = [*self._threads(), *self._tasks(tasks), *self._logging(), *self._signals(), *self._exits()]
        return found or [self._holder()]

    def _things(self) -> Iterator[Any]:
        for name, module in list(sys.modules.items()):
            if self._owns(name):
                for thing in list(vars(module).values()):
                    # By type(): a proxy says with `__class__` that it is what it stands for, or raises.
                    if issubclass(type(thing), (type, types.FunctionType)) and thing.__module__ == name:
                        yield thing

    def _owns(self, module: object) -> bool:
        return isinstance(module, str) and (module == self._package or module.startswith(self._package + "."))

    def _frame(self, frame: types.FrameType | None) -> types.FrameType | None:
        """The innermost frame of the package on this stack."""
        while frame is not None and not self._owns(frame.f_globals.get("__name__")):
            frame = frame.f_back
        return frame

    def _threads(self) -> Iterator[str]:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, innermost in sys._current_frames().items():
            if ident != threading.get_ident() and (frame := self._frame(innermost)):
                yield f"thread {names.get(ident, ident)!r} is still running {_place(frame)}"

    def _tasks(self, tasks: Iterable[asyncio.Task[Any]]) -> Iterator[str]:
        for task in tasks:
            frame = getattr(task.get_coro(), "cr_frame", None)
            if frame is not None and self._owns(frame.f_globals.get("__name__")):
                yield f"task {task.get_name()!r} is still running {_place(frame)}; use ctx.tasks"

    def _logging(self) -> Iterator[str]:
        loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
        for logger in loggers:
            for entry in [*getattr(logger, "handlers", ()), *getattr(logger, "filters", ())]:
                if self._owns(type(entry).__module__) or self._owns(getattr(entry, "__module__", None)):
                    yield f"{_named(entry)} is still attached to logger {getattr(logger, 'name', '')!r}"

    def _signals(self) -> Iterator[str]:
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler) and self._owns(getattr(handler, "__module__", None)):
                yield f"{_named(handler)} is still the handler of signal {int(number)}"

    def _exits(self) -> Iterator[str]:
        for function in _exit_handlers():
            if self._owns(getattr(function, "__module__", None)):
                yield f"{_named(function)} is still registered with atexit"

    def _holder(self) -> str:
        """Walk from the survivors towards whoever holds them, until something of another module is met."""
        edge: list[Any] = [thing for ref in self._watched if (thing := ref()) is not None][:BREADTH]
        seen = {id(edge), *map(id, edge)}
        example = _named(edge[0])
        modules = {id(vars(m)): name for name, m in list(sys.modules.items()) if isinstance(m, types.ModuleType)}
        for _ in range(DEPTH):
            nearer: list[Any] = []
            for referrer in gc.get_referrers(*edge):
                if id(referrer) in seen or isinstance(referrer, types.FrameType):
                    continue
                seen.add(id(referrer))
                if (module := modules.get(id(referrer))) is not None and not self._owns(module):
                    names = [n for n, value in list(referrer.items()) if any(value is thing for thing in edge)]
                    return f"{example} is held by {module}.{names[0] if names else '?'}"
                nearer.append(referrer)
            if not nearer:
                break
            edge = nearer[:BREADTH]
            seen |= {id(nearer), id(edge)}
        return f"{example} is held by something that cannot be named (native code, or a running call)"


def _place(frame: types.FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"


def _named(thing: Any) -> str:
    kind = type(thing)
    return getattr(thing, "__qualname__", None) or f"a {kind.__qualname__}"


def _exit_handlers() -> list[Any]:
    """The functions registered with `atexit`, which has no way to list them: it compares each with one to remove."""
    seen: list[Any] = []

    class Nothing:
        def __eq__(self, other: object) -> bool:
            seen.append(other)
            return False

        __hash__ = None  # type: ignore[assignment]

    atexit.unregister(Nothing())  # type: ignore[arg-type]
    return seen
