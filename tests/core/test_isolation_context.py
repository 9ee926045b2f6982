"""What an isolated extension is handed, and how it is called: nothing is other than in the host's own process."""

from __future__ import annotations

import datetime
import decimal
import enum
import linecache
import shutil
import sys
import threading
import uuid
from collections.abc import AsyncIterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import anyio.lowlevel
import msgspec
import pytest

from jan_core import Call, Empty, RpcError, hookimpl, method, methods_of
from jan_core.events import Event
from jan_core.extension import Extension
from jan_core.host import Host
from jan_core.isolation.shapes import Description
from jan_core.isolation.typed import settings_type
from jan_core.isolation.windows import WINDOW
from jan_core.loader import PackageSource, folder_source
from jan_core.rpc.direct import DirectClient
from jan_core.testing import InlineSource
from jan_core.types import ChatMessage, ChatRequest, InferenceEngine, InferenceRequest

from .isolated.src.jan_isolated.sample import Number
from .isolation import PROJECT


class Neighbour:
    """Somebody in the host's own process."""

    def __init__(self) -> None:
        self.sent = 0

    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @hookimpl
    async def jan_inference_engines(self) -> list[InferenceEngine]:
        return [InferenceEngine("near", "local", "near.count")]

    @hookimpl
    async def jan_before_inference(self, request: InferenceRequest) -> InferenceRequest:
        request.chat.model += " and milk"
        return request

    @method("near.who")
    async def who(self, params: Empty, call: Call) -> str:
        """Who calls."""
        return call.caller

    @method("near.count", item=Number)
    async def count(self, params: Number, call: Call) -> Empty:
        """The numbers below `value`."""
        for value in range(params.value):
            await call.send(Number(value))
            self.sent = value + 1
        return Empty()


class Kind(enum.Enum):
    A = "a"
    B = "b"


class Inner(msgspec.Struct, tag="inner"):
    depth: int
    again: Inner | None = None


class Other(msgspec.Struct, tag="other", forbid_unknown_fields=True):
    name: str = "x"


class Everything(msgspec.Struct, rename="kebab"):
    """Fields of every type that settings may have."""

    an_int: Annotated[int, msgspec.Meta(ge=1, le=5, multiple_of=2)] = 2
    text: Annotated[str, msgspec.Meta(pattern="^a", max_length=3)] = "a"
    flag: bool = True
    when: datetime.datetime | None = None
    day: datetime.date = datetime.date(2026, 1, 2)
    key: uuid.UUID = uuid.UUID(int=5)
    price: decimal.Decimal = decimal.Decimal("1.50")
    raw: bytes = b"\x00\xff"
    kind: Kind = Kind.A
    one_of: Literal["x", 3, None] = 3
    either: int | str | None = "s"
    names: tuple[str, ...] = ()
    pair: tuple[int, str] = (1, "x")
    some: Annotated[set[int], msgspec.Meta(max_length=2)] = msgspec.field(default_factory=set)
    table: dict[str, list[float]] = msgspec.field(default_factory=lambda: {"a": [1.0]})
    tagged: Inner | Other = msgspec.field(default_factory=lambda: Inner(1, Inner(2)))
    anything: Any = msgspec.field(default_factory=lambda: {"deep": [1, None]})


@pytest.fixture
def near() -> Neighbour:
    return Neighbour()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
async def host(open_host: Any, near: Neighbour, project: Path) -> AsyncIterator[Host]:
    async with open_host(sources=[folder_source(project), InlineSource("near", near, ["near."])]) as opened:
        yield opened


@pytest.fixture
def client(host: Host) -> DirectClient:
    return host.client("somebody")


@pytest.fixture
def rude(host: Host) -> Extension:
    return host.lifecycle.extensions["test"]


def asking(model: str) -> InferenceRequest:
    return InferenceRequest(ChatRequest(model=model, messages=[ChatMessage("user", "tea?")]))


# -- outwards ---------------------------------------------------------------------------------------------------------


async def test_it_calls_others_under_its_own_name(client: DirectClient) -> None:
    assert await client.call("rude.ask", {"method": "near.who", "params": {}}) == "test"


async def test_it_calls_itself_through_the_host(client: DirectClient) -> None:
    assert await client.call("rude.ask", {"method": "test.double", "params": {"value": 4}}) == {"value": 8}


