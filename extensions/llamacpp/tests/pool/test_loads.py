"""The pool of loaded models: loads that are shared, called off and awaited at the end. Real workers."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import anyio
import pytest
from jan_llamacpp.client import LoadOptions, WorkerProcess
from jan_llamacpp.failures import ModelLoadFailed
from jan_llamacpp.pool import ModelPool
from jan_llamacpp.worker.protocol import FromWorker, Hello

from jan_core import Progress

from .starter import Starter, answer

pytestmark = pytest.mark.anyio


async def test_a_model_is_loaded_once_and_used_again(pool: ModelPool, starter: Starter) -> None:
    for _ in range(3):
        async with pool.use("a") as worker:
            assert await answer(worker) == 3
    assert starter.starts == ["a"]
    assert pool.state("a") == ("loaded", "")
    assert pool.state("b") == ("available", "")


async def test_concurrent_requests_share_one_load_and_all_see_its_progress(pool: ModelPool, starter: Starter) -> None:
    seen: list[str] = []
    pids: list[int] = []
    starter.held = True

    async def request() -> None:
        async with pool.use("a", lambda text, done, total: seen.append(text)) as worker:
            pids.append(worker.pid)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(request)
        await starter.begun.wait()
        assert pool.state("a") == ("loading", "")
        starter.go_on.set()
    assert starter.starts == ["a"]
    assert len(set(pids)) == 1
    assert seen == ["loading a"] * 4


async def test_progress_that_one_request_cannot_take_ends_nobodys_load(pool: ModelPool, starter: Starter) -> None:
    seen: list[str] = []

    def broken(text: str, done: float | None, total: float | None) -> None:
        raise ValueError("a closed window")

    async with anyio.create_task_group() as group:
        group.start_soon(pool.load, "a", broken)
        group.start_soon(pool.load, "a", lambda text, done, total: seen.append(text))
    assert starter.starts == ["a"]
    assert pool.state("a") == ("loaded", "")
    assert seen == ["loading a"]


async def test_a_load_that_nobody_waits_for_any_more_is_cancelled(pool: ModelPool, starter: Starter) -> None:
    starter.held = True
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(pool.load, "a")
            await starter.begun.wait()
            scope.cancel()
    starter.go_on.set()
    assert pool.state("a") == ("available", "")
    async with pool.use("a") as worker:
        assert await answer(worker) == 3


@pytest.mark.parametrize("turns", range(6))
async def test_a_load_cancelled_at_its_first_sign_of_life_leaves_no_process(
    pool: ModelPool, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Whatever turn of the event loop the cancellation comes in."""
    made: list[WorkerProcess] = []
    scope = anyio.CancelScope()
    real = WorkerProcess._on_message

    def cancel_after(turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(cancel_after, turns - 1)
        else:
            scope.cancel()

    def on_message(worker: WorkerProcess, message: FromWorker) -> None:
        real(worker, message)
        if isinstance(message, Hello):
            made.append(worker)
            cancel_after(turns)

    monkeypatch.setattr(WorkerProcess, "_on_message", on_message)
    with scope:
        await pool.load("a")
    with anyio.fail_after(20):
        await made[0].exited
    assert pool.state("a") == ("available", "")


async def test_a_cancellation_that_the_start_did_not_see_leaves_no_process(engine_dir: Path, babble: Path) -> None:
    made: list[WorkerProcess] = []
    begun, started = anyio.Event(), anyio.Event()

    async def start(id: str, report: Progress) -> WorkerProcess:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        made.append(await WorkerProcess.start(engine_dir, babble, LoadOptions(n_ctx=512, n_seq=2, threads=1)))
        started.set()
        return made[0]

    pool = ModelPool(start, max_loaded=lambda: 2, queue_seconds=lambda: 0.3)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.load, "a")
        await begun.wait()
        group.cancel_scope.cancel()
    with anyio.fail_after(20):
        await started.wait()
        await made[0].exited
    assert pool.loaded() == {}


async def test_a_load_goes_on_while_one_request_still_waits(pool: ModelPool, starter: Starter) -> None:
    starter.held = True
    loaded: list[int] = []

    async def patient() -> None:
        async with pool.use("a") as worker:
            loaded.append(worker.pid)

    async with anyio.create_task_group() as group:
        group.start_soon(patient)
        await starter.begun.wait()
        with anyio.move_on_after(0.05):
            await pool.load("a")
        starter.go_on.set()
    assert len(loaded) == 1
    assert starter.starts == ["a"]


async def test_unloading_during_a_load_tells_those_who_wait(pool: ModelPool, starter: Starter) -> None:
    starter.held = True
    errors: list[ModelLoadFailed] = []

    async def request() -> None:
        with pytest.raises(ModelLoadFailed, match="unloaded while it was loading") as caught:
            await pool.load("a")
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        group.start_soon(request)
        await starter.begun.wait()
        assert await pool.unload("a")
    assert len(errors) == 1
    assert pool.state("a") == ("available", "")


async def test_closing_ends_loaded_and_loading_models(starter: Starter) -> None:
    pool = ModelPool(starter, max_loaded=lambda: 2, queue_seconds=lambda: 1)
    worker = await pool.load("a")
    starter.held, starter.begun = True, anyio.Event()
    refused = anyio.Event()

    async def request() -> None:
        with pytest.raises(ModelLoadFailed):
            await pool.load("b")
        refused.set()

    async with anyio.create_task_group() as group:
        group.start_soon(request)
        await starter.begun.wait()
        await pool.close()
    assert refused.is_set()
    assert not worker.alive
    assert pool.loaded() == {}
