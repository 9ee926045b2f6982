"""Getting a hub's files over HTTP and from a folder: bounded, patient only so long, and never outside of the hub."""

from __future__ import annotations

import gzip
import os
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
from jan_registry.signed import http
from jan_registry.signed.fetching import Fetch, NotThere, TooLarge, Unreachable, fetcher
from jan_registry.signed.folder import FolderFetch, folder_of
from jan_registry.signed.http import HttpFetch

from .hubmaker import Hub, Serve, nginx
from .signed_kit import Client
from .wire import Wire, answer, wire

__all__ = ["nginx", "wire"]

Get = Callable[..., "anyio.abc.AsyncResource"]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


def replying(wire: Wire, content: bytes) -> None:
    wire.reply = lambda connection, path: connection.sendall(content)


async def get(fetch: Fetch, path: str = "file", limit: int = 1000) -> bytes:
    with anyio.fail_after(20):
        return await anyio.to_thread.run_sync(fetch, path, limit)


async def test_a_whole_sync_over_nginx_uses_one_connection_and_little(
    tmp_path: Path, nginx: Serve, client: httpx.AsyncClient
) -> None:
    hub = Hub(tmp_path)
    hub.models(*[f"maker/{number}" for number in range(50)]).publish()
    url = nginx(hub.tree)
    machine = Client(tmp_path / "client", hub.root)
    fetch = fetcher(url, lambda: client, timeout=10)
    report = await anyio.to_thread.run_sync(machine.sync, fetch)
    assert machine.ids() == sorted(f"maker/{number}" for number in range(50))
    assert (report.requests, report.bytes) == (fetch.requests, fetch.received)
    hub.models(*[f"maker/{number}" for number in range(51)]).publish()
    changed = await anyio.to_thread.run_sync(machine.sync, fetch)
    assert {one.name: one.how for one in changed.collections}["models"] == "delta"
    idle = await anyio.to_thread.run_sync(machine.sync, fetch)
    assert idle.requests == 2
    assert idle.bytes == len((hub.tree / "metadata/timestamp.json").read_bytes()) <= 500
    machine.close()


async def test_a_hub_that_a_server_packs_once_more_is_the_same(
    tmp_path: Path, nginx: Serve, client: httpx.AsyncClient
) -> None:
    hub = Hub(tmp_path)
    hub.models("a/a", "a/b").publish()
    url = nginx(hub.tree, gzip=True, locations="gzip_types *;")
    machine = Client(tmp_path / "client", hub.root)
    await anyio.to_thread.run_sync(machine.sync, fetcher(url, lambda: client, timeout=10))
    assert machine.ids() == ["a/a", "a/b"]
    machine.close()


async def test_what_is_packed_on_the_way_is_unpacked_and_counted_as_it_came(
    wire: Wire, client: httpx.AsyncClient
) -> None:
    packed = gzip.compress(b"x" * 900)
    replying(wire, answer("200 OK", packed, Content_Encoding="gzip"))
    fetch = HttpFetch(lambda: client, wire.url)
    assert await get(fetch) == b"x" * 900
    assert (fetch.requests, fetch.received) == (1, len(packed))
    assert await get(fetch, "file.json.gz") == packed


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_file_that_is_not_there_is_told_from_a_hub_that_is_not(
    wire: Wire, client: httpx.AsyncClient, status: int
) -> None:
    replying(wire, answer(f"{status} No", b"no such file"))
    with pytest.raises(NotThere) as caught:
        await get(HttpFetch(lambda: client, wire.url))
    assert caught.value.status == status


async def test_a_file_that_is_rarely_there_is_asked_for_without_a_page_about_it(
    wire: Wire, client: httpx.AsyncClient
) -> None:
    replying(wire, answer("404 Not Found", b"", Content_Length=9000))
    fetch = HttpFetch(lambda: client, wire.url)
    with pytest.raises(NotThere):
        await anyio.to_thread.run_sync(partial(fetch, "2.root.json", 1000, rare=True))
    assert (wire.methods, fetch.received) == (["HEAD"], 0)


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "405 Method Not Allowed", "501 Not Implemented"])
async def test_a_server_that_does_not_know_the_question_is_asked_the_long_way(
    wire: Wire, client: httpx.AsyncClient, status: str
) -> None:
    def reply(connection: socket.socket, path: str) -> None:
        content = answer("200 OK", b"root") if wire.methods[-1] == "GET" else answer(status)
        connection.sendall(content)

    wire.reply = reply
    fetch = HttpFetch(lambda: client, wire.url)
    assert await anyio.to_thread.run_sync(partial(fetch, "2.root.json", 1000, rare=True)) == b"root"
    assert wire.methods == ["HEAD", "GET"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "120"}, 120),
        ({"Backoff": "60"}, 60),
        ({"Backoff": "60", "Retry_After": "30"}, 60),
        ({"Retry_After": "999999999999"}, 86400),
        ({"Retry_After": "soon"}, 0),
        ({}, 0),
    ],
)
async def test_a_hub_that_is_busy_says_for_how_long(
    wire: Wire, client: httpx.AsyncClient, headers: dict[str, str], seconds: float
) -> None:
    replying(wire, answer("503 Service Unavailable", b"", **headers))
    with pytest.raises(Unreachable) as caught:
        await get(HttpFetch(lambda: client, wire.url))
    assert (caught.value.status, caught.value.retry_after) == (503, seconds)


