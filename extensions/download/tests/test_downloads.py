"""Downloads as callers see them, against a server that behaves and one that does not."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import RpcError, hookimpl
from jan_core.types import Admission, AdoptedFile, DownloadFile, DownloadJob, DownloadSource

from .conftest import OpenHouse, Request, Web, content, error, rangeless, redirect, sha256, whole

pytestmark = pytest.mark.anyio


async def test_a_file_is_fetched_checked_and_stands_under_its_name(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    url = web.on(whole(data))
    async with open_house() as house:
        started = await house.start(url, data)
        assert started["state"] == "queued"
        job = await house.until(started["id"], "completed")
        path = Path(job["path"])
        assert path == house.data_dir / "files" / "model.gguf"
        assert content(job) == data
        assert job["verified"] is True
        assert (job["bytes_done"], job["bytes_total"], job["bytes_discarded"]) == (len(data), len(data), 0)
        assert list((house.data_dir / "partial").iterdir()) == []
    assert len(web.requests) == 1
    assert web.headers("Accept-Encoding") == ["identity"]


async def test_a_file_without_a_known_hash_is_kept_but_called_unverified(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    async with open_house() as house:
        job = await house.start(web.on(whole(data)), wait=True)
        assert job["verified"] is False
        assert "cannot be checked" in job["warning"]
        assert job["actual_sha256"] == sha256(data)
        assert content(job) == data


async def test_waiting_for_a_download_reports_progress_up_to_the_last_byte(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    seen: list[tuple[str, float | None, float | None]] = []
    async with open_house() as house:
        file = {"name": "f", "url": web.on(whole(data)), "sha256": sha256(data)}
        job = await house.client.call(
            "downloads.start", {"file": file, "wait": True}, progress=lambda *report: seen.append(report)
        )
        assert job["state"] == "completed"
        assert seen[-1] == ("completed", len(data), len(data))


async def test_a_dropped_connection_is_waited_out_and_resumed_where_it_broke(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    url = web.on(whole(data, drop_at=1_000_000), whole(data, drop_at=2_000_000), whole(data))
    async with open_house() as house:
        job = await house.start(url, data, wait=True)
        assert content(job) == data
        assert job["bytes_discarded"] == 0
        assert job["error"] is None
        assert "waiting" in [event["state"] for event in house.events]
    assert web.headers("Range") == [None, "bytes=1000000-", "bytes=2000000-"]
    assert web.headers("If-Range") == [None, '"v1"', '"v1"']


async def test_progress_never_goes_back_and_is_told_at_most_four_times_a_second(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    url = web.on(rangeless(data, drop_at=2_000_000), rangeless(data, drop_at=1_000_000), rangeless(data))
    async with open_house() as house:
        job = await house.start(url, data, wait=True)
        done = [event["bytes_done"] for event in house.events]
        assert done == sorted(done)
        assert job["bytes_discarded"] == 3_000_000
        assert len(house.events) < 30
    assert content(job) == data


async def test_a_server_that_ignores_range_begins_anew_and_the_lost_bytes_are_counted(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    url = web.on(whole(data, drop_at=1_234_567), rangeless(data, ETag='"v1"'))
    async with open_house() as house:
        job = await house.start(url, data, wait=True)
        assert content(job) == data
        assert job["bytes_discarded"] == 1_234_567
    assert web.headers("Range") == [None, "bytes=1234567-"]


async def test_a_file_that_changed_on_the_server_is_never_glued_to_the_old_part(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    new = data[::-1]
    url = web.on(whole(data, drop_at=1_000_000), whole(new, etag='"v2"'))
    async with open_house() as house:
        job = await house.start(url, wait=True)
        assert content(job) == new
        assert job["bytes_discarded"] == 1_000_000


async def test_a_part_with_another_etag_than_was_asked_for_is_not_used(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    new = data[::-1]

    def ignores_if_range(request: Request) -> None:
        del request.headers["If-Range"]
        whole(new, etag='"v2"')(request)

    url = web.on(whole(data, drop_at=1_000_000), ignores_if_range)
    async with open_house() as house:
        job = await house.start(url, wait=True)
        assert content(job) == new


async def test_a_weak_validator_without_a_hash_means_to_begin_anew(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    url = web.on(whole(data, etag='W/"v1"', drop_at=1_000_000), whole(data, etag='W/"v1"'))
    async with open_house() as house:
        job = await house.start(url, wait=True)
        assert job["bytes_discarded"] == 1_000_000
        assert content(job) == data
    assert web.headers("Range") == [None, None]


async def test_without_a_validator_the_known_hash_makes_resuming_safe(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    url = web.on(whole(data, etag='W/"v1"', drop_at=1_000_000), whole(data, etag='W/"v1"'))
    async with open_house() as house:
        job = await house.start(url, data, wait=True)
        assert job["bytes_discarded"] == 0
        assert job["verified"] is True
    assert web.headers("Range") == [None, "bytes=1000000-"]
    assert web.headers("If-Range") == [None, None]


@pytest.mark.parametrize(
    "content_range",
    ["bytes 999-2999999/3000000", "bytes 1000000-2999999/4000000", "bytes 1000000-1999999/3000000", "", "x"],
)
async def test_a_wrong_content_range_is_not_believed(
    open_house: OpenHouse, web: Web, data: bytes, content_range: str
) -> None:
    def liar(request: Request) -> None:
        if request.asked():
            request.head(206, Content_Length=2_000_000, Content_Range=content_range, ETag='"v1"')
            request.wfile.write(data[999:2_000_999])
        else:
            whole(data)(request)

    url = web.on(whole(data, drop_at=1_000_000), liar)
    async with open_house() as house:
        job = await house.start(url, data, wait=True)
        assert content(job) == data
        assert job["bytes_discarded"] == 1_000_000


async def test_a_range_that_cannot_be_satisfied_begins_anew(open_house: OpenHouse, web: Web, data: bytes) -> None:
    short = data[:500_000]

    def shrunk(request: Request) -> None:
        if request.asked():
            request.head(416, Content_Range=f"bytes */{len(short)}", Content_Length=0)
        else:
            whole(short)(request)

    url = web.on(whole(data, drop_at=1_000_000), shrunk)
    async with open_house() as house:
        job = await house.start(url, wait=True)
        assert content(job) == short


async def test_wrong_bytes_never_stand_under_the_final_name(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(whole(data[:-1] + b"!"))
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.start(url, data, wait=True)
        assert (failed.value.type, failed.value.code) == ("hash_mismatch", -32066)
        [job] = (await house.call("list"))["downloads"]
        assert job["state"] == "failed"
        assert job["path"] == ""
        assert not (house.data_dir / "files").exists()
        assert list((house.data_dir / "partial").iterdir()) == []
        web.on(whole(data))
        await house.call("resume", id=job["id"])
        job = await house.until(job["id"], "completed")
        assert content(job) == data


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, "source_not_found"),
        (410, "source_not_found"),
        (401, "source_unauthorized"),
        (403, "source_unauthorized"),
        (400, "bad_source"),
        (204, "bad_source"),
    ],
)
async def test_an_answer_that_will_not_change_fails_at_once(
    open_house: OpenHouse, web: Web, status: int, kind: str
) -> None:
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.start(web.on(error(status)), wait=True)
        assert failed.value.type == kind
        assert str(status) in failed.value.message
    assert len(web.requests) == 1


async def test_a_server_error_is_waited_out(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(error(500), error(503), error(429), whole(data))
    async with open_house() as house:
        job = await house.start(url, data, wait=True)
        assert job["state"] == "completed"
        waits = [event for event in house.events if event["state"] == "waiting"]
        assert [event["attempts"] for event in waits] == [1, 2, 3]
        assert waits[0]["error"]["type"] == "source_unreachable"
        assert waits[0]["error"]["retryable"] is True


async def test_retry_after_is_honoured_and_resume_overrules_it(open_house: OpenHouse, web: Web, data: bytes) -> None:
    from datetime import UTC, datetime

    url = web.on(error(503, Retry_After=1800), whole(data))
    async with open_house() as house:
        job = await house.until((await house.start(url, data))["id"], "waiting")
        wait = datetime.fromisoformat(job["retry_at"]) - datetime.now(UTC)
        assert 1700 < wait.total_seconds() <= 1800
        await house.call("resume", id=job["id"])
        await house.until(job["id"], "completed")


async def test_a_server_that_is_not_there_makes_the_job_wait_and_not_fail(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening
        async with open_house() as house:
            started = await house.start(f"http://127.0.0.1:{taken.getsockname()[1]}/f", data)
            job = await house.until(started["id"], "waiting")
            assert job["error"]["message"] == "127.0.0.1: no connection"


async def test_a_stalled_connection_is_given_up_and_resumed(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(whole(data, hold_at=1_000_000), whole(data))
    async with open_house(stall_timeout=0.3) as house:
        job = await house.start(url, data, wait=True)
        assert job["state"] == "completed"
    assert web.headers("Range") == [None, "bytes=1000000-"]


async def test_a_paused_job_stops_even_on_a_dead_connection_and_goes_on_later(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    url = web.on(whole(data, hold_at=1_000_000), whole(data))
    async with open_house() as house:
        job = await house.start(url, data)
        await house.until(job["id"], "running", done=1_000_000)
        with anyio.fail_after(2):
            paused = await house.call("pause", id=job["id"])
        assert (paused["state"], paused["bytes_done"]) == ("paused", 1_000_000)
        assert (await house.call("pause", id=job["id"]))["state"] == "paused"
        assert (house.data_dir / "partial" / f"{sha256(data)}.partial").stat().st_size == 1_000_000
        await house.call("resume", id=job["id"])
        await house.until(job["id"], "completed")
    assert web.headers("Range") == [None, "bytes=1000000-"]


async def test_a_paused_job_stays_paused_across_a_restart(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(whole(data, hold_at=1_000_000), whole(data))
    async with open_house() as house:
        job = await house.start(url, data)
        await house.until(job["id"], "running", done=1_000_000)
        await house.call("pause", id=job["id"])
    async with open_house() as house:
        again = await house.call("get", id=job["id"])
        assert (again["state"], again["bytes_done"]) == ("paused", 1_000_000)
        await house.call("resume", id=job["id"])
        await house.until(job["id"], "completed")
    assert web.headers("Range") == [None, "bytes=1000000-"]


async def test_a_running_job_goes_on_by_itself_after_a_restart(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(whole(data, hold_at=1_000_000), whole(data))
    async with open_house() as house:
        job = await house.start(url, data)
        await house.until(job["id"], "running", done=1_000_000)
    async with open_house() as house:
        again = await house.until(job["id"], "completed")
        assert again["bytes_discarded"] == 0
    assert web.headers("Range") == [None, "bytes=1000000-"]


async def test_a_running_job_is_paused_after_a_restart_where_that_is_wanted(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    url = web.on(whole(data, hold_at=1_000_000))
    async with open_house() as house:
        job = await house.start(url, data)
        await house.until(job["id"], "running", done=1_000_000)
    async with open_house(resume_at_start=False) as house:
        await house.until(job["id"], "paused")
    assert len(web.requests) == 1


async def test_a_cancelled_job_leaves_nothing_behind(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(whole(data, hold_at=1_000_000))
    async with open_house() as house:
        job = await house.start(url, data)
        await house.until(job["id"], "running", done=1_000_000)
        cancelled = await house.call("cancel", id=job["id"])
        assert cancelled["state"] == "cancelled"
        assert list((house.data_dir / "partial").iterdir()) == []
        with pytest.raises(RpcError) as refused:
            await house.call("resume", id=job["id"])
        assert refused.value.type == "download_conflict"


async def test_who_waits_for_a_cancelled_job_is_told(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(whole(data, hold_at=1000))
    async with open_house() as house, anyio.create_task_group() as group:

        async def cancel() -> None:
            job = await house.start(url, data)
            await house.until(job["id"], "running", done=1000)
            await house.call("cancel", id=job["id"])

        group.start_soon(cancel)
        with pytest.raises(RpcError) as ended:
            await house.start(url, data, wait=True)
        assert ended.value.type == "download_cancelled"


async def test_credentials_go_to_their_own_host_and_nowhere_else(open_house: OpenHouse, web: Web, data: bytes) -> None:
    class Hub:
        @hookimpl
        def jan_download_sources(self, file: DownloadFile) -> list[DownloadSource]:
            return [DownloadSource(web.url("/start"), headers={"Authorization": "Bearer secret"})]

    web.on(redirect("/same"), path="/start")
    web.on(redirect(web.url("/file", host="localhost")), path="/same")
    web.on(whole(data))
    async with open_house(Hub()) as house:
        job = await house.call("start", file={"name": "f", "sha256": sha256(data)}, wait=True)
        assert job["verified"] is True
        assert b"secret" not in (house.data_dir / "downloads.db").read_bytes()
    assert [web.headers("Authorization", p) for p in ("/start", "/same", "/file")] == [
        ["Bearer secret"], ["Bearer secret"], [None],
    ]  # fmt: skip


async def test_a_redirect_without_end_or_to_something_else_than_the_web_is_refused(
    open_house: OpenHouse, web: Web
) -> None:
    for path, to in [
        ("/loop", "/loop"),
        ("/local", "file:///etc/passwd"),
        ("/login", "http://u:p@127.0.0.1/"),
    ]:
        async with open_house() as house:
            with pytest.raises(RpcError) as failed:
                await house.start(web.on(redirect(to), path=path), wait=True)
            assert failed.value.type == "bad_source", path
    assert len(web.headers("Host", "/loop")) == 11


async def test_a_link_that_expired_behind_a_redirect_is_asked_for_anew(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    url = web.on(redirect(web.url("/cdn", host="localhost")), path="/hub")
    web.on(error(403), whole(data), path="/cdn")
    async with open_house() as house:
        job = await house.start(url, data, wait=True)
        assert job["state"] == "completed"
    assert len(web.headers("Host", "/hub")) == 2


async def test_a_second_source_is_used_when_the_first_has_no_such_file(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    class Mirror:
        @hookimpl
        def jan_download_sources(self, file: DownloadFile) -> list[DownloadSource]:
            return [
                DownloadSource(web.on(whole(data), path="/mirror"), priority=1),
                DownloadSource("file:///x"),
            ]

    async with open_house(Mirror()) as house:
        job = await house.start(web.on(error(404)), data, wait=True)
        assert job["verified"] is True


async def test_a_veto_keeps_a_download_from_starting_and_its_reason_is_told(
    open_house: OpenHouse, web: Web, data: bytes
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
            await house.start(web.on(whole(data)), data)
        assert refused.value.type == "download_refused"
        assert "this network is metered" in refused.value.message
        assert refused.value.data["extension"] == "other1"
        assert (await house.call("list"))["downloads"] == []
    assert asked[0].file.size == len(data)
    assert asked[0].disk_free > 0
    assert web.requests == []


async def test_a_copy_that_is_here_already_costs_no_network(
    open_house: OpenHouse, web: Web, data: bytes, tmp_path: Path
) -> None:
    copy = tmp_path / "blob"
    copy.write_bytes(data)

    class Neighbour:
        @hookimpl
        def jan_adopt_file(self, sha256: str, size: int) -> AdoptedFile:
            return AdoptedFile(str(copy), "neighbour")

    async with open_house(Neighbour()) as house:
        job = await house.start(web.on(whole(data)), data, wait=True)
        assert (job["origin"], job["verified"]) == ("neighbour", True)
        assert content(job) == data
        second = await house.start(web.url(), data, destination="second.gguf", wait=True)
        assert second["origin"] == f"download {job['id']}"
    assert web.requests == []


async def test_a_copy_that_is_not_what_it_is_said_to_be_is_not_taken(
    open_house: OpenHouse, web: Web, data: bytes, tmp_path: Path
) -> None:
    copy = tmp_path / "blob"
    copy.write_bytes(data[::-1])

    class Neighbour:
        @hookimpl
        def jan_adopt_file(self, sha256: str, size: int) -> AdoptedFile:
            return AdoptedFile(str(copy), "neighbour")

    async with open_house(Neighbour()) as house:
        job = await house.start(web.on(whole(data)), data, wait=True)
        assert (job["origin"], job["verified"]) == ("", True)
    assert len(web.requests) == 1


async def test_a_file_too_big_for_the_disk_is_refused_before_it_starts(open_house: OpenHouse, web: Web) -> None:
    async with open_house() as house:
        with pytest.raises(RpcError) as refused:
            await house.call("start", file={"name": "f", "url": web.url(), "size": 2**60})
        assert (refused.value.type, refused.value.code) == ("disk_full", -32063)
        assert refused.value.data["needed"] >= 2**60
        assert refused.value.retryable
    assert web.requests == []


async def test_a_size_that_only_the_server_knows_is_checked_against_the_disk_too(
    open_house: OpenHouse, web: Web
) -> None:
    url = web.on(lambda request: request.head(200, Content_Length=2**60))
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.start(url, wait=True)
        assert failed.value.type == "disk_full"


async def test_a_disk_that_fills_up_fails_the_job_but_keeps_what_it_has(
    open_house: OpenHouse, web: Web, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def pwrite(fd: int, chunk: Any, at: int) -> int:
        if at + len(chunk) > 1_500_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, chunk, at)

    url = web.on(whole(data))
    async with open_house() as house:
        monkeypatch.setattr(os, "pwrite", pwrite)
        with pytest.raises(RpcError) as failed:
            await house.start(url, data, wait=True)
        assert failed.value.type == "disk_full"
        [job] = (await house.call("list"))["downloads"]
        assert job["state"] == "failed"
        assert job["error"]["retryable"] is True
        kept = job["bytes_done"]
        assert 1_000_000 < kept <= 1_500_000
        monkeypatch.setattr(os, "pwrite", real)
        await house.call("resume", id=job["id"])
        job = await house.until(job["id"], "completed")
        assert content(job) == data
    assert web.headers("Range") == [None, f"bytes={kept}-"]


async def test_a_server_with_a_file_of_another_size_is_refused_before_a_byte_is_kept(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.start(web.on(whole(data + b"more")), data, wait=True)
        assert failed.value.type == "bad_source"


async def test_a_body_longer_than_the_known_size_is_cut_off(open_house: OpenHouse, web: Web, data: bytes) -> None:
    def endless(request: Request) -> None:
        request.head(200, Connection="close")
        while True:
            request.wfile.write(data)

    async with open_house() as house:
        with pytest.raises(RpcError) as failed:
            await house.start(web.on(endless), data, wait=True)
        assert "more than 3000000 bytes" in failed.value.message


async def test_a_chunked_answer_is_taken_and_a_broken_one_is_not_mistaken_for_its_end(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    def chunked(end: bytes) -> Any:
        def reply(request: Request) -> None:
            request.head(200, Transfer_Encoding="chunked")
            for at in range(0, len(data), 100_000):
                request.wfile.write(b"%x\r\n%b\r\n" % (len(data[at : at + 100_000]), data[at : at + 100_000]))
            request.wfile.write(end)
            request.drop()

        return reply

    async with open_house() as house:
        job = await house.start(web.on(chunked(b""), chunked(b"0\r\n\r\n")), wait=True)
        assert content(job) == data
    assert len(web.requests) == 2


async def test_an_encoded_answer_is_refused(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(rangeless(data, Content_Encoding="gzip"))
    async with open_house() as house:
        with pytest.raises(RpcError, match="encoded as gzip"):
            await house.start(url, wait=True)


async def test_the_same_file_is_not_fetched_twice(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(whole(data, hold_at=1000))
    async with open_house() as house:
        first = await house.start(url, data)
        assert (await house.start(url, data))["id"] == first["id"]
        await house.until(first["id"], "running", done=1000)
        assert (await house.start(url, data))["id"] == first["id"]
        with pytest.raises(RpcError) as conflict:
            await house.start(url, data, destination="other.gguf")
        assert (conflict.value.type, conflict.value.data["job"]) == ("download_conflict", first["id"])
        web.released.set()
        await house.until(first["id"], "completed")
        again = await house.start(url, data)
        assert (again["id"], again["state"]) == (first["id"], "completed")
    assert len(web.requests) == 1


async def test_two_starts_at_once_make_one_job(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(whole(data))
    async with open_house() as house:
        ids: list[str] = []

        async def start() -> None:
            ids.append((await house.start(url, data, wait=True))["id"])

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(start)
        assert len(set(ids)) == 1
    assert len(web.requests) == 1


async def test_a_destination_that_is_taken_is_not_overwritten(open_house: OpenHouse, web: Web, data: bytes) -> None:
    url = web.on(whole(data))
    async with open_house() as house:
        files = house.data_dir / "files"
        files.mkdir()
        (files / "model.gguf").write_bytes(b"mine")
        with pytest.raises(RpcError) as conflict:
            await house.start(url, data)
        assert conflict.value.type == "download_conflict"
        assert (files / "model.gguf").read_bytes() == b"mine"


@pytest.mark.parametrize("destination", ["../evil", "/etc/passwd", "a/b", "..", "C:\\x", "con", "x\0y"])
async def test_nothing_is_written_outside_the_folder(
    open_house: OpenHouse, web: Web, data: bytes, destination: str
) -> None:
    async with open_house() as house:
        for params in ({"destination": destination}, {"file": {"name": destination, "url": web.url()}}):
            with pytest.raises(RpcError) as refused:
                await house.call("start", **{"file": {"name": "f", "url": web.url()}, **params})
            assert refused.value.code == -32602
            assert refused.value.data["path"] in ("$.destination", "$.file.name")
    assert web.requests == []


async def test_the_number_of_running_jobs_is_limited_and_the_others_follow(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    async with open_house(max_running=1) as house:
        jobs = []
        for n in range(3):
            url = web.on(whole(data, hold_at=1000), path=f"/{n}")
            jobs.append(await house.call("start", file={"name": f"f{n}", "url": url}))
        await house.until(jobs[0]["id"], "running", done=1000)
        assert [job["state"] for job in (await house.call("list"))["downloads"]] == [
            "running",
            "queued",
            "queued",
        ]
        assert len((await house.call("list", states=["queued"]))["downloads"]) == 2
        web.released.set()
        for job in jobs:
            await house.until(job["id"], "completed")


async def test_a_job_that_waits_leaves_its_place_to_the_next(open_house: OpenHouse, web: Web, data: bytes) -> None:
    async with open_house(max_running=1) as house:
        stuck = await house.call(
            "start", file={"name": "a", "url": web.on(error(503, Retry_After=1000), path="/stuck")}
        )
        job = await house.call("start", file={"name": "b", "url": web.on(whole(data))}, wait=True)
        assert job["state"] == "completed"
        await house.until(stuck["id"], "waiting")


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"flipped")


async def test_verify_finds_a_damaged_file_and_takes_it_out_of_use(
    open_house: OpenHouse, web: Web, data: bytes
) -> None:
    url = web.on(whole(data))
    async with open_house() as house:
        job = await house.start(url, data, wait=True)
        path = Path(job["path"])
        assert path.name == "model.gguf"
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
        }
        damage(path)
        assert (await house.call("verify", id=job["id"]))["ok"] is False
        assert list((house.data_dir / "files").iterdir()) == []
        assert len(list((house.data_dir / "damaged").iterdir())) == 1
        failed = await house.call("get", id=job["id"])
        assert (failed["state"], failed["error"]["type"]) == ("failed", "hash_mismatch")
        await house.call("resume", id=job["id"])
        assert content(await house.until(job["id"], "completed")) == data


async def test_unknown_jobs_and_wrong_states_are_named(open_house: OpenHouse, web: Web, data: bytes) -> None:
    async with open_house() as house:
        for name in ("get", "pause", "resume", "cancel", "verify"):
            with pytest.raises(RpcError) as missing:
                await house.call(name, id="dl-none")
            assert (missing.value.type, missing.value.code) == ("download_not_found", -32060)
        job = await house.start(web.on(whole(data)), data, wait=True)
        for name in ("pause", "resume", "cancel"):
            with pytest.raises(RpcError) as wrong:
                await house.call(name, id=job["id"])
            assert (wrong.value.type, wrong.value.data["state"]) == ("download_conflict", "completed")
        with pytest.raises(RpcError) as nothing:
            await house.call("start", file={"name": "f"})
        assert nothing.value.code == -32602


async def test_a_damaged_journal_is_set_aside_and_a_new_one_begun(
    open_house: OpenHouse, web: Web, data: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "download"
    folder.mkdir(parents=True)
    (folder / "downloads.db").write_bytes(b"this is no database" * 500)
    async with open_house() as house:
        job = await house.start(web.on(whole(data)), data, wait=True)
        assert job["state"] == "completed"
        [aside] = folder.glob("downloads.db.damaged-*")
        assert aside.read_bytes().startswith(b"this is no database")


async def test_a_quiet_start_touches_neither_database_nor_network(open_house: OpenHouse) -> None:
    async with open_house() as house:
        assert (await house.call("list"))["downloads"] == []
        assert not (house.data_dir / "downloads.db").exists()
