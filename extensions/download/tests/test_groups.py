"""Groups of files that are of use only together."""

from __future__ import annotations

import sqlite3
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_download.groups import in_order, state_of
from jan_download.records import ENDED, LIVE

from jan_core import RpcError
from jan_core.types import DownloadFile

from .faults import Hold, Status
from .faultserver import FaultServer
from .house import House, OpenHouse, content, happens, sha256

pytestmark = pytest.mark.anyio

STATES = [*LIVE, *ENDED]


@given(st.lists(st.sampled_from(STATES), min_size=1))
def test_a_group_is_complete_only_as_a_whole_and_says_at_once_that_something_failed(states: list[str]) -> None:
    state = state_of(states)
    assert state in STATES
    assert (state == "completed") == (set(states) == {"completed"})
    assert (state == "failed") == ("failed" in states)
    given_up = "cancelled" in states and set(states) <= {"completed", "cancelled"}
    assert (state == "cancelled") == given_up
    assert state != "paused" or set(states) <= {"paused", "completed", "cancelled"}


def test_small_files_come_first_and_the_others_as_they_were_asked_for() -> None:
    files = [
        DownloadFile("2.gguf", size=40 << 30),
        DownloadFile("1.gguf", size=40 << 30),
        DownloadFile("mmproj.gguf", size=1 << 30, role="projector"),
        DownloadFile("tokenizer.json", size=1000),
        DownloadFile("unknown.gguf"),
    ]
    assert in_order(files) == [2, 3, 0, 1, 4]


def members(house: House, server: FaultServer, data: bytes, count: int = 3, **options: Any) -> list[dict[str, Any]]:
    """Files of 1 MB, each with other content, at /0, /1, ..."""
    parts = [data[n * 1000 : n * 1000 + 1_000_000] for n in range(count)]
    return [
        {"file": house.file(server.serve(f"/{n}", part), part, name=f"{n}.bin", **options)}
        for n, part in enumerate(parts)
    ]


