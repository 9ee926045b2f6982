"""What a person does to a download while its server misbehaves: it answers at once, and means what it says."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import RpcError

from .faults import Drop, Fault, Hold, SlowHead, Status
from .faultserver import FaultServer
from .house import House, OpenHouse, content, happens, piece_list


def files(folder: Path) -> list[str]:
    """The names of all files below a folder."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


STALLS = [Hold(at=1_000_000), Hold(after=0), SlowHead()]


@pytest.mark.parametrize("stall", STALLS, ids=repr)
@pytest.mark.parametrize("method", ["pause", "cancel"])
async def test_a_stalled_download_stops_at_once_when_it_is_told_to(
    open_house: OpenHouse, server: FaultServer, data: bytes, stall: Fault, method: str
) -> None:
    url = server.serve("/f", data, stall)
    async with open_house() as house:
        job = await house.start(url, data)
        await happens(server.wait_held)
        with anyio.fail_after(2):
            after = await house.one(method, job["id"])
        assert after["state"] == {"pause": "paused", "cancel": "cancelled"}[method]
        with anyio.fail_after(2):
            assert (await house.one(method, job["id"]))["state"] == after["state"]
        await happens(server.wait_idle)


@pytest.mark.parametrize("stall", STALLS, ids=repr)
async def test_a_stalled_download_that_was_paused_goes_on_where_it_was(
    open_house: OpenHouse, server: FaultServer, data: bytes, stall: Fault
) -> None:
    url = server.serve("/f", data, stall.times(1))
    async with open_house() as house:
        job = await house.start(url, data)
        await happens(server.wait_held)
        paused = await house.one("pause", job["id"])
        again = await house.one("resume", job["id"])
        assert again["bytes_done"] >= paused["bytes_done"]
        done = await house.until(job["id"], "completed")
        assert content(done) == data
        assert done["bytes_discarded"] == 0


async def test_a_paused_download_stays_paused_across_a_restart_and_keeps_every_byte(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=1_000_000).times(1))
    async with open_house() as house:
        job = await house.start(url, data)
        await house.until(job["id"], "running", done=700_000)
        await house.call("pause", id=job["id"])
    async with open_house() as house:
        again = await house.call("get", id=job["id"])
        assert (again["state"], again["bytes_done"]) == ("paused", 1_000_000)
        assert len(server.seen("/f")) == 1
        await house.call("resume", id=job["id"])
        assert content(await house.until(job["id"], "completed")) == data
    assert server.seen("/f")[1].range is not None
    assert server.seen("/f")[1].range[0] == 1_000_000  # type: ignore[index]


async def test_a_host_that_ends_while_its_server_stalls_ends_soon_and_goes_on_at_the_next_start(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=1_000_000).times(1))
    with anyio.fail_after(10):
        async with open_house() as house:
            job = await house.start(url, data)
            await house.until(job["id"], "running", done=700_000)
            began = time.monotonic()
        assert time.monotonic() - began < 4
    async with open_house() as house:
        done = await house.until(job["id"], "completed")
        assert content(done) == data
        assert done["bytes_discarded"] == 0


async def test_starting_a_cancelled_download_again_loses_nothing(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=2_000_000).times(1))
    async with open_house() as house:
        job = await house.start(url, data)
        await house.until(job["id"], "running", done=1_700_000)
        await house.call("cancel", id=job["id"])
        again = await house.fetch(url, data)
        assert again["id"] != job["id"]
        assert content(again) == data
    assert sum(seen.sent for seen in server.seen("/f")[1:]) <= 1_000_000


async def test_a_cancelled_download_leaves_nothing_where_nothing_is_to_be_kept(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=2_000_000))
    async with open_house(keep_partial_days=0) as house:
        job = await house.start(url, data)
        await house.until(job["id"], "running", done=1_700_000)
        await house.call("cancel", id=job["id"])
        assert files(house.data_dir / "partial") == []


async def test_a_waiting_download_is_tried_at_once_when_it_is_resumed(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Status(503, retry_after=3000).only(0))
    async with open_house() as house:
        job = await house.start(url, data)
        await house.until(job["id"], "waiting")
        await house.call("resume", id=job["id"])
        assert content(await house.until(job["id"], "completed")) == data


