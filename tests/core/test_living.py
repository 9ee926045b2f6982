"""A generation's tasks and disposers, and its end: also when its code does not want to end."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from jan_core import Context, Empty, hookimpl, method, methods_of
from jan_core.extension import State
from jan_core.host import Host
from jan_core.loader import folder_source
from jan_core.rpc.peer import Peer
from jan_core.testing import InlineSource

from .project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jan_core.live.CANCEL_LIMIT", 0.1)
    monkeypatch.setattr("jan_core.live.CANCEL_EVERY", 0.03)
    monkeypatch.setattr("jan_core.live.CLEANUP_LIMIT", 0.05)
    monkeypatch.setattr("jan_core.live.END_LIMIT", 0.3)


class Stubborn:
    """Starts a task, or has a disposer, that goes on until `let_go`, whoever cancels it."""

    def __init__(self, how: str) -> None:
        self._how = how
        self.let_go, self.ended = asyncio.Event(), asyncio.Event()
        self.cancelled = 0

    async def stay(self) -> None:
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        self.ended.set()

    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        if self._how == "task":
            ctx.tasks.start_soon(self.stay, name="stubborn")
        else:
            ctx.on_dispose(self.stay)

    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @method("stubborn.ping")
    def ping(self, params: Empty) -> int:
        """Answer."""
        return 1


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("how", ["task", "disposer"])
async def test_what_ignores_its_cancellation_is_left_behind_and_said(how: str, open_host: Any) -> None:
    stubborn = Stubborn(how)
    async with open_host(sources=[InlineSource("stubborn", stubborn, ["stubborn."])]) as host:
        client = host.client()
        assert await client.call("stubborn.ping") == 1
        async with asyncio.timeout(2):
            row = await client.call("extensions.disable", {"id": "stubborn"})
        assert row["state"] == "disabled"
        assert row["failure"]["type"] == "TimeoutError"
        says = "tasks that ignore being cancelled go on: stubborn" if how == "task" else "did not end within"
        assert says in row["failure"]["message"]
        assert 1 <= stubborn.cancelled < 10  # and the loop is not busy with telling it again
        assert (await client.call("extensions.enable", {"id": "stubborn"}))["state"] == "active"
        stubborn.let_go.set()
        await asyncio.wait_for(stubborn.ended.wait(), 5)


@pytest.mark.usefixtures("hurried")
async def test_a_disposer_that_hangs_takes_no_other_s_turn(open_host: Any, caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    class Messy:
        @hookimpl
        async def jan_activate(self, ctx: Context) -> None:
            ctx.on_dispose(lambda: done.append("first in, last out"))

            async def hang() -> None:
                await asyncio.Event().wait()

            def fail() -> None:
                raise ValueError("a mess")

            ctx.on_dispose(hang)
            ctx.on_dispose(fail)
            ctx.on_dispose(lambda: done.append("last in, first out"))

    async with open_host(sources=[InlineSource("messy", Messy(), [])]) as host:
        await host.lifecycle.activate_all()
    assert done == ["last in, first out", "first in, last out"]
    assert [r.getMessage() for r in caplog.records if r.name == "jan.messy"] == ["a disposer failed"] * 2


async def test_a_task_that_is_started_too_late_is_named_in_the_log(
    open_host: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Late:
        @hookimpl
        async def jan_activate(self, ctx: Context) -> None:
            self.ctx = ctx

    late = Late()
    async with open_host(sources=[InlineSource("late", late, [])]) as host:
        await host.lifecycle.activate_all()
        await host.lifecycle.disable(host.lifecycle.find("late"))
        with caplog.at_level(logging.WARNING):
            late.ctx.tasks.start_soon(asyncio.Event().wait, name="forgotten")
    assert "late@g1 has retired and starts no more tasks: forgotten" in caplog.text


@pytest.mark.parametrize(
    ("signature", "stage"),
    [
        ("(self, state) -> None", ""),
        ("(self, state: 'elsewhere.State')", "restore"),
        ("(self, state: 'logging.State')", "restore"),
    ],
)
async def test_the_annotation_of_restored_state_may_be_missing_but_not_wrong(
    project: Project, open_host: Any, signature: str, stage: str
) -> None:
    project.plugin(
        f"@hookimpl\ndef jan_export_state(self):\n    return {{'n': 1}}\n"
        f"@hookimpl\ndef jan_restore_state{signature}:\n    assert state == {{'n': 1}}",
        **{"from msgspec import Struct": "import logging"},
    )
    async with open_host(sources=[folder_source(project.folder)]) as host:
        extension = host.lifecycle.find("sample")
        if stage:
            with pytest.raises(Exception, match="could not be reloaded: restore"):
                await host.lifecycle.reloads.reload(extension, force=True)
        else:
            await host.lifecycle.reloads.reload(extension, force=True)
        assert (extension.state, extension.generations) == (State.ACTIVE, 2)


async def test_a_host_that_is_left_by_a_cancellation_ends_its_extensions(project: Project, tmp_path: Path) -> None:
    project.plugin("@hookimpl\nasync def jan_deactivate(self, ctx):\n    import asyncio; await asyncio.sleep(0.1)")
    host = Host(tmp_path / "data", sources=[folder_source(project.folder)])

    async def stay() -> None:
        async with host:
            await host.activate_startup()
            up.set()
            await asyncio.Event().wait()

    up = asyncio.Event()
    staying = asyncio.create_task(stay())
    await asyncio.wait_for(up.wait(), 5)
    staying.cancel()
    await asyncio.sleep(0)
    staying.cancel()
    await asyncio.wait([staying], timeout=5)
    assert staying.cancelled()
    assert host.lifecycle.find("sample").state is State.RETIRED
    assert not host.lifecycle.generations.lives


async def test_a_call_that_ignores_being_revoked_is_answered_all_the_same_and_once(
    open_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jan_core.live.REVOKE_LIMIT", 0.05)
    monkeypatch.setattr("jan_core.generations.DRAIN_LIMIT", 0.05)

    class Deaf(Stubborn):
        @hookimpl
        async def jan_activate(self, ctx: Context) -> None: ...

        @method("stubborn.stay")
        async def hold(self, params: Empty) -> int:
            """Stay."""
            await self.stay()
            return 1

    class Sink:
        blocked = full = False
        sent = b""

        def write(self, data: bytes) -> None:
            self.sent += data

        async def drained(self) -> None: ...

    deaf, sink = Deaf("call"), Sink()
    async with open_host(sources=[InlineSource("stubborn", deaf, ["stubborn."])]) as host:
        await host.lifecycle.activate_all()
        peer = Peer(host, sink)
        peer.feed(b'{"jsonrpc":"2.0","id":0,"method":"initialize"}\n')
        peer.feed(b'{"jsonrpc":"2.0","id":1,"method":"stubborn.stay"}\n')
        await host.client().call("extensions.disable", {"id": "stubborn"})
        assert host.lifecycle.find("stubborn").state is State.DISABLED
        deaf.let_go.set()
        await asyncio.wait_for(deaf.ended.wait(), 5)
        await peer.aclose()
    answers = [line for line in sink.sent.splitlines() if b'"id":1' in line]
    assert len(answers) == 1
    assert b"-32050" in answers[0]
