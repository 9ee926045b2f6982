"""Switching, reloading, removing and ending an extension, each in the middle of another; and code that does not end."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from jan_core import RpcError
from jan_core.extension import State
from jan_core.host import Host
from jan_core.loader import folder_source
from jan_core.types import ModelContext

from .project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, activation="on-method")


@pytest.fixture(autouse=True)
def nothing_is_lost() -> Iterator[None]:
    """No failure of a task goes unseen, and no task is left."""
    lost: list[Any] = []
    before = asyncio.BaseEventLoop.call_exception_handler

    def call_exception_handler(self: Any, context: Any) -> None:
        lost.append(context)

    asyncio.BaseEventLoop.call_exception_handler = call_exception_handler  # type: ignore[method-assign]
    try:
        yield
        gc.collect()
    finally:
        asyncio.BaseEventLoop.call_exception_handler = before  # type: ignore[method-assign]
    assert lost == []


def slow(project: Project, seconds: float = 0.2) -> None:
    project.plugin(**{"self.ctx = ctx": f"self.ctx = ctx\n        import time; time.sleep({seconds})"})


def left(id: str = "sample") -> list[str]:
    return [name for name in list(sys.modules) if name.startswith(f"jan_{id}@")]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def outcome(call: Any) -> Any:
    try:
        return await call
    except RpcError as error:
        return error.type


async def test_what_is_disabled_before_its_activation_begins_stays_off(project: Project, open_host: Any) -> None:
    async with open_host(sources=[folder_source(project.folder)]) as host:
        extension = host.lifecycle.find("sample")
        async with asyncio.TaskGroup() as group:
            called = group.create_task(outcome(host.client().call("sample.word")))
            group.create_task(host.lifecycle.disable(extension))
        assert extension.state is State.DISABLED
        assert called.result() == "method_not_found"
        assert "sample.word" not in host.table


async def test_what_is_removed_before_its_activation_begins_does_not_serve(project: Project, open_host: Any) -> None:
    async with open_host(sources=[folder_source(project.folder)]) as host:
        async with asyncio.TaskGroup() as group:
            group.create_task(outcome(host.client().call("sample.word")))
            group.create_task(host.lifecycle.remove("sample"))
        assert "sample" not in host.lifecycle.extensions
        assert "sample.word" not in host.table


HOLD = (
    '@method("sample.hold")\nasync def hold(self, params: Empty) -> str:\n    "Hold."\n'
    "    import anyio\n    self.ctx.emit('held')\n    await anyio.sleep(3600)\n    return 'done'"
)


async def held(host: Host, group: asyncio.TaskGroup) -> asyncio.Task[Any]:
    """A call that stays inside the extension."""
    inside = asyncio.Event()
    with host.bus.subscribe(lambda event: inside.set() if event.name == "held" else None):
        task = group.create_task(outcome(host.client().call("sample.hold")))
        await asyncio.wait_for(inside.wait(), 5)
    return task


async def test_what_is_enabled_while_it_drains_serves_again(
    project: Project, open_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jan_core.lifecycle.SETTLE", 0.01)
    project.plugin(HOLD)
    async with open_host(sources=[folder_source(project.folder)]) as host, asyncio.TaskGroup() as group:
        client = host.client()
        first = await held(host, group)
        assert (await client.call("extensions.disable", {"id": "sample"}))["state"] == "draining"
        assert (await client.call("extensions.enable", {"id": "sample"}))["state"] == "active"
        assert await client.call("sample.word") == "v1"
        second = await held(host, group)
        # Off and on again: of the calls inside, those of one older generation go on, no more.
        assert (await client.call("extensions.disable", {"id": "sample"}))["state"] == "draining"
        assert (await client.call("extensions.enable", {"id": "sample"}))["state"] == "active"
        assert await asyncio.wait_for(first, 5) == "extension_reloaded"
        assert not second.done()
        assert host.lifecycle.find("sample").state is State.ACTIVE
        second.cancel()


async def test_a_quarantined_extension_is_reloaded_while_it_still_drains(project: Project, open_host: Any) -> None:
    project.plugin(HOLD)
    async with open_host(sources=[folder_source(project.folder)]) as host, asyncio.TaskGroup() as group:
        inside = await held(host, group)
        extension = host.lifecycle.find("sample")
        host.lifecycle.generations.take_out(extension, State.QUARANTINED)
        project.say("v2")
        done = await host.client().call("extensions.reload", {"id": "sample"})
        assert (done["generation"], done["changed"]) == (2, True)
        assert await host.client().call("sample.word") == "v2"
        inside.cancel()


async def test_reloading_a_disabled_extension_says_that_it_is_disabled(project: Project, open_host: Any) -> None:
    async with open_host(sources=[folder_source(project.folder)], disabled=["sample"]) as host:
        with pytest.raises(RpcError, match="is disabled; enable it first") as caught:
            await host.client().call("extensions.reload", {"id": "sample"})
        assert caught.value.type == "extension_unavailable"


async def test_an_edit_during_the_first_activation_is_served_by_the_reload_that_follows(
    project: Project, open_host: Any
) -> None:
    slow(project)
    async with open_host(sources=[folder_source(project.folder)]) as host, asyncio.TaskGroup() as group:
        staged = host.lifecycle.find("sample")
        group.create_task(outcome(host.client().call("sample.word")))
        await until(lambda: bool(left()))
        project.say("v2")
        assert staged.state is State.STAGED
        assert (await host.client().call("extensions.reload", {"id": "sample"}))["generation"] == 2
        assert await host.client().call("sample.word") == "v2"


async def test_one_that_must_be_forced_is_when_it_joins_another_that_waits(project: Project, open_host: Any) -> None:
    slow(project)
    async with open_host(sources=[folder_source(project.folder)]) as host:
        client = host.client()
        await client.call("sample.word")
        project.say("v2")
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.call("extensions.reload", {"id": "sample"}))
            await anyio.wait_all_tasks_blocked()
            group.create_task(client.call("extensions.reload", {"id": "sample"}))
            forced = group.create_task(client.call("extensions.reload", {"id": "sample", "force": True}))
        assert (first.result()["generation"], forced.result()["generation"]) == (2, 3)


async def test_a_host_that_ends_in_the_middle_of_a_change_answers_and_leaves_nothing(
    project: Project, tmp_path: Path
) -> None:
    slow(project, 0.05)
    tasks = asyncio.all_tasks()
    seen: set[Any] = set()
    for turns in range(1, 60, 3):
        project.say("v1")
        async with asyncio.TaskGroup() as group:
            async with Host(tmp_path / "data", sources=[folder_source(project.folder)]) as host:
                client = host.client()
                await client.call("sample.word")
                project.say("v2")
                asked = [
                    group.create_task(outcome(client.call(f"extensions.{what}", {"id": "sample"})))
                    for what in ("reload", "reload", "rollback", "disable", "enable", "reload")
                ]
                for _ in range(turns):
                    await asyncio.sleep(0.0005)
        answers = [task.result() for task in asked]
        seen |= {answer for answer in answers if isinstance(answer, str)}
        await until(lambda: not left())  # a thread that was importing has still to end
        assert not [finder for finder in sys.meta_path if "jan_sample" in getattr(finder, "name", "")]
    assert seen <= {"shutting_down", "reload_failed", "extension_unavailable", "method_not_found"}
    assert asyncio.all_tasks() == tasks


async def test_a_reload_that_is_asked_for_when_the_host_has_ended_is_refused(project: Project, tmp_path: Path) -> None:
    async with Host(tmp_path / "data", sources=[folder_source(project.folder)]) as host:
        await host.client().call("sample.word")
    for what in ("reload", "rollback", "enable"):
        assert await outcome(host.client().call(f"extensions.{what}", {"id": "sample"})) != "internal_error"
    assert left() == []


async def test_a_rollback_whose_caller_leaves_goes_on(project: Project, open_host: Any) -> None:
    slow(project)
    async with open_host(sources=[folder_source(project.folder)]) as host:
        client = host.client()
        await client.call("sample.word")
        project.say("v2")
        await client.call("extensions.reload", {"id": "sample"})
        asked = asyncio.create_task(client.call("extensions.rollback", {"id": "sample"}))
        await asyncio.sleep(0.05)
        asked.cancel()
        async with host.lifecycle.find("sample").changing:
            pass
        assert await client.call("sample.word") == "v1"
        assert left()
        assert {name.partition(".")[0] for name in left()} <= {"jan_sample@g2", "jan_sample@g3"}


async def test_a_rollback_takes_the_manifest_back_as_well(project: Project, open_host: Any) -> None:
    async with open_host(sources=[folder_source(project.folder)]) as host:
        client = host.client()
        await client.call("sample.word")
        project.say("v2")
        project.write_manifest(**{'version = "1.0"': 'version = "2.0"'})
        await client.call("extensions.reload", {"id": "sample"})
        (project.folder / "pyproject.toml").write_text("nonsense")
        assert (await client.call("extensions.rollback", {"id": "sample"}))["generation"] == 3
        assert await client.call("sample.word") == "v1"
        assert host.lifecycle.find("sample").version == "1.0"


async def test_an_import_that_ends_after_its_limit_leaves_nothing(
    project: Project, open_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jan_core.reload.STAGE_LIMIT", 0.1)
    async with open_host(sources=[folder_source(project.folder)]) as host:
        await host.client().call("sample.word")
        project.write("words.py", "import time\ntime.sleep(0.3)\nWORD = 'late'\n")
        assert await outcome(host.client().call("extensions.reload", {"id": "sample"})) == "reload_failed"
        await until(lambda: not [name for name in left() if "@g2" in name])
        assert await host.client().call("sample.word") == "v1"


async def test_a_hook_whose_turn_comes_after_a_reload_is_asked_in_the_new_code(tmp_path: Path, open_host: Any) -> None:
    alpha, beta = Project(tmp_path, "alpha"), Project(tmp_path, "beta")
    says = "return [*models, ModelRecord(id=words.WORD, name='')]"
    hook = "@hookimpl\nasync def jan_filter_models(self, models, context):\n    "
    names = {"from msgspec import Struct": "from jan_core.types import ModelRecord\nimport asyncio"}
    alpha.plugin(hook + "self.ctx.emit('held')\n    await asyncio.sleep(0.2)\n    " + says, **names)
    beta.plugin(hook + says, **names)
    async with open_host(sources=[folder_source(alpha.folder), folder_source(beta.folder)]) as host:
        inside = asyncio.Event()
        with host.bus.subscribe(lambda event: inside.set() if event.name == "held" else None):
            asked = asyncio.create_task(host.hooks.filter_models([], ModelContext()))
            await asyncio.wait_for(inside.wait(), 5)
        beta.say("v2")
        await host.client().call("extensions.reload", {"id": "beta"})
        assert not asked.done()
        assert [model.id for model in await asked] == ["v1", "v2"]
