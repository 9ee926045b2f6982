"""Wrong bytes under right heads: they are found, blamed on whoever sent them, and fetched again alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jan_core import RpcError
from jan_core.types import DownloadSource

from .faults import Drop, Flip, Other, Shifted
from .faultserver import FaultServer
from .house import PIECE, Mirrors, OpenHouse, content, piece_list

MARGIN = 300_000


def source(job: dict[str, Any], server: FaultServer) -> dict[str, Any]:
    """The figures of one source of a job."""
    [found] = [each for each in job["sources"] if each["id"].endswith(f":{server.port}")]
    return dict(found)


def damage(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"rot")


async def last_seen(house: Any, server: FaultServer) -> dict[str, Any]:
    """The last figures of a source that were told."""
    return source(next(event for event in reversed(house.events) if event["sources"]), server)


async def test_one_wrong_piece_is_fetched_again_alone(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    url = server.serve("/f", data, Flip(77))
    mirror = serve_more()
    async with open_house(Mirrors(DownloadSource(mirror.serve("/f", data), priority=9)), max_connections=1) as house:
        job = await house.fetch(url, data, pieces=piece_list(mirror, data))
        assert content(job) == data
        assert 0 < job["bytes_discarded"] <= PIECE
    assert server.sent("/f") + mirror.sent("/f") <= len(data) + PIECE + MARGIN


async def test_a_source_is_quarantined_after_its_first_wrong_piece_and_asked_for_nothing_more(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    mirror = serve_more(rate=3_000_000)
    url = server.serve("/f", data, Flip(rate=1e-4))
    async with open_house(Mirrors(DownloadSource(mirror.serve("/f", data), priority=9))) as house:
        job = await house.fetch(url, data, pieces=piece_list(mirror, data))
        assert content(job) == data
        assert job["bytes_discarded"] <= 8 * PIECE  # one piece of each connection there was
        figures = await last_seen(house, server)
        assert figures["state"] == "quarantined"
        assert figures["reason"]
    assert len(server.seen("/f")) <= 8
    assert mirror.sent("/f") >= len(data) - 8 * PIECE


async def test_with_one_source_a_passing_error_of_the_line_costs_one_piece_and_not_the_file(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    at = 5 * PIECE + 1
    url = server.serve("/f", data, Flip(at).covering(at).times(1))
    async with open_house() as house:
        job = await house.fetch(url, data, pieces=piece_list(server, data))
        assert content(job) == data
        assert 0 < job["bytes_discarded"] <= PIECE
    assert server.sent("/f") <= len(data) + PIECE + MARGIN


async def test_a_source_that_is_wrong_for_ever_ends_in_an_error_that_names_it(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Flip(5 * PIECE))
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.fetch(url, data, pieces=piece_list(server, data))
        assert failed.value.type in ("hash_mismatch", "bad_source")
        [job] = (await house.call("list"))["downloads"]
        assert (job["state"], job["path"]) == ("failed", "")
        assert not (house.data_dir / "files").exists() or not list((house.data_dir / "files").iterdir())
        kept = job["bytes_done"]
        assert kept >= len(data) - 10 * PIECE  # the good pieces are not thrown away with the bad one
        server.faults("/f")
        before = server.sent("/f")
        await house.call("resume", id=job["id"])
        assert content(await house.until(job["id"], "completed")) == data
    assert server.sent("/f") - before <= 12 * PIECE


async def test_without_piece_hashes_a_wrong_file_is_refused_whole_and_never_stands_under_its_name(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Flip(len(data) - 1))
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.fetch(url, data)
        assert (failed.value.type, failed.value.code) == ("hash_mismatch", -32066)
        [job] = (await house.call("list"))["downloads"]
        assert (job["state"], job["path"], job["verified"]) == ("failed", "", False)
        assert job["bytes_discarded"] >= len(data)
        server.faults("/f")
        await house.call("resume", id=job["id"])
        assert content(await house.until(job["id"], "completed")) == data


async def test_without_piece_hashes_the_second_source_gets_its_turn_when_the_first_was_wrong(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    mirror = serve_more()
    good = mirror.serve("/f", data)
    async with open_house(Mirrors(DownloadSource(good, priority=9)), max_connections=1) as house:
        job = await house.fetch(server.serve("/f", data, Flip(2_999_999)), data)
        assert content(job) == data
        assert job["verified"] is True
    assert mirror.sent("/f") >= len(data)


async def test_bytes_from_another_place_of_the_file_are_not_taken(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    mirror = serve_more(rate=3_000_000)
    async with open_house(Mirrors(DownloadSource(mirror.serve("/f", data), priority=9))) as house:
        job = await house.fetch(server.serve("/f", data, Shifted(1)), data, pieces=piece_list(mirror, data))
        assert content(job) == data
        assert (await last_seen(house, server))["state"] == "quarantined"


async def test_a_mirror_with_another_file_of_the_same_size_under_the_same_etag_does_no_harm(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], big: bytes
) -> None:
    mirror = serve_more()
    other = mirror.serve("/f", big, Other(big[::-1]))
    url = server.serve("/f", big)
    async with open_house(Mirrors(other)) as house:
        job = await house.fetch(url, big, pieces=piece_list(server, big, length=1 << 20))
        assert content(job) == big
    assert mirror.sent("/f") <= 8 << 20


async def test_a_file_that_changes_on_the_server_midway_is_taken_from_whoever_has_the_one_that_was_asked_for(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    mirror = serve_more()
    url = server.serve("/f", data, Drop(at=1_000_000).only(0), Other(data[::-1], '"v2"').since(1))
    async with open_house(Mirrors(DownloadSource(mirror.serve("/f", data), priority=9))) as house:
        job = await house.fetch(url, data, pieces=piece_list(mirror, data))
        assert content(job) == data
    assert server.sent("/f") + mirror.sent("/f") <= len(data) + 2 * PIECE + MARGIN


async def test_repair_fetches_the_damaged_pieces_and_nothing_else(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data)
    async with open_house() as house:
        job = await house.fetch(url, data, pieces=piece_list(server, data))
        damage(Path(job["path"]), 3 * PIECE + 5)
        before = server.sent("/f")
        found = await house.call("verify", id=job["id"], repair=True)
        assert (found["ok"], found["repairing"]) == (False, True)
        assert found["damaged"] == PIECE
        done = await house.until(job["id"], "completed")
        assert content(done) == data
        assert (await house.call("verify", id=job["id"]))["ok"] is True
    server.wait_idle()
    assert server.sent("/f") - before <= PIECE
