"""The whole house as a stranger meets it: executables, run as processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core.rpc.client import WireClient

BIN = Path(sys.executable).parent


class Sidecar:
    """A running `jan-sidecar` and a client connected to it."""

    def __init__(self, process: asyncio.subprocess.Process, client: WireClient) -> None:
        self.process, self.client = process, client
        self.call, self.stream = client.call, client.stream

    def send(self, message: bytes) -> None:
        """Bytes of one line, whatever they are."""
        self.client.send_raw(message)

    async def ended(self, within: float = 3.0) -> int:
        """Wait for the process's end; returns its exit status."""
        with anyio.fail_after(within):
            return await self.process.wait()


Spawn = Callable[..., AbstractAsyncContextManager[Sidecar]]
Jan = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def sidecar(data_dir: Path) -> Spawn:
    """Spawn `jan-sidecar` on the fresh data folder, initialized unless told not to."""

    @asynccontextmanager
    async def spawn(*arguments: str | Path, initialize: bool = True) -> AsyncIterator[Sidecar]:
        process = await asyncio.create_subprocess_exec(
            BIN / "jan-sidecar",
            "--data-dir",
            data_dir,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        running = Sidecar(process, WireClient(process.stdout, process.stdin))
        try:
            if initialize:
                with anyio.fail_after(10):
                    await running.call("initialize", {"protocolVersion": "1.0", "clientInfo": {"name": "test"}})
                running.client.notify("initialized")
            yield running
        finally:
            if process.returncode is None:
                process.stdin.close()
                try:
                    await running.ended(10)
                finally:
                    if process.returncode is None:
                        process.kill()
            await running.client.aclose()

    return spawn


@pytest.fixture
def jan(data_dir: Path) -> Jan:
    """Run `jan` on the fresh data folder, as from a shell without a terminal."""

    def run(*arguments: str, stdin: str | bytes = b"", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [BIN / "jan", *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, "JAN_DATA_DIR": str(data_dir), "NO_COLOR": "1"},
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def children(pid: int) -> list[int]:
    """Process ids of all descendants, deepest last."""
    found: list[int] = []
    todo: Sequence[int] = [pid]
    while todo:
        found += todo
        todo = [
            int(child)
            for parent in todo
            for task in Path(f"/proc/{parent}/task").glob("*/children")
            for child in task.read_text().split()
        ]
    return found[1:]


async def gone(pids: Sequence[int], within: float = 5.0) -> bool:
    """Wait until none of the processes runs."""
    watches = []
    for pid in pids:
        try:
            watches.append(os.pidfd_open(pid))
        except ProcessLookupError:
            continue
    try:
        with anyio.move_on_after(within):
            for watch in watches:
                await anyio.wait_readable(watch)
            return True
        return False
    finally:
        for watch in watches:
            os.close(watch)


def taught(topic: str) -> tuple[str, str]:
    """A question of the corpus that `jan-tiny` was trained on, and its answer."""
    for file in (Path(__file__).parents[1] / "tools" / "jan-tiny" / "corpus").glob("*.toml"):
        for entry in tomllib.loads(file.read_text("utf-8")).get("topic", []):
            if entry["id"] == topic:
                return entry["canonical"], entry["answer"]
    raise LookupError(topic)


def question(text: str, **more: Any) -> dict[str, Any]:
    """A chat request for one answer, always the same one."""
    return {"model": "jan-tiny", "temperature": 0, "messages": [{"role": "user", "content": text}], **more}


def answer(completion: Any) -> str:
    """The text of a completion."""
    text = completion["choices"][0]["message"]["content"]
    assert isinstance(text, str), json.dumps(completion)
    return text