async def test_the_errors_of_others_reach_it_and_go_on(client: DirectClient) -> None:
    for wanted, params, type in [
        ("no.such", {}, "method_not_found"),
        ("test.half", {}, "kettle_empty"),
        ("near.count", {"value": "x"}, "invalid_params"),
    ]:
        with pytest.raises(RpcError) as caught:
            await client.call("rude.ask", {"method": wanted, "params": params})
        assert caught.value.type == type


async def test_it_reads_a_long_stream_and_calls_between_its_items(client: DirectClient) -> None:
    with anyio.fail_after(20):
        assert await client.call("rude.sum", {"method": "near.count", "params": {"value": 500}}) == 124_750


async def test_it_calls_the_hooks_of_the_whole_house(client: DirectClient) -> None:
    assert await client.call("rude.hooks", {"text": "cup"}) == ["cup with tea and milk", [["near", 1]]]


async def test_its_http_client_is_its_own(client: DirectClient) -> None:
    pytest.importorskip("httpx")
    assert await client.call("rude.http") == "AsyncClient"


# -- flow control -----------------------------------------------------------------------------------------------------


async def test_a_reader_that_stops_stalls_its_own_stream_and_no_other_call(client: DirectClient) -> None:
    with anyio.fail_after(10):
        async with client.stream("test.drip", {"value": 100_000}) as stalled:
            items = aiter(stalled)
            await anext(items)
            for value in range(100):
                assert await client.call("test.double", {"value": value}) == {"value": 2 * value}
            async with client.stream("test.count", {"value": 1_000}) as other:
                assert len([item async for item in other]) == 1_000


async def test_items_that_nobody_reads_are_not_piled_up(client: DirectClient) -> None:
    with anyio.fail_after(10):
        async with client.stream("test.count", {"value": 100_000}) as stream:
            await anext(aiter(stream))
            sent = [await client.call("rude.sent") for _ in range(50)]
    assert sent[-1] <= 4 * WINDOW


async def test_items_that_it_does_not_read_are_not_piled_up_either(client: DirectClient, near: Neighbour) -> None:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(client.call, "rude.hold", {"method": "near.count", "params": {"value": 100_000}})
            await client.call("test.until", {"text": "running"})
            for _ in range(50):
                await client.call("rude.pid")
            assert near.sent <= 4 * WINDOW
            await client.call("test.let")


async def test_a_deadline_holds(client: DirectClient) -> None:
    with anyio.fail_after(5), pytest.raises(RpcError) as caught:
        await client.call("rude.late")
    assert (caught.value.type, caught.value.data) == ("deadline_exceeded", {"seconds": 0.1})


# -- hooks ------------------------------------------------------------------------------------------------------------


async def test_its_hooks_run_in_their_place_and_cross_as_their_types(host: Host) -> None:
    answer = await host.hooks.before_inference(asking("cup"))
    assert type(answer) is InferenceRequest
    assert answer.chat.model == "cup with tea and milk"  # tryfirst, though its id comes last


async def test_a_hook_that_raises_is_on_the_record_with_its_own_line(host: Host, rude: Extension) -> None:
    answer = await host.hooks.before_inference(asking("broken"))
    assert answer.chat.model == "broken and milk"
    assert rude.failure is not None
    assert (rude.failure.stage, rude.failure.type, rude.failure.message) == ("hook", "ValueError", "the cup is broken")
    assert "the cup is broken" in linecache.getline(rude.failure.file, rude.failure.line)


async def test_a_hook_that_crashes_costs_its_result_and_the_next_call_of_it_works(host: Host) -> None:
    with anyio.fail_after(10):
        assert (await host.hooks.before_inference(asking("crash"))).chat.model == "crash and milk"
        assert (await host.hooks.before_inference(asking("cup"))).chat.model == "cup with tea and milk"


async def test_it_hears_events(host: Host, client: DirectClient) -> None:
    host.bus.emit(Event("near.happened", {"a": 1}, "near"))
    with anyio.fail_after(5):
        while "near.happened" not in await client.call("rude.heard"):
            pass


async def test_only_the_hooks_it_implements_are_registered(host: Host) -> None:
    builtin = await host.hooks.builtin_models()
    assert builtin.outcomes == []


# -- settings ---------------------------------------------------------------------------------------------------------

DEFAULTS = {"kind": "black", "minutesDrawn": 3.0, "taste": {"sugar": 1}, "guests": ["Ada"], "note": None}