# -- how fast ---------------------------------------------------------------------------------------------------------


def rate_of(house: House, job_id: str) -> float:
    """Bytes/s by what was told of a running job, without its first half second."""
    told = [
        (at, event["bytes_done"])
        for at, event in zip(house.times, house.events, strict=True)
        if event["id"] == job_id and event["state"] == "running" and event["bytes_done"]
    ]
    (begun, less), (ended, more) = told[min(2, len(told) - 2)], told[-1]
    return float((more - less) / (ended - begun))


@pytest.mark.parametrize("where", ["everything", "job"])
async def test_a_limit_is_kept_whatever_the_number_of_connections_and_lifted_at_once(
    open_house: OpenHouse, server: FaultServer, big: bytes, where: str
) -> None:
    rate = 6_000_000
    url = server.serve("/f", big)
    async with open_house(limit=rate if where == "everything" else 0) as house:
        job = await house.start(url, big, limit=0 if where == "everything" else rate)
        await house.until(job["id"], "running", done=9_000_000)
        assert 0.5 * rate < rate_of(house, job["id"]) < 2 * rate
        if where == "everything":
            await house.client.call("settings.set", {"extension": "download", "values": {"limit": 0}})
        else:
            assert (await house.one("configure", job["id"], limit=0))["limit"] == 0
        with anyio.fail_after(4):  # at the old rate it would take five more
            assert content(await house.until(job["id"], "completed")) == big


async def test_a_limited_download_is_paused_at_once(open_house: OpenHouse, server: FaultServer, big: bytes) -> None:
    async with open_house() as house:
        job = await house.start(server.serve("/f", big), big, limit=100_000)
        await house.until(job["id"], "running")
        await happens(server.wait_sent, 10_000)
        with anyio.fail_after(2):
            assert (await house.one("pause", job["id"]))["state"] == "paused"


# -- when -------------------------------------------------------------------------------------------------------------


