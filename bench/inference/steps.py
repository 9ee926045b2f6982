"""What a step of the scheduler costs beside llama.cpp's decode: drawing tokens, making text, queues, frames.

Taken from the worker's own counters while all requests generate: the time that went by, less the time inside
`llama_decode`. Drawing a token from 150,000 logits is in it, so it is an upper bound of what Python costs.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit import Kit, say
from report import Reach, Report, Table, figure
from spread import median
from starting import N_SEQ, worker

if TYPE_CHECKING:
    from jan_llamacpp.client import WorkerProcess
    from models import Shape

__all__ = ["measure"]

PROMPT, TOKENS = 32, 192
N_CTX = 256
COUNTS = (1, 4, 16)


@dataclass(frozen=True)
class Window:
    """A stretch in which every request generated. Seconds."""

    steps: int
    wall: float
    decode: float

    @property
    def beside(self) -> float:
        """Of each step."""
        return (self.wall - self.decode) / self.steps


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    report, rows = Report(), []
    for shape in kit.shapes:
        options = {"n_ctx": N_CTX, "n_cells": N_CTX * N_SEQ, "threads": kit.threads}
        async with worker(kit, kit.model(shape), **options) as running:
            for temperature in kit.temperatures:
                for count in COUNTS:
                    windows = [await window(kit, running, shape, count, temperature) for _ in range(kit.rounds + 1)][1:]
                    beside = median([each.beside for each in windows]) or 0.0
                    share = median([1 - each.decode / each.wall for each in windows]) or 0.0
                    decode = median([each.decode / each.steps for each in windows]) or 0.0
                    name = f"{shape.name}, {count} at once, temperature {temperature:g}"
                    cells = (decode * 1e6, beside * 1e6, beside * 1e6 / count, share * 100)
                    rows.append([name, *map(figure, cells)])
                    say(f"{name}: {beside * 1e6:.0f} us beside {decode * 1e6:.0f} us")
                    if shape in kit.larger and not temperature:
                        report.reaches.append(Reach(f"{name}: all that is not decode", share * 100, 2, "%"))
    heads = ["", "decode, µs a step", "beside it", "a token", "share of a step, %"]
    report.tables.append(Table("A step of the scheduler", heads, rows))
    report.notes.append(f"medians of {kit.rounds} windows; {kit.quiet()}")
    return report


async def window(kit: Kit, running: WorkerProcess, shape: Shape, count: int, temperature: float) -> Window:
    """`count` requests at once, from when all have begun to when the first is about to end."""
    from jan_llamacpp.client import GenerateParams, Prompt, Sampling

    source, found = random.Random(), list[Window]()
    length = 48 if kit.quick else TOKENS

    async def one(begun: asyncio.Event, ending: asyncio.Event) -> None:
        message = {"role": "user", "content": shape.vocabulary.message(PROMPT, source)}
        sampling = Sampling(temperature=temperature, seed=1)
        params = GenerateParams(Prompt(messages=[message]), sampling, max_tokens=length, speculate=False)
        tokens = 0
        async for piece in running.generate(params):
            tokens += piece.tokens
            begun.set()
            if tokens >= length - 8:
                ending.set()

    async def run() -> None:
        found.clear()
        begun, ending = [asyncio.Event() for _ in range(count)], asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for event in begun:
                tasks.create_task(one(event, ending))
            for event in begun:
                await event.wait()
            before = await counters(running)
            await ending.wait()
            after = await counters(running)
        steps, wall, decode = (b - a for a, b in zip(before, after, strict=True))
        found.append(Window(int(steps), wall, decode))

    await kit.clean(run, pids=lambda: [running.pid])
    return found[0]


async def counters(running: WorkerProcess) -> tuple[float, float, float]:
    """Steps, the time, and seconds of decoding, the step that runs included."""
    stats = await running.stats()
    return stats.steps, time.perf_counter(), stats.decode_seconds + stats.step_age
