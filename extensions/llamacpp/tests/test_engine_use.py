"""An engine's first use: a new build that fails gives way to the one before; a person switches, goes back, tries again.

The bad engines are the CPU build with a defect that shows only in a worker, so that their check passes as it did for
people whose engine was updated under them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from jan_llamacpp.engine_shapes import EngineChanged
from jan_llamacpp.engine_use import EngineUse
from jan_llamacpp.engines import choice, installed
from jan_llamacpp.engines.builds import ENGINE_VERSION
from jan_llamacpp.engines.hardware import detect
from jan_llamacpp.engines.lock import held_now
from jan_llamacpp.engines.record import InstalledEngine
from jan_llamacpp.plugin import LlamaCppExtension
from jan_llamacpp.selection import Selected

from jan_core import Event, RpcError, hookimpl
from jan_core.testing import InlineSource
from jan_core.types import BuildChoice, EngineBuild, Hardware

from .wheel_index import pack, serving

pytestmark = pytest.mark.anyio

PREFIXES = ["engines.", "models.", "chat.", "completions.", "embeddings.", "remotes.", "tokens."]
BUILD = f"cpu-{ENGINE_VERSION}"
IN_WORKER = "import os, sys\nif sys.argv[0].endswith('boot.py'):\n    "
DIES_AT_START = f"\n{IN_WORKER}os.abort()\n"
DIES_AT_LOAD = f"\n{IN_WORKER}llama_model_load_from_file = lambda *a: os.abort()\n"
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
async def host(open_host: OpenHost, data_dir: Path, babble: Path) -> AsyncIterator[Any]:
    """A host with the engine, on which the model `babble` has been loaded."""
    async with open_host(sources=[InlineSource("llamacpp", LlamaCppExtension, PREFIXES)], data_dir=data_dir) as host:
        client = host.client()
        await client.call(
            "settings.set", {"extension": "llamacpp", "values": {"default_model": "babble", "offline": True}}
        )
        await client.call("models.import", {"path": str(babble), "id": "babble"})
        assert await loaded_on(client) == BUILD
        yield host


@pytest.fixture
def client(host: Any) -> Any:
    return host.client()


async def loaded_on(client: Any, model: str = "babble") -> str:
    """Load the model anew; the build it runs on."""
    await client.call("models.unload", {"id": model})
    return str((await client.call("models.load", {"id": model}))["engine"])


async def generation(client: Any) -> int:
    """That of the build in use."""
    listed = await client.call("engines.list")
    return next(int(record["generation"]) for record in listed["installed"] if record["id"] == BUILD)


async def explained(client: Any, id: str) -> dict[str, Any]:
    candidates = (await client.call("engines.explain"))["candidates"]
    return next(dict(each) for each in candidates if each["id"] == id)


@pytest.mark.parametrize("defect", [DIES_AT_START, DIES_AT_LOAD], ids=["start", "load"])
async def test_a_new_build_that_dies_at_its_first_use_gives_way_to_the_one_before(
    client: Any, engine_dir: Path, tmp_path: Path, defect: str
) -> None:
    bad = pack(engine_dir, tmp_path, spoil_bindings=defect)
    record = await client.call("engines.install", {"wheel": str(bad)})
    assert (record["id"], record["generation"]) == (BUILD, 2)
    assert await generation(client) == 2
    assert await loaded_on(client) == BUILD
    assert await generation(client) == 1

    [aside] = (await client.call("engines.list"))["set_aside"]
    assert (aside["id"], aside["generation"], aside["by"]) == (BUILD, 2, "use")
    assert aside["reason"].startswith("its first use failed (")
    assert aside["reason"].endswith(f"while {BUILD} could load babble")
    assert (await client.call("engines.explain"))["set_aside"] == [aside]
    assert (await client.call("engines.install", {}))["generation"] == 1  # by itself it is not installed again
    assert await loaded_on(client) == BUILD


async def test_a_new_version_that_fails_is_not_chosen_again_until_a_person_asks(
    client: Any, engine_dir: Path, tmp_path: Path
) -> None:
    bad = pack(engine_dir, tmp_path, version="0.3.100", spoil_bindings=DIES_AT_LOAD)
    assert (await client.call("engines.install", {"wheel": str(bad)}))["id"] == "cpu-0.3.100"
    assert (await client.call("engines.explain"))["build"] == "cpu-0.3.100"  # 0.3.100 > 0.3.36
    assert await loaded_on(client) == BUILD
    assert (await client.call("engines.explain"))["build"] == BUILD

    assert (await client.call("engines.use", {"id": "cpu-0.3.100"}))["build"] == "cpu-0.3.100"
    assert (await client.call("engines.list"))["set_aside"] == []
    assert await loaded_on(client) == BUILD  # it is not better than it was
    listed = await client.call("engines.list")
    assert (listed["use"], [entry["id"] for entry in listed["set_aside"]]) == (BUILD, ["cpu-0.3.100"])


async def test_when_the_earlier_build_fails_as_well_the_new_one_is_not_blamed(
    client: Any, engine_dir: Path, tmp_path: Path, make_model: Any
) -> None:
    good = pack(engine_dir, tmp_path)
    await client.call("engines.install", {"wheel": str(good)})
    await client.call("models.unload", {"id": "babble"})
    await client.call("models.delete", {"id": "babble"})
    other = make_model(pre="no-such-tokenizer")  # of the same name, but no engine loads it
    await client.call("models.import", {"path": str(other), "id": "babble"})
    seen: list[str] = []
    with pytest.raises(RpcError):
        await client.call("models.load", {"id": "babble"}, progress=lambda text, done, total: seen.append(text))
    assert f"{BUILD}~2 failed at its first use; trying {BUILD} as before" in seen
    assert (await client.call("engines.list"))["set_aside"] == []
    assert await generation(client) == 2


async def test_a_proven_build_is_not_given_up_for_one_bad_model(
    client: Any, engine_dir: Path, tmp_path: Path, make_model: Any
) -> None:
    good = pack(engine_dir, tmp_path)
    await client.call("engines.install", {"wheel": str(good)})
    assert await loaded_on(client) == BUILD
    other = make_model(pre="no-such-tokenizer")
    await client.call("models.import", {"path": str(other), "id": "other"})
    with pytest.raises(RpcError):
        await client.call("models.load", {"id": "other"})
    assert (await client.call("engines.list"))["set_aside"] == []
    assert await generation(client) == 2


async def test_a_person_goes_back_and_forth(client: Any, engine_dir: Path, tmp_path: Path) -> None:
    await client.call("engines.install", {"wheel": str(pack(engine_dir, tmp_path))})
    await client.call("engines.install", {"wheel": str(pack(engine_dir, tmp_path, version="0.3.40"))})
    assert await loaded_on(client) == "cpu-0.3.40"
    assert (await client.call("engines.rollback"))["id"] == BUILD  # it has no generation before: what ran before it
    assert await loaded_on(client) == BUILD
    assert (await client.call("engines.rollback", {"id": BUILD}))["generation"] == 1
    assert [entry["by"] for entry in (await client.call("engines.list"))["set_aside"]] == ["person"]
    assert (await client.call("engines.use", {"id": BUILD}))["reason"] == "it was chosen by hand"
    assert await generation(client) == 2
    assert (await client.call("engines.use", {"id": ""}))["build"] == "cpu-0.3.40"


async def test_there_may_be_nothing_to_go_back_to(client: Any) -> None:
    with pytest.raises(RpcError, match="there is nothing to go back to") as caught:
        await client.call("engines.rollback")
    assert caught.value.type == "engine_not_found"


async def test_the_house_chooses_again_when_the_chosen_build_is_removed(
    client: Any, engine_dir: Path, tmp_path: Path
) -> None:
    await client.call("engines.install", {"wheel": str(pack(engine_dir, tmp_path, version="0.3.9"))})
    assert (await client.call("engines.use", {"id": "cpu-0.3.9"}))["by"] == "person"
    await client.call("engines.remove", {"id": "cpu-0.3.9"})
    assert (await client.call("engines.explain"))["build"] == BUILD


async def test_a_build_that_a_person_went_back_from_can_be_used_again_once_it_was_removed(
    client: Any, engine_dir: Path, tmp_path: Path
) -> None:
    await client.call("engines.install", {"wheel": str(pack(engine_dir, tmp_path))})
    assert (await client.call("engines.rollback"))["generation"] == 1
    assert [entry["by"] for entry in (await client.call("engines.list"))["set_aside"]] == ["person"]
    await client.call("models.unload", {"id": "babble"})
    await client.call("engines.remove", {"id": BUILD})
    listed = await client.call("engines.list")
    assert (listed["installed"], listed["set_aside"]) == ([], [])
    assert (await client.call("engines.explain"))["build"] == BUILD


async def test_a_build_that_failed_stays_set_aside_when_it_is_removed(
    client: Any, engine_dir: Path, tmp_path: Path
) -> None:
    bad = pack(engine_dir, tmp_path, version="0.3.100", spoil_bindings=DIES_AT_LOAD)
    await client.call("engines.install", {"wheel": str(bad)})
    assert await loaded_on(client) == BUILD
    await client.call("engines.remove", {"id": "cpu-0.3.100"})
    assert [entry["id"] for entry in (await client.call("engines.list"))["set_aside"]] == ["cpu-0.3.100"]


async def test_only_what_is_installed_and_can_run_here_is_used(client: Any) -> None:
    with pytest.raises(RpcError, match="is not installed; install it first"):
        await client.call("engines.use", {"id": f"vulkan-{ENGINE_VERSION}"})
    with pytest.raises(RpcError, match="is not installed"):
        await client.call("engines.use", {"id": "../models"})


async def test_going_back_is_told(client: Any, engine_dir: Path, tmp_path: Path) -> None:
    bad = pack(engine_dir, tmp_path, spoil_bindings=DIES_AT_START)
    await client.call("engines.install", {"wheel": str(bad)})
    await client.call("models.unload", {"id": "babble"})
    seen: list[str] = []
    heard: list[EngineChanged] = []

    def note(event: Event) -> None:
        if event.name == "engines.changed":
            heard.append(msgspec.convert(event.data, EngineChanged))

    with client.notifications(note):
        await client.call("models.load", {"id": "babble"}, progress=lambda text, done, total: seen.append(text))
    [told] = heard
    assert (told.id, told.installed) == (BUILD, True)
    assert told.reason.startswith("its first use failed (")
    assert f"{BUILD}~2 failed at its first use; trying {BUILD} as before" in seen


async def test_a_load_that_is_cancelled_while_it_is_noted_is_given_up(engine_dir: Path, tmp_path: Path) -> None:
    chosen = next(engine for engine in installed.list_installed(engine_dir.parent))
    build = EngineBuild(chosen.id, "cpu", ENGINE_VERSION)
    discarded: list[str] = []

    class Selection:
        async def select(self) -> Selected:
            return Selected(detect(), [build], BuildChoice(build.id, "a test"), "test")

    class Installer:
        async def ensure(self, build: EngineBuild, report: object) -> InstalledEngine:
            return chosen

    async def start(engine: InstalledEngine) -> str:
        noting.set()
        return engine.id

    noting = anyio.Event()
    selection: Any = Selection()
    installer: Any = Installer()
    use = EngineUse(tmp_path, selection, lambda: installer, lambda *told: None, logging.getLogger("test"))
    with held_now(tmp_path / ".lock"):  # somebody else decides something: ours has to wait
        load = asyncio.create_task(use.run("m", lambda progress: None, start, discarded.append))
        with anyio.fail_after(30):
            await noting.wait()
        load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert discarded == [chosen.id]


class Card:
    """An extension for a graphics card that the machine turns out not to have."""

    index = ""

    @hookimpl
    def jan_engine_builds(self, hardware: Hardware) -> list[EngineBuild]:
        return [EngineBuild(f"vulkan-{ENGINE_VERSION}+card", "vulkan", ENGINE_VERSION, f"{self.index}/whl/vulkan")]


async def test_a_gpu_build_without_a_device_is_said_and_not_installed_again_by_itself(
    open_host: OpenHost, data_dir: Path, babble: Path, engine_dir: Path, tmp_path: Path
) -> None:
    gpu = f"vulkan-{ENGINE_VERSION}+card"
    with serving() as index:
        index.offer("vulkan", pack(engine_dir, tmp_path))
        Card.index = index.url
        sources = [InlineSource("llamacpp", LlamaCppExtension, PREFIXES), InlineSource("card", Card)]
        async with open_host(sources=sources, data_dir=data_dir) as host:
            client, seen = host.client(), list[str]()
            await client.call("settings.set", {"extension": "llamacpp", "values": {"engine_build": gpu}})
            await client.call("models.import", {"path": str(babble), "id": "babble"})
            loaded = await client.call(
                "models.load", {"id": "babble"}, progress=lambda text, done, total: seen.append(text)
            )
            assert loaded["engine"] == BUILD
            assert any(
                text.startswith(f"{gpu} cannot be used (") and text.endswith(f"; using {BUILD}") for text in seen
            )
            told = await explained(client, gpu)
            assert told["verdict"] == "refused"
            assert "this is a vulkan build, but it finds no GPU here" in told["reason"]
            asked = len(index.asked)
            assert await loaded_on(client) == BUILD
            assert len(index.asked) == asked

            with pytest.raises(RpcError) as caught:  # a person may try again
                await client.call("engines.install", {"id": gpu})
            assert caught.value.data["reason"] == "no_device"
            assert len(index.asked) > asked


def test_decisions_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    for content in (b"", b"{", b"[]", b'{"format": 2}', b'{"aside": 1}'):
        (tmp_path / "choice.json").write_bytes(content)
        assert choice.read(tmp_path) == choice.Choice()


def test_decisions_survive_and_are_forgotten_by_name(tmp_path: Path) -> None:
    def edit(decided: choice.Choice) -> None:
        decided.prove("a", "model")
        decided.prove("b", "model")
        decided.prove("a", "other")
        decided.set_aside("b", "b", "it broke", "use")

    choice.change(tmp_path, edit)
    decided = choice.read(tmp_path)
    assert list(decided.proven) == ["b", "a"]
    assert decided.is_latest("a", "model")
    assert not decided.is_latest("b", "model")
    assert (decided.refusal("b"), decided.refusal("a")) == ("it broke", "")
    decided.take_back("b")
    assert decided.refusal("b") == ""
