"""What becomes of a request when something for it is there already: a job, a file, a hash that comes later."""

from __future__ import annotations

from typing import Any

import pytest

from jan_core import RpcError

from .faults import Hold, Status
from .faultserver import FaultServer
from .house import OpenHouse, content, happens, sha256

pytestmark = pytest.mark.anyio


async def test_a_hash_that_is_asked_for_later_is_checked_against_what_was_fetched_without_one(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        job = await house.fetch(server.serve("/f", data))
        assert job["verified"] is False
        with pytest.raises(RpcError) as other:
            await house.fetch(server.url("/f"), data[::-1])
        assert other.value.type == "download_conflict"
        again = await house.fetch(server.url("/f"), data)
        assert (again["id"], again["verified"], again["sha256"], again["warning"]) == (
            job["id"], True, sha256(data), "",
        )  # fmt: skip
    assert len(server.requests) == 1


@pytest.mark.parametrize("right", [True, False])
async def test_a_hash_that_is_asked_for_while_the_file_comes_counts_from_then_on(
    open_house: OpenHouse, server: FaultServer, data: bytes, right: bool
) -> None:
    async with open_house() as house:
        job = await house.start(server.serve("/f", data, Hold(at=1_000_000).times(1)))
        await happens(server.wait_held)
        told = await house.start(server.url("/f"), data if right else data[::-1])
        assert told["id"] == job["id"]
        assert told["sha256"] == sha256(data if right else data[::-1])
        server.release()
        done = await house.until(job["id"], "completed", "failed")
        if right:
            assert (done["state"], done["verified"]) == ("completed", True)
        else:
            assert (done["state"], done["error"]["type"], done["path"]) == ("failed", "hash_mismatch", "")


async def test_a_file_that_was_left_under_its_name_is_taken_up_again_without_a_byte(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house(adopt=False) as house:
        job = await house.fetch(server.serve("/f", data), data)
        await house.call("remove", id=job["id"], keep_file=True)
        again = await house.fetch(server.url("/f"), data)
        assert again["id"] != job["id"]
        assert (again["verified"], content(again)) == (True, data)
    assert len(server.requests) == 1


async def test_another_file_of_the_same_size_under_the_name_is_left_alone_and_no_byte_is_fetched(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house(checked=False) as house:
        path = house.data_dir / "files" / "model.bin"
        path.parent.mkdir(parents=True)
        path.write_bytes(data[::-1])
        with pytest.raises(RpcError) as taken:
            await house.fetch(server.serve("/f", data), data)
        assert taken.value.type == "download_conflict"
        assert path.read_bytes() == data[::-1]
        path.write_bytes(b"mine")
        with pytest.raises(RpcError) as at_once:
            await house.start(server.url("/f"), data[1:], name="model.bin")
        assert at_once.value.type == "download_conflict"
    assert server.requests == []


async def test_what_was_fetched_for_a_removed_download_is_kept_for_the_one_that_waits_for_it(
    open_house: OpenHouse, server: FaultServer, big: bytes
) -> None:
    async with open_house() as house:
        first = await house.start(server.serve("/f", big, Hold(after=20_000_000)), big, name="a.bin")
        await happens(server.wait_held)
        had = await house.see(first["id"], lambda job: job["bytes_done"] > 10_000_000)
        second = await house.start(server.url("/f"), big, name="b.bin")
        server.faults("/f")
        await house.call("remove", id=first["id"])
        seen: list[dict[str, Any]] = [await house.until(second["id"], "completed")]
        assert content(seen[0]) == big
        assert seen[0]["bytes_discarded"] == 0
    assert server.sent() < 2 * len(big) - had["bytes_done"]


async def test_a_better_address_is_taken_over_by_the_download_that_failed(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.fetch(server.serve("/gone", data, Status(404)), data)
        assert failed.value.type == "source_not_found"
        [job] = (await house.call("list"))["downloads"]
        done = await house.fetch(server.serve("/here", data), data, priority=7)
        assert (done["id"], done["url"], done["priority"]) == (job["id"], server.url("/here"), 7)
        assert content(done) == data


async def test_a_better_address_is_tried_at_once_by_a_download_that_waits(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        job = await house.start(server.serve("/busy", data, Status(503, retry_after=900)), data)
        await house.until(job["id"], "waiting")
        assert (await house.fetch(server.serve("/here", data), data))["id"] == job["id"]


async def test_a_group_with_one_better_address_goes_on(open_house: OpenHouse, server: FaultServer, data: bytes) -> None:
    async with open_house() as house:
        files = [
            {"file": house.file(server.serve("/a", data), data, name="a.bin")},
            {"file": house.file(server.serve("/b", data[1:], Status(404)), data[1:], name="b.bin")},
        ]
        with pytest.raises(RpcError):
            await house.call("start_group", files=files, wait=True)
        files[1]["file"]["url"] = server.serve("/c", data[1:])
        group = await house.call("start_group", files=files, wait=True)
        assert [content(job) for job in group["downloads"]] == [data, data[1:]]
    assert len(server.seen("/a")) == 1
