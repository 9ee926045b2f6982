"""The end of whoever spoke to us, and the descriptors we take: what does not depend on the transport."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from jan_core.rpc import parent, stdio
from jan_core.rpc.transports import LoopTransport

from .speaker import INITIALIZE, PROGRAM

linux = pytest.mark.skipif(sys.platform != "linux", reason="run on Linux only so far")


@linux
def test_the_death_of_the_parent_ends_the_process_though_somebody_else_holds_the_pipe() -> None:
    # The middle process spawns the program and a sleeper that inherits the pipe's writing end, and is killed.
    middle = f"""
import os, subprocess, sys, time
read, write = os.pipe()
sleeper = subprocess.Popen(["sleep", "60"], pass_fds=[write])
child = subprocess.Popen([sys.executable, {str(PROGRAM)!r}], stdin=read, stdout=subprocess.PIPE)
os.write(write, {INITIALIZE!r})
child.stdout.readline()
print(child.pid, sleeper.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", middle], stdout=subprocess.PIPE, text=True) as spawner:
        assert spawner.stdout is not None
        child, sleeper = map(int, spawner.stdout.readline().split())
        watch = os.pidfd_open(child)
        try:
            spawner.kill()
            assert select.select([watch], [], [], 3)[0], "the program outlived its parent"
        finally:
            os.close(watch)
            os.kill(sleeper, signal.SIGKILL)


WATCHING = """
import os, sys, threading
from jan_core.rpc import parent
died = threading.Event()
parent.watch(died.set)
os.write(1, b"watching\\n")
os.write(1, b"died\\n" if died.wait(10) else b"missed\\n")
"""


@linux
def test_a_thread_hears_of_the_parents_death_without_an_event_loop() -> None:
    middle = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {WATCHING!r}]); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", middle], stdout=subprocess.PIPE) as spawner:
        assert spawner.stdout is not None
        assert spawner.stdout.readline() == b"watching\n"
        spawner.kill()
        assert spawner.stdout.readline() == b"died\n"


def test_a_parent_that_died_at_the_wrong_moment_is_no_strangers_life(monkeypatch: pytest.MonkeyPatch) -> None:
    pids = iter([os.getppid(), 1])
    monkeypatch.setattr(os, "getppid", lambda: next(pids))
    with pytest.raises(ProcessLookupError):
        parent.sign()
    gone = threading.Event()
    monkeypatch.setattr(parent, "sign", lambda: (_ for _ in ()).throw(ProcessLookupError()))
    parent.watch(gone.set)
    assert gone.wait(5)


@linux
@pytest.mark.parametrize("how", ["close", "shutdown"])
async def test_the_end_of_a_socket_is_noticed_while_nothing_is_read_from_it(how: str) -> None:
    ours, theirs = socket.socketpair()
    closed = asyncio.Event()
    with ours, theirs:
        transport = LoopTransport(theirs.fileno(), theirs.fileno(), closed.set)
        transport.start(lambda data: transport.pause())
        ours.send(b"one")
        ours.send(b"two, never read")
        ours.close() if how == "close" else ours.shutdown(socket.SHUT_WR)
        with anyio.fail_after(5):
            await closed.wait()
        transport.close()


class Kernel:
    """What kqueue(2) offers, as Python spells it; remembers what it was asked."""

    KQ_FILTER_PROC, KQ_EV_ADD, KQ_EV_ONESHOT, KQ_NOTE_EXIT = -5, 1, 16, 1 << 31

    def __init__(self, error: OSError | None = None) -> None:
        self.asked: list[Any] = []
        self.closed = False
        self._error = error

    def kqueue(self) -> Kernel:
        return self

    def kevent(self, ident: int, **event: int) -> Any:
        return {"ident": ident, **event}

    def control(self, changes: list[Any], most: int) -> None:
        self.asked += changes
        assert most == 0, "it must not wait"
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def kqueue(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernel], None]:
    """Pretend to be where there is no pidfd, and a kqueue. Whether the kernel then does as it says, nobody has seen."""

    def install(kernel: Kernel) -> None:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        monkeypatch.setattr(parent, "select", kernel)

    return install


def test_without_pidfd_the_parents_exit_is_asked_of_kqueue(kqueue: Callable[[Kernel], None]) -> None:
    kernel = Kernel()
    kqueue(kernel)
    assert parent.sign() is kernel  # type: ignore[comparison-overlap]
    assert kernel.asked == [{"ident": os.getppid(), "filter": -5, "flags": 17, "fflags": 1 << 31}]


@pytest.mark.parametrize(("error", "dead"), [(ProcessLookupError(), True), (PermissionError(), False)])
def test_a_parent_that_is_gone_and_one_that_may_not_be_watched_are_told_apart(
    kqueue: Callable[[Kernel], None], error: OSError, dead: bool
) -> None:
    kernel = Kernel(error)
    kqueue(kernel)
    if dead:
        with pytest.raises(ProcessLookupError):
            parent.sign()
    else:
        assert parent.sign() is None
    assert kernel.closed


def test_descriptors_are_claimed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "_claimed", True)
    with pytest.raises(RuntimeError, match="already"):
        stdio.claim()
