"""Hooks: three modes, each implementation in its own scope, order that does not depend on registration."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from jan_core import Event, dispatch, hookimpl, hookresults
from jan_core.hookresults import Promised
from jan_core.host import Host
from jan_core.testing import InlineSource
from jan_core.types import (
    Admission,
    AdoptedFile,
    DownloadFile,
    DownloadJob,
    InferenceRequest,
    ModelContext,
    ModelRecord,
)
from jan_core.types.chat import ChatMessage, ChatRequest

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

    def listener(name: str, **options: Any) -> Any:
        class Listens:
            @hookimpl(**options)
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


async def test_timings_are_kept_by_extension_and_hook(tmp_path: Path) -> None:
    async with hosting(tmp_path, a=Votes(Admission(True))) as host:
        before = time.perf_counter()
        await host.hooks.admit_download(JOB)
        took = time.perf_counter() - before
        timing = host.hooks.timings()["a"]["jan_admit_download"]
    assert (timing.calls, timing.failures) == (1, 0)
    assert 0 < timing.total <= took
