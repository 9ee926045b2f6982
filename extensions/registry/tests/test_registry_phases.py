"""The roll-out as callers see it: which list each phase serves, what is measured beside it, and what that leads to."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_registry.flags.identity import install_id
from jan_registry.local import open_local

from jan_core import Event, RpcError, hookimpl
from jan_core.types import DownloadFile, Evidence, Flags, ModelContext, ModelRecord, PhaseChoice

from .conftest import House, OpenHouse, Request, Web
from .hubmaker import Hub, model

pytestmark = pytest.mark.anyio

BUILTIN = ["jan-tiny", "mine"]


class Mine:
    """Another extension's built-in model, whose hash is known."""

    @hookimpl
    def jan_builtin_models(self) -> list[ModelRecord]:
        file = DownloadFile("model.gguf", "https://files.test/mine", "c" * 64, 1_000_000_000)
        return [ModelRecord("mine", "Mine", featured=True, files=[file])]


def flags(**values: Any) -> list[dict[str, Any]]:
    names = {"phase": "registry.phase", "percent": "registry.mixed.percent", "ceiling": "registry.phase.ceiling"}
    return [{"kind": "flag", "id": names[name], "value": value} for name, value in values.items()]


def hub_of(hub: Hub, *ids: str, **values: Any) -> Hub:
    hub.models(*ids).set("featured", [{"id": "default", "models": list(ids)}])
    hub.set("flags", flags(**values)).publish()
    return hub


async def served(house: House) -> tuple[str, str]:
    """The phase in force, and which list is served."""
    phase = await house.call("phase")
    answer = await house.call("featured")
    assert answer["provenance"]["arm"] == phase["arm"]
    return phase["phase"], phase["arm"]


async def test_in_fallback_the_hubs_list_is_served_and_the_built_in_one_where_there_is_none(
    open_house: OpenHouse, hub: Hub
) -> None:
    hub_of(hub, "a")
    async with open_house(hub=hub) as house:
        assert await served(house) == ("fallback", "builtin")
        await house.call("refresh")
        assert await served(house) == ("fallback", "dynamic")


@pytest.mark.parametrize(("percent", "arm"), [(0, "builtin"), (100, "dynamic")])
async def test_in_mixed_the_share_decides_and_both_lists_are_measured(
    open_house: OpenHouse, hub: Hub, percent: int, arm: str
) -> None:
    hub_of(hub, "jan-tiny", "new", phase="mixed", percent=percent)
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        assert await served(house) == ("mixed", arm)
        phase = await house.call("phase")
        assert (phase["level"], phase["percent"]) == ("signed", percent)
        assert (await house.call("get", id="new"))["model"]["id"] == "new"  # by name, whichever list is served
        assert 0 <= phase["bucket"] < 10_000
        with anyio.fail_after(20):
            while not (report := await house.call("report"))["pairs"]["pairs"]:
                await house.call("featured")
        assert report["syncs"]["ok"] == 1
        assert report["pairs"]["conflicts"] == 0


def test_in_dynamic_the_built_in_module_need_not_be_there(hub: Hub, tmp_path: Path) -> None:
    hub_of(hub, "a", "b", phase="dynamic")
    root = tmp_path / "root.json"
    root.write_bytes(hub.root)
    script = f"""
import asyncio, importlib.abc, json, sys
from pathlib import Path

class Gone(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "jan_registry.builtin":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Gone())
from jan_core.host import Host
from jan_core.testing import InlineSource
from jan_registry.plugin import RegistryExtension

async def main():
    source = InlineSource("registry", RegistryExtension, ["registry."])
    async with Host(Path({str(tmp_path / "data")!r}), sources=[source]) as host:
        await host.activate_startup()
        client = host.client()
        values = {{"url": {hub.url!r}, "root": {str(root)!r}, "refresh_seconds": 0}}
        await client.call("settings.set", {{"extension": "registry", "values": values}})
        await client.call("registry.refresh")
        featured = await client.call("registry.featured")
        found = await client.call("registry.search", {{"text": "b"}})
        await client.call("registry.status")
        await client.call("registry.report")
        phase = (await client.call("registry.phase"))["phase"]
        assert "jan_registry.builtin" not in sys.modules
        ids = [model["id"] for model in featured["models"]], [model["id"] for model in found["models"]]
        print(json.dumps([phase, featured["provenance"]["arm"], *ids]))

asyncio.run(main())
"""
    (tmp_path / "data").mkdir()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["dynamic", "dynamic", ["a", "b"], ["b"]]
    assert "builtin" not in done.stderr


async def test_in_dynamic_a_machine_without_any_list_shows_nothing_rather_than_the_built_in_one(
    open_house: OpenHouse,
) -> None:
    async with open_house(phase="dynamic") as house:
        assert await house.ids() == ("cache", [])
        with pytest.raises(RpcError) as unknown:
            await house.call("get", id="jan-tiny")
        assert unknown.value.type == "model_unknown"


