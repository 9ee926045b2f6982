"""How hubs are asked: what is kept and for how long, whom limits and tokens are for, and what a server cannot do."""

from __future__ import annotations

import gzip
import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.hubs.cache import Entry, HubCache
from jan_registry.hubs.errors import HubInvalid, HubRefused, HubUnreachable
from jan_registry.hubs.http import Answer, Http, Token
from jan_registry.hubs.limits import Limits, wait_asked
from jan_registry.hubs.transfer import origin_of
from jan_registry.local import open_local

from .hubcase import SECRET, Asked, Desk, Shape, desk, hub_server

pytestmark = pytest.mark.anyio

HOUR, DAY = 3600, 86400


async def get(one: Desk, url: str, **more: Any) -> Answer[Any]:
    answer: Answer[Any] = await one.http.get(url, hub="h", decode=json.loads, **more)
    return answer


def says(body: bytes = b'{"n": 1}', status: int = 200, **headers: str) -> Any:
    answer = Shape(body, status, {name.replace("_", "-"): value for name, value in headers.items()})
    return lambda asked: answer


async def test_a_known_answer_is_confirmed_rather_than_sent_again(tmp_path: Path) -> None:
    def reply(asked: Asked) -> Shape:
        if asked.headers.get("if-none-match") == '"v1"':
            return Shape(b"", 304, {"ETag": '"v1"'})
        return Shape(b'{"n": 1}', 200, {"ETag": '"v1"', "Link": "<x>"})

    with hub_server() as server:
        server.reply = reply
        async with desk(tmp_path) as one:
            first = await get(one, server.url)
            one.clock.now += 2 * DAY
            second = await get(one, server.url)
            assert (first.value, second.value) == ({"n": 1}, {"n": 1})
            assert (second.from_cache, second.age, second.headers["link"]) == ("network", 0, "<x>")
            one.clock.now += 1800
            assert (await get(one, server.url)).from_cache == "fresh"
        assert [asked.headers.get("if-none-match") for asked in server.asked] == [None, '"v1"']


async def test_a_known_answer_without_an_etag_is_confirmed_by_its_date(tmp_path: Path) -> None:
    date = "Sun, 01 Nov 2026 10:00:00 GMT"
    with hub_server() as server:
        server.reply = says(Last_Modified=date)
        async with desk(tmp_path) as one:
            await get(one, server.url)
            one.clock.now += 2 * DAY
            server.reply = says(b"", 304)
            assert (await get(one, server.url)).value == {"n": 1}
        assert server.asked[1].headers["if-modified-since"] == date


async def test_who_asks_the_same_at_once_waits_for_one_answer(tmp_path: Path) -> None:
    go = threading.Event()

    def slow(asked: Asked) -> Shape:
        go.wait(10)
        return Shape(b'{"n": 1}')

    with hub_server() as server:
        server.reply = slow
        async with desk(tmp_path) as one:
            values: list[Any] = []

            async def ask() -> None:
                values.append((await get(one, server.url)).value)

            async def give_up() -> None:
                with anyio.move_on_after(0.05):
                    await get(one, server.url)
                go.set()  # whoever gives up takes the answer from nobody

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(give_up)
                for _ in range(5):
                    tasks.start_soon(ask)
    assert values == [{"n": 1}] * 5
    assert len(server.asked) == 1


async def test_what_is_old_is_shown_at_once_while_it_is_asked_anew(tmp_path: Path) -> None:
    go = threading.Event()

    def slow(asked: Asked) -> Shape:
        go.wait(10)
        return Shape(b'{"n": 2}')

    with hub_server() as server:
        server.reply = says()
        async with desk(tmp_path) as one:
            await get(one, server.url)
            one.clock.now += 2 * HOUR
            server.reply = slow
            shown = await get(one, server.url)
            assert (shown.value, shown.from_cache, shown.age) == ({"n": 1}, "stale", 2 * HOUR)
            go.set()
            await one.context.tasks.ended()
            assert (await get(one, server.url)).value == {"n": 2}
        assert len(server.asked) == 2


