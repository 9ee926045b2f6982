"""Several sources, some of them bad: the good ones carry the file, and secrets stay where they belong."""

from __future__ import annotations

import anyio
import pytest

from jan_core import RpcError
from jan_core.types import DownloadSource

from .faults import Drop, Flip, Header, Hold, Redirect, Status, Trickle
from .faultserver import FaultServer
from .house import Mirrors, OpenHouse, content, happens, piece_list

MARGIN = 400_000
LENGTH = 1 << 20


async def test_a_dead_source_is_left_for_a_living_one_without_waiting_for_it(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], big: bytes
) -> None:
    mirror = serve_more(rate=30_000_000)
    url = server.serve("/f", big, Hold(after=2_000_000))
    other = mirror.serve("/f", big)
    async with open_house(Mirrors(DownloadSource(other, priority=9)), stall_timeout=15.0) as house:
        with anyio.fail_after(12):  # so it is not the timeout of a stall that mends it
            job = await house.fetch(url, big, pieces=piece_list(mirror, big, length=LENGTH))
        assert content(job) == big
    assert server.sent("/f") + mirror.sent("/f") <= len(big) + 8 * LENGTH + 8 * MARGIN


async def test_a_source_that_dies_while_it_is_read_is_left(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], big: bytes
) -> None:
    mirror = serve_more()
    url = server.serve("/f", big, Hold(at=8_000_000).covering(8_000_000))
    other = mirror.serve("/f", big, Status(503).until(1))
    async with open_house(Mirrors(DownloadSource(other, priority=9))) as house:
        started = await house.start(url, big)
        await happens(server.wait_held)
        server.refuse()
        job = await house.until(started["id"], "completed")
        assert content(job) == big
        assert all(event["state"] not in ("failed", "offline") for event in house.events)


async def test_with_a_corrupt_a_stalling_and_a_slow_source_the_healthy_one_carries_the_file(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], big: bytes
) -> None:
    corrupt, stalling, slow = serve_more(), serve_more(), serve_more(rate=500_000)
    urls = [
        corrupt.serve("/f", big, Flip(rate=1e-5)),
        stalling.serve("/f", big, Hold(after=300_000)),
        slow.serve("/f", big),
    ]
    async with open_house(Mirrors(*urls), stall_timeout=3.0) as house:
        job = await house.fetch(server.serve("/f", big), big, pieces=piece_list(server, big, length=LENGTH))
        assert content(job) == big
        assert job["bytes_discarded"] <= 8 * LENGTH
    assert server.sent("/f") >= len(big) * 0.6
    assert corrupt.sent("/f") <= 8 * LENGTH + 8 * MARGIN
    total = sum(each.sent("/f") for each in (server, corrupt, stalling, slow))
    assert total <= len(big) + 16 * LENGTH + 10 * MARGIN


async def test_each_source_is_shown_with_what_it_brought_and_never_with_its_address(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], big: bytes
) -> None:
    mirror = serve_more(rate=20_000_000)
    server.pace.rate = 20_000_000
    url = server.serve("/secret-path/f", big) + "?key=secret"
    async with open_house(Mirrors(mirror.serve("/secret-path/f", big))) as house:
        await house.fetch(url, big, pieces=piece_list(server, big, length=LENGTH))
        told = [event for event in house.events if event["sources"]]
        assert told
        last = told[-1]["sources"]
        assert [each["id"] for each in last] == [f"127.0.0.1:{server.port}", f"127.0.0.1:{mirror.port}"]
        assert any(each["bytes"] > 0 and each["speed"] > 0 for each in last)
        assert max(event["connections"] for event in told) <= 8
        assert "secret" not in str([event["sources"] for event in told])


async def test_the_next_job_begins_with_the_host_that_was_fast(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], big: bytes
) -> None:
    slow = serve_more(rate=2_000_000)
    for name in ("/a", "/b"):
        server.serve(name, big if name == "/a" else big[::-1])
        slow.serve(name, big if name == "/a" else big[::-1])
    async with open_house(Mirrors(server.url("/a"))) as house:
        await house.fetch(slow.url("/a"), big, name="a.bin")
    async with open_house(Mirrors(server.url("/b")), max_connections=1) as house:
        await house.fetch(slow.url("/b"), big[::-1], name="b.bin")
    assert server.sent("/b") >= len(big) * 0.8


