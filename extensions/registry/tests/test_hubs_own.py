"""Another signed hub as a source: believed for its signatures alone, and remembered as a hub of its own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from jan_registry.hubs.base import open_hub
from jan_registry.hubs.errors import HubInvalid, HubRefused, HubUnreachable
from jan_registry.settings import SourceSetting

from jan_core import InvalidParams, JanError
from jan_core.types import SourcePage, SourceQuery

from .conftest import OpenHouse, Web, no_network
from .hubcase import Clock, Desk, desk
from .hubmaker import Hub

DAY = 86400.0


class Reader:
    """Somebody who has a hub among their sources, and a root to believe."""

    def __init__(self, one: Desk, hub: Hub, folder: Path) -> None:
        self.one, self.clock = one, one.clock
        self.root = folder / "1.root.json"
        self.root.write_bytes(hub.root)
        self.setting = SourceSetting("team", "hub", hub.url, options={"root": str(self.root)})

    async def ask(self, **query: object) -> SourcePage:
        return await open_hub(self.setting, self.one.http).page(SourceQuery(**query))  # type: ignore[arg-type]

    async def error(self) -> JanError:
        with pytest.raises(JanError) as raised:
            await self.ask()
        return raised.value


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """Three models, published a minute ago by the clock of `desk`."""
    now = Clock().now - 60
    hub = Hub(tmp_path, now=now).models("acme/rocket", "acme/comet", "b/moon")
    hub.publish(now=now)
    return hub


@asynccontextmanager
async def reader(hub: Hub, tmp_path: Path) -> AsyncIterator[Reader]:
    async with desk(tmp_path / "data") as one:
        one.http.context.data_dir = tmp_path / "data"  # type: ignore[misc]
        yield Reader(one, hub, tmp_path)


async def test_its_models_are_verified_and_its_own(hub: Hub, tmp_path: Path) -> None:
    async with reader(hub, tmp_path) as one:
        page = await one.ask()
        assert [model.id for model in page.models] == ["acme/comet", "b/moon", "acme/rocket"]
        assert {(model.source, model.verification) for model in page.models} == {("team", "verified")}
        assert all(len(file.sha256) == 64 for model in page.models for file in model.files)
        assert [model.id for model in (await one.ask(id="B/moon")).models] == ["b/moon"]
        assert (await one.ask(id="b/sun")).models == []
        assert [model.id for model in (await one.ask(text="rock")).models] == ["acme/rocket"]


async def test_its_list_comes_in_pages_that_end(hub: Hub, tmp_path: Path) -> None:
    async with reader(hub, tmp_path) as one:
        first = await one.ask(limit=2)
        second = await one.ask(limit=2, cursor=first.cursor)
        assert [model.id for model in first.models + second.models] == ["acme/comet", "b/moon", "acme/rocket"]
        assert second.cursor == ""
        with pytest.raises(InvalidParams):
            await one.ask(cursor="x")


async def test_it_is_asked_again_after_a_quarter_of_an_hour(hub: Hub, tmp_path: Path) -> None:
    async with reader(hub, tmp_path) as one:
        await one.ask()
        hub.models("acme/rocket").publish(now=one.clock.now)
        one.clock.now += 600
        page = await one.ask()
        assert (len(page.models), page.age, page.stale) == (3, 600, False)
        one.clock.now += 600
        page = await one.ask()
        assert (len(page.models), page.age) == (1, 0)


async def test_what_was_verified_is_shown_while_it_cannot_be_reached(hub: Hub, tmp_path: Path) -> None:
    async with reader(hub, tmp_path) as one:
        before = await one.ask()
        shutil.move(hub.tree, tmp_path / "away")
        one.clock.now += 90 * DAY
        after = await one.ask()
        assert after.models == before.models
        assert (after.age, after.stale) == (90 * DAY, True)
        assert len(after.notes) == 1
        again = await one.ask()
        assert (again.models, again.stale) == (before.models, True)
        assert again.notes == ["team could not be asked a moment ago"]
        shutil.move(tmp_path / "away", hub.tree)
        hub.publish(now=one.clock.now)
        one.clock.now += 60
        assert (await one.ask()).notes == []


async def test_what_is_not_believed_changes_nothing(hub: Hub, tmp_path: Path) -> None:
    async with reader(hub, tmp_path) as one:
        before = await one.ask()
        other = Hub(tmp_path, name="forger", now=one.clock.now).models("evil/model")
        other.publish(now=one.clock.now)
        shutil.rmtree(hub.tree)
        shutil.copytree(other.tree, hub.tree)
        one.clock.now += 1000
        after = await one.ask()
        assert after.models == before.models
        assert after.stale
        assert "is not believed" in after.notes[0]


async def test_an_older_state_is_not_believed_although_it_was_signed(hub: Hub, tmp_path: Path) -> None:
    async with reader(hub, tmp_path) as one:
        shutil.copytree(hub.tree, tmp_path / "older")
        hub.models("acme/rocket").publish(now=one.clock.now)
        before = await one.ask()
        shutil.rmtree(hub.tree)
        shutil.copytree(tmp_path / "older", hub.tree)
        one.clock.now += 1000
        after = await one.ask()
        assert after.models == before.models
        assert "is not believed" in after.notes[0]


async def test_without_anything_verified_the_reason_is_the_answer(hub: Hub, tmp_path: Path) -> None:
    async with reader(hub, tmp_path) as one:
        one.root.write_bytes(Hub(tmp_path, name="other").root)
        assert isinstance(await one.error(), HubInvalid)
        one.setting.url = "http://127.0.0.1:1/"
        assert isinstance(await one.error(), HubUnreachable)
        one.one.veto = "offline mode"
        refused = await one.error()
        assert isinstance(refused, HubRefused)
        assert refused.reason == "offline"


async def test_a_hub_without_a_root_to_believe_is_no_source(hub: Hub, tmp_path: Path) -> None:
    async with reader(hub, tmp_path) as one:
        for options in ({}, {"root": str(tmp_path / "nothing")}):
            one.setting.options = options
            assert isinstance(await one.error(), InvalidParams)


async def test_what_it_revokes_is_not_shown(hub: Hub, tmp_path: Path) -> None:
    hub.set("revocations", [{"id": "r1", "reason": "wrong licence", "model": "b/moon"}])
    hub.publish(now=Clock().now)
    async with reader(hub, tmp_path) as one:
        assert [model.id for model in (await one.ask()).models] == ["acme/comet", "acme/rocket"]
        assert (await one.ask(id="b/moon")).models == []


async def test_over_http_an_idle_question_costs_two_small_requests(hub: Hub, tmp_path: Path, web: Web) -> None:
    web.serve(hub.tree)
    async with reader(hub, tmp_path) as one:
        one.setting.url = web.url
        assert len((await one.ask()).models) == 3
        web.requests.clear()
        await one.ask()
        assert web.requests == []
        one.clock.now += 1000
        await one.ask()
        assert len(web.requests) == 2


async def test_through_the_method_it_stands_beside_the_list_and_has_no_part_in_it(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    main, team = Hub(tmp_path, name="main").models("acme/rocket"), Hub(tmp_path, name="team").models("team/model")
    main.set("featured", [{"id": "f", "models": ["acme/rocket"]}])
    main.publish()
    team.publish()
    root = tmp_path / "team.root.json"
    root.write_bytes(team.root)
    source = {"id": "team", "kind": "hub", "url": team.url, "options": {"root": str(root)}}
    async with open_house(hub=main, sources=[source]) as house:
        await house.call("refresh")
        page = await house.call("browse", source="team")
        assert [(model["id"], model["verification"]) for model in page["models"]] == [("team/model", "verified")]
        assert (await house.call("search", text="model"))["models"] == []
        assert {one["id"]: one["verified"] for one in (await house.call("sources"))["sources"]}["team"] is True
    async with open_house(hub=main, sources=[source], http=no_network) as house:
        assert (await house.call("browse", source="team", id="team/model"))["models"] == page["models"]
