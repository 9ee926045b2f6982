"""Servers that answer something else than they were asked: it is noticed, named, and costs no more than it must."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from jan_core import RpcError
from jan_core.types import DownloadSource

from .faults import (
    Drop,
    Encoded,
    Endless,
    ETag,
    Fault,
    Header,
    Hold,
    HtmlPage,
    IgnoreIfRange,
    NoLength,
    NoRanges,
    Other,
    Redirect,
    Status,
    WrongLength,
    WrongRange,
)
from .faultserver import FaultServer
from .house import Mirrors, OpenHouse, content, happens, piece_list

MARGIN = 300_000


@pytest.mark.parametrize(
    "lie",
    [
        WrongRange(first=-1),
        WrongRange(first=1),
        WrongRange(last=1),
        WrongRange(last=-1),
        WrongRange(total=1),
        WrongRange(total=-1),
        WrongRange(text=""),
        WrongRange(text="bytes */3000000"),
        WrongRange(text="x"),
        WrongLength(by=-1000),
        NoRanges(),
        Status(416),
    ],
    ids=repr,
)
async def test_a_lie_about_the_range_is_not_believed_and_the_honest_source_is_used(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes, lie: Fault
) -> None:
    honest = serve_more()
    # The first answer is good, so that a part of the file is there and a range must be asked for.
    liar = server.serve("/f", data, Drop(at=1_000_000).only(0), lie.since(1))
    mirror = honest.serve("/f", data, Status(503).until(2))
    async with open_house(Mirrors(DownloadSource(mirror, priority=5))) as house:
        job = await house.fetch(liar, data)
        assert content(job) == data
        assert job["verified"] is True
    assert len(server.seen("/f")) < 12


async def test_a_server_that_ignores_ranges_is_read_from_the_start_and_no_good_byte_is_lost(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, NoRanges(), Drop(at=1_234_567).only(0))
    async with open_house() as house:
        job = await house.fetch(url, data)
        assert content(job) == data
        assert job["bytes_discarded"] <= 1_234_567
    assert len(server.seen("/f")) <= 3
    assert server.sent("/f") <= len(data) + 1_234_567 + MARGIN


async def test_a_range_that_begins_after_the_end_of_the_file_says_that_it_shrank(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    short = data[:500_000]
    url = server.serve("/f", data, Drop(at=1_000_000).only(0), Other(short, '"v2"').since(1), IgnoreIfRange())
    async with open_house() as house:
        job = await house.fetch(url)
        assert content(job) == short
        assert job["bytes_discarded"] == 1_000_000
        assert job["verified"] is False


async def test_a_file_that_changes_midway_is_begun_anew_and_never_glued_together(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    new = data[::-1]
    url = server.serve("/f", data, Drop(at=1_000_000).only(0), Other(new, '"v2"').since(1))
    async with open_house() as house:
        job = await house.fetch(url)
        assert content(job) == new
        assert job["bytes_discarded"] == 1_000_000
        assert "cannot be checked" in job["warning"]


async def test_a_part_of_another_version_is_not_used_though_the_server_ignores_if_range(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    new = data[::-1]
    url = server.serve("/f", data, Drop(at=1_000_000).only(0), Other(new, '"v2"').since(1), IgnoreIfRange())
    async with open_house() as house:
        job = await house.fetch(url)
        assert content(job) == new


@pytest.mark.parametrize("etag", ['W/"v1"', "", "no quotes"])
async def test_without_a_hash_and_a_strong_validator_nothing_is_resumed(
    open_house: OpenHouse, server: FaultServer, data: bytes, etag: str
) -> None:
    url = server.serve("/f", data, ETag(etag), Drop(at=1_000_000).only(0))
    async with open_house() as house:
        job = await house.fetch(url)
        assert content(job) == data
        assert job["bytes_discarded"] == 1_000_000
    assert server.sent("/f") == len(data) + 1_000_000
    assert server.headers("If-Range", "/f") == [None, None]
    assert server.most_connections == 1


async def test_a_weak_etag_does_not_keep_a_file_of_known_hash_from_being_resumed(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, ETag('W/"v1"'), Drop(at=1_000_000).only(0))
    async with open_house() as house:
        job = await house.fetch(url, data)
        assert content(job) == data
        assert job["bytes_discarded"] == 0
    assert server.sent("/f") == len(data)
    assert 'W/"v1"' not in server.headers("If-Range", "/f")


async def test_a_strong_etag_is_sent_with_every_range_after_the_first(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Drop(after=900_000))
    async with open_house() as house:
        assert content(await house.fetch(url)) == data
    assert server.headers("If-Range", "/f")[1:] == ['"v1"'] * (len(server.seen("/f")) - 1)


async def test_a_compressed_body_is_refused_by_name(open_house: OpenHouse, server: FaultServer, data: bytes) -> None:
    async with open_house() as house:
        with pytest.raises(RpcError, match="gzip") as failed:
            await house.fetch(server.serve("/f", data, Encoded()), data)
        assert failed.value.type == "bad_source"
    assert set(server.headers("Accept-Encoding")) == {"identity"}


async def test_a_file_of_another_size_is_refused_before_a_byte_of_it_is_kept(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    for wrong in (data + b"more", data[:-4], b""):
        async with open_house() as house:
            with pytest.raises(RpcError) as failed:
                await house.fetch(server.serve("/f", wrong), data)
            assert failed.value.type == "bad_source"
            [job] = (await house.call("list"))["downloads"][-1:]
            assert (job["state"], job["bytes_done"], job["path"]) == ("failed", 0, "")
            assert await house.one("cancel", job["id"])


async def test_an_endless_body_is_cut_off_where_the_file_ends(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, NoRanges(), Endless(), NoLength())
    async with open_house() as house:
        assert content(await house.fetch(url, data[:-1000])) == data[:-1000]
        with pytest.raises(RpcError) as failed:
            await house.fetch(url, data[:-2000] + b"!", name="other.bin")
        assert failed.value.type == "hash_mismatch"
        await happens(server.wait_idle)
    assert server.sent("/f") < 20_000_000


async def test_a_content_length_that_is_too_long_is_a_broken_connection(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, NoRanges(), Header("ETag", None), WrongLength(by=50).until(2))
    async with open_house() as house:
        job = await house.fetch(url)
        assert content(job) == data
    assert len(server.seen("/f")) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "source_unauthorized"),
        (403, "source_unauthorized"),
        (404, "source_not_found"),
        (410, "source_not_found"),
        (400, "bad_source"),
        (451, "bad_source"),
        (204, "bad_source"),
        (304, "bad_source"),
    ],
)
async def test_an_answer_that_will_not_change_fails_at_once_and_says_which_it_was(
    open_house: OpenHouse, server: FaultServer, status: int, kind: str
) -> None:
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.fetch(server.serve("/f", b"", Status(status)))
        assert failed.value.type == kind
        assert str(status) in failed.value.message
        assert "127.0.0.1" in failed.value.message
    assert len(server.seen("/f")) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_an_answer_that_may_change_is_waited_out(
    open_house: OpenHouse, server: FaultServer, data: bytes, status: int
) -> None:
    async with open_house() as house:
        job = await house.fetch(server.serve("/f", data, Status(status).until(3)), data)
        assert content(job) == data
        assert job["error"] is None
        waits = [event for event in house.events if event["state"] == "waiting"]
        assert all(event["error"]["type"] == "source_unreachable" for event in waits)
    assert len(server.seen("/f")) >= 4


@pytest.mark.parametrize("dated", [False, True])
async def test_retry_after_is_kept_to_the_second_and_a_person_may_overrule_it(
    open_house: OpenHouse, server: FaultServer, data: bytes, dated: bool
) -> None:
    url = server.serve("/f", data, Status(503, retry_after=1800, dated=dated).only(0))
    async with open_house() as house:
        job = await house.until((await house.start(url, data))["id"], "waiting")
        left = (datetime.fromisoformat(job["retry_at"]) - datetime.now(UTC)).total_seconds()
        assert 1750 < left <= 1801
        assert len(server.seen("/f")) == 1
        await house.call("resume", id=job["id"])
        assert content(await house.until(job["id"], "completed")) == data


async def test_a_retry_after_that_is_nonsense_or_an_age_does_not_stop_a_job_for_ever(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Status(503).only(0), Header("Retry-After", "soon").only(0))
    async with open_house() as house:
        assert content(await house.fetch(url, data)) == data
        url = server.serve("/g", data, Status(503).only(0), Header("Retry-After", "99999999999").only(0))
        job = await house.start(url, data[::-1], name="g.bin")
        job = await house.until(job["id"], "waiting")
        assert datetime.fromisoformat(job["retry_at"]).timestamp() - time.time() <= 3700


async def test_a_busy_source_is_left_alone_while_another_brings_the_file(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    url = server.serve("/f", data, Status(429, retry_after=600))
    other = serve_more().serve("/f", data)
    async with open_house(Mirrors(DownloadSource(other, priority=5))) as house:
        assert content(await house.fetch(url, data)) == data
        assert all(event["state"] != "waiting" for event in house.events)
    assert len(server.seen("/f")) <= 2


async def test_a_sign_in_page_instead_of_a_model_is_called_that(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.fetch(server.serve("/f", data, HtmlPage()), name="model.gguf")
        assert failed.value.type == "bad_source"
        assert "HTML" in failed.value.message or "web page" in failed.value.message


async def test_a_page_of_the_right_size_is_noticed_after_the_first_piece(
    open_house: OpenHouse, server: FaultServer
) -> None:
    page = b"<!DOCTYPE html><html>" + b" " * 30_000_000
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.fetch(server.serve("/f", page, Drop(at=29_000_000)), name="model.gguf")
        assert failed.value.type == "bad_source"
        [job] = (await house.call("list"))["downloads"]
        assert job["state"] == "failed"
    server.wait_idle()
    assert len(server.seen("/f")) < 8


async def test_redirects_without_end_or_to_what_is_no_web_address_are_refused(
    open_house: OpenHouse, server: FaultServer
) -> None:
    for path, to in (
        ("/loop", "/loop"),
        ("/local", "file:///etc/passwd"),
        ("/login", "http://user:secret@127.0.0.1/"),
        ("/nowhere", ""),
        ("/ftp", "ftp://127.0.0.1/f"),
    ):
        async with open_house() as house:
            with pytest.raises(RpcError) as failed:
                await house.fetch(server.serve(path, b"", Redirect(to)), name=f"{path[1:]}.bin")
            assert failed.value.type == "bad_source", path
            assert "secret" not in failed.value.message
    assert len(server.seen("/loop")) <= 11


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_every_kind_of_redirect_is_followed_with_its_range(
    open_house: OpenHouse, server: FaultServer, data: bytes, status: int
) -> None:
    server.serve("/there", data, Drop(at=1_000_000).only(0))
    async with open_house() as house:
        job = await house.fetch(server.serve("/here", b"", Redirect("/there", status)), data)
        assert content(job) == data
    assert server.sent("/there") == len(data)
    assert [seen.range[0] for seen in server.seen("/there") if seen.range][:2] == [0, 1_000_000]


async def test_an_empty_file_is_a_file(open_house: OpenHouse, server: FaultServer) -> None:
    async with open_house() as house:
        job = await house.fetch(server.serve("/f", b""), name="empty.bin")
        assert content(job) == b""
        assert job["bytes_total"] == 0


async def test_a_file_that_turns_out_larger_than_the_whole_disk_is_refused_before_a_byte_of_it_is_written(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    size = 2**59
    url = server.serve(
        "/f", data, Header("Content-Range", f"bytes 0-{size - 1}/{size}"), Header("Content-Length", f"{size}")
    )
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.fetch(url)
        assert failed.value.type == "disk_full"
        assert sum(path.stat().st_blocks for path in (house.data_dir / "partial").glob("*")) * 512 < 100_000_000


async def test_a_list_of_pieces_that_cannot_be_had_or_is_another_costs_only_its_checks(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    for path, fault in (
        ("/gone", Status(404)),
        ("/other", Other(b"\0" * 32 * 23)),
        ("/long", Endless()),
        ("/page", HtmlPage()),
    ):
        pieces = piece_list(server, data, path)
        server.faults(path, fault)
        async with open_house(keep_partial_days=0) as house:
            job = await house.fetch(server.serve("/f", data), data, pieces=pieces)
            assert content(job) == data
            assert job["verified"] is True
            await house.call("remove", id=job["id"])


async def test_a_piece_list_that_answers_nothing_does_not_hold_the_file_up_for_ever(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    pieces = piece_list(server, data)
    server.faults("/pieces", Hold(after=10))
    async with open_house(stall_timeout=0.3) as house:
        started = await house.start(server.serve("/f", data), data, pieces=pieces)
        await happens(server.wait_held)
        assert content(await house.until(started["id"], "completed")) == data
