"""One run of a job against a real server: the file, the disk under it, and how it is stopped."""

from __future__ import annotations

import errno
import hashlib
import threading
import time

import pytest
from jan_download.engine.stop import Stopped
from jan_download.errors import DiskFull
from jan_download.storage.partial import Partial

from .desk import DATA, SHA256, SIZE, Desk, hashes_of, stopped_after
from .faults import (
    Drop,
    Endless,
    Hold,
    NoLength,
    NoRanges,
    SlowHead,
    WrongLength,
)
from .faultserver import FaultServer


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("pieces", [True, False])
def test_a_file_comes_whole_whatever_is_known_of_it(
    desk: Desk, server: FaultServer, hashed: bool, sized: bool, pieces: bool
) -> None:
    url = server.serve("/f", DATA)
    job = desk.fetch(
        url,
        sha256=SHA256 if hashed else "",
        size=SIZE if sized else 0,
        hashes=hashes_of(DATA) if pieces and sized else None,
    )
    assert desk.content() == DATA
    assert (job.state, job.actual, job.verified, job.high, job.discarded) == ("completed", SHA256, hashed, SIZE, 0)
    assert desk.store.blob(SHA256).samefile(desk.store.final("model.gguf"))


def test_an_empty_file_is_a_file(desk: Desk, server: FaultServer) -> None:
    nothing = hashlib.sha256(b"").hexdigest()
    assert desk.fetch(server.serve("/f", b""), name="empty.txt", size=0, sha256=nothing).state == "completed"
    assert desk.content() == b""


def test_progress_is_told_and_never_goes_back(desk: Desk, server: FaultServer) -> None:
    server.pace.rate = 8_000_000
    desk.fetch(server.serve("/f", DATA, Drop(after=700_000).until(4)), hashes=hashes_of(DATA))
    written = [status.written for status in desk.told]
    assert len(written) >= 3
    assert [status.job.high for status in desk.told] == sorted(status.job.high for status in desk.told)
    assert "v" in desk.told[-1].pieces
    assert desk.told[-1].verified == SIZE


def test_a_group_is_not_named_by_one_member(desk: Desk, server: FaultServer) -> None:
    job = desk.fetch(server.serve("/f", DATA), group="dg-1")
    assert (job.state, job.completed_at) == ("completed", 0.0)
    assert desk.store.blob(SHA256).is_file()
    assert not desk.store.final("model.gguf").exists()


def test_a_file_that_is_there_is_not_fetched(desk: Desk, server: FaultServer) -> None:
    desk.fetch(server.serve("/f", DATA))
    count = len(server.requests)
    desk.journal.update("dl-1", state="running")
    assert desk.run(server.url("/f")).state == "completed"
    assert len(server.requests) == count


# -- the disk ---------------------------------------------------------------------------------------------------------


def test_a_file_that_is_larger_than_the_disk_is_asked_for_once(desk: Desk, server: FaultServer) -> None:
    url = server.serve("/f", DATA, NoRanges(), WrongLength(10**15))
    desk.job(url, size=0)
    for _ in range(3):
        with pytest.raises(DiskFull):
            desk.run(url)
    assert len(server.requests) == 1
    job = desk.journal.get("dl-1")
    assert job is not None
    assert job.total == 10**15 + SIZE


def test_a_body_that_fills_the_disk_gives_it_back(desk: Desk, server: FaultServer) -> None:
    url = server.serve("/f", DATA, NoRanges(), Endless(), NoLength())
    desk.job(url, size=0)
    with pytest.raises(DiskFull):
        desk.run(url, reserve=desk.store.free() - 50_000_000)
    assert desk.store.partial(SHA256).stat().st_size == 0
    job = desk.journal.get("dl-1")
    assert job is not None
    assert job.discarded > 0


def test_a_disk_that_cannot_be_read_ends_the_run(
    desk: Desk, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Partial.readinto

    def broken(partial: Partial, view: memoryview, at: int) -> int:
        if threading.current_thread().name == "download hash":
            raise OSError(errno.EIO, "Input/output error")
        return read(partial, view, at)

    monkeypatch.setattr(Partial, "readinto", broken)
    server.pace.rate = 4_000_000
    url = server.serve("/f", DATA)
    desk.job(url)
    with pytest.raises(OSError, match="Input/output error"):
        desk.run(url, hashes=hashes_of(DATA))
    assert server.sent("/f") < SIZE


# -- stopping ---------------------------------------------------------------------------------------------------------


def test_a_run_stops_at_once_while_its_source_is_silent(desk: Desk, server: FaultServer) -> None:
    url = server.serve("/f", DATA, Hold(at=1_000_000))
    desk.job(url)
    assert stopped_after(desk, lambda: desk.told[-1].job.offset >= 900_000, url) < 1.0
    assert desk.journal.get("dl-1").offset >= 900_000  # type: ignore[union-attr]


def test_a_run_stops_at_once_while_nobody_answers(desk: Desk, server: FaultServer) -> None:
    url = server.serve("/f", DATA, SlowHead())
    desk.job(url)
    assert stopped_after(desk, lambda: len(server.requests) > 0, url) < 1.0
    server.release()
    deadline = time.monotonic() + 1.5
    while left := [each for each in threading.enumerate() if each.name == "download connection"]:
        assert time.monotonic() < deadline
        left[0].join(0.1)


def test_a_run_stops_at_once_while_it_is_held_back_by_a_limit(desk: Desk, server: FaultServer) -> None:
    url = server.serve("/f", DATA)
    desk.job(url)
    ended: list[BaseException] = []

    def work() -> None:
        try:
            desk.run(url, limit=50_000)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    with desk.heard:
        assert desk.heard.wait_for(lambda: bool(desk.told) and desk.told[-1].written > 0, 10)
    began = time.monotonic()
    desk.stop.set()
    thread.join(10)
    assert time.monotonic() - began < 1.0
    assert [type(error) for error in ended] == [Stopped]
