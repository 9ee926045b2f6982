"""The queue of a running host: places, room on the disk, events, the next generation, another holder."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import anyio
import anyio.to_thread
import pytest
from jan_download import queue, turns
from jan_download.errors import BadSource
from jan_download.journal import Journal
from jan_download.outcome import changes_after
from jan_download.progress import GAP, Teller
from jan_download.records import LIVE, Job
from jan_download.runs import Runs
from jan_download.settings import DownloadSettings
from jan_download.storage import recovery
from jan_download.storage.store import Store

from jan_core import RpcError, hookimpl
from jan_core.types import DownloadFile, DownloadSource

from .faults import Endless, Hold, NoLength, NoRanges, Status, Trickle
from .faultserver import FaultServer
from .house import House, Mirrors, OpenHouse, Prompt, content, happens

pytestmark = pytest.mark.anyio

SETTINGS = DownloadSettings(retry_first=1.0, retry_longest=60.0)


def job(**fields: Any) -> Job:
    return Job(id="dl-1", name="f", url="http://h/f", sha256="", size=100, destination="f", partial="dl-1", **fields)


def after(
    error: Exception, of: Job, *, online: bool = True, free: int = 1000, capacity: int = 10_000
) -> dict[str, Any]:
    return changes_after(error, of, SETTINGS, now=1000.0, online=online, free=free, capacity=capacity)


def test_pauses_between_attempts_grow_with_full_jitter_and_never_end() -> None:
    from jan_download.network.errors import Unreachable

    for attempts in (0, 3, 10, 10_000):
        longest = min(60.0, 2.0**attempts) if attempts < 100 else 60.0
        pauses = []
        for _ in range(200):
            changes = after(Unreachable("no connection"), job(attempts=attempts))
            assert (changes["state"], changes["attempts"]) == ("waiting", attempts + 1)
            pauses.append(changes["retry_at"] - 1000.0)
        assert 0 <= min(pauses) < 0.2 * longest
        assert 0.8 * longest < max(pauses) <= longest
    assert after(Unreachable("busy", delay=1800), job())["retry_at"] >= 2800.0


def test_without_a_network_no_attempt_is_counted() -> None:
    from jan_download.network.errors import Unreachable

    changes = after(Unreachable("no route", offline=True), job(attempts=3), online=False)
    assert (changes["state"], changes["retry_at"], "attempts" in changes) == ("offline", 0.0, False)
    changes = after(Unreachable("no names", offline=True), job(attempts=3), online=True)
    assert (changes["state"], changes["retry_at"]) == ("offline", 1015.0)


def test_a_full_disk_blocks_a_job_and_only_one_that_never_fits_fails() -> None:
    full = OSError(28, "No space left on device")
    assert after(full, job())["state"] == "blocked_disk"
    assert after(full, job(), capacity=99)["state"] == "failed"
    assert after(OSError(5, "Input/output error"), job())["error_type"] == "storage_error"
    assert after(BadSource("no"), job()) == {
        "state": "failed", "error_type": "bad_source", "error_code": -32067, "error": "no", "retryable": False,
    }  # fmt: skip


async def test_what_comes_faster_is_told_as_it_stands_then_and_the_last_word_is_told() -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    told: list[tuple[float, int]] = []
    done = anyio.Event()

    def tell(news: int) -> None:
        told.append((loop.time(), news))
        if news == 999:
            done.set()

    teller = Teller(tell, loop)
    began = loop.time()
    for number in itertools.count():
        teller.tell("a", min(number, 998))
        if loop.time() - began > 0.6:
            break
        await anyio.lowlevel.checkpoint()
    teller.tell("a", 999)
    with anyio.fail_after(2):
        await done.wait()
    assert told[0][1] == 0
    assert 3 <= len(told) <= 5
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(told)]
    assert min(gaps) > GAP * 0.9
    teller.close()


async def test_a_job_that_gives_its_place_to_a_more_important_one_loses_no_byte(
    open_house: OpenHouse, server: FaultServer, data: bytes, big: bytes
) -> None:
    url = server.serve("/low", big, Trickle(6_000_000).until(4))
    async with open_house(max_running=1) as house:
        low = await house.start(url, big, name="low.bin")
        await house.until(low["id"], "running", done=1_000_000)
        high = await house.start(server.serve("/high", data, Hold(at=1000)), data, name="high.bin", priority=5)
        await happens(server.wait_held)
        stopped = await house.call("get", id=low["id"])
        assert (stopped["state"], stopped["waiting_for"]) == ("queued", "its turn")
        assert stopped["bytes_done"] >= 1_000_000
        server.release()
        await house.until(high["id"], "completed")
        done = await house.until(low["id"], "completed")
        assert content(done) == big
        assert (done["bytes_discarded"], done["attempts"]) == (0, 0)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A disk of 10 MB, on which nothing is but what the store holds."""
    size = {"total": 10_000_000, "other": 0}

    def free(store: Store) -> int:
        folders = (store.partials, store.blobs, store.files)
        found = [path.stat() for folder in folders for path in folder.rglob("*") if path.is_file()]
        used = {status.st_ino: status.st_size for status in found}  # a file with two names is there once
        return size["total"] - size["other"] - sum(used.values())

    monkeypatch.setattr(Store, "free", free)
    monkeypatch.setattr(Store, "capacity", lambda store: size["total"])
    return size