async def test_a_conflict_between_the_lists_demotes_at_once_and_is_a_decision_that_can_be_made_again(
    open_house: OpenHouse, hub: Hub
) -> None:
    hub_of(hub, "mine", phase="mixed", percent=100)  # the same id and file, another hash
    async with open_house(Mine(), hub=hub) as house:
        with anyio.fail_after(60):
            await house.call("refresh")
            while (phase := await house.call("phase"))["phase"] != "fallback":
                await house.call("featured")
        assert (phase["level"], phase["arm"]) == ("demotion", "builtin")
        assert "conflict" in phase["cause"]
        assert phase["demoted_until"] > "2026"
        report = await house.call("report", replay=True)
        decision = report["decisions"][0]
        assert (decision["from_phase"], decision["to_phase"]) == ("mixed", "fallback")
        assert report["replayed"] == {"same": len(report["decisions"]), "differs": 0, "unknown": 0}
    async with open_house(Mine(), hub=hub) as house:  # a restart forgets nothing
        assert (await house.call("phase"))["level"] == "demotion"


async def test_what_the_network_refuses_or_forges_never_changes_the_phase_nor_the_list(
    open_house: OpenHouse, hub: Hub, web: Web
) -> None:
    hub_of(hub, "a", phase="dynamic")
    web.serve(hub.tree)
    async with open_house(hub=hub, url=web.url) as house:
        await house.call("refresh")
        before = await house.call("featured")

        def forge(request: Request) -> None:
            request.answer(200, b'{"signed": {"_type": "timestamp"}, "signatures": []}')

        web.reply = forge
        for _ in range(5):
            with pytest.raises(RpcError):
                await house.call("refresh")
        assert await served(house) == ("dynamic", "dynamic")
        assert (await house.call("featured"))["models"] == before["models"]
        report = await house.call("report")
        assert (report["syncs"]["ok"], report["syncs"]["refused"]) == (1, 5)


