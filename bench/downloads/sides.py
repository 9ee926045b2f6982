"""Those who download the same file: ours, and the others, each told to check its SHA-256 as well as it can.

A side starts, brings the file, and says what that took. What it wrote is checked once against the content.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import content
import msgspec
import proc
from host import running
from kit import Kit, NotTakenError

from jan_core import RpcError

if TYPE_CHECKING:
    from content import Content
    from web import Web

__all__ = ["ARIA2", "HTTPX", "OURS", "PLAIN", "SIDES", "Ran", "Took", "take"]

CLIENTS = Path(__file__).parent / "clients"
OURS = ("ours, pieces' hashes known", "ours")
ARIA2 = ("aria2c -x4", "aria2c, 1 connection")
HTTPX = ("httpx, 1 connection", "httpx, 4 connections")
PLAIN = "aria2c -x4, unchecked"
LOOK = 0.005
"""Seconds between two looks at a program that runs; what its end is known to."""


class Took(msgspec.Struct, kw_only=True):
    """What one download took: seconds until it was there and checked, `transfer` of them before a check that comes
    after, and `sync` until it was on the disk itself; seconds of computing, of the client and of nginx; MiB of memory
    at most, and `before`; how late (s) the ticks of the host's event loop were."""

    seconds: float
    transfer: float
    computing: float
    peak: float
    path: str
    sha256: str = ""
    before: float = 0.0
    sync: float = 0.0
    server: float = 0.0
    late: list[float] = []


Side = Callable[[Kit, "Web", Path], Awaitable[Took]]


async def take(side: str, kit: Kit, web: Web, *, check: bool) -> Took:
    """One run in a folder of its own, which is removed. Raises NotTakenError when it is not there or does it wrong."""
    folder = kit.fresh("run")
    try:
        served = proc.computed(web.pid)
        took = await SIDES[side](kit, web, folder)
        took.server = proc.computed(web.pid) - served
        took.sync = _synced(Path(took.path))
        if not _same(Path(took.path), web.content, check):
            raise NotTakenError(f"{side}: what it wrote is not the file")
        return took
    finally:
        shutil.rmtree(folder)
        os.sync()  # nobody has to write what another left behind


def _synced(path: Path) -> float:
    """Seconds until it is on the disk."""
    began = time.perf_counter()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - began


def _same(path: Path, expected: Content, check: bool) -> bool:
    return path.stat().st_size == expected.size and not (check and content.digest(path) != expected.sha256)


# -- ours -------------------------------------------------------------------------------------------------------------


def ours(pieces: bool) -> Side:
    async def run(kit: Kit, web: Web, folder: Path) -> Took:
        async with running(folder / "data") as host:
            await host.fetch(web.content.small(web.endpoint))
            await host.late()
            proc.forget_peak(host.pid)
            before, computed = proc.resident(host.pid), proc.computed(host.pid)
            began = time.perf_counter()
            try:
                done = await host.fetch(web.content.file(web.url, pieces=web.pieces if pieces else ""))
            except RpcError as error:
                raise NotTakenError(f"ours: {error}") from error
            seconds = time.perf_counter() - began
            if not done["verified"]:
                raise NotTakenError(f"ours: {done['state']}, unverified")
            return Took(
                seconds=seconds,
                transfer=seconds,
                computing=proc.computed(host.pid) - computed,
                peak=proc.peak(host.pid),
                before=before,
                path=done["path"],
                late=await host.late(),
            )

    return run


# -- programs ---------------------------------------------------------------------------------------------------------


