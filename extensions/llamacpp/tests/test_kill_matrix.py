"""Every way a worker or its host can die, at every stage: no orphan, no request that hangs, and service again.

Each cell of the matrix is run once; with JAN_TEST_KILLS=1000 in the environment so often that all together make 1,000,
and `-s` shows what was counted. Real processes, real signals.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import product
from pathlib import Path

import anyio
import pytest
from jan_llamacpp.client import GenerateParams, LoadOptions, Prompt, Sampling, WorkerProcess
from jan_llamacpp.pool import ModelPool
from jan_llamacpp.supervise import Child

from jan_core import JanError, Progress

from .conftest import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and pidfds")]

STAGES = ("load", "prefill", "decode")
WORKER = ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGSTOP", "stdin")
HOST = ("SIGKILL", "stdin")
CELLS = len(STAGES) * (len(WORKER) + len(HOST))
RUNS = -(-int(os.environ.get("JAN_TEST_KILLS", CELLS)) // CELLS)
HANG_SECONDS = 2.0
BACK_SECONDS = 2.0
"""Beside the time of the load, until a model whose worker died answers again."""
OPTIONS = LoadOptions(threads=1, n_seq=4, n_ctx=16_384)
LONG = GenerateParams(Prompt(tokens=[97] * 12_000), Sampling(temperature=0), max_tokens=2000)
ENDLESS = GenerateParams(Prompt(text="\n"), Sampling(temperature=0))
SHORT = GenerateParams(Prompt(text="\n"), Sampling(temperature=0), max_tokens=3)


class Tally:
    """What was counted, over all runs."""

    def __init__(self) -> None:
        self.runs = self.asked = self.ended = self.orphans = 0
        self.ends: dict[str, Counter[str]] = defaultdict(Counter)
        self.back: list[float] = []
        self.detected: list[float] = []
        self.gone: list[float] = []

    def __str__(self) -> str:
        lines = [f"{self.runs} runs, {self.asked} requests, {self.asked - self.ended} hung, {self.orphans} orphans"]
        for name, times in (
            ("service back, beside the load's own time", self.back),
            (f"a hang found (limit {HANG_SECONDS:g} s)", self.detected),
            ("a worker's end after its host's", self.gone),
        ):
            if times:
                times.sort()
                middle, most = times[len(times) // 2], times[-1]
                lines.append(f"{name}: median {middle:.3f} s, longest {most:.3f} s ({len(times)} times)")
        lines += [f"{cell}: {dict(ends)}" for cell, ends in self.ends.items()]
        return "\n".join(lines)


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    tally = Tally()
    yield tally
    print(f"\n{tally}")


class House:
    """A pool whose workers are all for the same file, and which remembers their processes."""

    def __init__(self, engine: Path, model: Path) -> None:
        self._engine, self._model = engine, model
        self.children: list[Child] = []
        self.load_seconds = 0.0
        self.loading: Callable[[Child], None] | None = None
        self.pool = ModelPool(self._start, max_loaded=lambda: 1, queue_seconds=lambda: PATIENCE)

    def orphans(self, living: int = 0) -> list[int]:
        """The processes that are still there, but for the last `living` ones."""
        return [child.pid for child in self.children[: len(self.children) - living] if not gone(child.pid)]

    async def _start(self, id: str, report: Progress) -> WorkerProcess:
        def on_progress(_done: float) -> None:
            if self.loading is not None:
                loading, self.loading = self.loading, None
                loading(self.children[-1])

        began = time.monotonic()
        worker = await WorkerProcess.start(self._engine, self._model, OPTIONS, on_progress, hang_seconds=HANG_SECONDS)
        self.load_seconds = time.monotonic() - began
        return worker


@pytest.fixture
async def house(engine_dir: Path, endless: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    house = House(engine_dir, endless)
    made = Child.connection_made

    def connection_made(child: Child, transport: asyncio.BaseTransport) -> None:
        made(child, transport)
        house.children.append(child)

    monkeypatch.setattr(Child, "connection_made", connection_made)
    yield house
    await house.pool.close()
    assert house.orphans() == []


@pytest.mark.parametrize(("how", "stage"), [*product(WORKER, STAGES)])
async def test_whenever_and_however_a_worker_dies_all_requests_end_and_the_next_is_answered(
    house: House, tally: Tally, how: str, stage: str
) -> None:
    for run in range(RUNS):
        id = f"{how}-{stage}-{run}".lower()
        with anyio.fail_after(PATIENCE):
            ends = await deadly(house, tally, id, how, stage)
        tally.runs += 1
        tally.ends[f"worker {how} at {stage}"].update(ends)
        assert any(end != "answered" for end in ends)
        tally.orphans += len(house.orphans(living=1))
        assert tally.orphans == 0


async def deadly(house: House, tally: Tally, id: str, how: str, stage: str) -> list[str]:
    """Ask for several things, have the worker die meanwhile, and ask again until it answers."""
    begun = anyio.Event()
    struck = 0.0

    def strike(child: Child) -> None:
        nonlocal struck
        struck = time.monotonic()
        if how == "stdin":
            pipe = child._transport.get_pipe_transport(0)
            assert pipe is not None
            pipe.close()
        else:
            os.kill(child.pid, signal.Signals[how])

    async def request(params: GenerateParams) -> str:
        tally.asked += 1
        try:
            async with house.pool.use(id) as worker:
                async for _ in worker.generate(params):
                    begun.set()
            return "answered"
        except JanError as error:
            begun.set()
            return error.type
        finally:
            tally.ended += 1

    if stage == "load":
        house.loading = strike
    asked = [asyncio.create_task(request(LONG if stage == "prefill" else ENDLESS)) for _ in range(3)]
    if stage == "prefill":
        async with house.pool.use(id) as worker:
            while not (await worker.stats()).prefilled and not begun.is_set():
                pass
            strike(worker._child)
    elif stage == "decode":
        await begun.wait()
        await asyncio.sleep(random.random() / 20)  # any moment of a step
        strike(house.children[-1])
    ends = await asyncio.gather(*asked)
    ended = time.monotonic()
    if how == "SIGSTOP":
        tally.detected.append(ended - struck)
    while await request(SHORT) != "answered":  # noqa: ASYNC110 (nobody tells when to try again)
        await asyncio.sleep(0.02)  # a failed load is remembered for a moment
    back = time.monotonic() - ended - house.load_seconds
    tally.back.append(back)
    assert back < BACK_SECONDS
    return ends


HOST_PROGRAM = """
import asyncio, sys, threading
from pathlib import Path
from jan_llamacpp.client import GenerateParams, LoadOptions, Prompt, Sampling, WorkerProcess
from jan_llamacpp.supervise import Child

