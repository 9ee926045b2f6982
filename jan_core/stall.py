"""Finds what blocks the event loop, while it does: which extension, which function, which line, for how long.

Everybody's calls run on one loop, so one implementation that computes or sleeps there holds up all the others. A
daemon thread looks at the loop's thread from outside. It costs an idle process nothing: the loop's own wait for input
is watched, so the thread sleeps without a time limit while the loop waits, is woken by the loop's next turn, and looks
once per PERIOD for as long as the loop is found at work.

This layer does not know what runs on the loop (`dispatch.py` says which module is whose) nor how figures are shown
(`metrics.py`). It neither stops nor moves what blocks: nothing in Python can.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from msgspec import Struct, field

__all__ = ["THRESHOLD", "Stall", "StallWatch", "Stalls"]

THRESHOLD = 0.1
"""Seconds. What holds the loop longer than this is felt as a hitch, and is named."""

PERIOD = THRESHOLD / 2
"""Seconds between two looks at a loop that is at work: two looks at least fall into whatever passes the threshold."""

YOUNG = THRESHOLD / 10
"""Seconds that a turn of the loop may take before anybody looks whose it is: all but a few are over sooner."""

SILENCE = 60.0
"""Seconds between two reports of one place in the log; it goes on being counted."""

MOST_PLACES = 200
"""Places kept. Past it, what blocks is counted in the sum only: the figures must not grow with what plugins do."""

CORE = "core"

_RUN = asyncio.Handle._run.__code__  # the frame under which each callback of the loop runs


class Stall(Struct):
    """One function that blocked the loop. `line`: where it stood when it was found, the longest time. Times in seconds,
    `last` since the epoch."""

    extension: str
    file: str
    line: int
    function: str
    count: int = 0
    longest: float = 0.0
    total: float = 0.0
    last: float = 0.0

    @property
    def place(self) -> tuple[str, str, str]:
        """What counts as one place: not the line, which differs with each look at a function that computes."""
        return self.extension, self.file, self.function


class Stalls(Struct):
    """Turns of the event loop that took longer than `threshold` (s): `count`, the `longest` (s), and the places that
    could be made responsible. A turn of many short callbacks counts and has no place."""

    threshold: float
    count: int
    longest: float
    places: list[Stall]


class _Sight(Struct, eq=False):
    """One callback of the loop, seen running. `turn` and `since` as read of the clock; `looks`: how often it was
    seen."""

    turn: float
    since: float
    callback: FrameType
    stall: Stall
    looks: int = 1
    told: bool = False
    reported: bool = False


class _Gate(Struct, eq=False):
    """What the loop leaves for the watch at each turn. `woke`: when this turn began, 0.0 while the loop waits."""

    woke: float
    parked: bool = False
    wake: queue.SimpleQueue[float] = field(default_factory=queue.SimpleQueue)
    """Ends the watch's sleep; with the process's CPU time by then."""
    long: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=1000))
    """Turns (began, ended) that passed the threshold."""


class StallWatch:
    """Watches one loop. `attached()` for as long as it shall; the thread begins with `start`.

    A loop without a selector of Python's own (asyncio's have one on every platform) is not watched.
    """

    def __init__(self) -> None:
        self._gate: _Gate | None = None
        self._thread: threading.Thread | None = None
        self._ended = False
        self._owners: dict[str, str] = {}
        self._places: dict[tuple[str, str, str], Stall] = {}
        self._reported: dict[tuple[str, str, str], float] = {}
        self._count, self._longest = 0, 0.0
        self._sight: _Sight | None = None
        self._cpu = 0.0

    def learn(self, module: str, extension: str) -> None:
        """`module` and the packages around it are that extension's; who came first keeps a package that is shared.

        The host's own modules and Python's stay theirs: an object of them may stand for an extension.
        """
        *around, top = _prefixes(module)
        if top != __package__ and top not in sys.stdlib_module_names:
            for name in (*around, top):
                self._owners.setdefault(name, extension)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Take note of the running loop's turns."""
        selector: Any = getattr(asyncio.get_running_loop(), "_selector", None)
        inner = getattr(selector, "select", None)
        if inner is None:
            yield
            return
        gate = self._gate = _Gate(time.perf_counter())
        select = _watched(inner, gate)
        selector.select = select
        try:
            yield
        finally:
            if selector.select is select:
                selector.select = inner
            self._ended = True
            gate.wake.put(0.0)

    def start(self) -> None:
        """Begin to look, from the thread of the loop. Any number of times; late, so that `initialize` pays nothing."""
        if self._thread is None and self._gate is not None and not self._ended:
            work = (self._gate, threading.get_ident())
            self._thread = threading.Thread(target=self._watch, args=work, name="stall-watch", daemon=True)
            self._thread.start()

    def figures(self) -> Stalls:
        places = sorted(self._places.copy().values(), key=lambda s: -s.total)
        return Stalls(THRESHOLD, self._count, self._longest, places)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _watch(self, gate: _Gate, thread: int) -> None:
        while not self._ended:
            gate.parked = True
            # Unless a turn began before it could see that nobody watches.
            self._cpu = gate.wake.get() if gate.woke == 0.0 else time.process_time()
            gate.parked = False
            self._look(gate, thread)  # at once: native code may have kept this thread from waking until now
            while gate.woke and not self._ended:
                with contextlib.suppress(queue.Empty):
                    gate.wake.get(timeout=PERIOD)
                self._look(gate, thread)
        self._sight = None

    def _look(self, gate: _Gate, thread: int) -> None:
        while gate.long:
            self._over(*gate.long.popleft())
        turn, now, cpu = gate.woke, time.perf_counter(), time.process_time()
        computed, self._cpu = cpu - self._cpu, cpu
        sight = self._sight
        if sight is not None and sight.turn != turn:
            sight = self._sight = None
        if not turn or now - turn < YOUNG:
            return
        frame = sys._current_frames().get(thread)
        callback = _callback(frame)
        if frame is None or callback is None or gate.woke != turn:
            return  # it went on meanwhile
        if sight is not None and sight.callback is callback:
            sight.looks += 1
            if now - sight.since >= THRESHOLD and not sight.told:
                sight.stall, sight.told = self._place(frame), True
                self._report(sight, now, _so_far(now - sight.since))
            return
        if sight is not None:
            self._record(sight, now)
            since = now
        elif now - turn < THRESHOLD:
            since = turn
        else:
            # Nobody could look sooner. Either this callback held the interpreter's lock in native code and computed, or
            # the whole process was kept from running, which is not its fault.
            since = turn if computed >= PERIOD else now
        self._sight = _Sight(turn, since, callback, self._place(frame))
        if now - since >= THRESHOLD:
            self._sight.looks = 2
            self._report(self._sight, now, _so_far(now - since))

    def _over(self, began: float, ended: float) -> None:
        """A turn that passed the threshold has ended."""
        self._count += 1
        self._longest = max(self._longest, ended - began)
        if self._sight is not None and self._sight.turn == began:
            self._record(self._sight, ended)
            self._sight = None

    def _place(self, frame: FrameType) -> Stall:
        """Whose line it is: the innermost frame of an extension, else of anybody but Python's own library."""
        found, owner = None, CORE
        at: FrameType | None = frame
        while at is not None and at.f_code is not _RUN:
            module = at.f_globals.get("__name__") or ""
            owner = next((self._owners[p] for p in _prefixes(module) if p in self._owners), "")
            if owner:
                found = at
                break
            if found is None and module.partition(".")[0] not in sys.stdlib_module_names:
                found = at
            at = at.f_back
        code = (found or frame).f_code
        return Stall(owner or CORE, code.co_filename, (found or frame).f_lineno, code.co_qualname)

    def _record(self, sight: _Sight, ended: float) -> None:
        """What was seen has ended: count it if it blocked."""
        seen, seconds = sight.stall, ended - sight.since
        if sight.looks < 2 or seconds < THRESHOLD:
            return
        stall = self._places.get(seen.place)
        if stall is None:
            if len(self._places) >= MOST_PLACES:
                return
            stall = self._places[seen.place] = seen
        stall.count += 1
        stall.total += seconds
        stall.last = time.time()
        if seconds >= stall.longest:
            stall.longest, stall.line = seconds, seen.line
        self._report(sight, ended, f"blocked the event loop for {seconds * 1000:.0f} ms, {stall.count} so far")

    def _report(self, sight: _Sight, now: float, text: str) -> None:
        """Log it, unless this place was in the log a moment ago."""
        stall = sight.stall
        if not sight.reported:
            self._reported = {place: at for place, at in self._reported.items() if now - at < SILENCE}
            if stall.place in self._reported:
                return
            self._reported[stall.place] = now
            sight.reported = True
        log = logging.getLogger(f"jan.{stall.extension}")
        log.warning("%s %s (%s, line %d)", stall.function, text, stall.file, stall.line)


def _watched(inner: Callable[..., Any], gate: _Gate) -> Callable[..., Any]:
    """The loop's wait for input, telling the gate when a turn begins and ends: some 0.2 us for each."""
    clock = time.perf_counter

    def select(timeout: float | None = None) -> Any:
        began = gate.woke
        if clock() - began > THRESHOLD and began:
            gate.long.append((began, clock()))
        gate.woke = 0.0
        try:
            return inner(timeout)
        finally:
            gate.woke = clock()
            if gate.parked:
                gate.parked = False
                gate.wake.put(time.process_time())

    return select


def _so_far(seconds: float) -> str:
    return f"blocks the event loop, {seconds * 1000:.0f} ms so far; every call waits"


def _callback(frame: FrameType | None) -> FrameType | None:
    """The loop's frame for the callback that is running, which is a new one for each; None between two."""
    while frame is not None and frame.f_code is not _RUN:
        frame = frame.f_back
    return frame


def _prefixes(module: str) -> Iterator[str]:
    """A module's name and those of the packages around it, longest first, as its first generation would be called."""
    top, dot, rest = module.partition(".")
    name = top.partition("@")[0] + dot + rest
    while name:
        yield name
        name = name.rpartition(".")[0]
