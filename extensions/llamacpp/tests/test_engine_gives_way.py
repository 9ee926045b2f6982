"""An engine that worked and does not any more: its GPU is gone, this software is a newer one, or somebody removes it.

The engines are copies of the CPU build under another record, or without a name that the worker needs.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import jan_llamacpp.worker
import msgspec
import pytest
from jan_llamacpp.client import LoadOptions, WorkerProcess
from jan_llamacpp.engine_holds import EngineHolds
from jan_llamacpp.engines import choice, installed
from jan_llamacpp.engines.builds import ENGINE_VERSION
from jan_llamacpp.failures import EngineBroken
from jan_llamacpp.plugin import LlamaCppExtension
from jan_llamacpp.worker.needed import NEEDED

from jan_core import Event, RpcError, hookimpl
from jan_core.testing import InlineSource
from jan_core.types import EngineBuild, Hardware

from .conftest import PATIENCE

pytestmark = pytest.mark.anyio

PREFIXES = ["engines.", "models.", "chat.", "completions.", "embeddings.", "remotes.", "tokens."]
BUILD = f"cpu-{ENGINE_VERSION}"
GPU = f"vulkan-{ENGINE_VERSION}+card"
OLD = "cpu-0.3.9"
LACKING = {"llama_cpp.py": "\ndel llama_model_is_hybrid\n"}
SEES_A_GPU = {
    "_ggml.py": """
class _Lib:
    def __getattr__(self, name):
        return getattr(_real, name)