@dataclass
class Ran:
    """Programs that ran one after the other: `seconds` of the first of them, and of them all."""

    seconds: list[float] = field(default_factory=list)
    computing: float = 0.0
    peak: float = 0.0
    output: str = ""

    def add(self, command: Sequence[str | Path], **environment: str) -> Ran:
        """Run one more. Raises NotTakenError when it fails."""
        env = {**os.environ, **environment}
        began = time.perf_counter()
        with subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            # What they say, on errors a page at most, fits into the pipes.
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                self._look(process.pid)
            _, status, used = ended
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.stdout is not None
            assert process.stderr is not None
            self.output, errors = process.stdout.read(), process.stderr.read()
        self.seconds.append(time.perf_counter() - began)
        if process.returncode:
            said = (errors or self.output).strip()[-300:]
            raise NotTakenError(f"{Path(command[0]).name} ended with {process.returncode}: {said}")
        self.computing += used.ru_utime + used.ru_stime
        return self

    def _look(self, pid: int) -> None:
        """Note its memory, then wait a little: what `wait4` says of it is at least what its parent has."""
        with contextlib.suppress(NotTakenError):  # it may have ended just now
            self.peak = max(self.peak, proc.peak(pid))
        time.sleep(LOOK)

    def took(self, path: Path) -> Took:
        return Took(
            seconds=sum(self.seconds),
            transfer=self.seconds[0],
            computing=self.computing,
            peak=self.peak,
            path=str(path),
        )


def aria2(connections: int, *, check: bool = True) -> Side:
    async def run(kit: Kit, web: Web, folder: Path) -> Took:
        path = folder / "out.bin"
        command = [*aria2_command(folder, connections), "--out", path.name]
        if check:
            command.append(f"--checksum=sha-256={web.content.sha256}")
        return (await asyncio.to_thread(Ran().add, [*command, web.url])).took(path)

    return run


def aria2_command(folder: Path, connections: int) -> list[str]:
    """What all its runs have in common. Raises NotTakenError."""
    command = [program("aria2c", "aria2"), "--no-conf", "--quiet", "--dir", str(folder), "--file-allocation=falloc"]
    return [*command, "-x", str(connections), "-s", str(connections), "-k", "1M", "--max-tries=0"]


async def curl(kit: Kit, web: Web, folder: Path) -> Took:
    path = folder / "out.bin"
    command = [program("curl", "curl"), "--silent", "--show-error", "--fail", "--output", str(path), web.url]
    sums = [program("sha256sum", "coreutils"), str(path)]
    ran = await asyncio.to_thread(lambda: Ran().add(command).add(sums))
    if ran.output.split()[0] != web.content.sha256:
        raise NotTakenError("curl: what it wrote is not the file")
    return ran.took(path)


def httpx(connections: int) -> Side:
    async def run(kit: Kit, web: Web, folder: Path) -> Took:
        return await _python("with_httpx.py", web.url, folder / "out.bin", web.content.size, connections)

    return run


async def hub(kit: Kit, web: Web, folder: Path) -> Took:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise NotTakenError("huggingface_hub is not installed: it is in the group `bench`") from None
    from web import COMMIT

    environment = {"HF_ENDPOINT": web.endpoint, "HF_HOME": str(folder), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return await _python("with_hub.py", folder, web.content.path.name, COMMIT, **environment)


async def _python(script: str, *words: Any, **environment: str) -> Took:
    command = [sys.executable, str(CLIENTS / script), *map(str, words)]
    ran = await asyncio.to_thread(lambda: Ran().add(command, **environment))
    return msgspec.convert(json.loads(ran.output), Took)


def program(name: str, package: str) -> str:
    """Where it is. Raises NotTakenError."""
    found = shutil.which(name)
    if found is None:
        raise NotTakenError(f"{name} is not installed (Debian's package {package} has it)")
    return found


SIDES: dict[str, Side] = {
    OURS[0]: ours(True),
    OURS[1]: ours(False),
    ARIA2[0]: aria2(4),
    ARIA2[1]: aria2(1),
    PLAIN: aria2(4, check=False),
    "curl, then sha256sum": curl,
    "hf_hub_download, then SHA-256": hub,
    HTTPX[0]: httpx(1),
    HTTPX[1]: httpx(4),
}
