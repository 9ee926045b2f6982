"""What blocks the event loop is found, named while it blocks, counted per place; what does not block is left alone."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import threading
import time
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import Event, stall
from jan_core.host import Host
from jan_core.stall import StallWatch
from jan_core.testing import InlineSource

SOURCE = """
import re, time
from jan_core import hookimpl, method, methods_of, Empty, Event

def holds(seconds):
    time.sleep(seconds)

def computes(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(50))

def matches(n):
    re.match("(a?){%d}a{%d}$" % (n, n), "a" * n)

class Plugin:
    block = holds
    seconds = 0.0
    blocked = None

    @hookimpl
    async def jan_event(self, event: Event) -> None:
        if event.name == "block":
            self.block(self.seconds)
            self.blocked()

    @method("blocks.now")
    def now(self, params: Empty) -> Empty:
        "Block."
        self.block(self.seconds)
        return Empty()

    @hookimpl
    def jan_methods(self):
        return methods_of(self)

    @hookimpl
    async def jan_activate(self, ctx):
        self.ctx = ctx

    async def task(self):
        self.block(self.seconds)
        self.blocked()
"""


class Blocking:
    """An extension in a module of its own, as if it had been installed, and a host that runs it."""

    def __init__(self, folder: Path, seconds: float, block: str, package: str = "jan_blocking") -> None:
        self.file = folder / "plugin.py"
        module = types.ModuleType(f"{package}.plugin")
        exec(compile(SOURCE, str(self.file), "exec", dont_inherit=True), module.__dict__)
        sys.modules[module.__name__] = module  # annotations are looked up there
        self.plugin = module.Plugin()
        self.plugin.seconds, self.plugin.block = seconds, getattr(module, block)
        self.over = anyio.Event()
        self.plugin.blocked = lambda: self.over.set()

    def line(self, text: str) -> int:
        return SOURCE[: SOURCE.index(text)].count("\n") + 1


@contextmanager
def blocking(folder: Path, seconds: float = 0.25, block: str = "holds", package: str = "jan_blocking") -> Iterator[Any]:
    made = Blocking(folder, seconds, block, package)
    yield made
    del sys.modules[f"{package}.plugin"]


@asynccontextmanager
async def hosting(folder: Path, made: Blocking) -> AsyncIterator[Host]:
    async with Host(folder, sources=[InlineSource("blocks", made.plugin, ["blocks."])]) as host:
        await host.activate_startup()
        yield host


async def counted(host: Host, count: int = 1) -> stall.Stalls:
    """The figures, once the watch has counted that many: it looks from a thread of its own."""
    with anyio.fail_after(10):
        while host.stalls.figures().count < count:  # noqa: ASYNC110 (there is no event: nobody else waits for it)
            await anyio.sleep(0.01)
    return host.stalls.figures()


def said(caplog: pytest.LogCaptureFixture, name: str = "jan.blocks") -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == name]


async def test_a_hook_that_sleeps_on_the_loop_is_named_with_its_place_while_it_blocks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with blocking(tmp_path, 0.4) as made:
        at_end: list[str] = []

        def blocked() -> None:
            at_end.extend(said(caplog))
            made.over.set()

        made.plugin.blocked = blocked
        async with hosting(tmp_path, made) as host:
            host.bus.emit(Event("block"))
            await made.over.wait()
            figures = await counted(host)
    (place,) = figures.places
    assert (place.extension, place.file, place.function) == ("blocks", str(made.file), "holds")
    assert place.line == made.line("time.sleep(seconds)")
    assert place.count == figures.count == 1
    assert 0.4 <= place.longest < 5
    (while_blocked,) = at_end
    assert re.search(r"holds blocks the event loop, \d+ ms so far", while_blocked)
    assert f"({made.file}, line {place.line})" in while_blocked
    assert re.search(r"holds blocked the event loop for \d+ ms, 1 so far", said(caplog)[-1])


@pytest.mark.parametrize("kind", ["method", "task", "computing"])
async def test_methods_tasks_and_computing_are_found_as_well(tmp_path: Path, kind: str) -> None:
    with blocking(tmp_path, block="computes" if kind == "computing" else "holds") as made:
        async with hosting(tmp_path, made) as host:
            if kind == "task":
                made.plugin.ctx.tasks.start_soon(made.plugin.task)
                await made.over.wait()
            else:
                await host.client().call("blocks.now")
            (place,) = (await counted(host)).places
    assert (place.extension, place.file) == ("blocks", str(made.file))
    assert place.function == ("computes" if kind == "computing" else "holds")


async def test_a_later_generation_of_a_package_is_the_same_extension(tmp_path: Path) -> None:
    with blocking(tmp_path, package="jan_blocking@g7") as made:
        async with hosting(tmp_path, made) as host:
            await host.client().call("blocks.now")
            (place,) = (await counted(host)).places
    assert place.extension == "blocks"


async def test_an_object_of_the_hosts_or_of_pythons_own_claims_no_module_for_its_extension(
    tmp_path: Path,
) -> None:
    stand_in = InlineSource("stand-in", types.SimpleNamespace(), [])
    async with Host(tmp_path, sources=[stand_in, InlineSource("ours", StallWatch(), [])]) as host:
        await host.activate_startup()
        for module in ("types", "jan_core.stall", "jan_core"):
            assert module not in host.stalls._owners


async def test_native_code_that_keeps_the_interpreter_to_itself_is_found_when_it_lets_go(tmp_path: Path) -> None:
    with blocking(tmp_path, block="matches") as made:
        # A regular expression that backtracks holds the interpreter's lock to its end: meanwhile nobody can look.
        n = next(n for n in range(16, 40) if seconds_of(made.plugin.block, n) > 3 * stall.THRESHOLD)
        made.plugin.seconds = n
        async with hosting(tmp_path, made) as host:
            await host.client().call("blocks.now")
            (place,) = (await counted(host)).places
    assert (place.extension, place.function) == ("blocks", "matches")
    assert place.line == made.line("re.match(")


def seconds_of(function: Callable[..., Any], *arguments: Any) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


async def test_a_turn_of_many_short_callbacks_counts_and_accuses_nobody(tmp_path: Path) -> None:
    with blocking(tmp_path, 0.004) as made:
        async with hosting(tmp_path, made) as host:
            loop = asyncio.get_running_loop()
            for _ in range(60):
                loop.call_soon(made.plugin.block, 0.004)
            figures = await counted(host)
    assert figures.longest >= 0.2
    assert figures.places == []


async def test_what_nobodys_extension_did_is_the_cores(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Host(tmp_path, sources=[]) as host:
        host.stalls.start()
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 (that is the point)
        (place,) = (await counted(host)).places
    assert (place.extension, place.file) == ("core", __file__)
    assert place.function.endswith("test_what_nobodys_extension_did_is_the_cores")
    assert len(said(caplog, "jan.core")) == 2


async def test_one_place_is_in_the_log_once_a_minute_and_counted_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with blocking(tmp_path) as made:
        async with hosting(tmp_path, made) as host:
            for n in range(1, 4):
                await host.client().call("blocks.now")
                figures = await counted(host, n)
    (place,) = figures.places
    assert place.count == 3
    assert place.total == pytest.approx(0.75, rel=0.5)
    assert len(said(caplog)) == 2


async def test_an_idle_loop_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    look = StallWatch._look

    def noted(watch: StallWatch, *arguments: Any) -> None:
        looks.append(time.perf_counter())
        look(watch, *arguments)

    monkeypatch.setattr(StallWatch, "_look", noted)
    async with Host(tmp_path, sources=[]) as host:
        host.stalls.start()
        began = time.perf_counter()
        await asyncio.sleep(12 * stall.PERIOD)
    # A look may follow the turns before and after: between them there is none.
    assert looks
    assert not [at for at in looks if began + 2 * stall.PERIOD < at < began + 12 * stall.PERIOD]


async def test_nothing_runs_before_an_extension_does_nor_after_the_host(tmp_path: Path) -> None:
    def watches() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "stall-watch"]

    others = set(watches())
    with blocking(tmp_path) as made:
        async with Host(tmp_path, sources=[InlineSource("blocks", made.plugin, ["blocks."])]) as host:
            await host.client().call("ping")
            assert set(watches()) <= others
            await host.activate_startup()
            (thread,) = set(watches()) - others
            assert thread.daemon
        thread.join(5)
        assert not thread.is_alive()


async def test_two_hosts_in_one_loop_both_see_and_leave_the_loop_as_it_was(tmp_path: Path) -> None:
    select: Callable[..., Any] = asyncio.get_running_loop()._selector.select  # type: ignore[attr-defined]
    with blocking(tmp_path) as made:
        async with hosting(tmp_path / "a", made) as a:
            async with Host(tmp_path / "b", sources=[]) as b:
                b.stalls.start()
                await asyncio.sleep(0)
                await a.client().call("blocks.now")
                assert (await counted(a)).places[0].extension == "blocks"
                assert (await counted(b)).places[0].extension == "core"
    assert asyncio.get_running_loop()._selector.select == select  # type: ignore[attr-defined]


async def test_a_stall_keeps_nothing_of_the_extension_alive(tmp_path: Path) -> None:
    with blocking(tmp_path) as made:
        async with hosting(tmp_path, made) as host:
            await host.client().call("blocks.now")
            await counted(host)
            gone = weakref.ref(made.plugin)
            await anyio.sleep(2 * stall.PERIOD)  # a look that finds the loop at rest lets go of what it saw
            assert host.stalls._sight is None
        made.plugin = None
    del host
    gc.collect()
    assert gone() is None