_real, libggml = libggml, _Lib()
libggml.ggml_backend_dev_type = lambda device: 1
"""
}
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]


class Card:
    """An extension for a graphics card that detection sees."""

    @hookimpl
    def jan_engine_builds(self, hardware: Hardware) -> list[EngineBuild]:
        return [EngineBuild(GPU, "vulkan", ENGINE_VERSION)]


@pytest.fixture
def folder(data_dir: Path) -> Path:
    return data_dir / "llamacpp" / "engines"


@pytest.fixture
async def client(open_host: OpenHost, data_dir: Path, babble: Path, folder: Path) -> AsyncIterator[Any]:
    sources = [InlineSource("llamacpp", LlamaCppExtension, PREFIXES), InlineSource("card", Card)]
    async with open_host(sources=sources, data_dir=data_dir) as host:
        client = host.client()
        await settings(client, offline=True)
        await client.call("models.import", {"path": str(babble), "id": "babble"})
        yield client


def put(engines: Path, name: str, *, added: dict[str, str] | None = None, **record: Any) -> None:
    """Install a copy of the CPU build as `name`, with `added` at the ends of its modules."""
    [cpu] = installed.generations(engines, BUILD)[-1:]
    shutil.copytree(cpu.path, engines / name, copy_function=os.link)
    installed.write_record(engines / name, msgspec.structs.replace(cpu.record, id=name.partition("~")[0], **record))
    for module, code in (added or {}).items():
        path = engines / name / "llama_cpp" / module
        text = path.read_text("utf-8")
        path.unlink()  # it is a link
        path.write_text(text + code, "utf-8")


def outdate(engines: Path) -> None:
    """Leave only an engine that served an earlier version of this software, in two generations."""
    put(engines, OLD, version="0.3.9", added=LACKING)
    put(engines, f"{OLD}~2", version="0.3.9", generation=2, added=LACKING)
    shutil.rmtree(engines / BUILD)
    choice.change(engines, lambda decided: decided.prove(f"{OLD}~2", "babble"))


async def settings(client: Any, **values: Any) -> None:
    await client.call("settings.set", {"extension": "llamacpp", "values": {"default_model": "babble", **values}})


async def load(client: Any, seen: list[str] | None = None) -> dict[str, Any]:
    """Load the model anew; what is said of it. `seen` gets the progress."""
    texts: list[str] = [] if seen is None else seen
    await client.call("models.unload", {"id": "babble"})
    call = client.call("models.load", {"id": "babble"}, progress=lambda text, done, total: texts.append(text))
    return dict(await call)


@contextmanager
def changes(client: Any) -> Iterator[list[tuple[str, bool, str]]]:
    """What `engines.changed` tells."""
    heard: list[tuple[str, bool, str]] = []

    def note(event: Event) -> None:
        if event.name == "engines.changed":
            data: Any = event.data
            heard.append((data["id"], data["installed"], data["reason"]))

    with client.notifications(note):
        yield heard


async def test_a_worker_of_a_gpu_build_refuses_a_machine_without_a_gpu(engine_dir: Path, babble: Path) -> None:
    with anyio.fail_after(PATIENCE), pytest.raises(EngineBroken, match="this is a cuda build, but") as caught:
        await WorkerProcess.start(engine_dir, babble, LoadOptions(variant="cuda"))
    assert caught.value.data["reason"] == "no_device"
    assert "nvidia-smi" in caught.value.data["advice"]
    assert caught.value.data["advice"] in caught.value.message


async def test_a_gpu_build_that_finds_its_gpu_is_used(client: Any, folder: Path) -> None:
    put(folder, GPU, variant="vulkan", added=SEES_A_GPU)
    loaded = await load(client)
    assert (loaded["engine"], loaded["chosen"]) == (GPU, [])


async def test_a_gpu_that_is_gone_is_said_and_the_processor_serves_for_this_time(client: Any, folder: Path) -> None:
    put(folder, GPU, variant="vulkan")
    seen: list[str] = []
    with changes(client) as heard:
        loaded = await load(client, seen)
        assert (loaded["engine"], loaded["chosen"]) == (BUILD, [f"{GPU} is not used: it finds no GPU here now"])
        assert f"{GPU} cannot be used (it finds no GPU here now); taking another build" in seen
        assert (await load(client))["chosen"] == loaded["chosen"]
    assert heard == [(GPU, True, "it finds no GPU here now; the next load tries it again")]
    assert (await client.call("engines.list"))["set_aside"] == []
    assert (await client.call("engines.explain"))["build"] == GPU

    shutil.rmtree(folder / GPU)
    put(folder, GPU, variant="vulkan", added=SEES_A_GPU)  # its driver is back
    assert (await load(client))["engine"] == GPU


async def test_a_gpu_build_that_a_person_chose_is_not_replaced(client: Any, folder: Path) -> None:
    put(folder, GPU, variant="vulkan")
    await client.call("engines.use", {"id": GPU})
    with pytest.raises(RpcError, match="finds no GPU here now") as caught:
        await load(client)
    assert (caught.value.type, caught.value.data["reason"]) == ("engine_broken", "no_device")
    assert "vulkaninfo" in caught.value.data["advice"]


async def test_a_gpu_that_is_gone_where_nothing_else_can_be_had_is_an_error_that_says_both(
    client: Any, folder: Path
) -> None:
    put(folder, GPU, variant="vulkan")
    shutil.rmtree(folder / BUILD)
    await settings(client, offline=True, compile_engines=False)
    with pytest.raises(RpcError, match=f"finds no GPU here now.* In its place: {BUILD}: .*compiling is") as caught:
        await load(client)
    assert (caught.value.type, caught.value.data["reason"]) == ("engine_broken", "no_device")


async def test_an_installed_gpu_build_that_detection_refuses_is_said(client: Any, folder: Path) -> None:
    gpu = f"metal-{ENGINE_VERSION}"  # proposed, and refused on this machine or known to fail
    put(folder, gpu, variant="metal")
    explained = await client.call("engines.explain")
    refused = {each["id"]: each["reason"] for each in explained["candidates"] if each["verdict"] == "refused"}
    if gpu not in refused:
        pytest.skip("this machine has Metal")
    warning = f"{gpu} is installed, but it is not used: {refused[gpu]}"
    assert warning in explained["warnings"]
    assert warning in (await load(client))["chosen"]


async def test_an_engine_that_does_not_suit_an_update_is_replaced_by_one_that_does(client: Any, folder: Path) -> None:
    outdate(folder)
    seen: list[str] = []
    with changes(client) as heard:
        loaded = await load(client, seen)
    why = (
        "it does not suit this version of the software "
        "(the inference engine cannot be loaded: it has no llama_model_is_hybrid)"
    )
    assert loaded["engine"] == BUILD
    assert loaded["chosen"] == [f"{OLD}~2 is not used: {why}", f"{OLD} is not used: {why}"]
    assert f"{OLD}~2 cannot be used ({why}); taking another build" in seen
    assert "checking that the engine runs here" in seen  # it was installed
    assert heard == [(OLD, True, why), (OLD, False, why)]
    aside = (await client.call("engines.list"))["set_aside"]
    assert [(each["id"], each["generation"], each["by"]) for each in aside] == [(OLD, 2, "use"), (OLD, 1, "use")]
    assert (await load(client))["chosen"] == []


async def test_an_engine_chosen_by_hand_that_does_not_suit_an_update_leads_to_the_same_kind(
    client: Any, folder: Path
) -> None:
    put(folder, OLD, version="0.3.9", added=LACKING)
    put(folder, GPU, variant="vulkan", added=SEES_A_GPU)  # what the house would take
    await client.call("engines.use", {"id": OLD})
    assert (await load(client))["engine"] == BUILD
    assert (await client.call("engines.list"))["use"] == BUILD


async def test_an_engine_whose_functions_are_called_otherwise_now_is_replaced_as_well(
    client: Any, folder: Path
) -> None:
    put(folder, OLD, version="0.3.9", added={"llama_cpp.py": "\nllama_model_load_from_file = lambda path: None\n"})
    await client.call("engines.use", {"id": OLD})
    with pytest.raises(RpcError, match=r"the engine gave up on .*: defect: TypeError") as caught:
        await load(client)  # it never loaded this model: what is at fault cannot be told
    assert caught.value.data["cause"] == "defect"
    choice.change(folder, lambda decided: decided.prove(OLD, "babble"))
    loaded = await load(client)
    assert loaded["engine"] == BUILD
    assert "it does not suit this version of the software (the engine gave up on" in loaded["chosen"][0]


async def test_where_the_new_engine_cannot_be_had_the_error_says_what_to_do(client: Any, folder: Path) -> None:
    outdate(folder)
    await settings(client, offline=True, compile_engines=False)
    for _ in range(2):  # the second request hears as much as the first
        with pytest.raises(RpcError) as caught:
            await load(client)
        assert (caught.value.type, caught.value.data["build"]) == ("engine_install_failed", BUILD)
        assert f"{OLD} is installed, but it does not suit this version of the software" in caught.value.message
        assert "Switch on the setting compile_engines" in caught.value.message
        assert f"--wheel FILE, with a wheel of llama-cpp-python {ENGINE_VERSION}" in caught.value.message
    await settings(client, compile_engines=True)
    assert (await load(client))["engine"] == BUILD


async def test_offline_the_error_says_how_the_new_engine_gets_here(
    client: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outdate(folder)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(RpcError, match="offline mode is on") as caught:
        await load(client)
    assert f"(settings offline and routing): jan engines install {BUILD}. Without: jan engines" in caught.value.message


async def test_where_decisions_cannot_be_kept_the_failure_is_told_once(client: Any, folder: Path) -> None:
    outdate(folder)
    (folder / ".lock").unlink()
    (folder / ".lock").mkdir()
    with anyio.fail_after(PATIENCE), pytest.raises(RpcError, match="it has no llama_model_is_hybrid") as caught:
        await load(client)
    assert (caught.value.type, caught.value.data["reason"]) == ("engine_broken", "incompatible")


def test_what_did_not_suit_another_version_of_the_software_counts_no_more(tmp_path: Path) -> None:
    def edit(decided: choice.Choice) -> None:
        decided.set_aside("a", "a", "it does not suit", "use", worker="0.0.1")
        decided.set_aside("b", "b", "it does not suit", "use", worker=ENGINE_VERSION)
        decided.set_aside("c", "c", "it broke", "use")

    choice.change(tmp_path, edit)
    assert list(choice.read(tmp_path).aside) == ["b", "c"]


def test_every_name_the_worker_takes_from_the_bindings_is_known_to_be_needed() -> None:
    sources = [path.read_text("utf-8") for path in Path(jan_llamacpp.worker.__path__[0]).glob("*.py")]
    used = {name for text in sources for name in re.findall(r"\bc\.((?:llama|ggml)_\w+)", text, re.IGNORECASE)}
    used |= {name for text in sources for name in re.findall(r"\b_c\.((?:llama|ggml)_\w+)", text, re.IGNORECASE)}
    assert used == NEEDED


async def test_an_engine_is_not_removed_while_a_model_is_being_loaded_on_it(client: Any, folder: Path) -> None:
    reached = anyio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        reached.set()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    waits = f"import socket\nsocket.create_connection({server.sockets[0].getsockname()}).recv(1)\n"
    put(folder, f"{BUILD}~2", generation=2, added={"llama_cpp.py": f"\n{waits}"})
    async with server:
        loading = asyncio.create_task(load(client))
        with anyio.fail_after(PATIENCE):
            await reached.wait()
            with pytest.raises(RpcError, match=f"{BUILD} is used by babble; unload it first") as caught:
                await client.call("engines.remove", {"id": BUILD})
            assert (caught.value.type, caught.value.data["models"]) == ("engine_in_use", ["babble"])
            writers[0].close()
            assert (await loading)["engine"] == BUILD
    assert (await client.call("engines.list"))["set_aside"] == []
    with pytest.raises(RpcError, match="is used by babble"):
        await client.call("engines.remove", {"id": BUILD})
    await client.call("models.unload", {"id": "babble"})
    await client.call("engines.remove", {"id": BUILD})
    assert installed.generations(folder, BUILD) == []


async def test_a_load_waits_for_a_removal_that_is_under_way() -> None:
    holds = EngineHolds()
    order: list[str] = []

    async def take() -> None:
        with holds.load("m") as hold:
            order.append("asked")
            await hold.take("a")
            order.append("taken")
            async with holds.removal("a") as loading:
                assert loading == ["m"]

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            async with holds.removal("a") as loading:
                assert loading == []
                tasks.start_soon(take)
                await anyio.wait_all_tasks_blocked()
                order.append("removed")
        async with holds.removal("a") as loading:
            assert loading == []
    assert order == ["asked", "removed", "taken"]
