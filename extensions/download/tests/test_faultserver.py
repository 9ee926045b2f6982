"""The bad server is bad in just the way it is told to be; everything else here rests on that."""

from __future__ import annotations

import http.client
import random
import socket
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from .faults import (
    Chunked,
    Close,
    Drop,
    Encoded,
    Endless,
    ETag,
    Flip,
    Garbage,
    Hold,
    HtmlPage,
    IgnoreIfRange,
    NoLength,
    NoRanges,
    Other,
    Redirect,
    Shifted,
    SlowHead,
    Status,
    Trickle,
    WrongLength,
    WrongRange,
)
from .faultserver import FaultServer

DATA = random.Random(1).randbytes(400_000)
Got = tuple[int, dict[str, str], bytes]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(seed=5) as one:
        yield one


class Browser:
    """A client without opinions, on one connection."""

    def __init__(self, server: FaultServer) -> None:
        self._connection = http.client.HTTPConnection(server.host, server.port, timeout=10)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str = "/f", method: str = "GET", **headers: str) -> Got:
        """What came, though it be less than was promised."""
        self._connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        with self._connection.getresponse() as answer:
            try:
                body = answer.read()
            except http.client.IncompleteRead as error:
                body = error.partial
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def get(server: FaultServer, path: str = "/f", **headers: str) -> Got:
    with Browser(server) as browser:
        return browser.get(path, **headers)


