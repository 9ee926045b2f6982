"""A host and its extensions: failures are data, one extension's fault is nobody else's, everything ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from jan_core import Context, Empty, Event, RpcError, hookimpl, method, methods_of
from jan_core.host import Host
from jan_core.manifest import Manifest, ManifestError
from jan_core.testing import InlineSource
from jan_core.types import ModelRecord


class Good:
    """Serves `good.hello`."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        self.ctx = ctx
        ctx.on_dispose(lambda: self.log.append("disposed first"))
        ctx.on_dispose(self._dispose)
        ctx.tasks.start_soon(self._background)
        self.log.append("activated")

    @hookimpl
    async def jan_deactivate(self, ctx: Context) -> None:
        self.log.append("deactivated")

    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    async def _background(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.log.append("task ended")

    async def _dispose(self) -> None:
        self.log.append("disposed last registered")

    @method("good.hello")
    async def hello(self, params: Empty) -> str:
        """Hello."""
        return "hello"

    @method("good.relay")
    async def relay(self, params: Empty) -> Any:
        """Call another extension."""
        return await self.ctx.call("other.hello")


class Raises:
    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        raise RuntimeError("no luck today")


class Exits:
    def __init__(self) -> None:
        sys.exit("leaving")


class Wrapper:
    @hookimpl(wrapper=True)
    def jan_event(self, event: Event) -> Any:
        yield


class UnknownHook:
    @hookimpl
    def jan_does_not_exist(self) -> None: ...


class UnknownArgument:
    @hookimpl
    def jan_event(self, event: Event, colour: str) -> None: ...


class KeywordOnly:
    @hookimpl
    def jan_event(self, *, event: Event) -> None: ...


class Trespasser:
    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @method("chat.complete")
    async def steal(self, params: Empty) -> str:
        """Not its own."""
        return ""


class Undocumented:
    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @method("test.bare")
    async def bare(self, params: Empty) -> str:
        return ""


class NeedsSettings:
    class Wrong(msgspec.Struct):
        url: str

    @hookimpl
    def jan_settings(self) -> Any:
        return self.Wrong


class BadManifest(InlineSource):
    def manifest(self, api_version: str) -> tuple[Manifest, str]:
        raise ManifestError("nothing there")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state that no event announces."""
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()


def states(host: Host) -> dict[str, str]:
    return {e.id: e.state.value for e in host.lifecycle.extensions.values()}


@pytest.mark.parametrize(
    ("plugin", "stage", "says"),
    [
        (Raises, "activate", "no luck today"),
        (Exits, "import", "leaving"),
        (Wrapper, "validate", "wrappers are refused"),
        (UnknownHook, "validate", "unknown hook"),
        (UnknownArgument, "validate", "colour"),
        (KeywordOnly, "validate", "keyword-only"),
        (Trespasser, "validate", "outside of what the manifest claims"),
        (Undocumented, "validate", "needs a docstring"),
        (NeedsSettings, "settings", "url"),
    ],
)
async def test_a_broken_extension_is_data_and_the_others_serve(
    open_host: Any, plugin: type, stage: str, says: str
) -> None:
    broken = InlineSource("broken", plugin, ["test."])
    async with open_host(Good(), id="good", methods=["good."], sources=[broken]) as host:
        assert await host.client().call("good.hello") == "hello"
        (info,) = [e for e in (await host.client().call("extensions.list"))["extensions"] if e["id"] == "broken"]
        assert info["state"] == "failed"
        assert info["failure"]["stage"] == stage
        assert says in info["failure"]["message"]
        with pytest.raises(RpcError) as caught:
            await host.client().call("test.anything")
        assert caught.value.type == "extension_unavailable"
        assert says in caught.value.message
        findings = (await host.client().call("system.doctor"))["findings"]
        assert [f["status"] for f in findings if f["check"] == "extension broken"] == ["fail"]


async def test_a_missing_manifest_and_a_claimed_id_are_failures_of_that_extension(open_host: Any) -> None:
    class Silent:
        pass

    sources = [BadManifest("bad", Good), InlineSource("twice", Silent), InlineSource("twice", Silent)]
    async with open_host(Good(), id="good", methods=["good."], sources=sources) as host:
        assert states(host) == {"good": "active", "bad": "failed", "twice": "active", "twice (inline)": "failed"}


async def test_everything_is_undone_in_reverse_order_when_the_host_ends(open_host: Any) -> None:
    plugin = Good()
    async with open_host(plugin, id="good", methods=["good."]) as host:
        assert plugin.log == ["activated"]
    assert plugin.log == ["activated", "deactivated", "task ended", "disposed last registered", "disposed first"]
    assert states(host) == {"good": "retired"}


async def test_an_extension_is_activated_by_the_first_call_of_its_method(tmp_path: Path) -> None:
    plugin = Good()
    sources = [InlineSource("good", plugin, ["good."], activation="on-method")]
    async with Host(tmp_path, sources=sources) as host:
        await host.activate_startup()
        assert states(host) == {"good": "discovered"}
        answers: list[Any] = []

        async def call() -> None:
            answers.append(await host.client().call("good.hello"))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(call)
        assert answers == ["hello"] * 5
        assert plugin.log == ["activated"], "once, however many calls came at once"


async def test_extensions_call_each_other_through_the_table_alone(open_host: Any) -> None:
    class Other:
        @hookimpl
        def jan_methods(self) -> Any:
            return methods_of(self)

        @method("other.hello")
        async def hello(self, params: Empty, call: Any) -> str:
            """Who calls?"""
            return f"hello {call.caller}"

    other = InlineSource("other", Other, ["other."])
    async with open_host(Good(), id="good", methods=["good."], sources=[other]) as host:
        assert await host.client().call("good.relay") == "hello good"


async def test_a_disabled_extension_stays_off_and_says_so(open_host: Any) -> None:
    async with open_host(Good(), id="good", methods=["good."], disabled=["good"]) as host:
        with pytest.raises(RpcError) as caught:
            await host.client().call("good.hello")
        assert caught.value.type == "method_not_found"
        assert caught.value.data == {"extension": "good", "state": "disabled"}


async def test_a_background_task_that_fails_is_recorded_and_disturbs_nobody(open_host: Any) -> None:
    failed = anyio.Event()

    class Restless(Good):
        async def _background(self) -> None:
            failed.set()
            raise RuntimeError("tired")

    async with open_host(Restless(), id="good", methods=["good."]) as host:
        with anyio.fail_after(5):
            await failed.wait()
            while not host.lifecycle.extensions["good"].failure:
                await anyio.lowlevel.checkpoint()
        assert host.lifecycle.extensions["good"].failure.stage == "task"
        assert await host.client().call("good.hello") == "hello"


async def test_repeated_hook_failures_quarantine_the_extension(open_host: Any) -> None:
    class Faulty(Good):
        @hookimpl
        async def jan_event(self, event: Event) -> None:
            if event.name == "poke":
                raise RuntimeError("ouch")

    quarantined = anyio.Event()

    def watch(event: Event) -> None:
        if event.name == "extensions.changed" and event.data["state"] == "quarantined":
            quarantined.set()

    async with open_host(Faulty(), id="good", methods=["good."]) as host:
        with host.bus.subscribe(watch):
            for _ in range(5):
                await host.hooks.event(Event("poke"))
            with anyio.fail_after(5):
                await quarantined.wait()
        with pytest.raises(RpcError) as caught:
            await host.client().call("good.hello")
        assert caught.value.data["state"] == "quarantined"


async def test_a_hook_that_fails_is_quarantined_though_another_one_works(open_host: Any) -> None:
    class Half(Good):
        @hookimpl
        async def jan_event(self, event: Event) -> None: ...

        @hookimpl
        async def jan_builtin_models(self) -> list[ModelRecord]:
            raise RuntimeError("ouch")

    async with open_host(Half(), id="good", methods=["good."]) as host:
        for _ in range(5):
            await host.hooks.builtin_models()
            await host.hooks.event(Event("fine"))
        await until(lambda: states(host) == {"good": "quarantined"})


async def test_a_failure_is_forgotten_when_the_hook_works_again(open_host: Any) -> None:
    class Moody(Good):
        @hookimpl
        async def jan_builtin_models(self) -> list[ModelRecord]:
            self.log.append("asked")
            if self.log.count("asked") == 1:
                raise RuntimeError("ouch")
            return []

    async with open_host(Moody(), id="good", methods=["good."]) as host:
        await host.hooks.builtin_models()
        assert host.lifecycle.extensions["good"].failure.message == "ouch"
        await host.hooks.builtin_models()
        assert host.lifecycle.extensions["good"].failure is None


@pytest.mark.parametrize("how", ["exit", "stray"])
async def test_a_hook_cannot_end_the_process_nor_cancel_its_caller(open_host: Any, how: str) -> None:
    class Rude(Good):
        @hookimpl
        async def jan_event(self, event: Event) -> None:
            if event.name != "poke":
                return
            if how == "exit":
                sys.exit(3)
            waiting = asyncio.get_running_loop().create_future()
            waiting.cancel()
            await waiting

    async with open_host(Rude(), id="good", methods=["good."]) as host:
        (outcome,) = (await host.hooks.event(Event("poke"))).outcomes
        assert outcome.failure.type == "Escaped"
        assert await host.client().call("good.hello") == "hello"


async def test_a_task_inside_its_own_extension_s_method_does_not_keep_it_from_retiring(open_host: Any) -> None:
    class Inward(Good):
        async def _background(self) -> None:
            try:
                await self.ctx.call("good.wait")
            finally:
                self.log.append("task ended")

        @method("good.wait")
        async def wait(self, params: Empty) -> None:
            """For ever."""
            self.log.append("inside")
            await anyio.sleep_forever()

    plugin = Inward()
    with anyio.fail_after(5):
        async with open_host(plugin, id="good", methods=["good."]):
            await until(lambda: "inside" in plugin.log)
    assert "deactivated" in plugin.log
    assert "task ended" in plugin.log


async def test_an_activation_is_shared_and_outlives_the_caller_that_began_it(tmp_path: Path) -> None:
    go, entered = anyio.Event(), anyio.Event()

    class Slow(Good):
        @hookimpl
        async def jan_activate(self, ctx: Context) -> None:
            self.log.append("activated")
            entered.set()
            await go.wait()

    plugin = Slow()
    sources = [InlineSource("good", plugin, ["good."], activation="on-method")]
    with anyio.fail_after(5):
        async with Host(tmp_path, sources=sources) as host:
            async with anyio.create_task_group() as group:
                group.start_soon(host.client().call, "good.hello")
                await entered.wait()
                group.cancel_scope.cancel()
            async with anyio.create_task_group() as group:
                group.start_soon(host.client().call, "good.hello")
                await anyio.lowlevel.checkpoint()
                go.set()
            assert plugin.log == ["activated"]
            assert states(host) == {"good": "active"}


async def test_nothing_is_activated_once_the_host_ends(tmp_path: Path) -> None:
    async with Host(tmp_path, sources=[InlineSource("good", Good, ["good."])]) as host:
        pass
    with pytest.raises(RpcError) as caught:
        await host.client().call("good.hello")
    assert caught.value.type == "shutting_down"


async def test_a_plugin_that_cannot_be_hashed_and_one_used_twice_are_no_trouble_to_others(open_host: Any) -> None:
    @dataclass
    class Data:
        name: str = "x"

        @hookimpl
        async def jan_builtin_models(self) -> list[ModelRecord]:
            return [ModelRecord(self.name, self.name)]

    shared = Data("shared")
    sources = [InlineSource("data", Data), InlineSource("one", shared), InlineSource("two", shared)]
    async with open_host(Good(), id="good", methods=["good."], sources=sources) as host:
        assert await host.client().call("good.hello") == "hello"
        named = [m.id for models in (await host.hooks.builtin_models()).values for m in models]
        assert "x" in named
        assert {"good", "data"} <= {id for id, state in states(host).items() if state == "active"}


async def test_prefixes_that_reach_into_somebody_else_s_are_refused(open_host: Any) -> None:
    sources = [InlineSource("thief", Raises, ["good."]), InlineSource("usurper", Raises, ["settings."])]
    async with open_host(Good(), id="good", methods=["good."], sources=sources) as host:
        assert states(host) == {"good": "active", "thief": "failed", "usurper": "failed"}
        assert "reaches into" in host.lifecycle.extensions["thief"].failure.message


async def test_one_broken_extension_does_not_break_the_description_of_the_rest(tmp_path: Path) -> None:
    sources = [
        InlineSource("bad", Raises, ["bad."], activation="on-method"),
        InlineSource("good", Good, ["good."], activation="on-method"),
    ]
    async with Host(tmp_path, sources=sources) as host:
        names = {m["name"] for m in (await host.client().call("rpc.discover"))["methods"]}
    assert "good.hello" in names


async def test_settings_are_typed_kept_and_told(open_host: Any, tmp_path: Path) -> None:
    class Options(msgspec.Struct):
        volume: int = 3

    class Tuned(Good):
        @hookimpl
        def jan_settings(self) -> Any:
            return Options

    async with open_host(Tuned(), id="good", methods=["good."]) as host:
        client = host.client()
        assert (await client.call("settings.get"))["settings"] == {"good": {"volume": 3}}
        assert "volume" in str(await client.call("settings.schema", {"extension": "good"}))
        told: list[Any] = []
        with host.bus.subscribe(lambda event: told.append(event.name)):
            await client.call("settings.set", {"extension": "good", "values": {"volume": 7}})
        assert "settings.changed" in told
        for wrong in ({"volume": "loud"}, {"colour": 1}):
            with pytest.raises(RpcError) as caught:
                await client.call("settings.set", {"extension": "good", "values": wrong})
            assert caught.value.type == "invalid_params"
        with pytest.raises(RpcError):
            await client.call("settings.set", {"extension": "nobody", "values": {}})
    plugin = Tuned()
    async with open_host(plugin, id="good", methods=["good."]) as host:
        assert plugin.ctx.settings == Options(7)
        await host.client().call("settings.set", {"extension": "good", "values": {"volume": None}})
        assert plugin.ctx.settings == Options(3)


async def test_a_damaged_settings_file_costs_the_settings_and_not_the_start(open_host: Any, tmp_path: Path) -> None:
    class Options(msgspec.Struct):
        volume: int = 3

    class Tuned(Good):
        @hookimpl
        def jan_settings(self) -> Any:
            return Options

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "settings.json").write_text("{oops")
    async with open_host(Tuned(), id="good", methods=["good."]) as host:
        assert (await host.client().call("settings.get"))["settings"] == {"good": {"volume": 3}}
        findings = (await host.client().call("system.doctor"))["findings"]
        assert [f["status"] for f in findings if f["check"] == "settings"] == ["fail"]
        with pytest.raises(RpcError) as caught:
            await host.client().call("settings.set", {"extension": "good", "values": {"volume": 1}})
        assert caught.value.type == "storage_error"
    assert (tmp_path / "data" / "settings.json").read_text() == "{oops", "what a person wrote is never written over"


async def test_the_host_describes_itself(open_host: Any) -> None:
    async with open_host(Good(), id="good", methods=["good."]) as host:
        client = host.client()
        assert await client.call("ping") == {}
        info = await client.call("system.info")
        assert info["data_dir"] == str(host.data_dir)
        assert (await client.call("system.metrics"))["methods"] == len(host.table)
        document = await client.call("rpc.discover")
        names = {m["name"] for m in document["methods"]}
        assert {"initialize", "initialized", "shutdown", "good.hello", "rpc.discover"} <= names
        assert all(m["summary"] for m in document["methods"])


async def test_the_schema_hash_changes_with_what_can_be_called(open_host: Any) -> None:
    async with open_host(Good(), id="good", methods=["good."]) as host:
        first = host.lifecycle.schema_hash()
    async with open_host(Good(), id="good", methods=["good."]) as host:
        assert host.lifecycle.schema_hash() == first
    async with open_host(Good(), id="good", methods=["good."], disabled=["good"]) as host:
        assert host.lifecycle.schema_hash() != first


async def test_two_hosts_in_one_process_do_not_know_of_each_other(open_host: Any, tmp_path: Path) -> None:
    async with open_host(Good(), id="good", methods=["good."], data_dir=tmp_path / "a") as one:
        async with open_host(id="none", data_dir=tmp_path / "b") as two:
            assert await one.client().call("good.hello") == "hello"
            with pytest.raises(RpcError):
                await two.client().call("good.hello")


async def test_shutdown_and_initialized_are_methods_too(open_host: Any) -> None:
    async with open_host(Good(), id="good", methods=["good."]) as host:
        assert await host.client().call("initialized") is None
        assert await host.client().call("shutdown") is None
        assert (await host.client().call("initialize"))["protocolVersion"] == "1.0"


def test_importing_the_core_imports_nothing_heavy(
    run_python: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    heavy = [
        "anyio",
        "httpx",
        "sqlite3",
        "numpy",
        "rich",
        "click",
        "starlette",
        "uvicorn",
        "jinja2",
        "watchfiles",
        "urllib3",
    ]
    code = f"import sys, jan_core.host, jan_core.rpc.stdio; print([m for m in {heavy!r} if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


@pytest.fixture
def run_python() -> Callable[[str], subprocess.CompletedProcess[str]]:
    return lambda code: subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
