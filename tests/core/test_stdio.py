"""A real process on real pipes: nobody writes into the wire, and the process ends with its client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import asyncio, ctypes, os, subprocess, sys, tempfile
from pathlib import Path
from jan_core.rpc import stdio
read, write = stdio.claim()
from jan_core import Empty, hookimpl, method, methods_of
from jan_core.host import Host
from jan_core.testing import InlineSource

class Noisy:
    @hookimpl
    def jan_methods(self): return methods_of(self)

    @method("test.noise")
    def noise(self, params: Empty) -> str:
        "Write to standard output in every way there is."
        print("print"); sys.stdout.flush()
        os.write(1, b"os.write\\n")
        libc = ctypes.CDLL(None); libc.puts(b"puts"); libc.fflush(None)
        subprocess.run([sys.executable, "-c", "import sys; print('child', repr(sys.stdin.read()))"])
        return "quiet"

    @method("test.hang")
    async def hang(self, params: Empty) -> str:
        "Never."
        await asyncio.Event().wait()
        return ""

async def main():
    with tempfile.TemporaryDirectory() as folder:
        async with Host(Path(folder), sources=[InlineSource("test", Noisy, ["test."])]) as host:
            await stdio.serve(host, read, write)

asyncio.run(main())
os._exit(0)
"""
INITIALIZE = b'{"jsonrpc":"2.0","id":0,"method":"initialize"}\n'


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    path = tmp_path / "a program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return [sys.executable, str(path)]


@pytest.fixture
def process(program: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def ask(process: subprocess.Popen[bytes], id: int, method: str) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": id, "method": method}).encode() + b"\n")
    while (message := json.loads(process.stdout.readline())).get("id") != id:
        pass
    return message


def test_nothing_an_extension_prints_reaches_the_wire(process: subprocess.Popen[bytes]) -> None:
    ask(process, 1, "initialize")
    assert ask(process, 2, "test.noise")["result"] == "quiet"
    stdout, stderr = process.communicate(timeout=10)
    assert stdout == b""
    for noise in (b"print", b"os.write", b"puts", b"child ''"):
        assert noise in stderr


def test_exit_ends_the_process_with_status_0(process: subprocess.Popen[bytes]) -> None:
    ask(process, 1, "initialize")
    assert ask(process, 2, "shutdown")["result"] is None
    assert process.stdin is not None
    process.stdin.write(b'{"jsonrpc":"2.0","method":"exit"}\n')
    assert process.wait(timeout=5) == 0


def test_end_of_input_ends_the_process_also_with_a_request_running(process: subprocess.Popen[bytes]) -> None:
    ask(process, 1, "initialize")
    assert process.stdin is not None
    process.stdin.write(b'{"jsonrpc":"2.0","id":2,"method":"test.hang"}\n')
    process.stdin.close()
    process.stdin = None
    assert process.wait(timeout=5) == 0


def test_a_client_that_closes_its_reading_end_ends_the_process(process: subprocess.Popen[bytes]) -> None:
    ask(process, 1, "initialize")
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.close()
    process.stdin.write(b'{"jsonrpc":"2.0","id":2,"method":"ping"}\n')
    assert process.wait(timeout=5) == 0


def test_input_from_a_file_is_answered_to_its_end(program: list[str], tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_bytes(INITIALIZE + b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    with script.open("rb") as file:
        done = subprocess.run(program, stdin=file, capture_output=True, timeout=10, check=True)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [0, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="the parent is watched on Linux only so far")
def test_the_death_of_the_parent_ends_the_process_though_somebody_else_holds_the_pipe(
    program: list[str], tmp_path: Path
) -> None:
    # The middle process spawns the program and a sleeper that inherits the pipe's writing end, and is killed.
    middle = f"""
import os, subprocess, sys, time
read, write = os.pipe()
sleeper = subprocess.Popen(["sleep", "60"], pass_fds=[write])
child = subprocess.Popen({program!r}, stdin=read, stdout=subprocess.PIPE)
os.write(write, {INITIALIZE!r})
child.stdout.readline()
print(child.pid, sleeper.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", middle], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child, sleeper = map(int, parent.stdout.readline().split())
        watch = os.pidfd_open(child)
        try:
            parent.kill()
            import select

            assert select.select([watch], [], [], 5)[0], "the program outlived its parent"
        finally:
            os.close(watch)
            os.kill(sleeper, signal.SIGKILL)
