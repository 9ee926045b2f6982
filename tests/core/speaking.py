"""The program of `speaker.py`: a host with one extension on this process's standard input and output."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from jan_core.rpc import stdio

if __name__ == "__main__":
    read, write = stdio.claim()

import msgspec

from jan_core import Call, Empty, hookimpl, method, methods_of
from jan_core.host import Host
from jan_core.testing import InlineSource


class Text(msgspec.Struct):
    text: str = ""


class Number(msgspec.Struct):
    value: int = 0


class Speaking:
    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @method("test.echo")
    def echo(self, params: Text) -> Text:
        """The text again."""
        return params

    @method("test.later")
    async def later(self, params: Text) -> Text:
        """The text again, after others had their turn."""
        await asyncio.sleep(0)
        return params

    @method("test.noise")
    def noise(self, params: Empty) -> str:
        """Write to standard output in every way there is, and read standard input in a child."""
        print("print")
        sys.stdout.flush()
        os.write(1, b"os.write\n")
        libc = ctypes.CDLL(None)
        libc.puts(b"puts")
        libc.fflush(None)
        subprocess.run([sys.executable, "-c", "import sys; print('child', repr(sys.stdin.read()))"])
        return "quiet"

    @method("test.hang")
    async def hang(self, params: Empty) -> str:
        """Never."""
        await asyncio.Event().wait()
        return ""

    @method("test.flood", item=Text)
    async def flood(self, params: Number, call: Call) -> Number:
        """Send `value` items as quickly as they are taken."""
        for _ in range(params.value):
            await call.send(Text("x" * 100))
        return params


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Host(Path(folder), sources=[InlineSource("test", Speaking, ["test."])]) as host:
            await host.activate_startup()
            await stdio.serve(host, read, write)


if __name__ == "__main__":
    if "threads" in sys.argv[1:]:
        stdio._pollable = lambda fd: False  # the transport of Windows, files and terminals
    asyncio.run(main())
    os._exit(0)
