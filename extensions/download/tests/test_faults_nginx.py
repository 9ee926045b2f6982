"""With the web server that most of the world's files come from: its ranges, its rates, its end in mid-file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme

from jan_core import RpcError
from jan_core.types import DownloadSource

from .faultserver import FaultServer
from .house import Mirrors, OpenHouse, content, piece_list
from .nginx import StartNginx

LENGTH = 1 << 20


@pytest.fixture
def folder(tmp_path: Path, big: bytes) -> Path:
    place = tmp_path / "www"
    place.mkdir()
    (place / "model.bin").write_bytes(big)
    return place


async def test_a_file_comes_whole_and_no_byte_twice(
    open_house: OpenHouse,
    nginx: StartNginx,
    server: FaultServer,
    folder: Path,
    big: bytes,
) -> None:
    web = nginx(folder)
    async with open_house() as house:
        job = await house.fetch(web.url(0, "model.bin"), big, pieces=piece_list(server, big, length=LENGTH))
        assert content(job) == big
    web.stop()
    assert sum(served.sent for served in web.requests()) == len(big)
    assert {served.status for served in web.requests()} == {206}


async def test_mirrors_with_a_rate_each_share_the_work(
    open_house: OpenHouse,
    nginx: StartNginx,
    server: FaultServer,
    folder: Path,
    big: bytes,
) -> None:
    limited = "limit_rate 8m;"  # of each connection
    web = nginx(folder, limited, folder, limited, folder, limited)
    async with open_house(Mirrors(web.url(1, "model.bin"), web.url(2, "model.bin"))) as house:
        job = await house.fetch(web.url(0, "model.bin"), big, pieces=piece_list(server, big, length=LENGTH))
        assert content(job) == big
    web.stop()
    brought = [sum(served.sent for served in web.requests() if served.site == site) for site in range(3)]
    assert min(brought) > len(big) * 0.05, brought
    assert sum(brought) <= len(big) * 1.2


async def test_a_killed_nginx_is_waited_for_and_nothing_is_lost(
    open_house: OpenHouse,
    nginx: StartNginx,
    folder: Path,
    big: bytes,
) -> None:
    web = nginx(folder, "limit_rate 24m;")
    async with open_house(max_connections=2) as house:
        job = await house.start(web.url(0, "model.bin"), big)
        for done in (4_000_000, 16_000_000):
            await house.until(job["id"], "running", done=done)
            web.kill()
            waiting = await house.until(job["id"], "waiting")
            assert waiting["error"]["type"] == "source_unreachable"
            web.start()
        finished = await house.until(job["id"], "completed")
        assert content(finished) == big
        assert finished["bytes_discarded"] == 0


async def test_one_of_two_is_killed_and_the_other_brings_the_rest(
    open_house: OpenHouse,
    nginx: StartNginx,
    folder: Path,
    big: bytes,
) -> None:
    first, second = nginx(folder, "limit_rate 8m;"), nginx(folder, "limit_rate 12m;")
    async with open_house(Mirrors(DownloadSource(second.url(0, "model.bin"), priority=3))) as house:
        job = await house.start(first.url(0, "model.bin"), big)
        await house.until(job["id"], "running", done=4_000_000)
        first.kill()
        assert content(await house.until(job["id"], "completed")) == big
        assert all(event["state"] != "waiting" for event in house.events)


async def test_without_ranges_it_is_fetched_in_one_piece(
    open_house: OpenHouse,
    nginx: StartNginx,
    folder: Path,
    big: bytes,
) -> None:
    web = nginx(folder, "max_ranges 0;")
    async with open_house() as house:
        assert content(await house.fetch(web.url(0, "model.bin"), big)) == big
    web.stop()
    assert {served.status for served in web.requests()} == {200}
    assert sum(served.sent for served in web.requests()) <= len(big) * 1.5


async def test_a_file_that_was_replaced_meanwhile_is_begun_anew(
    open_house: OpenHouse,
    nginx: StartNginx,
    folder: Path,
    big: bytes,
) -> None:
    web = nginx(folder, "limit_rate 8m;")
    async with open_house() as house:
        job = await house.start(web.url(0, "model.bin"))
        await house.until(job["id"], "running", done=3_000_000)
        await house.call("pause", id=job["id"])
        new = big[::-1][:6_000_000]
        (folder / "new").write_bytes(new)
        os.utime(folder / "new", (1e9, 1e9))
        (folder / "new").replace(folder / "model.bin")
        await house.call("resume", id=job["id"])
        done = await house.until(job["id"], "completed")
        assert content(done) == new
        assert done["bytes_discarded"] >= 3_000_000


async def test_a_certificate_of_an_own_authority_is_trusted_when_it_was_named_and_only_then(
    open_house: OpenHouse,
    nginx: StartNginx,
    folder: Path,
    big: bytes,
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    certificate, root = tmp_path / "server.pem", tmp_path / "root.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(root)
    web = nginx(folder, certificate=certificate, name="localhost")
    async with open_house() as house:
        with pytest.raises(RpcError, match="certificate of localhost is not trusted") as failed:
            await house.fetch(web.url(0, "model.bin"), big)
        assert failed.value.type == "bad_source"
        [job] = (await house.call("list"))["downloads"]
        await house.call("remove", id=job["id"])
    async with open_house(certificates=str(root)) as house:
        assert content(await house.fetch(web.url(0, "model.bin"), big)) == big
