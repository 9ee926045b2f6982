"""Replacing an extension's code while it serves: no call is lost, a broken edit changes nothing, nothing is left."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from jan_core import Empty, Event, RpcError, hookimpl, method, methods_of
from jan_core.host import Host
from jan_core.loader import folder_source
from jan_core.testing import InlineSource

from .project import Project


class Gate:
    """Holds back whoever calls `gate.wait`."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside = 0

    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @method("gate.wait")
    async def wait(self, params: Empty) -> None:
        """Wait until the gate is opened."""
        self.inside += 1
        await self.open.wait()


class House:
    """A host with one project in it, and what it announced."""

    def __init__(self, host: Host, gate: Gate) -> None:
        self.host, self.gate, self.client = host, gate, host.client()
        self.events: list[Event] = []

    async def word(self, id: str = "sample") -> Any:
        return await self.client.call(f"{id}.word")

    async def reload(self, id: str = "sample", **params: Any) -> Any:
        return await self.client.call("extensions.reload", {"id": id, **params})

    async def refused(self, id: str = "sample") -> RpcError:
        with pytest.raises(RpcError) as caught:
            await self.reload(id)
        return caught.value

    async def row(self, id: str = "sample") -> dict[str, Any]:
        rows = (await self.client.call("extensions.list"))["extensions"]
        return next(row for row in rows if row["id"] == id)

    async def heard(self, name: str, **data: Any) -> Event:
        """Wait for an event whose data has these values."""
        with anyio.fail_after(10):
            while True:
                for event in self.events:
                    if event.name == name and data.items() <= event.data.items():
                        return event
                await anyio.sleep(0.001)

    async def settled(self) -> None:
        """Wait until nothing drains and what retired has been looked after."""
        with anyio.fail_after(10):
            await self.host.lifecycle.generations.settled()


