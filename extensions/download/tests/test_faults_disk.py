"""A disk without room: the download waits for it, keeps what it has, and goes on by itself."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from .faults import Hold
from .faultserver import FaultServer
from .house import OpenHouse, content, happens, house_opener


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk whose free bytes are what the list says."""
    free = [1 << 40]
    usage = type(shutil.disk_usage("."))

    def told(path: Any) -> Any:
        return usage(1 << 40, (1 << 40) - free[0], free[0])

    monkeypatch.setattr(shutil, "disk_usage", told)
    return free


async def test_a_download_without_room_waits_for_it_and_begins_by_itself(
    open_house: OpenHouse, server: FaultServer, data: bytes, disk: list[int]
) -> None:
    disk[0] = 1_000_000
    async with open_house() as house:
        job = await house.start(server.serve("/f", data), data)
        job = await house.until(job["id"], "blocked_disk")
        assert "bytes" in job["waiting_for"] or "disk" in job["waiting_for"]
        assert server.requests == []
        disk[0] = 1 << 40
        assert content(await house.until(job["id"], "completed")) == data


async def test_what_is_promised_to_one_download_is_not_promised_to_another(
    open_house: OpenHouse, server: FaultServer, data: bytes, disk: list[int]
) -> None:
    disk[0] = 5_000_000
    async with open_house() as house:
        first = await house.start(server.serve("/1", data, Hold(at=10_000)), data, name="1.bin")
        await happens(server.wait_held)
        disk[0] = 5_000_000 - 3_000_000  # taken at once
        second = await house.start(server.serve("/2", data[1:]), data[1:], name="2.bin")
        await house.until(second["id"], "blocked_disk")
        assert server.seen("/2") == []
        await house.call("cancel", id=first["id"])
        disk[0] = 5_000_000
        assert content(await house.until(second["id"], "completed")) == data[1:]


async def test_the_reserve_is_left_alone(
    open_house: OpenHouse, server: FaultServer, data: bytes, disk: list[int]
) -> None:
    disk[0] = 10_000_000
    async with open_house(reserve_bytes=8_000_000) as house:
        job = await house.start(server.serve("/f", data), data)
        await house.until(job["id"], "blocked_disk")
        await house.client.call("settings.set", {"extension": "download", "values": {"reserve_bytes": 0}})
        assert content(await house.until(job["id"], "completed")) == data


async def test_a_disk_that_fills_up_while_bytes_come_blocks_the_job_which_keeps_what_it_has(
    open_house: OpenHouse, server: FaultServer, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = os.pwrite, [True]

    def pwrite(fd: int, block: Any, at: int) -> int:
        if full[0] and at + len(block) > 1_500_000 and os.fstat(fd).st_size == len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, block, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    async with open_house() as house:
        job = await house.start(server.serve("/f", data), data)
        job = await house.until(job["id"], "blocked_disk")
        kept = job["bytes_done"]
        assert 0 < kept <= 1_500_000
        full[0] = False
        await house.call("resume", id=job["id"])  # a person may be faster than it is by itself
        done = await house.until(job["id"], "completed")
        assert content(done) == data
    assert server.seen("/f")[-1].range is not None
    assert (server.seen("/f")[-1].range or (0, 0))[0] == kept


@pytest.mark.parametrize("method", ["pause", "cancel"])
async def test_a_blocked_download_can_be_paused_and_cancelled(
    open_house: OpenHouse, server: FaultServer, data: bytes, disk: list[int], method: str
) -> None:
    disk[0] = 1_000_000
    async with open_house() as house:
        job = await house.start(server.serve("/f", data), data)
        await house.until(job["id"], "blocked_disk")
        with anyio.fail_after(2):
            assert (await house.one(method, job["id"]))["state"] == {"pause": "paused", "cancel": "cancelled"}[method]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 16 MB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount")
async def test_a_real_disk_that_is_full_is_waited_for(
    open_host: Any, small_disk: Path, server: FaultServer, big: bytes
) -> None:
    data = big[:9_000_000]
    filler = small_disk / "filler"
    filler.write_bytes(bytes(9_000_000))
    open_house = house_opener(open_host, small_disk / "data")
    async with open_house() as house:
        unknown = await house.start(server.serve("/u", data), name="unknown.bin")  # nobody knows its size beforehand
        job = await house.start(server.serve("/f", data), data)
        await house.until(job["id"], "blocked_disk")
        await house.until(unknown["id"], "blocked_disk")
        await house.call("cancel", id=unknown["id"])
        filler.unlink()
        assert content(await house.until(job["id"], "completed")) == data
