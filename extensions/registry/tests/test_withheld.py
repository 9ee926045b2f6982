"""What protects holds whichever list is shown, and a slow extension keeps nobody from reading."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_registry.builtin import builtin_models
from jan_registry.publish.package import package

from jan_core import Empty, RpcError, hookimpl, method, methods_of
from jan_core.testing import InlineSource
from jan_core.types import DownloadFile, DownloadJob, ModelFile, ModelLoad

from .conftest import House, OpenHouse, Request, Web, no_network
from .hubmaker import Hub, model

pytestmark = pytest.mark.anyio

REVOKED = {"id": "r1", "model": "a", "reason": "it was stolen"}
SHADOW_OFF = {"kind": "flag", "id": "registry.shadow.enabled", "value": False}


def listed(hub: Hub, **collections: Any) -> Hub:
    hub.models("a", "b").set("featured", [{"id": "default", "models": ["a", "b"]}])
    for name, records in collections.items():
        hub.set(name, records)
    hub.publish()
    return hub


def withhold(hub: Hub, name: str) -> None:
    """As a mirror that serves all but one collection."""
    for path in [*hub.tree.glob(f"targets/collections/*.{name}.json.gz"), *hub.tree.glob(f"deltas/{name}/*")]:
        path.unlink()


async def refused(house: House) -> None:
    with pytest.raises(RpcError):
        await house.call("refresh")


async def voted(house: House, id: str) -> list[bool]:
    """Whether a model's file may be downloaded, known by its hash or its URL, and the model loaded."""
    [file] = model(id)["files"]
    known = DownloadFile("x", sha256=file["sha256"]), DownloadFile("x", url=file["sources"][0]["url"])
    hooks = house.host.hooks
    votes = [await hooks.admit_download(DownloadJob("1", each, "x", 1)) for each in known]
    votes.append(await hooks.admit_load(ModelLoad(id, [ModelFile("x", file["sha256"])])))
    return [all(vote.allowed for vote in each.values) for each in votes]