async def test_a_job_without_room_says_how_much_is_missing_and_goes_on_by_itself_when_there_is(
    open_house: OpenHouse, server: FaultServer, data: bytes, disk: dict[str, int]
) -> None:
    async with open_house() as house:
        first = await house.start(server.serve("/0", data, Hold(at=1000)), data, name="0.bin")
        await happens(server.wait_held)
        disk["other"] = 6_000_000
        second = await house.start(server.serve("/1", data[1:]), data[1:], name="1.bin")
        blocked = await house.until(second["id"], "blocked_disk")
        assert blocked["error"]["type"] == "disk_full"
        blocked = await house.see(second["id"], lambda job: "missing" in job["waiting_for"])
        assert blocked["waiting_for"] == "room on the disk: 2.0 MB are missing"
        assert server.seen("/1") == []
        await house.call("remove", id=first["id"])
        assert content(await house.until(second["id"], "completed")) == data[1:]


async def test_who_only_looks_moves_nothing_and_who_asks_does_not_wait(
    open_house: OpenHouse, server: FaultServer, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.serve("/file", data, Hold(at=1000))
    async with open_house() as house:
        job = await house.start(url, data)
        await happens(server.wait_held)
    monkeypatch.setattr(Prompt, "settle", 3600.0)
    async with open_house() as house:
        for _ in range(3):
            assert [each["id"] for each in (await house.call("list"))["downloads"]] == [job["id"]]
        await anyio.wait_all_tasks_blocked()
        assert len(server.seen("/file")) == 1
        server.release()
        await house.call("resume", id=job["id"])
        assert content(await house.until(job["id"], "completed")) == data


async def test_a_body_without_an_end_fills_the_disk_once_and_gives_it_back(
    open_house: OpenHouse, server: FaultServer, data: bytes, disk: dict[str, int]
) -> None:
    url = server.serve("/f", data, NoRanges(), Endless(), NoLength())
    async with open_house(reserve_bytes=1_000_000) as house:
        with pytest.raises(RpcError) as full:
            await house.fetch(url)
        assert full.value.type == "disk_full"
        assert full.value.message.endswith("does not say how large the file is; nothing of it is kept")
        assert list((house.data_dir / "partial").iterdir()) == []
    assert len(server.requests) == 1


async def test_what_can_never_fit_is_refused_at_once(
    open_house: OpenHouse, server: FaultServer, disk: dict[str, int]
) -> None:
    async with open_house(reserve_bytes=1_000_000) as house:
        with pytest.raises(RpcError) as refused:
            await house.call("start", file={"name": "f", "url": server.url("/f"), "size": 9_000_001})
        assert (refused.value.type, refused.value.data["needed"]) == ("disk_full", 10_000_001)
        assert (await house.call("list"))["downloads"] == []
    assert server.requests == []


async def test_a_job_for_the_same_content_goes_on_alone_when_the_first_one_cannot(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        first = await house.start(server.serve("/gone", data, Hold(at=1000), Status(404).since(1)), data, name="a.bin")
        await happens(server.wait_held)
        second = await house.start(server.serve("/here", data), data, name="b.bin")
        await house.see(second["id"], lambda job: job["waiting_for"] == "another download of the same file")
        await house.call("pause", id=first["id"])
        assert content(await house.until(second["id"], "completed")) == data
        asked = len(server.requests)
        await house.call("resume", id=first["id"])
        assert content(await house.until(first["id"], "completed")) == data
        assert len(server.requests) == asked


async def test_other_sources_are_asked_for_again_when_all_have_failed(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    bad = Mirrors(server.serve("/bad", data, Status(404)))
    good = server.serve("/late", data)

    class Late:
        asked = 0

        @hookimpl
        def jan_download_sources(self, file: DownloadFile) -> list[DownloadSource]:
            self.asked += 1
            return [DownloadSource(good)] if self.asked > 1 else []

    late = Late()
    async with open_house(bad, late) as house:
        assert content(await house.fetch(server.serve("/worse", data, Status(410)), data)) == data
    assert late.asked == 2


async def test_nothing_is_told_while_nothing_changes(open_house: OpenHouse, server: FaultServer, data: bytes) -> None:
    async with open_house() as house:
        job = await house.start(server.serve("/f", data, Status(503, retry_after=600)), data)
        waiting = await house.until(job["id"], "waiting")
        assert waiting["waiting_for"].startswith("127.0.0.1, again in 10 min")
        await anyio.sleep(3 * GAP)  # whatever was on its way is told by now
        told = len(house.events)
        await anyio.sleep(1.0)
        assert len(house.events) == told


async def test_the_next_generation_goes_on_where_a_reload_interrupted_the_one_before(
    open_house: OpenHouse, server: FaultServer, big: bytes
) -> None:
    url = server.serve("/f", big, Trickle(6_000_000).until(4))
    async with open_house() as house:
        job = await house.start(url, big)
        await house.until(job["id"], "running", done=1_000_000)
        with anyio.fail_after(10):
            again = await house.client.call("extensions.reload", {"id": "download", "force": True})
        assert again["generation"] == 2
        done = await house.until(job["id"], "completed")
        assert content(done) == big
        assert done["bytes_discarded"] == 0


async def test_a_limit_that_another_holder_of_the_folder_sets_counts(
    open_house: OpenHouse, server: FaultServer, big: bytes
) -> None:
    async with open_house() as first, open_house() as second:
        job = await first.start(server.serve("/f", big), big, limit=1_000_000)
        await first.until(job["id"], "running", done=500_000)
        assert (await second.one("configure", job["id"], limit=0))["limit"] == 0
        with anyio.fail_after(10):  # at the old rate it would take forty
            assert content(await first.until(job["id"], "completed")) == big


async def test_a_stalled_run_ends_soon_when_another_holder_pauses_its_job(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as first, open_house() as second:
        job = await first.start(server.serve("/f", data, Hold(at=1000)), data)
        await happens(server.wait_held)
        with anyio.fail_after(4):
            await second.one("pause", job["id"])
            await happens(server.wait_idle)
        assert (await first.call("get", id=job["id"]))["state"] == "paused"


async def test_a_schedule_that_is_none_is_refused_with_its_reason(open_house: OpenHouse) -> None:
    async with open_house() as house:
        with pytest.raises(RpcError) as refused:
            await house.client.call("settings.set", {"extension": "download", "values": {"schedule": "at night"}})
        assert refused.value.code == -32602
        assert "'at' is no day" in refused.value.message


async def test_a_cancelled_download_of_unknown_content_goes_on_under_the_same_version(
    open_house: OpenHouse, server: FaultServer, big: bytes
) -> None:
    url = server.serve("/f", big, Trickle(6_000_000).until(4))
    async with open_house() as house:
        job = await house.start(url)
        await house.until(job["id"], "running", done=1_000_000)
        had = (await house.one("cancel", job["id"]))["bytes_done"]
        done = await house.fetch(url)
        assert done["id"] != job["id"]
        assert content(done) == big
        assert done["bytes_discarded"] == 0
    assert had >= 1_000_000
    assert server.sent() < len(big) + 8_000_000


async def removed(house: House, job_id: str) -> bool:
    with pytest.raises(RpcError) as gone:
        await house.call("get", id=job_id)
    return gone.value.type == "download_not_found"


async def test_removing_is_told(open_house: OpenHouse, server: FaultServer, data: bytes) -> None:
    heard: list[Any] = []
    async with open_house() as house:
        with house.host.bus.subscribe(lambda event: heard.append(event) if event.name == "downloads.removed" else None):
            job = await house.fetch(server.serve("/f", data), data)
            answer = await house.call("remove", id=job["id"])
            assert answer["freed"] >= len(data)
            assert await removed(house, job["id"])
            assert list((house.data_dir / "files").iterdir()) == []
        [event] = heard
        assert event.data == {"id": job["id"], "freed": answer["freed"]}


@pytest.mark.parametrize("times", [1, 100])
async def test_a_mistake_in_the_recovery_is_noted_and_keeps_nothing_from_running(
    open_house: OpenHouse,
    server: FaultServer,
    data: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    times: int,
) -> None:
    calls, real = [], recovery.recover

    def recover(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) <= times:
            raise RuntimeError("not foreseen")
        return real(*args, **options)

    async with open_house() as house:
        job = await house.start(server.serve("/f", data, Hold(at=1_000_000)), data)
        await happens(server.wait_held)
    server.release()
    monkeypatch.setattr(queue, "LOOK_AGAIN", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr("jan_download.storage.recovery.recover", recover)
        async with open_house() as house:
            if times == 1:
                assert content(await house.until(job["id"], "completed")) == data
            other = data[:-1]
            assert content(await house.fetch(server.serve("/g", other), other, name="other.bin")) == other
    assert len(calls) == min(times + 1, 3)
    assert "what was interrupted is not taken up: not foreseen" in caplog.text


async def test_a_mistake_in_a_turn_is_noted_and_the_next_turn_comes(
    open_house: OpenHouse,
    server: FaultServer,
    data: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = []

    def take_turns(*args: Any) -> turns.Turns:
        calls.append(args)
        if len(calls) == 1:
            raise RuntimeError("not foreseen")
        return turns.take_turns(*args)

    monkeypatch.setattr(queue, "LOOK_AGAIN", 0.05)
    monkeypatch.setattr(queue, "take_turns", take_turns)
    async with open_house() as house:
        assert content(await house.fetch(server.serve("/f", data), data)) == data
    assert "no download is begun now: not foreseen" in caplog.text


async def test_a_job_that_completes_while_a_turn_is_thought_out_stays_complete(
    open_house: OpenHouse, server: FaultServer, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, over = threading.Event(), threading.Event()
    jobs, perform = Journal.jobs, Runs._perform

    def look_and_wait(self: Journal, *args: Any, **options: Any) -> list[Job]:
        found = jobs(self, *args, **options)
        if args == (LIVE,) and not threading.current_thread().name.startswith("download"):
            looked.set()
            assert over.wait(10)
        return found

    async def perform_and_say(self: Runs, job: Job) -> None:
        await perform(self, job)
        over.set()

    monkeypatch.setattr(Runs, "_perform", perform_and_say)
    async with open_house() as house:
        job = await house.start(server.serve("/f", data, Hold(at=1000)), data)
        await happens(server.wait_held)
        monkeypatch.setattr(Journal, "jobs", look_and_wait)
        await house.one("configure", job["id"], limit=0)
        assert await anyio.to_thread.run_sync(looked.wait, 10)
        server.release()
        await house.until(job["id"], "completed")
        other = data[:-1]
        await house.fetch(server.serve("/g", other), other, name="other.bin")  # takes another turn
        assert (await house.call("get", id=job["id"]))["state"] == "completed"