async def test_a_higher_priority_goes_first_and_can_be_given_later(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    blocker = server.serve("/blocker", data, Hold(at=1000))
    async with open_house(max_running=1) as house:
        first = await house.start(blocker, data, name="blocker.bin")
        await happens(server.wait_held)
        jobs: dict[str, Any] = {}
        for number, (name, priority) in enumerate([("low", 0), ("high", 10), ("later", 0)]):
            url = server.serve(f"/{name}", data[number + 1 :])
            jobs[name] = await house.start(url, data[number + 1 :], name=f"{name}.bin", priority=priority)
        assert all(job["state"] == "queued" for job in jobs.values())
        assert (await house.one("configure", jobs["later"]["id"], priority=20))["priority"] == 20
        server.release()
        for job in [first, *jobs.values()]:
            await house.until(job["id"], "completed")
    order = list(dict.fromkeys(seen.path for seen in server.seen()))
    assert order == ["/blocker", "/later", "/high", "/low"]


async def test_no_more_jobs_run_than_are_allowed_and_the_others_say_what_they_wait_for(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house(max_running=2) as house:
        jobs = [
            await house.start(server.serve(f"/{n}", data[n:], Hold(at=1000)), data[n:], name=f"{n}.bin")
            for n in range(4)
        ]
        await happens(server.wait_held, 2)
        states = [job["state"] for job in (await house.call("list"))["downloads"]]
        assert states == ["running", "running", "queued", "queued"]
        last = await house.call("get", id=jobs[3]["id"])
        assert last["waiting_for"]
        server.release()
        for job in jobs:
            await house.until(job["id"], "completed")


def window(begin: timedelta, length: timedelta) -> str:
    """A schedule of one window, in local time from now."""
    start = datetime.now() + begin
    return f"{start:%H:%M}-{start + length:%H:%M}"


async def test_outside_of_the_schedule_no_byte_is_asked_for_and_inside_it_goes_on(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    closed = window(timedelta(hours=3), timedelta(hours=1))
    async with open_house(schedule=closed) as house:
        job = await house.start(server.serve("/f", data), data)
        job = await house.see(job["id"], lambda job: bool(job["waiting_for"]))
        assert job["state"] in ("queued", "waiting")
        assert server.requests == []
        opened = window(timedelta(hours=-1), timedelta(hours=3))
        await house.client.call("settings.set", {"extension": "download", "values": {"schedule": opened}})
        assert content(await house.until(job["id"], "completed")) == data


async def test_a_schedule_that_closes_stops_what_runs_and_loses_nothing(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=1_000_000).times(1))
    async with open_house() as house:
        job = await house.start(url, data)
        await house.until(job["id"], "running", done=700_000)
        closed = window(timedelta(hours=3), timedelta(hours=1))
        await house.client.call("settings.set", {"extension": "download", "values": {"schedule": closed}})
        await house.until(job["id"], "queued", "waiting")
        await happens(server.wait_idle)
        await house.client.call("settings.set", {"extension": "download", "values": {"schedule": ""}})
        done = await house.until(job["id"], "completed")
        assert content(done) == data
        assert done["bytes_discarded"] == 0


async def test_a_download_for_later_does_not_begin_before_unless_its_time_is_changed(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    later = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    async with open_house() as house:
        job = await house.start(server.serve("/f", data), data, not_before=later)
        job = await house.see(job["id"], lambda job: bool(job["waiting_for"]))
        assert datetime.fromisoformat(job["not_before"]) - datetime.now(UTC) > timedelta(hours=1)
        assert server.requests == []
        await house.call("configure", id=job["id"], not_before="")
        assert content(await house.until(job["id"], "completed")) == data
        with pytest.raises(RpcError) as refused:
            await house.start(server.url("/g"), name="g.bin", not_before="tomorrow")
        assert refused.value.code == -32602


# -- together ---------------------------------------------------------------------------------------------------------


async def test_no_file_of_a_group_may_be_used_before_all_of_it_is_there(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    parts = [data[n * 1_000_000 :][:1_000_000] for n in range(3)]
    urls = [server.serve(f"/{n}", part) for n, part in enumerate(parts)]
    server.faults("/2", Hold(at=500_000))
    async with open_house(max_running=3) as house:
        members = [
            {"file": house.file(url, part, name=f"{n}.bin")}
            for n, (url, part) in enumerate(zip(urls, parts, strict=True))
        ]
        group = await house.call("start_group", files=members, name="a model")
        assert group["id"].startswith("dg-")
        ids = [job["id"] for job in group["downloads"]]
        await happens(server.wait_held)
        for job_id in ids[:2]:
            await house.see(job_id, lambda job: job["bytes_done"] == 1_000_000)
        now = await house.call("group", id=group["id"])
        assert [job["path"] for job in now["downloads"]] == ["", "", ""]
        assert now["state"] != "completed"
        assert now["bytes_total"] == 3_000_000
        assert files(house.data_dir / "files") == []
        server.release()
        for job_id in ids:
            await house.until(job_id, "completed")
        done = await house.call("group", id=group["id"])
        assert (done["state"], done["bytes_done"], done["name"]) == ("completed", 3_000_000, "a model")
        assert [content(job) for job in done["downloads"]] == parts


async def test_a_group_is_paused_resumed_configured_and_cancelled_as_one(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        members = []
        for n in range(3):
            url = server.serve(f"/{n}", data[n:], Hold(at=400_000))
            members.append({"file": house.file(url, data[n:], name=f"{n}.bin")})
        group = await house.call("start_group", files=members)
        await happens(server.wait_held, 2)
        with anyio.fail_after(3):
            paused = await house.call("pause", id=group["id"])
        assert [job["state"] for job in paused["downloads"]] == ["paused"] * 3
        assert (await house.call("group", id=group["id"]))["state"] == "paused"
        changed = await house.call("configure", id=group["id"], priority=7, limit=1_000_000)
        assert {(job["priority"], job["limit"]) for job in changed["downloads"]} == {(7, 1_000_000)}
        resumed = await house.call("resume", id=group["id"])
        assert {job["state"] for job in resumed["downloads"]} <= {"queued", "running"}
        with anyio.fail_after(3):
            cancelled = await house.call("cancel", id=group["id"])
        assert [job["state"] for job in cancelled["downloads"]] == ["cancelled"] * 3


async def test_the_same_file_is_fetched_once_whoever_wants_it_and_whatever_they_call_it(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=1000).times(1))
    async with open_house() as house:
        first = await house.start(url, data)
        assert (await house.start(url, data))["id"] == first["id"]
        await happens(server.wait_held)
        server.release()
        await house.until(first["id"], "completed")
        again = await house.start(url, data)
        assert (again["id"], again["state"]) == (first["id"], "completed")
        other = await house.fetch(url, data, destination="another name.bin")
        assert content(other) == data
        assert other["id"] != first["id"]
    assert server.sent("/f") == len(data)


async def test_many_callers_at_once_make_one_download(open_house: OpenHouse, server: FaultServer, data: bytes) -> None:
    url = server.serve("/f", data)
    ids = set()
    async with open_house() as house:

        async def start() -> None:
            ids.add((await house.fetch(url, data))["id"])

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(start)
    assert len(ids) == 1
    assert server.sent("/f") == len(data)


# -- names ------------------------------------------------------------------------------------------------------------


async def test_a_name_that_differs_only_by_case_or_by_its_unicode_form_is_taken(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        first = await house.fetch(server.serve("/a", data), data, name="Mödel ü 模型.bin")
        assert Path(first["path"]).name == "Mödel ü 模型.bin"
        for name in ("mödel ü 模型.BIN", "Mo\u0308del u\u0308 模型.bin"):
            with pytest.raises(RpcError) as refused:
                await house.fetch(server.serve("/b", data[1:]), data[1:], name=name)
            assert refused.value.type == "download_conflict"
        assert content(first) == data


async def test_a_removed_download_is_gone_with_its_file_or_without(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house(checked=False) as house:
        job = await house.fetch(server.serve("/f", data), data)
        removed = await house.call("remove", id=job["id"])
        assert (removed["id"], removed["freed"] >= len(data)) == (job["id"], True)
        assert files(house.data_dir / "blobs") == files(house.data_dir / "files") == []
        with pytest.raises(RpcError) as gone:
            await house.call("get", id=job["id"])
        assert gone.value.type == "download_not_found"
        job = await house.fetch(server.url("/f"), data)
        removed = await house.call("remove", id=job["id"], keep_file=True)
        assert content(job) == data
        assert (await house.call("list"))["downloads"] == []
    assert server.sent("/f") == 2 * len(data)


async def test_removing_one_of_two_names_frees_nothing_and_leaves_the_other(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        first = await house.fetch(server.serve("/f", data), data, name="one.bin")
        second = await house.fetch(server.url("/f"), data, name="two.bin")
        assert (await house.call("remove", id=first["id"]))["freed"] == 0
        assert files(house.data_dir / "files") == ["two.bin"]
        assert content(second) == data


async def test_a_download_under_way_is_removed_with_what_it_had(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        job = await house.start(server.serve("/f", data, Hold(at=1_000_000)), data)
        await house.until(job["id"], "running", done=700_000)
        with anyio.fail_after(3):
            await house.call("remove", id=job["id"])
        assert (await house.call("list"))["downloads"] == []
        await happens(server.wait_idle)


async def test_a_damaged_journal_is_set_aside_and_what_was_complete_is_not_fetched_again(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        job = await house.fetch(server.serve("/f", data), data)
        database = house.data_dir / "downloads.db"
    for path in database.parent.glob("downloads.db-*"):
        path.unlink()
    database.write_bytes(b"this is no database" * 500)
    async with open_house(checked=False) as house:
        assert (await house.call("list"))["downloads"] == []
        again = await house.fetch(server.url("/f"), data)
        assert content(again) == data
        assert [aside.read_bytes()[:19] for aside in database.parent.glob("downloads.db.damaged-*")]
        assert again["id"] != job["id"]
    assert server.sent("/f") == len(data)


async def test_the_history_of_a_download_tells_its_turns(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Drop(at=1_000_000).only(0), Status(503).only(1))
    async with open_house() as house:
        job = await house.fetch(url, data, pieces=piece_list(server, data))
        history = await house.call("history", id=job["id"])
        assert "completed" in str(history)
        assert "127.0.0.1" in str(history)
        times = [entry["at"] for entry in history["entries"]]
        assert all(a <= b for a, b in itertools.pairwise(times))
