"""Commands of an installation: their output, and that none of their descendants outlives a cancel or a
SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from jan_llamacpp.engines.process import run

pytestmark = pytest.mark.anyio

# Starts a grandchild that ignores SIGTERM, says its process id, and waits for ever: what a stuck compiler
# looks like.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("started", os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
PARENT = """
import sys, anyio
from pathlib import Path
from jan_llamacpp.engines.process import run
folder = Path(sys.argv[1])
async def main():
    await run([sys.executable, "-c", sys.argv[2]], log=folder / "log", cwd=folder, env={},
              on_line=lambda line: print(line, flush=True))
anyio.run(main)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # a zombie that nobody has waited for yet is no longer running
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return sys.platform != "linux"


def gone(pids: list[int], seconds: float = 60.0) -> bool:
    """Waits until none of the processes runs any more."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(alive, pids))


async def test_output_status_and_log_are_kept(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import sys; print('out'); print('err', file=sys.stderr); print('last', end=''); sys.exit(3)"
    status, output = await run(
        [sys.executable, "-uc", code], log=tmp_path / "log", cwd=tmp_path, env={}, on_line=lines.append
    )
    assert (status, output, lines) == (3, "out\nerr\nlast", ["out", "err", "last"])
    assert await anyio.Path(tmp_path / "log").read_text() == "out\nerr\nlast"


async def test_a_command_ended_by_a_signal_is_told_apart(tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"
    status, _ = await run([sys.executable, "-c", code], log=tmp_path / "log", cwd=tmp_path, env={})
    assert status == 128 + signal.SIGABRT


async def test_a_command_runs_below_normal_priority(tmp_path: Path) -> None:
    code = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"
    _, output = await run([sys.executable, "-c", code], log=tmp_path / "log", cwd=tmp_path, env={})
    assert int(output) == max(10, os.getpriority(os.PRIO_PROCESS, 0))


async def test_a_line_without_end_is_kept_short(tmp_path: Path) -> None:
    code = "print('x' * 3_000_000)"
    _, output = await run([sys.executable, "-c", code], log=tmp_path / "log", cwd=tmp_path, env={})
    assert set(output) == {"x"}
    assert len(output) == 64 * 1024


async def test_a_cancel_ends_the_command_and_its_stubborn_children(tmp_path: Path) -> None:
    pids: list[int] = []

    def started(line: str) -> None:
        pids.extend(map(int, line.split()[1:]))
        scope.cancel()

    with anyio.fail_after(120), anyio.CancelScope() as scope:
        await run([sys.executable, "-c", STUBBORN], log=tmp_path / "log", cwd=tmp_path, env={}, on_line=started)
    assert scope.cancelled_caught
    assert len(pids) == 2
    assert await anyio.to_thread.run_sync(gone, pids)


def test_a_killed_host_leaves_no_command_behind(tmp_path: Path) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), STUBBORN],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert host.stdout is not None
    with host.stdout:
        pids = list(map(int, host.stdout.readline().split()[1:]))
        assert all(map(alive, pids))
        host.send_signal(signal.SIGKILL)
        host.wait()
    assert gone(pids)


def test_a_process_group_that_is_ended_with_the_host_takes_the_command_along(tmp_path: Path) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), STUBBORN],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    assert host.stdout is not None
    with host.stdout:
        pids = list(map(int, host.stdout.readline().split()[1:]))
        os.killpg(host.pid, signal.SIGTERM)  # as a shell, a service manager or `timeout` does
        host.wait()
    assert gone(pids)
