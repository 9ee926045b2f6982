"""Living with others: several holders of one data folder, a light start, and a clean end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from jan_download.lock import FolderLock

from .faults import Hold, Trickle
from .faultserver import FaultServer
from .house import OpenHouse, content, happens

CHILD = """
import json, sys
from pathlib import Path
import anyio
from jan_core.host import Host
from jan_core.testing import InlineSource
from jan_download.plugin import DownloadExtension

async def main(folder, file):
    async with Host(Path(folder), sources=[InlineSource("download", DownloadExtension, ["downloads."])]) as host:
        await host.activate_startup()
        await host.client().call("downloads.start", {"file": json.loads(file), "wait": True})

anyio.run(main, *sys.argv[1:])
"""


async def test_a_second_holder_of_the_folder_waits_and_takes_over_where_the_first_stopped(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=1_000_000).times(1))
    async with AsyncExitStack() as second_stack:
        async with open_house() as first:
            job = await first.start(url, data)
            await first.until(job["id"], "running", done=700_000)
            second = await second_stack.enter_async_context(open_house())
            assert (await second.call("get", id=job["id"]))["state"] == "running"
            assert len(server.requests) == 1
        done = await second.until(job["id"], "completed")
        assert content(done) == data
        assert done["bytes_discarded"] == 0
    assert [seen.range[0] for seen in server.seen() if seen.range] == [0, 1_000_000]


async def test_another_process_that_is_killed_leaves_its_download_to_this_one(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Trickle(1_000_000).until(1))
    async with open_house() as house:  # makes the folder and its settings
        file = json.dumps(house.file(url, data))
        folder = str(house.data_dir.parent)
    with subprocess.Popen([sys.executable, "-c", CHILD, folder, file]) as child:  # noqa: ASYNC220
        try:
            await happens(server.wait_sent, 1_000_000)
            async with open_house() as house:
                [job] = (await house.call("list"))["downloads"]
                assert job["state"] == "running"
                with anyio.fail_after(2):
                    assert (await house.one("pause", job["id"]))["state"] == "paused"
                await house.call("resume", id=job["id"])
                child.send_signal(signal.SIGKILL)
                done = await house.until(job["id"], "completed")
                assert content(done) == data
        finally:
            child.kill()
    assert server.sent() <= 2 * len(data)


async def test_a_pause_by_another_holder_stops_the_run(open_house: OpenHouse, server: FaultServer, data: bytes) -> None:
    url = server.serve("/f", data, Hold(at=2_000_000))
    async with open_house() as first, open_house() as second:
        job = await first.start(url, data)
        await first.until(job["id"], "running", done=1_700_000)
        assert (await second.one("pause", job["id"]))["state"] == "paused"
        server.release()  # bytes flow again; the first holder's next checkpoint finds that it was superseded
        await happens(server.wait_idle)
        for thread in threading.enumerate():
            if job["id"] in thread.name:
                await anyio.to_thread.run_sync(thread.join, 10)
                assert not thread.is_alive()
        after = await first.call("get", id=job["id"])
        assert after["state"] == "paused"


async def test_a_folder_that_cannot_be_written_is_asked_again_until_it_can(
    open_house: OpenHouse, server: FaultServer, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_house() as house:
        blocked = house.data_dir / "downloads.lock"
    blocked.unlink(missing_ok=True)
    blocked.mkdir(parents=True)  # as good as a folder without the right to write, which stops no test run by root
    url = server.serve("/f", data)
    async with open_house() as house:
        job = await house.start(url, data)
        assert (await house.call("get", id=job["id"]))["state"] == "queued"
        blocked.rmdir()
        assert content(await house.until(job["id"], "completed")) == data
    assert len([r for r in caplog.records if "no download can run" in r.getMessage()]) == 1


async def test_the_end_of_the_host_leaves_no_thread_behind(
    open_house: OpenHouse, server: FaultServer, big: bytes
) -> None:
    before = set(threading.enumerate())
    url = server.serve("/f", big, Hold(after=100_000))
    with anyio.fail_after(6):
        async with open_house() as house:
            await house.start(url, big)
            await happens(server.wait_held)
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert [name for name in left if "download" in name or "checkpoint" in name or "watermark" in name] == []


def test_importing_and_starting_costs_neither_database_nor_http() -> None:
    heavy = (
        "sqlite3",
        "urllib3",
        "http.client",
        "jan_download.engine",
        "jan_download.network.network",
    )
    code = f"import sys, jan_download.plugin; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_lock_of_a_folder_is_exclusive_within_a_process_too(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = FolderLock(path), FolderLock(path)
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()
