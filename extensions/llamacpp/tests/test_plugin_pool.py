"""The pool of loaded models: shared loads, room for the least recently used, failures and deaths. Real workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from jan_llamacpp import history as history_module
from jan_llamacpp.client import GenerateParams, LoadOptions, Prompt, Sampling, WorkerProcess
from jan_llamacpp.errors import ModelBusy
from jan_llamacpp.failures import ModelLoadFailed, WorkerDied
from jan_llamacpp.history import History
from jan_llamacpp.pool import ModelPool
from jan_llamacpp.worker.protocol import FromWorker, Hello

from jan_core import Overloaded, Progress

pytestmark = pytest.mark.anyio


class Starter:
    """Starts real workers, all for the same file; can be held back, and made to fail."""

    def __init__(self, engine: Path, model: Path) -> None:
        self.engine, self.model = engine, model
        self.starts: list[str] = []
        self.error: ModelLoadFailed | None = None
        self.held = False
        self.begun, self.go_on = anyio.Event(), anyio.Event()

    async def __call__(self, id: str, report: Progress) -> WorkerProcess:
        self.starts.append(id)
        report(f"loading {id}", 0.0, 1.0)
        self.begun.set()
        if self.held:
            await self.go_on.wait()
        if self.error:
            raise self.error
        return await WorkerProcess.start(self.engine, self.model, LoadOptions(n_ctx=512, n_seq=2, threads=1))


@pytest.fixture
def starter(engine_dir: Path, babble: Path) -> Starter:
    return Starter(engine_dir, babble)


@pytest.fixture
async def pool(starter: Starter) -> AsyncIterator[ModelPool]:
    pool = ModelPool(starter, max_loaded=lambda: 2, queue_seconds=lambda: 0.3)
    yield pool
    await pool.close()


async def answer(worker: WorkerProcess, max_tokens: int = 3) -> int:
    prompt = GenerateParams(Prompt(text="abc"), Sampling(temperature=0), max_tokens=max_tokens, ignore_eos=True)
    return sum([piece.tokens async for piece in worker.generate(prompt)])


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


async def test_the_least_recently_used_model_makes_room(pool: ModelPool, starter: Starter) -> None:
    for id in ("a", "b", "a", "c"):
        async with pool.use(id):
            pass
    assert starter.starts == ["a", "b", "c"]
    assert list(pool.loaded()) == ["a", "c"]


async def test_a_model_in_use_is_never_taken_for_another(pool: ModelPool, starter: Starter) -> None:
    async with pool.use("a"), pool.use("b"):
        with pytest.raises(Overloaded, match="a, b did not become free"):
            async with pool.use("c"):
                pass
    assert set(pool.loaded()) == {"a", "b"}


async def test_a_waiting_request_gets_the_room_that_comes_up(starter: Starter) -> None:
    pool = ModelPool(starter, max_loaded=lambda: 1, queue_seconds=lambda: 30)
    waiting = anyio.Event()
    order: list[str] = []

    async def second() -> None:
        async with pool.use("b", lambda text, done, total: waiting.set()):
            order.append("b")

    async with anyio.create_task_group() as group:
        async with pool.use("a"):
            group.start_soon(second)
            await waiting.wait()
            order.append("a")
    assert order == ["a", "b"]
    await pool.close()


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


async def test_a_busy_model_is_unloaded_only_by_force(pool: ModelPool) -> None:
    async with pool.use("a") as worker:
        with pytest.raises(ModelBusy):
            await pool.unload("a")
        assert await pool.unload("a", force=True)
        with pytest.raises(WorkerDied):
            await answer(worker)
    assert not await pool.unload("a")


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


async def test_many_requests_for_more_models_than_fit_are_all_answered(starter: Starter) -> None:
    pool = ModelPool(starter, max_loaded=lambda: 2, queue_seconds=lambda: 60)
    done: list[str] = []

    async def request(id: str) -> None:
        async with pool.use(id) as worker:
            assert len(pool.loaded()) <= 2
            assert await answer(worker) == 3
        done.append(id)

    with anyio.fail_after(300):
        async with anyio.create_task_group() as group:
            for id in "abcab" * 3:
                group.start_soon(request, id)
    assert sorted(done) == sorted("abcab" * 3)
    await pool.close()


async def test_models_with_steady_traffic_take_turns_when_there_is_not_room_for_all(starter: Starter) -> None:
    """Two models are never idle; a third gets its turn all the same, and gives it up again."""
    pool = ModelPool(starter, max_loaded=lambda: 2, queue_seconds=lambda: 60, turn_seconds=0.2)
    stop = anyio.Event()
    answers = dict.fromkeys("abc", 0)
    loads_of_c = anyio.Event()

    async def ask(id: str) -> None:
        while not stop.is_set():
            async with pool.use(id) as worker:
                answers[id] += await answer(worker)
            if starter.starts.count("c") >= 2:
                loads_of_c.set()

    with anyio.fail_after(120):
        async with anyio.create_task_group() as group:
            for id in "aaabbbccc":
                group.start_soon(ask, id)
            await loads_of_c.wait()
            stop.set()
    assert all(starter.starts.count(id) >= 2 for id in "ab")
    assert min(answers.values()) >= 3
    await pool.close()


async def test_models_get_room_in_the_order_they_were_asked_for(starter: Starter) -> None:
    pool = ModelPool(starter, max_loaded=lambda: 1, queue_seconds=lambda: 60)
    order: list[str] = []

    async def request(id: str, waiting: anyio.Event) -> None:
        async with pool.use(id, lambda text, done, total: waiting.set()):
            order.append(id)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            async with pool.use("a"):
                for id in "bcbd":
                    waiting = anyio.Event()
                    group.start_soon(request, id, waiting)
                    await waiting.wait()
    assert order == ["b", "b", "c", "d"]
    await pool.close()


async def test_a_model_that_was_to_make_room_stays_when_nobody_wants_it_any_more(starter: Starter) -> None:
    pool = ModelPool(starter, max_loaded=lambda: 1, queue_seconds=lambda: 60, turn_seconds=0.05)
    refused = anyio.Event()

    async def late() -> None:
        async with pool.use("a", lambda text, done, total: refused.set()) as worker:
            assert await answer(worker) == 3

    async with pool.use("a"), anyio.create_task_group() as group:
        with anyio.move_on_after(0.2):
            async with pool.use("b"):
                pass
        with anyio.fail_after(20):  # nobody waits for its room now
            await late()
        assert not refused.is_set()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as impatient:
                impatient.start_soon(wait_for, pool, "b")
                while not pool._slots["a"].draining:
                    await anyio.lowlevel.checkpoint()
                group.start_soon(late)
                await refused.wait()  # it stands behind b
                scope.cancel()
    assert starter.starts == ["a"]
    await pool.close()


async def wait_for(pool: ModelPool, id: str) -> None:
    async with pool.use(id):
        pass


async def test_a_pinned_model_is_never_given_up_for_another(starter: Starter) -> None:
    pool = ModelPool(starter, max_loaded=lambda: 2, queue_seconds=lambda: 60, pinned=lambda id: id == "b")
    await pool.load("a", pin=True)
    assert pool.is_pinned("a")
    await pool.load("c")
    await pool.load("b")
    assert starter.starts == ["a", "c", "b"]
    assert set(pool.loaded()) == {"a", "b"}
    with pytest.raises(Overloaded, match="all models that are loaded are pinned: a, b"):
        await pool.load("c")
    await pool.unload("a")
    assert not pool.is_pinned("a")
    await pool.load("c")
    await pool.close()


async def test_a_model_nobody_uses_is_unloaded_after_a_while_but_no_pinned_or_busy_one(starter: Starter) -> None:
    seconds = [0.0]
    ended = {id: anyio.Event() for id in "abc"}
    idling = ModelPool(
        starter,
        max_loaded=lambda: 3,
        queue_seconds=lambda: 60,
        idle_seconds=lambda: seconds[0],
        pinned=lambda id: id == "b",
        on_change=lambda id: ended[id].set() if idling.state(id)[0] == "available" else None,
    )
    await idling.load("a")
    await idling.load("b")
    async with idling.use("c"):
        seconds[0] = 0.05
        idling.reconsider()  # counted from the last use, also when the setting came later
        with anyio.fail_after(20):
            await ended["a"].wait()
        with anyio.move_on_after(0.2):
            await ended["c"].wait()
        assert set(idling.loaded()) == {"b", "c"}
    with anyio.fail_after(20):
        await ended["c"].wait()
    assert set(idling.loaded()) == {"b"}
    await idling.close()


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
