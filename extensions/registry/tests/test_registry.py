"""The model list as callers see it: what is shown when, where it comes from, and what the network can do to it."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import RpcError, hookimpl
from jan_core.types import Evidence, Flags, ModelContext, ModelRecord, PhaseChoice

from .conftest import OpenHouse, Request, Web, model, no_network

pytestmark = pytest.mark.anyio


async def test_without_a_source_the_built_in_list_is_there_at_once_and_no_network_is_used(
    open_house: OpenHouse,
) -> None:
    async with open_house(http=no_network, refresh_seconds=60) as house:
        with anyio.fail_after(2):
            origin, ids = await house.ids()
        assert origin == "builtin"
        assert ids[0] == "jan-tiny"
        assert len(ids) == 6
        answer = await house.call("featured")
        assert answer["provenance"]["verification"] == "builtin"
        assert answer["provenance"]["age"] is None
        assert {m["verification"] for m in answer["models"]} == {"builtin"}
        with pytest.raises(RpcError) as refused:
            await house.call("refresh")
        assert (refused.value.type, refused.value.code) == ("no_registry", -32073)
        assert list(house.data_dir.iterdir()) == []


async def test_a_source_that_is_not_there_leaves_the_built_in_list(open_house: OpenHouse, web: Web) -> None:
    web.stop()
    async with open_house(url=web.url) as house:
        with pytest.raises(RpcError) as failed:
            await house.call("refresh")
        assert (failed.value.type, failed.value.retryable) == ("registry_unreachable", True)
        assert (await house.ids())[0] == "builtin"
        status = await house.call("status")
        assert status["failures"] == 1
        assert "127.0.0.1" in status["error"]


async def test_a_refresh_serves_the_sources_list_and_says_that_nobody_vouches_for_it(
    open_house: OpenHouse, web: Web
) -> None:
    web.serve(model("a"), model("b"), model("hidden", featured=False))
    async with open_house(url=web.url) as house:
        report = await house.call("refresh")
        assert (report["outcome"], report["models"], report["added"]) == ("updated", 3, 3)
        answer = await house.call("featured")
        assert [m["id"] for m in answer["models"]] == ["a", "b"]
        provenance = answer["provenance"]
        assert (provenance["origin"], provenance["source"]) == ("network", web.url)
        assert provenance["verification"] == "unverified"
        assert "not signed" in provenance["note"]
        assert 0 <= provenance["age"] < 10
        assert house.events == [
            {"added": 3, "removed": 0, "changed": 0, "models": 3, "digest": provenance["digest"]},
        ]


async def test_the_last_valid_list_survives_a_restart_and_the_death_of_its_source(
    open_house: OpenHouse, web: Web
) -> None:
    web.serve(model("a"))
    async with open_house(url=web.url) as house:
        await house.call("refresh")
    web.stop()
    async with open_house(url=web.url) as house:
        assert await house.ids() == ("cache", ["a"])
        with pytest.raises(RpcError):
            await house.call("refresh")
        assert await house.ids() == ("cache", ["a"])


async def test_an_unchanged_list_costs_no_body_and_renews_its_age(open_house: OpenHouse, web: Web) -> None:
    web.serve(model("a"), etag='"one"')
    async with open_house(url=web.url) as house:
        first = await house.call("refresh")
        again = await house.call("refresh")
        assert (again["outcome"], again["changed"]) == ("unchanged", 0)
        assert again["provenance"]["digest"] == first["provenance"]["digest"]
        assert len(house.events) == 1
    async with open_house(url=web.url) as house:
        assert (await house.call("refresh"))["outcome"] == "unchanged"
        assert await house.ids() == ("network", ["a"])
    assert [request.get("if-none-match") for request in web.requests] == [None, '"one"', '"one"']


async def test_changes_are_counted_against_the_list_before(open_house: OpenHouse, web: Web) -> None:
    async with open_house(url=web.url) as house:
        web.serve(model("a"), model("b"), etag='"1"')
        await house.call("refresh")
        web.serve(model("b", name="New"), model("c"), model("d"), etag='"2"')
        report = await house.call("refresh")
        assert (report["added"], report["removed"], report["changed"]) == (2, 1, 1)


BAD = [
    b"",
    b"<html>",
    b'{"version": 2, "models": []}',
    b'{"version": 1, "models": []}',
    b'{"version": 1, "models": [{}]}',
]


@pytest.mark.parametrize("body", BAD)
async def test_a_bad_document_is_refused_and_the_last_valid_one_stays(
    open_house: OpenHouse, web: Web, body: bytes
) -> None:
    async with open_house(url=web.url) as house:
        web.serve(model("a"), etag='"1"')
        await house.call("refresh")
        web.serve(body=body, etag='"2"')
        with pytest.raises(RpcError) as refused:
            await house.call("refresh")
        assert (refused.value.type, refused.value.code) == ("registry_invalid", -32072)
        assert await house.ids() == ("network", ["a"])
    async with open_house(url=web.url) as house:
        assert await house.ids() == ("cache", ["a"])


async def test_bad_records_are_left_out_and_listed(open_house: OpenHouse, web: Web) -> None:
    web.serve(model("a"), model("Bad Id"), {"id": "c"})
    async with open_house(url=web.url) as house:
        report = await house.call("refresh")
        assert [(s["index"], s["id"]) for s in report["skipped"]] == [(1, "Bad Id"), (2, "c")]
        assert await house.ids() == ("network", ["a"])
        assert (await house.call("status"))["skipped"] == report["skipped"]


def endless(request: Request) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b" " * 65536)


def bomb(request: Request) -> None:
    request.answer(200, gzip.compress(b" " * (64 << 20)), Content_Encoding="gzip")


@pytest.mark.parametrize("reply", [endless, bomb])
async def test_a_body_without_end_is_cut_off(open_house: OpenHouse, web: Web, reply: Any) -> None:
    web.reply = reply
    async with open_house(url=web.url) as house:
        with pytest.raises(RpcError, match="more than 8388608 bytes") as refused:
            await house.call("refresh")
        assert refused.value.type == "registry_invalid"


async def test_a_compressed_list_is_read_and_a_cut_one_is_not(open_house: OpenHouse, web: Web) -> None:
    body = gzip.compress(b'{"version": 1, "models": [{"id": "a", "name": "A", "featured": true}]}')
    async with open_house(url=web.url) as house:
        web.reply = lambda request: request.answer(200, body[:-12], Content_Encoding="gzip")
        with pytest.raises(RpcError, match="too early"):
            await house.call("refresh")
        web.reply = lambda request: request.answer(200, body, Content_Encoding="gzip")
        await house.call("refresh")
        assert await house.ids() == ("network", ["a"])


@pytest.mark.parametrize("status", [404, 403, 500, 503, 204])
async def test_any_other_answer_is_an_error_that_names_it(open_house: OpenHouse, web: Web, status: int) -> None:
    web.reply = lambda request: request.answer(status, Retry_After=7200)
    async with open_house(url=web.url) as house:
        with pytest.raises(RpcError, match=str(status)) as failed:
            await house.call("refresh")
        assert failed.value.type == "registry_unreachable"


async def test_a_redirect_is_followed_but_not_for_ever_and_not_anywhere(open_house: OpenHouse, web: Web) -> None:
    def reply(request: Request) -> None:
        if request.path == "/models.json":
            request.answer(302, Location="/moved")
        else:
            request.answer(200, b'{"version": 1, "models": [{"id": "a", "name": "A", "featured": true}]}')

    async with open_house(url=web.url) as house:
        for location in ("/models.json", "file:///etc/passwd", ""):
            web.reply = lambda request, to=location: request.answer(302, Location=to)  # type: ignore[misc]
            with pytest.raises(RpcError) as refused:
                await house.call("refresh")
            assert refused.value.type == "registry_invalid"
        web.reply = reply
        await house.call("refresh")
        assert await house.ids() == ("network", ["a"])


def test_a_redirect_from_https_to_http_is_refused() -> None:
    from jan_registry.errors import RegistryInvalid
    from jan_registry.source import _redirect

    assert _redirect("https://a/x", "/y") == "https://a/y"
    with pytest.raises(RegistryInvalid):
        _redirect("https://a/x", "http://a/x")


async def test_reading_never_waits_for_the_network(open_house: OpenHouse, web: Web) -> None:
    arrived = anyio.Event()
    loop = __import__("asyncio").get_running_loop()

    def hang(request: Request) -> None:
        loop.call_soon_threadsafe(arrived.set)
        web.released.wait(30)

    web.reply = hang
    async with open_house(url=web.url, refresh_seconds=3600) as house:
        with anyio.fail_after(10):
            await arrived.wait()  # the background refresh hangs now
        with anyio.fail_after(2):
            assert (await house.ids())[0] == "builtin"
            assert (await house.call("search", text="qwen"))["total"] == 2
            assert (await house.call("get", id="jan-tiny"))["model"]["id"] == "jan-tiny"
            assert (await house.call("status"))["refreshing"] is True


async def test_many_refreshes_at_once_are_one(open_house: OpenHouse, web: Web) -> None:
    web.serve(model("a"))
    async with open_house(url=web.url) as house:
        digests = set()

        async def refresh() -> None:
            digests.add((await house.call("refresh"))["provenance"]["digest"])

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(refresh)
        assert len(digests) == 1
    assert len(web.requests) == 1


async def test_the_list_is_fetched_in_the_background_once_a_source_is_named(open_house: OpenHouse, web: Web) -> None:
    web.serve(model("a"))
    async with open_house(refresh_seconds=3600) as house:
        assert (await house.ids())[0] == "builtin"
        assert web.requests == []
        await house.client.call("settings.set", {"extension": "registry", "values": {"url": web.url}})
        await house.changed()
        assert await house.ids() == ("network", ["a"])
        assert (await house.call("status"))["next_refresh_at"] != ""
    async with open_house(url=web.url, refresh_seconds=3600) as house:
        assert await house.ids() == ("cache", ["a"])  # fresh enough: not asked again
    assert len(web.requests) == 1


async def test_the_list_of_one_source_is_never_shown_for_another(open_house: OpenHouse, web: Web) -> None:
    web.serve(model("a"))
    async with open_house(url=web.url) as house:
        await house.call("refresh")
    async with open_house(url=web.url + "?other") as house:
        assert (await house.ids())[0] == "builtin"
    async with open_house(url="") as house:
        assert (await house.ids())[0] == "builtin"
    async with open_house(url=web.url) as house:
        assert await house.ids() == ("cache", ["a"])


async def test_a_damaged_cache_is_set_aside_rebuilt_and_reported(
    open_house: OpenHouse, web: Web, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "registry"
    folder.mkdir(parents=True)
    (folder / "registry.db").write_bytes(b"no database" * 1000)
    web.serve(model("a"))
    async with open_house(url=web.url) as house:
        assert (await house.ids())[0] == "builtin"
        assert "damaged" in (await house.call("status"))["cache_note"]
        await house.call("refresh")
        assert len(list(folder.glob("registry.db.damaged-*"))) == 1
    async with open_house(url=web.url) as house:
        assert await house.ids() == ("cache", ["a"])


@pytest.mark.parametrize("tampered", ["replace(body, 'a', 'b')", "CAST(replace(body, 'a', 'b') AS BLOB)", "5"])
async def test_a_cached_list_that_was_tampered_with_is_dropped(
    open_house: OpenHouse, web: Web, tmp_path: Path, tampered: str
) -> None:
    web.serve(model("a"))
    async with open_house(url=web.url) as house:
        await house.call("refresh")
    db = sqlite3.connect(tmp_path / "data" / "registry" / "registry.db")
    with db:
        db.execute(f"UPDATE list SET body = {tampered}")
    db.close()
    async with open_house(url=web.url) as house:
        assert (await house.ids())[0] == "builtin"
        assert "digest" in (await house.call("status"))["cache_note"]
        assert (await house.call("refresh"))["outcome"] == "updated"
    assert web.requests[-1].get("if-none-match") is None


async def test_a_disk_that_cannot_be_written_costs_only_the_cache(
    open_house: OpenHouse, web: Web, tmp_path: Path
) -> None:
    web.serve(model("a"))
    async with open_house(url=web.url) as house:
        (house.data_dir / "registry.db").mkdir()
        await house.call("refresh")
        assert await house.ids() == ("network", ["a"])
        assert "registry.db" in (await house.call("status"))["cache_note"]


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
        assert (await house.call("get", id="jan-tiny"))["model"]["name"] == "Jan Tiny"  # the first of two counts


async def test_search_finds_words_in_any_case_and_pages(open_house: OpenHouse) -> None:
    async with open_house() as house:
        found = await house.call("search", text="QWEN instruct")
        assert [m["id"] for m in found["models"]] == ["qwen2.5-0.5b-instruct", "qwen2.5-1.5b-instruct"]
        assert (await house.call("search", text="tiny english"))["models"][0]["id"] == "jan-tiny"
        assert (await house.call("search", text="no such model"))["total"] == 0
        page = await house.call("search", limit=2, offset=4)
        assert (len(page["models"]), page["total"]) == (2, 6)


async def test_a_model_resolves_to_files_that_a_download_takes(open_house: OpenHouse, web: Web) -> None:
    file = {"name": "a.gguf", "url": "https://example.com/a.gguf", "sha256": "a" * 64, "size": 7}
    web.serve(model("a", files=[file]))
    async with open_house(url=web.url) as house:
        await house.call("refresh")
        resolution = await house.call("resolve", id="a")
        assert (resolution["files"], resolution["checkable"]) == ([file], True)
        builtin = await house.call("resolve", id="smollm2-135m-instruct")
        assert (builtin["checkable"], builtin["provenance"]["origin"]) == (False, "builtin")
        for id, kind in (("jan-tiny", "model_not_fetchable"), ("none", "model_unknown")):
            with pytest.raises(RpcError) as refused:
                await house.call("resolve", id=id)
            assert refused.value.type == kind


async def test_the_phase_is_fallback_and_says_so_when_another_is_asked_for(open_house: OpenHouse) -> None:
    class Operator:
        phase: Any = "dynamic"

        @hookimpl
        def jan_rollout_phase(self, flags: Flags, evidence: Evidence) -> PhaseChoice:
            return PhaseChoice(self.phase, "the operator wants it")

    async with open_house() as house:
        assert await house.call("phase") == {
            "phase": "fallback", "reason": "nobody chose another", "asked": None, "served": ["fallback"],
        }  # fmt: skip
    async with open_house(Operator()) as house:
        answer = await house.call("phase")
        assert (answer["phase"], answer["asked"]) == ("fallback", "dynamic")
        assert "does not serve yet" in answer["reason"]
        assert (await house.call("status"))["phase"] == "fallback"


@pytest.mark.parametrize("url", ["ftp://h/x", "file:///x", "https://h/ x", "javascript:1", "http"])
async def test_a_source_that_is_no_web_address_is_refused_as_a_setting(open_house: OpenHouse, url: str) -> None:
    async with open_house() as house:
        with pytest.raises(RpcError) as refused:
            await house.client.call("settings.set", {"extension": "registry", "values": {"url": url}})
        assert refused.value.code == -32602


def test_importing_costs_neither_database_nor_http() -> None:
    import subprocess
    import sys

    code = (
        "import sys, jan_registry.plugin; print([m for m in ('sqlite3', 'httpx', 'http.client') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("url", ["http://[", "http://127.0.0.1:99999/", "http://a:b/"])
async def test_an_address_that_is_none_is_refused_once_and_waited_after(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    async with open_house(url=url, refresh_seconds=3600) as house:
        with pytest.raises(RpcError) as refused:
            await house.call("refresh")
        assert refused.value.type == "registry_invalid"
        failures = (await house.call("status"))["failures"]
        for _ in range(20):
            await house.ids()
        assert (await house.call("status"))["failures"] == failures <= 2
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_defect_while_refreshing_waits_as_a_failure_does(
    open_house: OpenHouse, web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: object, **options: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("jan_registry.source.fetch", broken)
    async with open_house(url=web.url, refresh_seconds=3600) as house:
        with pytest.raises(RpcError) as failed:
            await house.call("refresh")
        assert failed.value.type == "registry_unreachable"
        failures = (await house.call("status"))["failures"]
        for _ in range(20):
            await house.ids()
        assert (await house.call("status"))["failures"] == failures <= 2
    assert len([record for record in caplog.records if record.exc_info]) == failures
