"""The choice of an engine build as a person sees it: explained on recorded machines, through a whole host."""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from jan_llamacpp.engines import choice
from jan_llamacpp.engines.builds import ENGINE_VERSION
from jan_llamacpp.plugin import LlamaCppExtension

from jan_core import RpcError
from jan_core.testing import InlineSource

from .machines import RecordedTools

pytestmark = pytest.mark.anyio

OpenHost = Callable[..., AbstractAsyncContextManager[Any]]
PREFIXES = ["engines.", "models.", "chat.", "completions.", "embeddings.", "remotes.", "tokens."]
CPU = f"cpu-{ENGINE_VERSION}"
CUDA12 = f"cuda12-{ENGINE_VERSION}"


class Desk:
    """A host whose machine can be exchanged."""

    def __init__(self, extension: LlamaCppExtension) -> None:
        self.extension = extension
        self.machine = ""
        self.env: dict[str, str] = {}
        self.client: Any = None

    def tools(self) -> RecordedTools:
        return RecordedTools(self.machine, **self.env)

    async def explain(self, machine: str) -> dict[str, Any]:
        self.machine = machine
        explained: dict[str, Any] = await self.client.call("engines.explain")
        return explained

    async def set(self, **values: object) -> None:
        await self.client.call("settings.set", {"extension": "llamacpp", "values": values})


