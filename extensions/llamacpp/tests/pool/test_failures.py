"""The pool of loaded models: failed loads and deaths, and when it is tried again. Real workers."""

from __future__ import annotations

import os
import signal
import time

import anyio
import pytest
from jan_llamacpp import history as history_module
from jan_llamacpp.failures import ModelLoadFailed, WorkerDied
from jan_llamacpp.history import History
from jan_llamacpp.pool import ModelPool

from .starter import Starter, answer

pytestmark = pytest.mark.anyio


async def test_a_failed_load_is_remembered_and_explained(pool: ModelPool, starter: Starter) -> None:
    starter.error = ModelLoadFailed("no such architecture", reason="x", log="")
    for _ in range(3):
        with pytest.raises(ModelLoadFailed, match="no such architecture"):
            async with pool.use("a"):
                pass
    assert starter.starts == ["a"]
    assert pool.state("a") == ("failed", "no such architecture")


async def test_an_explicit_load_tries_again_at_once(pool: ModelPool, starter: Starter) -> None:
    starter.error = ModelLoadFailed("no memory", reason="x", log="")
    for _ in range(2):
        with pytest.raises(ModelLoadFailed):
            await pool.load("a")
    assert starter.starts == ["a", "a"]
    starter.error = None
    await pool.load("a")
    assert pool.state("a") == ("loaded", "")


async def test_after_a_pause_a_failed_model_is_tried_again(
    pool: ModelPool, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "FIRST_PAUSE", 0.0)
    starter.error = ModelLoadFailed("no memory", reason="x", log="")
    with pytest.raises(ModelLoadFailed):
        async with pool.use("a"):
            pass
    starter.error = None
    async with pool.use("a"):
        pass
    assert starter.starts == ["a", "a"]


async def test_a_dead_worker_is_replaced_at_once_and_then_after_a_pause(
    pool: ModelPool, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "FIRST_PAUSE", 0.2)
    seen: list[str] = []
    for death in range(3):
        with anyio.fail_after(120):
            async with pool.use("a", lambda text, done, total: seen.append(text)) as worker:
                assert await answer(worker) == 3
                os.kill(worker.pid, signal.SIGKILL)
                await worker.exited
                with pytest.raises(WorkerDied):
                    await answer(worker)
        assert pool.state("a")[0] == "available"
        assert any("waiting before the next start" in text for text in seen) == (death == 2)
    assert starter.starts == ["a", "a", "a"]


async def test_a_request_just_after_an_idle_worker_was_killed_is_answered_by_another(
    pool: ModelPool, starter: Starter
) -> None:
    first = await pool.load("a")
    with anyio.fail_after(120):
        os.kill(first.pid, signal.SIGKILL)
        assert first.alive  # nobody knows it yet
        async with pool.use("a") as worker:
            assert await answer(worker) == 3
    assert worker is not first
    assert starter.starts == ["a", "a"]
    assert pool._histories["a"].lives == 1  # it counts as a death


async def test_requests_that_find_a_worker_dead_together_share_the_next_one(pool: ModelPool, starter: Starter) -> None:
    first = await pool.load("a")
    found: list[int] = []

    async def request() -> None:
        async with pool.use("a") as worker:
            found.append(await answer(worker))

    with anyio.fail_after(120):
        os.kill(first.pid, signal.SIGKILL)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(request)
    assert found == [3, 3, 3]
    assert starter.starts == ["a", "a"]


async def test_a_request_that_finds_a_worker_dead_too_often_is_refused(
    pool: ModelPool, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "MOST_DEATHS", 1)
    first = await pool.load("a")
    with anyio.fail_after(120):
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match=r"a ended 1 times in 10 minutes .*tried again in"):
            async with pool.use("a"):
                pass
    assert starter.starts == ["a"]


async def test_a_request_that_a_worker_died_of_is_not_repeated(pool: ModelPool, starter: Starter) -> None:
    async def request() -> None:
        async with pool.use("a") as worker:
            os.kill(worker.pid, signal.SIGKILL)
            await answer(worker, 100)

    with anyio.fail_after(120), pytest.raises(WorkerDied, match="SIGKILL"):
        await request()
    assert starter.starts == ["a"]


async def test_the_pause_of_a_crashing_model_takes_no_place_and_a_load_by_hand_ends_it(starter: Starter) -> None:
    pool = ModelPool(starter, max_loaded=lambda: 1, queue_seconds=lambda: 30)
    history = pool._histories["a"] = History()
    history.lives, history.not_before = 9, time.monotonic() + 3600
    waiting, answered = anyio.Event(), anyio.Event()

    async def request() -> None:
        async with pool.use("a", lambda text, done, total: waiting.set()):
            answered.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(request)
            await waiting.wait()
            await pool.load("b")
            assert not answered.is_set()
            await pool.load("a")
    assert answered.is_set()
    await pool.close()


async def test_what_failed_for_a_cause_that_is_gone_is_tried_again(pool: ModelPool, starter: Starter) -> None:
    starter.error = ModelLoadFailed("no engine", reason="x", log="")
    with pytest.raises(ModelLoadFailed):
        await pool.load("a")
    starter.error = None
    pool.forget_all()
    async with pool.use("a") as worker:
        assert await answer(worker) == 3


async def test_a_model_that_dies_too_often_is_refused_at_once_until_it_is_loaded_by_hand(
    pool: ModelPool, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "FIRST_PAUSE", 0.001)
    with anyio.fail_after(120):
        for _ in range(history_module.MOST_DEATHS):
            async with pool.use("a") as worker:
                os.kill(worker.pid, signal.SIGSEGV)
                await worker.exited
        with pytest.raises(WorkerDied, match=r"a ended 5 times in 10 minutes .*SIGSEGV.*tried again in") as caught:
            async with pool.use("a"):
                pass
        assert 59 < caught.value.data["retry_after"] <= 60
        assert caught.value.data["cause"] == "crash"
        state, error = pool.state("a")
        assert state == "failed"
        assert "SIGSEGV" in error
        assert len(starter.starts) == history_module.MOST_DEATHS
        await pool.load("a")
    assert pool.state("a") == ("loaded", "")