def test_without_a_fault_it_is_a_good_server(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    server.serve("/f", tmp_path / "f")
    with Browser(server) as browser:
        assert browser.get()[::2] == (200, DATA)
        status, headers, body = browser.get(Range="bytes=10-19")
        assert (status, body) == (206, DATA[10:20])
        assert (headers["content-range"], headers["content-length"]) == ("bytes 10-19/400000", "10")
        assert browser.get(Range="bytes=399990-")[2] == DATA[-10:] == browser.get(Range="bytes=-10")[2]
        assert browser.get(Range="bytes=5-9999999", If_Range='"v1"')[::2] == (206, DATA[5:])
        assert browser.get(Range="bytes=5-", If_Range='"v0"')[::2] == (200, DATA)
        assert browser.get(Range="bytes=400000-")[0] == 416
        assert browser.get(method="HEAD")[::2] == (200, b"")
        assert browser.get("/none")[0] == 404
    assert (server.connected, server.most_connections) == (1, 1)
    assert [seen.range for seen in server.seen()][:3] == [None, (10, 19), (399990, None)]
    server.wait_idle()
    assert server.sent("/f") == 2 * 400_000 + 30 + 399_995
    assert {seen.how for seen in server.requests} == {"whole"}


def test_a_connection_is_dropped_and_held_where_it_was_said(server: FaultServer) -> None:
    server.serve("/f", DATA, Drop(at=1000).only(0), Drop(after=7, reset=True).only(2), Hold(at=500).only(3))
    assert get(server)[2] == DATA[:1000]
    assert get(server)[2] == DATA
    with pytest.raises(ConnectionResetError):
        get(server, Range="bytes=100-")
    assert server.seen()[2].sent == 7
    with socket.create_connection((server.host, server.port)) as client:
        client.sendall(b"GET /f HTTP/1.1\r\nConnection: close\r\n\r\n")
        server.wait_held()
        assert server.seen()[3].sent == 500
        server.release()
        with client.makefile("rb") as file:
            assert file.read().partition(b"\r\n\r\n")[2] == DATA


def test_a_client_that_leaves_while_it_is_held_is_noticed(server: FaultServer) -> None:
    server.serve("/f", DATA, Hold(after=0))
    with socket.create_connection((server.host, server.port)) as client:
        client.sendall(b"GET /f HTTP/1.1\r\n\r\n")
        server.wait_held()
    server.wait_idle()
    assert server.seen()[0].how == "left"


def test_a_held_head_and_a_slow_one_come_in_the_end(server: FaultServer) -> None:
    server.serve("/f", b"abc", SlowHead().only(0), SlowHead(rate=2000).only(1))
    with socket.create_connection((server.host, server.port)) as client:
        client.sendall(b"GET /f HTTP/1.1\r\n\r\n")
        server.wait_held()
        server.release()
        assert client.recv(8) == b"HTTP/1.1"
    began = time.monotonic()
    assert get(server)[2] == b"abc"
    assert time.monotonic() - began > 0.05


def test_a_rate_is_kept_by_one_connection_and_by_all(server: FaultServer) -> None:
    server.serve("/f", DATA, Trickle(2_000_000))
    began = time.monotonic()
    assert get(server)[2] == DATA
    assert 0.1 < time.monotonic() - began < 2
    with FaultServer(rate=4_000_000) as slow:
        slow.serve("/f", DATA)
        began = time.monotonic()
        assert get(slow)[2] == DATA
        assert 0.05 < time.monotonic() - began < 1


def test_bits_are_flipped_where_it_was_said_or_by_chance_but_the_same_ones(server: FaultServer) -> None:
    server.serve("/f", DATA, Flip(77, 300_000).only(0), Flip(rate=1e-4).since(1))
    body = get(server)[2]
    assert [at for at in range(len(DATA)) if body[at] != DATA[at]] == [77, 300_000]
    body = get(server)[2]
    assert 10 < sum(a != b for a, b in zip(body, DATA, strict=True)) < 100
    with FaultServer(seed=5) as again:
        again.serve("/f", DATA, Flip(rate=1e-4).since(1))
        get(again)
        assert get(again)[2] == body


def test_what_the_head_says_can_be_wrong(server: FaultServer) -> None:
    server.serve(
        "/f",
        DATA,
        WrongRange(first=1, total=-9).only(0),
        WrongRange(text="").only(1),
        WrongLength(by=100).only(2),
        WrongLength(by=-100).only(3),
        ETag('W/"v1"').only(4),
        ETag("").only(5),
    )
    assert get(server, Range="bytes=10-19")[1]["content-range"] == "bytes 11-19/399991"
    status, headers, _ = get(server, Range="bytes=10-19")
    assert (status, "content-range" in headers) == (206, False)
    assert get(server)[2] == DATA
    assert get(server)[2] == DATA[:-100]
    assert get(server)[1]["etag"] == 'W/"v1"'
    assert "etag" not in get(server)[1]


def test_ranges_and_versions_can_be_ignored_and_change(server: FaultServer) -> None:
    server.serve(
        "/f", DATA, NoRanges().only(0), IgnoreIfRange().only(1), Other(DATA[::-1], '"v2"').since(2), Shifted(7).only(3)
    )
    assert get(server, Range="bytes=10-19")[::2] == (200, DATA)
    assert get(server, Range="bytes=10-19", If_Range='"v0"')[::2] == (206, DATA[10:20])
    assert get(server, Range="bytes=10-19", If_Range='"v1"')[::2] == (200, DATA[::-1])
    assert get(server, Range="bytes=10-19", If_Range='"v2"')[::2] == (206, DATA[::-1][17:27])
    server.serve("/f", b"new", etag='"v3"')
    assert get(server)[1]["etag"] == '"v3"'


def test_errors_pages_and_redirects_come_as_told(server: FaultServer) -> None:
    server.serve(
        "/f",
        DATA,
        Status(503, retry_after=7).only(0),
        Status(429, retry_after=60, dated=True).only(1),
        HtmlPage().only(2),
        Redirect("/elsewhere", 307).only(3),
    )
    assert get(server)[1]["retry-after"] == "7"
    asked = parsedate_to_datetime(get(server)[1]["retry-after"]).timestamp()
    assert 50 < asked - time.time() <= 61
    status, headers, body = get(server)
    assert (status, headers["content-type"], body[:9]) == (200, "text/html", b"<!DOCTYPE")
    assert get(server)[1]["location"] == "/elsewhere"


def test_a_body_comes_in_chunks_encoded_without_a_length_or_without_an_end(server: FaultServer) -> None:
    server.serve("/f", DATA, Chunked().only(0, 3), Encoded().only(1), NoLength().only(2, 4), Endless().only(3, 4))
    server.faults("/f", *server._resources["/f"][1], Drop(at=1_000_000).since(3))
    _, headers, body = get(server)
    assert (headers["transfer-encoding"], body) == ("chunked", DATA)
    assert get(server)[1]["content-encoding"] == "gzip"
    _, headers, body = get(server)
    assert ("content-length" in headers, body) == (False, DATA)
    for _ in range(2):
        assert get(server)[2] == (DATA * 3)[:1_000_000]


def test_what_is_no_http_is_sent_too(server: FaultServer) -> None:
    server.serve("/f", DATA, Garbage().only(0), Close().only(1), Close(reset=True).only(2))
    with pytest.raises(http.client.BadStatusLine):
        get(server)
    with pytest.raises(http.client.RemoteDisconnected):
        get(server)
    with pytest.raises(ConnectionResetError):
        get(server)


def test_links_end_by_use_by_time_and_by_force(server: FaultServer) -> None:
    server.serve("/f", DATA, signed=True)

    def answers(link: str, count: int) -> list[int]:
        return [get(server, link.removeprefix(server.url("")))[0] for _ in range(count)]

    assert answers(server.link("/f", uses=2), 3) == [200, 200, 403]
    assert answers(server.link("/f", seconds=0), 1) == [403]
    assert answers(server.url("/f"), 1) == [403]
    link = server.link("/f")
    assert answers(link, 1) == [200]
    server.expire()
    assert answers(link, 1) == [403]


def test_the_port_can_be_closed_and_opened_again(server: FaultServer) -> None:
    server.serve("/f", DATA)
    with Browser(server) as browser:
        browser.get()
        server.refuse()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            browser.get()
    with pytest.raises(ConnectionRefusedError):
        get(server)
    server.accept()
    assert get(server)[2] == DATA


def test_conditions_combine_and_chance_is_seeded(server: FaultServer) -> None:
    server.serve("/f", DATA, Status(500).covering(50).times(2), Status(503).ranged().until(4).since(3))
    assert [get(server, Range=f"bytes={first}-60")[0] for first in (40, 51, 40, 40, 40)] == [500, 206, 500, 503, 206]
    server.serve("/g", DATA, Status(500).chance(0.5))
    came = [get(server, "/g")[0] for _ in range(20)]
    assert 3 < came.count(500) < 17
    with FaultServer(seed=5) as again:
        again.serve("/g", DATA, Status(500).chance(0.5))
        assert [get(again, "/g")[0] for _ in range(20)] == came
