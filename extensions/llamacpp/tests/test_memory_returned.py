"""What a model took is given back when it is unloaded, and the host does not grow. Measured, Linux."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import anyio
import pytest
from jan_llamacpp.client import GenerateParams, LoadOptions, Prompt, Sampling, WorkerProcess
from jan_llamacpp.pool import ModelPool

from jan_core import Progress

from .conftest import PATIENCE, MakeModel

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")]

CYCLES = 20
MOST_GROWTH = 1 << 20
"""Bytes the host may be larger after `CYCLES` loads and unloads; a worker takes some sixty times as much."""


def private(pid: int | str = "self") -> int:
    """Bytes that only this process holds. What it shares with others (libraries) changes as those come and go."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE)) * 1024


def held() -> int:
    """Bytes that this process and all its descendants hold, each for itself."""
    own, pids = ["self"], ["self"]
    while own:
        children = [Path(f"/proc/{pid}/task").glob("*/children") for pid in own]
        own = [child for files in children for file in files for child in file.read_text().split()]
        pids += own
    return sum(private(pid) for pid in pids)


async def test_unloading_gives_back_what_loading_took_and_the_host_does_not_grow(
    engine_dir: Path, make_model: MakeModel
) -> None:
    model = make_model(n_embd=256, n_layer=4)

    async def start(id: str, report: Progress) -> WorkerProcess:
        return await WorkerProcess.start(engine_dir, model, LoadOptions(threads=1, n_ctx=2048, n_seq=2))

    pool = ModelPool(start, max_loaded=lambda: 1, queue_seconds=lambda: PATIENCE)
    params = GenerateParams(Prompt(text="a" * 200), Sampling(temperature=0), max_tokens=20, ignore_eos=True)
    sizes: list[int] = []
    returned: list[float] = []
    with anyio.fail_after(PATIENCE * 2):
        for _ in range(CYCLES + 3):
            gc.collect()
            before = held()
            async with pool.use("a") as worker:
                assert [piece async for piece in worker.generate(params)]
                during = held()
            await pool.unload("a")
            gc.collect()
            returned.append((during - held()) / (during - before))
            sizes.append(private())
    growth = sizes[-1] - sizes[2]
    took, least = (during - before) / 1e6, min(returned)
    print(f"\na load took {took:.1f} MB; at least {least:.1%} came back; the host grew by {growth} bytes")
    assert least >= 0.95
    assert growth <= MOST_GROWTH
