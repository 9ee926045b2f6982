"""Living with others: two holders of one data folder, a light start, and a clean end."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from jan_download.lock import FolderLock

from .conftest import OpenHouse, Web, content, whole

pytestmark = pytest.mark.anyio


async def test_a_second_holder_of_the_folder_waits_and_takes_over_where_the_first_stopped(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    url = web.on(whole(data, hold_at=1_000_000), whole(data))
    async with AsyncExitStack() as second_stack:
        async with open_house() as first:
            job = await first.start(url, data)
            await first.until(job["id"], "running", done=1_000_000)
            second = await second_stack.enter_async_context(open_house())
            assert (await second.call("get", id=job["id"]))["state"] == "running"
            assert len(web.requests) == 1
        done = await second.until(job["id"], "completed")
        assert content(done) == data
    assert web.headers("Range") == [None, "bytes=1000000-"]


async def test_a_pause_by_another_holder_stops_the_run(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(whole(data, hold_at=2_000_000))
    async with open_house() as first, open_house() as second:
        job = await first.start(url, data)
        await first.until(job["id"], "running", done=2_000_000)
        assert (await second.call("pause", id=job["id"]))["state"] == "paused"
        [thread] = [t for t in threading.enumerate() if t.name == f"download {job['id']}"]
        web.released.set()  # bytes flow again; the first holder's next checkpoint finds that it was superseded
        await anyio.to_thread.run_sync(thread.join, 10)
        assert not thread.is_alive()
        after = await first.call("get", id=job["id"])
        assert (after["state"], after["bytes_done"]) == ("paused", 2_000_000)


async def test_a_folder_that_cannot_be_written_is_asked_again_until_it_can(
    open_house: OpenHouse, web: Web, data: bytes, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    blocked = tmp_path / "data" / "download" / "downloads.lock"
    blocked.mkdir(parents=True)  # as good as a folder without the right to write, which stops no test run by root
    url = web.on(whole(data))
    async with open_house() as house:
        job = await house.start(url, data)
        assert (await house.call("get", id=job["id"]))["state"] == "queued"
        blocked.rmdir()
        assert content(await house.until(job["id"], "completed")) == data
    assert len([r for r in caplog.records if "no download can run" in r.getMessage()]) == 1


async def test_the_end_of_the_host_leaves_no_thread_behind(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(whole(data, hold_at=1000))
    with anyio.fail_after(5):
        async with open_house() as house:
            job = await house.start(url, data)
            await house.until(job["id"], "running", done=1000)
    assert [t.name for t in threading.enumerate() if job["id"] in t.name] == []


def test_importing_and_starting_costs_neither_database_nor_http() -> None:
    code = (
        "import sys, jan_download.plugin; print([m for m in ('sqlite3', 'urllib3', 'http.client') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_lock_of_a_folder_is_exclusive_within_a_process_too(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "lock"
    first, second = FolderLock(path), FolderLock(path)
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()