async def test_the_person_at_the_machine_comes_before_the_operator_and_an_extension_between_them(
    open_house: OpenHouse, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shell:
        @hookimpl
        def jan_rollout_phase(self, flags: Flags, evidence: Evidence) -> PhaseChoice:
            assert flags["registry.mixed.percent"] == 7
            seen.append(evidence)
            return PhaseChoice("dynamic", "this application wants it")

    seen: list[Evidence] = []

    hub_of(hub, "a", phase="mixed", percent=7)
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        assert (await house.call("phase"))["level"] == "signed"
    async with open_house(Shell(), hub=hub) as house:
        phase = await house.call("phase")
        assert (phase["phase"], phase["level"]) == ("dynamic", "extension")
        assert "other0: this application wants it" in phase["reason"]
        await house.call("refresh")
        await house.call("phase")
        assert seen[-1].requests == 1
        assert seen[-1].errors == 0
    async with open_house(Shell(), hub=hub, phase="fallback") as house:
        phase = await house.call("phase")
        assert (phase["phase"], phase["level"], phase["asked"]) == ("fallback", "setting", "fallback")
    monkeypatch.setenv("JAN_REGISTRY_PHASE", "mixed")
    async with open_house(hub=hub, phase="fallback") as house:
        phase = await house.call("phase")
        assert (phase["phase"], phase["level"]) == ("mixed", "environment")


async def test_a_list_is_shown_to_those_it_is_meant_for(open_house: OpenHouse, hub: Hub) -> None:
    german = [{"field": "locale", "op": "in", "values": ["de"]}]
    swiss = [{"field": "region", "op": "in", "values": ["CH"]}]
    unknown = [{"field": "star_sign", "op": "in", "values": ["leo"]}]
    hub.models("a", "b", "c", model("only-swiss", target=swiss)).set(
        "featured",
        [
            {"id": "default", "models": ["a", "only-swiss"]},
            {"id": "de", "models": ["b", "only-swiss"], "priority": 1, "target": german},
            {"id": "never", "models": ["c"], "priority": 9, "target": unknown},
        ],
    ).publish()

    async def ids(house: House, **context: str) -> list[str]:
        return [m["id"] for m in (await house.call("featured", context=context))["models"]]

    async with open_house(hub=hub) as house:
        await house.call("refresh")
        assert await ids(house, locale="en-GB") == ["a"]
        assert await ids(house, locale="de_AT.UTF-8") == ["b"]
        assert await ids(house, locale="de-CH") == ["b", "only-swiss"]
    async with open_house(hub=hub, region="CH") as house:
        assert await ids(house, locale="en-GB") == ["a", "only-swiss"]


async def test_an_experiment_shows_its_branch_is_noted_once_and_can_be_left(open_house: OpenHouse, hub: Hub) -> None:
    experiment = {
        "kind": "experiment",
        "id": "order",
        "branches": [{"id": "control"}, {"id": "other", "slot": "other"}],
        "metric": "chat",
    }
    slots = [{"id": "default", "models": ["a", "b"]}, {"id": "other", "models": ["b", "a"], "priority": -1}]
    hub.models("a", "b").set("featured", slots).set("flags", [experiment]).publish()
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        answer = await house.call("featured")
        assert answer["experiment"] == "order"
        shown = {"control": ["a", "b"], "other": ["b", "a"]}
        for _ in range(3):
            again = await house.call("featured")
            assert again["branch"] == answer["branch"]
            assert [m["id"] for m in again["models"]] == shown[answer["branch"]]
        with anyio.fail_after(10):
            while not (mine := (await house.call("experiments"))["experiments"][0])["sessions"]:
                await anyio.lowlevel.checkpoint()
        assert (mine["status"], mine["branch"], mine["sessions"]) == ("enrolled", answer["branch"], 1)
    async with open_house(hub=hub, experiments=False) as house:
        answer = await house.call("featured")
        assert (answer["experiment"], [m["id"] for m in answer["models"]]) == ("", ["a", "b"])
        assert (await house.call("experiments"))["experiments"][0]["reason"] == "opt-out"


async def test_what_a_person_uses_rises_for_them_and_is_told_nobody(
    open_house: OpenHouse, hub: Hub, web: Web, tmp_path: Path
) -> None:
    hub_of(hub, "a", "b", "c", "canary-model")
    seen: list[str] = []
    web.serve(hub.tree)
    answer = web.reply

    def listen(request: Request) -> None:
        seen.append(f"{request.path} {request.headers}")
        answer(request)

    web.reply = listen
    async with open_house(hub=hub, url=web.url) as house:
        await house.call("refresh")
        assert (await house.ids())[1] == ["a", "b", "c", "canary-model"]
        for number in range(40):
            state = "loaded" if number % 2 else "unloaded"
            house.host.bus.emit(Event("models.changed", {"id": "canary-model", "state": state}))
        with anyio.fail_after(20):
            while (await house.ids())[1][0:3] == ["a", "b", "c"]:
                await anyio.lowlevel.checkpoint()
        await house.call("phase")
        await house.call("refresh")
    db = sqlite3.connect(tmp_path / "data" / "registry" / "registry.db")
    counted = db.execute("SELECT sum(count) FROM usage WHERE model = 'canary-model'").fetchone()[0]
    secrets = ["canary", install_id(open_local(tmp_path / "data" / "registry"))]
    db.close()
    assert counted > 0
    assert len(seen) >= 2
    assert not [line for line in seen if any(secret in line for secret in secrets)]


async def test_another_hub_is_asked_only_when_it_is_named_and_a_veto_holds_for_it_too(
    open_house: OpenHouse, web: Web
) -> None:
    from jan_core.types import Admission, DownloadJob

    class Offline:
        @hookimpl
        def jan_admit_download(self, job: DownloadJob) -> Admission:
            return Admission(False, "this machine is offline")

    body = json.dumps({"object": "list", "data": [{"id": "far-model", "object": "model", "owned_by": "them"}]})
    web.reply = lambda request: request.answer(200, body.encode(), Content_Type="application/json")
    theirs = {"id": "theirs", "kind": "openai", "url": f"{web.url}v1"}
    async with open_house(sources=[theirs]) as house:
        assert "theirs" in [source["id"] for source in (await house.call("sources"))["sources"]]
        await house.call("search", text="far")
        assert web.requests == []
        found = await house.call("search", text="far", source="theirs")
        assert [m["name"] for m in found["models"]] == ["far-model"]
        assert found["verification"]["status"] == "unverified"
        assert (found["provenance"]["origin"], found["provenance"]["source"]) == ("source", "theirs")
        with pytest.raises(RpcError) as unknown:
            await house.call("search", text="far", source="nobody")
        assert unknown.value.code == -32602
    asked = len(web.requests)
    others = {"id": "others", "kind": "openai", "url": f"{web.url}other/v1"}
    async with open_house(Offline(), sources=[others]) as house:
        with pytest.raises(RpcError) as refused:
            await house.call("search", text="far", source="others")
        assert (refused.value.type, refused.value.data["reason"]) == ("hub_refused", "offline")
    assert len(web.requests) == asked


async def test_the_context_a_hook_is_given_is_filled_in_from_this_machine(open_house: OpenHouse) -> None:
    seen: list[ModelContext] = []

    class Watching:
        @hookimpl
        def jan_rank_models(self, models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
            seen.append(context)
            return models

    async with open_house(Watching(), region="NZ") as house:
        await house.call("featured", context={"locale": "mi-NZ", "query": "words"})
    assert (seen[0].locale, seen[0].region, seen[0].query) == ("mi-NZ", "NZ", "words")
    assert seen[0].os in ("linux", "macos", "windows")
    assert seen[0].memory_total > 0
    assert seen[0].app_version
