"""Thousands of damaged model files: our reader says what is wrong, or a real worker does, and nothing else happens.

A short run by default; `JAN_TEST_FUZZ=10000` damages so many files, and `pytest -s` prints what became of them.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import anyio
import pytest
from jan_llamacpp.client import GenerateParams, LoadOptions, Prompt, WorkerProcess
from jan_llamacpp.embedded import EMBEDDED_MODEL
from jan_llamacpp.errors import InvalidModelFile
from jan_llamacpp.gguf import read_model
from jan_llamacpp.memory.estimate import memory_need

from jan_core import JanError

from .conftest import PATIENCE
from .gguf_damage import damage, parse

pytestmark = pytest.mark.anyio

FILES = int(os.environ.get("JAN_TEST_FUZZ", "300"))
AT_ONCE = 2
OPTIONS = LoadOptions(n_ctx=64, n_seq=1, n_cells=64, n_batch=32, threads=1)


def test_damaged_headers_are_read_or_refused_with_a_reason_and_a_place(tmp_path: Path) -> None:
    sound = parse(EMBEDDED_MODEL)
    path = tmp_path / "damaged.gguf"
    refused: Counter[str] = Counter()
    silent: list[str] = []
    for seed in range(FILES):
        kind, data = damage(sound, random.Random(seed))
        path.write_bytes(data)
        try:
            info = read_model(path)
            [need] = memory_need(info, info.tensors, LoadOptions())  # which must make something of any header
            assert need.total > 0
        except InvalidModelFile as error:
            refused[error.reason] += 1
            told = bool(error.message) and 0 <= error.offset <= len(data)
            if not told:
                silent.append(f"{seed} {kind}: {error!r}")
    print(f"\n{FILES} damaged files, {refused.total()} refused: {dict(refused.most_common())}")
    assert silent == []
    assert refused.total() > FILES // 4


async def test_what_the_reader_lets_through_a_worker_loads_or_refuses_with_a_reason(
    engine_dir: Path, tmp_path: Path
) -> None:
    sound = parse(EMBEDDED_MODEL)
    outcomes: Counter[str] = Counter()
    silent: list[str] = []
    seeds = iter(range(FILES))

    async def go_on(number: int) -> None:
        path = tmp_path / f"damaged-{number}.gguf"
        for seed in seeds:
            kind, data = damage(sound, random.Random(seed))
            path.write_bytes(data)
            try:
                read_model(path)
            except InvalidModelFile:
                outcomes["refused by the reader"] += 1
                continue
            outcome, why = await _load(engine_dir, path)
            outcomes[outcome] += 1
            if not why:
                silent.append(f"{seed} {kind}: {outcome}")
            if outcome not in ("loaded", "refused by llama.cpp"):
                print(f"{seed} {kind}: {outcome}: {why[:200]}")

    async with anyio.create_task_group() as group:
        for number in range(AT_ONCE):
            group.start_soon(go_on, number)
    print(f"\n{outcomes.total()} damaged files: {dict(outcomes.most_common())}")
    assert outcomes.total() == FILES
    assert silent == []
    assert outcomes["loaded"] > FILES // 20  # damage that changes nothing that matters


async def _load(engine_dir: Path, path: Path) -> tuple[str, str]:
    """What became of a load, and of a few tokens after it; and the words for it."""
    with anyio.fail_after(PATIENCE):
        try:
            worker = await WorkerProcess.start(engine_dir, path, OPTIONS)
        except JanError as error:
            ended = error.data.get("signal") or error.data.get("exit_code")
            return f"ended by {ended} at load" if ended else "refused by llama.cpp", error.data.get("reason") or ""
        try:
            async for _ in worker.generate(GenerateParams(Prompt(tokens=[1, 2]), max_tokens=2)):
                pass
        except JanError as error:
            ended = error.data.get("signal") or error.data.get("exit_code")
            return f"ended by {ended} at a step" if ended else "refused at a step", error.message
        finally:
            worker.kill()
            await worker.exited
        return "loaded", "loaded"