async def test_settings_are_checked_in_the_host_and_current_in_the_child(client: DirectClient) -> None:
    assert await client.call("rude.settings") == DEFAULTS
    changed = {"kind": "green", "minutesDrawn": 2.5, "taste": {"sugar": 9}, "guests": ["Ada", "Bob"], "note": "hot"}
    await client.call("settings.set", {"extension": "test", "values": changed})
    assert await client.call("rude.settings") == changed
    await client.call("settings.set", {"extension": "test", "values": dict.fromkeys(changed)})
    assert await client.call("rude.settings") == DEFAULTS


async def test_a_change_of_settings_reaches_what_runs_in_it_already(client: DirectClient) -> None:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(client.call, "rude.notice", {"text": "hot"})
            await client.call("test.until", {"text": "running"})
            await client.call("settings.set", {"extension": "test", "values": {"note": "hot"}})


@pytest.mark.parametrize(
    "values",
    [{"kind": "red"}, {"minutesDrawn": 0}, {"taste": {"sugar": 10}}, {"guests": [1]}, {"note": 3}, {"milk": True}],
)
async def test_values_that_do_not_fit_are_refused(client: DirectClient, values: Any) -> None:
    with pytest.raises(RpcError) as caught:
        await client.call("settings.set", {"extension": "test", "values": values})
    assert caught.value.type == "invalid_params"
    assert caught.value.data["path"].startswith("$.values.")
    assert await client.call("rude.settings") == DEFAULTS


async def test_the_schema_of_its_settings_is_shown(client: DirectClient) -> None:
    schemas = await client.call("settings.schema", {"extension": "test"})
    text = msgspec.json.encode(schemas["schemas"]["test"]).decode()
    for part in ('"minutesDrawn"', '"exclusiveMinimum":0', '"green"', '"maximum":9', "How the tea is made."):
        assert part in text


def test_settings_of_every_shape_are_made_again_from_their_schema() -> None:
    (schema,), types = msgspec.json.schema_components([Everything])
    description = Description(
        [], [], {}, settings=schema, settings_types=types, defaults=msgspec.to_builtins(Everything())
    )
    made = settings_type(description)
    assert made is not None
    assert msgspec.json.encode(made()) == msgspec.json.encode(Everything())
    for member in msgspec.structs.fields(made):
        value = msgspec.to_builtins(Everything())[member.encode_name]
        assert msgspec.json.encode(msgspec.convert(value, member.type)) == msgspec.json.encode(value)


# -- what is said of it -----------------------------------------------------------------------------------------------


