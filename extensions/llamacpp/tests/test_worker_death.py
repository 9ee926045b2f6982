"""Deaths: of the worker, of its host, of the pipe between them. Real processes, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_llamacpp.client import GenerateParams, LoadOptions, Prompt, Sampling, WorkerProcess
from jan_llamacpp.failures import WorkerDied
from jan_llamacpp.supervise import Child
from jan_llamacpp.worker.frames import frame
from jan_llamacpp.worker.protocol import LoadProgress, encode

from .conftest import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")]

ENDLESS = GenerateParams(Prompt(text="\n"), Sampling(temperature=0))
OPTIONS = LoadOptions(threads=1, n_seq=4)

HOST = """
import asyncio, json, sys
from pathlib import Path
from typing import Any
from jan_llamacpp.client import GenerateParams, LoadOptions, Prompt, Sampling, WorkerProcess

async def main():
    worker = await WorkerProcess.start(Path(sys.argv[1]), Path(sys.argv[2]), LoadOptions(threads=1))
    async for piece in worker.generate(GenerateParams(Prompt(text="\\n"), Sampling(temperature=0))):
        if piece.step == 20:
            print(json.dumps(worker.pid), flush=True)

asyncio.run(main())
"""


def gone(pid: int) -> bool:
    """Is the process no more? One that ended and was not waited for yet does not count as there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and pidfds")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_no_worker_outlives_its_host_not_even_in_mid_answer(
    engine_dir: Path, endless: Path, how: signal.Signals
) -> None:
    host = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOST, str(engine_dir), str(endless),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert host.stdout is not None
    with anyio.fail_after(PATIENCE):
        pid = json.loads(await host.stdout.readline())
        ending = os.pidfd_open(pid)  # readable when it has ended; it is no child of ours
        assert not gone(pid)
        host.send_signal(how)
        await host.wait()
    with anyio.fail_after(PATIENCE):
        await anyio.wait_readable(ending)
    os.close(ending)
    assert gone(pid)