async def test_models_that_are_withheld_do_not_switch_revocations_and_flags_off(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    founded = time.time()
    hub = listed(Hub(tmp_path, now=founded))
    package(hub.tree, tmp_path / "release")
    listed(hub, revocations=[REVOKED], flags=[SHADOW_OFF]).models("a", "b", "c").publish()
    withhold(hub, "models")
    async with open_house(hub=hub, packaged=tmp_path / "release", http=no_network) as house:
        assert await house.ids() == ("bundle", ["a", "b"])
        await refused(house)
        assert await house.ids() == ("bundle", ["b"])
        assert (await house.call("get", id="a"))["revoked"] == "it was stolen"
        with pytest.raises(RpcError) as revoked:
            await house.call("resolve", id="a")
        assert revoked.value.type == "model_revoked"
        assert await voted(house, "a") == [False, False, False]
        assert await voted(house, "b") == [True, True, True]
        flag = (await house.call("flags"))["flags"]["registry.shadow.enabled"]
        assert (flag["value"], flag["level"]) == (False, "signed")


async def test_the_built_in_list_has_no_model_that_the_hub_revokes(open_house: OpenHouse, hub: Hub) -> None:
    listed(hub, revocations=[REVOKED | {"model": "smollm2-135m-instruct"}])
    withhold(hub, "models")
    async with open_house(hub=hub, http=no_network) as house:
        await refused(house)
        origin, ids = await house.ids()
        assert origin == "builtin"
        assert "jan-tiny" in ids
        assert "smollm2-135m-instruct" not in ids
        with pytest.raises(RpcError) as revoked:
            await house.call("resolve", id="smollm2-135m-instruct")
        assert revoked.value.type == "model_revoked"
        by_url = DownloadFile("x", url=builtin_models()[1].files[0].url)
        [vote] = (await house.host.hooks.admit_download(DownloadJob("1", by_url, "x", 1))).values
        assert not vote.allowed


async def test_a_release_with_later_models_does_not_undo_what_the_hub_revoked_since(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    founded = time.time()
    hub = listed(Hub(tmp_path, now=founded))
    shutil.copytree(hub.tree, tmp_path / "mirror")
    hub.models("a", "b", "c").publish()
    package(hub.tree, tmp_path / "release")
    shutil.rmtree(hub.tree)
    other = Hub(tmp_path, now=founded)  # the same keys: the state that was never published elsewhere
    listed(other, revocations=[REVOKED])
    async with open_house(hub=other, http=no_network) as house:
        await house.call("refresh")
        assert await house.ids() == ("network", ["b"])
    async with open_house(hub=other, packaged=tmp_path / "release", http=no_network) as house:
        assert await house.ids() == ("bundle", ["b"])


async def test_of_one_hub_the_later_revocations_hold_alone(open_house: OpenHouse, tmp_path: Path) -> None:
    hub = listed(Hub(tmp_path), revocations=[REVOKED])
    package(hub.tree, tmp_path / "release")
    async with open_house(hub=hub, packaged=tmp_path / "release", http=no_network) as house:
        assert await house.ids() == ("bundle", ["b"])
        hub.set("revocations", []).publish()  # it was a mistake
        await house.call("refresh")
        assert await house.ids() == ("network", ["a", "b"])


async def test_of_two_hubs_both_revoke(open_house: OpenHouse, tmp_path: Path) -> None:
    shipped = listed(Hub(tmp_path, name="shipped"), revocations=[REVOKED])
    package(shipped.tree, tmp_path / "release")
    hub = listed(Hub(tmp_path, name="other"), revocations=[REVOKED | {"model": "c"}])
    hub.models("a", "b", "c", "d").set("featured", [{"id": "default", "models": ["a", "b", "c", "d"]}]).publish()
    async with open_house(hub=hub, packaged=tmp_path / "release", http=no_network) as house:
        await house.call("refresh")
        assert await house.ids() == ("network", ["b", "d"])


async def test_a_hub_with_another_root_than_the_shipped_one_names_the_remedy(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    package(listed(Hub(tmp_path, name="shipped")).tree, tmp_path / "release")
    hub = listed(Hub(tmp_path, name="other"))
    async with open_house(url=hub.url, packaged=tmp_path / "release") as house:
        with pytest.raises(RpcError) as forged:
            await house.call("refresh")
        assert forged.value.data["kind"] == "forged"
        assert "registry.root" in forged.value.message


async def test_a_hub_that_never_answered_yet_is_due_now(open_house: OpenHouse, hub: Hub, web: Web) -> None:
    def hang(request: Request) -> None:
        web.released.wait(30)

    web.reply = hang
    async with open_house(hub=hub, url=web.url, refresh_seconds=3600) as house:
        status = await house.call("status")
        assert (status["refreshing"], status["failures"]) == (True, 0)
        assert status["next_refresh_at"] > "2026"
        web.released.set()


class Stuck:
    """An extension whose answers never come."""

    asked = 0

    @method("engines.list")
    async def engines(self, params: Empty) -> Empty:
        """Which engines there are."""
        Stuck.asked += 1
        await anyio.sleep_forever()
        return Empty()

    @hookimpl
    def jan_methods(self) -> list[Any]:
        return methods_of(self)


async def test_an_extension_that_never_answers_holds_no_list_for_long(open_house: OpenHouse, hub: Hub) -> None:
    needy = model("needy", requires={"engine": {"llamacpp": ">=1"}})
    hub.models("a", needy).set("featured", [{"id": "default", "models": ["a", "needy"]}]).publish()
    async with open_house(InlineSource("stuck", Stuck, ["engines."]), hub=hub) as house:
        await house.call("refresh")
        with anyio.fail_after(4):
            assert await house.ids() == ("network", ["a"])
        began = time.monotonic()
        for _ in range(5):  # asked once, and not again by every reader
            await house.ids()
        assert time.monotonic() - began < 1
        assert Stuck.asked == 1