async def test_nobody_waits_for_a_hub_that_has_just_failed(tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = says()
        async with desk(tmp_path) as one:
            await get(one, server.url)
            one.clock.now += 2 * DAY
            server.reply = says(b"", 500)
            for _ in range(3):
                assert (await get(one, server.url)).from_cache == "stale"
            assert len(server.asked) == 2
            one.clock.now += 31
            server.reply = says(b'{"n": 2}')
            assert (await get(one, server.url)).value == {"n": 2}


async def test_a_host_without_a_client_is_said_to_have_none(tmp_path: Path) -> None:
    class NoClient:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("this host has no HTTP client")

    async with desk(tmp_path) as one:
        context = NoClient()
        context.__dict__ |= {"tasks": one.context.tasks, "log": one.context.log}
        http = Http(context, one.database, now=one.clock)
        with pytest.raises(HubUnreachable, match="has no HTTP client"):
            await http.get("https://a.example/", hub="h", decode=bytes)


async def test_what_became_private_is_forgotten(tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = says()
        async with desk(tmp_path) as one:
            await get(one, server.url)
            one.clock.now += 2 * DAY
            server.reply = says(b"", 401)
            for _ in range(2):
                with pytest.raises(HubRefused, match="who asks"):
                    await get(one, server.url)
            server.stop()
            with pytest.raises(HubUnreachable):
                await get(one, server.url)


async def test_that_something_is_not_there_is_known_for_ten_minutes(tmp_path: Path) -> None:
    with hub_server() as server:
        async with desk(tmp_path) as one:
            for wait, requests in ((0, 1), (590, 1), (20, 2)):
                one.clock.now += wait
                answer = await get(one, server.url)
                assert (answer.status, answer.value) == (404, None)
                assert len(server.asked) == requests


@pytest.mark.parametrize(
    ("kind", "fresh", "stale"), [("detail", HOUR, 30 * DAY), ("search", 300, DAY), ("immutable", 30 * DAY, 365 * DAY)]
)
async def test_each_kind_of_answer_has_its_time(kind: str, fresh: int, stale: int, tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = says()
        async with desk(tmp_path) as one:
            await get(one, server.url, kind=kind)
            server.stop()
            start = one.clock.now
            for age, outcome in ((fresh - 2, "fresh"), (fresh + 2, "stale"), (stale - 2, "stale")):
                one.clock.now = start + age
                assert (await get(one, server.url, kind=kind)).from_cache == outcome
            one.clock.now = start + stale + 2
            with pytest.raises(HubUnreachable):
                await get(one, server.url, kind=kind)


async def test_what_must_not_be_kept_is_not(tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = says()
        async with desk(tmp_path) as one:
            for _ in range(2):
                assert (await get(one, server.url, kind="none")).from_cache == "network"
        assert len(server.asked) == 2


async def test_a_clock_that_was_set_back_does_not_keep_an_answer_for_ever(tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = says()
        async with desk(tmp_path) as one:
            await get(one, server.url)
            one.clock.now -= 400 * DAY
            assert (await get(one, server.url)).from_cache == "network"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, 56),
        ({"Backoff": "30"}, 30),
        ({"Backoff": "30", "Retry-After": "90"}, 90),
        ({"Retry-After": "Sun, 01 Nov 2026 10:01:00 GMT", "Date": "Sun, 01 Nov 2026 10:00:00 GMT"}, 60),
    ],
)
async def test_limits_are_kept_also_after_a_good_answer_and_a_restart(
    headers: dict[str, str], wait: int, tmp_path: Path
) -> None:
    with hub_server() as server:
        server.reply = lambda asked: Shape(b"{}", 200, headers)
        async with desk(tmp_path) as one:
            await get(one, server.url + "/a")
        async with desk(tmp_path) as again:
            again.clock.now += wait - 3
            with pytest.raises(HubRefused) as refused:
                await get(again, server.url + "/b")
            assert (refused.value.reason, refused.value.retry_after) == ("rate_limited", 3)
            again.clock.now += 3
            await get(again, server.url + "/b")
        assert len(server.asked) == 2


async def test_a_limit_is_for_who_asked_and_where(tmp_path: Path) -> None:
    with hub_server() as server, hub_server() as other:
        server.reply = says(b"", 429, Retry_After="60")
        other.reply = says()
        async with desk(tmp_path) as one:
            with pytest.raises(HubRefused):
                await get(one, server.url)
            server.reply = says()
            assert (await get(one, other.url)).value == {"n": 1}
            assert (await get(one, server.url, token=Token(SECRET, server.url))).value == {"n": 1}


async def test_a_token_follows_a_redirect_at_home_and_never_comes_back_from_elsewhere(tmp_path: Path) -> None:
    with hub_server() as home, hub_server() as elsewhere:

        def reply(asked: Asked) -> Shape:
            to = {"/a": "/b", "/b": elsewhere.url + "/c", "/d": ""}[asked.path]
            return Shape(b"", 307, {"Location": to}) if to else Shape(b"{}")

        home.reply = reply
        elsewhere.reply = says(b"", 302, Location=home.url + "/d")
        async with desk(tmp_path) as one:
            await get(one, home.url + "/a", token=Token(SECRET, home.url))
    assert [asked.headers.get("authorization") for asked in home.asked] == [f"Bearer {SECRET}"] * 2 + [None]
    assert [asked.headers.get("authorization") for asked in elsewhere.asked] == [None]


async def test_a_veto_holds_for_where_a_redirect_leads(tmp_path: Path) -> None:
    async def only_home(url: str) -> str:
        return "" if url.startswith(home.url) else "only at home"

    with hub_server() as home, hub_server() as elsewhere:
        home.reply = says(b"", 302, Location=elsewhere.url)
        async with desk(tmp_path) as one:
            http = Http(one.context, one.database, admit=only_home, now=one.clock)
            with pytest.raises(HubRefused, match="only at home"):
                await http.get(home.url, hub="h", decode=bytes)
        assert (home.connections, elsewhere.connections) == (1, 0)


async def test_cookies_are_not_sent_back(tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = says(Set_Cookie=f"session={SECRET}")
        async with desk(tmp_path) as one:
            await get(one, server.url + "/a", token=Token(SECRET, server.url))
            await get(one, server.url + "/b")
    assert "cookie" not in server.asked[1].headers


@pytest.mark.parametrize(
    "location",
    ["", "file:///etc/passwd", "ftp://x/", "http://[", "//", "http://user:pw@x/", "javascript:1", "http://x:99999/"],
)
async def test_a_redirect_to_what_is_no_address_is_refused(location: str, tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = says(b"", 302, Location=location)
        async with desk(tmp_path) as one:
            with pytest.raises((HubInvalid, HubUnreachable)):
                await get(one, server.url)


async def test_redirects_have_an_end(tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = says(b"", 302, Location="/again")
        async with desk(tmp_path) as one:
            with pytest.raises(HubInvalid, match="redirects more than"):
                await get(one, server.url)
        assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("body", "headers", "error"),
    [
        (b"x" * 2000, {}, HubInvalid),
        (gzip.compress(b"x" * 2000), {"Content-Encoding": "gzip"}, HubInvalid),
        (gzip.compress(b'{"n": 1}')[:-9], {"Content-Encoding": "gzip"}, HubUnreachable),
        (b"not gzip", {"Content-Encoding": "gzip"}, HubInvalid),
        (b'{"n": 1}', {"Content-Encoding": "br"}, HubInvalid),
        (b'{"n": NaNa}', {}, HubInvalid),
    ],
)
async def test_a_body_that_is_not_what_was_asked_for_is_refused(
    body: bytes, headers: Mapping[str, str], error: type[Exception], tmp_path: Path
) -> None:
    with hub_server() as server:
        server.reply = lambda asked: Shape(body, 200, headers)
        async with desk(tmp_path) as one:
            with pytest.raises(error):
                await get(one, server.url, limit=1000)
            server.reply = says(gzip.compress(b'{"n": 2}'), Content_Encoding="gzip")
            assert (await get(one, server.url, limit=1000)).value == {"n": 2}


async def test_a_server_that_never_ends_is_given_up(tmp_path: Path) -> None:
    go = threading.Event()

    def never(asked: Asked) -> Shape:
        go.wait(10)
        return Shape()

    with hub_server() as server:
        server.reply = never
        async with desk(tmp_path) as one:
            http = Http(one.context, one.database, timeout=lambda: 0.2, now=one.clock)
            with pytest.raises(HubUnreachable, match=r"did not answer within 0\.2 s"):
                await http.get(server.url, hub="h", decode=bytes)
        go.set()


async def test_errors_name_the_host_and_nothing_that_is_secret(tmp_path: Path) -> None:
    with hub_server() as server:
        token = Token(SECRET, server.url)
        assert SECRET not in repr(token)
        async with desk(tmp_path) as one:
            texts: list[str] = []
            for status in (400, 401, 403, 418, 429, 500):
                server.reply = says(b"", status)
                with pytest.raises((HubInvalid, HubRefused, HubUnreachable)) as failed:
                    await get(one, f"{server.url}/?key={SECRET}", token=token)
                texts.append(repr(failed.value.to_object()))
                one.clock.now += 5
            server.stop()
            with pytest.raises(HubUnreachable) as gone:
                await get(one, f"{server.url}/?key={SECRET}", token=token)
            texts.append(repr(gone.value.to_object()))
    assert all("127.0.0.1" in text and SECRET not in text for text in texts)


@pytest.mark.parametrize("url", ["", "x", "file:///etc/passwd", "http://", "http://a b/", "http://a:b@c/", "http://ü/"])
async def test_what_is_no_address_is_not_asked(url: str, tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        with pytest.raises(HubInvalid):
            await get(one, url)


async def test_a_disk_that_does_not_do_takes_no_answer_away(tmp_path: Path) -> None:
    with hub_server() as server:
        server.reply = says()
        async with desk(tmp_path) as one:
            (tmp_path / "registry.db").mkdir()
            for _ in range(2):
                assert (await get(one, server.url)).from_cache == "network"


def kept(body: bytes = b"", at: int = 0) -> Entry:
    return Entry(200, {}, body, at, at, at)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = HubCache(open_local(tmp_path), cap=100_000)
    for n in range(50):
        cache.put(str(n), "h", kept(b"x" * 2000), now=1000 + n)
    assert cache.get("0", now=5000) is None
    assert cache.get("49", now=5000) is not None
    oldest = next(n for n in range(50) if cache.get(str(n), now=1000 + n) is not None)
    cache.get(str(oldest), now=9000)  # used: others go before it
    for n in range(50, 70):
        cache.put(str(n), "h", kept(b"x" * 2000), now=6000 + n)
    assert cache.get(str(oldest), now=9000) is not None
    with sqlite3.connect(tmp_path / "registry.db") as db:
        assert db.execute("SELECT total(length(body)) FROM hub_cache").fetchone()[0] <= 100_000
        plan = " ".join(row[3] for row in db.execute("EXPLAIN QUERY PLAN SELECT total(size) FROM hub_cache"))
    db.close()
    assert "COVERING INDEX" in plan  # without reading the bodies


def test_what_is_too_large_is_not_kept_and_replaces_what_was(tmp_path: Path) -> None:
    cache = HubCache(open_local(tmp_path), cap=1000)
    cache.put("a", "h", kept(b"small"), now=1)
    cache.put("a", "h", kept(b"x" * 300), now=2)
    assert cache.get("a", now=3) is None


def test_reading_writes_at_most_once_a_minute(tmp_path: Path) -> None:
    database = open_local(tmp_path)
    cache = HubCache(database)
    cache.put("a", "h", kept(), now=1000)
    writes: list[float] = []
    for now in (1001, 1059, 1060, 1100, 1121):
        before = _used(database)
        cache.get("a", now=now)
        if _used(database) != before:
            writes.append(now)
    assert writes == [1060, 1121]


def _used(database: Any) -> int:
    with database.read() as db:
        return int(db.execute("SELECT last_used FROM hub_cache").fetchone()[0])


def test_reading_does_not_make_the_file(tmp_path: Path) -> None:
    assert HubCache(open_local(tmp_path)).get("a", now=1) is None
    assert list(tmp_path.iterdir()) == []


def test_a_limit_never_lasts_longer_than_a_day() -> None:
    assert wait_asked(429, {"retry-after": "999999999"}, 0.0) == 86400
    limits = Limits()
    limits.hold("a", 1e12)
    assert limits.left("a", 0.0) == 86400
    assert limits.left("a", 2e12) == 0


@given(
    st.dictionaries(st.sampled_from(["retry-after", "backoff", "ratelimit", "date"]), st.text(max_size=40)),
    st.integers(100, 599),
)
def test_no_header_upsets_the_reading_of_limits(headers: dict[str, str], status: int) -> None:
    assert 0 <= wait_asked(status, headers, 1e9) <= 86400


def test_an_origin_has_its_schemes_own_port() -> None:
    assert origin_of("https://A.example/x") == ("https", "a.example", 443)
    assert Token("t", "https://a.example").fits("https://a.example:443/x")
    assert not Token("t", "https://a.example").fits("http://a.example/x")
    assert not Token("t", "https://a.example").fits("https://b.a.example/x")


def test_https_does_not_become_http() -> None:
    from jan_registry.hubs.transfer import _redirect

    assert _redirect("https://a.example/x", "https://b.example/") == "https://b.example/"
    assert _redirect("http://a.example/x", "https://b.example/") == "https://b.example/"
    with pytest.raises(HubInvalid, match="plain http"):
        _redirect("https://a.example/x", "http://a.example/x")
