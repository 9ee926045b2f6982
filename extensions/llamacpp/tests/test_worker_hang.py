"""Workers that stand still, and workers without memory: found, ended, and told apart. Real processes."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from jan_llamacpp.client import GenerateParams, LoadOptions, Prompt, Sampling, WorkerProcess
from jan_llamacpp.failures import OutOfMemory, WorkerDied, WorkerHung
from jan_llamacpp.supervise import Child
from jan_llamacpp.watchdog import Watchdog
from jan_llamacpp.worker.reply import Stats

from .conftest import PATIENCE, MakeModel

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")]
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, prlimit and ptrace")

ENDLESS = GenerateParams(Prompt(text="\n"), Sampling(temperature=0), ignore_eos=True)
OPTIONS = LoadOptions(threads=1, n_seq=4)


async def drain(worker: WorkerProcess, first: anyio.Event) -> None:
    """Read an answer that does not end."""
    async for _ in worker.generate(ENDLESS):
        first.set()


async def test_a_stopped_worker_ends_its_requests_with_a_typed_error(engine_dir: Path, endless: Path) -> None:
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, endless, OPTIONS, hang_seconds=1)
        first = anyio.Event()
        answer = asyncio.create_task(drain(worker, first))
        await first.wait()
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerHung, match="did not answer for 1 seconds") as caught:
            await answer
        assert caught.value.retryable
        assert caught.value.data["cause"] == "hung"
        reason = await worker.exited
        assert (reason.signal, reason.expected) == ("SIGKILL", False)
        with pytest.raises(WorkerHung):
            await worker.stats()


async def test_a_worker_that_stops_while_it_loads_is_ended(
    engine_dir: Path, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_done: float) -> None:
        os.kill(spawned[0].pid, signal.SIGSTOP)

    spawned = _spy(monkeypatch)
    with anyio.fail_after(PATIENCE):
        with pytest.raises(WorkerHung, match="could not be loaded: it did not answer"):
            await WorkerProcess.start(engine_dir, endless, OPTIONS, stop, hang_seconds=1)
    assert spawned[0].exited.done()


async def test_a_load_that_makes_no_progress_is_ended_although_the_worker_answers(
    engine_dir: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "model.gguf"
    os.mkfifo(pipe)  # opening it waits for a writer, as a dead network disk would
    with anyio.fail_after(PATIENCE):
        with pytest.raises(WorkerHung, match="nothing done for 1 seconds"):
            await WorkerProcess.start(engine_dir, pipe, OPTIONS, hang_seconds=1)


@linux
async def test_a_step_that_does_not_end_is_found_although_the_reader_answers(
    engine_dir: Path, make_model: MakeModel
) -> None:
    slow = make_model(n_embd=512, n_layer=4)  # nearly all of its time is llama.cpp's
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, slow, OPTIONS, hang_seconds=2)
        pieces = worker.generate(ENDLESS)
        await anext(pieces)
        frozen = Frozen(worker.pid)
        while not await answers(worker):  # it was stopped while it held the interpreter's lock
            frozen.go_on()
            await anext(pieces)
            frozen.stop()
        frozen.reap()
        with pytest.raises(WorkerHung, match="nothing done for 2 seconds"):
            async for _ in pieces:
                pass


async def answers(worker: WorkerProcess) -> bool:
    with anyio.move_on_after(0.2):
        await worker.stats()
        return True
    return False


async def test_a_worker_that_only_waits_for_requests_is_left_alone(engine_dir: Path, endless: Path) -> None:
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, endless, OPTIONS, hang_seconds=0.2)
        first = anyio.Event()
        answer = asyncio.create_task(drain(worker, first))
        await first.wait()
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        os.kill(worker.pid, signal.SIGSTOP)
        with anyio.move_on_after(1):
            await worker.exited
        assert worker.alive
        os.kill(worker.pid, signal.SIGCONT)
        await worker.close()


@linux
async def test_a_context_that_finds_no_memory_says_so_and_what_to_do(
    engine_dir: Path, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    size = 8 << 30
    _spy(monkeypatch, lambda child: resource.prlimit(child.pid, resource.RLIMIT_AS, (size, size)))
    options = LoadOptions(threads=1, n_seq=1, n_ctx=1 << 24)
    with anyio.fail_after(PATIENCE):
        with pytest.raises(OutOfMemory, match=r"not enough memory.*smaller context") as caught:
            await WorkerProcess.start(engine_dir, endless, options)
    assert caught.value.data["cause"] == "out_of_memory"
    assert not caught.value.retryable


async def test_a_worker_the_kernel_killed_for_memory_died_of_that(
    engine_dir: Path, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = iter([4, 5])  # what the kernel counts when it does this; here a signal stands for it
    monkeypatch.setattr("jan_llamacpp.supervise.oom_kills", lambda: next(kills))
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, endless, OPTIONS)
        first = anyio.Event()
        answer = asyncio.create_task(drain(worker, first))
        await first.wait()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(OutOfMemory, match="memory had run out"):
            await answer


async def test_a_process_that_cannot_be_killed_is_not_waited_for(
    engine_dir: Path, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jan_llamacpp.supervise.KILL_SECONDS", 0.2)
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, endless, OPTIONS)
        first = anyio.Event()
        answer = asyncio.create_task(drain(worker, first))
        await first.wait()
        monkeypatch.setattr(worker._child._transport, "kill", lambda: None)  # as one that waits for a driver
        worker._child.end_hung("it stands still")
        with pytest.raises(WorkerDied, match="it stands still"):
            await answer
        await worker.exited
        assert not worker.alive
        while worker._child._transport.get_returncode() is None:  # it can be killed, after all
            await anyio.lowlevel.checkpoint()


class Dog:
    """A watchdog on a loop of its own, with somebody who may answer it."""

    def __init__(self, limit: float) -> None:
        self.answers: Stats | None = None
        self.waiting = True
        self.found = asyncio.get_running_loop().create_future()
        self.watchdog = Watchdog(limit, waiting=lambda: self.waiting, ask=self.ask, hung=self.found.set_result)
        self.asked = 0

    def ask(self) -> None:
        self.asked += 1
        if self.answers is not None:
            self.watchdog.heard(self.answers, loading=False)


async def test_steps_that_go_on_are_no_hang_however_long_they_go_on() -> None:
    dog = Dog(0.02)
    dog.answers = Stats(active=1)

    def more() -> None:
        assert dog.answers is not None
        dog.answers.steps += 1
        if dog.asked < 40:
            asyncio.get_running_loop().call_later(0.001, more)

    dog.watchdog.start()
    more()
    with anyio.fail_after(PATIENCE):
        how = await dog.found  # only when the steps end
    assert dog.asked >= 40
    assert "nothing done" in how


async def test_the_watchdog_rests_when_nothing_is_waited_for() -> None:
    dog = Dog(0.004)
    dog.waiting = False
    dog.watchdog.start()
    await asyncio.wait({dog.found}, timeout=0.05)
    assert dog.asked == 0
    dog.waiting = True
    dog.watchdog.start()
    with anyio.fail_after(PATIENCE):
        assert "did not answer" in await dog.found
    assert dog.asked == 1


def _spy(monkeypatch: pytest.MonkeyPatch, then: Callable[[Child], object] = lambda child: None) -> list[Child]:
    """The processes that are started from here on; `then` is called with each."""
    spawned: list[Child] = []
    made = Child.connection_made

    def connection_made(child: Child, transport: asyncio.BaseTransport) -> None:
        made(child, transport)
        spawned.append(child)
        then(child)

    monkeypatch.setattr(Child, "connection_made", connection_made)
    return spawned


class Frozen:
    """All threads of a process but its first one are held, as one is that waits for a device for ever."""

    SEIZE, CONTINUE, INTERRUPT, WAIT_ALL = 0x4206, 7, 0x4207, 0x40000000

    def __init__(self, pid: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._tids = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if int(task.name) != pid]
        for tid in tuple(self._tids):
            if self._ptrace(self.SEIZE, tid) == 0:
                continue
            if ctypes.get_errno() == errno.ESRCH:  # it has ended
                self._tids.remove(tid)
            else:
                pytest.skip(f"ptrace is not allowed here: {os.strerror(ctypes.get_errno())}")
        self.stop()

    def go_on(self) -> None:
        for tid in self._tids:
            assert self._ptrace(self.CONTINUE, tid) == 0

    def stop(self) -> None:
        assert self._tids
        for tid in self._tids:
            assert self._ptrace(self.INTERRUPT, tid) == 0
            assert os.WIFSTOPPED(os.waitpid(tid, self.WAIT_ALL)[1])

    def reap(self) -> None:
        """From here on nobody lets them go; see to it that they can be killed."""
        for tid in self._tids:
            threading.Thread(target=self._wait, args=(tid,)).start()

    def _wait(self, tid: int) -> None:
        while os.WIFSTOPPED(os.waitpid(tid, self.WAIT_ALL)[1]):
            pass

    def _ptrace(self, request: int, tid: int) -> int:
        return int(self._libc.ptrace(request, tid, None, None))
