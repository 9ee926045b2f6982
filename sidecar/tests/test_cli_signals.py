"""A command ends when it is told to, also one whose work waits in a thread for what never comes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

LIMIT = 20
STUCK = """\
import contextlib, signal, sys, time
import anyio
from jan_sidecar.cli import session
from jan_sidecar.cli.app import App

session.PATIENCE = float(sys.argv[1])

def wait():
    if sys.argv[2] == "elsewhere":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    print("waiting", flush=True)
    time.sleep(3600)

async def work(session):
    await anyio.to_thread.run_sync(wait)

@contextlib.asynccontextmanager
async def host(app, activate):
    yield None

if sys.argv[2] == "elsewhere":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
session.run_session(App(host), work)
"""


@pytest.fixture
def stuck(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    patience, where = request.param if isinstance(request.param, tuple) else (request.param, "here")
    command = [sys.executable, "-c", STUCK, str(patience), where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        yield process
        process.kill()


@pytest.mark.parametrize("stuck", [0.2], indirect=True)
def test_one_sigterm_ends_a_command_that_does_not_end_by_itself(stuck: subprocess.Popen[str]) -> None:
    stuck.send_signal(signal.SIGTERM)
    assert stuck.wait(LIMIT) == 130


@pytest.mark.parametrize("stuck", [3600], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_wait(stuck: subprocess.Popen[str], number: signal.Signals) -> None:
    stuck.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        stuck.wait(0.5)
    stuck.send_signal(number)
    assert stuck.wait(LIMIT) == 130


@pytest.mark.skipif(sys.platform == "win32", reason="signals go to no thread there")
@pytest.mark.parametrize("stuck", [(3600, "elsewhere")], indirect=True)
def test_a_signal_that_another_thread_gets_wakes_the_command(stuck: subprocess.Popen[str]) -> None:
    stuck.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        stuck.wait(0.5)
    stuck.send_signal(signal.SIGINT)
    assert stuck.wait(LIMIT) == 130