async def test_a_date_to_come_back_at_is_understood(wire: Wire, client: httpx.AsyncClient) -> None:
    replying(wire, answer("429 Too Many", Retry_After=formatdate(time.time() + 600, usegmt=True)))
    with pytest.raises(Unreachable) as caught:
        await get(HttpFetch(lambda: client, wire.url))
    assert 500 < caught.value.retry_after <= 600


async def test_a_good_answer_may_ask_for_patience_too(wire: Wire, client: httpx.AsyncClient) -> None:
    replying(wire, answer("200 OK", b"{}", Backoff=90))
    fetch = HttpFetch(lambda: client, wire.url)
    assert await get(fetch) == b"{}"
    assert fetch.backoff == 90


@pytest.mark.parametrize(
    "content",
    [
        answer("200 OK", b"x" * 1001),
        answer("200 OK", b"", Content_Length=None) + b"x" * 5000,
        answer("200 OK", gzip.compress(b"x" * 1001), Content_Encoding="gzip"),
        answer("200 OK", gzip.compress(bytes(100_000_000)), Content_Encoding="gzip"),
    ],
    ids=["length", "no length", "a little gzip", "a bomb"],
)
async def test_more_than_may_come_is_not_read(wire: Wire, client: httpx.AsyncClient, content: bytes) -> None:
    def reply(connection: socket.socket, path: str) -> None:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)

    wire.reply = reply
    fetch = HttpFetch(lambda: client, wire.url)
    with pytest.raises(TooLarge):
        await get(fetch)
    assert fetch.received < 200_000


async def test_gzip_that_never_becomes_anything_is_not_read_for_ever(wire: Wire, client: httpx.AsyncClient) -> None:
    def reply(connection: socket.socket, path: str) -> None:
        pack = zlib.compressobj(wbits=31)
        connection.sendall(answer("200 OK", Content_Length=None, Content_Encoding="gzip"))
        connection.sendall(pack.compress(b"{}") + pack.flush(zlib.Z_FULL_FLUSH))
        while not wire.gone.is_set():
            connection.sendall(pack.flush(zlib.Z_FULL_FLUSH) or b"\x00\x00\x00\xff\xff" * 100)

    wire.reply = reply
    with pytest.raises(TooLarge):
        await get(HttpFetch(lambda: client, wire.url))


@pytest.mark.parametrize(
    "content",
    [
        answer("200 OK", b"xxx", Content_Encoding="gzip"),
        answer("200 OK", gzip.compress(b"xxx")[:-3], Content_Encoding="gzip"),
        answer("200 OK", b"xxx", Content_Encoding="br"),
        answer("500 Broken"),
        answer("204 No Content"),
        answer("206 Partial Content", b"x"),
        answer("304 Not Modified"),
        b"HTTP/9.9 hello\r\n\r\n",
        b"\x00\xff",
    ],
)
async def test_an_answer_that_is_none_is_unreachable(wire: Wire, client: httpx.AsyncClient, content: bytes) -> None:
    def reply(connection: socket.socket, path: str) -> None:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)

    wire.reply = reply
    with pytest.raises(Unreachable) as caught:
        await get(HttpFetch(lambda: client, wire.url))
    assert not isinstance(caught.value, NotThere)


async def test_an_answer_that_is_cut_off_is_unreachable(wire: Wire, client: httpx.AsyncClient) -> None:
    def reply(connection: socket.socket, path: str) -> None:
        connection.sendall(answer("200 OK", b"half", Content_Length=8))
        connection.shutdown(socket.SHUT_WR)

    wire.reply = reply
    with pytest.raises(Unreachable):
        await get(HttpFetch(lambda: client, wire.url))


async def test_a_redirect_is_followed_also_to_another_host(wire: Wire, client: httpx.AsyncClient) -> None:
    other = Wire()
    replying(other, answer("200 OK", b"here"))
    replying(wire, answer("302 Found", Location=f"{other.url.replace('127.0.0.1', 'localhost')}/there"))
    fetch = HttpFetch(lambda: client, wire.url)
    assert await get(fetch) == b"here"
    assert (fetch.requests, other.requests) == (2, ["/there"])
    other.stop()


@pytest.mark.parametrize("location", ["/file", "ftp://host/x", "file:///etc/passwd", "http://[", "", "javascript:1"])
async def test_a_redirect_in_a_circle_or_to_nowhere_is_unreachable(
    wire: Wire, client: httpx.AsyncClient, location: str
) -> None:
    replying(wire, answer("301 Moved", Location=location))
    with pytest.raises(Unreachable):
        await get(HttpFetch(lambda: client, wire.url))


def test_a_redirect_from_https_to_http_is_refused() -> None:
    with pytest.raises(Unreachable, match="plain http"):
        http._redirect("https://hub.test/a", "http://hub.test/a")
    assert http._redirect("https://hub.test/a", "//cdn.test/b") == "https://cdn.test/b"