engine, model, stage = sys.argv[1:]
made = Child.connection_made

def connection_made(child, transport):
    made(child, transport)
    print(child.pid, flush=True)

Child.connection_made = connection_made

def at(now):
    if now == stage:
        print("now", flush=True)

async def work():
    options = LoadOptions(threads=1, n_ctx=16_384)
    worker = await WorkerProcess.start(Path(engine), Path(model), options, lambda done: at("load"))
    prompt = Prompt(tokens=[97] * 12_000)
    if stage == "prefill":
        asyncio.get_running_loop().create_task(prefilling(worker))
    else:
        prompt = Prompt(text="\\n")
    async for piece in worker.generate(GenerateParams(prompt, Sampling(temperature=0))):
        at("decode")

async def prefilling(worker):
    while not (await worker.stats()).prefilled:
        pass
    at("prefill")

async def main():
    running = asyncio.create_task(work())
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


@pytest.mark.parametrize(("how", "stage"), [*product(HOST, STAGES)])
async def test_whenever_and_however_the_host_ends_its_worker_ends_too(
    engine_dir: Path, endless: Path, tally: Tally, how: str, stage: str
) -> None:
    for _ in range(RUNS):
        with anyio.fail_after(PATIENCE):
            host = await asyncio.create_subprocess_exec(
                sys.executable, "-c", HOST_PROGRAM, str(engine_dir), str(endless), stage,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert host.stdout is not None
            assert host.stdin is not None
            pid = int(await host.stdout.readline())
            ending = os.pidfd_open(pid)  # readable when it has ended; it is no child of ours
            assert await host.stdout.readline() == b"now\n"
            if how == "stdin":
                host.stdin.close()
            else:
                host.kill()
            await host.wait()
            ended = time.monotonic()
            await anyio.wait_readable(ending)
            tally.gone.append(time.monotonic() - ended)
            os.close(ending)
        tally.runs += 1
        tally.orphans += not gone(pid)
        tally.ends[f"host {how} at {stage}"].update(["worker ended"])
    assert tally.orphans == 0


def gone(pid: int) -> bool:
    """Is the process no more? One that ended and was not waited for yet does not count as there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
