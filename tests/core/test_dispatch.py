"""Hooks: three modes, each implementation in its own scope, order that does not depend on registration."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import linecache
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from jan_core import Event, dispatch, hookimpl, hookresults, limit, threads
from jan_core.dispatch import Dispatcher
from jan_core.extension import Generation
from jan_core.hookresults import Promised
from jan_core.host import Host
from jan_core.testing import InlineSource
from jan_core.threads import ThreadFigures
from jan_core.types import (
    Admission,
    AdoptedFile,
    ChatMessage,
    ChatRequest,
    DownloadFile,
    DownloadJob,
    InferenceRequest,
    ModelContext,
    ModelRecord,
)

JOB = DownloadJob("1", DownloadFile("f"), "/tmp/f", 0)


def model(id: str) -> ModelRecord:
    return ModelRecord(id, id)


def question(text: str) -> InferenceRequest:
    return InferenceRequest(ChatRequest(messages=[ChatMessage("user", text)]))


class Votes:
    """Votes on downloads with whatever it is given; a callable is called."""

    def __init__(self, vote: Any) -> None:
        self.vote = vote

    @hookimpl
    async def jan_admit_download(self, job: DownloadJob) -> Any:
        return await self.vote() if callable(self.vote) else self.vote


def hurry(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.1) -> None:
    """Give all hooks but those of the life cycle a short deadline."""

    def promised(name: str) -> Promised:
        found = hookresults.promised(name)
        return found if found.spec.mode == "single" else found._replace(spec=replace(found.spec, deadline=seconds))

    monkeypatch.setattr(dispatch, "promised", promised)


@asynccontextmanager
async def hosting(folder: Path, **plugins: Any) -> AsyncIterator[Host]:
    async with Host(folder, sources=[InlineSource(id, plugin) for id, plugin in plugins.items()]) as host:
        await host.activate_startup()
        yield host


async def test_broadcast_runs_all_at_once_and_keeps_each_in_its_place(tmp_path: Path) -> None:
    arrived: list[str] = []
    both = anyio.Event()

    def meet(name: str) -> Any:
        async def vote() -> Admission:
            arrived.append(name)
            if len(arrived) == 2:
                both.set()
            await both.wait()
            return Admission(True, name)

        return vote

    with anyio.fail_after(5):
        async with hosting(tmp_path, a=Votes(meet("a")), b=Votes(meet("b")), c=Votes(None)) as host:
            outcome = await host.hooks.admit_download(JOB)
    assert [v.reason for v in outcome.values] == ["a", "b"]
    assert [(o.extension, o.generation, o.failure) for o in outcome.outcomes] == [
        ("a", 1, None),
        ("b", 1, None),
        ("c", 1, None),
    ]


async def test_a_raise_a_hang_and_a_wrong_type_cost_only_their_own_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)

    async def raises() -> Any:
        raise RuntimeError("no")

    async with hosting(
        tmp_path, bad=Votes(raises), good=Votes(Admission(True)), odd=Votes("yes"), stuck=Votes(anyio.sleep_forever)
    ) as host:
        with anyio.fail_after(20):
            outcomes = (await host.hooks.admit_download(JOB)).outcomes
    by_name = {o.extension: o for o in outcomes}
    assert by_name["good"].value == Admission(True)
    assert by_name["bad"].failure is not None
    assert by_name["bad"].failure.file.endswith("test_dispatch.py")
    assert {name: o.failure.type for name, o in by_name.items() if o.failure} == {
        "bad": "RuntimeError",
        "odd": "TypeError",
        "stuck": "TimeoutError",
    }


async def test_plain_implementations_run_in_a_thread_and_may_block(tmp_path: Path) -> None:
    seen: list[int] = []

    class Blocks:
        @hookimpl
        def jan_adopt_file(self, sha256: str) -> AdoptedFile:
            seen.append(threading.get_ident())
            return AdoptedFile("/x", sha256)

    async with hosting(tmp_path, a=Blocks()) as host:
        found = await host.hooks.adopt_file("ab", 1)
    assert found is not None
    assert found.value == AdoptedFile("/x", "ab")
    assert seen != [threading.get_ident()]


async def test_first_takes_the_first_answer_that_is_not_none_after_awaiting(tmp_path: Path) -> None:
    asked: list[str] = []

    def adopter(name: str, answer: AdoptedFile | None) -> Any:
        class Adopts:
            @hookimpl
            async def jan_adopt_file(self, sha256: str, size: int) -> AdoptedFile | None:
                asked.append(name)
                await anyio.lowlevel.checkpoint()
                return answer

        return Adopts()

    async with hosting(
        tmp_path, a=adopter("a", None), b=adopter("b", AdoptedFile("/b", "b")), c=adopter("c", AdoptedFile("/c", "c"))
    ) as host:
        found = await host.hooks.adopt_file("00", 0)
        assert found is not None
        assert (found.extension, found.value) == ("b", AdoptedFile("/b", "b"))
    assert asked == ["a", "b"]


async def test_a_pipeline_threads_a_value_past_failures_and_none(tmp_path: Path) -> None:
    def ranker(change: Any) -> Any:
        class Ranks:
            @hookimpl
            async def jan_rank_models(self, models: list[ModelRecord], context: ModelContext) -> Any:
                return change(models)

        return Ranks()

    def fails(models: Any) -> Any:
        raise RuntimeError("no")

    async with hosting(
        tmp_path,
        a=ranker(lambda models: [*models, model("a")]),
        b=ranker(fails),
        c=ranker(lambda models: None),
        d=ranker(lambda models: [*models, model("d")]),
    ) as host:
        ranked = await host.hooks.rank_models([model("z")], ModelContext())
    assert [m.id for m in ranked] == ["z", "a", "d"]


async def test_the_first_refusal_ends_the_pipeline_before_inference(tmp_path: Path) -> None:
    seen: list[str] = []

    def guard(name: str, refuse: str) -> Any:
        class Guards:
            @hookimpl
            async def jan_before_inference(self, request: InferenceRequest) -> InferenceRequest:
                seen.append(name)
                request.refused = refuse
                return request

        return Guards()

    async with hosting(tmp_path, a=guard("a", ""), b=guard("b", "not today"), c=guard("c", "")) as host:
        assert (await host.hooks.before_inference(question("hi"))).refused == "not today"
    assert seen == ["a", "b"]


async def test_order_is_tryfirst_then_ids_then_trylast(tmp_path: Path) -> None:
    order: list[str] = []

    def listener(name: str, *, tryfirst: bool = False, trylast: bool = False) -> Any:
        class Listens:
            @hookimpl(tryfirst=tryfirst, trylast=trylast)
            async def jan_rank_models(self, models: list[ModelRecord]) -> None:
                order.append(name)

        return Listens()

    async with hosting(
        tmp_path, a=listener("a", trylast=True), b=listener("b"), c=listener("c"), d=listener("d", tryfirst=True)
    ) as host:
        await host.hooks.rank_models([], ModelContext())
        # Out and in again: the place is the extension's, not the registration's.
        generation = host.lifecycle.extensions["b"].current
        host.dispatcher.swap(generation, None)
        host.dispatcher.swap(None, generation)
        await host.hooks.rank_models([], ModelContext())
    assert order == ["d", "b", "c", "a"] * 2


async def test_events_reach_listening_extensions_in_order(tmp_path: Path) -> None:
    heard: list[Any] = []
    done = anyio.Event()

    class Listens:
        @hookimpl
        async def jan_event(self, event: Event) -> None:
            if event.name == "n":
                heard.append(event.data)
                if event.data == 49:
                    done.set()

    async with hosting(tmp_path, a=Listens()) as host:
        for n in range(50):
            host.bus.emit(Event("n", n))
        with anyio.fail_after(5):
            await done.wait()
    assert heard == list(range(50))


# -- each in its own scope ---------------------------------------------------------------------------------------------


def dispatching(**plugins: object) -> Dispatcher:
    """A dispatcher by itself: nothing is quarantined."""
    dispatcher = Dispatcher()
    for id, plugin in plugins.items():
        dispatcher.swap(None, Generation(id, 1, plugin))
    return dispatcher


async def vote(dispatcher: Dispatcher) -> dict[str, Any]:
    """What each extension said, or the type of its failure."""
    with anyio.fail_after(10):
        outcomes = (await dispatcher.broadcast("jan_admit_download", job=JOB)).outcomes
    return {o.extension: o.failure.type if o.failure else o.value for o in outcomes}


YES = Admission(True)


def raising(error: BaseException) -> Any:
    async def raises() -> Any:
        raise error

    return Votes(raises)


@pytest.mark.parametrize("others", [{}, {"good": Votes(YES)}], ids=["alone", "among others"])
async def test_nothing_of_an_implementation_reaches_beyond_it(others: dict[str, Any]) -> None:
    async def cancels_itself() -> Any:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    for plugin in (raising(SystemExit(3)), raising(asyncio.CancelledError()), Votes(cancels_itself)):
        assert await vote(dispatching(bad=plugin, **others)) == {"bad": "Escaped", **dict.fromkeys(others, YES)}


async def test_a_cancelled_caller_cancels_all_implementations_and_waits_for_them() -> None:
    began, left = anyio.Event(), []

    async def waits() -> Any:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            await asyncio.sleep(0)
            left.append(1)

    dispatcher = dispatching(a=Votes(waits), b=Votes(waits), c=Votes(waits))
    with anyio.fail_after(5):
        calling = asyncio.create_task(dispatcher.broadcast("jan_admit_download", job=JOB))
        await began.wait()
        assert dispatcher.timings()["a"]["jan_admit_download"].in_flight == 1
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
    assert len(left) == 3
    figures = dispatcher.timings()["a"]["jan_admit_download"]
    assert (figures.calls, figures.in_flight) == (0, 0)


async def test_an_anyio_scope_around_a_hook_cancels_it_as_well() -> None:
    dispatcher = dispatching(a=Votes(anyio.sleep_forever), b=Votes(anyio.sleep_forever))
    with anyio.fail_after(5):
        with anyio.move_on_after(0.05) as scope:
            await dispatcher.broadcast("jan_admit_download", job=JOB)
        assert scope.cancelled_caught
        await anyio.lowlevel.checkpoint()


async def test_one_that_swallows_its_cancellation_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(limit, "GRACE", 0.05)
    release = anyio.Event()

    async def swallows() -> Any:
        while not release.is_set():
            try:
                await release.wait()
            except BaseException:
                continue

    dispatcher = dispatching(bad=Votes(swallows), good=Votes(YES))
    assert await vote(dispatcher) == {"bad": "TimeoutError", "good": YES}
    figures = dispatcher.timings()["bad"]["jan_admit_download"]
    assert (figures.calls, figures.timeouts, figures.in_flight) == (1, 1, 1)
    release.set()
    with anyio.fail_after(5):
        while figures.in_flight:
            await anyio.lowlevel.checkpoint()
            figures = dispatcher.timings()["bad"]["jan_admit_download"]
    assert figures.calls == 1


async def test_a_revoked_call_is_a_failed_outcome(tmp_path: Path) -> None:
    began = anyio.Event()

    async def waits() -> Any:
        began.set()
        await anyio.sleep_forever()

    generation = Generation("a", 1, Votes(waits))
    dispatcher = Dispatcher()
    dispatcher.swap(None, generation)
    calling = asyncio.create_task(vote(dispatcher))
    await began.wait()
    for lease in tuple(generation.leases):
        lease.revoke()
    assert await calling == {"a": "ExtensionReloaded"}
    assert calling.cancelling() == 0
    assert not generation.leases


async def test_a_deadline_passed_in_the_cleanup_of_a_cancelled_caller_costs_the_cleanup_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry(monkeypatch)
    dispatcher = dispatching(a=Votes(anyio.sleep_forever))
    seen: list[Any] = []

    async def caller() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            seen.append(await vote(dispatcher))
            await asyncio.sleep(0)
            seen.append("cleaned up")

    calling = asyncio.create_task(caller())
    await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert seen == [{"a": "TimeoutError"}, "cleaned up"]


async def test_an_implementation_may_take_its_arguments_by_position_only_and_under_another_name() -> None:
    class Plugin:
        @hookimpl(specname="jan_rank_models")
        async def mine(self, models: list[ModelRecord], /, context: ModelContext, own: int = 7) -> Any:
            return [*models, model(f"{type(context).__name__} {own}")]

    dispatcher = dispatching(a=Plugin())
    ranked = await dispatcher.pipeline("jan_rank_models", "models", [model("m")], context=ModelContext())
    assert [m.id for m in ranked] == ["m", "ModelContext 7"]
    generation = Generation("b", 1, Plugin())
    found = await dispatcher.single(generation, "jan_rank_models", models=[], context=ModelContext())
    assert found is not None
    assert found.value == [model("ModelContext 7")]


async def test_a_decorated_implementation_is_what_it_decorates() -> None:
    def decorated(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            return function(*arguments, **named)

        return wrapper

    class Plugin:
        @hookimpl
        @decorated
        async def jan_admit_download(self, job: DownloadJob) -> Admission:
            await asyncio.sleep(0)
            return Admission(True, job.id)

    assert await vote(dispatching(a=Plugin())) == {"a": Admission(True, JOB.id)}


async def test_what_was_about_to_escape_is_recorded_with_its_line() -> None:
    (outcome,) = (await dispatching(a=raising(SystemExit(3))).broadcast("jan_admit_download", job=JOB)).outcomes
    assert outcome.failure is not None
    assert outcome.failure.message == "jan_admit_download of a called sys.exit(3)"
    assert Path(outcome.failure.file) == Path(__file__)
    assert linecache.getline(__file__, outcome.failure.line).strip() == "raise error"


# -- threads -----------------------------------------------------------------------------------------------------------


class Plain:
    """Votes in a thread, by calling what it is given."""

    def __init__(self, function: Any) -> None:
        self.function = function

    @hookimpl
    def jan_admit_download(self, job: DownloadJob) -> Any:
        return self.function()


async def test_a_plugin_whose_threads_hang_takes_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 0.5)
    release = threading.Event()
    dispatcher = dispatching(bad=Plain(release.wait), good=Plain(lambda: YES))

    def stuck() -> int:
        return sum(thread.name == "hooks of bad@g1" for thread in threading.enumerate())

    try:
        said = await asyncio.gather(*(vote(dispatcher) for _ in range(threads.LIMIT)))
        assert said == [{"bad": "TimeoutError", "good": YES}] * threads.LIMIT
        assert stuck() == threads.LIMIT
        for _ in range(3):
            began = time.perf_counter()
            assert await vote(dispatcher) == {"bad": "ThreadsStuck", "good": YES}
            assert time.perf_counter() - began < 0.5
        assert stuck() == threads.LIMIT
        assert dispatcher.threads() == {"bad": ThreadFigures(threads.LIMIT, threads.LIMIT, threads.LIMIT)}
    finally:
        release.set()
    with anyio.fail_after(5):
        while dispatcher.threads():  # noqa: ASYNC110 (the threads tell nobody but the dispatcher)
            await anyio.sleep(0.001)
    dispatcher.swap(None, Generation("later", 1, Plain(lambda: YES)))
    assert (await vote(dispatcher))["later"] == YES


async def test_calls_wait_for_a_thread_when_all_are_at_work() -> None:
    lock = threading.Lock()
    most = inside = 0

    def works() -> Admission:
        nonlocal most, inside
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.005)
        with lock:
            inside -= 1
        return YES

    dispatcher = dispatching(a=Plain(works))
    answers = await asyncio.gather(*(vote(dispatcher) for _ in range(4 * threads.LIMIT)))
    assert answers == [{"a": YES}] * (4 * threads.LIMIT)
    assert most == threads.LIMIT
    assert dispatcher.threads() == {}


async def test_threads_are_daemons_with_a_name_and_end_when_they_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE", 0.01)
    seen: list[threading.Thread] = []

    def looks() -> None:
        seen.append(threading.current_thread())

    dispatcher = dispatching(a=Plain(looks))
    await vote(dispatcher)
    (thread,) = seen
    assert (thread.name, thread.daemon) == ("hooks of a@g1", True)
    with anyio.fail_after(5):
        while thread.is_alive():  # noqa: ASYNC110 (a thread's end is no event of the loop)
            await anyio.sleep(0.001)
    assert await vote(dispatcher) == {"a": None}


async def test_a_thread_sees_the_callers_context_and_what_it_raises_is_its_own() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("the caller's")

    def stops() -> Any:
        raise StopIteration

    def exits() -> Any:
        sys.exit(2)

    async def nothing() -> None:
        pass

    said = await vote(
        dispatching(a=Plain(lambda: Admission(True, variable.get())), b=Plain(stops), c=Plain(exits), d=Plain(nothing))
    )
    assert said == {"a": Admission(True, "the caller's"), "b": "RuntimeError", "c": "Escaped", "d": "TypeError"}


async def test_an_idle_thread_keeps_nothing_of_its_last_call_alive() -> None:
    plugin = Plain(lambda: YES)
    gone = weakref.ref(plugin)
    generation = Generation("a", 1, plugin)
    dispatcher = Dispatcher()
    dispatcher.swap(None, generation)
    assert await vote(dispatcher) == {"a": YES}
    dispatcher.swap(generation, None)
    del plugin, generation
    gc.collect()
    assert gone() is None
    assert dispatcher.timings()["a"]["jan_admit_download"].calls == 1


# -- figures -----------------------------------------------------------------------------------------------------------


async def test_timings_are_kept_by_extension_and_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    said: list[Any] = [YES, RuntimeError(), None]

    async def next_one() -> Any:
        one = said.pop(0)
        if isinstance(one, Exception):
            raise one
        if one is None:
            await anyio.sleep_forever()
        return one

    async with hosting(tmp_path, a=Votes(next_one)) as host:
        before = time.perf_counter()
        for _ in range(3):
            await host.hooks.admit_download(JOB)
        took = time.perf_counter() - before
        timing = host.hooks.timings()["a"]["jan_admit_download"]
    assert (timing.generation, timing.calls, timing.failures, timing.timeouts, timing.in_flight) == (1, 3, 2, 1, 0)
    assert 0 < timing.p50 < timing.p95 <= timing.longest <= timing.total <= took
    assert timing.longest >= 0.1


async def test_the_hooks_of_a_life_cycle_are_timed_too(tmp_path: Path) -> None:
    class Starts:
        @hookimpl
        async def jan_activate(self, ctx: Any) -> None:
            await asyncio.sleep(0)

    async with hosting(tmp_path, a=Starts()) as host:
        assert host.hooks.timings()["a"]["jan_activate"].calls == 1
    assert list(host.hooks.timings()["a"]) == ["jan_activate"]


async def test_a_newer_generation_is_called_at_once_and_its_figures_begin_anew() -> None:
    dispatcher = dispatching(a=Votes(YES))
    await vote(dispatcher)
    old = dispatcher._live["a@g1"].generation
    new = Generation("a", 2, Votes(Admission(False, "new")))
    dispatcher.swap(old, new)
    assert await vote(dispatcher) == {"a": Admission(False, "new")}
    figures = dispatcher.timings()["a"]["jan_admit_download"]
    assert (figures.generation, figures.calls) == (2, 1)