@pytest.mark.parametrize("where", ["nothing", "head", "body", "redirect"])
async def test_a_server_that_trickles_is_left_in_time(wire: Wire, client: httpx.AsyncClient, where: str) -> None:
    def reply(connection: socket.socket, path: str) -> None:
        if where == "head":
            wire.trickle(connection, b"H", 0.02)
        elif where == "body":
            connection.sendall(answer("200 OK", Content_Length=900))
            wire.trickle(connection, b"x", 0.02)
        elif where == "redirect":
            wire.gone.wait(0.06)
            connection.sendall(answer("302 Found", Location="/again"))
        else:
            wire.gone.wait()

    wire.reply = reply
    began = time.monotonic()
    with pytest.raises(Unreachable):
        await get(HttpFetch(lambda: client, wire.url, timeout=0.2))
    assert time.monotonic() - began < 2


async def test_a_large_file_may_take_longer_when_it_comes_steadily(wire: Wire, client: httpx.AsyncClient) -> None:
    size, piece = 60_000, 2_000

    def reply(connection: socket.socket, path: str) -> None:
        connection.sendall(answer("200 OK", Content_Length=size))
        for _ in range(size // piece):
            connection.sendall(b"x" * piece)
            wire.gone.wait(0.02)  # 100 kB/s

    wire.reply = reply
    began = time.monotonic()
    assert len(await get(HttpFetch(lambda: client, wire.url, timeout=0.2), limit=size)) == size
    assert time.monotonic() - began > 0.5


async def test_a_request_under_way_ends_when_nobody_waits_for_it(wire: Wire, client: httpx.AsyncClient) -> None:
    asked = anyio.Event()
    token = anyio.lowlevel.current_token()

    def reply(connection: socket.socket, path: str) -> None:
        anyio.from_thread.run_sync(asked.set, token=token)
        wire.gone.wait()

    wire.reply = reply
    began = time.monotonic()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(get, HttpFetch(lambda: client, wire.url))
            await asked.wait()
            tasks.cancel_scope.cancel()
    assert time.monotonic() - began < 5


async def test_a_host_without_a_network_is_unreachable(wire: Wire) -> None:
    def offline() -> httpx.AsyncClient:
        raise RuntimeError("this host is offline")

    with pytest.raises(Unreachable, match="offline"):
        await get(fetcher(wire.url, offline, timeout=1))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://127.0.0.1:99999/", "http://[::1", "gopher://x/", "hub"])
async def test_an_address_where_nobody_is_is_unreachable(client: httpx.AsyncClient, url: str) -> None:
    with pytest.raises(Unreachable):
        await get(fetcher(url, lambda: client, timeout=5))


# -- a folder ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> FolderFetch:
    (tmp_path / "hub" / "metadata").mkdir(parents=True)
    (tmp_path / "hub" / "metadata" / "timestamp.json").write_bytes(b"{}")
    (tmp_path / "secret").write_bytes(b"secret")
    return FolderFetch(tmp_path / "hub")


def test_a_file_of_a_folder_is_read_up_to_its_limit(folder: FolderFetch) -> None:
    assert folder("metadata/timestamp.json", 2) == b"{}"
    assert (folder.requests, folder.received) == (1, 2)
    with pytest.raises(TooLarge):
        folder("metadata/timestamp.json", 1)


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "metadata",
        "metadata/timestamp.json/x",
        "../secret",
        "metadata/../../secret",
        "./metadata/timestamp.json",
        "/etc/passwd",
        "metadata//timestamp.json",
        "..\\secret",
        "C:/secret",
        "a\x00b",
        "",
        "x" * 5000,
    ],
)
def test_what_leads_out_of_a_folder_or_is_no_file_is_not_there(folder: FolderFetch, path: str) -> None:
    with pytest.raises(Unreachable):
        folder(path, 1000)


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links and pipes")
def test_links_out_of_a_folder_and_pipes_in_it_are_not_followed(folder: FolderFetch, tmp_path: Path) -> None:
    home = folder.folder
    (home / "file").symlink_to(tmp_path / "secret")
    (home / "out").symlink_to(tmp_path)
    (home / "circle").symlink_to(home / "circle")
    (home / "inside").symlink_to(home / "metadata")
    os.mkfifo(home / "pipe")
    for path in ("file", "out/secret", "circle", "pipe"):
        with pytest.raises(Unreachable):
            folder(path, 1000)
    assert folder("inside/timestamp.json", 1000) == b"{}"


def test_the_address_of_a_folder_is_understood(tmp_path: Path) -> None:
    odd = tmp_path / "a b%20ü"
    odd.mkdir()
    (odd / "x").write_bytes(b"1")
    for url in (odd.as_uri(), odd.as_uri() + "/", odd.as_uri().replace("file://", "file://localhost")):
        assert folder_of(url) == odd
        assert fetcher(url, partial(pytest.fail, "the network was used"), timeout=1)("x", 1) == b"1"
    for url in ("file://host/share", "file:", "file:x", "http://x"):
        with pytest.raises(Unreachable):
            folder_of(url)
