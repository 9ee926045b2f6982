"""Downloads as callers see them: what is answered, kept, refused, told. What servers do wrong is in `test_faults_*`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from jan_core import RpcError, hookimpl
from jan_core.types import Admission, AdoptedFile, DownloadFile, DownloadJob, DownloadSource

from .faults import Hold, Status
from .faultserver import FaultServer
from .house import Mirrors, OpenHouse, content, happens, sha256


async def test_a_file_is_fetched_checked_and_stands_under_its_name(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data)
    async with open_house() as house:
        started = await house.start(url, data)
        assert started["state"] == "queued"
        job = await house.until(started["id"], "completed")
        assert Path(job["path"]) == house.data_dir / "files" / "model.bin"
        assert content(job) == data
        assert job["verified"] is True
        assert (job["bytes_done"], job["bytes_total"], job["bytes_discarded"]) == (len(data), len(data), 0)
        assert job["actual_sha256"] == sha256(data)
        assert [path.name for path in (house.data_dir / "blobs").rglob("*") if path.is_file()] == [sha256(data)]
        assert list((house.data_dir / "partial").iterdir()) == []
    assert server.sent() == len(data)
    assert set(server.headers("Accept-Encoding")) == {"identity"}


async def test_a_file_without_a_known_hash_is_kept_but_called_unverified(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house() as house:
        job = await house.fetch(server.serve("/f", data))
        assert job["verified"] is False
        assert "cannot be checked" in job["warning"]
        assert job["actual_sha256"] == sha256(data)
        assert content(job) == data


async def test_a_large_file_without_a_hash_comes_over_several_connections_when_its_version_is_sure(
    open_house: OpenHouse, server: FaultServer, big: bytes
) -> None:
    async with open_house() as house:
        job = await house.fetch(server.serve("/f", big))
        assert content(job) == big
    assert server.sent() == len(big)


async def test_waiting_for_a_download_reports_progress_up_to_the_last_byte(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    seen: list[tuple[str, float | None, float | None]] = []
    async with open_house() as house:
        file = house.file(server.serve("/f", data), data)
        job = await house.client.call(
            "downloads.start", {"file": file, "wait": True}, progress=lambda *report: seen.append(report)
        )
        assert job["state"] == "completed"
        assert seen[-1] == ("completed", len(data), len(data))


async def test_who_waits_for_a_cancelled_job_is_told(open_house: OpenHouse, server: FaultServer, data: bytes) -> None:
    url = server.serve("/f", data, Hold(at=1000))
    async with open_house() as house, anyio.create_task_group() as group:

        async def cancel() -> None:
            await happens(server.wait_held)
            await house.call("cancel", id=(await house.start(url, data))["id"])

        group.start_soon(cancel)
        with pytest.raises(RpcError) as ended:
            await house.fetch(url, data)
        assert ended.value.type == "download_cancelled"


async def test_a_caller_who_leaves_does_not_stop_the_job(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=1000))
    async with open_house() as house:
        with anyio.move_on_after(20) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(happens, server.wait_held)

                async def leave() -> None:
                    await happens(server.wait_held)
                    scope.cancel()

                group.start_soon(leave)
                await house.start(url, data, wait=True)
        [job] = (await house.call("list"))["downloads"]
        assert job["state"] == "running"
        server.release()
        await house.until(job["id"], "completed")


async def test_a_running_job_goes_on_by_itself_after_a_restart(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=1_000_000).times(1))
    async with open_house() as house:
        job = await house.start(url, data)
        await house.until(job["id"], "running", done=700_000)
    async with open_house() as house:
        again = await house.until(job["id"], "completed")
        assert again["bytes_discarded"] == 0
    assert [seen.range[0] for seen in server.seen() if seen.range] == [0, 1_000_000]


async def test_a_running_job_is_paused_after_a_restart_where_that_is_wanted(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(at=1_000_000))
    async with open_house() as house:
        job = await house.start(url, data)
        await house.until(job["id"], "running", done=700_000)
    async with open_house(resume_at_start=False) as house:
        await house.until(job["id"], "paused")
    assert len(server.requests) == 1


async def test_a_veto_keeps_a_download_from_starting_and_its_reason_is_told(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    asked: list[DownloadJob] = []

    class Meter:
        @hookimpl
        def jan_admit_download(self, job: DownloadJob) -> Admission:
            asked.append(job)
            return Admission(False, "this network is metered")

    class Broken:
        @hookimpl
        def jan_admit_download(self, job: DownloadJob) -> Admission:
            raise RuntimeError("a bug is not a veto, and hides none")

    async with open_house(Broken(), Meter()) as house:
        with pytest.raises(RpcError) as refused:
            await house.start(server.serve("/f", data), data)
        assert refused.value.type == "download_refused"
        assert "this network is metered" in refused.value.message
        assert refused.value.data["extension"] == "other1"
        assert (await house.call("list"))["downloads"] == []
    assert asked[0].file.size == len(data)
    assert asked[0].disk_free > 0
    assert server.requests == []


async def test_a_copy_that_is_here_already_costs_no_network(
    open_house: OpenHouse, server: FaultServer, data: bytes, tmp_path: Path
) -> None:
    copy = tmp_path / "blob"
    copy.write_bytes(data)

    class Neighbour:
        @hookimpl
        def jan_adopt_file(self, sha256: str, size: int) -> AdoptedFile:
            return AdoptedFile(str(copy), "neighbour")

    async with open_house(Neighbour()) as house:
        job = await house.fetch(server.serve("/f", data), data)
        assert (job["origin"], job["verified"]) == ("neighbour", True)
        assert content(job) == data
        second = await house.fetch(server.url("/f"), data, destination="second.bin")
        assert content(second) == data
    assert server.requests == []


async def test_a_copy_that_is_not_what_it_is_said_to_be_is_not_taken(
    open_house: OpenHouse, server: FaultServer, data: bytes, tmp_path: Path
) -> None:
    copy = tmp_path / "blob"
    copy.write_bytes(data[::-1])

    class Neighbour:
        @hookimpl
        def jan_adopt_file(self, sha256: str, size: int) -> AdoptedFile:
            return AdoptedFile(str(copy), "neighbour")

    async with open_house(Neighbour()) as house:
        job = await house.fetch(server.serve("/f", data), data)
        assert (job["origin"], job["verified"]) == ("", True)
    assert server.sent() == len(data)
    assert copy.read_bytes() == data[::-1]


async def test_a_source_that_is_no_web_address_is_left_out(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house(Mirrors("file:///etc/passwd", server.serve("/mirror", data))) as house:
        job = await house.fetch(server.serve("/f", b"", Status(404)), data)
        assert content(job) == data


async def test_a_destination_that_is_taken_is_not_overwritten(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house(checked=False) as house:
        mine = house.data_dir / "files" / "model.bin"
        mine.parent.mkdir(parents=True)
        mine.write_bytes(b"mine")
        with pytest.raises(RpcError) as conflict:
            await house.start(server.serve("/f", data), data)
        assert conflict.value.type == "download_conflict"
        assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize("destination", ["../evil", "/etc/passwd", "a/b", "..", "C:\\x", "con", "x\0y"])
async def test_nothing_is_written_outside_the_folder(
    open_house: OpenHouse, server: FaultServer, destination: str
) -> None:
    async with open_house() as house:
        file = {"name": "f", "url": server.url("/f")}
        for params in ({"destination": destination}, {"file": file | {"name": destination}}):
            with pytest.raises(RpcError) as refused:
                await house.call("start", **{"file": file, **params})
            assert refused.value.code == -32602
            assert refused.value.data["path"] in ("$.destination", "$.file.name")
            with pytest.raises(RpcError) as refused:
                await house.call("start_group", files=[{"file": file, **params}])
            assert refused.value.code == -32602
    assert server.requests == []


async def test_a_job_that_waits_leaves_its_place_to_the_next(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    async with open_house(max_running=1) as house:
        stuck = await house.start(server.serve("/stuck", data, Status(503, retry_after=1000)), name="a.bin")
        await house.fetch(server.serve("/f", data), data)
        await house.until(stuck["id"], "waiting")


async def test_verify_finds_a_damaged_file_and_takes_it_out_of_use(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"flipped")

    async with open_house() as house:
        job = await house.fetch(server.serve("/f", data), data)
        good = await house.call("verify", id=job["id"])
        assert good == {
            "id": job["id"],
            "ok": True,
            "actual": sha256(data),
            "expected": sha256(data),
            "known_before": True,
            "size": len(data),
            "damaged": 0,
            "repairing": False,
            "warning": "",
        }
        damage(Path(job["path"]))
        assert (await house.call("verify", id=job["id"]))["ok"] is False
        assert list((house.data_dir / "files").iterdir()) == []
        failed = await house.call("get", id=job["id"])
        assert (failed["state"], failed["path"], failed["error"]["type"]) == ("failed", "", "hash_mismatch")
        await house.call("resume", id=job["id"])
        assert content(await house.until(job["id"], "completed")) == data


async def test_unknown_jobs_and_wrong_states_are_named(open_house: OpenHouse, server: FaultServer, data: bytes) -> None:
    async with open_house() as house:
        for name in ("get", "group", "pause", "resume", "cancel", "configure", "verify", "remove", "history"):
            for unknown in ("dl-none", "dg-none"):
                with pytest.raises(RpcError) as missing:
                    await house.call(name, id=unknown)
                assert (missing.value.type, missing.value.code) == ("download_not_found", -32060), name
        job = await house.fetch(server.serve("/f", data), data)
        for name in ("pause", "resume", "cancel"):
            with pytest.raises(RpcError) as wrong:
                await house.call(name, id=job["id"])
            assert (wrong.value.type, wrong.value.data["state"]) == ("download_conflict", "completed")
        with pytest.raises(RpcError) as nothing:
            await house.call("start", file={"name": "f"})
        assert nothing.value.code == -32602


@pytest.mark.parametrize(
    "params",
    [
        {"limit": -1},
        {"priority": 1000},
        {"not_before": "soon"},
        {"unknown": 1},
        {"destination": 5},
        {"file": {"name": "f", "url": "ftp://h/f"}},
        {"file": {"name": "f", "url": "http://u:p@h/f"}},
        {"file": {"name": "f", "url": "http://h/f", "sha256": "abc"}},
        {"file": {"name": "f", "url": "http://h/f", "size": -1}},
        {
            "file": {
                "name": "f",
                "url": "http://h/f",
                "pieces": {"length": 0, "count": 1, "sha256": "a" * 64, "url": "x"},
            }
        },
    ],
    ids=repr,
)
async def test_a_request_that_makes_no_sense_is_refused_with_the_field_that_is_wrong(
    open_house: OpenHouse, params: dict[str, object]
) -> None:
    async with open_house() as house:
        with pytest.raises(RpcError) as refused:
            await house.call("start", **{"file": {"name": "f", "url": "http://127.0.0.1:1/f"}} | params)
        assert refused.value.code == -32602
        assert (await house.call("list"))["downloads"] == []


async def test_lists_are_by_state_and_bounded(open_house: OpenHouse, server: FaultServer, data: bytes) -> None:
    async with open_house() as house:
        for n in range(3):
            await house.fetch(server.serve(f"/{n}", data[n:]), data[n:], name=f"{n}.bin")
        waits = await house.start(server.serve("/w", data, Status(503, retry_after=1000)), name="w.bin")
        await house.until(waits["id"], "waiting")

        async def listed(**params: object) -> list[str]:
            return [job["name"] for job in (await house.call("list", **params))["downloads"]]

        assert await listed() == ["0.bin", "1.bin", "2.bin", "w.bin"]
        assert await listed(states=["completed"], limit=2) == ["1.bin", "2.bin"]
        assert await listed(states=["waiting", "paused"]) == ["w.bin"]


async def test_a_quiet_start_touches_neither_database_nor_network(open_house: OpenHouse) -> None:
    async with open_house() as house:
        assert (await house.call("list"))["downloads"] == []
        assert not (house.data_dir / "downloads.db").exists()


async def test_a_file_that_only_its_hash_names_is_fetched_from_whoever_has_it(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    asked: list[DownloadFile] = []

    class Hub(Mirrors):
        @hookimpl
        def jan_download_sources(self, file: DownloadFile) -> list[DownloadSource]:
            asked.append(file)
            return self.sources

    async with open_house(Hub(server.serve("/f", data))) as house:
        job = await house.fetch("", data)
        assert content(job) == data
    assert asked[0].sha256 == sha256(data)


async def test_what_an_extension_says_of_the_file_s_own_address_is_heeded(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data)
    headers = {"Authorization": "Bearer secret", "X-Team": "blue"}
    async with open_house(Mirrors(DownloadSource(url, headers=headers))) as house:
        await house.fetch(url, data)
    assert server.headers("X-Team") == ["blue"]
    assert server.headers("Authorization") == ["Bearer secret"]


async def test_a_file_that_became_smaller_on_its_server_is_never_shown_as_more_than_whole(
    open_house: OpenHouse, serve_more: Callable[..., FaultServer], data: bytes
) -> None:
    small = data[:500_000]
    server = serve_more()
    url = server.serve("/f", data, Hold(at=2_000_000))
    async with open_house() as house:
        job = await house.start(url)
        await happens(server.wait_held)
        await house.until(job["id"], "running", done=1_000_000)
        await house.call("pause", id=job["id"])
        server.serve("/f", small, Hold(at=100_000))
        await house.call("resume", id=job["id"])
        await happens(server.wait_held)
        now = await house.see(job["id"], lambda job: job["bytes_total"] == len(small))
        assert now["bytes_done"] <= len(small)
        server.release()
        job = await house.until(job["id"], "completed")
        assert (job["bytes_done"], job["bytes_total"], job["bytes_verified"]) == (len(small),) * 3
        assert content(job) == small