async def test_a_link_that_expires_is_asked_for_anew_and_is_no_failure(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    cdn = serve_more()
    cdn.serve("/blob", data, Drop(after=700_000), signed=True)
    hub = server.serve("/f", b"", Redirect(lambda: cdn.link("/blob", uses=1)))
    async with open_house() as house:
        job = await house.fetch(hub, data)
        assert content(job) == data
        assert job["bytes_discarded"] == 0
        assert all(event["state"] not in ("failed", "waiting") for event in house.events)
        assert all(each["errors"] <= 6 for event in house.events for each in event["sources"])
    assert cdn.sent("/blob") == len(data)
    assert [seen.status for seen in cdn.seen("/blob")].count(206) == 5


async def test_a_link_is_used_as_long_as_it_is_good_and_the_hub_is_not_asked_for_every_part(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    cdn = serve_more()
    cdn.serve("/blob", data, Drop(after=300_000), signed=True)
    hub = server.serve("/f", b"", Redirect(lambda: cdn.link("/blob")))
    async with open_house() as house:
        assert content(await house.fetch(hub, data)) == data
    assert len(cdn.seen("/blob")) == 10
    assert len(server.seen("/f")) <= 3


async def test_a_link_that_expires_in_the_middle_of_a_job_that_was_held_is_no_end(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    cdn = serve_more()
    cdn.serve("/blob", data, Hold(at=1_000_000).times(1), signed=True)
    hub = server.serve("/f", b"", Redirect(lambda: cdn.link("/blob")))
    async with open_house() as house:
        job = await house.start(hub, data)
        await house.until(job["id"], "running", done=700_000)
        await house.call("pause", id=job["id"])
        cdn.expire()
        await house.call("resume", id=job["id"])
        assert content(await house.until(job["id"], "completed")) == data
    assert cdn.sent("/blob") <= len(data) + MARGIN


async def test_a_hub_whose_links_never_work_ends_in_an_error_and_not_in_a_storm(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    cdn = serve_more()
    cdn.serve("/blob", data, signed=True)
    hub = server.serve("/f", b"", Redirect(lambda: cdn.link("/blob", uses=0)))
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.fetch(hub, data)
        assert failed.value.type == "source_unauthorized"
    assert len(server.seen("/f")) <= 4


async def test_credentials_go_to_their_own_origin_and_never_across_a_redirect(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    cdn = serve_more()
    cdn.serve("/blob", data, Drop(at=1_000_000).only(0))
    server.serve("/start", b"", Redirect("/same"))
    server.serve("/same", b"", Redirect(cdn.url("/blob")))
    login = {"Authorization": "Bearer canary-1", "Cookie": "session=canary-2", "X-Api-Key": "canary-3"}
    async with open_house(Mirrors(DownloadSource(server.url("/start"), headers=login))) as house:
        assert content(await house.fetch("", data)) == data
    for seen in server.seen():
        assert [seen.headers.get(name.lower()) for name in login] == list(login.values())
    assert cdn.seen()
    for seen in cdn.seen():
        assert "canary" not in str(seen)


async def test_a_token_of_the_settings_goes_to_its_host_only(
    open_house: OpenHouse,
    server: FaultServer,
    serve_more: type[FaultServer],
    data: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "canary-token")
    cdn = serve_more()
    cdn.serve("/blob", data)
    mirror = serve_more()
    server.serve("/f", data, Redirect(cdn.url("/blob")))
    tokens = {f"127.0.0.1:{server.port}": "$SOME_TOKEN"}
    async with open_house(Mirrors(mirror.serve("/f", data, Status(404))), tokens=tokens) as house:
        assert content(await house.fetch(server.url("/f"), data)) == data
    assert set(server.headers("Authorization")) == {"Bearer canary-token"}
    for other in (cdn, mirror):
        assert "canary" not in str(other.requests)


async def test_a_source_without_the_file_or_with_another_one_is_left_and_the_others_go_on(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    gone, locked, another = serve_more(), serve_more(), serve_more()
    urls = [
        gone.serve("/f", data, Status(404)),
        locked.serve("/f", data, Status(403)),
        another.serve("/f", data + b"and more"),
    ]
    async with open_house(Mirrors(*urls), max_connections=4) as house:
        job = await house.fetch(server.serve("/f", data, Status(503).until(3)), data)
        assert content(job) == data
    for each in (gone, locked, another):
        assert len(each.seen("/f")) <= 6  # once a run, and there is a run for each 503


async def test_when_every_source_has_failed_for_good_the_error_says_so(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    other = serve_more()
    async with open_house(Mirrors(other.serve("/f", data, Status(403)))) as house:
        with pytest.raises(RpcError) as failed:
            await house.fetch(server.serve("/f", data, Status(404)), data)
        assert failed.value.type in ("source_not_found", "source_unauthorized")
    assert len(server.seen()) + len(other.seen()) <= 6


async def test_without_a_hash_sources_are_mixed_only_when_they_prove_to_have_the_same_version(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], big: bytes
) -> None:
    mirror = serve_more()
    other = mirror.serve("/f", big[::-1], etag='"another"')
    async with open_house(Mirrors(DownloadSource(other, priority=9))) as house:
        job = await house.fetch(server.serve("/f", big, Trickle(40_000_000)))
        assert content(job) in (big, big[::-1])
        assert job["verified"] is False


async def test_a_slow_tail_is_hedged_on_another_source(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    mirror = serve_more()
    url = server.serve("/f", data, Trickle(20_000).covering(len(data) - 1))
    other = mirror.serve("/f", data, Header("X-Note", "fast"))
    async with open_house(Mirrors(DownloadSource(other, priority=9)), stall_timeout=15.0) as house:
        with anyio.fail_after(12):  # at 20 kB/s what is left would take much longer
            job = await house.fetch(url, data, pieces=piece_list(mirror, data))
        assert content(job) == data


async def test_a_proxy_that_breaks_is_a_line_that_breaks(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    server.serve("http://far.invalid/f", data, Drop(at=1_000_000).only(0), Status(503).only(1))
    async with open_house(proxy=server.url("")) as house:
        job = await house.fetch("http://far.invalid/f", data)
        assert content(job) == data
        assert all(event["state"] not in ("failed", "offline") for event in house.events)
    assert server.sent() == len(data)