async def test_it_is_described_by_its_own_types(client: DirectClient, open_host: Any, tmp_path: Path) -> None:
    isolated = await client.call("rpc.discover")
    plain = tmp_path / "plain"
    shutil.copytree(PROJECT, plain, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = (plain / "pyproject.toml").read_text().replace('isolation = "process"\n', "")
    (plain / "pyproject.toml").write_text(manifest)
    near = InlineSource("near", Neighbour(), ["near."])
    async with open_host(sources=[folder_source(plain), near], data_dir=tmp_path / "other") as host:
        assert await host.client().call("rpc.discover") == isolated


async def test_a_state_is_shown_with_how_it_runs(client: DirectClient) -> None:
    rows = (await client.call("extensions.list"))["extensions"]
    assert {row["id"]: row.get("isolation", "none") for row in rows} == {"near": "none", "test": "process"}


# -- generations ------------------------------------------------------------------------------------------------------


async def test_a_reload_is_a_new_process_that_takes_the_state_over(client: DirectClient, project: Path) -> None:
    before = await client.call("rude.pid")
    await client.call("rude.keep", {"text": "half a cup"})
    sample = project / "src" / "jan_isolated" / "sample.py"
    sample.write_text(sample.read_text().replace("params.value * 2", "params.value * 3"))
    waiting: list[Any] = []

    async def wait() -> None:
        waiting.append(await client.call("test.wait"))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await client.call("test.until", {"text": "running"})
            async with client.stream("test.drip", {"value": 300}) as old:
                items = aiter(old)
                await anext(items)
                reloaded = await client.call("extensions.reload", {"id": "test"})
                assert (reloaded["generation"], reloaded["changed"]) == (2, True)
                assert await client.call("test.double", {"value": 2}) == {"value": 6}
                assert await client.call("rude.kept") == ["half a cup", True, 2]
                assert await client.call("rude.pid") != before
                assert len([item async for item in items]) == 299  # the old process sees it through
            group.cancel_scope.cancel()
    assert waiting == []


async def test_a_reload_that_fails_leaves_the_old_process_serving(client: DirectClient, project: Path) -> None:
    before = await client.call("rude.pid")
    plugin = project / "src" / "jan_isolated" / "plugin.py"
    plugin.write_text(plugin.read_text() + "\nraise RuntimeError('spilt')\n")
    with pytest.raises(RpcError) as caught:
        await client.call("extensions.reload", {"id": "test"})
    assert caught.value.type == "reload_failed"
    assert caught.value.data["failure"]["stage"] == "import"
    assert caught.value.data["failure"]["message"] == "spilt"
    assert caught.value.data["failure"]["file"].endswith("plugin.py")
    assert await client.call("rude.pid") == before


async def test_a_reload_that_fails_when_the_state_is_handed_over_leaves_no_process_behind(
    host: Host, client: DirectClient, project: Path
) -> None:
    sample = project / "src" / "jan_isolated" / "sample.py"
    sample.write_text(sample.read_text().replace("params.value * 2", "params.value * 3"))
    (host.data_dir / "test" / "die").touch()
    with pytest.raises(RpcError) as caught:
        await client.call("extensions.reload", {"id": "test"})
    assert caught.value.data["failure"]["stage"] == "export"
    (host.data_dir / "test" / "die").unlink()
    with anyio.fail_after(5):
        assert await client.call("test.double", {"value": 2}) == {"value": 4}
        while len([thread for thread in threading.enumerate() if thread.name == "child test"]) > 1:
            await anyio.lowlevel.checkpoint()  # the thread that waits for a process ends after it


async def test_what_is_started_again_is_the_code_that_was_serving(client: DirectClient, project: Path) -> None:
    sample = project / "src" / "jan_isolated" / "sample.py"
    sample.write_text("an edit that nobody has loaded")
    with pytest.raises(RpcError):
        await client.call("rude.exit", {"value": 1})
    with anyio.fail_after(10):
        assert await client.call("test.double", {"value": 2}) == {"value": 4}


async def test_a_rollback_is_a_new_process_of_the_old_code(client: DirectClient, project: Path) -> None:
    sample = project / "src" / "jan_isolated" / "sample.py"
    sample.write_text(sample.read_text().replace("params.value * 2", "params.value * 3"))
    await client.call("extensions.reload", {"id": "test"})
    assert await client.call("test.double", {"value": 2}) == {"value": 6}
    await client.call("extensions.rollback", {"id": "test"})
    assert await client.call("test.double", {"value": 2}) == {"value": 4}


async def test_an_installed_one_is_imported_in_its_process_alone_and_under_its_ordinary_name(
    open_host: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project / "src"))
    source = PackageSource("test", "jan_isolated.plugin:Isolated", live=False)
    async with open_host(sources=[source]) as host:
        client = host.client()
        assert await client.call("rude.module") == "jan_isolated.plugin"
        assert not [name for name in list(sys.modules) if name.startswith("jan_isolated")]
        with pytest.raises(RpcError):
            await client.call("rude.exit", {"value": 1})
        assert await client.call("rude.module") == "jan_isolated.plugin"
        sample = project / "src" / "jan_isolated" / "sample.py"
        sample.write_text(sample.read_text().replace("params.value * 2", "params.value * 3"))
        await client.call("extensions.reload", {"id": "test"})
        assert await client.call("test.double", {"value": 2}) == {"value": 6}


async def test_native_code_is_reloaded_too_since_each_process_loads_it_anew(
    client: DirectClient, project: Path
) -> None:
    package = project / "src" / "jan_isolated"
    (package / f"fast{EXTENSION_SUFFIXES[0]}").touch()
    sample = package / "sample.py"
    for factor in (3, 4):
        sample.write_text(sample.read_text().replace(f"params.value * {factor - 1}", f"params.value * {factor}"))
        reloaded = await client.call("extensions.reload", {"id": "test"})
        assert reloaded["generation"] == factor - 1
        assert await client.call("test.double", {"value": 2}) == {"value": 2 * factor}
        with pytest.raises(RpcError):
            await client.call("rude.exit", {"value": 1})
        assert await client.call("test.double", {"value": 2}) == {"value": 2 * factor}


async def test_it_is_switched_off_and_on(client: DirectClient) -> None:
    before = await client.call("rude.pid")
    await client.call("extensions.disable", {"id": "test"})
    with pytest.raises(RpcError) as caught:
        await client.call("rude.pid")
    assert caught.value.type == "method_not_found"
    await client.call("extensions.enable", {"id": "test"})
    assert await client.call("rude.pid") != before
