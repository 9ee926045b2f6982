"""What a repair costs: the bytes that go over the wire for one flipped byte."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jan_core import hookimpl
from jan_core.errors import RpcError
from jan_core.types import AdoptedFile

from .faultserver import FaultServer
from .house import House, OpenHouse, content, sha256

PIECE = 8 << 20


class Shop:
    """A server with a file and the hashes of its pieces, which counts what it sends."""

    def __init__(self, server: FaultServer, data: bytes) -> None:
        self.server, self.data = server, data
        parts = (data[at : at + PIECE] for at in range(0, len(data), PIECE))
        self.hashes = b"".join(hashlib.sha256(part).digest() for part in parts)
        self.url = server.serve("/file", data)
        self.list = server.serve("/pieces", self.hashes)

    def file(self, *, listed: bool) -> dict[str, Any]:
        file: dict[str, Any] = {
            "name": "model.bin",
            "url": self.url,
            "sha256": sha256(self.data),
            "size": len(self.data),
        }
        if listed:
            count = len(self.hashes) // 32
            pieces = {"length": PIECE, "count": count, "sha256": sha256(self.hashes), "url": self.list}
            file |= {"pieces": pieces}
        return file

    async def fetch(self, house: House, *, listed: bool, **params: Any) -> dict[str, Any]:
        job: dict[str, Any] = await house.call("start", file=self.file(listed=listed), wait=True, **params)
        assert job["state"] == "completed"
        return job

    def sent(self) -> int:
        return self.server.sent("/file")


@pytest.fixture
def shop(server: FaultServer, big: bytes) -> Shop:
    return Shop(server, big)


def damage(job: dict[str, Any], *offsets: int) -> None:
    """Flip bytes of the file where it is."""
    with Path(job["path"]).open("r+b") as file:
        for at in offsets:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))


def exists(job: dict[str, Any]) -> bool:
    return Path(job["path"]).exists()


@pytest.mark.parametrize("listed", [True, False])
async def test_one_flipped_byte_costs_one_piece(
    open_house: OpenHouse, shop: Shop, tmp_path: Path, listed: bool
) -> None:
    async with open_house() as house:
        job = await shop.fetch(house, listed=listed)
        assert (await house.call("verify", id=job["id"]))["ok"]
        os.link(job["path"], tmp_path / "installed.gguf")
        damage(job, 2 * PIECE + 12345)
        before = shop.sent()
        result = await house.call("verify", id=job["id"], repair=True)
        assert (result["ok"], result["damaged"], result["repairing"]) == (False, PIECE, True)
        job = await house.until(job["id"], "completed")
        assert shop.sent() - before == PIECE
        assert content(job) == shop.data
        assert (job["bytes_discarded"], job["verified"]) == (PIECE, True)
        assert (tmp_path / "installed.gguf").read_bytes() == shop.data
        assert (await house.call("verify", id=job["id"]))["ok"]


async def test_the_first_look_at_a_file_finds_the_piece_that_is_wrong_though_nobody_published_hashes(
    open_house: OpenHouse, serve_more: Callable[..., FaultServer], big: bytes
) -> None:
    shop = Shop(serve_more(rate=50_000_000), big)
    async with open_house() as house:
        job = await shop.fetch(house, listed=False)
        damage(job, 2 * PIECE + 12345)
        before = shop.sent()
        result = await house.call("verify", id=job["id"], repair=True)
        assert (result["damaged"], result["warning"]) == (PIECE, "")
        job = await house.until(job["id"], "completed")
        assert shop.sent() - before == PIECE
        assert content(job) == shop.data


async def test_a_damaged_file_is_no_longer_there_and_resuming_it_costs_one_piece(
    open_house: OpenHouse, shop: Shop
) -> None:
    async with open_house() as house:
        job = await shop.fetch(house, listed=True)
        damage(job, 0, 100)
        result = await house.call("verify", id=job["id"])
        assert (result["ok"], result["damaged"], result["repairing"]) == (False, PIECE, False)
        assert not exists(job)
        failed = await house.call("get", id=job["id"])
        assert (failed["state"], failed["path"], failed["error"]["type"]) == ("failed", "", "hash_mismatch")
        before = shop.sent()
        await house.call("resume", id=job["id"])
        job = await house.until(job["id"], "completed")
        assert shop.sent() - before == PIECE
        assert content(job) == shop.data


async def test_the_repair_goes_on_in_the_next_process(open_house: OpenHouse, shop: Shop) -> None:
    async with open_house() as house:
        job = await shop.fetch(house, listed=True)
        damage(job, PIECE)
        shop.server.refuse()
        before = shop.sent()
        assert (await house.call("verify", id=job["id"], repair=True))["damaged"] == PIECE
        await house.until(job["id"], "waiting")
    shop.server.accept()
    async with open_house() as house:
        job = await house.until(job["id"], "completed")
        assert shop.sent() - before == PIECE
        assert content(job) == shop.data


@pytest.mark.parametrize(("size", "cost"), [(0, 40_000_000), (3 * PIECE + 5, 40_000_000 - 3 * PIECE), (40_000_007, 0)])
async def test_a_file_of_the_wrong_length_costs_what_it_lacks(
    open_house: OpenHouse, shop: Shop, size: int, cost: int
) -> None:
    async with open_house() as house:
        job = await shop.fetch(house, listed=True)
        os.truncate(job["path"], size)
        before = shop.sent()
        assert not (await house.call("verify", id=job["id"], repair=True))["ok"]
        job = await house.until(job["id"], "completed")
        assert shop.sent() - before == cost
        assert content(job) == shop.data


async def test_every_download_of_a_damaged_file_has_it_again_for_the_price_of_one(
    open_house: OpenHouse, shop: Shop
) -> None:
    async with open_house() as house:
        job = await shop.fetch(house, listed=True)
        other = await shop.fetch(house, listed=True, destination="again.bin")
        damage(job, 5)
        before = shop.sent()
        assert not (await house.call("verify", id=other["id"], repair=True))["ok"]
        for each in (job, other):
            each = await house.until(each["id"], "completed")
            assert content(each) == shop.data
        assert shop.sent() - before == PIECE


async def test_a_damaged_member_of_a_group_is_mended_and_the_group_is_complete_again(
    open_house: OpenHouse, shop: Shop
) -> None:
    small = b"a projector, say"
    file = {
        "name": "mmproj.bin",
        "url": shop.server.serve("/small", small),
        "sha256": sha256(small),
        "size": len(small),
    }
    async with open_house() as house:
        group = await house.call("start_group", files=[{"file": file}, {"file": shop.file(listed=True)}], wait=True)
        assert group["state"] == "completed"
        job = next(each for each in group["downloads"] if each["bytes_total"] == len(shop.data))
        damage(job, 5)
        before = shop.sent()
        assert not (await house.call("verify", id=job["id"], repair=True))["ok"]
        job = await house.until(job["id"], "completed")
        assert shop.sent() - before == PIECE
        group = await house.call("group", id=group["id"])
        assert group["state"] == "completed"
        assert [each["completed_at"] != "" for each in group["downloads"]] == [True, True]
        assert content(job) == shop.data


async def test_an_adopted_file_is_mended_in_a_copy_of_our_own(
    open_house: OpenHouse, shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = tmp_path / "ollama"
    monkeypatch.setenv("OLLAMA_MODELS", str(models))
    theirs = models / "blobs" / f"sha256-{sha256(shop.data)}"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(shop.data)
    async with open_house() as house:
        job = await shop.fetch(house, listed=True)
        assert (job["origin"], shop.sent()) == ("Ollama", 0)
        damage(job, 5)
        damaged = theirs.read_bytes()
        assert not (await house.call("verify", id=job["id"], repair=True))["ok"]
        job = await house.until(job["id"], "completed")
        assert shop.sent() == PIECE
        assert content(job) == shop.data
        assert job["origin"] == ""
    assert theirs.read_bytes() == damaged


async def test_asking_for_a_file_with_a_wrong_size_takes_nobodys_file_away(open_house: OpenHouse, shop: Shop) -> None:
    async with open_house() as house:
        job = await shop.fetch(house, listed=False)
        wrong = shop.file(listed=False) | {"size": len(shop.data) + 1}
        with pytest.raises(RpcError, match="40000000 bytes, not 40000001"):
            await house.call("start", file=wrong, destination="other.bin", wait=True)
        assert content(job) == shop.data
        assert (await house.call("verify", id=job["id"]))["ok"]


async def test_one_flipped_byte_of_a_file_that_was_taken_in_costs_one_piece(
    open_house: OpenHouse, shop: Shop, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.bin"
    theirs.write_bytes(shop.data)

    class Neighbour:
        @hookimpl
        def jan_adopt_file(self, sha256: str, size: int) -> AdoptedFile:
            return AdoptedFile(str(theirs), "them")

    async with open_house(Neighbour()) as house:
        job = await shop.fetch(house, listed=False)
        assert (job["origin"], shop.sent()) == ("them", 0)
        damage(job, 2 * PIECE + 12345)
        theirs_now = theirs.read_bytes()
        result = await house.call("verify", id=job["id"], repair=True)
        assert (result["damaged"], result["warning"]) == (PIECE, "")
        job = await house.until(job["id"], "completed")
        assert shop.sent() == PIECE
        assert content(job) == shop.data
        assert theirs.read_bytes() == theirs_now
