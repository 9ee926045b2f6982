"""The process ends in time, though an extension does everything to keep it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

PROGRAM = """
import asyncio, sys, time
from jan_core import Empty, hookimpl, method, methods_of
from jan_core.testing import InlineSource
import jan_core.loader

class Rude:
    @hookimpl
    async def jan_activate(self, ctx):
        async def stay():
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass
        ctx.tasks.start_soon(stay)

    @hookimpl
    def jan_methods(self):
        return methods_of(self)

    @method("test.block")
    async def block(self, params: Empty) -> str:
        "Block the event loop."
        print("blocking", file=sys.stderr, flush=True)
        while True:
            time.sleep(1)

jan_core.loader.installed = lambda **options: [InlineSource("test", Rude, ["test."])]
from jan_sidecar.stdio import main
main()
"""


def wait_for(text: bytes, stream: IO[bytes]) -> None:
    assert any(text in line for line in stream), "the process ended"


@pytest.mark.skipif(os.name == "nt", reason="written for POSIX so far")
@pytest.mark.parametrize("blocked", [False, True], ids=["a task that stays", "a blocked event loop"])
@pytest.mark.parametrize("sign", ["end of input", "SIGTERM"])
def test_the_process_is_gone_three_seconds_after_the_sign(tmp_path: Path, blocked: bool, sign: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, program, "--data-dir", tmp_path / "data"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"initialize"}\n')
        process.stdin.write(b'{"jsonrpc":"2.0","method":"initialized"}\n')
        wait_for(b'"active"', process.stdout)
        if blocked:
            process.stdin.write(b'{"jsonrpc":"2.0","id":2,"method":"test.block"}\n')
            wait_for(b"blocking", process.stderr)
        if sign == "SIGTERM":
            process.terminate()
        else:
            process.stdin.close()
            process.stdin = None
        assert process.wait(timeout=3) == 0
