"""How late the host's event loop is while models answer: everything else a person does goes through it.

Once in a process that hosts a worker and reads 16 answers, by a timer that should fire every 2 ms; once in
`jan-sidecar`, seen from outside, by the answers to `ping` while it streams 4 answers.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from kit import Kit
from report import Reach, Report, Table, figure
from sides import Job, RpcSide, Side, WorkerSide
from spread import percentile
from starting import N_SEQ, host, house, worker

if TYPE_CHECKING:
    from models import Shape

    from jan_core.rpc.client import WireClient

__all__ = ["measure"]

PROMPT, TOKENS = 64, 192
N_CTX = 512
TICK = 0.002
STREAMS = 4


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    report, rows = Report(), []
    for shape in kit.shapes:
        job = job_of(kit, shape, N_SEQ)
        options = {"n_ctx": N_CTX, "n_cells": N_CTX * N_SEQ, "threads": kit.threads}
        async with worker(kit, kit.model(shape), **options) as running:
            rows.append([f"{shape.name}: timer, nobody asks", *cells(await beside(tick, idle))])
            found = await decoding(kit, WorkerSide(running), job, tick)
            rows.append([f"{shape.name}: timer, {N_SEQ} answers", *cells(found)])
            late = percentile(found, 0.99)
            report.reaches.append(Reach(f"{shape.name}: timer, p99", late * 1e3 if late is not None else None, 3, "ms"))
        async with host(kit) as (client, pid):
            await house(client, kit, shape, N_CTX)
            side = RpcSide(client, shape.name, pid)
            await side.burst(job_of(kit, shape, 1))
            rows.append([f"{shape.name}: ping of `jan-sidecar`, nobody asks", *cells(await beside(ping(client), idle))])
            found = await decoding(kit, side, job_of(kit, shape, STREAMS), ping(client))
            rows.append([f"{shape.name}: ping of `jan-sidecar`, {STREAMS} answers", *cells(found)])
    report.tables.append(Table("Late by, ms", ["", "p50", "p95", "p99", "most"], rows))
    report.notes.append(kit.quiet())
    return report


def job_of(kit: Kit, shape: Shape, count: int) -> Job:
    source = random.Random()
    texts = [shape.vocabulary.message(PROMPT, source) for _ in range(count)]
    return Job(texts, PROMPT, 32 if kit.quick else TOKENS)


async def decoding(kit: Kit, side: Side, job: Job, sample: Callable[[], Awaitable[float]]) -> list[float]:
    """Samples while a burst of requests is answered."""
    found: list[float] = []

    async def run() -> None:
        found[:] = await beside(sample, lambda: side.burst(job))

    await kit.clean(run, pids=side.pids)
    return found


async def beside(sample: Callable[[], Awaitable[float]], work: Callable[[], Awaitable[object]]) -> list[float]:
    """Samples, one after the other, for as long as the work takes."""
    found: list[float] = []
    task = asyncio.ensure_future(work())
    while not task.done():
        found.append(await sample())
    await task
    return found


async def idle() -> None:
    await asyncio.sleep(1.0)


async def tick() -> float:
    """Seconds that a timer of 2 ms is late."""
    began = time.perf_counter()
    await asyncio.sleep(TICK)
    return time.perf_counter() - began - TICK


def ping(client: WireClient) -> Callable[[], Awaitable[float]]:
    async def sample() -> float:
        await asyncio.sleep(TICK)
        began = time.perf_counter()
        await client.call("ping")
        return time.perf_counter() - began

    return sample


def cells(found: list[float]) -> list[str]:
    shown = [percentile(found, share) for share in (0.5, 0.95, 0.99)] + [max(found, default=None)]
    return [figure(value * 1e3 if value is not None else None) for value in shown]