STUCK = """
import asyncio, os, signal, sys, threading, time
from pathlib import Path
from jan_llamacpp.client import LoadOptions, WorkerProcess

kept = []

async def main():
    kept.append(await WorkerProcess.start(Path(sys.argv[1]), Path(sys.argv[2]), LoadOptions(threads=1)))
    if sys.argv[3] == "thread":
        threading.excepthook = lambda _args: None
        print(kept[0].pid, flush=True)
        raise SystemExit  # its loop is gone; the process and its pipes are not
    os.kill(kept[0].pid, signal.SIGSTOP)  # it will not read that its pipe has ended
    print(kept[0].pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=lambda: asyncio.run(main())).start()
while True:
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("case", ["thread", "stopped"])
async def test_no_worker_outlives_its_host_where_the_end_of_the_pipe_does_not_tell(
    engine_dir: Path, endless: Path, case: str
) -> None:
    host = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STUCK, str(engine_dir), str(endless), case,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert host.stdout is not None
    with anyio.fail_after(PATIENCE):
        pid = int(await host.stdout.readline())
        if not gone(pid):
            ending = os.pidfd_open(pid)
            await anyio.wait_readable(ending)
            os.close(ending)
        if case == "thread":
            assert host.returncode is None  # the process lives
            host.kill()
        await host.wait()


async def test_a_killed_worker_answers_every_request_once_and_a_new_one_works(engine_dir: Path, endless: Path) -> None:
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, endless, OPTIONS)
        running = asyncio.Event()
        ends: list[BaseException | str] = []

        async def consume() -> None:
            try:
                async for _ in worker.generate(ENDLESS):
                    running.set()
                ends.append("finished")
            except WorkerDied as error:
                ends.append(error)

        tasks = [asyncio.create_task(consume()) for _ in range(6)]
        await running.wait()
        assert worker.busy == 6
        counting = asyncio.create_task(worker.count_tokens(Prompt(text="x")))
        await asyncio.sleep(0)
        os.kill(worker.pid, signal.SIGKILL)
        await asyncio.gather(*tasks)
        reason = await worker.exited
        died = [end for end in ends if isinstance(end, WorkerDied)]
        assert len(ends) == len(died) == 6
        assert died[0].retryable
        assert died[0].data["signal"] == "SIGKILL"
        assert (reason.signal, reason.expected) == ("SIGKILL", False)
        assert not worker.alive
        assert worker.busy == 0
        with pytest.raises(WorkerDied):
            await anext(worker.generate(ENDLESS))
        with pytest.raises(WorkerDied):
            await worker.stats()
        await asyncio.wait([counting])
        assert counting.exception() is None or isinstance(counting.exception(), WorkerDied)
        await worker.close()

        second = await WorkerProcess.start(engine_dir, endless, OPTIONS)
        answer = [p.text async for p in second.generate(GenerateParams(Prompt(text="\n"), max_tokens=3))]
        assert "".join(answer) == "abc"
        await second.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_when_memory_runs_out_it_is_the_worker_that_the_kernel_would_take(
    engine_dir: Path, endless: Path
) -> None:
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, endless, OPTIONS)
        scores = [oom_score(worker.pid), oom_score(os.getpid())]
        await worker.close()
    assert scores[0] > scores[1]


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_closing_a_worker_ends_its_open_answers_with_a_typed_error(engine_dir: Path, endless: Path) -> None:
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, endless, OPTIONS)
        answer = worker.generate(ENDLESS)
        await anext(answer)
        await worker.close()
        with pytest.raises(WorkerDied, match="unloaded"):
            async for _ in answer:
                pass
        reason = await worker.exited
        assert (reason.code, reason.expected) == (0, True)
        await worker.close()


async def test_cancelling_a_load_leaves_no_process(
    engine_dir: Path, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned: list[Child] = []
    loading = anyio.Event()
    real = Child.spawn

    async def spawn(engine: Path, *callbacks: Any) -> Child:
        spawned.append(await real(engine, *callbacks))
        loading.set()
        return spawned[-1]

    monkeypatch.setattr(Child, "spawn", spawn)
    with anyio.fail_after(PATIENCE):
        task = asyncio.create_task(WorkerProcess.start(engine_dir, endless, OPTIONS))
        await loading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert spawned[0].exited.done()
    assert gone(spawned[0].pid)


async def test_a_callback_that_raises_leaves_no_process(engine_dir: Path, endless: Path) -> None:
    def on_progress(done: float) -> None:
        raise ZeroDivisionError

    with anyio.fail_after(PATIENCE):
        with pytest.raises(ZeroDivisionError):
            await WorkerProcess.start(engine_dir, endless, OPTIONS, on_progress)


async def test_ctrl_c_in_the_terminal_is_left_to_the_host(engine_dir: Path, endless: Path) -> None:
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, endless, OPTIONS)
        os.kill(worker.pid, signal.SIGINT)
        answer = [p.text async for p in worker.generate(GenerateParams(Prompt(text="\n"), max_tokens=3))]
        assert "".join(answer) == "abc"
        await worker.close()


async def test_a_worker_that_reads_nonsense_ends_and_says_so(engine_dir: Path, endless: Path) -> None:
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, endless, OPTIONS)
        pipe = worker._child._transport.get_pipe_transport(0)
        assert isinstance(pipe, asyncio.WriteTransport)
        pipe.write(b"\xff\xff\xff\xff nonsense")
        reason = await worker.exited
    assert reason.code == 64
    assert "no frames of ours" in reason.log


NOISE = """
import os
from jan_llamacpp.worker.protocol import LoadProgress
from jan_llamacpp.worker.stdio import Pipe, claim
reader, writer = claim()
print("noise", flush=True)
os.write(1, b"noise")
os.system("echo noise; cat")
Pipe(writer).send(LoadProgress(0.5))
"""


def test_what_anybody_prints_goes_to_the_log_and_not_into_the_frames() -> None:
    done = subprocess.run([sys.executable, "-c", NOISE], input=b"unread", capture_output=True, timeout=PATIENCE)
    assert done.stdout == frame(encode(LoadProgress(0.5)))
    assert done.stderr == b"noise\nnoisenoise\n"


async def test_the_log_has_llama_cpps_lines_and_no_text_of_a_request(engine_dir: Path, endless: Path) -> None:
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, endless, OPTIONS)
        secret = "the password is swordfish"
        params = GenerateParams(Prompt(messages=[{"role": "user", "content": secret}]), max_tokens=4)
        assert [p async for p in worker.generate(params)]
        os.kill(worker.pid, signal.SIGABRT)
        reason = await worker.exited
    assert reason.signal == "SIGABRT"
    assert "llama_model_loader" in reason.log
    assert "swordfish" not in reason.log
