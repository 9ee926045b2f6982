"""Secrets a download carries are in no log, event, answer, file or history; nor on any wire but their own host's."""

from __future__ import annotations

import logging
from pathlib import Path

import anyio.to_thread
import pytest

from jan_core import RpcError
from jan_core.types import DownloadSource

from .faults import Drop, Flip, Header, Hold, HtmlPage, Redirect, Status
from .faultserver import FaultServer
from .house import Mirrors, OpenHouse, happens, piece_list

CANARIES = ("canary-token", "canary-header", "canary-query", "canary-link", "canary-proxy")


def found_in(folder: Path) -> list[str]:
    """Where canaries lie on the disk."""
    return [
        f"{canary} in {path.name}"
        for path in folder.rglob("*")
        if path.is_file()
        for canary in CANARIES
        if canary.encode() in path.read_bytes()
    ]


async def test_no_secret_is_written_told_or_logged_whatever_goes_wrong(
    open_house: OpenHouse,
    server: FaultServer,
    serve_more: type[FaultServer],
    data: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_TOKEN", "canary-token")
    cdn, bad, locked, page = serve_more(), serve_more(), serve_more(), serve_more()
    cdn.serve("/blob", data, Drop(at=900_000).only(0), Status(503).only(1, 2))
    server.serve("/f", b"", Redirect(cdn.url("/blob?signature=canary-link")))
    login = {"X-Key": "canary-header"}
    sources = [
        DownloadSource(server.url("/f"), headers=login),
        DownloadSource(bad.serve("/f", data, Flip(rate=1e-3)), headers=login),
        DownloadSource(locked.serve("/f", data, Status(401)) + "?a=canary-query", headers=login),
        DownloadSource(page.serve("/f", data, HtmlPage()), headers=login),
    ]
    answers = []
    tokens = {f"127.0.0.1:{server.port}": "$MY_TOKEN"}
    async with open_house(Mirrors(*sources), tokens=tokens, no_proxy="*", proxy="http://u:canary-proxy@h:1") as house:
        job = await house.fetch("", data, pieces=piece_list(bad, data))
        answers += [job, await house.call("history", id=job["id"]), await house.call("list")]
        with pytest.raises(RpcError) as failed:
            await house.fetch(locked.url("/f") + "?key=hidden", data[:-1], name="other.bin")
        answers += [failed.value.message, failed.value.data]
        told = str(house.events)
    assert "canary-token" in str(server.headers("Authorization"))  # so there was something to hide
    for canary in CANARIES:
        assert canary not in str(answers), canary
        assert canary not in told, canary
        assert canary not in caplog.text, canary
    in_files = await anyio.to_thread.run_sync(found_in, tmp_path)
    assert [place for place in in_files if "settings.json" not in place] == []


async def test_headers_of_a_source_go_neither_to_its_mirrors_nor_to_whoever_has_its_piece_list(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    mirror, lists = serve_more(), serve_more()
    url = server.serve("/f", data, Drop(after=500_000))
    sources = [
        DownloadSource(url, headers={"Authorization": "Bearer canary-header"}),
        DownloadSource(mirror.serve("/f", data, Drop(after=500_000)), headers={}),
    ]
    async with open_house(Mirrors(*sources)) as house:
        await house.fetch("", data, pieces=piece_list(lists, data))
    assert set(server.headers("Authorization")) == {"Bearer canary-header"}
    for other in (mirror, lists):
        assert other.requests
        assert "canary" not in str(other.requests)


async def test_what_a_server_sets_as_a_cookie_or_says_in_an_error_is_not_taken_over(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve(
        "/f", data, Header("Set-Cookie", "id=canary-link"), Drop(at=500_000).only(0), Hold(after=9).only(1)
    )
    async with open_house(stall_timeout=0.3) as house:
        job = await house.start(url, data)
        await happens(server.wait_held)
        await house.until(job["id"], "completed")
    assert set(server.headers("Cookie")) == {None}
