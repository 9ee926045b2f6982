"""The pool of loaded models: who makes room for whom, and who never does. Real workers."""

from __future__ import annotations

import anyio
import pytest
from jan_llamacpp.errors import ModelBusy
from jan_llamacpp.failures import WorkerDied
from jan_llamacpp.pool import ModelPool

from jan_core import Overloaded

from .starter import Starter, answer

pytestmark = pytest.mark.anyio


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


async def test_a_busy_model_is_unloaded_only_by_force(pool: ModelPool) -> None:
    async with pool.use("a") as worker:
        with pytest.raises(ModelBusy):
            await pool.unload("a")
        assert await pool.unload("a", force=True)
        with pytest.raises(WorkerDied):
            await answer(worker)
    assert not await pool.unload("a")


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
