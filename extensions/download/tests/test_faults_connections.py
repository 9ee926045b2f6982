"""Connections that break, stall, crawl or never come to be: the file is right in the end, and nothing is fetched twice
that need not be."""

from __future__ import annotations

import itertools

import anyio
import pytest

from .faults import Chunked, Close, Drop, Garbage, Hold, NoLength, SlowHead, Trickle
from .faultserver import FaultServer
from .house import PIECE, Mirrors, OpenHouse, content, happens, piece_list

MARGIN = 300_000
"""Bytes that a socket may hold of an answer whose reader has gone."""


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    open_house: OpenHouse, server: FaultServer, data: bytes, reset: bool
) -> None:
    url = server.serve("/f", data, Drop(at=1_000_000, reset=reset).only(0), Drop(at=2_000_000, reset=reset).only(1))
    async with open_house() as house:
        job = await house.fetch(url, data)
        assert content(job) == data
        assert job["bytes_discarded"] == 0
        assert job["error"] is None
    assert len(server.seen("/f")) == 3
    if not reset:  # a reset takes with it what its reader had not read yet
        assert server.sent("/f") == len(data)


async def test_a_connection_that_breaks_again_and_again_still_brings_the_file(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        job = await house.fetch(server.serve("/f", data, Drop(after=300_000)), data)
        assert content(job) == data
        assert job["bytes_discarded"] == 0
    assert server.sent("/f") == len(data)
    starts = [seen.range[0] or 0 for seen in server.seen("/f") if seen.range]
    assert starts == sorted(starts)


async def test_a_stalled_connection_is_given_up_and_the_rest_is_fetched_by_another(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=1_000_000).times(1))
    async with open_house(stall_timeout=0.4) as house:
        job = await house.fetch(url, data)
        assert content(job) == data
        assert job["bytes_discarded"] == 0
    assert server.sent("/f") <= len(data) + MARGIN


async def test_every_stall_costs_only_its_own_wait(open_house: OpenHouse, server: FaultServer, data: bytes) -> None:
    url = server.serve("/f", data, Hold(after=700_000).until(3))
    async with open_house(stall_timeout=0.3) as house:
        job = await house.fetch(url, data)
        assert content(job) == data


@pytest.mark.parametrize("fault", [SlowHead(), Hold(after=0), Close(), Close(reset=True), Garbage()])
async def test_an_answer_that_does_not_come_is_asked_for_again(
    open_house: OpenHouse, server: FaultServer, data: bytes, fault: SlowHead | Hold | Close | Garbage
) -> None:
    url = server.serve("/f", data, fault.until(2))
    async with open_house(stall_timeout=0.3) as house:
        job = await house.fetch(url, data)
        assert content(job) == data
    assert len(server.seen("/f")) >= 3


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 206 Partial\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 9999 ?\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=lambda raw: repr(raw[:40]),
)
async def test_whatever_a_server_says_instead_of_http_is_an_error_with_words_and_another_source_is_used(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes, raw: bytes
) -> None:
    good = serve_more().serve("/f", data)
    async with open_house(Mirrors(good), stall_timeout=0.5) as house:
        job = await house.fetch(server.serve("/f", data, Garbage(raw)), data)
        assert content(job) == data
        [bad] = [each for each in job["sources"] if each["id"].endswith(f":{server.port}")] or [{"bytes": 0}]
        assert bad["bytes"] == 0
    assert all("Traceback" not in str(event) for event in house.events)


async def test_a_server_that_refuses_connections_is_waited_for(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=1_000_000).times(1))
    async with open_house() as house:
        job = await house.start(url, data)
        await happens(server.wait_held)
        await house.until(job["id"], "running", done=700_000)
        server.refuse()
        waiting = await house.until(job["id"], "waiting")
        assert waiting["error"]["type"] == "source_unreachable"
        assert waiting["error"]["retryable"] is True
        assert waiting["retry_at"]
        assert waiting["bytes_done"] >= 1_000_000
        server.release()
        server.accept()
        done = await house.until(job["id"], "completed")
        assert content(done) == data
        assert done["bytes_discarded"] == 0
    assert server.sent("/f") <= len(data) + MARGIN


async def test_a_body_without_a_length_is_whole_when_its_size_was_known_and_not_before(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, NoLength(), Drop(at=2_000_000).times(1))
    async with open_house() as house:
        job = await house.fetch(url, data)
        assert content(job) == data
    assert server.sent("/f") == len(data)


@pytest.mark.parametrize("known", [True, False])
async def test_a_chunked_body_that_breaks_off_is_not_taken_for_a_whole_one(
    open_house: OpenHouse, server: FaultServer, data: bytes, known: bool
) -> None:
    url = server.serve("/f", data, Chunked(), Drop(at=2_000_000).times(1))
    async with open_house() as house:
        job = await house.fetch(url, data if known else None)
        assert content(job) == data
        assert job["verified"] is known


async def test_progress_is_told_at_most_four_times_a_second_and_never_goes_back(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Trickle(2_000_000), Drop(after=600_000))
    pieces = piece_list(server, data)
    async with open_house() as house:
        job = await house.fetch(url, data, pieces=pieces)
        assert content(job) == data
        told = list(zip(house.times, house.events, strict=True))
        running = [at for at, event in told if event["state"] == "running" and event["bytes_done"]]
        assert len(running) >= 2
        for begin in running:
            assert sum(begin <= at < begin + 1 for at in running) <= 5
        for before, after in itertools.pairwise(event for _, event in told):
            assert after["bytes_done"] >= before["bytes_done"]
            assert after["bytes_discarded"] >= before["bytes_discarded"]


async def test_a_crawling_tail_is_taken_over_by_an_idle_connection(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    last = len(data) - 10
    url = server.serve("/f", data, Hold(at=last).covering(last).times(1))
    async with open_house(stall_timeout=15.0) as house:
        with anyio.fail_after(10):  # so it is not the timeout of a stall that mends it
            job = await house.fetch(url, data, pieces=piece_list(server, data))
        assert content(job) == data
        assert job["state"] == "completed"
    assert server.sent("/f") <= len(data) + MARGIN + 2 * PIECE
