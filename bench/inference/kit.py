"""What every part needs: the cache with engine, peers and models, and how thoroughly to measure."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from hogs import Hogs
from machine import Load
from models import MODELS, Shape

__all__ = ["DIRTY", "Kit", "NotTakenError", "Ran", "child_pids", "say", "spawned"]

DIRTY = 0.10
"""Cores that others may keep busy during a run; with more it is taken again, and marked when that did not help."""
ATTEMPTS = 3
SETTLED = 0.5
"""Seconds that the machine has been busy for when something is measured on a busy one."""
PATIENCE = 900.0


class NotTakenError(Exception):
    """A figure could not be had; the text says why."""


class Ran(NamedTuple):
    """`clean`: others left the cores to it. `cpu`: seconds of computing, this process's part included."""

    clean: bool
    cpu: float


@dataclass
class Kit:
    """`cache` holds all that is made once. `models`: names of MODELS; `threads`: what every side computes with."""

    cache: Path
    rounds: int
    quick: bool
    models: Sequence[str]
    concurrency: Sequence[int]
    temperatures: Sequence[float]
    threads: int
    sides: Sequence[str]
    taken: int = 0
    dirty: int = 0

    @property
    def data(self) -> Path:
        """The data folder of the hosts that are measured."""
        return self.cache / "data"

    @cached_property
    def engine(self) -> Path:
        """The installed CPU build that every process of ours runs on. Raises NotTakenError."""
        from jan_llamacpp.engines.installed import list_installed

        found = [each for each in list_installed(self.data / "llamacpp" / "engines") if each.record.variant == "cpu"]
        if not found:
            raise NotTakenError("there is no engine in the cache: python bench/inference --prepare")
        return found[0].path

    @property
    def shapes(self) -> list[Shape]:
        """The models that were asked for, the smallest first."""
        return [MODELS[name] for name in self.models]

    @property
    def larger(self) -> list[Shape]:
        """Those of everyday use: all but the tiny one, unless it is all that was asked for."""
        return [shape for shape in self.shapes if shape.name != "tiny"] or self.shapes

    def model(self, shape: Shape) -> Path:
        """The model's file; made the first time."""
        return shape.file(self.cache / "models")

    async def clean(
        self,
        run: Callable[[], Awaitable[object]],
        *,
        pids: Callable[[], list[int]],
        hogs: int = 0,
        attempts: int = ATTEMPTS,
    ) -> Ran:
        """Run something; again when others were busy meanwhile.

        `pids`: processes that are ours, children included. `hogs`: processes that keep a core busy meanwhile. Raises
        NotTakenError when it has no end.
        """
        for _ in range(1 if self.quick else attempts):
            with Hogs(hogs) as busy:
                await asyncio.sleep(SETTLED if hogs else 0)
                load, own = Load(lambda: [*pids(), *busy.pids]), Load.own(pids())
                try:
                    async with asyncio.timeout(PATIENCE):
                        await run()
                except TimeoutError:
                    raise NotTakenError(f"no end within {PATIENCE:g} s") from None
                cores, spent = load.cores(), Load.own(pids()) - own
            if cores is None or cores <= DIRTY:
                break
        ran = Ran(cores is None or cores <= DIRTY, spent)
        self.taken += 1
        self.dirty += not ran.clean
        return ran

    def quiet(self) -> str:
        """How many of the runs so far were disturbed, and begin to count anew."""
        said = f"{self.dirty} of {self.taken} runs were taken while others kept more than {DIRTY:g} cores busy"
        self.taken = self.dirty = 0
        return said


def say(text: str) -> None:
    """Tell who waits what is being done."""
    print(text, file=sys.stderr, flush=True)


@asynccontextmanager
async def spawned(command: Sequence[str | Path], log: Path, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own until the block ends; what it says goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **env}
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def child_pids(pid: int) -> list[int]:
    """A process and all its descendants. Linux only; elsewhere the process alone."""
    found, todo = [], [pid]
    while todo:
        found += todo
        todo = [
            int(child)
            for parent in todo
            for task in Path(f"/proc/{parent}/task").glob("*/children")
            for child in _read(task).split()
        ]
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # it has ended
