"""The model list as callers see it: what is shown when, who vouches for it, and what the network can do to it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import RpcError, hookimpl
from jan_core.types import ModelContext, ModelRecord

from .conftest import OpenHouse, Request, Web, no_network
from .hubmaker import Hub, Serve, model, nginx  # noqa: F401  (a fixture is found by its name)

pytestmark = pytest.mark.anyio


def listed(hub: Hub, *ids: str, **options: Any) -> Hub:
    """Publish a hub of these models, all of them featured."""
    hub.models(*ids).set("featured", [{"id": "default", "models": list(ids)}]).publish(**options)
    return hub


async def test_without_a_hub_the_built_in_list_is_there_at_once_and_no_network_is_used(open_house: OpenHouse) -> None:
    async with open_house(http=no_network, refresh_seconds=60) as house:
        with anyio.fail_after(2):
            origin, ids = await house.ids()
        assert origin == "builtin"
        assert ids[0] == "jan-tiny"
        assert len(ids) == 6
        answer = await house.call("featured")
        assert answer["verification"]["status"] == "builtin"
        assert answer["provenance"]["age"] is None
        assert {m["verification"] for m in answer["models"]} == {"builtin"}
        with pytest.raises(RpcError) as refused:
            await house.call("refresh")
        assert (refused.value.type, refused.value.code) == ("no_registry", -32073)


async def test_a_hub_that_is_not_there_leaves_the_built_in_list(open_house: OpenHouse, hub: Hub, web: Web) -> None:
    web.stop()
    async with open_house(hub=hub, url=web.url) as house:
        with pytest.raises(RpcError) as failed:
            await house.call("refresh")
        assert (failed.value.type, failed.value.retryable) == ("registry_unreachable", True)
        assert (await house.ids())[0] == "builtin"
        status = await house.call("status")
        assert status["failures"] == 1
        assert "127.0.0.1" in status["error"]


async def test_a_refresh_serves_the_hubs_list_and_says_who_signed_it(
    open_house: OpenHouse,
    hub: Hub,
    nginx: Serve,  # noqa: F811
) -> None:
    hub.models("a", "b", "hidden").set("featured", [{"id": "default", "models": ["b", "a"]}]).publish()
    async with open_house(hub=hub, url=nginx(hub.tree)) as house:
        report = await house.call("refresh")
        assert (report["outcome"], report["models"], report["added"]) == ("updated", 3, 3)
        answer = await house.call("featured")
        assert [m["id"] for m in answer["models"]] == ["b", "a"]
        assert {m["verification"] for m in answer["models"]} == {"verified"}
        assert answer["models"][0]["featured"] is True
        verification = answer["verification"]
        assert (verification["status"], verification["role"]) == ("verified", "featured")
        assert len(verification["keyids"]) == 1
        assert verification["versions"].keys() >= {"root", "timestamp", "snapshot", "targets", "featured"}
        assert len(verification["digest"]) == 64
        assert verification["expires"] > verification["verified_at"] > "2026"
        assert answer["provenance"]["origin"] == "network"
        assert 0 <= answer["provenance"]["age"] < 60
        assert (await house.call("search", text="hid"))["models"][0]["id"] == "hidden"
        assert house.events == [{"added": 3, "removed": 0, "changed": 0, "models": 3, "seq": 1}]


async def test_an_unchanged_list_costs_two_small_answers_and_renews_its_age(open_house: OpenHouse, hub: Hub) -> None:
    listed(hub, "a")
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        report = await house.call("refresh")
        assert (report["outcome"], report["added"], report["deltas"], report["fulls"]) == ("unchanged", 0, 0, 0)
        assert report["requests"] == 2
        assert report["bytes"] <= 500
        assert len(house.events) == 1


async def test_a_change_comes_as_a_delta_and_is_counted(open_house: OpenHouse, hub: Hub) -> None:
    listed(hub, *(f"m{i:03}" for i in range(200)))
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        ids = [f"m{i:03}" for i in range(1, 200)]
        hub.models(*ids, "new", model("m150", name="Another name")).collections["models"].pop(149)
        hub.publish()
        report = await house.call("refresh")
        assert (report["added"], report["removed"], report["changed"]) == (1, 1, 1)
        assert (report["deltas"], report["fulls"], report["models"]) == (1, 0, 200)
        assert (await house.call("get", id="m150"))["model"]["name"] == "Another name"
        assert (await house.call("search", text="another"))["total"] == 1
        with pytest.raises(RpcError) as unknown:
            await house.call("get", id="m000")
        assert unknown.value.type == "model_unknown"


async def test_the_last_verified_list_survives_a_restart_and_the_death_of_its_hub(
    open_house: OpenHouse, hub: Hub
) -> None:
    listed(hub, "a")
    async with open_house(hub=hub) as house:
        await house.call("refresh")
    shutil.rmtree(hub.tree)
    async with open_house(hub=hub, http=no_network) as house:
        assert await house.ids() == ("cache", ["a"])
        with pytest.raises(RpcError) as failed:
            await house.call("refresh")
        assert failed.value.type == "registry_unreachable"
        assert await house.ids() == ("cache", ["a"])


async def test_ninety_days_offline_the_list_is_there_and_says_how_old_it_is(
    open_house: OpenHouse, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(hub, "a")
    async with open_house(hub=hub) as house:
        await house.call("refresh")
    later = time.time() + 90 * 86400
    shutil.rmtree(hub.tree)
    monkeypatch.setattr("time.time", lambda: later)
    async with open_house(hub=hub) as house:
        answer = await house.call("featured")
        assert [m["id"] for m in answer["models"]] == ["a"]
        assert answer["verification"]["status"] == "stale"
        assert 90 * 86400 - 60 < answer["provenance"]["age"] < 90 * 86400 + 60
        assert answer["verification"]["expires"] < answer["verification"]["verified_at"][:4] + "z"


async def test_what_is_not_signed_is_refused_and_the_last_list_stays(open_house: OpenHouse, hub: Hub, web: Web) -> None:
    listed(hub, "a")
    web.serve(hub.tree)
    async with open_house(hub=hub, url=web.url) as house:
        await house.call("refresh")
        (hub.tree / "metadata" / "timestamp.json").write_text('{"signed": {}}')
        with pytest.raises(RpcError) as refused:
            await house.call("refresh")
        assert refused.value.type == "registry_refused", refused.value.message
        assert refused.value.data["kind"] == "malformed"
        assert await house.ids() == ("network", ["a"])
        status = await house.call("status")
        assert status["failures"] == 1
        assert "timestamp.json" in status["error"]


async def test_reading_never_waits_for_the_network(open_house: OpenHouse, hub: Hub, web: Web) -> None:
    arrived = anyio.Event()
    loop = asyncio.get_running_loop()

    def hang(request: Request) -> None:
        loop.call_soon_threadsafe(arrived.set)
        web.released.wait(30)

    web.reply = hang
    async with open_house(hub=hub, url=web.url, refresh_seconds=3600) as house:
        with anyio.fail_after(10):
            await arrived.wait()  # the background refresh hangs now
        with anyio.fail_after(2):
            assert (await house.ids())[0] == "builtin"
            assert (await house.call("search", text="qwen"))["total"] == 2
            assert (await house.call("get", id="jan-tiny"))["model"]["id"] == "jan-tiny"
            assert (await house.call("status"))["refreshing"] is True
        web.released.set()


async def test_many_refreshes_at_once_are_one(open_house: OpenHouse, hub: Hub, web: Web) -> None:
    listed(hub, "a")
    web.serve(hub.tree)
    async with open_house(hub=hub, url=web.url) as house:
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(house.call, "refresh")
        once = len(web.requests)
        await house.call("refresh")
        assert len(web.requests) == once + 2


async def test_the_list_is_fetched_in_the_background_once_a_hub_is_named(
    open_house: OpenHouse, hub: Hub, tmp_path: Path
) -> None:
    listed(hub, "a")
    root = tmp_path / "root.json"
    root.write_bytes(hub.root)
    async with open_house(refresh_seconds=3600) as house:
        assert (await house.ids())[0] == "builtin"
        values = {"url": hub.url, "root": str(root)}
        await house.client.call("settings.set", {"extension": "registry", "values": values})
        await house.changed()
        assert await house.ids() == ("network", ["a"])
        assert (await house.call("status"))["next_refresh_at"] != ""


async def test_the_list_of_one_hub_is_never_shown_for_another(open_house: OpenHouse, hub: Hub, tmp_path: Path) -> None:
    listed(hub, "a")
    other = listed(Hub(tmp_path, name="other"), "b")
    async with open_house(hub=hub) as house:
        await house.call("refresh")
    async with open_house(hub=other) as house:
        assert (await house.ids())[0] == "builtin"
    async with open_house(hub=other, url=hub.url) as house:  # the right address, and another root of trust
        with pytest.raises(RpcError) as refused:
            await house.call("refresh")
        assert refused.value.type == "registry_refused"
        assert (await house.ids())[0] == "builtin"
    async with open_house(hub=hub) as house:
        assert await house.ids() == ("cache", ["a"])


async def test_of_hubs_long_not_used_only_the_versions_that_were_seen_are_kept(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    for number in range(5):
        hub = listed(Hub(tmp_path, name=f"hub{number}"), f"m{number}")
        async with open_house(hub=hub) as house:
            await house.call("refresh")
            folder = house.data_dir / "hubs"
    kept = []
    for path in sorted(folder.glob("*/hub.db")):
        db = sqlite3.connect(path)
        kept.append(
            (
                db.execute("SELECT count(*) FROM record").fetchone()[0] > 0,
                db.execute("SELECT count(*) FROM trusted_version").fetchone()[0] > 0,
            )
        )
        db.close()
    assert sorted(kept) == [(False, True), *[(True, True)] * 4]


async def test_without_a_root_to_trust_a_hub_is_not_asked(open_house: OpenHouse, hub: Hub, tmp_path: Path) -> None:
    listed(hub, "a")
    for root in ("", str(tmp_path / "not there")):
        async with open_house(url=hub.url, root=root) as house:
            with pytest.raises(RpcError) as refused:
                await house.call("refresh")
            assert (refused.value.type, refused.value.data["kind"]) == ("registry_refused", "no_root")
            status = await house.call("status")
            assert any("root" in note for note in status["notes"])
            assert (await house.ids())[0] == "builtin"


async def test_a_damaged_store_is_set_aside_rebuilt_and_reported(open_house: OpenHouse, hub: Hub) -> None:
    listed(hub, "a")
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        stores = list(house.data_dir.glob("hubs/*/hub.db"))
    stores[0].write_bytes(b"no database" * 1000)
    async with open_house(hub=hub) as house:
        assert (await house.ids())[0] == "builtin"
        assert any("damaged" in note for note in (await house.call("status"))["notes"])
        await house.call("refresh")
        assert await house.ids() == ("network", ["a"])
        assert len(list(stores[0].parent.glob("hub.db.damaged-*"))) == 1


async def test_a_stored_list_that_was_tampered_with_is_dropped_and_fetched_anew(
    open_house: OpenHouse, hub: Hub
) -> None:
    listed(hub, "a")
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        store = next(house.data_dir.glob("hubs/*/hub.db"))
    db = sqlite3.connect(store)
    with db:
        db.execute(
            "UPDATE record SET data = CAST(replace(CAST(data AS TEXT), '\"A\"', '\"Z\"') AS BLOB) WHERE coll = 'models'"
        )
    db.close()
    async with open_house(hub=hub) as house:
        with anyio.fail_after(10):
            while (await house.ids())[0] != "builtin":
                await anyio.lowlevel.checkpoint()
        assert any("models" in note for note in (await house.call("status"))["notes"])
        report = await house.call("refresh")
        assert (report["outcome"], report["fulls"]) == ("updated", 1)
        assert (await house.call("get", id="a"))["model"]["name"] == "A"


async def test_what_was_shipped_is_where_the_first_refresh_begins_and_is_shown_when_it_is_newer(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    from jan_registry.publish.package import package

    founded = time.time()  # the same root, to the byte
    hub = Hub(tmp_path, now=founded)
    ids = [f"m{i:03}" for i in range(300)]
    listed(hub, *ids)
    first, second = tmp_path / "first release", tmp_path / "second release"
    package(hub.tree, first)
    listed(hub, *ids, "new")
    package(hub.tree, second)
    async with open_house(hub=hub, packaged=first, http=no_network) as house:
        answer = await house.call("featured", limit=1)
        assert (answer["provenance"]["origin"], answer["verification"]["status"]) == ("bundle", "bundled")
        report = await house.call("refresh")
        assert (report["fulls"], report["models"]) == (0, 301)
        assert report["bytes"] < 8000
    async with open_house(hub=hub, packaged=second, http=no_network) as house:
        assert (await house.call("status"))["provenance"]["origin"] == "cache"
    (tmp_path / "elsewhere").mkdir()
    older = listed(Hub(tmp_path / "elsewhere", now=founded), *ids)  # the same root, the state of the first release
    async with open_house(hub=older, http=no_network) as house:
        await house.call("refresh")
    async with open_house(hub=older, packaged=second, http=no_network) as house:
        status = await house.call("status")
        assert (status["provenance"]["origin"], status["models"]) == ("bundle", 301)


async def test_another_hub_can_be_named_while_one_is_being_written(
    open_house: OpenHouse, hub: Hub, tmp_path: Path
) -> None:
    listed(hub, "a")
    other = listed(Hub(tmp_path, name="other"), "b")
    (tmp_path / "other.json").write_bytes(other.root)
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        catalogue = house.host.lifecycle.extensions["registry"].current.plugin._services.catalogue
        with catalogue.named_hub.store.db.write():  # as a sync does, for as long as that takes
            values = {"url": other.url, "root": str(tmp_path / "other.json")}
            with anyio.fail_after(10):
                await house.client.call("settings.set", {"extension": "registry", "values": values})
                assert catalogue.hub.url == other.url  # asked on the event loop: it waits for nobody
        await house.call("refresh")
        assert await house.ids() == ("network", ["b"])


async def test_another_process_s_refresh_is_seen(open_house: OpenHouse, hub: Hub) -> None:
    from jan_registry.search import index
    from jan_registry.signed.fetching import fetcher
    from jan_registry.signed.store import HubStore
    from jan_registry.signed.sync import sync

    listed(hub, "a")
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        listed(hub, "a", "b")
        other = HubStore(next(house.data_dir.glob("hubs/*")))
        fetch = fetcher(hub.url, no_network, timeout=5)
        await anyio.to_thread.run_sync(lambda: sync(other, fetch, hub.root, now=time.time, on_models=index))
        other.close()
        with anyio.fail_after(10):
            while (await house.ids())[1] != ["a", "b"]:
                await anyio.lowlevel.checkpoint()


async def test_extensions_filter_and_rank_what_is_recommended(open_house: OpenHouse) -> None:
    class Taste:
        @hookimpl
        def jan_filter_models(self, models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
            return [m for m in models if m.parameters * 2 <= context.memory_free]

        @hookimpl
        def jan_rank_models(self, models: list[ModelRecord]) -> list[ModelRecord]:
            return sorted(models, key=lambda m: -m.parameters)

    class Broken:
        @hookimpl
        def jan_filter_models(self, models: list[ModelRecord]) -> list[ModelRecord]:
            raise RuntimeError("costs only itself")

    async with open_house(Broken(), Taste()) as house:
        answer = await house.call("featured", context={"memory_free": 1_000_000_000}, limit=2)
        assert [m["id"] for m in answer["models"]] == ["qwen2.5-0.5b-instruct", "smollm2-360m-instruct"]
        assert answer["total"] == 4


async def test_another_extension_adds_built_in_models_of_its_own(open_house: OpenHouse) -> None:
    class More:
        @hookimpl
        def jan_builtin_models(self) -> list[ModelRecord]:
            return [
                ModelRecord(id="mine", name="Mine", featured=True, verification="verified"),
                ModelRecord(id="jan-tiny", name="Impostor"),
            ]

    async with open_house(More()) as house:
        answer = await house.call("get", id="mine")
        assert (answer["model"]["source"], answer["model"]["verification"]) == ("other0", "builtin")
        assert (await house.call("get", id="jan-tiny"))["model"]["name"] == "Jan Tiny"


async def test_search_finds_words_in_any_case_and_pages(open_house: OpenHouse) -> None:
    async with open_house() as house:
        answer = await house.call("search", text="QWEN instruct", limit=1)
        assert (answer["models"][0]["id"], answer["total"]) == ("qwen2.5-0.5b-instruct", 2)
        second = await house.call("search", text="QWEN instruct", limit=1, offset=1)
        assert second["models"][0]["id"] == "qwen2.5-1.5b-instruct"
        assert (await house.call("search", text="nothing like it"))["models"] == []


async def test_a_model_resolves_to_the_files_of_the_variant_that_is_asked_for(open_house: OpenHouse, hub: Hub) -> None:
    record = model("a")
    big = {**record["files"][0], "path": "big.gguf", "sha256": "b" * 64}
    record["files"].append(big)
    record["variants"].append({"id": "q8_0", "quant": "Q8_0", "files": [1]})
    hub.models(record, model("nowhere", files=[{"path": "x.gguf"}])).publish()
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        first = await house.call("resolve", id="a")
        assert (first["variant"], first["checkable"]) == ("q4_k_m", True)
        assert [file["url"] for file in first["files"]] == ["https://files.test/a/model.gguf"]
        second = await house.call("resolve", id="a", variant="q8_0")
        assert [(file["name"], file["sha256"]) for file in second["files"]] == [("big.gguf", "b" * 64)]
        with pytest.raises(RpcError) as unknown:
            await house.call("resolve", id="a", variant="q2")
        assert unknown.value.type == "model_not_fetchable"
        assert "q4_k_m, q8_0" in unknown.value.message
        with pytest.raises(RpcError) as nowhere:
            await house.call("resolve", id="nowhere")
        assert nowhere.value.type == "model_not_fetchable"
        with pytest.raises(RpcError) as embedded:
            await house.call("resolve", id="jan-tiny")
        assert "part of the program" in embedded.value.message


async def test_what_the_hub_revokes_is_neither_shown_nor_resolved(open_house: OpenHouse, hub: Hub) -> None:
    listed(hub, "a", "b")
    hub.set("revocations", [{"id": "r1", "model": "a", "reason": "it was stolen"}]).publish()
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        assert await house.ids() == ("network", ["b"])
        with pytest.raises(RpcError) as revoked:
            await house.call("resolve", id="a")
        assert revoked.value.type == "model_revoked"
        assert "it was stolen" in revoked.value.message


async def test_of_a_model_with_a_revoked_variant_the_next_one_is_resolved(open_house: OpenHouse, hub: Hub) -> None:
    record = model("a")
    record["files"].append({**record["files"][0], "path": "big.gguf", "sha256": "b" * 64})
    record["variants"].append({"id": "q8_0", "quant": "Q8_0", "files": [1]})
    bad = record["files"][0]["sha256"]
    hub.models(record).set("revocations", [{"id": "r1", "sha256": bad, "reason": "it was stolen"}]).publish()
    async with open_house(hub=hub) as house:
        await house.call("refresh")
        assert (await house.call("resolve", id="a"))["variant"] == "q8_0"
        with pytest.raises(RpcError) as revoked:
            await house.call("resolve", id="a", variant="q4_k_m")
        assert revoked.value.type == "model_revoked"


@pytest.mark.parametrize("url", ["ftp://h/x", "https://h/ x", "javascript:1", "http"])
async def test_a_hub_that_is_no_address_is_refused_as_a_setting(open_house: OpenHouse, url: str) -> None:
    async with open_house() as house:
        with pytest.raises(RpcError) as refused:
            await house.client.call("settings.set", {"extension": "registry", "values": {"url": url}})
        assert refused.value.code == -32602


def test_importing_costs_neither_database_nor_http_nor_cryptography() -> None:
    heavy = ("sqlite3", "httpx", "http.client", "tuf", "cryptography", "openfeature", "securesystemslib")
    code = f"import sys, jan_registry.plugin; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("url", ["http://[", "http://127.0.0.1:99999/", "http://a:b/", "file://host/x", "file:///"])
async def test_an_address_that_is_none_is_refused_once_and_waited_after(
    open_house: OpenHouse, hub: Hub, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    async with open_house(hub=hub, url=url, refresh_seconds=3600) as house:
        with pytest.raises(RpcError) as refused:
            await house.call("refresh")
        assert refused.value.type == "registry_unreachable"
        failures = (await house.call("status"))["failures"]
        for _ in range(20):
            await house.ids()
        assert (await house.call("status"))["failures"] == failures <= 2
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_defect_while_refreshing_waits_as_a_failure_does(
    open_house: OpenHouse, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("jan_registry.signed.sync.sync", broken)
    async with open_house(hub=hub, refresh_seconds=3600) as house:
        with pytest.raises(RpcError) as failed:
            await house.call("refresh")
        assert failed.value.type == "registry_unreachable"
        failures = (await house.call("status"))["failures"]
        for _ in range(20):
            await house.ids()
        assert (await house.call("status"))["failures"] == failures <= 2
    assert len([record for record in caplog.records if record.exc_info]) == failures