async def test_who_waits_for_a_group_is_told_how_far_all_of_it_is(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    seen: list[tuple[str, float | None, float | None]] = []
    async with open_house() as house:
        group = await house.client.call(
            "downloads.start_group",
            {"files": members(house, server, data), "wait": True},
            progress=lambda *report: seen.append(report),
        )
        assert (group["state"], group["bytes_done"], group["eta"], group["name"]) == (
            "completed",
            3_000_000,
            0,
            "2.bin",
        )
        assert all(job["path"] and job["completed_at"] for job in group["downloads"])
        assert seen[-1] == ("completed", 3_000_000, 3_000_000)
        done = [report[1] for report in seen]
        assert done == sorted(done)  # type: ignore[type-var]


async def test_a_member_that_fails_is_named_and_resuming_brings_the_rest(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        files = members(house, server, data)
        server.faults("/1", Status(404))
        with pytest.raises(RpcError) as failed:
            await house.call("start_group", files=files, wait=True)
        assert failed.value.type == "source_not_found"
        [job] = [job for job in (await house.call("list"))["downloads"] if job["state"] == "failed"]
        assert job["name"] == "1.bin"
        for other in (await house.call("group", id=job["group"]))["downloads"]:
            if other["id"] != job["id"]:
                await house.until(other["id"], "completed")
        now = await house.call("group", id=job["group"])
        assert (now["state"], [each["path"] for each in now["downloads"]]) == ("failed", ["", "", ""])
        server.faults("/1")
        again = await house.call("start_group", files=files, wait=True)
        assert (again["id"], again["state"]) == (job["group"], "completed")
        assert [content(each) for each in again["downloads"]] == [data[n * 1000 :][:1_000_000] for n in range(3)]
    assert [len(server.seen(f"/{n}")) for n in range(3)] == [1, 2, 1]


async def test_the_same_group_asked_for_again_is_the_same_group(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        files = members(house, server, data)
        server.faults("/2", Hold(at=500_000))
        group = await house.call("start_group", files=files)
        await happens(server.wait_held)
        assert (await house.call("start_group", files=files[::-1]))["id"] == group["id"]
        assert (await house.call("start_group", files=files[:2]))["id"] != group["id"]
        server.release()
        assert (await house.call("start_group", files=files, wait=True))["id"] == group["id"]
        assert (await house.call("start_group", files=files))["state"] == "completed"
    assert [len(server.seen(f"/{n}")) for n in range(3)] == [1, 1, 1]


async def test_files_that_two_groups_share_are_fetched_once(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        files = members(house, server, data)
        one = await house.call("start_group", files=[files[0], files[1]], wait=True)
        other = await house.call("start_group", files=[files[0], files[2]], wait=True)
        assert one["downloads"][0]["path"] == other["downloads"][0]["path"]
        assert one["downloads"][0]["id"] != other["downloads"][0]["id"]
        await house.call("remove", id=other["id"])
        assert content((await house.call("group", id=one["id"]))["downloads"][0]) == data[:1_000_000]
        with pytest.raises(RpcError) as gone:
            await house.call("group", id=other["id"])
        assert gone.value.type == "download_not_found"
    assert len(server.seen("/0")) == 1


async def test_a_group_in_which_two_files_have_one_name_is_refused(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        files = members(house, server, data, 2)
        for each, name in zip(files, ("Model.bin", "model.bin"), strict=True):
            each["destination"] = name
        with pytest.raises(RpcError) as refused:
            await house.call("start_group", files=files)
        assert (refused.value.code, refused.value.data["path"]) == (-32602, "$.files[1].destination")
        assert (await house.call("list"))["downloads"] == []


async def test_a_group_that_was_given_up_goes_on_from_what_it_had_when_it_is_started_again(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        files = members(house, server, data, 2)
        server.faults("/1", Hold(at=786_432))
        group = await house.call("start_group", files=files)
        first, second = [job["id"] for job in group["downloads"]]
        await house.see(first, lambda job: job["bytes_done"] == 1_000_000)
        await happens(server.wait_held)
        await house.call("cancel", id=group["id"])
        assert (await house.call("get", id=second))["state"] == "cancelled"
        server.faults("/1")
        assert (await house.call("group", id=group["id"]))["state"] == "cancelled"
        again = await house.call("start_group", files=files, wait=True)
        assert again["id"] != group["id"]
        assert [job["bytes_discarded"] for job in again["downloads"]] == [0, 0]
    assert len(server.seen("/0")) == 1
    first_byte, _ = server.seen("/1")[-1].range or (0, 0)
    assert first_byte is not None
    assert first_byte > 500_000


async def test_a_group_that_was_complete_and_not_yet_named_gets_its_names_at_the_next_start(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        group = await house.call("start_group", files=members(house, server, data), wait=True)
        database = house.data_dir / "downloads.db"
    with sqlite3.connect(database) as db:  # as after a crash between the last file and the names
        db.execute("UPDATE job SET completed_at = 0")
    db.close()
    for path in (database.parent / "files").iterdir():
        path.unlink()
    async with open_house() as house:
        ids = [job["id"] for job in group["downloads"]]
        jobs = [await house.see(job_id, lambda job: bool(job["path"])) for job_id in ids]
        assert [sha256(content(job)) for job in jobs] == [job["sha256"] for job in jobs]
    assert [len(server.seen(f"/{n}")) for n in range(3)] == [1, 1, 1]


async def test_the_members_of_a_group_come_one_after_the_other_small_ones_first(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house(max_running=1) as house:
        files = members(house, server, data)
        files[2]["file"]["role"] = "projector"
        files[0]["file"]["size"] = files[1]["file"]["size"] = 0  # not known: perhaps large
        group = await house.call("start_group", files=files, name="pictures too", wait=True)
        assert [job["role"] for job in group["downloads"]] == ["projector", "weights", "weights"]
    with anyio.fail_after(5):
        await happens(server.wait_idle)
    assert [seen.path for seen in server.seen()] == ["/2", "/0", "/1"]


async def test_where_nothing_is_kept_a_group_that_is_given_up_leaves_nothing(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house(keep_partial_days=0) as house:
        files = members(house, server, data, 2)
        server.faults("/1", Hold(at=500_000))
        group = await house.call("start_group", files=files)
        await house.see(group["downloads"][0]["id"], lambda job: job["state"] == "completed")
        await happens(server.wait_held)
        cancelled = (await house.call("cancel", id=group["id"]))["downloads"]
        assert [job["state"] for job in cancelled] == ["cancelled", "cancelled"]
        left = [path for folder in ("blobs", "partial") for path in (house.data_dir / folder).rglob("*")]
        assert [path for path in left if path.is_file()] == []


async def test_a_damaged_member_makes_the_whole_group_unusable_until_it_is_mended(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        group = await house.call("start_group", files=members(house, server, data, 2), wait=True)
        first, second = group["downloads"]
        with (house.data_dir / "files" / second["destination"]).open("r+b") as file:
            file.write(b"flipped")
        assert not (await house.call("verify", id=second["id"]))["ok"]
        now = await house.call("group", id=group["id"])
        assert (now["state"], [job["path"] for job in now["downloads"]]) == ("failed", ["", ""])
        await house.call("resume", id=group["id"])
        await house.until(second["id"], "completed")
        mended = await house.see(first["id"], lambda job: bool(job["path"]))
        assert content(mended) == data[:1_000_000]


async def test_a_group_whose_files_somebody_removed_is_fetched_again(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        files = members(house, server, data, 2)
        first = await house.call("start_group", files=files, wait=True)
        for folder in ("files", "blobs"):
            for path in (house.data_dir / folder).rglob("*"):
                if path.is_file():
                    path.unlink()
        again = await house.call("start_group", files=files, wait=True)
        assert again["id"] != first["id"]
        assert [content(job) for job in again["downloads"]] == [data[:1_000_000], data[1000:1_001_000]]