Open = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(open_host: Any) -> Open:
    @asynccontextmanager
    async def opener(*projects: Project, **options: Any) -> AsyncIterator[House]:
        gate = Gate()
        sources = [InlineSource("gate", gate, ["gate."]), *(folder_source(p.folder) for p in projects)]
        async with open_host(sources=sources, **options) as host:
            house = House(host, gate)
            with host.bus.subscribe(house.events.append):
                yield house

    return opener


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for leaks soon after a retirement."""
    monkeypatch.setattr("jan_core.leaks.QUIET", 0.1)


async def test_a_later_call_answers_from_new_code_and_says_what_changed(project: Project, open_house: Open) -> None:
    async with open_house(project) as house:
        assert await house.word() == "v1"
        project.say("v2")
        project.plugin('@method("sample.more")\ndef extra(self, params: Empty) -> int:\n    "More."\n    return 1')
        done = await house.reload()
        assert (done["id"], done["generation"], done["changed"]) == ("sample", 2, True)
        assert set(done["seconds"]) == {"stage", "export", "activate", "commit", "total"}
        assert await house.word() == "v2"
        assert await house.client.call("sample.more") == 1
        event = await house.heard("extensions.changed", generation=2)
        assert event.data["methodsAdded"] == ["sample.more"]
        assert event.data["methodsRemoved"] == []
        assert event.data["schemaHash"] == house.host.lifecycle.schema_hash()


async def test_a_stream_that_began_before_ends_on_old_code(project: Project, open_house: Open) -> None:
    async with open_house(project) as house:
        async with house.client.stream("sample.stream") as stream:
            items = aiter(stream)
            assert await anext(items) == "v1"
            project.say("v2")
            project.write("late.py", "LATE = 'late v2'\n")
            await house.reload()
            assert await house.word() == "v2"
            assert house.host.lifecycle.extensions["sample"].draining is not None
            house.gate.open.set()
            assert [item async for item in items] == ["v1"]
            assert await stream.result() == "late v1"
        await house.settled()
        assert not [name for name in list(sys.modules) if name.startswith("jan_sample@g1")]


async def test_a_module_first_imported_after_the_edit_is_of_the_generation_that_asks(
    project: Project, open_house: Open
) -> None:
    async with open_house(project) as house:
        stale = house.host.lifecycle.extensions["sample"].current
        project.write("late.py", "LATE = 'late v2'\n")
        await house.reload()
        assert stale is not None
        house.gate.open.set()
        async with house.client.stream("sample.stream") as stream:
            assert await stream.result() == "late v2"


@pytest.mark.parametrize(
    ("edit", "stage", "says", "line"),
    [
        (lambda p: p.write("words.py", "WORD = (\n"), "compile", "was never closed", 1),
        (lambda p: p.write("unused.py", "def broken(:\n"), "compile", "invalid syntax", 1),
        (lambda p: p.write("words.py", "import nowhere_at_all\n"), "import", "nowhere_at_all", 1),
        (lambda p: p.write("words.py", "\nimport sys\nsys.exit(3)\n"), "import", "3", 3),
        (lambda p: p.write("words.py", "import jan_sample.late\nWORD = 1\n"), "compile", "relative import", 1),
        (lambda p: p.write("words.py", "raise BaseException('odd')\n"), "import", "odd", 1),
        (lambda p: p.plugin("@hookimpl\ndef jan_evnt(self, event): ..."), "validate", "jan_evnt", 0),
        (lambda p: p.plugin("@hookimpl\ndef jan_event(self, happening): ..."), "validate", "happening", 0),
        (lambda p: p.plugin("@hookimpl(wrapper=True)\ndef jan_event(self):\n    yield"), "validate", "wrapper", 0),
        (lambda p: p.plugin(**{'"sample.word"': '"elsewhere.word"'}), "validate", "outside of what", 0),
        (lambda p: p.plugin(**{"params: Empty) ->": "params) ->"}), "validate", "annotations", 0),
        (lambda p: p.plugin("@hookimpl\ndef jan_settings(self):\n    return int"), "settings", "msgspec.Struct", 0),
        (lambda p: p.plugin(**{"self.ctx = ctx": "raise OSError('no kettle')"}), "activate", "no kettle", 0),
        (lambda p: p.plugin(**{"self.ctx = ctx": "raise SystemExit(4)"}), "activate", "sys.exit(4)", 0),
        (lambda p: p.write_manifest(**{'">=1.0,<2"': '">=7"'}), "manifest", "requires host API", 0),
        (lambda p: p.write_manifest(**{'["sample."]': '["system."]'}), "validate", "reaches into", 0),
        (lambda p: (p.folder / "pyproject.toml").write_text("nonsense"), "manifest", "pyproject.toml", 0),
        (lambda p: (p.code / "words.py").unlink(), "import", "words", 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_a_broken_edit_keeps_the_old_code_serving_and_says_where_it_failed(
    project: Project, open_house: Open, edit: Callable[[Project], Any], stage: str, says: str, line: int
) -> None:
    async with open_house(project) as house:
        edit(project)
        error = await house.refused()
        failure = error.data["failure"]
        assert (error.type, failure["stage"]) == ("reload_failed", stage)
        assert says in failure["message"]
        if line:
            assert failure["line"] == line
            assert failure["file"].startswith(str(project.code))
        assert await house.word() == "v1"
        event = await house.heard("extensions.reloadFailed", id="sample")
        assert event.data["failure"]["message"] == failure["message"]
        row = await house.row()
        assert (row["state"], row["generation"], row["failure"]["stage"]) == ("active", 1, stage)
        assert not [name for name in list(sys.modules) if name.startswith("jan_sample@g2")]
        # Mending it is enough.
        project.write_manifest()
        project.plugin()
        project.write("unused.py", "")
        project.say("mended")
        await house.reload()
        assert await house.word() == "mended"
        assert "failure" not in await house.row()


async def test_taking_a_broken_edit_back_clears_the_failure(project: Project, open_house: Open) -> None:
    async with open_house(project) as house:
        project.write("words.py", "WORD = (\n")
        await house.refused()
        project.say("v1")
        assert (await house.reload())["changed"] is False
        assert "failure" not in await house.row()


async def test_an_edit_within_the_same_second_and_of_equal_size_is_seen(project: Project, open_house: Open) -> None:
    async with open_house(project) as house:
        for word in ("v2", "v3", "v4", "v5"):
            project.say(word)
            os.utime(project.code / "words.py", (1_700_000_000, 1_700_000_000))
            await house.reload()
            assert await house.word() == word
        assert not list(project.code.rglob("*.pyc"))


async def test_an_equal_source_is_not_reloaded_unless_asked(project: Project, open_house: Open) -> None:
    async with open_house(project) as house:
        project.say("v1")
        done = await house.reload()
        assert (done["changed"], done["generation"]) == (False, 1)
        assert (await house.reload(force=True))["generation"] == 2
        assert await house.word() == "v1"


async def test_the_order_of_hooks_is_unchanged_after_reloading_the_middle_one(tmp_path: Path, open_house: Open) -> None:
    projects = [Project(tmp_path, id) for id in ("alpha", "beta", "gamma")]
    for p in projects:
        p.plugin(
            "@hookimpl\nasync def jan_filter_models(self, models, context):\n"
            "    return [*models, ModelRecord(id=self.ctx.id, name='')]",
            **{"from msgspec import Struct": "from jan_core.types import ModelRecord"},
        )
    async with open_house(*projects) as house:
        from jan_core.types import ModelContext

        async def order() -> list[str]:
            return [m.id for m in await house.host.hooks.filter_models([], ModelContext())]

        before = await order()
        assert before == ["alpha", "beta", "gamma"]
        projects[1].say("v2")
        await house.reload("beta")
        assert await house.word("beta") == "v2"
        assert await order() == before


async def test_two_edits_during_a_reload_make_exactly_one_more(project: Project, open_house: Open) -> None:
    project.plugin(**{"self.ctx = ctx": "self.ctx = ctx\n        import time; time.sleep(0.2)"})
    async with open_house(project) as house:
        results: list[Any] = []

        async def reload() -> None:
            results.append(await house.reload())

        project.say("v2")
        async with anyio.create_task_group() as group:
            group.start_soon(reload)
            await anyio.wait_all_tasks_blocked()
            for word in ("v3", "v4"):
                project.say(word)
                group.start_soon(reload)
        assert await house.word() == "v4"
        assert len(results) == 3
        assert max(r["generation"] for r in results) <= 3
        assert results[1] == results[2]
        assert house.host.lifecycle.extensions["sample"].generations <= 3


STATE = """
@hookimpl
def jan_export_state(self):
    return State({export})