@pytest.fixture
async def desk(open_host: OpenHost, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    extension = LlamaCppExtension()
    made = Desk(extension)
    detection = importlib.import_module("jan_llamacpp.engines.hardware.detect")  # the package's `detect` is a function
    monkeypatch.setattr(detection, "SystemTools", made.tools)
    async with open_host(sources=[InlineSource("llamacpp", extension, PREFIXES)], data_dir=data_dir) as host:
        made.client = host.client()
        yield made


async def test_every_candidate_has_its_verdict_and_its_reason(desk: Desk) -> None:
    explained = await desk.explain("gtx1060-new-driver")
    verdicts = {candidate["id"].partition("-")[0]: candidate for candidate in explained["candidates"]}
    assert (explained["build"], explained["by"], explained["warnings"]) == (CUDA12, "llamacpp", [])
    assert {name: verdict["verdict"] for name, verdict in verdicts.items()} == {
        "cpu": "usable", "cuda13": "refused", "cuda12": "chosen", "cuda11": "usable", "metal": "refused",
        "rocm": "refused", "vulkan": "refused",
    }  # fmt: skip
    assert verdicts["cpu"]["reason"] == f"it runs on every machine; {CUDA12} was preferred"
    assert "is 6.1; CUDA 13 needs 7.5 or newer" in verdicts["cuda13"]["reason"]
    assert verdicts["cuda11"]["reason"].endswith(f"; {CUDA12} was preferred")
    assert verdicts["vulkan"]["reason"] == "the Vulkan loader (libvulkan.so.1) is not installed"


async def test_a_gpu_without_a_driver_is_said_aloud_and_logged_once(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        explained = await desk.explain("nouveau")
        await desk.explain("nouveau")
    assert explained["build"] == CPU
    (warning,) = explained["warnings"]
    assert "has an NVIDIA GPU (PCI 0000:01:00.0) that cannot be used" in warning
    assert [record.getMessage() for record in caplog.records].count(warning) == 1


async def test_a_gpu_that_a_variable_hides_is_explained(desk: Desk) -> None:
    desk.env = {"CUDA_VISIBLE_DEVICES": "0,1"}
    explained = await desk.explain("h100-x8")
    assert (explained["build"], len(explained["hardware"]["devices"])) == (CUDA12, 2)
    assert explained["warnings"] == ["CUDA_VISIBLE_DEVICES=0,1 hides 6 of 8 × NVIDIA H100 80GB HBM3"]
    desk.env = {"CUDA_VISIBLE_DEVICES": ""}
    explained = await desk.explain("h100-x8")
    refused = {each["reason"] for each in explained["candidates"] if each["id"].startswith("cuda")}
    assert (explained["build"], refused) == (CPU, {'CUDA_VISIBLE_DEVICES="" hides every NVIDIA GPU'})


async def test_a_gpu_that_stays_idle_for_want_of_something_is_said_aloud(desk: Desk) -> None:
    (warning,) = (await desk.explain("mi300x-rocm6"))["warnings"]
    assert warning.startswith(f"The AMD Instinct MI300X is not used. rocm-{ENGINE_VERSION}: the prebuilt wheel needs")
    assert (await desk.explain("rx6600-rocm-vulkan"))["warnings"] == []  # it is used, through Vulkan
    assert (await desk.explain("steam-deck"))["warnings"] == []  # its GPU shares the memory: nothing is lost


async def test_a_gpu_whose_builds_are_all_refused_is_said_to_be_idle(desk: Desk) -> None:
    (warning,) = (await desk.explain("gtx1080-driver390"))["warnings"]
    assert warning.startswith(
        f"The GeForce GTX 1080 is not used. cuda11-{ENGINE_VERSION}: the driver 390.157 is too old"
    )
    aside = choice.Choice()
    for kind in ("rocm", "vulkan"):
        aside.set_aside(f"{kind}-{ENGINE_VERSION}", f"{kind}-{ENGINE_VERSION}", "its installation failed", "install")
    choice.change(desk.extension._services.engines, lambda decided: decided.aside.update(aside.aside))
    explained = await desk.explain("rx6600-rocm-vulkan")
    assert explained["build"] == CPU
    (warning,) = explained["warnings"]  # one card, though two drivers offer it
    assert warning == f"The AMD Radeon RX 6600 is not used. rocm-{ENGINE_VERSION}: its installation failed"


async def test_a_driver_that_appears_is_seen_by_the_next_explanation(desk: Desk) -> None:
    assert (await desk.explain("nouveau"))["build"] == CPU
    assert (await desk.explain("rtx4090-ubuntu"))["build"] == CUDA12


async def test_a_person_chooses_by_setting(desk: Desk) -> None:
    await desk.set(engine_build="cpu")
    explained = await desk.explain("gtx970-maxwell")
    assert (explained["build"], explained["by"], explained["warnings"]) == (CPU, "person", [])
    assert explained["reason"] == "the setting engine_build is 'cpu'"
    await desk.set(engine_build="cuda")  # also what would not be taken by itself
    assert (await desk.explain("gtx970-maxwell"))["build"] == CUDA12


@pytest.mark.parametrize(
    ("wanted", "why"),
    [("cuda13", "the driver 550.54.14 offers CUDA 12.4"), ("cuda-9", f"there is no such build; known: {CPU}")],
)
async def test_a_setting_that_cannot_be_followed_is_not_silently_replaced(desk: Desk, wanted: str, why: str) -> None:
    await desk.set(engine_build=wanted)
    explained = await desk.explain("rtx4090-ubuntu")
    assert (explained["build"], explained["by"]) == (CUDA12, "llamacpp")
    (warning,) = explained["warnings"]
    assert warning.startswith(f"The setting engine_build is {wanted!r}, but {CUDA12} is used: {why}")


async def test_a_gpu_that_is_full_of_our_own_models_is_not_given_up(desk: Desk) -> None:
    assert (await desk.explain("rtx3060-full"))["build"] == CPU
    desk.extension._services.engine_of["a model"] = CUDA12
    assert (await desk.explain("rtx3060-full"))["build"] == CUDA12


async def test_offline_an_engine_that_is_not_installed_waits(desk: Desk) -> None:
    await desk.set(offline=True)
    explained = await desk.explain("rtx4090-ubuntu")
    assert explained["build"] == CPU
    assert "is not used. cuda12" in explained["warnings"][0]
    assert explained["warnings"][0].endswith("it is not installed, and offline mode is on")


async def test_a_build_that_cannot_be_fetched_now_gives_way_to_an_installed_one_aloud(
    desk: Desk, babble: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk.machine = "rtx4090-ubuntu"
    await desk.set(wheel_index="http://127.0.0.1:9/", compile_engines=False, default_model="babble")
    await desk.client.call("models.import", {"path": str(babble), "id": "babble"})
    with caplog.at_level(logging.WARNING):
        assert (await desk.client.call("models.load", {"id": "babble"}))["engine"] == CPU
    assert any(f"{CUDA12} cannot be installed now" in record.getMessage() for record in caplog.records)
    assert (await desk.explain("rtx4090-ubuntu"))["build"] == CUDA12  # the next load tries again
    await desk.client.call("models.unload", {"id": "babble"})
    await desk.set(engine_build="cuda12")
    with pytest.raises(RpcError) as caught:
        await desk.client.call("models.load", {"id": "babble"})
    assert (caught.value.type, caught.value.data["reason"]) == ("engine_install_failed", "network")


async def test_a_setting_puts_another_folder_of_indexes_in_place(desk: Desk) -> None:
    desk.machine = "rtx4090-ubuntu"
    await desk.set(wheel_index="https://wheels.test/here/")
    builds = (await desk.client.call("engines.list"))["builds"]
    indexes = {build["id"].partition("-")[0]: build.get("index", "") for build in builds}
    assert indexes["cuda12"] == "https://wheels.test/here/cu124"
    assert indexes["cpu"] == "https://wheels.test/here/cpu"