@hookimpl
def jan_restore_state(self, state: State) -> None:
    self.state = state

@method("sample.state")
def state_now(self, params: Empty) -> dict:
    "The state."
    import msgspec
    return msgspec.to_builtins(getattr(self, "state", None)) or {{}}
"""


def stateful(project: Project, fields: str, export: str) -> None:
    project.plugin(
        STATE.format(export=export), **{"\n\nclass Plugin": f"\n\nclass State(Struct):\n    {fields}\n\n\nclass Plugin"}
    )


async def test_state_is_handed_over_with_fields_added_and_removed(project: Project, open_house: Open) -> None:
    stateful(project, "count: int = 0; gone: str = ''", "count=7, gone='x'")
    async with open_house(project) as house:
        assert await house.client.call("sample.state") == {}
        stateful(project, "count: int = 0; added: str = 'new'", "count=8")
        await house.reload()
        assert await house.client.call("sample.state") == {"count": 7, "added": "new"}


async def test_state_that_does_not_fit_fails_the_reload(project: Project, open_house: Open) -> None:
    stateful(project, "count: int = 0", "count=7")
    async with open_house(project) as house:
        stateful(project, "count: str = ''", "count=''")
        failure = (await house.refused()).data["failure"]
        assert failure["stage"] == "restore"
        assert "Expected `str`, got `int`" in failure["message"]
        assert await house.word() == "v1"
        assert not [name for name in list(sys.modules) if name.startswith("jan_sample@g2")]


@pytest.mark.parametrize("export", ["return object()", "raise KeyError('lost')", "import time; time.sleep(1.3)"])
async def test_state_that_cannot_be_exported_fails_the_reload(project: Project, open_house: Open, export: str) -> None:
    project.plugin(f"@hookimpl\ndef jan_export_state(self):\n    {export}")
    async with open_house(project) as house:
        project.say("v2")
        assert (await house.refused()).data["failure"]["stage"] == "export"
        assert await house.word() == "v1"


async def test_calls_past_the_drain_limit_are_answered_with_extension_reloaded(
    project: Project, open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jan_core.generations.DRAIN_LIMIT", 0.05)
    async with open_house(project) as house:
        async with house.client.stream("sample.stream") as stream:
            assert await anext(aiter(stream)) == "v1"
            project.say("v2")
            await house.reload()
            with anyio.fail_after(5), pytest.raises(RpcError) as caught:
                await stream.result()
        assert (caught.value.code, caught.value.type, caught.value.retryable) == (-32050, "extension_reloaded", True)
        assert await house.word() == "v2"


async def test_a_second_reload_ends_the_generation_that_still_drains(project: Project, open_house: Open) -> None:
    async with open_house(project) as house:
        async with house.client.stream("sample.stream") as stream:
            assert await anext(aiter(stream)) == "v1"
            project.say("v2")
            await house.reload()
            project.say("v3")
            await house.reload()
            with anyio.fail_after(5), pytest.raises(RpcError) as caught:
                await stream.result()
        assert caught.value.type == "extension_reloaded"
        assert await house.word() == "v3"


LEAKS = {
    "thread": (
        "import threading\nstop = threading.Event()\ndef spin():\n    stop.wait(20)\n"
        "threading.Thread(target=spin, name='spinner', daemon=True).start()\n",
        ["thread 'spinner' is still running", "words.py:4 (spin)"],
    ),
    "atexit": ("import atexit\ndef bye(): ...\natexit.register(bye)\n", ["bye is still registered with atexit"]),
    "logging": (
        "import logging\nclass Mine(logging.Handler):\n    def emit(self, record): ...\n"
        "logging.getLogger('test.leak').addHandler(Mine())\n",
        ["Mine is still attached to logger 'test.leak'"],
    ),
    "signal": (
        "import signal\ndef hup(*args): ...\ndef leak():\n    signal.signal(signal.SIGUSR2, hup)\n",
        [f"hup is still the handler of signal {signal.SIGUSR2.value}"],
    ),
    "another module": (
        "import jan_core\ndef kept(): ...\njan_core.kept_by_test = kept\n",
        ["kept is held by jan_core.kept_by_test"],
    ),
    "singledispatch": (
        "import json\nfrom functools import singledispatch\nclass Thing: ...\n"
        "if not hasattr(json, 'show_by_test'):\n    json.show_by_test = singledispatch(print)\n"
        "json.show_by_test.register(Thing, repr)\n",
        ["Thing is held by json.show_by_test"],
    ),
    "task": (
        "import asyncio\nasync def forever():\n    await asyncio.sleep(3600)\n"
        "def leak():\n    asyncio.create_task(forever(), name='stray')\n",
        ["task 'stray' is still running", "words.py:3 (forever)", "use ctx.tasks"],
    ),
}


@pytest.mark.parametrize("kind", LEAKS)
async def test_what_is_left_of_a_retired_generation_is_named(project: Project, open_house: Open, kind: str) -> None:
    text, says = LEAKS[kind]
    project.write("words.py", text + "WORD = 'leaky'\n")
    if "def leak" in text:
        project.plugin(
            "@hookimpl\nasync def jan_event(self, event):\n    if event.name == 'leak':\n        words.leak()"
        )
    try:
        async with open_house(project) as house:
            await house.host.hooks.event(Event("leak"))
            project.say("v2")
            project.plugin()
            await house.reload()
            await house.settled()
            (leak,) = (await house.row())["leaks"]
            assert leak.startswith("sample@g1: ")
            for part in says:
                assert part in leak
    finally:
        _undo_leaks()


def _undo_leaks() -> None:
    import atexit
    import json
    import logging

    import jan_core
    from jan_core.leaks import _exit_handlers

    vars(jan_core).pop("kept_by_test", None)
    vars(json).pop("show_by_test", None)
    logging.getLogger("test.leak").handlers.clear()
    for function in _exit_handlers():
        if str(getattr(function, "__module__", "")).startswith("jan_sample@"):
            atexit.unregister(function)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    for thread in threading.enumerate():
        if thread.name == "spinner":
            thread._target.__globals__["stop"].set()  # type: ignore[attr-defined]
            thread.join()
    for task in asyncio.all_tasks():
        if task.get_name() == "stray":
            task.cancel()


async def test_unions_of_structs_that_were_decoded_keep_nothing_alive(project: Project, open_house: Open) -> None:
    project.plugin(
        '@method("sample.shape")\ndef shape(self, params: Holder) -> int:\n    "Take a shape."\n    return 1',
        **{
            "\n\nclass Plugin": "\n\nclass A(Struct, tag=True): ...\n\n\nclass B(Struct, tag=True): ...\n\n\n"
            "class Holder(Struct):\n    shape: A | B\n\n\nclass Plugin"
        },
    )
    async with open_house(project) as house:
        assert await house.client.call("sample.shape", {"shape": {"type": "A"}}) == 1
        await house.reload(force=True)
        await house.settled()
        assert "leaks" not in await house.row()


async def test_a_peer_that_follows_the_table_keeps_no_generation_alive(project: Project, open_house: Open) -> None:
    from jan_core.rpc.peer import Peer

    class Sink:
        blocked = full = False
        sent = b""

        def write(self, data: bytes) -> None:
            self.sent += data

        async def drained(self) -> None: ...

    async with open_house(project) as house:
        sink = Sink()
        peer = Peer(house.host, sink)
        peer.feed(b'{"jsonrpc":"2.0","id":0,"method":"initialize"}\n')
        for number in range(1, 4):
            project.say(f"v{number + 1}")
            await house.reload()
            peer.feed(b'{"jsonrpc":"2.0","id":%d,"method":"sample.word"}\n' % number)
            with anyio.fail_after(5):
                while f'"v{number + 1}"'.encode() not in sink.sent:
                    await anyio.lowlevel.checkpoint()
        await house.settled()
        assert "leaks" not in await house.row()
        await peer.aclose()


async def test_a_hundred_reloads_leave_two_generations_at_most(project: Project, open_house: Open) -> None:
    async with open_house(project) as house:
        plugins: list[weakref.ref[Any]] = []
        for number in range(100):
            current = house.host.lifecycle.extensions["sample"].current
            assert current is not None
            plugins.append(weakref.ref(current.plugin))
            del current
            project.say(f"v{number}")
            await house.reload()
        await house.settled()
        gc.collect()
        assert sum(ref() is not None for ref in plugins) <= 2
        modules = {name.partition(".")[0] for name in list(sys.modules) if name.startswith("jan_sample@")}
        assert modules == {"jan_sample@g101"}
        assert "leaks" not in await house.row()
        assert await house.word() == "v99"


async def test_a_storm_of_reloads_under_streams_loses_no_answer(project: Project, open_house: Open) -> None:
    async with open_house(project) as house:
        house.gate.open.set()
        answers: list[str] = []
        asked = 0
        over = False

        async def stream() -> None:
            nonlocal asked
            while not over:
                asked += 1
                try:
                    async with house.client.stream("sample.stream") as opened:
                        items = [item async for item in opened]
                        assert len(set(items)) == 1  # one generation each
                        answers.append(await opened.result())
                except RpcError as error:
                    answers.append(error.type)

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(stream)
            for number in range(30):
                project.say(f"v{number}")
                await house.reload()
            over = True
        assert len(answers) == asked
        assert set(answers) <= {"late v1", "extension_reloaded"}
        assert "late v1" in answers


async def test_rolling_back_serves_the_code_before_as_a_new_generation(project: Project, open_house: Open) -> None:
    async with open_house(project) as house:
        with pytest.raises(RpcError, match="no earlier code"):
            await house.client.call("extensions.rollback", {"id": "sample"})
        project.say("v2")
        await house.reload()
        done = await house.client.call("extensions.rollback", {"id": "sample"})
        assert done["generation"] == 3
        assert await house.word() == "v1"
        assert (await house.reload())["generation"] == 4
        assert await house.word() == "v2"


@pytest.mark.parametrize("change", ["native", "dependencies", "entry point", "core"])
async def test_what_a_process_cannot_take_over_answers_restart_required(
    project: Project, open_house: Open, change: str
) -> None:
    async with open_house(project) as house:
        id = "sample"
        if change == "native":
            project.write("speedups.abi3.so", "")
        elif change == "dependencies":
            project.dependencies = ["attrs>=20"]
            project.write_manifest()
        elif change == "entry point":
            project.write_manifest(**{":Plugin": ":Other"})
        else:
            id = "core"
        error = await house.refused(id)
        assert error.type == "restart_required"
        assert await house.word() == "v1"


async def test_an_unknown_id_is_a_typed_error_that_names_the_known_ones(project: Project, open_house: Open) -> None:
    async with open_house(project) as house:
        for name in ("reload", "enable", "disable", "rollback", "logs"):
            with pytest.raises(RpcError) as caught:
                await house.client.call(f"extensions.{name}", {"id": "nobody"})
            assert caught.value.type == "extension_not_found"
            assert "there are: gate, sample" in caught.value.message


async def test_a_settings_change_of_shape_keeps_what_still_fits(project: Project, open_house: Open) -> None:
    def settings(fields: str) -> None:
        project.plugin(
            "@hookimpl\ndef jan_settings(self):\n    return Settings",
            **{"\n\nclass Plugin": f"\n\nclass Settings(Struct):\n    {fields}\n\n\nclass Plugin"},
        )

    settings("colour: str = 'red'; size: int = 1")
    async with open_house(project) as house:
        await house.client.call("settings.set", {"extension": "sample", "values": {"colour": "blue", "size": 3}})
        settings("colour: str = 'red'; size: str = 'small'; extra: bool = True")
        await house.reload()
        values = (await house.client.call("settings.get", {"extension": "sample"}))["settings"]["sample"]
        assert values == {"colour": "blue", "size": "small", "extra": True}


async def test_a_saved_file_is_reloaded_by_the_watcher(project: Project, open_house: Open) -> None:
    async with open_house(project, watch=True) as house:
        assert house.host.watcher is not None
        with anyio.fail_after(10):
            await house.host.watcher.ready.wait()
        project.say("v2")
        await house.heard("extensions.changed", generation=2)
        assert await house.word() == "v2"
        project.write("words.py", "WORD = (\n")
        event = await house.heard("extensions.reloadFailed", id="sample")
        assert event.data["failure"]["stage"] == "compile"
        assert await house.word() == "v2"
        project.say("v3")
        await house.heard("extensions.changed", generation=3)
        assert await house.word() == "v3"


async def test_the_watcher_takes_up_an_extension_that_failed_at_the_start(project: Project, open_house: Open) -> None:
    project.write("words.py", "WORD = (\n")
    async with open_house(project, watch=True) as house:
        assert (await house.row())["state"] == "failed"
        assert house.host.watcher is not None
        with anyio.fail_after(10):
            await house.host.watcher.ready.wait()
        project.say("v1")
        await house.heard("extensions.changed", state="active")
        assert await house.word() == "v1"


async def test_the_watcher_leaves_an_extension_alone_that_nobody_has_called(tmp_path: Path, open_house: Open) -> None:
    project, other = Project(tmp_path, "lazy", activation="on-method"), Project(tmp_path)
    async with open_house(project, other, watch=True) as house:
        assert house.host.watcher is not None
        with anyio.fail_after(10):
            await house.host.watcher.ready.wait()
        project.say("v2")
        other.say("v2")
        await house.heard("extensions.changed", id="sample", generation=2)
        assert (await house.row("lazy"))["state"] == "discovered"
        assert await house.word("lazy") == "v2"


async def test_an_announced_hash_and_version_are_those_that_serve(project: Project, open_house: Open) -> None:
    async with open_house(project) as house:
        before = house.host.lifecycle.schema_hash()
        project.write_manifest(**{'version = "1.0"': 'version = "2.0"'})
        await house.reload()
        event = await house.heard("extensions.changed", generation=2)
        assert before != event.data["schemaHash"] == house.host.lifecycle.schema_hash()
        assert (await house.row())["version"] == "2.0"


async def test_a_watch_that_fails_is_said_and_costs_nothing_else(
    project: Project, open_house: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import watchfiles

    def refuse(*args: Any, **options: Any) -> Any:
        raise OSError("no watches left")

    monkeypatch.setattr(watchfiles, "awatch", refuse)
    async with open_house(project, watch=True) as house:
        with anyio.fail_after(5):
            while "no watches left; reload them by hand" not in caplog.text:
                await anyio.lowlevel.checkpoint()
        project.say("v2")
        await house.reload()
        assert await house.word() == "v2"
